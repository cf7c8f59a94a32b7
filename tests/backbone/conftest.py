"""Small CogVideoX parts of any shape, with random weights."""

import pytest
import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """For small tensors more threads only wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _transformer(heads=2, head_dim=8, layers=2, **changes) -> CogVideoXTransformer3DModel:
    config = {
        "num_attention_heads": heads,
        "attention_head_dim": head_dim,
        "num_layers": layers,
        "in_channels": 4,
        "out_channels": 4,
        "time_embed_dim": 16,
        "text_embed_dim": 12,
        "max_text_seq_length": 5,
        "sample_width": 4,
        "sample_height": 4,
        "sample_frames": 1,
        "use_rotary_positional_embeddings": False,
    }
    return CogVideoXTransformer3DModel(**{**config, **changes}).eval()


def _inputs(transformer, batch=1, frames=1, height=4, width=4) -> dict:
    """Arguments of a transformer's forward, random."""
    config = transformer.config
    dtype = transformer.dtype
    return {
        "hidden_states": torch.randn(batch, frames, config.in_channels, height, width, dtype=dtype),
        "encoder_hidden_states": torch.randn(
            batch, config.max_text_seq_length, config.text_embed_dim, dtype=dtype
        ),
        "timestep": torch.randint(0, 1000, (1,)).expand(batch),
    }


def _vae(channels=(4, 8), groups=4, layers=1, latent_channels=3, **changes):
    depth = len(channels)
    return AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * depth,
        up_block_types=("CogVideoXUpBlock3D",) * depth,
        block_out_channels=channels,
        norm_num_groups=groups,
        layers_per_block=layers,
        latent_channels=latent_channels,
        **changes,
    ).eval()


@pytest.fixture(scope="session")
def make_transformer():
    """A function that makes a small transformer."""
    return _transformer


@pytest.fixture(scope="session")
def make_inputs():
    """A function that makes random arguments of a transformer's forward."""
    return _inputs


@pytest.fixture(scope="session")
def make_vae():
    """A function that makes a small video VAE."""
    return _vae
