"""What the router of mixture chooses and learns."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from canvas_robot.canvas.attention.functions import EDGE_FUNCTIONS, EdgeOptions
from canvas_robot.canvas.attention.functions.routing import block_sizes


@settings(deadline=None)
@given(st.integers(1, 10_000), st.integers(1, 100))
def test_blocks_cover_all_rows_hold_no_more_than_they_may_and_none_is_empty(m, most):
    blocks, size = block_sizes(m, most)
    assert size <= most and (blocks - 1) * size < m <= blocks * size


def test_a_row_reads_no_more_than_the_routed_keys_and_the_router_learns(boxes, rows):
    geometry = boxes(1, (1, 2, 3), (1, 4, 10))
    torch.manual_seed(0)
    options = EdgeOptions(routed_keys=8)
    function = EDGE_FUNCTIONS["mixture"](16, 2, [geometry], options).double()
    src, dst = rows(geometry, 16, batch=1)
    dst.requires_grad_()
    out = function(src, dst, 0)
    chosen = set()
    for i in range(6):
        (gradient,) = torch.autograd.grad(out[0, 0, i].sum(), dst, retain_graph=True)
        read = gradient[0, 0].any(1).nonzero().flatten().tolist()
        assert len(read) == 8
        chosen.add(tuple(read))
    assert len(chosen) > 1
    out.sum().backward()
    assert function.route_src.weight.grad.any() and function.route_dst.weight.grad.any()


@pytest.mark.parametrize("dst", [(1, 1, 3), (1, 2, 3)])
def test_few_dst_rows_are_all_read(dst, boxes, rows):
    geometry = boxes(1, (1, 2, 2), dst)
    options = EdgeOptions(routed_keys=6)
    function = EDGE_FUNCTIONS["mixture"](16, 2, [geometry], options).double()
    src, dst = rows(geometry, 16)
    dst.requires_grad_()
    function(src, dst, 0)[0, 0, 0].sum().backward()
    assert dst.grad[0, 0].any(1).all()
