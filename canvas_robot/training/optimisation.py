"""The optimiser, its learning rate's course and the moving average, for parameters that train."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from diffusers.training_utils import EMAModel
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from transformers import (
    get_constant_schedule_with_warmup,
    get_cosine_with_min_lr_schedule_with_warmup,
)

from canvas_robot.training.config import OFF, EmaConfig, OptimiserConfig

# Their matrices decay. Gates at 1 and embeddings are no such thing: decay would close the first.
DECAYED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def make_optimiser(
    module: nn.Module, trained: Mapping[str, nn.Parameter], config: OptimiserConfig
) -> AdamW:
    """AdamW over the trained parameters alone, those that decay apart from the others."""
    matrices = {id(m.weight) for m in module.modules() if isinstance(m, DECAYED)}
    decayed = [p for p in trained.values() if id(p) in matrices]
    others = [p for p in trained.values() if id(p) not in matrices]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    on_cpu = all(p.device.type == "cpu" for p in trained.values())
    # Elsewhere torch chooses; on a CPU it takes one parameter after the other.
    return AdamW(groups, config.lr, config.betas, fused=True if on_cpu else None)


def make_schedule(optimiser: AdamW, config: OptimiserConfig, steps: int) -> LambdaLR:
    """The learning rate of each update; stepped once an update, whatever the number of processes.

    The update after w warm-up steps is the first with the whole rate.
    """
    if config.schedule == "constant":
        return get_constant_schedule_with_warmup(optimiser, config.warmup_steps)
    return get_cosine_with_min_lr_schedule_with_warmup(
        optimiser, config.warmup_steps, steps, min_lr_rate=config.min_lr_ratio
    )


def set_rates(schedule: LambdaLR, lr: float) -> None:
    """Gives the optimiser the rates that belong to the schedule's place, whatever it had."""
    schedule.base_lrs = [lr] * len(schedule.optimizer.param_groups)
    rates = [
        base * rate(schedule.last_epoch)
        for base, rate in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
    ]
    for group, rate in zip(schedule.optimizer.param_groups, rates, strict=True):
        group["lr"], group["initial_lr"] = rate, lr
    schedule._last_lr = rates


def make_average(trained: Mapping[str, nn.Parameter], config: EmaConfig | str) -> EMAModel | None:
    """The moving average of the trained parameters; None where it is off.

    Over the first updates its decay rises, as (1 + n) / (10 + n).
    """
    return None if config == OFF else EMAModel(trained.values(), decay=config.decay, foreach=True)


@contextmanager
def averaged(average: EMAModel | None, parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Inside, the parameters are the average's; outside, bit for bit what they were."""
    if average is None:
        yield
        return
    parameters = list(parameters)
    average.store(parameters)
    average.copy_to(parameters)
    try:
        yield
    finally:
        average.restore(parameters)


def state_bytes(optimiser: torch.optim.Optimizer) -> int:
    """Bytes that the optimiser keeps for its parameters."""
    kept = (t for state in optimiser.state.values() for t in state.values())
    return sum(t.numel() * t.element_size() for t in kept if isinstance(t, torch.Tensor))
