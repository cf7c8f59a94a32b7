"""VisualCodec: camera frames to VAE latents and back, in `image` framing, and to patch tokens.

Each frame is encoded alone, by one function for data set, simulator and node.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from diffusers import AutoencoderKLCogVideoX
from diffusers.models.embeddings import CogVideoXPatchEmbed

from canvas_robot.backbone.image_encoder import ImageEncoder
from canvas_robot.backbone.single_frames import single_frames
from canvas_robot.policy.codecs.codec import Codec, CodecSite, ModelError
from canvas_robot.policy.codecs.frame_cache import FrameCache
from canvas_robot.policy.codecs.native import LatentSize, video_positions, video_tokens
from canvas_robot.policy.codecs.squash import squash
from canvas_robot.signals import Frames

FRAMES_AT_A_TIME = 32  # through the VAE: what bounds the memory of a large batch


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
        self.image_size = (h * encoder.stride, w * encoder.stride)
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

        def encode_image(image: np.ndarray) -> torch.Tensor:
            started = time.perf_counter()
            pixels = self._squashed(image)
            cache.squash_ms += (time.perf_counter() - started) * 1e3
            return self._latents(pixels[None])[0]

        return cache.encode(frames, camera, self._region, encode_image)

    def encode_image(self, image: np.ndarray) -> torch.Tensor:
        """(H, W, 3) uint8 of any size to latents (C, h, w)."""
        return self._latents(self._squashed(image)[None])[0]

    def _squashed(self, image: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(squash(image, self.image_size)))

    def encode_batch(
        self, values: torch.Tensor, missing: torch.Tensor, batch_size: int = FRAMES_AT_A_TIME
    ) -> torch.Tensor:
        """Latents (B, F, C, h, w) of images of any size, (B, F, H, W, 3) uint8.

        Latents (B, F, C, h, w) of floats, encoded before, come back in the VAE's precision and on
        its device. `batch_size`: frames that go through the VAE at a time.

        Raises ModelError for values that are neither.
        """
        if values.is_floating_point():
            return self._checked(values).to(self._weight.device, self._weight.dtype)
        if values.dtype != torch.uint8 or values.ndim != 5 or values.shape[-1] != 3:
            raise ModelError(
                f"region {self._region!r}: expected images (B, F, H, W, 3) uint8 or latents, "
                f"got {tuple(values.shape)} {values.dtype}"
            )
        images = values.flatten(0, 1)
        if images.shape[1:3] != self.image_size:
            squashed = [squash(image, self.image_size) for image in images.cpu().numpy()]
            images = torch.from_numpy(np.stack(squashed))
        latents = torch.cat([self._latents(some) for some in images.split(batch_size)])
        return latents.unflatten(0, values.shape[:2])

    def decode(self, latents: torch.Tensor) -> np.ndarray:
        """Latents (F, C, h, w) to (F, H, W, 3) uint8; undoes `encode` as far as the VAE does."""
        scaled = latents.to(self._weight.dtype) / self.vae.config.scaling_factor
        with single_frames(self.vae):
            pixels = self.vae.decode(scaled[:, :, None]).sample[:, :, 0]  # (F, 3, H, W)
        bytes_ = ((pixels.float().clamp(-1, 1) + 1.0) * 127.5).round().to(torch.uint8)
        return bytes_.permute(0, 2, 3, 1).cpu().numpy()

    def embed(self, inputs: torch.Tensor) -> torch.Tensor:
        return video_tokens(self.embedding, inputs, self.positions)

    @property
    def _weight(self) -> torch.Tensor:
        """One of the VAE's weights; its device and precision are the codec's."""
        return next(self.encoder.parameters())

    def _latents(self, images: torch.Tensor) -> torch.Tensor:
        """(N, H, W, 3) uint8 of the codec's size to latents (N, C, h, w)."""
        pixels = images.to(self._weight.device).to(self._weight.dtype).permute(0, 3, 1, 2)
        return self.encoder(pixels / 127.5 - 1.0)

    def _checked(self, latents: torch.Tensor) -> torch.Tensor:
        """The latents themselves; raises ModelError unless they are of the codec's size."""
        stride = self.encoder.stride
        expected = self.encoder.latent_channels, *(size // stride for size in self.image_size)
        if latents.ndim != 5 or latents.shape[2:] != expected:
            raise ModelError(
                f"region {self._region!r}: expected latents (B, F, *{expected}), "
                f"got {tuple(latents.shape)}; encode the data set for this schema and backbone"
            )
        return latents
