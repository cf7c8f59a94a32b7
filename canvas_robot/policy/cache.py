"""Keys and values of all rows for each (block, loop): of one joint pass, or kept between passes."""

from __future__ import annotations

from typing import NamedTuple

import torch

from canvas_robot.policy.passes import CompiledLoop
from canvas_robot.schema import Plan


class Readable(NamedTuple):
    """What rows can read in one loop of a block.

    keys, values: (B, N, heads, d) of all rows. inputs: (B, N, D), the normed inputs, where residual
    edges read them; else None.
    """

    keys: torch.Tensor
    values: torch.Tensor
    inputs: torch.Tensor | None


class JointCache:
    """For one pass over all rows: nothing is kept but what rows past their last loop leave behind.

    `exchange` is a pure function, so that a loop can be computed again in the backward pass.
    """

    def __init__(self, plan: Plan) -> None:
        self._leaves = any(r.loops < plan.loops for r in plan.regions)

    def exchange(
        self, b: int, loop: int, now: CompiledLoop, new: Readable, before: Readable | None
    ) -> tuple[Readable, Readable | None]:
        """What can be read now, and what the next loop needs of it.

        Args:
            b, loop: number of the block and of its loop.
            now: which rows are computed.
            new: of these rows alone.
            before: what the loop before this one left.
        """
        if not now.complete:
            new = Readable(
                *(
                    None if part is None else old.index_copy(1, now.rows, part)
                    for part, old in zip(new, before, strict=True)
                )
            )
        return new, new if self._leaves else None


class RowCache:
    """Static buffers (block, loop, B, N, ...): a pass writes its rows and reads everyone's.

    Args:
        plan: its rows, loops and residual edges say how large it is.
        blocks, heads, head_width: of the backbone.
    """

    def __init__(
        self,
        plan: Plan,
        blocks: int,
        heads: int,
        head_width: int,
        batch: int = 1,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = (blocks, plan.loops, batch, plan.n_rows)
        make = {"dtype": dtype, "device": device}
        self._keys = torch.zeros(*shape, heads, head_width, **make)
        self._values = torch.zeros(*shape, heads, head_width, **make)
        width = heads * head_width
        self._inputs = torch.zeros(*shape, width, **make) if plan.edges else None
        self._plan_loops = plan.loops
        self.out = torch.zeros(batch, plan.n_rows, width, **make)  # last block's output

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        parts = (self._keys, self._values, self._inputs, self.out)
        return sum(part.nbytes for part in parts if part is not None)

    def copy_from(self, other: RowCache) -> None:
        """Holds from now on what another cache of the same plan holds."""
        mine, theirs = ((c._keys, c._values, c._inputs, c.out) for c in (self, other))
        for buffer, values in zip(mine, theirs, strict=True):
            if buffer is not None:
                buffer.copy_(values)

    def exchange(
        self, b: int, loop: int, now: CompiledLoop, new: Readable, before: None
    ) -> tuple[Readable, None]:
        """Writes the rows' own part and returns everyone's; rows that end stay for later loops."""
        buffers = (self._keys, self._values, self._inputs)
        for buffer, part in zip(buffers, new, strict=True):
            if part is None:
                continue
            _write(buffer[b, loop], now, part)
            if now.ends is not None:
                rows, ended = now.rows[now.ends], part.index_select(1, now.ends)
                for later in range(loop + 1, self._plan_loops):
                    buffer[b, later].index_copy_(1, rows, ended)
        return Readable(*(None if x is None else x[b, loop] for x in buffers)), None


def _write(buffer: torch.Tensor, now: CompiledLoop, part: torch.Tensor) -> None:
    if now.span is not None:
        buffer[:, now.span].copy_(part)
    else:
        buffer.index_copy_(1, now.rows, part)
