"""Gradient checkpointing only where memory asks for it: compute loops again, or keep them."""

from __future__ import annotations

import torch
from accelerate import Accelerator

from canvas_robot.backbone.freeze import is_looped
from canvas_robot.backbone.memory import free_memory
from canvas_robot.training.config import OFF
from canvas_robot.training.parts import Parts
from canvas_robot.training.saved_memory import saved_bytes, weights_of

USABLE = 0.9  # of the free memory: the rest is for what lives shortly, and for fragments
STATES = 3  # float32 values of a trained parameter beside itself: gradient, two moments


def choose_checkpointing(parts: Parts, accelerator: Accelerator) -> bool:
    """Whether loops are computed again in the backward pass, and sets the blocks so.

    "auto" counts what one window at full loops keeps, without, and asks whether a batch of them,
    gradients and optimiser fit the device's free memory.
    """
    asked, objective = parts.config.gradient_checkpointing, parts.objective
    on = asked if asked != "auto" else not _fits(parts, accelerator)
    set_checkpointing(objective, on)
    return on


def set_checkpointing(module: torch.nn.Module, on: bool) -> None:
    """Whether the looped blocks in a module compute each loop again in the backward pass."""
    for block in module.modules():
        if is_looped(block):
            block.use_gradient_checkpointing = on


def kept_by(parts: Parts, accelerator: Accelerator, windows: int) -> int:
    """Bytes that a forward pass over so many of the largest windows keeps, at full loops.

    Random numbers stay as they are.
    """
    device, objective = accelerator.device, parts.objective
    batch = parts.data.largest(windows).to(device)
    objective.set_loops(parts.config.loops)

    def forward() -> torch.Tensor:
        with accelerator.autocast():
            return objective(batch)["loss"]

    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        return saved_bytes(forward, weights_of(objective))


def _fits(parts: Parts, accelerator: Accelerator) -> bool:
    config, (trained, _) = parts.config, parts.counts
    set_checkpointing(parts.objective, False)
    try:
        kept = kept_by(parts, accelerator, 1) * config.batch_size
    except torch.OutOfMemoryError:
        return False
    states = 4 * trained * (STATES + (config.ema != OFF))
    return kept + states < USABLE * free_memory(accelerator.device)
