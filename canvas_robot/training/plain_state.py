"""PlainState: all that a plain policy's training needs to go on, to a folder and back.

Weights, their average and the optimiser's moments are safetensors, the rest is JSON: nothing that
is read is executed. Random numbers follow from the seed and the step.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import torch
from diffusers.training_utils import EMAModel
from safetensors.torch import save_file
from torch import nn
from torch.optim import AdamW

from canvas_robot.data.batches import WindowLoader
from canvas_robot.training.checkpoints import CheckpointFileError
from canvas_robot.training.meter import Sums
from canvas_robot.training.training_state import AVERAGE, TRAINED, read_weights

MOMENTS, PLACE = "moments.safetensors", "place.json"
_MOMENTS = ("exp_avg", "exp_avg_sq")


class Place(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """place.json: updates so far, seconds that they took, where the data are read, what is summed
    up for the log."""

    step: int
    seconds: float
    loader: dict[str, Any]
    sums: Sums


class PlainState:
    """What changes while training.

    Args:
        parameters: what is trained, by the names it is saved under.
        optimiser: of them.
        average: of them; None where there is none.
        loader: of the batches.
    """

    def __init__(
        self,
        parameters: dict[str, nn.Parameter],
        optimiser: AdamW,
        average: EMAModel | None,
        loader: WindowLoader,
    ) -> None:
        self._parameters, self._optimiser = parameters, optimiser
        self._average, self._loader = average, loader

    @property
    def files(self) -> list[str]:
        """Names of the files that every checkpoint has."""
        return [TRAINED, MOMENTS, PLACE, *([AVERAGE] if self._average is not None else [])]

    def save(self, folder: Path, step: int, seconds: float, sums: Sums) -> None:
        """Writes the state into a folder."""
        save_file(_plain(self._parameters), folder / TRAINED)
        save_file(_plain(self._moments()), folder / MOMENTS)
        if self._average is not None:
            shadows = dict(zip(self._parameters, self._average.shadow_params, strict=True))
            save_file(_plain(shadows), folder / AVERAGE)
        place = Place(step=step, seconds=seconds, loader=self._loader.state_dict(), sums=sums)
        (folder / PLACE).write_bytes(msgspec.json.encode(place))

    def load(self, folder: Path) -> Place:
        """Brings back the state of a folder, whose files are verified.

        Raises CheckpointFileError, naming the file, for one that is not of this training.
        """
        place = _place(folder / PLACE)
        for parameter in self._parameters.values():  # so that there are moments to fill
            self._optimiser.state[parameter] = {
                "step": torch.tensor(float(place.step)),
                **{name: torch.zeros_like(parameter) for name in _MOMENTS},
            }
        _fill(self._parameters, folder / TRAINED)
        _fill(self._moments(), folder / MOMENTS)
        if self._average is not None:
            shadows = dict(zip(self._parameters, self._average.shadow_params, strict=True))
            _fill(shadows, folder / AVERAGE)
            self._average.optimization_step = place.step
        try:
            self._loader.load_state_dict(place.loader)
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointFileError(f"{folder / PLACE}: {error}") from error
        return place

    def _moments(self) -> dict[str, torch.Tensor]:
        """The optimiser's moments by parameter."""
        return {
            f"{name}.{moment}": self._optimiser.state[parameter][moment]
            for name, parameter in self._parameters.items()
            for moment in _MOMENTS
        }


def _plain(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}


def _fill(like: dict[str, torch.Tensor], path: Path) -> None:
    """Copies a file's tensors into those of the same names; raises CheckpointFileError."""
    found = read_weights(path)
    wanted = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in like.items()}
    got = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in found.items()}
    for name in sorted({*wanted, *got}):
        if wanted.get(name) != got.get(name):
            raise CheckpointFileError(
                f"{path}: of another model: {name}: expected {wanted.get(name, 'none')}, "
                f"got {got.get(name, 'none')}"
            )
        if not torch.isfinite(found[name]).all():
            raise CheckpointFileError(f"{path}: {name}: expected finite numbers")
    with torch.no_grad():
        for name, tensor in like.items():
            tensor.copy_(found[name])


def _place(path: Path) -> Place:
    try:
        place = msgspec.json.decode(path.read_bytes(), type=Place)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CheckpointFileError(f"{path}: {error}") from error
    if place.step < 1 or not place.seconds >= 0:
        raise CheckpointFileError(
            f"{path}: expected a step from 1 and seconds from 0, got {place.step} and "
            f"{place.seconds}"
        )
    return place
