"""Laws of loading: a seed gives the same frozen weights; folders round trip."""

import json

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel

from canvas_robot.backbone.loading import BackboneError, load_backbone
from canvas_robot.resources import config_path


@pytest.fixture(scope="module")
def tiny():
    return load_backbone("tiny")


def parts(backbone):
    return {
        "transformer": backbone.transformer,
        "vae": backbone.vae,
        "text_encoder": backbone.text_encoder,
    }


def test_a_seed_gives_the_same_weights_whatever_was_drawn_before(tiny):
    torch.manual_seed(123)
    again = load_backbone("tiny")
    assert again.sha256 == tiny.sha256 and len(tiny.sha256) == 64
    for name, part in parts(tiny).items():
        other = parts(again)[name].state_dict()
        assert all(torch.equal(tensor, other[key]) for key, tensor in part.state_dict().items())


def test_loading_draws_nothing_from_the_callers_random_numbers():
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    load_backbone("tiny")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_everything_is_frozen_in_evaluation_mode_and_said_to_be_untrained(tiny):
    for part in parts(tiny).values():
        assert not any(p.requires_grad for p in part.parameters())
        assert not any(module.training for module in part.modules())
    assert tiny.trained is False and tiny.source == "tiny"


def test_the_width_is_that_of_the_blocks(tiny):
    spec = json.loads(config_path("backbones", "tiny.json").read_text())["transformer"]
    assert tiny.width == spec["num_attention_heads"] * spec["attention_head_dim"] == 128
    assert tiny.transformer.transformer_blocks[0].attn1.to_q.in_features == tiny.width


def test_another_number_format_is_another_fingerprint(tiny):
    half = load_backbone("tiny", torch.bfloat16)
    assert half.transformer.dtype == half.vae.dtype == half.text_encoder.dtype == torch.bfloat16
    assert half.sha256 != tiny.sha256


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    """The tiny backbone in diffusers' layout."""
    folder = tmp_path_factory.mktemp("backbone")
    for name, part in parts(tiny).items():
        part.save_pretrained(folder / name)
    tiny.tokenizer.save_pretrained(folder / "tokenizer")
    return folder


def test_a_folder_in_diffusers_layout_gives_the_weights_that_were_saved(tiny, folder):
    loaded = load_backbone(str(folder))
    assert loaded.sha256 == tiny.sha256
    assert loaded.trained is True and loaded.source == str(folder)
    prompt = "put the carrot on the plate"
    assert loaded.tokenizer(prompt).input_ids == tiny.tokenizer(prompt).input_ids
    assert not any(p.requires_grad for part in parts(loaded).values() for p in part.parameters())


def test_one_changed_weight_is_another_fingerprint(tiny, folder, tmp_path):
    for part in folder.iterdir():
        (tmp_path / part.name).symlink_to(part)
    (tmp_path / "transformer").unlink()
    changed = CogVideoXTransformer3DModel.from_pretrained(folder, subfolder="transformer")
    with torch.no_grad():
        changed.proj_out.bias[0] += 1e-3
    changed.save_pretrained(tmp_path / "transformer")
    assert load_backbone(str(tmp_path)).sha256 != tiny.sha256


def test_a_folder_that_holds_no_backbone_is_refused(tmp_path):
    with pytest.raises(BackboneError) as error:
        load_backbone(str(tmp_path))
    assert str(error.value).startswith(
        f"backbone {str(tmp_path)!r}: expected a name in config/backbones, or a folder or hub id "
        "with transformer, vae, text_encoder and tokenizer in diffusers' layout "
        "(for example: hf download THUDM/CogVideoX-2b); "
    )


def test_pickled_weights_are_refused(folder, tmp_path):
    """They could run code; only safetensors are read."""
    for part in folder.iterdir():
        (tmp_path / part.name).symlink_to(part)
    (tmp_path / "transformer").unlink()
    transformer = CogVideoXTransformer3DModel.from_pretrained(folder, subfolder="transformer")
    transformer.save_pretrained(tmp_path / "transformer", safe_serialization=False)
    assert list((tmp_path / "transformer").glob("*.bin"))
    with pytest.raises(BackboneError, match="or a folder or hub id with transformer"):
        load_backbone(str(tmp_path))
