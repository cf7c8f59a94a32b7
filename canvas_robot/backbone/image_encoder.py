"""ImageEncoder: CogVideoX's video VAE, folded to two dimensions for frames that are encoded alone.

A causal 3D convolution pads a single frame in time with copies of itself, so it equals a 2D
convolution whose kernel is summed over time. Folding is exact but for rounding and needs a third of
the arithmetic; on CPUs 2D convolutions are many times faster than 3D ones. This is the `image`
framing; decoding and the `causal` framing stay with the VAE.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import AutoencoderKLCogVideoX
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import (
    CogVideoXCausalConv3d,
    CogVideoXResnetBlock3D,
)
from torch import nn


class FoldError(ValueError):
    """The VAE is built in a way that folding to two dimensions does not cover."""


class ImageEncoder(nn.Module):
    """Encodes single frames to scaled latents (the posterior's mean), frozen.

    Args:
        vae: the video VAE; its weights are read, not kept.
    Raises:
        FoldError: the VAE pads by replication or has a quantisation convolution.
    """

    def __init__(self, vae: AutoencoderKLCogVideoX) -> None:
        super().__init__()
        if vae.quant_conv is not None:
            raise FoldError("VAE: expected no quant_conv (CogVideoX has none), got one")
        encoder = vae.encoder
        layers: list[nn.Module] = [_fold(encoder.conv_in)]
        for block in encoder.down_blocks:
            layers += [_FoldedResnet(resnet) for resnet in block.resnets]
            for down in block.downsamplers or ():
                layers += [nn.ZeroPad2d((0, 1, 0, 1)), _copy(down.conv)]
        layers += [_FoldedResnet(resnet) for resnet in encoder.mid_block.resnets]
        layers += [_copy(encoder.norm_out), nn.SiLU(), _fold(encoder.conv_out)]
        self.layers = nn.Sequential(*layers).to(memory_format=torch.channels_last)
        self.scaling_factor = float(vae.config.scaling_factor)
        self.latent_channels = int(vae.config.latent_channels)
        self.stride = pixels_per_latent(vae.config.block_out_channels)
        self.requires_grad_(False)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) in [-1, 1] to latents (B, C, H/stride, W/stride), times the VAE's factor."""
        moments = self.layers(frames.contiguous(memory_format=torch.channels_last))
        return moments[:, : self.latent_channels] * self.scaling_factor


def pixels_per_latent(levels: Sequence[int]) -> int:
    """Pixels along a side of a latent cell; `levels`: the VAE's block_out_channels.

    Each level but the last halves the image: CogVideoX's four make 8.
    """
    return 2 ** (len(levels) - 1)


class _FoldedResnet(nn.Module):
    def __init__(self, block: CogVideoXResnetBlock3D) -> None:
        super().__init__()
        self.norm1, self.conv1 = _copy(block.norm1), _fold(block.conv1)
        self.norm2, self.conv2 = _copy(block.norm2), _fold(block.conv2)
        self.act = block.nonlinearity
        self.shortcut = nn.Identity()
        if block.in_channels != block.out_channels:
            self.shortcut = _fold(block.conv_shortcut)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.conv1(self.act(self.norm1(x)))
        h = self.conv2(self.act(self.norm2(h)))
        return self.shortcut(x) + h


def _fold(conv: CogVideoXCausalConv3d | nn.Conv3d) -> nn.Conv2d:
    """The 2D convolution that equals a causal 3D one on a single frame."""
    if isinstance(conv, CogVideoXCausalConv3d):
        if conv.pad_mode == "replicate":
            raise FoldError("VAE: expected pad_mode 'first' (CogVideoX's own), got 'replicate'")
        conv, padding = conv.conv, (conv.height_pad, conv.width_pad)
    else:
        padding = (0, 0)
    _, _, _, height, width = conv.weight.shape
    folded = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        (height, width),
        padding=padding,
        bias=conv.bias is not None,
        dtype=conv.weight.dtype,
        device=conv.weight.device,
    )
    with torch.no_grad():
        folded.weight.copy_(conv.weight.sum(dim=2))
        if conv.bias is not None:
            folded.bias.copy_(conv.bias)
    return folded


def _copy(module: nn.Module) -> nn.Module:
    """An independent copy of a layer that folding leaves as it is."""
    if isinstance(module, nn.GroupNorm):
        copy = nn.GroupNorm(module.num_groups, module.num_channels, eps=module.eps)
    else:
        copy = nn.Conv2d(
            module.in_channels,
            module.out_channels,
            module.kernel_size,
            module.stride,
            module.padding,
        )
    copy.load_state_dict(module.state_dict())
    return copy.to(device=module.weight.device, dtype=module.weight.dtype)
