"""CanvasAttention: a schema's whole topology as one attention layer, outside any backbone."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from canvas_robot.canvas.attention.functions.gathering import take_rows
from canvas_robot.canvas.attention.functions.interface import EdgeOptions
from canvas_robot.canvas.attention.projecting import project
from canvas_robot.canvas.attention.residual_edges import ResidualEdges
from canvas_robot.canvas.attention.softmax import GroupedSoftmax
from canvas_robot.canvas.static import StaticModule
from canvas_robot.schema import CanvasSchema, compile_plan
from canvas_robot.schema.edge_options import declared_options
from canvas_robot.schema.plain import plain_int, shown

CAST_BY_AUTOCAST = {torch.float32, torch.float16, torch.bfloat16}


class CanvasAttention(StaticModule):
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
        ValueError: an argument of another type, n_heads does not divide d_model, or there are no
            regions.
    """

    def __init__(
        self,
        schema: CanvasSchema,
        n_heads: int,
        tokens: dict[str, int] | None = None,
        options: EdgeOptions | None = None,
    ) -> None:
        super().__init__()
        _require_usable(schema, n_heads, tokens, options)
        layout, width = schema.layout, schema.layout.d_model
        self.plan = compile_plan(schema, tokens=tokens)
        self.n_positions, self.width, self.n_heads = layout.num_positions, width, n_heads
        # Queries of every head; then keys and values of one head, then of the next.
        self.to_qkv, self.to_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        # Tokens stay in the canvas's order; the plan's rows are looked up in it, never moved.
        cells = [cell for region in self.plan.regions for cell in region.cells]
        cells, order = torch.tensor(cells, device="cpu").sort()
        places = order.argsort()
        self.softmax = GroupedSoftmax(self.plan.groups, places)
        self.edges = None
        if self.plan.edges:
            options = declared_options(schema.metadata) if options is None else options
            self.edges = ResidualEdges(self.plan, layout, width, n_heads, options, places)
        speaks = [bool(g.reads) for g in self.plan.groups for _ in range(g.start, g.stop)]
        speaks = torch.tensor(speaks, device="cpu")[order, None]
        self.keep_static(cells=cells, speaks=None if speaks.all() else speaks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens to attention outputs, of the same shape; no residual stream is added.

        Under autocast the result has autocast's dtype, as that of nn.Linear has.

        Args:
            x: the full canvas (B, T * H * W, d_model), where uncovered cells are neither read nor
                computed and give 0; or the covered tokens alone (B, N_covered, d_model), in the
                order of their cells.

        Raises:
            ValueError: any other shape, or another dtype than the parameters'.
        """
        self._require_tokens(x)
        if x.shape[1] == len(self.cells):
            return self._covered(x)
        out = self._covered(take_rows(x, self.cells.expand(x.shape[0], -1)))
        return out.new_zeros(x.shape).index_copy(1, self.cells, out)

    def _covered(self, x: torch.Tensor) -> torch.Tensor:
        out = project(self.to_out, self.softmax(*self.project(x)).flatten(2))
        if self.speaks is not None:
            out = out * self.speaks
        return out if self.edges is None else out + self.edges(x).to(out.dtype)

    def project(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values (B, N, n_heads, d) of tokens (B, N, d_model)."""
        q, kv = project(self.to_qkv, x).split((self.width, 2 * self.width), dim=2)
        k, v = kv.unflatten(2, (self.n_heads, 2, -1)).unbind(3)
        return q.unflatten(2, (self.n_heads, -1)), k, v

    def _require_tokens(self, x: torch.Tensor) -> None:
        if not isinstance(x, torch.Tensor):
            raise ValueError(f"x: expected a tensor, got {type(x).__name__}")
        full, covered, shape = self.n_positions, len(self.cells), tuple(x.shape)
        if len(shape) != 3 or shape[1] not in (full, covered) or shape[2] != self.width:
            raise ValueError(
                f"x: expected (B, {full}, {self.width}), the full canvas, or "
                f"(B, {covered}, {self.width}), its covered cells; got {shape}"
            )
        own = self.to_qkv.weight.dtype
        if x.dtype != own and not (_autocast(x) and {x.dtype, own} <= CAST_BY_AUTOCAST):
            raise ValueError(
                f"x: expected {own}, as the parameters are, got {x.dtype}; "
                "convert x, or the module by .to(dtype)"
            )


def _require_usable(
    schema: CanvasSchema,
    n_heads: int,
    tokens: Mapping[str, int] | None,
    options: EdgeOptions | None,
) -> None:
    """The types of CanvasAttention's arguments; whether token counts fit is the plan's question."""
    if not isinstance(schema, CanvasSchema):
        raise ValueError(f"schema: expected a CanvasSchema, got {type(schema).__name__}")
    if not schema.layout.regions:
        raise ValueError("schema: expected at least one region, got a layout without any")
    width, heads = schema.layout.d_model, plain_int(n_heads)
    if heads is None or heads < 1 or width % heads:
        raise ValueError(
            f"n_heads: expected an int that divides the schema's d_model {width}, "
            f"got {shown(n_heads)}"
        )
    if tokens is not None and not isinstance(tokens, Mapping):
        raise ValueError(f"tokens: expected a dict of region names to ints, got {shown(tokens)}")
    for name, count in (tokens or {}).items():
        if plain_int(count) is None:
            raise ValueError(f"tokens: region {name!r}: expected an int, got {shown(count)}")
    if options is not None and not isinstance(options, EdgeOptions):
        raise ValueError(f"options: expected EdgeOptions, got {shown(options)}")


def _autocast(x: torch.Tensor) -> bool:
    device = x.device.type
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
