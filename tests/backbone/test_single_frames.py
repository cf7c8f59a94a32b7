"""Laws of single frames: the VAE equals itself, its gradients too, and is left as it was."""

import pytest
import torch

from canvas_robot.backbone.image_encoder import FoldError
from canvas_robot.backbone.single_frames import single_frames


@pytest.fixture(scope="module")
def vae(make_vae):
    return make_vae(channels=(4, 8, 8)).eval()


@pytest.fixture(scope="module")
def frame():
    return torch.randn(2, 3, 1, 16, 8, generator=torch.Generator().manual_seed(0))


def test_encoding_and_decoding_equal_the_vaes_own(vae, frame):
    with torch.no_grad():
        latents = vae.encode(frame).latent_dist.mean
        pixels = vae.decode(latents).sample
        with single_frames(vae):
            torch.testing.assert_close(vae.encode(frame).latent_dist.mean, latents)
            torch.testing.assert_close(vae.decode(latents).sample, pixels)


def test_gradients_equal_the_vaes_own(vae, frame):
    def gradients():
        vae.zero_grad()
        vae(frame).sample.square().mean().backward()
        return {name: p.grad.clone() for name, p in vae.named_parameters()}

    expected = gradients()
    with single_frames(vae):
        found = gradients()
    assert all(gradient.abs().max() > 0 for gradient in found.values())
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-7)


def test_the_vae_is_as_before_afterwards_whatever_happened(vae, frame):
    video = frame.expand(-1, -1, 5, -1, -1)
    with torch.no_grad():
        expected = vae.encode(video).latent_dist.mean
        with pytest.raises(ValueError, match="videos of 1 frame, got 5"), single_frames(vae):
            vae.encode(video)
        assert torch.equal(vae.encode(video).latent_dist.mean, expected)


def test_a_vae_that_pads_by_replication_is_refused(make_vae):
    other = make_vae()
    other.encoder.conv_in.pad_mode = "replicate"
    with pytest.raises(FoldError, match="expected pad_mode 'first'"), single_frames(other):
        pass
