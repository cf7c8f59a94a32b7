"""Laws of the action codec: encode undoes decode, a step's tokens are averaged."""

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
def test_encode_undoes_decode(rows):
    normalised = torch.tensor(rows, dtype=torch.float32)
    actions = codec().decode(normalised)
    assert actions.dtype == np.float32 and actions.shape == tuple(normalised.shape)
    torch.testing.assert_close(codec().encode(actions), normalised, atol=1e-4, rtol=1e-5)


def test_queries_are_zeros_for_every_token_of_the_region():
    queries = codec(size=(4, 2, 3)).queries(batch=2)
    assert torch.equal(queries, torch.zeros(2, 24, 12))


def test_the_tokens_of_a_step_are_averaged_and_steps_do_not_mix():
    action = codec(size=(3, 1, 2))
    tokens = torch.randn(2, 6, 12)
    out = action(tokens)
    assert out.shape == (2, 3, 7)
    steps = tokens.unflatten(1, (3, 2)).mean(dim=2)
    for step in range(3):
        torch.testing.assert_close(out[:, step], action.head(steps[:, step]))
    swapped = tokens[:, [1, 0, 2, 3, 4, 5]]
    torch.testing.assert_close(action(swapped), out)
