"""TextCodec: an instruction to the text encoder's embeddings.

They are padded and unmasked, as CogVideoX was trained.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase, T5EncoderModel


class PromptTooLongError(ValueError):
    """An instruction has more tokens than the backbone's text stream holds."""


class TextCodec(nn.Module):
    """Encodes prompts to (max_tokens, width) embeddings; the last few prompts are remembered."""

    REMEMBERED = 32

    def __init__(
        self, encoder: T5EncoderModel, tokenizer: PreTrainedTokenizerBase, max_tokens: int
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self._tokenizer = tokenizer
        self.max_tokens = max_tokens
        self._known: dict[str, torch.Tensor] = {}

    def encode(self, prompt: str) -> torch.Tensor:
        """(max_tokens, width) embeddings of the prompt.

        Raises PromptTooLongError rather than cutting an instruction short.
        """
        if prompt not in self._known:
            self._known = dict(list(self._known.items())[-self.REMEMBERED + 1 :])
            self._known[prompt] = self._encode(prompt)
        return self._known[prompt]

    def _encode(self, prompt: str) -> torch.Tensor:
        tokens = self._tokenizer(
            prompt, padding="max_length", max_length=self.max_tokens, return_tensors="pt"
        )
        ids = tokens.input_ids
        if ids.shape[1] > self.max_tokens:
            raise PromptTooLongError(
                f"instruction: expected at most {self.max_tokens} tokens, got {ids.shape[1]}; "
                f"use fewer words or a backbone with a longer text stream"
            )
        with torch.no_grad():
            return self.encoder(ids.to(self.encoder.device)).last_hidden_state[0]
