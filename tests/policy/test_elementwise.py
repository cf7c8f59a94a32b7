"""What lies between a loop's matrix products: the same function, compiled or not."""

import shutil

import numpy as np
import pytest
import torch

from canvas_robot.policy.elementwise import RunNorm, between, elementwise, enter, leave
from canvas_robot.policy.policy import CanvasPolicy

WIDTH, SIZES = 12, (3, 2)


def arguments(per_sample: bool = False) -> tuple[torch.Tensor, RunNorm]:
    torch.manual_seed(0)
    shape = (2, 1, WIDTH) if per_sample else (WIDTH,)
    vectors = [tuple(torch.randn(shape) for _ in SIZES) for _ in range(3)]
    return torch.randn(2, sum(SIZES), WIDTH), RunNorm(*vectors, eps=1e-5)


@pytest.mark.parametrize("per_sample", [False, True])
def test_every_run_of_rows_has_its_own_shift_norm_and_gate(per_sample):
    rows, norm = arguments(per_sample)
    shifted, normed = enter(rows, SIZES, norm.gates, norm)
    update = torch.randn_like(rows)
    added, _ = between(rows, update, None, SIZES, norm.gates, norm)
    start = 0
    for size, weight, bias, gate in zip(SIZES, *norm[:3], strict=True):
        run = slice(start, start + size)
        x = rows[:, run] + gate
        mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
        expected = (x - mean) / (variance + norm.eps).sqrt() * weight + bias
        assert torch.equal(shifted[:, run], x)
        assert torch.allclose(normed[:, run], expected, atol=1e-5)
        assert torch.equal(added[:, run], rows[:, run] + update[:, run] * gate)
        start += size


@pytest.mark.parametrize("gate, kept", [(0.0, "old"), (1.0, "new")])
def test_a_gate_of_0_keeps_what_was_and_1_takes_what_is(gate, kept):
    rows, norm = arguments()
    old, update = torch.randn_like(rows), torch.randn_like(rows)
    mixed = leave(rows, update, old, SIZES, norm.gates, "identity", torch.tensor([gate]))
    new, _ = between(rows, update, None, SIZES, norm.gates, norm)
    assert torch.equal(mixed, {"old": old, "new": new}[kept])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="Inductor needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_functions_equal_plain_ones_to_rounding():
    rows, norm = arguments()
    update, old = torch.randn_like(rows), torch.randn_like(rows)
    results = []
    for functions in (elementwise(), elementwise(compiled=True)):
        x, normed = functions.enter(rows, SIZES, norm.gates, norm)
        y, again = functions.between(x, update, old, SIZES, norm.gates, norm)
        gate = ("identity", torch.tensor([0.3]))
        results.append(
            (x, normed, y, again, functions.leave(y, again, old, SIZES, norm.gates, *gate))
        )
    for plain, compiled in zip(*results, strict=True):
        assert torch.allclose(plain, compiled, atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="Inductor needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fused_policy_decides_as_a_plain_one(make_policy, samples):
    plain = make_policy()
    chunks = []
    for fuse in (False, True):
        policy = CanvasPolicy(
            plain.model, plain.schema, plain.binding, plain.statistics, "tiny", {}, False, fuse=fuse
        )
        policy.reset("lift")
        chunks.append([policy.act(samples(tick)).values for tick in range(3)])
    assert np.allclose(*chunks, atol=1e-4)
