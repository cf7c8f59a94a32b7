"""PlainModel: a plain network wired to a schema and a binding; samples in, normalised actions out.

The regions say which signals it sees, how many frames of each, and how long a chunk is. For a
batch; no clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from torch import nn

from canvas_robot.policy.codecs.codec import ModelError, bound_normaliser
from canvas_robot.policy.codecs.squash import squash
from canvas_robot.policy.plain_network import PlainNetwork, PlainShape
from canvas_robot.policy.plain_words import CODE_SIZE, instruction_code
from canvas_robot.schema import CanvasSchema, compile_plan, needed_for
from canvas_robot.signals import (
    Binding,
    ImageSignal,
    Normaliser,
    Statistics,
    VectorSignal,
)


class PlainInputs(NamedTuple):
    """What the network is given for B samples.

    pictures: of each camera region, (B, F, h, w, 3) uint8, as large as the network's shape says.
    numbers: (B, n) float32, all measured vectors, normalised, each with 1 where it is missing.
    code: (B, CODE_SIZE) float32, of the instructions.
    """

    pictures: tuple[torch.Tensor, ...]
    numbers: torch.Tensor
    code: torch.Tensor


class PlainModel(nn.Module):
    """What the action reads by the schema, directly or through others, decides on it at once.

    Regions that it does not read are not seen, and video to predict is not predicted.

    Args:
        schema, binding: the declarations; they must fit.
        statistics: by signal name, for every vector that is seen, and the action.
        shape: of the network.
    Raises:
        ModelError: the action reads nothing that is observed, or shape.binary names no component of
            it. BindingError, PlanError, StatisticsError: what else does not fit.
    """

    def __init__(
        self,
        schema: CanvasSchema,
        binding: Binding,
        statistics: dict[str, Statistics],
        shape: PlainShape,
    ) -> None:
        super().__init__()
        binding.check_schema(schema)
        self.shape, self.action_region = shape, binding.action_region()
        signals = {r: binding.signals.get(of.signal) for r, of in binding.regions.items()}
        read = needed_for(compile_plan(schema), [self.action_region])
        self._hears = binding.goal_region() in read
        frames = {
            region: schema.layout.region_size(region)[0]
            for region in binding.observed_regions()
            if region in read - binding.future_regions(schema)
        }
        if not frames:
            raise ModelError(
                f"schema: region {self.action_region!r} reads no observed region; connect it to "
                "what it is to be decided on"
            )
        self.cameras = [r for r in frames if isinstance(signals[r], ImageSignal)]
        self._vectors = {
            region: _normaliser(region, binding, statistics)
            for region in frames
            if isinstance(signals[region], VectorSignal)
        }
        self.horizon = schema.layout.region_size(self.action_region)[0]
        self._action = binding.action_signal()
        self.binary = _places_of(shape.binary, self._action)
        name = binding.regions[self.action_region].signal
        with_bounds = statistics | _bounded(statistics, name, self._action, self.binary)
        self._normaliser = _normaliser(self.action_region, binding, with_bounds)
        self.network = PlainNetwork(
            [frames[region] for region in self.cameras],
            sum(frames[region] * (len(n.centre) + 1) for region, n in self._vectors.items()),
            (self.horizon, self._action.size),
            shape.width,
        )

    @property
    def action_size(self) -> int:
        """Components of an action."""
        return self._action.size

    @property
    def observed_regions(self) -> list[str]:
        """The regions whose frames are looked at."""
        return [*self.cameras, *self._vectors]

    def encode(
        self,
        frames: Mapping[str, tuple[torch.Tensor, torch.Tensor]],
        instructions: Sequence[str],
    ) -> PlainInputs:
        """What the network takes for B samples; no gradient flows here.

        Args:
            frames: by region, values (B, F, ...) as declared by its signal, pictures of any size,
                and missing (B, F) bool; regions that are not looked at are passed over.
            instructions: B of them.
        """
        codes = [instruction_code(text) if self._hears else _SILENCE for text in instructions]
        numbers = [torch.zeros(len(codes), 0)]
        for region, normaliser in self._vectors.items():
            values, missing = frames[region]
            vectors = torch.from_numpy(normaliser.normalise(values.numpy()))
            numbers.append(torch.cat([vectors, missing[..., None].float()], dim=2).flatten(1))
        return PlainInputs(
            tuple(self._squashed(frames[region][0]) for region in self.cameras),
            torch.cat(numbers, dim=1),
            torch.from_numpy(np.stack(codes)),
        )

    def forward(self, inputs: PlainInputs) -> torch.Tensor:
        """(B, horizon, size): motion normalised; of binary components, logits of the higher end."""
        return self.network(*inputs)

    def to_units(self, decided: torch.Tensor) -> np.ndarray:
        """What `forward` gives, as float32 in the action signal's units; nothing is in between the
        two ends of a binary component."""
        values = decided.float().cpu().numpy().copy()
        values[..., self.binary] = values[..., self.binary] > 0
        return self._normaliser.unnormalise(values)

    def from_units(self, values: np.ndarray) -> torch.Tensor:
        """The inverse: targets for training, (..., size); 0 to 1 for binary components."""
        return torch.from_numpy(self._normaliser.normalise(values))

    def own_parameters(self) -> dict[str, nn.Parameter]:
        """What a checkpoint of this model holds, by name."""
        return dict(self.named_parameters())

    def _squashed(self, images: torch.Tensor) -> torch.Tensor:
        size = self.shape.image_size
        if images.shape[2:4] == size:
            return images
        squashed = [squash(image, size) for image in images.flatten(0, 1).numpy()]
        return torch.from_numpy(np.stack(squashed)).unflatten(0, images.shape[:2])


_SILENCE = np.zeros(CODE_SIZE, np.float32)  # for a policy that reads no instruction


def _places_of(names: Sequence[str], signal: VectorSignal) -> list[int]:
    unknown = sorted(set(names) - set(signal.names))
    if unknown:
        raise ModelError(
            f"binary: expected components of the action, some of {list(signal.names)}, "
            f"got {unknown}"
        )
    return [place for place, name in enumerate(signal.names) if name in names]


def _bounded(
    statistics: Mapping[str, Statistics], name: str, signal: VectorSignal, binary: Sequence[int]
) -> dict[str, Statistics]:
    """The action's statistics, those of binary components such that low is 0 and high is 1.

    They are needed though a component never changed in the data, as a gripper does not in reaching.
    """
    if name not in statistics:
        return {}
    columns = msgspec.structs.asdict(statistics[name])
    for place in binary:
        low, spread = signal.low[place], signal.high[place] - signal.low[place]
        ends = {"mean": low, "std": spread, "q01": low - spread, "q99": low + spread}
        for key, value in ends.items():
            columns[key] = (*columns[key][:place], value, *columns[key][place + 1 :])
    return {name: Statistics(**columns)}


def _normaliser(region: str, binding: Binding, statistics: Mapping[str, Statistics]) -> Normaliser:
    bound = binding.regions[region]
    return bound_normaliser(region, bound, binding.signals[bound.signal], statistics)
