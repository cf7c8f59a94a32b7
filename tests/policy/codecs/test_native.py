"""Laws of native embedding: text and video apart are bit for bit what the joint call gives."""

from itertools import product

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel
from hypothesis import given, settings
from hypothesis import strategies as st

from canvas_robot.policy.codecs.codec import ModelError
from canvas_robot.policy.codecs.native import (
    text_positions,
    text_tokens,
    video_positions,
    video_tokens,
)

KINDS = {
    "sin-cos": {"use_rotary_positional_embeddings": False},
    "rotary": {"use_rotary_positional_embeddings": True},
    "learned": {
        "use_rotary_positional_embeddings": True,
        "use_learned_positional_embeddings": True,
    },
}


def patch_embedding(kind: str, dtype=torch.float32):
    torch.manual_seed(0)
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        num_layers=1,
        time_embed_dim=8,
        text_embed_dim=12,
        max_text_seq_length=6,
        sample_width=8,
        sample_height=4,
        sample_frames=9,  # 3 latent frames
        **KINDS[kind],
    )
    embed = transformer.patch_embed
    if kind == "learned":
        embed.pos_embedding.normal_()
    return embed.to(dtype).requires_grad_(False)


def joint_and_apart(embed, video, batch=2):
    """(text, video) tokens of the joint call, and the same computed apart."""
    frames, height, width = video
    torch.manual_seed(1)
    prompt = torch.randn(batch, 6, 12)
    latents = torch.randn(batch, frames, 4, height, width)
    dtype = embed.proj.weight.dtype
    joint = embed(prompt.to(dtype), latents.to(dtype))
    apart = (
        text_tokens(embed, prompt, text_positions(embed, (video,))),
        video_tokens(embed, latents, video_positions(embed, video)),
    )
    return (joint[:, :6], joint[:, 6:]), apart


@settings(max_examples=30)
@given(
    st.sampled_from(["sin-cos", "rotary"]),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float64]),
    st.tuples(st.integers(1, 4), st.sampled_from([2, 4, 6]), st.sampled_from([2, 8, 10])),
)
def test_halves_equal_the_joint_embedding_at_every_size_and_precision(kind, dtype, video):
    joint, apart = joint_and_apart(patch_embedding(kind, dtype), video)
    for ours, theirs in zip(apart, joint, strict=True):
        assert ours.dtype == dtype and torch.equal(ours, theirs)


@pytest.mark.parametrize("frames, dtype", [*product([1, 3, 5], [torch.float32, torch.bfloat16])])
def test_a_learned_table_serves_videos_of_its_own_size_and_text_beside_them(frames, dtype):
    joint, apart = joint_and_apart(patch_embedding("learned", dtype), (frames, 4, 8))
    for ours, theirs in zip(apart, joint, strict=True):
        assert torch.equal(ours, theirs)


def test_a_learned_table_gives_text_positions_only_beside_a_video_of_its_size():
    embed = patch_embedding("learned")
    assert text_positions(embed, ((3, 4, 8), (3, 4, 8))) is not None
    assert text_positions(embed, ((1, 4, 8),)) is None
    with pytest.raises(ModelError) as error:
        text_positions(embed, ((3, 4, 8), (1, 4, 8)))
    assert str(error.value) == (
        "visual regions: the backbone's learned positions are for videos of (3, 4, 8) latents "
        "(frames, height, width) and give the text others beside any other video; expected all or "
        "none of that size, got [(3, 4, 8), (1, 4, 8)]"
    )


def test_a_picture_that_a_learned_table_does_not_have_is_refused():
    with pytest.raises(ModelError) as error:
        video_positions(patch_embedding("learned"), (3, 4, 4))
    assert str(error.value) == (
        "visual region: the backbone's learned positions are for (height, width) (4, 8) in "
        "latents, got (4, 4); change the region's box"
    )
