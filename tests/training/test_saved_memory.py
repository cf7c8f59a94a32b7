"""Laws of counting: each storage once, weights and inputs aside, what is computed again not."""

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from canvas_robot.training.saved_memory import saved_bytes, tensor_bytes, weights_of


def chain(depth):
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(depth)))


def test_every_tanh_keeps_its_output_and_nothing_else_is_kept():
    """A linear layer keeps its input: the output of the tanh before, or the known input."""
    module, x = chain(3), torch.randn(5, 8)
    assert saved_bytes(lambda: module(x), [*weights_of(module), x]) == 3 * 5 * 8 * 4


def test_a_storage_counts_once_however_often_it_is_kept():
    w = nn.Parameter(torch.randn(5, 8))

    def squares():
        y = w.tanh()
        return y * y + y[:2].sum() * y

    kept = saved_bytes(squares, [w])
    assert kept == 5 * 8 * 4 + 4  # y, and the sum


def test_what_is_computed_again_keeps_its_input_alone():
    module, x = chain(4), torch.randn(5, 8)

    def again():
        y = x
        for layers in (module[:2], module[2:]):
            y = checkpoint(layers, y, use_reentrant=False)
        return y

    assert saved_bytes(again, [*weights_of(module), x]) == 5 * 8 * 4


def test_without_gradients_nothing_is_kept():
    module, x = chain(3).requires_grad_(False), torch.randn(5, 8)
    assert saved_bytes(lambda: module(x), [*weights_of(module), x]) == 0


def test_bytes_of_tensors_count_storages():
    base = torch.zeros(10, dtype=torch.float16)
    assert tensor_bytes([base, base[:3], base.view(2, 5), torch.zeros(2)]) == 20 + 8
    assert len(weights_of(nn.BatchNorm1d(3))) == 5
