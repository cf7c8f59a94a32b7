"""What the checkpoint folders of all kinds of policy have in common: their files, and the checks.

Loading one runs no code from it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from canvas_robot.backbone.digest import digest_of_file
from canvas_robot.backbone.loading import DTYPES
from canvas_robot.schema import CanvasSchema
from canvas_robot.signals import (
    Binding,
    Statistics,
    VectorSignal,
    load_binding,
    save_statistics,
)

Actions = Literal["", "recorded", "composed", "naive"]
"""What the training's actions were; all but "recorded" ones act on the measured pose."""

FILES = ("schema.json", "binding.yaml", "statistics.json", "weights.safetensors", "config.json")
FIXED = ("schema.json", "statistics.json", "weights.safetensors")


class CheckpointError(ValueError):
    """A folder is not a checkpoint, or not one for what it is used with."""


class HasWeights(Protocol):
    """A model: CanvasModel or PlainModel."""

    def own_parameters(self) -> dict[str, nn.Parameter]:
        """What a checkpoint of it holds, by name."""


class Saved(Protocol):
    """A policy of any kind."""

    schema: CanvasSchema
    binding: Binding
    statistics: dict[str, Statistics]
    model: HasWeights


class CommonConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What config.json says for every kind of policy.

    trained: whether any training made the weights.
    actions: what the training's actions were, see canvas_robot.data.transitions; "": not known.
    data: fingerprint of the training's data set.
    sha256: of the other files, by name; the binding's may be edited and is not among them.
    """

    trained: bool
    actions: Actions = ""
    data: str = ""
    sha256: dict[str, str] = {}
    format: int = 1


Config = TypeVar("Config", bound=CommonConfig)


def write_checkpoint(policy: Saved, folder: str | Path, config: CommonConfig) -> Path:
    """Writes declarations, weights and `config`, with the other files' fingerprints; the folder.

    Raises CheckpointError for a folder that cannot be written.
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
    digests = {name: digest_of_file(folder / name) for name in FIXED}
    whole = msgspec.json.encode(msgspec.structs.replace(config, sha256=digests))
    partial = folder / "config.json.part"  # written last: a folder with config.json is whole
    partial.write_bytes(msgspec.json.format(whole) + b"\n")
    os.replace(partial, folder / "config.json")
    return folder


def require_files(folder: Path) -> None:
    """Raises CheckpointError for a folder that lacks one of FILES."""
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"checkpoint {folder}: expected a folder with {', '.join(FILES)}; "
            f"missing {', '.join(missing)}"
        )


def read_config(path: Path, kind: type[Config]) -> Config:
    """config.json of one kind; raises CheckpointError for another file."""
    try:
        config = msgspec.json.decode(path.read_bytes(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    if config.format != 1:
        raise CheckpointError(
            f"{path}: expected format 1, got {config.format}; use a newer canvas_robot"
        )
    return config


class _Actions(msgspec.Struct):
    """What config.json of every kind says of the actions."""

    actions: Actions = ""


def check_checkpoint(
    folder: Path, binding: Binding | None = None, control_rate_hz: float = 0.0
) -> None:
    """What loading refuses before it looks at weights; raises as `declared_by`."""
    require_files(folder)
    try:
        found = msgspec.json.decode((folder / "config.json").read_bytes(), type=_Actions)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{folder / 'config.json'}: {error}") from error
    declared_by(folder, found.actions, binding, control_rate_hz)


def declared_by(
    folder: Path, actions: Actions, binding: Binding | None, control_rate_hz: float
) -> tuple[CanvasSchema, Binding]:
    """A checkpoint's schema, and its binding or the one that takes its place.

    Raises CheckpointError where that, or the control rate, is not what the weights were made for.
    """
    schema = CanvasSchema.from_json(folder / "schema.json")
    trained_with = load_binding(folder / "binding.yaml")
    binding = binding or trained_with
    _require_same_signals(folder, trained_with, binding, control_rate_hz)
    _require_anchor(folder, actions, binding)
    return schema, binding


def require_all_unchanged(folder: Path, sha256: dict[str, str]) -> None:
    """Raises CheckpointError for a file that is not as config.json says it was written."""
    for name, expected in sha256.items():
        _require_unchanged(folder, name, expected)


def _require_unchanged(folder: Path, name: str, expected: str) -> None:
    if name not in FIXED:
        raise CheckpointError(
            f"{folder / 'config.json'}: sha256: expected names among {FIXED}, got {name!r}"
        )
    found = digest_of_file(folder / name)
    if found != expected:
        raise CheckpointError(
            f"{folder / name}: changed since the checkpoint was written: expected sha256 "
            f"{expected[:12]}..., found {found[:12]}...; copy the whole folder again"
        )


def _require_anchor(folder: Path, actions: Actions, binding: Binding) -> None:
    """Motions that were achieved act on the measured pose; commands on the previous target."""
    relabelled = actions in ("composed", "naive")
    if relabelled and binding.robot is not None and binding.robot.anchor != "measured":
        raise CheckpointError(
            f"checkpoint {folder}: trained on {actions} actions, motions that the arm "
            f"achieved; expected a binding with robot.anchor 'measured', got "
            f"{binding.robot.anchor!r}"
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
            if isinstance(expected, dict):
                expected, got = _only_different(expected, got)
            raise CheckpointError(
                f"checkpoint {folder}: trained with {what} {expected}, asked to run with {got}"
            )


def _meanings(binding: Binding) -> dict[str, object]:
    """What each signal's numbers mean: its kind, and of vectors all but the limits of time."""
    meanings = {}
    for name, signal in binding.signals.items():
        meanings[name] = type(signal).__name__
        if isinstance(signal, VectorSignal):
            fields = msgspec.structs.asdict(signal)
            timeless = fields.keys() - {"max_age_s", "max_skew_s"}
            meanings |= {f"{name}.{field}": fields[field] for field in sorted(timeless)}
    return meanings


def _only_different(expected: dict, got: dict) -> tuple[dict, dict]:
    """Of two declarations the entries that the other has not, or not so."""
    return (
        {name: value for name, value in expected.items() if got.get(name) != value},
        {name: value for name, value in got.items() if expected.get(name) != value},
    )


def load_weights(model: HasWeights, path: Path) -> None:
    """Puts a file's weights into a model: exactly its own, of its shapes, all finite."""
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


def _require_usable(where: str, weight: torch.Tensor, dtype: torch.dtype) -> None:
    """Numbers that a parameter of `dtype` can hold, all finite."""
    if weight.dtype not in (*DTYPES.values(), torch.float64):
        raise CheckpointError(f"{where}: expected weights in {dtype}, got {weight.dtype}")
    if not torch.isfinite(weight.to(dtype)).all():
        raise CheckpointError(
            f"{where}: expected finite weights, got NaN or infinity"
            + (f" in {dtype}" if torch.isfinite(weight).all() else "")
        )
