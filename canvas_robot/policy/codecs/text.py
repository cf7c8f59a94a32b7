"""TextCodec: an instruction to the text encoder's embeddings, and to the backbone's text tokens.

They are padded and unmasked, as CogVideoX was trained.
"""

from __future__ import annotations

import torch
from diffusers.models.embeddings import CogVideoXPatchEmbed
from transformers import PreTrainedTokenizerBase, T5EncoderModel

from canvas_robot.policy.codecs.codec import Codec, CodecSite
from canvas_robot.policy.codecs.frame_cache import FrameCache
from canvas_robot.policy.codecs.native import text_positions, text_tokens
from canvas_robot.policy.prompts import PromptFolder, PromptNotCachedError, add_command


class PromptTooLongError(ValueError):
    """An instruction has more tokens than the backbone's text stream holds."""


class TextCodec(Codec):
    """Prompt embeddings are looked up in a folder, else encoded; the last few are remembered.

    Args:
        encoder, tokenizer: the backbone's; None where all prompts come from the folder.
        embed, positions: the backbone's patch embedding, and what it adds to a prompt.
        max_tokens: length of the text stream.
        prompts: precomputed embeddings, if there are any.
        backbone: name of the backbone, for messages.
    """

    REMEMBERED = 32

    def __init__(
        self,
        encoder: T5EncoderModel | None,
        tokenizer: PreTrainedTokenizerBase | None,
        embed: CogVideoXPatchEmbed,
        positions: torch.Tensor | None,
        max_tokens: int,
        prompts: PromptFolder | None = None,
        backbone: str = "NAME",
    ) -> None:
        super().__init__()
        self.encoder, self.embedding = encoder, embed
        self._tokenizer, self._prompts, self._backbone = tokenizer, prompts, backbone
        self.token_count = max_tokens
        self.register_buffer("positions", positions, persistent=False)
        self._known: dict[str, torch.Tensor] = {}

    @classmethod
    def build(cls, site: CodecSite) -> TextCodec:
        backbone, embed = site.backbone, site.backbone.transformer.patch_embed
        return cls(
            backbone.text_encoder,
            backbone.tokenizer,
            embed,
            text_positions(embed, site.videos),
            backbone.transformer.config.max_text_seq_length,
            site.prompts,
            backbone.source,
        )

    def encode(self, prompt: str, cache: FrameCache | None = None) -> torch.Tensor:
        """(token_count, text width) embeddings of the prompt.

        Raises PromptTooLongError rather than cutting an instruction short; PromptNotCachedError
        where the folder lacks it and there is no encoder, PromptFileError for a spoilt file.
        """
        if prompt not in self._known:
            self._known = dict(list(self._known.items())[-self.REMEMBERED + 1 :])
            self._known[prompt] = self._looked_up(prompt)
        return self._known[prompt]

    def encode_batch(self, values: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:
        """Refused: an instruction is no frames; stack `encode` of each."""
        raise TypeError("TextCodec: expected instructions, one at a time in `encode`; got frames")

    def embed(self, inputs: torch.Tensor) -> torch.Tensor:
        return text_tokens(self.embedding, inputs, self.positions)

    def example(self) -> str:
        """A prompt that `encode` accepts, for trials: one of the folder where it has any."""
        known = self._prompts.prompts() if self._prompts is not None else []
        return known[0] if known else "warm up"

    def _looked_up(self, prompt: str) -> torch.Tensor:
        folder = self._prompts
        if folder is not None and (self.encoder is None or folder.file(prompt).is_file()):
            return folder.load(prompt)
        if self.encoder is None:
            raise PromptNotCachedError(
                f"instruction {prompt!r}: the text encoder is not loaded, and no folder of prompts "
                f"is given; where it is, run: {add_command(self._backbone, prompt)}"
            )
        return prompt_embedding(self.encoder, self._tokenizer, prompt, self.token_count)


def prompt_embedding(
    encoder: T5EncoderModel, tokenizer: PreTrainedTokenizerBase, prompt: str, max_tokens: int
) -> torch.Tensor:
    """(max_tokens, width) embeddings of a prompt, padded and unmasked.

    Raises PromptTooLongError for more tokens than that.
    """
    ids = tokenizer(
        prompt, padding="max_length", max_length=max_tokens, return_tensors="pt"
    ).input_ids
    if ids.shape[1] > max_tokens:
        raise PromptTooLongError(
            f"instruction: expected at most {max_tokens} tokens, got {ids.shape[1]}; "
            f"use fewer words, such as those it was trained on (others may take a token for each "
            f"letter), or a backbone with a longer text stream"
        )
    with torch.no_grad():
        return encoder(ids.to(encoder.device)).last_hidden_state[0]
