"""Checkpoints of canvas policies: a folder of declarations, statistics and safetensors weights.

What other kinds of policy have in common with it is checkpoint_files.py's.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

import torch

from canvas_robot.backbone.digest import digest_of
from canvas_robot.backbone.folder import copy_backbone
from canvas_robot.backbone.loading import Backbone, load_backbone_for
from canvas_robot.backbone.sources import locate, named_spec, split_revision
from canvas_robot.policy.checkpoint_files import (
    Actions,
    CheckpointError,
    CommonConfig,
    declared_by,
    load_weights,
    read_config,
    require_all_unchanged,
    require_files,
    write_checkpoint,
)
from canvas_robot.policy.model import CanvasModel
from canvas_robot.policy.policy import CanvasPolicy
from canvas_robot.policy.prompts import PromptFolder, open_prompts
from canvas_robot.resources import checkpoint_folder
from canvas_robot.signals import Binding, load_statistics

OWN_BACKBONE = "./backbone"
"""In place of a backbone's name: the checkpoint's folder holds it, under that name."""


class CheckpointConfig(CommonConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """config.json: which backbone the weights belong to, and what they are.

    backbone_sha256 is each part's fingerprint, see Backbone; backbone_revision a hub id's commit.
    freeze: what of the transformer is not among the weights, see CanvasModel.
    framing: the VAE's, as of the schema.
    """

    kind: Literal["canvas"] = "canvas"
    backbone: str
    backbone_sha256: dict[str, str]
    loops: int
    backbone_revision: str = ""
    freeze: Literal["full", "half", "none"] = "full"
    framing: Literal["image"] = "image"


def save_checkpoint(
    policy: CanvasPolicy,
    folder: str | Path,
    actions: Actions = "",
    data: str = "",
    whole: bool = False,
) -> Path:
    """Writes a policy's weights and declarations to a folder.

    The backbone is named; with `whole` its files are copied, too, unless it is one that ships with
    the package. `actions` and `data` are as of CheckpointConfig.
    """
    source, revision = split_revision(policy.source)
    if whole and named_spec(source) is None:
        copy_backbone(locate(source, revision).folder, Path(folder) / OWN_BACKBONE)
        source, revision = OWN_BACKBONE, None
    config = CheckpointConfig(
        backbone=source,
        backbone_revision=revision or "",
        backbone_sha256=policy.sha256,
        loops=policy.model.plan.loops,
        trained=policy.trained,
        freeze=policy.model.freeze,
        actions=actions,
        data=data,
    )
    return write_checkpoint(policy, folder, config)


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
    """Loads a checkpoint folder; "demo" is the policy that ships with the package.

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
    folder = checkpoint_folder(folder)
    require_files(folder)
    config = _read_config(folder / "config.json")
    schema, binding = declared_by(folder, config.actions, binding, control_rate_hz)
    statistics = load_statistics(folder / "statistics.json")
    prompts = prompts or _own_prompts(folder)
    backbone = load_backbone_for(
        schema,
        config.loops,
        str(folder / OWN_BACKBONE) if config.backbone == OWN_BACKBONE else config.backbone,
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
    load_weights(model, folder / "weights.safetensors")
    require_all_unchanged(folder, config.sha256)  # last: what else is wrong says more
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
    config = read_config(path, CheckpointConfig)
    if not 1 <= config.loops <= 64:
        raise CheckpointError(f"{path}: loops: expected 1 to 64, got {config.loops}")
    return config


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


def _require_same_prompts(folder: Path, config: CheckpointConfig, prompts: PromptFolder) -> None:
    """Prompts are of the text encoder that the policy was trained with, where it is recorded."""
    recorded = config.backbone_sha256.get("text_encoder", prompts.encoder.sha256)
    if prompts.encoder.sha256 != recorded:
        raise CheckpointError(
            f"checkpoint {folder}: trained with the text encoder of sha256 {recorded[:12]}..., the "
            f"prompts in {prompts.path} are of {prompts.encoder.sha256[:12]}...; make them with "
            f"`canvas-robot prompts --backbone {config.backbone}`"
        )
