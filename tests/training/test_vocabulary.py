"""Laws of a learned tokenizer: any text can be written, common words are one token."""

import pytest

from canvas_robot.training.vocabulary import learn_tokenizer

TEXTS = ["put the red cube on the plate", "touch the blue cube", "touch the red cube"]


@pytest.fixture(scope="module")
def tokenizer():
    return learn_tokenizer(TEXTS, 384)


def test_common_words_are_one_token_and_texts_end(tokenizer):
    ids = tokenizer("touch the red cube").input_ids
    assert len(ids) == 5 and ids[-1] == tokenizer.eos_token_id
    assert tokenizer.pad_token_id == 0


@pytest.mark.parametrize(
    "text", ["lift the mauve prism", "schließe die Schublade", "把茄子放进篮子", ""]
)
def test_any_text_can_be_written_and_read(tokenizer, text):
    ids = tokenizer(text).input_ids
    assert max(ids) < 384
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == text


def test_equal_texts_give_equal_tokenizers():
    first, second = (learn_tokenizer(texts, 300) for texts in (TEXTS, TEXTS[::-1]))
    assert first.get_vocab() == second.get_vocab()


def test_a_vocabulary_that_lacks_bytes_is_refused():
    with pytest.raises(ValueError, match="expected 258 tokens or more, got 200"):
        learn_tokenizer(TEXTS, 200)
