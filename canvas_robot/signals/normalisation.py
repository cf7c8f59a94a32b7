"""Normalisation of vectors to about [-1, 1] and back, from a checkpoint's statistics."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np


class StatisticsError(ValueError):
    """Statistics are missing, malformed or unusable for a signal."""


class Statistics(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """Statistics of one vector signal, and their source.

    Per component: mean, standard deviation, 1% and 99% quantiles; where known, the lowest and
    highest value. `count`: vectors that they were computed from, where known.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    q01: tuple[float, ...]
    q99: tuple[float, ...]
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    count: int | None = None
    source: str = ""

    def normaliser(self, kind: str) -> Normaliser:
        """Normaliser: "quantile" is q01 -> -1, q99 -> 1; "mean_std" mean -> 0, mean + std -> 1."""
        lengths = {len(getattr(self, name)) for name in ("mean", "std", "q01", "q99")}
        if len(lengths) > 1:
            raise StatisticsError(
                f"statistics: expected equal numbers of components, got {sorted(lengths)}"
            )
        if kind == "quantile":
            low, high = np.array(self.q01), np.array(self.q99)
            return Normaliser((low + high) / 2, (high - low) / 2)
        if kind == "mean_std":
            return Normaliser(np.array(self.mean), np.array(self.std))
        raise StatisticsError(f"normalise: expected 'quantile' or 'mean_std', got {kind!r}")


class Normaliser:
    """x -> (x - centre) / scale, per component, in float32; nothing is clipped."""

    def __init__(self, centre: np.ndarray, scale: np.ndarray) -> None:
        self.centre = np.asarray(centre, dtype=np.float32)
        self.scale = np.asarray(scale, dtype=np.float32)
        if self.centre.shape != self.scale.shape or self.centre.ndim != 1:
            raise StatisticsError(
                f"statistics: expected equal numbers of components, "
                f"got {self.centre.shape} and {self.scale.shape}"
            )
        if not (
            np.isfinite(self.centre).all()
            and np.isfinite(self.scale).all()
            and (self.scale > 0).all()
        ):
            raise StatisticsError(
                f"statistics: expected finite values and a spread > 0, got {scale}"
            )

    def normalise(self, values: np.ndarray) -> np.ndarray:
        """(..., size) in the signal's units to (..., size) without unit."""
        return (np.asarray(values, dtype=np.float32) - self.centre) / self.scale

    def unnormalise(self, values: np.ndarray) -> np.ndarray:
        """The inverse of `normalise`."""
        return np.asarray(values, dtype=np.float32) * self.scale + self.centre


def load_statistics(path: str | Path) -> dict[str, Statistics]:
    """Reads statistics by signal name from JSON; raises StatisticsError naming file and field."""
    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=dict[str, Statistics])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StatisticsError(f"{path}: {error}") from error


def save_statistics(statistics: dict[str, Statistics], path: str | Path) -> None:
    """Writes statistics as JSON; the inverse of `load_statistics`."""
    Path(path).write_bytes(msgspec.json.format(msgspec.json.encode(statistics)) + b"\n")
