"""Laws of writing a backbone: what is loaded again is what was written, or nothing is there."""

import dataclasses

import pytest
import torch

from canvas_robot.backbone.folder import write_backbone
from canvas_robot.backbone.loading import load_backbone
from canvas_robot.backbone.part_config import BackboneError


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("small")


def test_what_is_loaded_is_what_was_written(backbone, tmp_path):
    folder = write_backbone(tmp_path / "written", backbone)
    found = load_backbone(str(folder))
    assert found.trained and not backbone.trained
    assert found.configuration == backbone.configuration
    for part in ("transformer", "vae"):
        assert found.sha256[part] == backbone.sha256[part]
        ours, theirs = getattr(backbone, part).state_dict(), getattr(found, part).state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_prompts_are_embedded_as_before(backbone, tmp_path):
    found = load_backbone(str(write_backbone(tmp_path / "written", backbone)))
    text = "put the red cube on the plate"
    ours, theirs = (b.tokenizer(text).input_ids for b in (backbone, found))
    assert ours == theirs
    with torch.no_grad():
        ids = torch.tensor([ours])
        expected = backbone.text_encoder(ids).last_hidden_state
        assert torch.equal(found.text_encoder(ids).last_hidden_state, expected)


def test_half_precision_takes_half_the_room(backbone, tmp_path):
    def size(folder):
        return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))

    whole = size(write_backbone(tmp_path / "whole", backbone))
    half = size(write_backbone(tmp_path / "half", backbone, torch.bfloat16))
    assert half < 0.51 * whole
    assert load_backbone(str(tmp_path / "half")).width == backbone.width


def test_what_is_there_stays(backbone, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(BackboneError, match="expected a new or empty folder"):
        write_backbone(tmp_path, backbone)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_backbone_without_text_encoder_is_refused(backbone, tmp_path):
    less = dataclasses.replace(backbone, text_encoder=None)
    with pytest.raises(BackboneError, match="expected one with its text encoder"):
        write_backbone(tmp_path / "written", less)
    assert not list(tmp_path.iterdir())
