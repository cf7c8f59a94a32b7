"""One sentence model, loaded and run: a transformer, pooling over its tokens, unit length.

Which folder it comes from is not decided here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
import transformers
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from canvas_robot.semantic.models import UnsupportedModelError

POOLINGS = ("mean", "cls")
_UNDERSTOOD = ("Transformer", "Pooling", "Normalize")


@dataclass(frozen=True, eq=False)
class SentenceModel:
    """A sentence model in sentence-transformers' layout.

    Args:
        network: the transformer, in evaluation mode.
        pooling: "mean" or "cls" (the first token).
        max_tokens: longest text it was made for, in word pieces, special tokens included.
    """

    tokenizer: PreTrainedTokenizerBase
    network: PreTrainedModel
    pooling: str
    max_tokens: int

    def count_tokens(self, text: str) -> int:
        """Word pieces of a text, special tokens included."""
        return len(self.tokenizer(text, verbose=False)["input_ids"])

    @torch.inference_mode()
    def vector(self, text: str) -> Tensor:
        """(width,) float32 of unit length.

        One text at a time: without padding there is nothing to mask, and a text's embedding does
        not depend on its neighbours in a batch.
        """
        tokens = self.tokenizer(text, return_tensors="pt")
        hidden = self.network(**tokens).last_hidden_state[0].float()  # (tokens, width)
        pooled = hidden.mean(dim=0) if self.pooling == "mean" else hidden[0]
        return torch.nn.functional.normalize(pooled, dim=0)


@lru_cache(maxsize=2)
def load_sentence_model(folder: Path) -> SentenceModel:
    """Loads a folder in sentence-transformers' layout (modules.json, 1_Pooling), without network.

    Raises:
        UnsupportedModelError: files are missing or unreadable, or the model needs modules or a
            pooling other than those of this file.
    """
    modules = _read_json(folder, "modules.json")
    kinds = [module["type"].rpartition(".")[2] for module in modules]
    if not {"Transformer", "Pooling"} <= set(kinds) <= set(_UNDERSTOOD):
        raise UnsupportedModelError(
            f"model {str(folder)!r}: expected modules out of {_UNDERSTOOD}, got {kinds}"
        )
    pooling_folder = modules[kinds.index("Pooling")]["path"]
    try:
        with _quiet():
            options = {"local_files_only": True, "trust_remote_code": False}
            tokenizer = AutoTokenizer.from_pretrained(folder, **options)
            network = AutoModel.from_pretrained(
                folder, use_safetensors=True, dtype=torch.float32, **options
            )
    except (OSError, ValueError) as error:
        raise UnsupportedModelError(
            f"model {str(folder)!r}: expected tokenizer, config.json and safetensors weights that "
            f"transformers loads; {error}"
        ) from error
    return SentenceModel(
        tokenizer,
        network.eval().requires_grad_(False),
        _pooling(_read_json(folder, f"{pooling_folder}/config.json"), folder),
        _max_tokens(folder, tokenizer),
    )


def _pooling(config: dict, folder: Path) -> str:
    """The one pooling of a 1_Pooling/config.json, as a word (release 6) or as flags (before)."""
    chosen = config.get("pooling_mode")
    if chosen is None:
        flags = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
        on = [key for key, value in config.items() if key.startswith("pooling_mode_") and value]
        chosen = flags.get(on[0], on[0]) if len(on) == 1 else on
    if chosen not in POOLINGS:
        raise UnsupportedModelError(
            f"model {str(folder)!r}: expected one pooling out of {POOLINGS}, got {chosen!r}"
        )
    return chosen


def _max_tokens(folder: Path, tokenizer: PreTrainedTokenizerBase) -> int:
    """What the model was made for; release 6 leaves it to the tokenizer."""
    made_for = _read_json(folder, "sentence_bert_config.json").get("max_seq_length")
    return tokenizer.model_max_length if made_for is None else made_for


def _read_json(folder: Path, name: str):
    try:
        return json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnsupportedModelError(
            f"model {str(folder)!r}: expected a sentence model in sentence-transformers' layout "
            f"with {name}; {error}"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bar, which would write over a command's own output."""
    was_on = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            transformers.utils.logging.enable_progress_bar()
