"""EdgeOptions: sizes of the function types that have one, as metadata.attention declares them.

What they size is implemented in `canvas_robot.canvas.attention.functions`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from canvas_robot.schema.plain import plain_int, plain_list, shown


class EdgeOptionsError(ValueError):
    """An option of the edge functions is unknown or out of its range."""


_MOST_TOKENS = 2**20  # as many as a grid has cells
_RANGES = {
    "top_k": (1, _MOST_TOKENS),
    "latents": (1, _MOST_TOKENS),
    "random_keys": (1, _MOST_TOKENS),
    "routed_keys": (2, _MOST_TOKENS),
    "state_size": (1, 1024),
    "seed": (0, 2**63 - 1),
}


@dataclass(frozen=True)
class EdgeOptions:
    """Sizes of the function types that have one.

    Args:
        top_k: keys that survive for each query and head in sparse_attention.
        window: radius of local_attention in (canvas steps, rows, columns) of the dst region.
        latents: latents of perceiver.
        random_keys: dst rows that each src row reads in random_fixed.
        routed_keys: most dst rows that each src row reads in mixture, in two blocks.
        state_size: states of each channel in mamba.
        seed: of the subsets of random_fixed.

    Raises:
        EdgeOptionsError: an option that is no int or out of its range.
    """

    top_k: int = 32
    window: tuple[int, int, int] = (1, 2, 2)
    latents: int = 32
    random_keys: int = 32
    routed_keys: int = 32
    state_size: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            declared = getattr(self, name)
            value = plain_int(declared)
            if value is None or value < low:
                raise EdgeOptionsError(f"{name}: expected an int >= {low}, got {shown(declared)}")
            if value > high:
                raise EdgeOptionsError(f"{name}: expected at most {high}, got {shown(declared)}")
            object.__setattr__(self, name, value)
        window = tuple(plain_int(radius) for radius in plain_list(self.window) or ())
        if len(window) != 3 or not all(radius is not None and radius >= 0 for radius in window):
            raise EdgeOptionsError(
                f"window: expected three ints >= 0, the radius in t, h and w; "
                f"got {shown(self.window)}"
            )
        if max(window) > _MOST_TOKENS:
            raise EdgeOptionsError(
                f"window: expected radii of at most {_MOST_TOKENS}, got {shown(self.window)}"
            )
        object.__setattr__(self, "window", window)


def declared_options(metadata: Mapping) -> EdgeOptions:
    """What a schema's metadata says under "attention", else the defaults.

    Raises EdgeOptionsError for what is no object, an unknown option or one out of its range.
    """
    declared = metadata.get("attention", {})
    where, known = "metadata.attention", [f.name for f in fields(EdgeOptions)]
    if not isinstance(declared, Mapping):
        raise EdgeOptionsError(
            f"{where}: expected an object with some of {', '.join(known)}; got {shown(declared)}"
        )
    unknown = [name for name in declared if name not in known]
    if unknown:
        raise EdgeOptionsError(
            f"{where}: unknown options {shown(unknown)}; there are {', '.join(known)}"
        )
    try:
        return EdgeOptions(**declared)
    except EdgeOptionsError as error:
        raise EdgeOptionsError(f"{where}: {error}") from error
