"""What the states of mamba and rwkv remember."""

import pytest
import torch

from canvas_robot.canvas.attention.functions import EDGE_FUNCTIONS, EdgeOptions, EdgeShapeError
from canvas_robot.canvas.attention.functions.state_space import last_selective_state


@pytest.mark.parametrize("name", ["mamba", "rwkv"])
def test_late_rows_count_more_than_early_ones(name, boxes, rows):
    geometry = boxes(1, (1, 1, 4), (1, 1, 200))
    torch.manual_seed(0)
    function = EDGE_FUNCTIONS[name](16, 2, [geometry], EdgeOptions()).double()
    src, dst = rows(geometry, 16)
    dst.requires_grad_()
    function(src, dst, 0).square().sum().backward()
    by_row = dst.grad.norm(dim=3).mean((0, 1))
    assert by_row[-20:].mean() > 3 * by_row[:20].mean() > 0


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_steps_of_any_size_leave_a_finite_state(size):
    steps = torch.rand(1, 1, 8192, 4) * size
    rates = -torch.arange(1.0, 5).repeat(4, 1)
    inputs, write = torch.randn(1, 1, 8192, 4), torch.randn(1, 1, 8192, 4)
    tensors = [x.requires_grad_() for x in (inputs, steps, write, rates)]
    state = last_selective_state(*tensors)
    state.sum().backward()
    assert all(x.isfinite().all() for x in (state, *(x.grad for x in tensors)))


def test_without_decay_the_state_is_the_sum_and_with_much_it_is_the_last_row():
    inputs, write = torch.randn(2, 1, 50, 3), torch.randn(2, 1, 50, 4)
    steps, rates = torch.ones(2, 1, 50, 3), torch.ones(3, 4)
    total = torch.einsum("bgmd,bgms->bgds", inputs, write)
    last = inputs[:, :, -1, :, None] * write[:, :, -1, None]
    torch.testing.assert_close(last_selective_state(inputs, steps, write, 0 * rates), total)
    torch.testing.assert_close(last_selective_state(inputs, steps, write, -99 * rates), last)


def test_rwkv_refuses_heads_that_its_norm_would_erase(boxes):
    with pytest.raises(EdgeShapeError, match="rwkv: expected heads at least 2 wide"):
        EDGE_FUNCTIONS["rwkv"](4, 4, [boxes(1, (1, 1, 1), (1, 1, 1))], EdgeOptions())
