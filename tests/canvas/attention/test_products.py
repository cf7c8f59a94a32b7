"""Laws of multiply_blocks: it writes softmax attention, however its inputs lie in memory."""

import math

import pytest
import torch

from canvas_robot.canvas.attention import products, softmax
from canvas_robot.canvas.attention.functions import chunks
from canvas_robot.canvas.attention.products import multiply_blocks, suits
from canvas_robot.canvas.attention.softmax import GroupedSoftmax, SoftmaxBatch
from canvas_robot.schema.plan import RowGroup

HEADS, D, M = 3, 8, 120  # rows that may be read
BLOCKS, N = 5, 16


def groups(weighted=False, reads=(20, 14)):
    """Blocks of 16 rows that read two runs each, some of them the same rows."""
    first, second = reads
    return [
        RowGroup(
            start=N * i,
            stop=N * (i + 1),
            reads=((7 * i, 7 * i + first), (60 + 5 * i, 60 + 5 * i + second)),
            weights=(0.5, 3.0 + i) if weighted else (1.0, 1.0),
            stream="video",
            timestep=0,
        )
        for i in range(BLOCKS)
    ]


def separate(b):
    return torch.randn(b, M, HEADS, D), torch.randn(b, M, HEADS, D)


def paired(b):
    return torch.randn(b, M, HEADS, 2, D).unbind(3)


def heads_first(b):
    return tuple(torch.randn(b, HEADS, M, D).transpose(1, 2) for _ in range(2))


def parts_of_one(b):
    return torch.randn(b, M, 3, HEADS, D)[:, :, 1:].unbind(2)


def with_steps(b):
    """Every second row of a longer tensor, beginning later."""
    return tuple(torch.randn(b, 2 * M + 6, HEADS, D)[:, 5:-1:2] for _ in range(2))


LAYOUTS = [separate, paired, heads_first, parts_of_one, with_steps]


def written_out(groups, q, k, v, places):
    """In float64, a row at a time."""
    q, k, v = (x.double() for x in (q, k, v))
    out = torch.zeros_like(q)
    for group in groups:
        reads = [row for a, b in group.reads for row in range(a, b)]
        pairs = zip(group.reads, group.weights, strict=True)
        weights = torch.tensor([w for (a, b), w in pairs for _ in range(a, b)]).double()
        for row in range(group.start, group.stop):
            place = places[row]
            scores = torch.einsum("bhd,bmhd->bmh", q[:, place], k[:, reads]) / math.sqrt(D)
            shares = (scores + weights.log()[:, None]).softmax(1)
            out[:, place] = torch.einsum("bmh,bmhd->bhd", shares, v[:, reads])
    return out


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    with torch.no_grad():
        yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("b", [1, 2])
@pytest.mark.parametrize("scattered", [False, True])
@pytest.mark.parametrize("at_once", [1, 2, 5])  # of 5 blocks: 2, 2 and 1 too
def test_it_writes_softmax_attention(monkeypatch, layout, weighted, b, scattered, at_once):
    monkeypatch.setattr(chunks, "CPU_CHUNK_ELEMENTS", at_once * b * HEADS * N * 34)
    declared = groups(weighted)
    places = torch.randperm(M) if scattered else torch.arange(M)
    batch = SoftmaxBatch(declared)
    if scattered:  # only the rows: k and v lie in the plan's order in `written_out`
        batch = SoftmaxBatch(declared, places)
        batch.reads = SoftmaxBatch(declared).reads
    q, (k, v) = torch.randn(b, M, HEADS, D), layout(b)
    for dtype, tolerance in ((torch.float32, 5e-6), (torch.float64, 1e-13)):
        cast = [x.to(dtype) if x.dtype != dtype else x for x in (q, k, v)]
        out = torch.full_like(cast[0], math.nan)
        multiply_blocks(batch, *cast, batch.log_weights, out)
        rows = places[: BLOCKS * N]
        expected = written_out(declared, *cast, places)[:, rows]
        torch.testing.assert_close(out[:, rows].double(), expected, rtol=0, atol=tolerance)
        untouched = torch.ones(M, dtype=torch.bool)
        untouched[rows] = False
        assert out[:, untouched].isnan().all()


def test_keys_and_values_side_by_side_are_read_in_one_go(monkeypatch):
    batch, calls = SoftmaxBatch(groups()), []
    select = torch.index_select
    monkeypatch.setattr(torch, "index_select", lambda *a, **k: calls.append(a) or select(*a, **k))
    for layout, times in ((paired, 1), (separate, 2)):
        calls.clear()
        q = torch.randn(1, M, HEADS, D)
        multiply_blocks(batch, q, *layout(1), None, torch.empty_like(q))
        assert len(calls) == times


def test_the_default_device_is_not_where_it_computes():
    batch, q, k, v = large()
    out = torch.empty_like(q)
    with torch.device("meta"):
        multiply_blocks(batch, q, k, v, None, out)
    expected = torch.empty_like(q)
    multiply_blocks(batch, q, k, v, None, expected)
    assert torch.equal(out[:, : BLOCKS * N], expected[:, : BLOCKS * N])


def large(reads=(60, 40)):
    """Of so many scores that products are the faster way."""
    many = [group for _ in range(16) for group in groups(reads=reads)]
    return SoftmaxBatch(many), *(torch.randn(1, M, HEADS, D) for _ in range(3))


def test_it_suits_large_batches_of_small_blocks_where_threads_share_the_work():
    batch, q, k, v = large()
    assert suits(batch, q, k, v)
    assert suits(batch, *(x.double() for x in (q, k, v)))
    assert suits(batch, q, *paired(1))
    assert not suits(batch, *(x.bfloat16() for x in (q, k, v)))
    assert not suits(batch, q, k, v.double())
    odd = torch.randn(1, M, HEADS, D + 1)[..., :D]
    assert not suits(batch, q, odd, v)
    assert not suits(batch, q, k, torch.randn(1, M, D, HEADS).transpose(2, 3))
    assert not suits(SoftmaxBatch(groups()), q, k, v), "too few scores"
    few, *_ = large(reads=(10, 5))
    assert not suits(few, q, k, v)
    with torch.enable_grad():
        assert not suits(batch, q, k, v)
    torch.set_num_threads(1)
    assert not suits(batch, q, k, v)


def test_scores_that_fit_in_no_cache_are_left_to_fused_attention(monkeypatch):
    batch, q, k, v = large()
    monkeypatch.setattr(chunks, "CPU_CHUNK_ELEMENTS", HEADS * N * 100)
    assert suits(batch, q, k, v)
    monkeypatch.setattr(chunks, "CPU_CHUNK_ELEMENTS", HEADS * N * 100 - 1)
    assert not suits(batch, q, k, v)


def test_rows_that_an_int32_cannot_count_are_left_to_fused_attention(monkeypatch):
    batch, q, k, v = large()
    monkeypatch.setattr(products, "MOST_ROWS", k.numel())
    assert not suits(batch, q, k, v)


@pytest.mark.parametrize(
    "transformed",
    [
        lambda f, q, k, v: torch.func.vmap(lambda *x: f(*(y[None] for y in x))[0])(q, k, v),
        lambda f, q, k, v: torch.export.export(f, (q, k, v)).module()(q, k, v),
        lambda f, q, k, v: torch.compile(f, backend="aot_eager", fullgraph=True)(q, k, v),
        lambda f, q, k, v: torch.jit.trace(f, (q, k, v))(q, k, v),
    ],
    ids=["vmap", "export", "compile", "trace"],
)
@pytest.mark.filterwarnings("ignore::Warning")  # of those transforms
def test_what_transforms_a_module_gets_fused_attention(transformed):
    batch, q, k, v = large()
    assert suits(batch, q, k, v)
    declared = [group for _ in range(16) for group in groups(reads=(60, 40))]
    ordered = [group._replace(start=N * i, stop=N * i + N) for i, group in enumerate(declared)]
    attention = GroupedSoftmax(ordered)
    q = torch.randn(2, N * len(ordered), HEADS, D)
    k, v = separate(2)
    expected = attention(q, k, v)
    torch.testing.assert_close(transformed(attention, q, k, v), expected, rtol=0, atol=5e-6)


def test_the_grouped_softmax_is_the_same_either_way(monkeypatch):
    wide = [
        RowGroup(
            start=64 * i,
            stop=64 * i + 64,
            reads=((0, 60), (70, 110)),
            weights=(1.0, 2.0),
            stream="video",
            timestep=0,
        )
        for i in range(20)
    ]
    q = torch.randn(2, 1280, HEADS, D)
    k, v = paired(2)
    calls = []
    multiply = softmax.multiply_blocks
    monkeypatch.setattr(
        softmax, "multiply_blocks", lambda *args: calls.append(1) or multiply(*args)
    )
    attention = GroupedSoftmax(wide)
    by_products = attention(q, k, v)
    assert calls == [1]
    torch.set_num_threads(1)
    fused = attention(q, k, v)
    assert calls == [1]
    torch.testing.assert_close(by_products, fused, rtol=0, atol=5e-6)
