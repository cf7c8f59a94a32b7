"""Sharing a training among processes: how Accelerate is set up, and what of a model is shared.

What trains is kept equal by DistributedDataParallel, or cut to pieces by FSDP; what does not train
is whole in every process, as each loaded it.
"""

from __future__ import annotations

import os
from datetime import timedelta
from itertools import chain

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    FullyShardedDataParallelPlugin,
    InitProcessGroupKwargs,
)
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from canvas_robot.training.config import OFF, ConfigError, TrainConfig
from canvas_robot.training.objective import Objective
from canvas_robot.training.parts import Parts

LONGEST_WAIT = timedelta(hours=6)  # of processes for the main one, which may index the data


def make_accelerator(config: TrainConfig) -> Accelerator:
    """Accelerate's own settings, from `accelerate launch` or its configuration file, and ours.

    Raises ConfigError for sharding that cannot be saved and read safely.
    """
    accelerator = Accelerator(
        mixed_precision=config.precision,
        gradient_accumulation_steps=config.accumulate,
        step_scheduler_with_optimizer=False,  # else it counts processes as steps
        kwargs_handlers=[
            DistributedDataParallelKwargs(),  # set up once the model is known
            InitProcessGroupKwargs(timeout=LONGEST_WAIT),
        ],
    )
    _require_together(accelerator.num_processes)
    if accelerator.distributed_type == DistributedType.FSDP:
        _require_whole_states(accelerator.state.fsdp_plugin, config)
    return accelerator


def _require_together(processes: int) -> None:
    """Raises RuntimeError where several processes were asked for, and this one trains alone.

    Without GPUs accelerate 1.15 starts them apart (--multi_gpu), or only one (--cpu without MPI).
    """
    asked = int(os.environ.get("WORLD_SIZE", "1"))
    alone_on_cpu = os.environ.get("ACCELERATE_USE_CPU") == "True" and "MASTER_ADDR" in os.environ
    if processes == 1 and (asked > 1 or alone_on_cpu):
        raise RuntimeError(
            f"processes: expected {asked if asked > 1 else 'several'}, as the launcher was told, "
            "got one that trains alone; on CPUs start them with: ACCELERATE_USE_CPU=true torchrun "
            "--nproc_per_node 2 -m canvas_robot.cli train CONFIG"
        )


def _require_whole_states(plugin: FullyShardedDataParallelPlugin, config: TrainConfig) -> None:
    """Sharded checkpoints are read with pickle, which may run code."""
    kind = plugin.state_dict_type.name
    if plugin.fsdp_version != 2 or kind != "FULL_STATE_DICT":
        raise ConfigError(
            f"FSDP: expected version 2 with FULL_STATE_DICT, got version {plugin.fsdp_version} "
            f"with {kind}; accelerate launch --fsdp_version 2 --fsdp_state_dict_type "
            "FULL_STATE_DICT"
        )
    if config.ema != OFF:
        raise ConfigError("ema: expected off under FSDP, whose weights no process holds whole")


def find_unused(parts: Parts, accelerator: Accelerator) -> None:
    """Tells DistributedDataParallel whether parameters stay without gradient, as a trial shows.

    Those of a region that nothing reads do; so does the backbone's last layer where no video is
    predicted. To look for them in every step takes time.
    """
    if accelerator.num_processes == 1:
        return
    objective, device = parts.objective, accelerator.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        objective(parts.data.largest(1).to(device))["loss"].backward()
    unused = any(p.grad is None for p in objective.trained().values())
    objective.zero_grad(set_to_none=True)
    accelerator.ddp_handler.find_unused_parameters = unused


def keep_frozen_whole(objective: Objective, accelerator: Accelerator) -> None:
    """Tells DistributedDataParallel and FSDP to leave alone what does not train.

    To be called before the objective is prepared.
    """
    trained = {id(p) for p in objective.trained().values()}
    state = chain(objective.named_parameters(), objective.named_buffers())
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(
        objective, [name for name, tensor in state if id(tensor) not in trained]
    )
    if accelerator.distributed_type == DistributedType.FSDP:
        accelerator.state.fsdp_plugin.ignored_modules = frozen_modules(objective)


def frozen_modules(module: nn.Module) -> list[nn.Module]:
    """The outermost modules that have parameters, none of which trains."""
    parameters = list(module.parameters())
    if parameters and not any(p.requires_grad for p in parameters):
        return [module]
    return [found for child in module.children() for found in frozen_modules(child)]
