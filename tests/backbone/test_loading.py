"""Laws of loading: a seed gives the same frozen weights, folders round trip, nothing is guessed."""

import json
import logging
import shutil

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel
from safetensors.torch import load_file, save_file

from canvas_robot.backbone import memory, sources
from canvas_robot.backbone.loading import BackboneError, backbone_configuration, load_backbone
from canvas_robot.backbone.memory import BackboneMemoryError
from canvas_robot.resources import config_path

PARTS = ("transformer", "vae", "text_encoder")
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def tiny():
    return load_backbone("tiny")


def parts(backbone):
    return {part: getattr(backbone, part) for part in PARTS}


def refusal(source, **arguments) -> str:
    with pytest.raises(BackboneError) as error:
        load_backbone(str(source), **arguments)
    return str(error.value)


def test_a_seed_gives_the_same_weights_whatever_was_drawn_before(tiny):
    torch.manual_seed(123)
    again = load_backbone("tiny")
    assert again.sha256 == tiny.sha256
    assert [len(digest) for digest in tiny.sha256.values()] == [64, 64, 64]
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
    assert (tiny.trained, tiny.source, tiny.revision) == (False, "tiny", None)


def test_the_width_is_that_of_the_blocks(tiny):
    spec = json.loads(config_path("backbones", "tiny.json").read_text())["transformer"]
    assert tiny.width == spec["num_attention_heads"] * spec["attention_head_dim"] == 128
    assert tiny.transformer.transformer_blocks[0].attn1.to_q.in_features == tiny.width
    assert tiny.configuration.width == tiny.width


# Formats


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_number_format_is_a_cast_of_the_same_weights_and_keeps_their_fingerprint(tiny, dtype):
    half = load_backbone("tiny", dtype)
    assert half.sha256 == tiny.sha256
    for name, part in parts(half).items():
        whole = parts(tiny)[name].state_dict()
        for key, tensor in part.state_dict().items():
            assert torch.equal(tensor, whole[key].to(dtype)), key


def test_int8_keeps_the_fingerprint_and_leaves_vae_and_text_encoder_alone(tiny, folder):
    for source in ("tiny", str(folder)):
        small = load_backbone(source, torch.bfloat16, int8=True)
        assert small.sha256 == tiny.sha256
        assert small.transformer.transformer_blocks[0].attn1.to_q.weight.dtype == torch.int8
        assert {p.dtype for p in small.vae.parameters()} == {torch.bfloat16}
        assert {p.dtype for p in small.text_encoder.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    "arguments", [{"dtype": torch.float64}, {"dtype": torch.float16, "int8": True}]
)
def test_other_formats_are_refused(arguments):
    assert refusal("tiny", **arguments) == (
        "backbone 'tiny': dtype: expected float32, bfloat16 or (without int8) float16, "
        f"got {arguments['dtype']}"
    )


# Folders


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    """The tiny backbone in diffusers' layout."""
    folder = tmp_path_factory.mktemp("backbone")
    for name, part in parts(tiny).items():
        part.save_pretrained(folder / name)
    tiny.tokenizer.save_pretrained(folder / "tokenizer")
    return folder


@pytest.fixture
def spoilt(folder, tmp_path):
    """A copy of that folder that a test may spoil."""
    return shutil.copytree(folder, tmp_path / "spoilt")


def edit_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_folder_in_diffusers_layout_gives_the_weights_that_were_saved(tiny, folder):
    loaded = load_backbone(str(folder))
    assert loaded.sha256 == tiny.sha256
    assert (loaded.trained, loaded.source, loaded.revision) == (True, str(folder), None)
    prompt = "put the carrot on the plate"
    assert loaded.tokenizer(prompt).input_ids == tiny.tokenizer(prompt).input_ids
    assert not any(p.requires_grad for part in parts(loaded).values() for p in part.parameters())
    for name, part in parts(loaded).items():
        saved = parts(tiny)[name].state_dict()
        assert all(torch.equal(tensor, saved[key]) for key, tensor in part.state_dict().items())


def test_all_of_diffusers_parts_are_in_the_number_format_that_was_asked_for(folder):
    loaded = load_backbone(str(folder), torch.bfloat16, text_encoder=False)
    for module in (loaded.transformer, loaded.vae):
        assert {t.dtype for t in (*module.parameters(), *module.buffers())} == {torch.bfloat16}


def test_weights_stored_in_bfloat16_have_one_fingerprint_in_every_format(tiny, spoilt):
    for name in PARTS:
        half = load_backbone("tiny", torch.bfloat16)
        getattr(half, name).save_pretrained(spoilt / name)
    half, whole = load_backbone(str(spoilt), torch.bfloat16), load_backbone(str(spoilt))
    assert half.sha256 == whole.sha256 != tiny.sha256
    assert half.transformer.dtype == torch.bfloat16 and whole.transformer.dtype == torch.float32
    assert torch.equal(half.transformer.proj_out.weight.float(), whole.transformer.proj_out.weight)


def test_how_weights_are_spread_over_files_does_not_matter(tiny, spoilt):
    shutil.rmtree(spoilt / "transformer")
    tiny.transformer.save_pretrained(spoilt / "transformer", max_shard_size="1MB")
    files = list((spoilt / "transformer").glob("*.safetensors"))
    assert len(files) > 1
    assert load_backbone(str(spoilt)).sha256 == tiny.sha256
    files[0].unlink()
    assert f"missing transformer/{files[0].name}" in refusal(spoilt)


def test_one_changed_weight_is_another_fingerprint_of_its_part_only(tiny, spoilt):
    changed = CogVideoXTransformer3DModel.from_pretrained(spoilt, subfolder="transformer")
    with torch.no_grad():
        changed.proj_out.bias[0] += 1e-3
    changed.save_pretrained(spoilt / "transformer")
    digests = load_backbone(str(spoilt)).sha256
    assert [part for part in PARTS if digests[part] != tiny.sha256[part]] == ["transformer"]


@pytest.mark.parametrize("by_name", [True, False])
def test_without_its_text_encoder_a_backbone_is_the_same_but_for_that(tiny, spoilt, by_name):
    shutil.rmtree(spoilt / "text_encoder")
    shutil.rmtree(spoilt / "tokenizer")
    loaded = load_backbone("tiny" if by_name else str(spoilt), text_encoder=False)
    assert loaded.text_encoder is None and loaded.tokenizer is None
    assert loaded.sha256 == {part: tiny.sha256[part] for part in ("transformer", "vae")}
    state = tiny.vae.state_dict()
    assert all(torch.equal(v, state[key]) for key, v in loaded.vae.state_dict().items())


def test_the_configuration_is_read_without_the_weights(tiny, spoilt):
    configuration = backbone_configuration(str(spoilt))
    for part, module in parts(tiny).items():
        count = sum(p.numel() for p in module.parameters())
        assert configuration.parameters(part) == count
        assert tiny.configuration.parameters(part) == count
        assert all(p.is_meta for p in configuration.skeleton(part).parameters())


def test_what_a_folder_lacks_is_listed_with_a_command_that_completes_it(tmp_path):
    assert refusal(tmp_path, text_encoder=False) == (
        f"backbone {str(tmp_path)!r}: expected transformer, vae in diffusers' layout, as "
        f"safetensors, in {tmp_path}; missing transformer/config.json, transformer/{WEIGHTS}, "
        f"vae/config.json, vae/{WEIGHTS}; complete it, for example with: "
        f"hf download zai-org/CogVideoX-2b --local-dir {tmp_path}"
    )
    assert "text_encoder/model.safetensors, tokenizer; complete it" in refusal(tmp_path)


def test_pickled_weights_are_refused(spoilt):
    """They could run code; only safetensors are read."""
    transformer = CogVideoXTransformer3DModel.from_pretrained(spoilt, subfolder="transformer")
    shutil.rmtree(spoilt / "transformer")
    transformer.save_pretrained(spoilt / "transformer", safe_serialization=False)
    assert list((spoilt / "transformer").glob("*.bin"))
    assert (
        f"missing transformer/{WEIGHTS} (pickled weights are not read: they could run code)"
        in refusal(spoilt)
    )


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_truncated_weights_are_refused_by_file(spoilt, keep):
    path = spoilt / "vae" / WEIGHTS
    path.write_bytes(path.read_bytes()[:keep])
    assert refusal(spoilt).startswith(f"{path}: expected a safetensors file, got ")


@pytest.mark.parametrize("part", PARTS)
def test_weights_that_are_not_all_there_are_refused_and_never_drawn(spoilt, part):
    (path,) = (spoilt / part).glob("*.safetensors")
    weights = load_file(path)
    gone = next(key for key in sorted(weights, reverse=True) if key.endswith("weight"))
    weights["extra.weight"] = weights.pop(gone)
    save_file(weights, path, {"format": "pt"})
    text = refusal(spoilt)
    assert str(spoilt / part) in text
    assert gone in text or "extra.weight" in text


def test_a_revision_of_a_folder_or_a_name_is_refused(folder):
    assert "a folder has none; got revision 'main'" in refusal(folder, revision="main")
    assert "its weights come from a seed; got revision 'v1'" in refusal("tiny", revision="v1")


# Models that no canvas fits


def test_paired_frames_are_refused_and_said_why(spoilt):
    """CogVideoX 1.5 makes a token of two latent frames."""
    edit_json(spoilt / "transformer" / "config.json", patch_size_t=2)
    assert refusal(spoilt) == (
        f"{spoilt}: backbone: expected one frame per token; CogVideoX 1.5 makes one token of 2 "
        "latent frames (patch_size_t 2), a canvas step is one frame: its tokens could not be "
        "refreshed step by step; use CogVideoX-2b or CogVideoX-5b"
    )


@pytest.mark.parametrize(
    "part, changes, text",
    [
        ("transformer", {"in_channels": 16}, "expected in_channels 8, got 16; image-to-video"),
        ("vae", {"latent_channels": 4}, "expected a transformer of 4 channels, as the VAE's"),
        (
            "transformer",
            {"use_rotary_positional_embeddings": True, "use_learned_positional_embeddings": True},
            "expected sin-cos or rotary positions, got learned ones",
        ),
        (
            "transformer",
            {"_class_name": "WanTransformer3DModel"},
            "expected a CogVideoXTransformer3DModel, got a WanTransformer3DModel",
        ),
        ("vae", {"block_out_channels": "many"}, "spoilt"),
    ],
)
def test_other_models_are_refused_before_their_weights_are_read(
    spoilt, monkeypatch, part, changes, text
):
    edit_json(spoilt / part / "config.json", **changes)
    monkeypatch.setattr("canvas_robot.backbone.loading.digest_of_files", None)
    assert text in refusal(spoilt)


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_a_configuration_that_is_no_json_object_is_refused_by_its_path(spoilt, text):
    path = spoilt / "vae" / "config.json"
    path.write_text(text)
    assert refusal(spoilt).startswith(f"{path}: expected ")


# Memory


def test_weights_larger_than_free_memory_are_refused_before_they_are_read(folder, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda device: 10_000_000)
    monkeypatch.setattr("canvas_robot.backbone.loading.digest_of_files", None)
    with pytest.raises(BackboneMemoryError) as error:
        load_backbone(str(folder))
    assert "transformer weights" in str(error.value) and "0.010 GB" in str(error.value)


def test_the_table_is_noted_in_the_log(caplog):
    with caplog.at_level(logging.INFO, "canvas_robot.backbone.memory"):
        load_backbone("tiny", text_encoder=False)
    assert "transformer weights" in caplog.text and "text_encoder" not in caplog.text


# The tokenizer


def test_a_tokenizer_that_needs_sentencepiece_says_so(spoilt, monkeypatch):
    """CogVideoX's hub repositories hold spiece.model only."""
    shutil.rmtree(spoilt / "tokenizer")
    (spoilt / "tokenizer").mkdir()
    (spoilt / "tokenizer" / "spiece.model").write_bytes(b"")
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda name: None)
    assert refusal(spoilt).endswith(
        "spiece.model: needs the sentencepiece library; pip install sentencepiece"
    )


def test_a_sentencepiece_tokenizer_gives_that_models_tokens_and_the_end(spoilt, tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    text = tmp_path / "text.txt"
    text.write_text("put the carrot on the plate\nlift the red spoon\nopen the drawer\n" * 50)
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(tmp_path / "spiece"), vocab_size=24, minloglevel=2,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, hard_vocab_limit=False,
    )  # fmt: skip
    shutil.rmtree(spoilt / "tokenizer")
    (spoilt / "tokenizer").mkdir()
    model = (tmp_path / "spiece.model").rename(spoilt / "tokenizer" / "spiece.model")
    settings = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "eos_token": "</s>",
                "pad_token": "<pad>", "unk_token": "<unk>"}  # fmt: skip
    (spoilt / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(settings))
    tokens = load_backbone(str(spoilt)).tokenizer("lift the carrot").input_ids
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(model)).encode("lift the carrot")
    assert tokens == [*pieces, 1]
