"""Laws of residual edges: precision, autocast, and rows that lie in another order."""

import pytest
import torch

from canvas_robot.canvas.attention.functions import EDGE_FUNCTIONS
from canvas_robot.canvas.attention.residual_edges import ResidualEdges
from canvas_robot.schema import CanvasLayout, CanvasSchema, CanvasTopology, Connection, compile_plan
from canvas_robot.schema.edge_options import EdgeOptions

LAYOUT = CanvasLayout(2, 2, 6, 16, {"a": (0, 2, 0, 2, 0, 3), "b": (0, 2, 0, 2, 3, 6)})
SMALL = EdgeOptions(top_k=2, latents=3, random_keys=2, routed_keys=4, state_size=4)
every_function = pytest.mark.parametrize("fn", sorted(EDGE_FUNCTIONS))


def edges_of(fn, places=None):
    """One edge with its gate open; the seed makes its parameters the same each time."""
    torch.manual_seed(0)
    topology = CanvasTopology([Connection("a", "b", t_src=0, t_dst=0, fn=fn)])
    plan = compile_plan(CanvasSchema(LAYOUT, topology))
    edges = ResidualEdges(plan, LAYOUT, 16, 2, SMALL, places)
    with torch.no_grad():
        edges.gates.fill_(0.5)
    return edges


@every_function
@pytest.mark.parametrize("rows_dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("autocast", [False, True])
def test_what_rows_gain_has_their_type_and_trains_the_float32_parameters(fn, rows_dtype, autocast):
    """As the runner uses them: rows of a backbone in half precision, float32 edges."""
    edges = edges_of(fn)
    rows = torch.randn(2, 24, 16, dtype=rows_dtype, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        gained = edges(rows)
        loss = gained.float().square().sum()
    loss.backward()
    assert gained.dtype == rows_dtype and rows.grad.dtype == rows_dtype
    exact = edges(rows.float())
    torch.testing.assert_close(gained.float(), exact, rtol=0.05, atol=0.05)
    gradients = [p.grad for p in edges.parameters()]
    assert all(g.dtype == torch.float32 and g.isfinite().all() and g.any() for g in gradients)


@every_function
def test_rows_may_lie_in_another_order_than_the_plans(fn):
    places = torch.randperm(24, generator=torch.Generator().manual_seed(1))
    rows = torch.randn(2, 24, 16)
    moved = torch.empty_like(rows)
    moved[:, places] = rows
    expected = torch.empty_like(rows)
    expected[:, places] = edges_of(fn)(rows)
    torch.testing.assert_close(edges_of(fn, places)(moved), expected)
    assert expected.any()


@every_function
def test_in_chunks_under_autocast_gradients_are_those_at_once(fn, monkeypatch):
    results = []
    for elements in (2**20, 100):
        monkeypatch.setattr(
            "canvas_robot.canvas.attention.functions.chunks.CPU_CHUNK_ELEMENTS", elements
        )
        edges = edges_of(fn)
        torch.manual_seed(1)
        rows = torch.randn(2, 24, 16, requires_grad=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            edges(rows).square().sum().backward()
        results.append([rows.grad, *(p.grad for p in edges.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=0.05, atol=0.05)
