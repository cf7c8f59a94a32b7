"""Checkpoints: a folder of declarations, statistics and safetensors weights.

Loading one runs no code from it.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Literal

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from canvas_robot.backbone.digest import digest_of, digest_of_file
from canvas_robot.backbone.loading import DTYPES, Backbone, load_backbone_for
from canvas_robot.backbone.sources import split_revision
from canvas_robot.policy.model import CanvasModel
from canvas_robot.policy.policy import CanvasPolicy
from canvas_robot.policy.prompts import PromptFolder, open_prompts
from canvas_robot.schema import CanvasSchema
from canvas_robot.signals import (
    Binding,
    VectorSignal,
    load_binding,
    load_statistics,
    save_statistics,
)

Actions = Literal["", "recorded", "composed", "naive"]

FILES = ("schema.json", "binding.yaml", "statistics.json", "weights.safetensors", "config.json")
_FIXED = ("schema.json", "statistics.json", "weights.safetensors")


class CheckpointError(ValueError):
    """A folder is not a checkpoint, or not one for what it is used with."""


class CheckpointConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """config.json: which backbone the weights belong to, and what they are.

    backbone_sha256 is each part's fingerprint, see Backbone; backbone_revision a hub id's commit.
    freeze: what of the transformer is not among the weights, see CanvasModel.
    framing: the VAE's, as of the schema.
    actions: what the training's actions were, see canvas_robot.data.transitions; "": not known.
        All but "recorded" ones are motions that were achieved: they act on the measured pose.
    data: fingerprint of the training's data set.
    sha256: of the other files, by name; the binding's may be edited and is not among them.
    """

    backbone: str
    backbone_sha256: dict[str, str]
    loops: int
    trained: bool
    backbone_revision: str = ""
    freeze: Literal["full", "half", "none"] = "full"
    framing: Literal["image"] = "image"
    actions: Actions = ""
    data: str = ""
    sha256: dict[str, str] = {}
    format: int = 1


def save_checkpoint(
    policy: CanvasPolicy, folder: str | Path, actions: Actions = "", data: str = ""
) -> Path:
    """Writes a policy's weights and declarations to a folder; the backbone is named, not copied.

    `actions` and `data` are as of CheckpointConfig.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"checkpoint {folder}: cannot be written: {error}") from error
    policy.schema.to_json(folder / "schema.json")
    (folder / "binding.yaml").write_text(policy.binding.to_yaml(), encoding="utf-8")
    save_statistics(policy.statistics, folder / "statistics.json")
    weights = {
        name: p.detach().cpu().contiguous() for name, p in policy.model.own_parameters().items()
    }
    save_file(weights, folder / "weights.safetensors")
    source, revision = split_revision(policy.source)
    config = CheckpointConfig(
        backbone=source,
        backbone_revision=revision or "",
        backbone_sha256=policy.sha256,
        loops=policy.model.plan.loops,
        trained=policy.trained,
        freeze=policy.model.freeze,
        actions=actions,
        data=data,
        sha256={name: digest_of_file(folder / name) for name in _FIXED},
    )
    partial = folder / "config.json.part"  # written last: a folder with config.json is whole
    partial.write_bytes(msgspec.json.format(msgspec.json.encode(config)) + b"\n")
    os.replace(partial, folder / "config.json")
    return folder


def load_checkpoint(
    folder: str | Path,
    device: str = "cpu",
    binding: Binding | None = None,
    control_rate_hz: float = 0.0,
    dtype: torch.dtype = torch.float32,
    int8: bool = False,
    prompts: str | Path = "",
    refresh: str = "inline",
    fuse: bool = False,
    float8: bool = False,
) -> CanvasPolicy:
    """Loads a checkpoint folder.

    The backbone is looked up at the revision that the checkpoint records, and loaded as `dtype`,
    `int8` and `float8` say (see load_backbone) whatever format it was trained in; its fingerprint
    is of the weights as stored. With a folder of `prompts`, given or in the checkpoint, its text
    encoder is not loaded. `refresh` and `fuse` are as of CanvasPolicy.

    `binding` replaces the checkpoint's own for another robot or other sources; signals, regions and
    control rate must be the same. `control_rate_hz` may only repeat the rate it was trained at; 0
    asks nothing.

    Raises CheckpointError, naming the file, for a missing, unreadable or changed file, another
    backbone than the weights were made for, weights that do not fit the declarations, or a binding
    whose anchor does not fit the actions; BackboneError for a backbone that is missing,
    BackboneMemoryError for one that does not fit the device.
    """
    folder = Path(folder).expanduser()
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"checkpoint {folder}: expected a folder with {', '.join(FILES)}; "
            f"missing {', '.join(missing)}"
        )
    config = _read_config(folder / "config.json")
    schema = CanvasSchema.from_json(folder / "schema.json")
    trained_with = load_binding(folder / "binding.yaml")
    binding = binding or trained_with
    _require_same_signals(folder, trained_with, binding, control_rate_hz)
    _require_anchor(folder, config, binding)
    statistics = load_statistics(folder / "statistics.json")
    prompts = prompts or _own_prompts(folder)
    backbone = load_backbone_for(
        schema,
        config.loops,
        config.backbone,
        dtype,
        revision=config.backbone_revision or None,
        device=device,
        int8=int8,
        float8=float8,
        text_encoder=not prompts,
        sliced=refresh == "sliced",
    )
    _require_same_backbone(folder, config, backbone)
    found = open_prompts(prompts, backbone) if prompts else None
    if found is not None:
        _require_same_prompts(folder, config, found)
    model = CanvasModel(schema, binding, statistics, backbone, config.loops, found, config.freeze)
    _load_weights(model, folder / "weights.safetensors")
    for name, expected in config.sha256.items():  # last: what else is wrong says more
        _require_unchanged(folder, name, expected)
    return CanvasPolicy(
        model.to(device),
        schema,
        binding,
        statistics,
        backbone.source,
        config.backbone_sha256,
        config.trained,
        refresh,
        fuse,
    )


def _own_prompts(folder: Path) -> Path | None:
    """The folder of prompts that a checkpoint may bring."""
    return folder / "prompts" if (folder / "prompts").is_dir() else None


def fingerprint(policy: CanvasPolicy) -> str:
    """sha256 of a policy's own weights, for reports."""
    digest = hashlib.sha256()
    for part, sha256 in sorted(policy.sha256.items()):
        digest.update(f"{part} {sha256}\n".encode())
    digest.update(digest_of(sorted(policy.model.own_parameters().items())).encode())
    return digest.hexdigest()


def _read_config(path: Path) -> CheckpointConfig:
    try:
        config = msgspec.json.decode(path.read_bytes(), type=CheckpointConfig)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    if config.format != 1:
        raise CheckpointError(
            f"{path}: expected format 1, got {config.format}; use a newer canvas_robot"
        )
    if not 1 <= config.loops <= 64:
        raise CheckpointError(f"{path}: loops: expected 1 to 64, got {config.loops}")
    return config


def _require_unchanged(folder: Path, name: str, expected: str) -> None:
    if name not in _FIXED:
        raise CheckpointError(
            f"{folder / 'config.json'}: sha256: expected names among {_FIXED}, got {name!r}"
        )
    found = digest_of_file(folder / name)
    if found != expected:
        raise CheckpointError(
            f"{folder / name}: changed since the checkpoint was written: expected sha256 "
            f"{expected[:12]}..., found {found[:12]}...; copy the whole folder again"
        )


def _require_anchor(folder: Path, config: CheckpointConfig, binding: Binding) -> None:
    """Motions that were achieved act on the measured pose; commands on the previous target."""
    relabelled = config.actions in ("composed", "naive")
    if relabelled and binding.robot is not None and binding.robot.anchor != "measured":
        raise CheckpointError(
            f"checkpoint {folder}: trained on {config.actions} actions, motions that the arm "
            f"achieved; expected a binding with robot.anchor 'measured', got "
            f"{binding.robot.anchor!r}"
        )


def _require_same_backbone(folder: Path, config: CheckpointConfig, backbone: Backbone) -> None:
    """Every loaded part is the one recorded; only a text encoder may be unrecorded.

    That of a policy which was trained on cached prompts is.
    """
    for part, found in backbone.sha256.items():
        recorded = config.backbone_sha256.get(part, found if part == "text_encoder" else "none")
        if found != recorded:
            raise CheckpointError(
                f"checkpoint {folder}: made for backbone {config.backbone!r} whose {part} has "
                f"sha256 {recorded[:12]}..., the one found has {found[:12]}...; "
                "install the backbone it was trained on"
            )


def _require_same_signals(folder: Path, trained: Binding, used: Binding, rate_hz: float) -> None:
    """A robot may differ in sources, limits, image sizes and ages, not in what numbers mean."""
    for what, expected, got in (
        ("regions", trained.regions, used.regions),
        ("signals", _meanings(trained), _meanings(used)),
        ("control rate", trained.control_rate_hz, used.control_rate_hz),
        ("control rate", trained.control_rate_hz, rate_hz or trained.control_rate_hz),
    ):
        if expected != got:
            raise CheckpointError(
                f"checkpoint {folder}: trained with {what} {expected}, asked to run with {got}"
            )


def _meanings(binding: Binding) -> dict[str, object]:
    """What each signal's numbers mean: of vectors everything but the age limit, else the kind."""
    return {
        name: msgspec.structs.replace(signal, max_age_s=1.0)
        if isinstance(signal, VectorSignal)
        else type(signal).__name__
        for name, signal in binding.signals.items()
    }


def _require_usable(where: str, weight: torch.Tensor, dtype: torch.dtype) -> None:
    """Numbers that a parameter of `dtype` can hold, all finite."""
    if weight.dtype not in (*DTYPES.values(), torch.float64):
        raise CheckpointError(f"{where}: expected weights in {dtype}, got {weight.dtype}")
    if not torch.isfinite(weight.to(dtype)).all():
        raise CheckpointError(
            f"{where}: expected finite weights, got NaN or infinity"
            + (f" in {dtype}" if torch.isfinite(weight).all() else "")
        )


def _require_same_prompts(folder: Path, config: CheckpointConfig, prompts: PromptFolder) -> None:
    """Prompts are of the text encoder that the policy was trained with, where it is recorded."""
    recorded = config.backbone_sha256.get("text_encoder", prompts.encoder.sha256)
    if prompts.encoder.sha256 != recorded:
        raise CheckpointError(
            f"checkpoint {folder}: trained with the text encoder of sha256 {recorded[:12]}..., the "
            f"prompts in {prompts.path} are of {prompts.encoder.sha256[:12]}...; make them with "
            f"`canvas-robot prompts --backbone {config.backbone}`"
        )


def _load_weights(model: CanvasModel, path: Path) -> None:
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path}: expected a safetensors file, got {error}") from error
    own = model.own_parameters()
    if set(weights) != set(own):
        missing, unknown = sorted(set(own) - set(weights)), sorted(set(weights) - set(own))
        raise CheckpointError(f"{path}: weights missing {missing[:5]}, unknown {unknown[:5]}")
    with torch.no_grad():
        for name, parameter in own.items():
            if weights[name].shape != parameter.shape:
                raise CheckpointError(
                    f"{path}: {name}: expected shape {tuple(parameter.shape)}, "
                    f"got {tuple(weights[name].shape)}"
                )
            _require_usable(f"{path}: {name}", weights[name], parameter.dtype)
            parameter.copy_(weights[name])
