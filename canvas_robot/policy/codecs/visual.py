"""VisualCodec: camera frames to VAE latents and back, in `image` framing.

Each frame is encoded alone, and once.
"""

from __future__ import annotations

import numpy as np
import torch
from diffusers import AutoencoderKLCogVideoX
from torch import nn

from canvas_robot.backbone.image_encoder import ImageEncoder
from canvas_robot.policy.codecs.squash import squash
from canvas_robot.signals import Frames

VAE_STRIDE = 8  # pixels per latent cell; CogVideoX's VAE halves the image three times


class VisualCodec(nn.Module):
    """Encodes images with the frozen VAE. Latents are (F, C, h, w), scaled by the VAE's factor.

    Args:
        vae: the backbone's VAE.
        latent_size: (h, w) of the latents that the region's patches need.
    """

    def __init__(self, vae: AutoencoderKLCogVideoX, latent_size: tuple[int, int]) -> None:
        super().__init__()
        self.encoder = ImageEncoder(vae)
        self.vae = vae
        self.image_size = (latent_size[0] * VAE_STRIDE, latent_size[1] * VAE_STRIDE)

    def encode_image(self, image: np.ndarray) -> torch.Tensor:
        """(H, W, 3) uint8 of any size to latents (C, h, w)."""
        weight = next(self.encoder.parameters())
        pixels = torch.from_numpy(np.ascontiguousarray(squash(image, self.image_size)))
        pixels = pixels.to(weight.device, weight.dtype).permute(2, 0, 1) / 127.5 - 1.0
        return self.encoder(pixels[None])[0]

    def decode_latents(self, latents: torch.Tensor) -> np.ndarray:
        """Latents (C, h, w) to (H, W, 3) uint8; undoes `encode_image` as far as the VAE does."""
        video = self.vae.decode(latents[None, :, None] / self.vae.config.scaling_factor).sample
        pixels = (video[0, :, 0].float().clamp(-1, 1) + 1.0) * 127.5
        return pixels.round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()


class FrameCache:
    """Latents by stamp, so that a frame shared by successive observations is encoded once.

    Cleared by each reset.
    """

    def __init__(self, codec: VisualCodec) -> None:
        self._codec = codec
        self._latents: dict[int, torch.Tensor] = {}

    def encode(self, frames: Frames) -> torch.Tensor:
        """Latents (F, C, h, w) of the frames; forgets those of frames that are no longer seen."""
        kept: dict[int, torch.Tensor] = {}
        for stamp, image in zip(frames.stamps_ns.tolist(), frames.values, strict=True):
            if stamp not in kept:
                known = self._latents.get(stamp)
                kept[stamp] = self._codec.encode_image(image) if known is None else known
        self._latents = kept
        return torch.stack([kept[stamp] for stamp in frames.stamps_ns.tolist()])

    def clear(self) -> None:
        self._latents = {}
