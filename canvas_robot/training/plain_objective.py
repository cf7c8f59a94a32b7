"""PlainObjective: what a plain policy is trained to do, as one number for a batch.

Smooth absolute error of the motion, cross entropy of what is either high or low.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from canvas_robot.data.batches import Batch
from canvas_robot.policy.plain_model import PlainInputs, PlainModel
from canvas_robot.training.objective import ObjectiveError

KINK = 0.1  # of a normalised error: below it the square counts, above it the size


class PlainObjective:
    """The loss of a model on batches of recorded windows.

    All known steps of a window weigh the same, all components, and all windows.

    Args:
        model: what learns.
        shift: how far pictures are moved at most, in pixels of the model's own size.
    """

    def __init__(self, model: PlainModel, shift: int) -> None:
        self.model, self._shift = model, shift
        self._motion = [n for n in range(model.action_size) if n not in model.binary]

    def losses(
        self, batch: Batch, random: np.random.Generator | None = None
    ) -> dict[str, torch.Tensor]:
        """The loss, a scalar under "loss", and its parts "motion" and "binary", where there are.

        Args:
            random: where from pictures are moved; None: they stay.
        Raises:
            ObjectiveError: a binary component's target is beyond its declared ends.
        """
        inputs = self.model.encode(batch.frames, batch.instructions)
        if random is not None and self._shift:
            moved = tuple(shifted(each, self._shift, random) for each in inputs.pictures)
            inputs = PlainInputs(moved, inputs.numbers, inputs.code)
        values, missing = batch.targets[self.model.action_region]
        targets = self.model.from_units(values.numpy())
        decided = self.model(inputs)
        motion, binary = self._motion, self.model.binary
        self._check(targets[..., binary])
        errors = {
            "motion": F.smooth_l1_loss(
                decided[..., motion], targets[..., motion], reduction="none", beta=KINK
            ),
            "binary": F.binary_cross_entropy_with_logits(
                decided[..., binary], targets[..., binary], reduction="none"
            ),
        }
        summed = {name: self._mean(error, ~missing) for name, error in errors.items()}
        counted = {name: total for name, total in summed.items() if errors[name].shape[-1]}
        return {"loss": sum(summed.values()) / decided.shape[-1]} | {
            name: total / errors[name].shape[-1] for name, total in counted.items()
        }

    def _mean(self, errors: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """(B, horizon, n) summed over components, mean over a window's known steps, then all."""
        of_steps = (errors.sum(dim=2) * known).sum(dim=1) / known.sum(dim=1).clamp(min=1)
        return of_steps.mean()

    def _check(self, targets: torch.Tensor) -> None:
        if targets.numel() and not (targets.min() >= 0 and targets.max() <= 1):
            names = ", ".join(self.model.shape.binary)
            raise ObjectiveError(
                f"action: expected {names} between the lowest and the highest that the binding "
                f"declares, got {float(targets.min()):.3g} to {float(targets.max()):.3g} of that "
                "span; name data.rules.gripper: settled, or leave it out of network.binary"
            )


def shifted(pictures: torch.Tensor, most: int, random: np.random.Generator) -> torch.Tensor:
    """(B, F, h, w, 3) pictures, each sample's moved by up to `most` pixels in either direction.

    What comes in at an edge repeats it (Kostrikov et al. 2020).
    """
    images = pictures.numpy()
    height, width = images.shape[2:4]
    padded = np.pad(images, ((0, 0), (0, 0), (most, most), (most, most), (0, 0)), "edge")
    moved = np.empty_like(images)
    for n, (down, across) in enumerate(random.integers(0, 2 * most + 1, (len(images), 2))):
        moved[n] = padded[n, :, down : down + height, across : across + width]
    return torch.from_numpy(moved)
