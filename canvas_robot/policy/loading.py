"""load_policy: a checkpoint folder to the policy that it holds, whichever kind that is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import torch

from canvas_robot.policy.checkpoint import load_checkpoint
from canvas_robot.policy.checkpoint_files import CheckpointError
from canvas_robot.policy.plain_checkpoint import load_plain
from canvas_robot.policy.protocol import Policy
from canvas_robot.resources import checkpoint_folder
from canvas_robot.signals import Binding

KINDS = ("canvas", "plain")
_MOST_BYTES = 1 << 20  # of config.json: one has a thousand


class _Kind(msgspec.Struct):
    """What config.json says of the kind; whatever else it says is its loader's."""

    kind: str = "canvas"


def load_policy(
    folder: str | Path,
    device: str = "cpu",
    binding: Binding | None = None,
    control_rate_hz: float = 0.0,
    dtype: torch.dtype = torch.float32,
    **backbone: Any,
) -> Policy:
    """The policy of a checkpoint folder; "demo" is the one that ships with the package.

    Args:
        device, binding, control_rate_hz, dtype: as of load_checkpoint.
        backbone: load_checkpoint's other options, such as `prompts`.
    Raises:
        CheckpointError: for an unknown kind, and what the kind's own loader raises; for options
            that are about a backbone, another device than cpu or another dtype than float32, where
            the policy is a plain one.
    """
    folder = checkpoint_folder(folder)
    if _kind(folder / "config.json") == "canvas":
        return load_checkpoint(folder, device, binding, control_rate_hz, dtype, **backbone)
    asked = {"device": device != "cpu", "dtype": dtype != torch.float32, **backbone}
    if refused := [name for name, is_asked in asked.items() if is_asked]:
        raise CheckpointError(
            f"checkpoint {folder}: holds a plain policy, which has no backbone and runs on the cpu "
            f"in float32; leave out {', '.join(refused)}"
        )
    return load_plain(folder, binding, control_rate_hz)


def _kind(config: Path) -> str:
    if not config.is_file():
        return "canvas"  # whose loader says what a folder must hold
    if config.stat().st_size > _MOST_BYTES:
        raise CheckpointError(f"{config}: expected at most {_MOST_BYTES:,} bytes; another file")
    try:
        kind = msgspec.json.decode(config.read_bytes(), type=_Kind).kind
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{config}: {error}") from error
    if kind not in KINDS:
        raise CheckpointError(
            f"{config}: kind: expected one of {', '.join(KINDS)}; got {kind!r}; "
            "use a newer canvas_robot"
        )
    return kind
