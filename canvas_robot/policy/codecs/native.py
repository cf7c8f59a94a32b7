"""The backbone's patch embedding in halves: text without video, a video without text.

Each is bit for bit what CogVideoXPatchEmbed gives for both together. Rotary positions, which act
inside attention, are the runner's.
"""

from __future__ import annotations

import torch
from diffusers.models.embeddings import CogVideoXPatchEmbed

from canvas_robot.policy.codecs.codec import ModelError

LatentSize = tuple[int, int, int]  # (frames, height, width) of a video in latents


def text_tokens(
    embed: CogVideoXPatchEmbed, prompt: torch.Tensor, positions: torch.Tensor | None
) -> torch.Tensor:
    """Prompt embeddings (B, n, text width) to tokens (B, n, D), with `text_positions`."""
    tokens = embed.text_proj(prompt.to(embed.proj.weight.dtype))
    return tokens if positions is None else tokens + positions.to(tokens.dtype)


def video_tokens(
    embed: CogVideoXPatchEmbed, latents: torch.Tensor, positions: torch.Tensor | None
) -> torch.Tensor:
    """Latents (B, F, C, h, w) to patch tokens (B, F * h/p * w/p, D), with `video_positions`."""
    patches = embed.proj(latents.flatten(0, 1).to(embed.proj.weight.dtype))  # (B * F, D, h/p, w/p)
    tokens = patches.unflatten(0, latents.shape[:2]).flatten(3).transpose(2, 3).flatten(1, 2)
    return tokens if positions is None else tokens + positions.to(tokens.dtype)


def video_latents(tokens: torch.Tensor, video: LatentSize, patch: int) -> torch.Tensor:
    """Projected tokens (B, F * h/p * w/p, C * p * p) to latents (B, F, C, h, w).

    As CogVideoXTransformer3DModel.forward puts its output together.
    """
    frames, height, width = video
    grid = tokens.unflatten(1, (frames, height // patch, width // patch))
    patches = grid.unflatten(4, (-1, patch, patch))  # (B, F, h/p, w/p, C, p, p)
    return patches.permute(0, 1, 4, 2, 5, 3, 6).flatten(5, 6).flatten(3, 4)


def text_positions(
    embed: CogVideoXPatchEmbed, videos: tuple[LatentSize, ...]
) -> torch.Tensor | None:
    """What the backbone adds to a prompt beside these videos: (1, n, D), or None for nothing.

    Only a learned table has positions for text, and only with a video of the table's own size.
    Raises ModelError where one video has that size and another has not.
    """
    if not embed.use_learned_positional_embeddings:
        return None
    fits = {_has_table_size(embed, video) for video in videos}
    if len(fits) > 1:
        raise ModelError(
            f"visual regions: the backbone's learned positions are for videos of "
            f"{_table_size(embed)} latents (frames, height, width) and give the text others beside "
            f"any other video; expected all or none of that size, got {list(videos)}"
        )
    return embed.pos_embedding[:, : embed.max_text_seq_length] if fits == {True} else None


def video_positions(embed: CogVideoXPatchEmbed, video: LatentSize) -> torch.Tensor | None:
    """What the backbone adds to a video's tokens: (1, n, D), or None with rotary positions.

    Raises ModelError for a height and width that a learned table does not have.
    """
    if not (embed.use_positional_embeddings or embed.use_learned_positional_embeddings):
        return None
    if _has_table_size(embed, video):
        table = embed.pos_embedding
    elif embed.use_learned_positional_embeddings and video[1:] != _table_size(embed)[1:]:
        raise ModelError(
            f"visual region: the backbone's learned positions are for (height, width) "
            f"{_table_size(embed)[1:]} in latents, got {video[1:]}; change the region's box"
        )
    else:
        height, width = video[1:]
        table = embed._get_positional_embeddings(height, width, _pixel_frames(embed, video[0]))
    return table[:, embed.max_text_seq_length :]


def _has_table_size(embed: CogVideoXPatchEmbed, video: LatentSize) -> bool:
    frames, height, width = video
    return (_pixel_frames(embed, frames), height, width) == (
        embed.sample_frames,
        embed.sample_height,
        embed.sample_width,
    )


def _table_size(embed: CogVideoXPatchEmbed) -> LatentSize:
    frames = (embed.sample_frames - 1) // embed.temporal_compression_ratio + 1
    return frames, embed.sample_height, embed.sample_width


def _pixel_frames(embed: CogVideoXPatchEmbed, latent_frames: int) -> int:
    return (latent_frames - 1) * embed.temporal_compression_ratio + 1
