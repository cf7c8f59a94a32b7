"""Errors of predicted action chunks against recorded ones: sums by episode, measures, intervals.

NumPy only. An action is Bridge V2's: six components of motion, then the gripper's target.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

GRIPPER = 6  # the component that is a target and no change
OPEN_ABOVE = 0.5  # of the gripper's target: 0 is closed, 1 open
RESAMPLES = 1000
CONFIDENCE = 0.95
_AT_A_TIME = 100  # resamples: what bounds the memory of many episodes


def previous_actions(actions: np.ndarray, first_state: np.ndarray) -> np.ndarray:
    """(T, 7): at each tick the action before it, all that is known then.

    Before the first there is none: no motion, and the gripper's target as the gripper is.
    """
    still = np.zeros_like(actions[:1])
    still[0, GRIPPER] = first_state[GRIPPER] > OPEN_ABOVE
    return np.concatenate([still, actions[:-1]])


def repeated(previous: np.ndarray, horizon: int) -> np.ndarray:
    """(T, 7) to chunks (T, horizon, 7): each action repeated."""
    return np.repeat(previous[:, None], horizon, axis=1)


def still(previous: np.ndarray, horizon: int) -> np.ndarray:
    """(T, 7) to chunks (T, horizon, 7): no motion, the gripper's target kept."""
    chunks = repeated(previous, horizon)
    chunks[..., :GRIPPER] = 0
    return chunks


@dataclass(frozen=True, eq=False)
class Sums:
    """Over the windows of each episode; horizon steps beyond its end count nothing.

    counts: (E, H), windows that have this step. absolute, squared: (E, H, 7), of the errors in the
    action's units. grips: (E, H, 2, 2, 2), how often, by whether the recorded gripper target
    differs from the last one before the window, whether it is open, whether the predicted one is.
    """

    counts: np.ndarray
    absolute: np.ndarray
    squared: np.ndarray
    grips: np.ndarray

    @classmethod
    def of(
        cls, predicted: np.ndarray, recorded: np.ndarray, missing: np.ndarray, kept: np.ndarray
    ) -> Sums:
        """Of one episode (E = 1).

        Args:
            predicted, recorded: (n, H, 7) of its n windows.
            missing: (n, H) bool, beyond the end.
            kept: (n,) the last gripper target before each window.
        """
        known = ~missing
        error = np.where(known[..., None], predicted.astype(np.float64) - recorded, 0.0)
        wanted, got = recorded[..., GRIPPER] > OPEN_ABOVE, predicted[..., GRIPPER] > OPEN_ABOVE
        changed = wanted != (kept > OPEN_ABOVE)[:, None]
        grips = np.zeros((recorded.shape[1], 2, 2, 2))
        steps = np.broadcast_to(np.arange(recorded.shape[1]), known.shape)
        where = (part[known].astype(int) for part in (steps, changed, wanted, got))
        np.add.at(grips, tuple(where), 1)
        sums = known.sum(0), np.abs(error).sum(0), np.square(error).sum(0), grips
        return cls(*(part[None] for part in sums))

    @classmethod
    def joined(cls, parts: Sequence[Sums]) -> Sums:
        """Of the episodes of all parts."""
        fields = ("counts", "absolute", "squared", "grips")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in fields))

    def __len__(self) -> int:
        return len(self.counts)

    def resampled(self, weights: Callable[[np.ndarray], np.ndarray]) -> Sums:
        """Their totals (R, ...), under each of R draws of episodes."""
        return Sums(*map(weights, (self.counts, self.absolute, self.squared, self.grips)))


class Resampling:
    """Draws of E episodes with replacement, the same for all that is measured on them.

    Of the totals that it gives, the first is of every episode once.
    """

    def __init__(self, episodes: int, seed: int = 0, resamples: int = RESAMPLES) -> None:
        random = np.random.default_rng(seed)
        self._blocks = [np.ones((1, episodes))]
        for start in range(0, resamples if episodes > 1 else 0, _AT_A_TIME):
            count = min(_AT_A_TIME, resamples - start)
            drawn = random.multinomial(episodes, np.full(episodes, 1 / episodes), size=count)
            self._blocks.append(drawn.astype(np.uint16 if episodes < 2**16 else np.uint32))

    def totals(self, by_episode: np.ndarray) -> np.ndarray:
        """(E, ...) to (1 + resamples, ...)."""
        flat = by_episode.reshape(len(by_episode), -1)
        summed = np.concatenate([block.astype(np.float64) @ flat for block in self._blocks])
        return summed.reshape(-1, *by_episode.shape[1:])


def estimate(values: np.ndarray) -> dict[str, float | None]:
    """A measure of all episodes, and where CONFIDENCE of its resamples lie; None where unknown."""
    value = None if np.isnan(values[0]) else float(values[0])
    drawn = values[1:][~np.isnan(values[1:])]
    if value is None or not len(drawn):
        return {"value": value, "low": None, "high": None}
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, (tail, 1 - tail))
    return {"value": value, "low": float(low), "high": float(high)}


@dataclass(frozen=True, eq=False)
class Measures:
    """What totals (R, ...) say, each (R, ...); NaN where there is nothing to measure.

    scale: (7,), units for 1 of the normalised action.
    """

    totals: Sums
    scale: np.ndarray

    def mean_absolute(self) -> np.ndarray:
        """(R, 7), in units."""
        return _ratio(self.totals.absolute.sum(1), self.totals.counts.sum(1)[:, None])

    def root_mean_square(self) -> np.ndarray:
        """(R, 7), in units."""
        return np.sqrt(_ratio(self.totals.squared.sum(1), self.totals.counts.sum(1)[:, None]))

    def motion(self) -> np.ndarray:
        """(R,): mean absolute error of the normalised motion, all its components and steps."""
        return (self.mean_absolute() / self.scale)[:, :GRIPPER].mean(1)

    def motion_by_step(self) -> np.ndarray:
        """(R, H): `motion` of each step of the chunk."""
        by_step = _ratio(self.totals.absolute, self.totals.counts[..., None])
        return (by_step / self.scale)[..., :GRIPPER].mean(-1)

    def gripper(self) -> np.ndarray:
        """(R,): share of gripper targets that are right."""
        return _right(self.totals.grips.sum((1, 2)))

    def gripper_by_step(self) -> np.ndarray:
        """(R, H)."""
        return _right(self.totals.grips.sum(2))

    def gripper_balanced(self) -> np.ndarray:
        """(R,): mean of the shares of closed and of open targets that are right; if there are only
        targets of one kind, theirs."""
        grips = self.totals.grips.sum((1, 2))  # (R, wanted, got)
        shares = np.stack([_ratio(grips[:, k, k], grips[:, k].sum(-1)) for k in (0, 1)])
        known = ~np.isnan(shares)
        return _ratio(np.where(known, shares, 0.0).sum(0), known.sum(0))

    def gripper_changes(self) -> np.ndarray:
        """(R,): share of right ones among the targets that differ from the last one before."""
        return _right(self.totals.grips.sum(1)[:, 1])


def measured(sums: Mapping[str, Sums], scale: np.ndarray) -> dict[str, Measures]:
    """The measures of several predictors, by name, under the same draws of episodes."""
    (episodes,) = {len(each) for each in sums.values()}
    resampling = Resampling(episodes)
    return {name: Measures(each.resampled(resampling.totals), scale) for name, each in sums.items()}


def _right(grips: np.ndarray) -> np.ndarray:
    """Share on the diagonal of (..., 2, 2)."""
    return _ratio(grips[..., 0, 0] + grips[..., 1, 1], grips.sum((-1, -2)))


def _ratio(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    """NaN where nothing counts."""
    shape = np.broadcast_shapes(total.shape, count.shape)
    return np.divide(total, count, out=np.full(shape, np.nan), where=np.asarray(count) > 0)
