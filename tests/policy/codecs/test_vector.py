"""Laws of the vector codec: a frame becomes its own tokens, the missing flag is seen."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from canvas_robot.policy.codecs.vector import VectorCodec
from canvas_robot.signals import Frames, Normaliser

NORMALISER = Normaliser([1.0, -2.0], [0.5, 4.0])


def codec(tokens_per_step: int = 1) -> VectorCodec:
    torch.manual_seed(0)
    return VectorCodec(NORMALISER, (2, 1, tokens_per_step), width=6)


def frames(*values, missing) -> Frames:
    stamps = np.arange(len(values), dtype=np.int64)
    return Frames(np.array(values, np.float32), stamps, np.array(missing))


def test_inputs_are_the_normalised_vectors_unclipped_each_with_its_missing_flag():
    inputs = codec().encode(frames([1.5, -2.0], [101.0, 2.0], missing=[True, False]))
    assert inputs.dtype == torch.float32
    assert inputs.tolist() == [[1.0, 0.0, 1.0], [200.0, 1.0, 0.0]]


@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)), min_size=1, max_size=3))
def test_vectors_undo_encoding(values):
    given_frames = frames(*values, missing=[False] * len(values))
    back = codec().vectors(codec().encode(given_frames))
    np.testing.assert_allclose(back, given_frames.values, rtol=1e-5, atol=1e-4)


def test_a_frame_becomes_the_tokens_of_its_own_step_in_order():
    vector = codec(tokens_per_step=3)
    inputs = vector.encode(frames([1.0, 0.0], [2.0, 1.0], missing=[False, False]))[None]
    tokens = vector.embed(inputs)
    assert tokens.shape == (1, vector.token_count, 6) == (1, 6, 6)
    torch.testing.assert_close(tokens[:, :3], vector.embed(inputs[:, :1]))
    torch.testing.assert_close(tokens[:, 3:], vector.embed(inputs[:, 1:]))


def test_a_missing_past_differs_from_the_same_value_measured():
    vector = codec()
    measured = vector.embed(vector.encode(frames([1.0, 0.0], missing=[False]))[None])
    stand_in = vector.embed(vector.encode(frames([1.0, 0.0], missing=[True]))[None])
    assert not torch.equal(measured, stand_in)
