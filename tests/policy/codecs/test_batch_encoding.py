"""Law of batches: what `encode_batch` gives is what stacking `encode` of each sample gives."""

from pathlib import Path

import numpy as np
import pytest
import torch

from canvas_robot.backbone.image_encoder import ImageEncoder
from canvas_robot.backbone.loading import load_backbone
from canvas_robot.data.bridge import BridgeV2
from canvas_robot.policy.codecs.action import ActionCodec
from canvas_robot.policy.codecs.codec import Codec, ModelError
from canvas_robot.policy.codecs.reward import RewardCodec
from canvas_robot.policy.codecs.text import TextCodec
from canvas_robot.policy.codecs.thought import ThoughtCodec
from canvas_robot.policy.codecs.vector import VectorCodec
from canvas_robot.policy.codecs.visual import VisualCodec
from canvas_robot.resources import config_path
from canvas_robot.signals import Frames, Normaliser, load_statistics

SAMPLE = Path(__file__).parents[4] / "shared" / "data" / "bridge_sample"
NORMALISER = Normaliser([1.0, -2.0], [0.5, 4.0])
# Of latents that reach 6. On one CPU they were equal bit for bit, in batches of 1, 4, 8 and 16; a
# convolution may sum in another order elsewhere.
ROUNDING = {torch.float32: {"atol": 2e-5, "rtol": 1e-5}, torch.bfloat16: {"atol": 0.1, "rtol": 0.0}}


def visual(dtype: torch.dtype = torch.float32) -> VisualCodec:
    backbone = load_backbone("tiny", dtype, text_encoder=False)
    encoder, embed = ImageEncoder(backbone.vae), backbone.transformer.patch_embed
    return VisualCodec(encoder, backbone.vae, embed, (2, 4, 6), "eye", "camera")


@pytest.fixture(scope="module")
def codec() -> VisualCodec:
    return visual()


def pictures(*shape: int, height: int = 32, width: int = 48) -> np.ndarray:
    random = np.random.default_rng(0)
    return random.integers(0, 256, (*shape, height, width, 3), dtype=np.uint8)


def batches(codec: Codec, samples: list[Frames]) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch of samples through `encode_batch`, and each through `encode`, stacked."""
    values = torch.from_numpy(np.stack([sample.values for sample in samples]))
    missing = torch.from_numpy(np.stack([sample.missing for sample in samples]))
    encoded = torch.stack([codec.encode(sample) for sample in samples])
    return codec.encode_batch(values, missing), encoded


def samples_of(values: np.ndarray) -> list[Frames]:
    """(B, F, ...) values as samples, the first frame of every other one missing."""
    stamps = np.arange(1, values.shape[1] + 1, dtype=np.int64)
    flags = np.arange(values.shape[1]) == 0
    return [Frames(sample, stamps, flags & bool(i % 2)) for i, sample in enumerate(values)]


@pytest.fixture(scope="module")
def episode():
    if not SAMPLE.exists():
        pytest.skip("no Bridge V2 at ../shared/data")
    return BridgeV2(SAMPLE)[0]


@pytest.mark.parametrize("dtype", ROUNDING)
def test_a_batch_of_real_images_is_each_encoded_alone(episode, dtype):
    windows = np.stack([episode.images[i : i + 2] for i in range(5)])
    batch, alone = batches(visual(dtype), samples_of(windows))
    assert batch.shape == (5, 2, 8, 4, 6) and batch.dtype == alone.dtype == dtype
    torch.testing.assert_close(batch, alone, **ROUNDING[dtype])


def test_a_batch_of_real_states_is_each_encoded_alone_bit_for_bit(episode):
    statistics = load_statistics(config_path("statistics", "bridge_v2.json"))
    codec = VectorCodec(statistics["state"].normaliser("quantile"), (3, 1, 1), width=6)
    windows = np.stack([episode.states[i : i + 3] for i in range(6)])
    batch, alone = batches(codec, samples_of(windows))
    assert batch.shape == (6, 3, 8) and torch.equal(batch, alone)
    assert batch[:, 0, -1].tolist() == [0, 1, 0, 1, 0, 1] and not batch[:, 1:, -1].any()


def test_vectors_of_any_float_become_float32():
    values = torch.tensor([[[1.5, -2.0]]], dtype=torch.float64)
    batch = VectorCodec(NORMALISER, (1, 1, 1), 6).encode_batch(values, torch.tensor([[True]]))
    assert batch.dtype == torch.float32 and batch.tolist() == [[[1.0, 0.0, 1.0]]]


@pytest.mark.parametrize("size", [(32, 48), (20, 70), (100, 64)])
def test_images_of_any_size_are_squashed_as_each_is_alone(codec, size):
    batch, alone = batches(codec, samples_of(pictures(3, 2, height=size[0], width=size[1])))
    torch.testing.assert_close(batch, alone, **ROUNDING[torch.float32])


@pytest.mark.parametrize("most", [1, 4, 100])
def test_no_more_than_the_bound_go_through_the_vae_at_a_time(codec, most):
    seen = []
    hook = codec.encoder.register_forward_hook(lambda _, given, made: seen.append(len(given[0])))
    values = torch.from_numpy(pictures(5, 2))
    latents = codec.encode_batch(values, torch.zeros(5, 2, dtype=bool), most)
    hook.remove()
    assert sum(seen) == 10 and max(seen) == min(most, 10)
    expected = codec.encode_batch(values, torch.zeros(5, 2, dtype=bool))
    torch.testing.assert_close(latents, expected, **ROUNDING[torch.float32])


def test_latents_encoded_before_come_back_as_they_are_in_the_codecs_precision(codec):
    latents, missing = torch.randn(3, 2, 8, 4, 6).half(), torch.zeros(3, 2, dtype=bool)
    assert torch.equal(codec.encode_batch(latents, missing), latents.float())
    cast = visual(torch.bfloat16).encode_batch(latents, missing)
    assert torch.equal(cast, latents.bfloat16())


@pytest.mark.parametrize(
    "values, text",
    [
        (
            torch.zeros(3, 2, 8, 6, 4),
            "expected latents (B, F, *(8, 4, 6)), got (3, 2, 8, 6, 4); "
            "encode the data set for this schema and backbone",
        ),
        (torch.zeros(2, 8, 4, 6), "expected latents (B, F, *(8, 4, 6)), got (2, 8, 4, 6); "),
        (
            torch.zeros(3, 2, 32, 48, 3, dtype=torch.int64),
            "expected images (B, F, H, W, 3) uint8 or latents, got (3, 2, 32, 48, 3) torch.int64",
        ),
        (
            torch.zeros(2, 32, 48, 3, dtype=torch.uint8),
            "expected images (B, F, H, W, 3) uint8 or latents, got (2, 32, 48, 3) torch.uint8",
        ),
    ],
    ids=["other size", "one sample", "other integers", "no batch"],
)
def test_what_is_neither_images_nor_the_regions_latents_is_refused(codec, values, text):
    with pytest.raises(ModelError) as error:
        codec.encode_batch(values, torch.zeros(values.shape[:2], dtype=bool))
    assert str(error.value).startswith(f"region 'eye': {text}")


@pytest.mark.parametrize(
    "codec",
    [
        ActionCodec(NORMALISER, (4, 1, 2), 8),
        RewardCodec(Normaliser([0.0], [1.0]), (4, 1, 1), 8),
        ThoughtCodec(6, 8),
    ],
    ids=lambda codec: type(codec).__name__,
)
def test_codecs_that_take_no_frames_make_tokens_for_as_many_samples(codec):
    inputs = codec.encode_batch(torch.zeros(5, 4, 2), torch.zeros(5, 4, dtype=bool))
    assert torch.equal(inputs, torch.stack([codec.encode(None)] * 5))
    assert codec.embed(inputs).shape == (5, codec.token_count, 8)


def test_an_instruction_is_no_batch_of_frames():
    backbone = load_backbone("tiny")
    text = TextCodec(None, None, backbone.transformer.patch_embed, None, 128)
    with pytest.raises(TypeError, match="expected instructions, one at a time in `encode`"):
        text.encode_batch(torch.zeros(1, 1, 2), torch.zeros(1, 1, dtype=bool))
