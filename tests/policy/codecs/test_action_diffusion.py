"""Laws of the diffusion codec: equal tokens give equal chunks; it learns targets and choices."""

import pytest
import torch

from canvas_robot.policy.codecs.action import ActionCodec
from canvas_robot.policy.codecs.action_diffusion import DiffusionActionCodec
from canvas_robot.signals import Normaliser

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
