"""Checkpoints of plain policies: the canvas policies' folder, without a backbone.

Loading one runs no code from it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import msgspec
from safetensors.torch import save_file

from canvas_robot.backbone.digest import digest_of_file
from canvas_robot.policy.checkpoint import (
    FILES,
    Actions,
    CheckpointError,
    _load_weights,
    _require_anchor,
    _require_same_signals,
    _require_unchanged,
)
from canvas_robot.policy.plain import PlainPolicy
from canvas_robot.policy.plain_model import PlainModel
from canvas_robot.policy.plain_network import PlainShape
from canvas_robot.schema import CanvasSchema
from canvas_robot.signals import Binding, load_binding, load_statistics, save_statistics

_FIXED = ("schema.json", "statistics.json", "weights.safetensors")


class PlainCheckpointConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """config.json of a plain policy: the network's shape, and what the weights are.

    trained, actions, data, sha256, format: as of CheckpointConfig.
    """

    kind: Literal["plain"]
    network: PlainShape
    trained: bool
    actions: Actions = ""
    data: str = ""
    sha256: dict[str, str] = {}
    format: int = 1


def save_plain(
    policy: PlainPolicy, folder: str | Path, actions: Actions = "", data: str = ""
) -> Path:
    """Writes a policy's weights and declarations to a folder.

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
    config = PlainCheckpointConfig(
        kind="plain",
        network=policy.model.shape,
        trained=policy.trained,
        actions=actions,
        data=data,
        sha256={name: digest_of_file(folder / name) for name in _FIXED},
    )
    partial = folder / "config.json.part"  # written last: a folder with config.json is whole
    partial.write_bytes(msgspec.json.format(msgspec.json.encode(config)) + b"\n")
    os.replace(partial, folder / "config.json")
    return folder


def load_plain(
    folder: str | Path, binding: Binding | None = None, control_rate_hz: float = 0.0
) -> PlainPolicy:
    """Loads a plain policy's folder; `binding` and `control_rate_hz` are as of load_checkpoint.

    Raises CheckpointError, naming the file, for a missing, unreadable or changed file, weights that
    do not fit the declarations, or a binding that does not fit them or the actions.
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
    model = PlainModel(schema, binding, statistics, config.network)
    _load_weights(model, folder / "weights.safetensors")
    for name, expected in config.sha256.items():  # last: what else is wrong says more
        _require_unchanged(folder, name, expected)
    return PlainPolicy(model, schema, binding, statistics, config.trained)


def _read_config(path: Path) -> PlainCheckpointConfig:
    try:
        config = msgspec.json.decode(path.read_bytes(), type=PlainCheckpointConfig)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    if config.format != 1:
        raise CheckpointError(
            f"{path}: expected format 1, got {config.format}; use a newer canvas_robot"
        )
    return config
