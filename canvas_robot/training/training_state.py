"""TrainingState: all that a run needs to go on as if it had never stopped, to a folder and back.

Accelerate saves and loads the optimiser, the learning rate's course and each process's random
numbers; beside them lie the trained weights and their average (safetensors), and where each process
is in the data (JSON). Frozen weights are in no checkpoint. Nothing that is read is executed.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from accelerate.utils.other import load as load_weights_only
from diffusers.training_utils import EMAModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from canvas_robot.training.checkpoints import CheckpointFileError
from canvas_robot.training.meter import Sums

TRAINED, AVERAGE = "trained.safetensors", "average.safetensors"
OPTIMISER, SCHEDULE = "optimizer.bin", "scheduler.bin"  # accelerate's names


class Resumable(Protocol):
    """A loader of batches: a `WindowLoader`. Its state is plain values."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class ProcessState(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """process_N.json: where one process is in the data, and what it has summed up for the log."""

    loader: dict[str, Any]
    sums: Sums


class TrainingState:
    """What changes while training.

    Args:
        accelerator: has prepared the objective, the optimiser and the schedule.
        prepared: the objective as it was prepared.
        trained: parameters by the names they are saved under.
        optimiser: as it was prepared.
        average: of the trained parameters; None where there is none.
        loader: of this process's batches.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        prepared: nn.Module,
        trained: dict[str, nn.Parameter],
        optimiser: torch.optim.Optimizer,
        average: EMAModel | None,
        loader: Resumable,
    ) -> None:
        self._accelerator, self._prepared = accelerator, prepared
        self._trained, self._optimiser = trained, optimiser
        self._average, self._loader = average, loader
        accelerator.register_save_state_pre_hook(lambda models, weights, folder: weights.clear())
        accelerator.register_load_state_pre_hook(lambda models, folder: models.clear())

    @property
    def files(self) -> list[str]:
        """Names of the files that every checkpoint has."""
        processes = range(self._accelerator.num_processes)
        return [
            TRAINED,
            *([AVERAGE] if self._average is not None else []),
            OPTIMISER,
            SCHEDULE,
            *(_random_file(process) for process in processes),
            *(_process_file(process) for process in processes),
        ]

    def save(self, folder: Path, sums: Sums) -> None:
        """Writes the state into a folder; all processes call it together."""
        accelerator = self._accelerator
        accelerator.save_state(str(folder))
        weights = self._gathered()
        if accelerator.is_main_process:
            save_file(weights, folder / TRAINED)
            if self._average is not None:
                shadows = zip(self._trained, self._average.shadow_params, strict=True)
                count = {"updates": str(self._average.optimization_step)}
                save_file({n: t.cpu().contiguous() for n, t in shadows}, folder / AVERAGE, count)
        own = ProcessState(loader=self._loader.state_dict(), sums=sums)
        path = folder / _process_file(accelerator.process_index)
        path.write_bytes(msgspec.json.encode(own))
        accelerator.wait_for_everyone()

    def load(self, folder: Path) -> Sums:
        """Brings back the state of a folder, whose files are verified; returns the sums.

        Raises CheckpointFileError, naming the file, for one that is not of this training.
        """
        process = self._accelerator.process_index
        numbers = _opened(folder / _random_file(process))
        _require_place(folder / SCHEDULE)
        if not self._is_sharded:
            _require_fitting(folder / OPTIMISER, self._optimiser)
        own = _process_state(folder / _process_file(process))
        weights, _ = _tensors(folder / TRAINED, self._trained)
        if not self._is_sharded:
            with torch.no_grad():
                for name, parameter in self._trained.items():
                    parameter.copy_(weights[name])
        if self._average is not None:
            self._load_average(folder / AVERAGE)
        try:
            self._loader.load_state_dict(own.loader)
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointFileError(f"{folder / _process_file(process)}: {error}") from error
        self._accelerator.load_state(str(folder))
        _require_restored(folder / _random_file(process), numbers)
        return own.sums

    @property
    def _is_sharded(self) -> bool:
        return self._accelerator.distributed_type == DistributedType.FSDP

    def _gathered(self) -> dict[str, torch.Tensor]:
        """The trained weights, whole; of a sharded model in the main process alone."""
        if not self._is_sharded:
            return {n: p.detach().cpu().contiguous() for n, p in self._trained.items()}
        whole = self._accelerator.get_state_dict(self._prepared)
        return {name: whole[f"model.{name}"].contiguous() for name in self._trained if whole}

    def _load_average(self, path: Path) -> None:
        shadows, metadata = _tensors(path, self._trained)
        updates = metadata.get("updates", "")
        if not (updates.isascii() and updates.isdigit() and len(updates) < 12):
            raise CheckpointFileError(f"{path}: expected a number of updates, got {updates[:20]!r}")
        self._average.optimization_step = int(updates)
        for shadow, name in zip(self._average.shadow_params, self._trained, strict=True):
            shadow.copy_(shadows[name])


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of TRAINED or AVERAGE; raises CheckpointFileError for another file."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise CheckpointFileError(f"{path}: expected a safetensors file; {error}") from error


def _tensors(
    path: Path, like: dict[str, nn.Parameter]
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """A safetensors file's tensors, which are as many, named and shaped as `like`; its metadata."""
    tensors = read_weights(path)
    missing, unknown = sorted(set(like) - set(tensors)), sorted(set(tensors) - set(like))
    if missing or unknown:
        raise CheckpointFileError(
            f"{path}: of another model: missing {missing[:5]}, unknown {unknown[:5]}"
        )
    for name, parameter in like.items():
        found = tensors[name]
        if found.shape != parameter.shape or found.dtype != parameter.dtype:
            raise CheckpointFileError(
                f"{path}: {name}: expected {tuple(parameter.shape)} {parameter.dtype}, "
                f"got {tuple(found.shape)} {found.dtype}"
            )
        if not torch.isfinite(found).all():
            raise CheckpointFileError(f"{path}: {name}: expected finite numbers")
    with safe_open(path, framework="pt") as file:
        return tensors, file.metadata() or {}


def _opened(path: Path) -> Any:
    """What a file that accelerate wrote holds, tensors left on disk; read as accelerate reads it.

    That is torch's reader of weights alone, which makes plain values and tensors and calls nothing.
    """
    try:
        return load_weights_only(path, map_location="cpu", mmap=True)
    except Exception as error:  # a hostile file can make it raise anything
        # Its text stays out: torch's advises to load the file with its code, if you trust it.
        raise CheckpointFileError(
            f"{path}: expected tensors and plain values and nothing executable; torch's reader of "
            f"weights alone refuses the file ({type(error).__name__}); do not load it by other "
            "means"
        ) from error


def _require_fitting(path: Path, optimiser: torch.optim.Optimizer) -> None:
    """Raises CheckpointFileError unless the file holds moments of just these parameters."""
    state = _opened(path)
    own = [p for group in optimiser.param_groups for p in group["params"]]
    try:
        sizes = [len(group["params"]) for group in state["param_groups"]]
        moments = {
            (number, key): tuple(entry[key].shape)
            for number, entry in state["state"].items()
            for key in ("exp_avg", "exp_avg_sq")
        }
        wrong = [key for key, shape in moments.items() if shape != tuple(own[key[0]].shape)]
        numbers = [t for entry in state["state"].values() for t in entry.values()]
        finite = all(bool(torch.isfinite(torch.as_tensor(t)).all()) for t in numbers)
        settings = [_settings(group) for group in state["param_groups"]]
    except (AttributeError, IndexError, KeyError, TypeError, RuntimeError) as error:
        raise CheckpointFileError(f"{path}: expected the state of an AdamW, got another") from error
    expected = [len(group["params"]) for group in optimiser.param_groups]
    if sizes != expected or wrong:
        raise CheckpointFileError(
            f"{path}: of another model: expected groups of {expected} parameters, got {sizes}; "
            f"moments of other shapes: {wrong[:5]}"
        )
    ours = [_settings(group) for group in optimiser.param_groups]
    if not finite or settings != ours:
        raise CheckpointFileError(
            f"{path}: expected finite moments and the settings {ours}, got {str(settings)[:200]}"
        )


def _settings(group: dict) -> dict:
    """What an optimiser's group is told, but for its parameters and the rate, which moves."""
    kept = {key: value for key, value in group.items() if key not in ("params", "lr", "initial_lr")}
    return {key: list(v) if isinstance(v, tuple) else v for key, v in kept.items()}


def _require_place(path: Path) -> None:
    """Raises CheckpointFileError unless the file holds a schedule's place."""
    state = _opened(path)
    counts = (
        [state.get(k) for k in ("last_epoch", "_step_count")] if isinstance(state, dict) else []
    )
    if not counts or not all(isinstance(n, int) and 0 <= n < 10**12 for n in counts):
        raise CheckpointFileError(f"{path}: expected the place of a schedule, got {counts}")


def _process_state(path: Path) -> ProcessState:
    try:
        return msgspec.json.decode(path.read_bytes(), type=ProcessState)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CheckpointFileError(f"{path}: {error}") from error


def _require_restored(path: Path, numbers: dict) -> None:
    """Accelerate only notes in its log that it could not set the random numbers."""
    try:
        same = (
            random.getstate() == numbers["random_state"]
            and torch.equal(torch.get_rng_state(), numbers["torch_manual_seed"])
            and _same(np.random.get_state(), numbers["numpy_random_seed"])  # noqa: NPY002
        )
    except (KeyError, TypeError, ValueError, IndexError):
        same = False
    if not same:
        raise CheckpointFileError(
            f"{path}: expected the states of python's, numpy's and torch's random numbers"
        )


def _same(ours: tuple, theirs: tuple) -> bool:
    return len(ours) == len(theirs) and all(map(np.array_equal, ours, theirs))


def _random_file(process: int) -> str:
    return f"random_states_{process}.pkl"  # accelerate's name


def _process_file(process: int) -> str:
    return f"process_{process}.json"
