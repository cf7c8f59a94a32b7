"""A tokenizer learned from instructions: whole words where they are common, bytes for all else."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

PAD, END = "<pad>", "</s>"


def learn_tokenizer(texts: Iterable[str], size: int) -> PreTrainedTokenizerFast:
    """Byte-level pair encoding of at most `size` tokens, which any text can be written in.

    Each text ends with END, as T5's do; 0 is PAD. Raises ValueError for fewer than 258 tokens.
    """
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if size < len(alphabet) + 2:
        raise ValueError(f"vocabulary: expected {len(alphabet) + 2} tokens or more, got {size}")
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[PAD, END],
        initial_alphabet=sorted(alphabet),
        show_progress=False,
    )
    made.train_from_iterator(sorted(texts), trainer)
    made.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, made.token_to_id(END))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token=PAD, eos_token=END)
