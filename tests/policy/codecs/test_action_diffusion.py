"""Laws of the diffusion codec: equal tokens give equal chunks; it learns targets and choices, and
goes on with what was begun."""

import numpy as np
import pytest
import torch

from canvas_robot.policy.chunk_execution import soft_mask
from canvas_robot.policy.codecs.action import ActionCodec
from canvas_robot.policy.codecs.action_diffusion import DiffusionActionCodec
from canvas_robot.signals import GoingOn, Normaliser

SIZE, WIDTH = (3, 1, 2), 8


def codec(steps: int = 8) -> DiffusionActionCodec:
    torch.manual_seed(0)
    return DiffusionActionCodec(Normaliser([0.0] * 2, [1.0] * 2), SIZE, WIDTH, 64, steps)


def fitted(action, tokens, targets, iterations: int):
    torch.manual_seed(1)
    optimizer = torch.optim.Adam(action.parameters(), lr=3e-3)
    for _ in range(iterations):
        optimizer.zero_grad()
        action.loss(tokens, targets).mean().backward()
        optimizer.step()
    return action.eval().requires_grad_(False)


def test_equal_tokens_give_equal_chunks_alone_or_in_a_batch_whatever_the_random_state():
    action, tokens = codec(), torch.randn(3, 6, WIDTH)
    together = action.decode(tokens)
    torch.manual_seed(99)
    assert together.shape == (3, 3, 2)
    assert torch.equal(action.decode(tokens), together)
    alone = torch.cat([action.decode(each[None]) for each in tokens])
    torch.testing.assert_close(alone, together)


def test_a_chunk_depends_on_the_noise_and_on_the_tokens_of_every_step():
    action, tokens = codec(), torch.randn(1, 6, WIDTH)
    noise = torch.randn(1, 3, 2)
    chunk = action.sample(tokens, noise)
    assert not torch.equal(action.sample(tokens, noise + 1), chunk)
    for step in range(3):
        other = tokens.clone()
        other[:, 2 * step] += 1
        assert not torch.equal(action.sample(other, noise), chunk)


def test_making_one_draws_its_fixed_noise_from_no_ones_random_numbers():
    first = codec().noise
    torch.manual_seed(5)
    other = DiffusionActionCodec(Normaliser([0.0] * 2, [1.0] * 2), SIZE, WIDTH).noise
    assert torch.equal(first, other)


def test_the_loss_has_one_number_for_each_step_and_reaches_every_weight():
    action = codec()
    loss = action.loss(torch.randn(4, 6, WIDTH), torch.randn(4, 3, 2))
    assert loss.shape == (4, 3)
    loss.mean().backward()
    assert all(p.grad.any() for p in action.parameters())


@pytest.mark.parametrize("steps", [2, 8])
def test_it_learns_to_give_the_target_of_its_tokens(steps):
    torch.manual_seed(2)
    tokens, targets = torch.randn(4, 6, WIDTH), torch.rand(4, 3, 2) * 2 - 1
    action = fitted(codec(steps), tokens.repeat(32, 1, 1), targets.repeat(32, 1, 1), 300)
    assert (action.decode(tokens) - targets).abs().mean() < 0.1
    other_noise = action.sample(tokens, torch.randn(4, 3, 2))
    assert (other_noise - targets).abs().mean() < 0.1


def test_of_two_right_chunks_it_draws_one_where_a_regression_stays_between_them():
    torch.manual_seed(3)
    tokens = torch.randn(1, 6, WIDTH).expand(128, -1, -1)
    targets = torch.cat([torch.ones(64, 3, 2), -torch.ones(64, 3, 2)])
    diffusion = fitted(codec(), tokens, targets, 400)
    drawn = diffusion.sample(tokens, torch.randn(128, 3, 2))
    near = (drawn.abs() - 1).abs().amax(dim=(1, 2)) < 0.5
    signs = drawn[near].mean(dim=(1, 2)).sign()
    assert near.float().mean() > 0.8
    assert 0.25 < (signs > 0).float().mean() < 0.75
    regression = fitted(
        ActionCodec(diffusion.normaliser, SIZE, WIDTH), tokens[32:96], targets[32:96], 50
    )
    assert regression.decode(tokens[:1]).abs().max() < 0.95


def rows(*values: float) -> np.ndarray:
    """Rows of the same value in both components."""
    return np.float32([[value] * 2 for value in values]).reshape(-1, 2)


def written_out(action, tokens, going_on) -> torch.Tensor:
    """Equations 1 to 5 of Black et al. 2025 by the letter: the Jacobian itself, and its product."""
    n, mask, old = len(going_on.rows), np.zeros(9), np.zeros((9, 2))
    mask[:n], old[:n] = soft_mask(n, going_on.frozen), going_on.rows
    mask, old = torch.from_numpy(mask[: action.horizon]), torch.from_numpy(old[: action.horizon])
    weights, old = mask.repeat_interleave(2), old.flatten()
    condition = action.condition(action.steps(tokens)).detach()
    x = action.noise.double().flatten()
    for i in range(action.euler_steps):
        s = i / action.euler_steps

        def velocity(x, at=s):
            at = torch.tensor([at], dtype=torch.float64)
            return action._velocity(x.view(1, action.horizon, 2), at, condition).flatten()

        def end(x, at=s, velocity=velocity):
            return x + (1 - at) * velocity(x)

        jacobian = torch.autograd.functional.jacobian(end, x)
        led = (weights * (old - end(x))) @ jacobian
        r2 = (1 - s) ** 2 / (s**2 + (1 - s) ** 2)
        strength = min(5.0, (1 - s) / (s * r2)) if s > 0 else 5.0
        x = (x + (velocity(x) + strength * led) / action.euler_steps).detach()
    return x.view(1, action.horizon, 2)


@pytest.mark.parametrize("steps", [1, 2, 8])
@pytest.mark.parametrize("count, frozen", [(1, 1), (3, 0), (3, 2), (2, 3), (5, 1)])
def test_the_guided_chunk_is_that_of_the_equations_written_out(steps, count, frozen):
    action = codec(steps).double()
    tokens = torch.randn(1, 6, WIDTH, dtype=torch.float64)
    going_on = GoingOn(rows(0.3, -1.0, 2.0, 0.5, 0.1)[:count], frozen)
    drawn, wanted = action.go_on(tokens, going_on), written_out(action, tokens, going_on)
    torch.testing.assert_close(drawn, wanted, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(drawn, action.decode(tokens))


def test_where_nothing_goes_on_the_chunk_is_bit_for_bit_the_unguided_one():
    action, tokens = codec(), torch.randn(2, 6, WIDTH)
    with torch.inference_mode():
        drawn = action.decode(tokens)
        assert torch.equal(action.go_on(tokens, GoingOn(rows(), 1)), drawn)


def test_guiding_is_repeatable_and_leaves_no_gradient_whoever_asks():
    action, tokens = codec(), torch.randn(1, 6, WIDTH)
    going_on = GoingOn(rows(1.0, 2.0), 1)
    outside = action.go_on(tokens, going_on)
    with torch.inference_mode():
        inside = action.go_on(tokens.clone(), going_on)
    with torch.no_grad():
        assert torch.equal(action.go_on(tokens, going_on), inside)
    assert torch.equal(outside, inside) and not outside.requires_grad
    assert all(p.grad is None and p.requires_grad for p in action.parameters())


def of_two_modes(normaliser=None) -> DiffusionActionCodec:
    """A head that has learnt, of one observation, that all 1 and all -1 are right."""
    action = codec()
    action.normaliser = normaliser or action.normaliser
    targets = torch.cat([torch.ones(64, 3, 2), -torch.ones(64, 3, 2)])
    return fitted(action, THE_TOKENS.expand(128, -1, -1), targets, 400)


THE_TOKENS = torch.randn(1, 6, WIDTH, generator=torch.Generator().manual_seed(3))


def test_it_goes_on_in_the_mode_that_was_begun_where_alone_it_would_choose_the_other():
    """In units: centre 5, scale 2, so the modes are 3 and 7."""
    action = of_two_modes(Normaliser([5.0] * 2, [2.0] * 2))
    alone = action.to_units(action.decode(THE_TOKENS)[0])
    begun = 3.0 if alone.mean() > 5.0 else 7.0
    assert np.abs(alone - (10.0 - begun)).max() < 1.0
    for frozen in (1, 2):
        going_on = GoingOn(rows(begun, begun), frozen)
        drawn = action.to_units(action.go_on(THE_TOKENS, going_on)[0])
        assert np.abs(drawn - begun).max() < 1.0, frozen


def test_with_every_row_known_and_frozen_the_chunk_comes_close_to_the_old_one():
    action = of_two_modes()
    for old in (rows(1.0, 1.0, 1.0), rows(-1.0, -1.0, -1.0)):
        drawn = action.go_on(THE_TOKENS, GoingOn(old, 3))[0]
        assert np.abs(drawn.numpy() - old).max() < 0.25


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_it_is_guided_on_a_gpu_as_on_a_cpu():
    action, tokens = codec(), torch.randn(1, 6, WIDTH)
    going_on = GoingOn(rows(1.0, 2.0), 1)
    here = action.go_on(tokens, going_on)
    action = action.cuda()  # as a policy is: before, not while it decides
    with torch.inference_mode():
        there = action.go_on(tokens.cuda(), going_on)
    torch.testing.assert_close(there.cpu(), here, rtol=1e-3, atol=1e-3)
