"""The convolutions of hyena, beside direct sums."""

import pytest
import torch

from canvas_robot.canvas.attention.functions import EDGE_FUNCTIONS, EdgeOptions
from canvas_robot.canvas.attention.functions.convolution import (
    ImplicitFilter,
    ShortConvolution,
    convolve_both_ways,
)


@pytest.mark.parametrize("m", [1, 2, 3, 7, 64, 65])
def test_the_fft_equals_the_direct_sum(m):
    rows, values = torch.randn(2, 3, m, 4).double(), torch.randn(2 * m - 1, 4).double()
    offsets = torch.arange(m)[:, None] - torch.arange(m)
    direct = torch.einsum("pjd,bgjd->bgpd", values[offsets + m - 1], rows)
    torch.testing.assert_close(convolve_both_ways(rows, values), direct)


@pytest.mark.parametrize("m", [1, 2, 500])
def test_the_filter_is_as_long_as_the_rows_and_never_amplifies(m):
    values = ImplicitFilter(8).double()(m)
    assert values.shape == (2 * m - 1, 8) and values.abs().min() > 0
    torch.testing.assert_close(values.abs().sum(0), torch.ones(8).double())


def test_a_causal_short_convolution_sees_no_later_row():
    rows = torch.randn(1, 1, 9, 4, requires_grad=True)
    ShortConvolution(4, 4, ahead=0)(rows)[0, 0, 5].sum().backward()
    assert rows.grad[0, 0].any(1).nonzero().flatten().tolist() == [2, 3, 4, 5]


def test_every_src_row_sees_every_dst_row(boxes, rows):
    geometry = boxes(1, (1, 1, 3), (1, 4, 5))
    function = EDGE_FUNCTIONS["hyena"](8, 1, [geometry], EdgeOptions()).double()
    src, dst = rows(geometry, 8, batch=1)
    dst.requires_grad_()
    out = function(src, dst, 0)
    for i in range(3):
        (gradient,) = torch.autograd.grad(out[0, 0, i].sum(), dst, retain_graph=True)
        assert gradient[0, 0].any(1).all()
