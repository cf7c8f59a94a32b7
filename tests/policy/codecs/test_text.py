"""Laws of the text codec: padded and unmasked to the stream's length, remembered, never cut."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from canvas_robot.backbone.loading import load_backbone
from canvas_robot.policy.codecs.text import PromptTooLongError, TextCodec

TINY = load_backbone("tiny")


def codec(max_tokens: int = 24) -> TextCodec:
    embed = TINY.transformer.patch_embed
    return TextCodec(TINY.text_encoder, TINY.tokenizer, embed, None, max_tokens)


@settings(max_examples=20)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=5))
def test_every_short_prompt_fills_the_whole_text_stream(prompt):
    embeddings = codec().encode(prompt)
    assert embeddings.shape == (24, 64)
    assert torch.isfinite(embeddings).all()


def test_padding_is_encoded_without_a_mask_as_cogvideox_was_trained():
    ids = TINY.tokenizer("ab", padding="max_length", max_length=24, return_tensors="pt").input_ids
    with torch.no_grad():
        expected = TINY.text_encoder(ids).last_hidden_state[0]
    assert torch.equal(codec().encode("ab"), expected)


def test_different_prompts_have_different_embeddings():
    text = codec()
    assert not torch.equal(text.encode("up"), text.encode("down"))


def test_a_prompt_that_fills_the_stream_passes_and_one_more_token_is_refused():
    assert codec().encode("a" * 23).shape == (24, 64)  # bytes, and the end of the sequence
    with pytest.raises(PromptTooLongError) as error:
        codec().encode("a" * 24)
    assert str(error.value) == (
        "instruction: expected at most 24 tokens, got 25; "
        "use fewer words, such as those it was trained on (others may take a token for each "
        "letter), or a backbone with a longer text stream"
    )


def test_a_prompt_is_encoded_once_while_it_is_remembered():
    text, calls = codec(), []
    with_hook = TINY.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    try:
        first = text.encode("prompt")
        for i in range(TextCodec.REMEMBERED - 1):
            text.encode(f"other {i}")
        assert text.encode("prompt") is first
        assert len(calls) == TextCodec.REMEMBERED
        text.encode("one too many")
        assert torch.equal(text.encode("prompt"), first)
        assert len(calls) == TextCodec.REMEMBERED + 2
    finally:
        with_hook.remove()


def test_prompt_embeddings_become_a_token_each():
    text = codec()
    inputs = text.encode("up").expand(2, -1, -1)
    assert text.embed(inputs).shape == (2, text.token_count, 128) == (2, 24, 128)
