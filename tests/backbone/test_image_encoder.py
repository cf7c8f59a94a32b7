"""Laws of the ImageEncoder: on single frames it equals the VAE; what it cannot fold it refuses."""

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import CogVideoXCausalConv3d
from hypothesis import given, settings
from hypothesis import strategies as st

from canvas_robot.backbone.image_encoder import FoldError, ImageEncoder
from canvas_robot.backbone.loading import load_backbone

shapes = st.fixed_dictionaries(
    {
        "channels": st.sampled_from([(4,), (4, 8), (8, 4), (8, 8, 16), (4, 8, 8, 16)]),
        "groups": st.sampled_from([1, 2, 4]),
        "layers": st.integers(1, 2),
        "latent_channels": st.integers(1, 5),
        "scaling_factor": st.floats(0.1, 2.0),
        "temporal_compression_ratio": st.sampled_from([1, 2, 4]),
    }
)


def encoded_by(vae, frames):
    """Scaled mode of the posterior of each frame alone, by the VAE's own encode."""
    latents = [vae.encode(frame[None, :, None]).latent_dist.mode()[0, :, 0] for frame in frames]
    return torch.stack(latents) * vae.config.scaling_factor


@settings(max_examples=20, deadline=None)
@given(shapes, st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**31))
def test_single_frames_are_encoded_as_the_vae_encodes_them(make_vae, shape, batch, h, w, seed):
    torch.manual_seed(seed)
    vae = make_vae(**shape)
    frames = torch.rand(batch, 3, 8 * h, 8 * w) * 2 - 1
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        vae, frames = vae.to(dtype), frames.to(dtype)
        with torch.no_grad():
            expected = encoded_by(vae, frames)
            latents = ImageEncoder(vae)(frames)
        assert latents.shape == expected.shape and latents.dtype == dtype
        assert (latents - expected).abs().max() <= tolerance * max(1.0, expected.abs().max())


def test_the_tiny_backbones_frames_are_encoded_as_its_vae_encodes_them():
    vae = load_backbone("tiny").vae
    frames = torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        expected, latents = encoded_by(vae, frames), ImageEncoder(vae)(frames)
    assert latents.shape == (2, 8, 32, 32)
    assert (latents - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_frames_of_a_batch_do_not_see_each_other(make_vae):
    torch.manual_seed(0)
    encoder = ImageEncoder(make_vae())
    first, second, third = torch.rand(3, 1, 3, 16, 16)
    with torch.no_grad():
        together = encoder(torch.cat([first, second]))[:1]
        assert torch.equal(together, encoder(torch.cat([first, third]))[:1])


def test_the_encoder_is_frozen_and_keeps_nothing_of_the_vae(make_vae):
    torch.manual_seed(0)
    vae = make_vae()
    encoder = ImageEncoder(vae)
    assert not any(p.requires_grad for p in encoder.parameters())
    frame = torch.rand(1, 3, 16, 16)
    before = encoder(frame)
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.zero_()
    assert torch.equal(encoder(frame), before)


@pytest.mark.parametrize("where", ["conv_in", "conv_out"])
def test_padding_by_replication_is_refused(make_vae, where):
    vae = make_vae()
    old = getattr(vae.encoder, where).conv
    other = CogVideoXCausalConv3d(
        old.in_channels, old.out_channels, kernel_size=3, pad_mode="replicate"
    )
    setattr(vae.encoder, where, other)
    with pytest.raises(FoldError) as error:
        ImageEncoder(vae)
    assert str(error.value) == ("VAE: expected pad_mode 'first' (CogVideoX's own), got 'replicate'")


def test_a_quantisation_convolution_is_refused(make_vae):
    with pytest.raises(FoldError) as error:
        ImageEncoder(make_vae(use_quant_conv=True))
    assert str(error.value) == "VAE: expected no quant_conv (CogVideoX has none), got one"
