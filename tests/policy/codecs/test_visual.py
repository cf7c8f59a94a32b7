"""Laws of the visual codec: pixels to [-1, 1], each frame alone and once, decoded beside it."""

import numpy as np
import pytest
import torch

from canvas_robot.backbone.image_encoder import ImageEncoder
from canvas_robot.backbone.loading import load_backbone
from canvas_robot.policy.codecs.squash import squash
from canvas_robot.policy.codecs.visual import VisualCodec
from canvas_robot.signals import Frames


@pytest.fixture(scope="module")
def codec():
    backbone = load_backbone("tiny")
    encoder, embed = ImageEncoder(backbone.vae), backbone.transformer.patch_embed
    return VisualCodec(encoder, backbone.vae, embed, (2, 4, 6), "eye", "camera")


def picture(seed: int, height: int = 32, width: int = 48) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def frames(*stamped) -> Frames:
    stamps = np.array([stamp for stamp, _ in stamped], np.int64)
    return Frames(np.stack([image for _, image in stamped]), stamps, np.zeros(len(stamped), bool))


def test_an_image_becomes_the_vaes_latents_of_its_pixels_in_minus_1_to_1(codec):
    image = picture(0)
    pixels = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1) / 127.5 - 1
    with torch.no_grad():
        posterior = codec.vae.encode(pixels[None, :, None]).latent_dist
    expected = posterior.mode()[0, :, 0] * codec.vae.config.scaling_factor
    latents = codec.encode_image(image)
    assert latents.shape == (8, 4, 6)
    torch.testing.assert_close(latents, expected, atol=2e-5, rtol=1e-5)


def test_an_image_of_any_size_is_squashed_to_the_policys_own(codec):
    image = picture(0, 100, 70)
    assert torch.equal(codec.encode_image(image), codec.encode_image(squash(image, (32, 48))))


def test_decoding_gives_back_what_the_vae_decodes(codec):
    latents = codec.encode_image(picture(0))
    image = codec.decode(latents[None])[0]
    assert image.shape == (32, 48, 3) and image.dtype == np.uint8
    with torch.no_grad():
        unscaled = latents[None, :, None] / codec.vae.config.scaling_factor
        pixels = codec.vae.decode(unscaled).sample[0, :, 0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(image, np.clip((pixels + 1) * 127.5, 0, 255), atol=0.51)


def test_frames_become_the_latents_of_each_alone(codec):
    a, b = ((i, picture(i)) for i in (1, 2))
    expected = torch.stack([codec.encode_image(image) for _, image in (a, b)])
    assert torch.equal(codec.encode(frames(a, b)), expected)


def test_latents_become_a_token_for_each_patch_of_each_frame(codec):
    inputs = codec.encode(frames((1, picture(1)), (2, picture(2))))[None]
    assert codec.embed(inputs).shape == (1, codec.token_count, 128) == (1, 2 * 2 * 3, 128)
