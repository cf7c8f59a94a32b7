"""CanvasAttention: a schema's whole topology as one attention layer, outside any backbone."""

from __future__ import annotations

import torch
from torch import nn

from canvas_robot.canvas.attention.functions.interface import EdgeOptions
from canvas_robot.canvas.attention.residual_edges import ResidualEdges
from canvas_robot.canvas.attention.softmax import GroupedSoftmax
from canvas_robot.schema import CanvasSchema, compile_plan


class CanvasAttention(nn.Module):
    """Multi-head attention of a canvas's tokens, by the schema's connections.

    Connections of type cross_attention are one softmax per row over the union of what they allow,
    each key's logit shifted by log(weight). A key that several of them allow counts once, with the
    largest weight. All other types add to their src rows, each behind a gate that starts at 0. A
    row that reads nothing gets 0.

    Args:
        schema: the declaration; its metadata may hold "attention", the fields of EdgeOptions.
        n_heads: attention heads; they divide the schema's d_model.
        tokens: tokens that fill each region, by name; a region that is not named is filled whole.
        options: wins over the schema's metadata.

    Raises:
        OverlapError: two regions share a cell.
        PlanError: a token count or the boxes of a copy do not fit.
        ValueError: n_heads does not divide d_model, or there are no regions.
    """

    def __init__(
        self,
        schema: CanvasSchema,
        n_heads: int,
        tokens: dict[str, int] | None = None,
        options: EdgeOptions | None = None,
    ) -> None:
        super().__init__()
        layout, width = schema.layout, schema.layout.d_model
        if n_heads < 1 or width % n_heads:
            raise ValueError(
                f"n_heads: expected a divisor of the schema's d_model {width}, got {n_heads}"
            )
        if not layout.regions:
            raise ValueError("schema: expected at least one region, got a layout without any")
        self.plan = compile_plan(schema, tokens=tokens)
        self.n_positions, self.n_heads = layout.num_positions, n_heads
        self.to_q, self.to_k, self.to_v, self.to_out = (nn.Linear(width, width) for _ in range(4))
        self.softmax = GroupedSoftmax(self.plan.groups)
        self.edges = None
        if self.plan.edges:
            options = options if options is not None else edge_options(schema)
            self.edges = ResidualEdges(self.plan, layout, width, n_heads, options)
        cells = torch.tensor([c for r in self.plan.regions for c in r.cells], dtype=torch.long)
        speaks = torch.tensor(
            [[bool(g.reads)] for g in self.plan.groups for _ in range(g.start, g.stop)]
        )
        self.register_buffer("cells", cells, persistent=False)  # of the plan's rows
        self.register_buffer("order", cells.argsort(), persistent=False)
        self.register_buffer("ranks", cells.argsort().argsort(), persistent=False)
        self.register_buffer("speaks", None if speaks.all() else speaks, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens to attention outputs, of the same shape; no residual stream is added.

        Args:
            x: the full canvas (B, T * H * W, d_model), where uncovered cells are neither read nor
                computed and give 0; or the covered tokens alone (B, N_covered, d_model), in the
                order of their cells.

        Raises:
            ValueError: any other number of tokens.
        """
        if x.shape[1] == len(self.cells):
            return self._rows(x.index_select(1, self.ranks)).index_select(1, self.order)
        if x.shape[1] == self.n_positions:
            out = self._rows(x.index_select(1, self.cells))
            return torch.zeros_like(x).index_copy(1, self.cells, out)
        raise ValueError(
            f"x: expected (B, {self.n_positions}, d_model), the full canvas, or "
            f"(B, {len(self.cells)}, d_model), its covered cells; got {tuple(x.shape)}"
        )

    def _rows(self, rows: torch.Tensor) -> torch.Tensor:
        heads = (self.n_heads, -1)
        q, k, v = (to(rows).unflatten(2, heads) for to in (self.to_q, self.to_k, self.to_v))
        out = self.to_out(self.softmax(q, k, v).flatten(2))
        if self.speaks is not None:
            out = out * self.speaks
        return out if self.edges is None else out + self.edges(rows)


def edge_options(schema: CanvasSchema) -> EdgeOptions:
    """What the schema's metadata says under "attention", else the defaults.

    Raises ValueError for fields that there are not.
    """
    declared = schema.metadata.get("attention", {})
    try:
        return EdgeOptions(**declared)
    except (TypeError, AttributeError) as error:
        raise ValueError(f"schema: metadata.attention: {error}") from error
