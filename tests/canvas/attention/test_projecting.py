"""Laws of `project`: it gives what the layer gives, and asks oneDNN only where it may."""

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad

from canvas_robot.canvas.attention import projecting
from canvas_robot.canvas.attention.projecting import FEWEST_PRODUCTS, project

WIDTH, ROWS = 256, 1024  # enough products


@pytest.fixture
def asked(monkeypatch):
    """How often oneDNN was asked."""
    calls, real = [], projecting._ONEDNN
    assert real is not None, "the operator is gone: look for its new name"
    monkeypatch.setattr(projecting, "_ONEDNN", lambda *a: calls.append(a) or real(*a))
    torch.manual_seed(0)
    return calls


def layer_and_input(dtype=torch.float32, rows=ROWS, bias=True):
    layer = nn.Linear(WIDTH, WIDTH, bias=bias, dtype=dtype)
    return layer, torch.randn(1, rows, WIDTH, dtype=dtype)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("strided", [False, True])
def test_it_gives_what_the_layer_gives(asked, bias, strided):
    layer, x = layer_and_input(bias=bias)
    x = torch.randn(2, ROWS, 2 * WIDTH)[..., ::2] if strided else x
    with torch.no_grad():
        exact = nn.functional.linear(
            x.double(), layer.weight.double(), layer.bias.double() if bias else None
        )
        assert (project(layer, x) - exact).abs().max() < 3e-6
    assert len(asked) == 1


def test_it_is_asked_from_so_many_products_on(asked):
    rows = FEWEST_PRODUCTS // WIDTH**2
    with torch.no_grad():
        for count in (rows - 1, rows):
            layer, x = layer_and_input(rows=count)
            project(layer, x)
            assert len(asked) == (count == rows)


def test_with_gradients_it_is_the_layer(asked):
    layer, x = layer_and_input()
    project(layer, x).sum().backward()
    assert layer.weight.grad is not None and not asked


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@torch.no_grad()
def test_other_dtypes_are_left_to_the_layer(asked, dtype):
    layer, x = layer_and_input(dtype)
    assert torch.equal(project(layer, x), layer(x)) and not asked


@torch.no_grad()
def test_autocast_and_transforms_are_left_to_the_layer(asked):
    layer, x = layer_and_input()
    with torch.autocast("cpu", torch.bfloat16):
        assert project(layer, x).dtype == torch.bfloat16
    torch.func.vmap(lambda row: project(layer, row))(x[None])
    torch.export.export(Projecting(layer), (x,))
    assert not asked


class Projecting(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return project(self.layer, x)


class Twice(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


@torch.no_grad()
def test_a_layer_that_does_more_is_called(asked):
    _, x = layer_and_input()
    twice = Twice(WIDTH, WIDTH)
    assert torch.equal(project(twice, x), twice(x))
    hooked, heard = nn.Linear(WIDTH, WIDTH), []
    hooked.register_forward_hook(lambda *a: heard.append(a))
    project(hooked, x)
    assert heard and not asked
    replaced = nn.Linear(WIDTH, WIDTH)
    replaced.forward = lambda x: 2 * x  # as accelerate's hooks do
    assert torch.equal(project(replaced, x), 2 * x) and not asked


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # torch's own
@torch.no_grad()
def test_tangents_of_forward_mode_are_kept(asked):
    layer, x = layer_and_input()
    direction = torch.randn_like(x)
    with forward_ad.dual_level():
        out = project(layer, forward_ad.make_dual(x, direction))
        tangent = forward_ad.unpack_dual(out).tangent
    torch.testing.assert_close(tangent, direction @ layer.weight.T)
    assert not asked


@torch.no_grad()
def test_without_the_operator_it_is_the_layer(monkeypatch):
    monkeypatch.setattr(projecting, "_ONEDNN", None)
    layer, x = layer_and_input()
    assert torch.equal(project(layer, x), layer(x))
