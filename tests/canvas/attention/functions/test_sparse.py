"""Who reads whom in sparse_attention, local_attention and random_fixed."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from canvas_robot.canvas.attention.functions import EDGE_FUNCTIONS, EdgeGeometry, EdgeOptions
from canvas_robot.canvas.attention.functions.heads import merge_heads, softmax_attention
from canvas_robot.canvas.attention.functions.sparse import neighbours, random_subsets

WIDTH, HEADS = 8, 2


def rows_read(function, src, dst):
    """(n, m) whether each src row's output depends on each dst row, from the gradient."""
    dst = dst.clone().requires_grad_()
    out = function(src, dst, 0)
    towards = torch.randn(WIDTH, dtype=dst.dtype)
    rows = [
        torch.autograd.grad((out[0, 0, i] * towards).sum(), dst, retain_graph=True)[0][0, 0]
        for i in range(out.shape[2])
    ]
    return torch.stack(rows).abs().amax(2) > 0


@pytest.mark.parametrize(
    "name, everything",
    [
        ("sparse_attention", {"top_k": 24}),
        ("local_attention", {"window": (2, 4, 4)}),
        ("random_fixed", {"random_keys": 24}),
    ],
)
def test_a_list_of_all_dst_rows_is_full_attention(name, everything, boxes, rows):
    geometry = boxes(1, (2, 3, 4), (2, 3, 4))
    function = EDGE_FUNCTIONS[name](WIDTH, HEADS, [geometry], EdgeOptions(**everything)).double()
    src, dst = rows(geometry, WIDTH)
    full = merge_heads(softmax_attention(*function.project(src, dst)), like=src)
    torch.testing.assert_close(function(src, dst, 0), function.project.out(full))


def test_each_head_reads_its_top_k_and_nothing_else(boxes, rows):
    geometry = boxes(1, (1, 2, 3), (1, 4, 5))
    options = EdgeOptions(top_k=4)
    function = EDGE_FUNCTIONS["sparse_attention"](WIDTH, HEADS, [geometry], options).double()
    src, dst = rows(geometry, WIDTH, batch=1)
    queries, keys, _ = function.project(src, dst)
    logits = torch.einsum("rnhd,rmhd->hnm", queries, keys)
    fourth = logits.sort(2, descending=True).values[..., 3:4]
    assert torch.equal(rows_read(function, src, dst), (logits >= fourth).any(0))


def test_a_row_reads_its_window_and_nothing_else(boxes, rows):
    geometry = boxes(1, (3, 4, 5), (3, 4, 5))
    options = EdgeOptions(window=(1, 0, 2))
    function = EDGE_FUNCTIONS["local_attention"](WIDTH, HEADS, [geometry], options).double()
    cells = geometry.src_cells[0]
    distance = (cells[:, None] - cells).abs()
    within = (distance <= torch.tensor(options.window)).all(-1)
    assert torch.equal(rows_read(function, *rows(geometry, WIDTH, batch=1)), within)


def test_nothing_changes_when_a_dst_row_outside_the_window_does(boxes, rows):
    geometry = boxes(1, (1, 5, 5), (1, 5, 5))
    options = EdgeOptions(window=(0, 1, 1))
    function = EDGE_FUNCTIONS["local_attention"](WIDTH, HEADS, [geometry], options)
    src, dst = rows(geometry, WIDTH, dtype=torch.float32)
    changed = dst.clone()
    changed[:, :, 0] = 1e6
    before, after = function(src, dst, 0), function(src, changed, 0)
    untouched = (geometry.src_cells[0] > 1).any(-1)
    assert torch.equal(before[:, :, untouched], after[:, :, untouched])
    assert not torch.equal(before[:, :, ~untouched], after[:, :, ~untouched])


@pytest.mark.parametrize(
    "src, dst, centres",
    [(4, 4, [0, 1, 2, 3]), (2, 6, [1, 4]), (6, 2, [0, 0, 0, 1, 1, 1]), (3, 4, [0, 2, 3])],
)
def test_places_are_scaled_to_the_dst_region(src, dst, centres, boxes):
    geometry = boxes(1, (1, src, 1), (1, dst, 1))
    index, count = neighbours(geometry, (0, 0, 0))
    assert index.flatten().tolist() == centres and count.unique().tolist() == [1]


def test_time_is_compared_in_canvas_steps_and_an_empty_window_reads_zero(rows):
    src_cells = torch.tensor([[[0, 0, 0], [5, 0, 0], [9, 0, 0]]])
    dst_cells = torch.tensor([[[4, 0, 0], [6, 0, 0], [7, 0, 0]]])
    geometry = EdgeGeometry(src_cells, dst_cells, (1, 1), (1, 1))
    index, count = neighbours(geometry, (1, 0, 0))
    assert count.tolist() == [[0, 2, 0]] and index[0, 1].tolist() == [0, 1]

    options = EdgeOptions(window=(1, 0, 0))
    function = EDGE_FUNCTIONS["local_attention"](WIDTH, HEADS, [geometry], options).double()
    src, dst = (x.requires_grad_() for x in rows(geometry, WIDTH))
    out = function(src, dst, 0)
    assert not out[:, :, [0, 2]].any() and out[:, :, 1].all()
    out.sum().backward()
    assert all(x.grad.isfinite().all() for x in (src, dst, *function.parameters()))


def test_no_row_near_any_other_reads_zero(rows):
    cells = torch.tensor([[[0, 0, 0]]])
    geometry = EdgeGeometry(cells, cells + torch.tensor([9, 0, 0]), (1, 1), (1, 1))
    function = EDGE_FUNCTIONS["local_attention"](WIDTH, HEADS, [geometry], EdgeOptions()).double()
    assert not function(*rows(geometry, WIDTH), 0).any()


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 3), st.integers(1, 6), st.integers(1, 40), st.integers(1, 45), st.integers(0))
def test_random_subsets_are_distinct_rows_and_the_seeds_alone(groups, n, m, keys, seed):
    seed %= 2**63
    cells = [torch.arange(k)[None, :, None].expand(groups, -1, 3) for k in (n, m)]
    geometry = EdgeGeometry(*cells, (n, n), (m, m))
    subsets = random_subsets(geometry, keys, seed)
    assert subsets.shape == (groups, n, min(keys, m))
    assert (subsets >= 0).all() and (subsets < m).all() and (subsets.diff(dim=-1) > 0).all()
    torch.rand(3)  # the global generator has no say
    assert torch.equal(random_subsets(geometry, keys, seed), subsets)


def test_random_subsets_favour_no_row_and_differ_by_seed_and_src_row(boxes):
    geometry = boxes(1, (1, 40, 50), (1, 5, 5))
    subsets = random_subsets(geometry, 5, seed=3)
    counts = subsets.flatten().bincount(minlength=25)
    # 2000 draws of 5 in 25: 400 each, standard deviation 18
    assert (counts - 400).abs().max() < 5 * 18
    assert len({tuple(row) for row in subsets[0].tolist()}) > 1900
    assert not torch.equal(random_subsets(geometry, 5, seed=4), subsets)


def test_random_subsets_stay_as_they_were_in_older_checkpoints(boxes):
    # Made by this function: a change here silently rewires trained edges.
    subsets = random_subsets(boxes(1, (1, 1, 3), (1, 10, 10)), 4, seed=7)
    assert subsets.tolist() == [[[44, 52, 61, 64], [1, 50, 58, 99], [4, 25, 31, 83]]]
