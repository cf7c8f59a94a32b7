"""How much memory a backbone needs under a plan, and whether a device has it.

Counted from the configuration, so that it is known before any weights are loaded.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import psutil
import torch
from torch import nn

from canvas_robot.backbone.byte_weights import quantisable
from canvas_robot.backbone.configuration import BackboneConfiguration, BackboneError
from canvas_robot.backbone.weights import number_format
from canvas_robot.canvas.attention.residual_edges import ResidualEdges
from canvas_robot.schema import CanvasSchema, Plan, compile_plan
from canvas_robot.schema.edge_options import declared_options

# Row-sized tensors alive at once in a feed-forward: its input and output, 4 wide each, and both
# streams' residuals and normed rows. Measured: 12.1 with sin-cos, 13.0 with rotary positions.
ROWS_ALIVE = 13

_LOG = logging.getLogger(__name__)


class BackboneMemoryError(BackboneError):
    """A device has less free memory than a backbone and its plan need."""


class MemoryRow(NamedTuple):
    """One line of a memory table."""

    what: str
    bytes: int


def weight_rows(
    configuration: BackboneConfiguration,
    dtype: torch.dtype,
    int8: bool = False,
    text_encoder: bool = True,
) -> tuple[MemoryRow, ...]:
    """Bytes of the weights by part, position tables included.

    int8: the transformer's blocks are quantised. text_encoder: it is loaded, if there is one.
    """
    parts = [p for p in configuration.parts if text_encoder or p != "text_encoder"]
    rows = {}
    for part in parts:
        module = configuration.skeleton(part)
        sizes = (t.numel() * number_format(module, n, dtype).itemsize for n, t in _tensors(module))
        rows[part] = sum(sizes)
    if int8:
        layers = _linears(configuration)
        rows["transformer"] -= sum(w.numel() * (dtype.itemsize - 1) for w in layers)
        rows["transformer"] += sum(w.shape[0] * dtype.itemsize for w in layers)
    return tuple(MemoryRow(f"{part} weights", size) for part, size in rows.items())


def cache_rows(
    configuration: BackboneConfiguration,
    plan: Plan,
    batch: int = 1,
    dtype: torch.dtype = torch.bfloat16,
    sliced: bool = False,
) -> tuple[MemoryRow, ...]:
    """Bytes of what a TickRunner keeps from tick to tick, see `memory_table`."""
    row = configuration.width * dtype.itemsize * batch
    slow = [r.stop - r.start for r in plan.regions if r.period > 1] if sliced else []
    halves, named = (2, ", two halves") if slow else (1, "")
    per_loop = configuration.transformer.num_layers * plan.loops * plan.n_rows * row * halves
    kept = {f"keys and values{named}": 2 * per_loop}
    if plan.edges:
        kept[f"normed inputs, which residual edges read{named}"] = per_loop
    kept["tokens in and out"] = (plan.n_rows * (1 + halves) + sum(slow)) * row
    return tuple(MemoryRow(what, size) for what, size in kept.items())


def memory_table(
    configuration: BackboneConfiguration,
    schema: CanvasSchema,
    loops: int,
    batch: int = 1,
    dtype: torch.dtype = torch.bfloat16,
    sliced: bool = False,
    int8: bool = False,
    text_encoder: bool = True,
) -> tuple[MemoryRow, ...]:
    """What running a schema takes, in bytes. Codecs, heads and captured graphs are not counted.

    Args:
        configuration: of the backbone.
        schema, loops: what runs; all cells of its regions are counted.
        batch: canvases at once.
        dtype: of frozen weights, caches and activations.
        sliced: the caches have two halves, one read while the other is filled.
        int8, text_encoder: as of `weight_rows`.
    Raises:
        PlanError and the like: no plan can be made of the schema.
    """
    plan, config = compile_plan(schema, loops), configuration.transformer
    blocks, width = config.num_layers, config.width
    activations = ROWS_ALIVE * plan.n_rows * width * dtype.itemsize * batch
    if int8:  # the layer that is cast back for its product
        activations += max(w.numel() for w in _linears(configuration)) * dtype.itemsize
    trained = [MemoryRow("loop parameters, float32", blocks * loops * (2 * width + 1) * 4)]
    if plan.edges:
        options = declared_options(schema.metadata)
        with torch.device("meta"):
            edges = ResidualEdges(plan, schema.layout, width, config.num_attention_heads, options)
        size = sum(tensor.numel() * tensor.itemsize for _, tensor in _tensors(edges))
        trained.append(MemoryRow("residual edges, float32", blocks * size))
    return (
        *weight_rows(configuration, dtype, int8, text_encoder),
        *cache_rows(configuration, plan, batch, dtype, sliced),
        MemoryRow("activations of one pass, about", activations),
        *trained,
    )


def format_table(rows: Sequence[MemoryRow]) -> str:
    """The table and its total, one row a line, in GB (1e9 bytes)."""
    lines = [*rows, MemoryRow("total", sum(row.bytes for row in rows))]
    wide = max(len(row.what) for row in lines)
    return "\n".join(f"{row.what:<{wide}}  {row.bytes / 1e9:9.3f} GB" for row in lines)


def free_memory(device: str | torch.device) -> int:
    """Free bytes of a CUDA device, or available bytes of the machine."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def require_memory(rows: Sequence[MemoryRow], device: str | torch.device) -> None:
    """Notes the table in the log; raises BackboneMemoryError with it where it does not fit."""
    needed, free = sum(row.bytes for row in rows), free_memory(device)
    table = format_table(rows)
    _LOG.info("memory on %s, %.3f GB free:\n%s", device, free / 1e9, table)
    if needed > free:
        raise BackboneMemoryError(
            f"memory of {device}: expected {needed / 1e9:.3f} GB free, got {free / 1e9:.3f} GB; "
            "leave the text encoder out, use int8 weights, fewer loops or rows, or another "
            f"device\n{table}"
        )


def _tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    return chain(module.named_parameters(), module.named_buffers())


def _linears(configuration: BackboneConfiguration) -> list[torch.Tensor]:
    layers = quantisable(configuration.skeleton("transformer"))
    return [getattr(owner, name).weight for owner, name in layers]
