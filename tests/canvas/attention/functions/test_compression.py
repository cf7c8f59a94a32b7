"""What perceiver and pooling squeeze."""

import torch

from canvas_robot.canvas.attention.functions import EDGE_FUNCTIONS, EdgeOptions


def test_latents_read_different_things_from_the_start(boxes, rows):
    geometry = boxes(1, (1, 2, 2), (1, 8, 8))
    torch.manual_seed(0)
    function = EDGE_FUNCTIONS["perceiver"](32, 4, [geometry], EdgeOptions(latents=8)).double()
    _, dst = rows(geometry, 32)
    queries, keys, _ = function.compress(function.latents.expand(2, 1, -1, -1), dst)
    weights = torch.einsum("rlhd,rmhd->rhlm", queries, keys).div(8**0.5).softmax(-1)
    assert weights.std(2).mean() > 0.1 * weights.mean()


def test_pooling_hands_every_src_row_the_mean(boxes, rows):
    geometry = boxes(2, (1, 2, 2), (1, 3, 3))
    src, dst = rows(geometry, 6)
    out = EDGE_FUNCTIONS["pooling"](6, 1, [geometry], EdgeOptions())(src, dst, 0)
    torch.testing.assert_close(out, dst.mean(2)[:, :, None].expand(2, 2, 4, 6))
