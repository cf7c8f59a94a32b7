"""CogVideoX's video VAE on single frames, with gradients, at the price of 2D convolutions.

A causal 3D convolution pads a single frame in time with copies of itself, so it equals a 2D one
whose kernel is summed over time; on CPUs that is many times faster. Encoding alone, frozen, is
image_encoder.py's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from diffusers import AutoencoderKLCogVideoX
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import (
    CogVideoXCausalConv3d,
    CogVideoXSafeConv3d,
)
from torch.nn import functional as F

from canvas_robot.backbone.image_encoder import FoldError


@contextmanager
def single_frames(vae: AutoencoderKLCogVideoX) -> Iterator[None]:
    """Inside, the VAE takes videos of one frame only, and equals itself but for rounding.

    Raises FoldError for a VAE that pads by replication.
    """
    causal = [module for module in vae.modules() if isinstance(module, CogVideoXCausalConv3d)]
    if any(module.pad_mode == "replicate" for module in causal):
        raise FoldError("VAE: expected pad_mode 'first' (CogVideoX's own), got 'replicate'")
    inner = {id(module.conv) for module in causal}
    plain = [
        module
        for module in vae.modules()
        if isinstance(module, CogVideoXSafeConv3d) and id(module) not in inner
    ]
    try:
        for module in causal:
            module.forward = partial(_causal, module)
        for module in plain:
            module.forward = partial(_plain, module)
        yield
    finally:
        for module in (*causal, *plain):
            module.__dict__.pop("forward", None)


def _causal(
    module: CogVideoXCausalConv3d, inputs: torch.Tensor, conv_cache: torch.Tensor | None = None
) -> tuple[torch.Tensor, None]:
    padding = (module.height_pad, module.width_pad)
    return _flat(module.conv, inputs, padding), None


def _plain(module: CogVideoXSafeConv3d, inputs: torch.Tensor) -> torch.Tensor:
    return _flat(module, inputs, module.padding[1:])


def _flat(conv: torch.nn.Conv3d, inputs: torch.Tensor, padding: tuple[int, int]) -> torch.Tensor:
    """(B, C, 1, H, W) through the kernel's sum over time."""
    if inputs.shape[2] != 1:
        raise ValueError(f"single_frames: expected videos of 1 frame, got {inputs.shape[2]}")
    kernel = conv.weight.sum(dim=2)
    return F.conv2d(inputs[:, :, 0], kernel, conv.bias, conv.stride[1:], padding)[:, :, None]
