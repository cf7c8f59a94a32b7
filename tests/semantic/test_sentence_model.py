"""Laws of running a sentence model: its own pooling, and nothing that it does not understand."""

import json

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from canvas_robot.semantic import EmbeddedTextError, UnsupportedModelError, embed

TEXTS = ["joint angles", "camera", "wrist camera joint"]


def reference(folder, texts, pooling):
    """As model cards of sentence-transformers write it: a padded batch, pooled by its mask."""
    batch = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = AutoModel.from_pretrained(folder).eval()(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    pooled = (hidden * mask).sum(1) / mask.sum(1) if pooling == "mean" else hidden[:, 0]
    return torch.nn.functional.normalize(pooled, dim=1)


@pytest.mark.parametrize(
    "pooling, config",
    [
        ("mean", {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}),
        ("cls", {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}),
        ("mean", {"pooling_mode": "mean", "embedding_dimension": 8}),
        ("cls", {"pooling_mode": "cls", "embedding_dimension": 8}),
    ],
)
def test_an_embedding_is_what_the_model_card_computes(
    make_sentence_model, tmp_path, pooling, config
):
    folder = make_sentence_model(tmp_path / "model", config)
    found = torch.tensor(embed(TEXTS, str(folder)))
    torch.testing.assert_close(found, reference(folder, TEXTS, pooling), atol=1e-6, rtol=0)


def test_the_poolings_differ(make_sentence_model, tmp_path):
    mean = make_sentence_model(tmp_path / "mean")
    cls = make_sentence_model(tmp_path / "cls", {"pooling_mode": "cls"})
    assert embed("joint angles", str(mean)) != pytest.approx(embed("joint angles", str(cls)))


@pytest.mark.parametrize(
    "config, chosen",
    [
        ({"pooling_mode_max_tokens": True}, "'pooling_mode_max_tokens'"),
        ({"pooling_mode": "lasttoken"}, "'lasttoken'"),
        ({"pooling_mode": ["mean", "max"]}, r"\['mean', 'max'\]"),
        ({"pooling_mode_mean_tokens": False}, r"\[\]"),
    ],
)
def test_another_pooling_is_refused(make_sentence_model, tmp_path, config, chosen):
    folder = make_sentence_model(tmp_path / "model", config)
    with pytest.raises(UnsupportedModelError, match=rf"one pooling out of .*, got {chosen}"):
        embed("camera", str(folder))


def test_a_model_with_further_modules_is_refused(sentence_model):
    modules = json.loads((sentence_model / "modules.json").read_text())
    modules.append({"idx": 3, "path": "3_Dense", "type": "sentence_transformers.models.Dense"})
    (sentence_model / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(UnsupportedModelError, match=r"expected modules out of .*'Dense'"):
        embed("camera", str(sentence_model))


@pytest.mark.parametrize("name", ["modules.json", "1_Pooling/config.json", "model.safetensors"])
def test_a_missing_file_is_named(sentence_model, name):
    (sentence_model / name).unlink()
    with pytest.raises(UnsupportedModelError, match=name):
        embed("camera", str(sentence_model))


def test_a_text_longer_than_the_model_was_made_for_is_refused_not_cut(sentence_model):
    embed("camera " * 6, str(sentence_model))
    with pytest.raises(EmbeddedTextError, match=r"expected at most 8 word pieces.* got 9; shorten"):
        embed("camera " * 7, str(sentence_model))


def test_without_a_limit_of_its_own_the_tokenizer_s_holds(sentence_model):
    (sentence_model / "sentence_bert_config.json").write_text("{}")
    embed("camera " * 14, str(sentence_model))
    with pytest.raises(EmbeddedTextError, match="expected at most 16 word pieces"):
        embed("camera " * 15, str(sentence_model))
