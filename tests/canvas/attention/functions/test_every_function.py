"""Laws that hold for every function type, whatever it computes."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from canvas_robot.canvas.attention.functions import (
    EDGE_FUNCTIONS,
    EdgeOptions,
    EdgeShapeError,
    chunks,
)
from canvas_robot.schema import ATTENTION_TYPES

WIDTH, HEADS = 16, 2
GROUPS = (3, (1, 3, 4), (1, 3, 4))  # boxes that copy can serve too
NAMES = list(EDGE_FUNCTIONS)
WITHOUT_PARAMETERS = {"pooling", "copy"}
every_function = pytest.mark.parametrize("name", NAMES)


@pytest.fixture
def make(options):
    def make_function(name, *geometries, seed=0, options=options):
        torch.manual_seed(seed)
        return EDGE_FUNCTIONS[name](WIDTH, HEADS, geometries, options).double()

    return make_function


def test_they_are_all_types_but_the_backbones_own_and_none():
    assert set(EDGE_FUNCTIONS) == set(ATTENTION_TYPES) - {"cross_attention", "none"}


@every_function
def test_the_class_says_what_it_computes_and_from_where(name):
    text = EDGE_FUNCTIONS[name].__doc__
    assert "O(" in text
    assert name in WITHOUT_PARAMETERS or "arXiv 2" in text or "arXiv 1" in text


@every_function
def test_a_group_reads_only_its_own_dst_rows(name, make, boxes, rows):
    geometry = boxes(*GROUPS)
    function, (src, dst) = make(name, geometry), rows(geometry, WIDTH)
    changed = dst.clone()
    changed[1, 0] += torch.randn_like(changed[1, 0])
    before, after = function(src, dst, 0), function(src, changed, 0)
    moved = (before - after).abs().amax((2, 3)) > 1e-12
    assert moved.tolist() == [[False] * 3, [True, False, False]]


@every_function
def test_src_rows_never_see_each_other(name, make, boxes, rows):
    geometry = boxes(*GROUPS)
    function, (src, dst) = make(name, geometry), rows(geometry, WIDTH)
    changed = src.clone()
    changed[0, 1, 5] += torch.randn(WIDTH)
    before, after = function(src, dst, 0), function(changed, dst, 0)
    moved = ((before - after).abs().amax(3) > 1e-12).nonzero().tolist()
    assert moved == ([] if name in WITHOUT_PARAMETERS else [[0, 1, 5]])


@every_function
def test_every_parameter_and_the_dst_rows_get_a_gradient_at_once(name, make, boxes, rows):
    geometry = boxes(*GROUPS)
    function, (src, dst) = make(name, geometry), rows(geometry, WIDTH)
    dst.requires_grad_()
    out = function(src, dst, 0)
    (out * torch.randn_like(out)).sum().backward()
    assert (list(function.parameters()) == []) == (name in WITHOUT_PARAMETERS)
    without = [key for key, p in function.named_parameters() if not p.grad.any()]
    assert without == [] and dst.grad.any()


@every_function
def test_parameters_start_in_float32_and_outputs_follow_the_module(name, boxes, rows, options):
    geometry = boxes(*GROUPS)
    function = EDGE_FUNCTIONS[name](WIDTH, HEADS, [geometry], options)
    assert {p.dtype for p in function.parameters()} <= {torch.float32}
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        out = function.to(dtype)(*rows(geometry, WIDTH, dtype=dtype), 0)
        assert out.dtype == dtype and out.isfinite().all()


@every_function
def test_each_bucket_keeps_its_own_geometry(name, make, boxes, rows):
    first, second = boxes(*GROUPS), boxes(1, (1, 2, 3), (1, 2, 1))
    both = make(name, first, second)
    for bucket, geometry in enumerate((first, second)):
        alone = make(name, geometry)
        src, dst = rows(geometry, WIDTH)
        torch.testing.assert_close(both(src, dst, bucket), alone(src, dst, 0))


@every_function
def test_a_saved_state_holds_parameters_only_and_restores_the_function(name, make, boxes, rows):
    geometry = boxes(*GROUPS)
    saved, other = make(name, geometry, seed=1), make(name, geometry, seed=2)
    state = saved.state_dict()
    assert set(state) == {key for key, _ in saved.named_parameters()}
    other.load_state_dict(state)
    src, dst = rows(geometry, WIDTH)
    assert torch.equal(saved(src, dst, 0), other(src, dst, 0))


@every_function
def test_thousands_of_dst_rows_keep_single_precision(name, boxes, rows):
    src_box = (8, 32, 32) if name == "copy" else (1, 8, 8)
    geometry = boxes(1, src_box, (8, 32, 32))
    torch.manual_seed(0)
    function = EDGE_FUNCTIONS[name](WIDTH, HEADS, [geometry], EdgeOptions())
    results = []
    for dtype in (torch.float32, torch.float64):
        src, dst = (x.to(dtype).requires_grad_() for x in rows(geometry, WIDTH, 1, torch.float32))
        function.to(dtype).zero_grad()
        out = function(src, dst, 0)
        out.square().mean().backward()
        gradients = [x.grad for x in (dst, *function.parameters())]
        results.append([out.detach(), *(g / g.abs().max() for g in gradients)])
    for single, double in zip(*results, strict=True):
        assert single.isfinite().all()
        torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-4)


class LargestTensor(TorchDispatchMode):
    """Notes the most numbers that any one result holds."""

    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        sizes = (
            x.untyped_storage().nbytes() // x.element_size()
            for x in tree_leaves(result)
            if isinstance(x, torch.Tensor)
        )
        self.numel = max([self.numel, *sizes])
        return result


@every_function
def test_no_function_makes_a_tensor_of_src_rows_by_dst_rows(
    name, boxes, rows, options, monkeypatch
):
    monkeypatch.setattr(chunks, "CPU_CHUNK_ELEMENTS", 2**14)
    geometry = boxes(1, (1, 32, 64), (1, 32, 64))
    with LargestTensor() as largest:
        function = EDGE_FUNCTIONS[name](WIDTH, HEADS, [geometry], options)
        src, dst = (x.requires_grad_() for x in rows(geometry, WIDTH, 1, torch.float32))
        function(src, dst, 0).square().sum().backward()
    assert largest.numel < 2048 * 2048 / 8


@every_function
def test_what_is_kept_for_the_gradient_grows_with_the_rows_not_with_their_pairs(
    name, boxes, rows, options, monkeypatch
):
    monkeypatch.setattr(chunks, "CPU_CHUNK_ELEMENTS", 2**14)
    geometry = boxes(1, (1, 32, 32), (1, 32, 32))
    function = EDGE_FUNCTIONS[name](WIDTH, HEADS, [geometry], options)
    src, dst = (x.requires_grad_() for x in rows(geometry, WIDTH, 1, torch.float32))
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(saved.append, lambda nothing: nothing):
        function(src, dst, 0)
    rows_of_numbers = 1024 * WIDTH
    filters = 2 * 1024 * 64 * 10 if name == "hyena" else 0  # its network, over all offsets
    assert sum(x.numel() for x in saved) < 24 * rows_of_numbers + filters


@every_function
def test_heads_must_divide_the_width(name, boxes, options):
    with pytest.raises(EdgeShapeError, match="got width 16 and 3 heads"):
        EDGE_FUNCTIONS[name](16, 3, [boxes(*GROUPS)], options)


@every_function
def test_a_function_needs_a_geometry(name, options):
    with pytest.raises(EdgeShapeError, match="geometries: expected at least one"):
        EDGE_FUNCTIONS[name](WIDTH, HEADS, [], options)
