"""A model's folder may bring Python code: it never runs, and nobody is asked whether it may."""

import builtins
import json
from contextlib import suppress

import pytest

from canvas_robot.semantic import UnsupportedModelError, embed


@pytest.mark.parametrize("path", ["tokenizer_config.json", "config.json"])
def test_code_in_a_folder_never_runs(sentence_model, tmp_path, monkeypatch, path):
    monkeypatch.setattr(builtins, "input", lambda *prompt: "y")
    ran = tmp_path / "ran"
    (sentence_model / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Evil: pass\n")
    evil = {
        "AutoTokenizer": ["evil.Evil", None],
        "AutoConfig": "evil.Evil",
        "AutoModel": "evil.Evil",
    }
    settings = {"model_type": "evil", "auto_map": evil}
    (sentence_model / path).write_text(json.dumps(settings))
    with suppress(UnsupportedModelError):  # or a tokenizer of transformers' own fits the files
        embed("camera", str(sentence_model))
    assert not ran.exists()
