"""Checkpoints of plain policies: the canvas policies' folder, without a backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from canvas_robot.policy.checkpoint_files import (
    Actions,
    CommonConfig,
    declared_by,
    load_weights,
    read_config,
    require_all_unchanged,
    require_files,
    write_checkpoint,
)
from canvas_robot.policy.plain import PlainPolicy
from canvas_robot.policy.plain_model import PlainModel
from canvas_robot.policy.plain_network import PlainShape
from canvas_robot.signals import Binding, load_statistics


class PlainCheckpointConfig(CommonConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """config.json of a plain policy: the network's shape, and what the weights are."""

    kind: Literal["plain"]
    network: PlainShape


def save_plain(
    policy: PlainPolicy, folder: str | Path, actions: Actions = "", data: str = ""
) -> Path:
    """Writes a policy's weights and declarations to a folder.

    `actions` and `data` are as of CommonConfig.
    """
    config = PlainCheckpointConfig(
        kind="plain",
        network=policy.model.shape,
        trained=policy.trained,
        actions=actions,
        data=data,
    )
    return write_checkpoint(policy, folder, config)


def load_plain(
    folder: str | Path, binding: Binding | None = None, control_rate_hz: float = 0.0
) -> PlainPolicy:
    """Loads a plain policy's folder; `binding` and `control_rate_hz` are as of load_checkpoint.

    Raises CheckpointError, naming the file, for a missing, unreadable or changed file, weights that
    do not fit the declarations, or a binding that does not fit them or the actions.
    """
    folder = Path(folder).expanduser()
    require_files(folder)
    config = read_config(folder / "config.json", PlainCheckpointConfig)
    schema, binding = declared_by(folder, config.actions, binding, control_rate_hz)
    statistics = load_statistics(folder / "statistics.json")
    model = PlainModel(schema, binding, statistics, config.network)
    load_weights(model, folder / "weights.safetensors")
    require_all_unchanged(folder, config.sha256)  # last: what else is wrong says more
    return PlainPolicy(model, schema, binding, statistics, config.trained)
