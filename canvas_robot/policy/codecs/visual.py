"""VisualCodec: camera frames to VAE latents and back, in `image` framing, and to patch tokens.

Each frame is encoded alone, by one function for data set, simulator and node.
"""

from __future__ import annotations

import numpy as np
import torch
from diffusers import AutoencoderKLCogVideoX
from diffusers.models.embeddings import CogVideoXPatchEmbed

from canvas_robot.backbone.image_encoder import ImageEncoder
from canvas_robot.policy.codecs.codec import Codec, CodecSite
from canvas_robot.policy.codecs.frame_cache import FrameCache
from canvas_robot.policy.codecs.native import LatentSize, video_positions, video_tokens
from canvas_robot.policy.codecs.squash import squash
from canvas_robot.signals import Frames

VAE_STRIDE = 8  # pixels per latent cell; CogVideoX's VAE halves the image three times


class VisualCodec(Codec):
    """Encodes images with the frozen VAE. Latents are (F, C, h, w), scaled by the VAE's factor.

    Args:
        encoder: of the VAE, for single frames.
        vae, embed: the backbone's VAE and patch embedding.
        video: (F, h, w) of the region's latents: its frames, and what its patches need.
        region, camera: names of the region and of its signal, which a `FrameCache` tells apart.
    """

    def __init__(
        self,
        encoder: ImageEncoder,
        vae: AutoencoderKLCogVideoX,
        embed: CogVideoXPatchEmbed,
        video: LatentSize,
        region: str = "",
        camera: str = "",
    ) -> None:
        super().__init__()
        self.encoder, self.vae, self.embedding = encoder, vae, embed
        frames, h, w = video
        self.token_count = frames * h * w // embed.patch_size**2
        self.image_size = (h * VAE_STRIDE, w * VAE_STRIDE)
        self.register_buffer("positions", video_positions(embed, video), persistent=False)
        self._region, self._camera = region, camera

    @classmethod
    def build(cls, site: CodecSite) -> VisualCodec:
        backbone, patch = site.backbone, site.backbone.transformer.config.patch_size
        t, h, w = site.size
        return cls(
            site.image_encoder,
            backbone.vae,
            backbone.transformer.patch_embed,
            (t, h * patch, w * patch),
            site.region,
            site.bound.signal,
        )

    def encode(self, frames: Frames, cache: FrameCache | None = None) -> torch.Tensor:
        """Latents (F, C, h, w) of the frames; those in the cache are not encoded again."""
        cache = FrameCache() if cache is None else cache
        camera = (self._camera, self.image_size)
        return cache.encode(frames, camera, self._region, self.encode_image)

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

    def embed(self, inputs: torch.Tensor) -> torch.Tensor:
        return video_tokens(self.embedding, inputs, self.positions)
