"""Writing a backbone as a folder in diffusers' layout, which load_backbone reads back.

Weights are safetensors; nothing that runs is written.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import msgspec
import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedTokenizerBase, T5EncoderModel

from canvas_robot.backbone.configuration import BackboneConfiguration
from canvas_robot.backbone.loading import Backbone
from canvas_robot.backbone.part_config import BackboneError

WEIGHTS = {
    "transformer": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
}
_CLASSES = {
    "transformer": CogVideoXTransformer3DModel.__name__,
    "vae": AutoencoderKLCogVideoX.__name__,
    "text_encoder": T5EncoderModel.__name__,
}


def copy_backbone(folder: Path, target: str | Path) -> None:
    """Copies a backbone's folder, its four parts and nothing else that lies there."""
    for part in (*WEIGHTS, "tokenizer"):
        shutil.copytree(folder / part, Path(target) / part)


def write_backbone(
    folder: str | Path, backbone: Backbone, dtype: torch.dtype = torch.float32
) -> Path:
    """Writes all parts of a backbone to a new folder, whole or not at all; returns the folder.

    Args:
        backbone: with its text encoder and tokenizer, not grafted.
        dtype: of the stored weights.
    Raises:
        BackboneError: the folder exists, or the backbone lacks its text encoder.
    """
    target = Path(folder).expanduser()
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise BackboneError(f"{target}: expected a new or empty folder; remove it or name another")
    if backbone.text_encoder is None or backbone.tokenizer is None:
        raise BackboneError(
            f"backbone {backbone.source!r}: expected one with its text encoder, which a folder "
            "needs to embed new instructions; load it with text_encoder=True"
        )
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        modules = {name: getattr(backbone, name) for name in _CLASSES}
        for name, module in modules.items():
            _write_part(part / name, name, module, backbone.configuration, dtype)
        _write_tokenizer(part / "tokenizer", backbone.tokenizer)
        if target.exists():
            target.rmdir()
        os.replace(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return target


def _write_part(
    folder: Path,
    name: str,
    module: nn.Module,
    configuration: BackboneConfiguration,
    dtype: torch.dtype,
) -> None:
    folder.mkdir(parents=True)
    weights = {
        key: parameter.detach().to("cpu", dtype).contiguous()
        for key, parameter in module.named_parameters()
    }
    save_file(weights, folder / WEIGHTS[name], metadata={"format": "pt"})
    config = {
        "_class_name": _CLASSES[name],
        **msgspec.to_builtins(getattr(configuration, name)),
    }
    if name == "text_encoder":
        config = {"model_type": "t5", "architectures": [config.pop("_class_name")], **config}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _write_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    folder.mkdir()
    tokenizer.save_pretrained(folder)
