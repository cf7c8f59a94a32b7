"""Laws of the reward and thought codecs: tokens are learned; a reward is a number for each step."""

import numpy as np
import torch

from canvas_robot.policy.codecs.reward import RewardCodec
from canvas_robot.policy.codecs.thought import ThoughtCodec
from canvas_robot.signals import Normaliser


def reward() -> RewardCodec:
    torch.manual_seed(0)
    return RewardCodec(Normaliser([0.5], [0.25]), (4, 1, 2), width=6)


def test_their_tokens_are_the_same_learned_ones_for_every_sample():
    for codec in (reward(), ThoughtCodec(8, 6)):
        tokens = codec.embed(codec.encode(None).expand(3, -1))
        assert tokens.shape == (3, codec.token_count, 6) == (3, 8, 6)
        assert torch.equal(tokens, codec.queries.expand(3, -1, -1))
        assert codec.queries.requires_grad and len(codec.queries.unique()) == 48


def test_a_reward_is_one_number_for_each_step_from_that_steps_tokens():
    codec, tokens = reward(), torch.randn(2, 8, 6)
    rewards = codec.decode(tokens)
    assert rewards.shape == (2, 4, 1)
    other = tokens.clone()
    other[:, 2:4] += 1
    changed = (codec.decode(other) != rewards)[..., 0]
    assert changed.tolist() == [[False, True, False, False]] * 2


def test_rewards_in_units_undo_targets():
    values = np.float32([[0.0], [0.5], [1.0]])
    codec = reward()
    targets = codec.from_units(values)
    assert targets.flatten().tolist() == [-2.0, 0.0, 2.0]
    np.testing.assert_array_equal(codec.to_units(targets), values)


def test_a_rewards_loss_is_least_at_the_mean_of_what_came():
    codec = reward()
    optimizer = torch.optim.Adam(codec.parameters(), lr=0.03)
    tokens = torch.ones(4, 8, 6)
    targets = torch.tensor([0.0, 0.0, 0.0, 1.0])[:, None, None].expand(-1, 4, 1)
    for _ in range(100):
        optimizer.zero_grad()
        loss = codec.loss(tokens, targets)
        assert loss.shape == (4, 4)
        loss.mean().backward()
        optimizer.step()
    torch.testing.assert_close(codec.decode(tokens), torch.full((4, 4, 1), 0.25), atol=0.02, rtol=0)
