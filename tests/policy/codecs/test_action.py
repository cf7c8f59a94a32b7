"""Laws of the action codec: units undo targets, a step's tokens are averaged."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from canvas_robot.policy.codecs.action import ActionCodec
from canvas_robot.signals import Normaliser

NORMALISER = Normaliser([0.1] * 7, [0.01] * 6 + [0.5])


def codec(size=(4, 1, 2), width: int = 12) -> ActionCodec:
    torch.manual_seed(0)
    return ActionCodec(NORMALISER, size, width)


@given(st.lists(st.lists(st.floats(-5, 5), min_size=7, max_size=7), min_size=1, max_size=4))
def test_targets_from_units_undo_values_in_units(rows):
    normalised = torch.tensor(rows, dtype=torch.float32)
    actions = codec().to_units(normalised)
    assert actions.dtype == np.float32 and actions.shape == tuple(normalised.shape)
    torch.testing.assert_close(codec().from_units(actions), normalised, atol=1e-4, rtol=1e-5)


def test_queries_are_zeros_for_every_token_of_the_region():
    action = codec(size=(4, 2, 3))
    inputs = action.encode(None).expand(2, -1)
    assert action.token_count == 24
    assert torch.equal(action.embed(inputs), torch.zeros(2, 24, 12))


def test_the_tokens_of_a_step_are_averaged_and_steps_do_not_mix():
    action = codec(size=(3, 1, 2))
    tokens = torch.randn(2, 6, 12)
    out = action.decode(tokens)
    assert out.shape == (2, 3, 7)
    steps = tokens.unflatten(1, (3, 2)).mean(dim=2)
    for step in range(3):
        torch.testing.assert_close(out[:, step], action.head(steps[:, step]))
    swapped = tokens[:, [1, 0, 2, 3, 4, 5]]
    torch.testing.assert_close(action.decode(swapped), out)


def test_the_loss_of_each_step_is_its_mean_distance_to_the_target():
    action, tokens = codec(), torch.randn(2, 8, 12)
    targets = action.decode(tokens).detach()
    assert torch.equal(action.loss(tokens, targets), torch.zeros(2, 4))
    targets[1, 2, :] += 0.5
    loss = action.loss(tokens, targets)
    torch.testing.assert_close(loss[1, 2], torch.tensor(0.5))
    assert loss.count_nonzero() == 1


def test_the_heads_layer_is_as_wide_as_the_tokens_unless_said_otherwise():
    assert codec().head.net[0].out_features == 12
    assert ActionCodec(NORMALISER, (4, 1, 2), 12, hidden=5).head.net[0].out_features == 5


def test_tokens_in_bfloat16_are_decoded_in_the_heads_own_precision():
    out = codec().decode(torch.randn(1, 8, 12, dtype=torch.bfloat16))
    assert out.dtype == torch.float32
