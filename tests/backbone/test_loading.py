"""Laws of loading: a seed gives the same frozen weights, folders round trip, nothing is guessed."""

import builtins
import json
import logging
import shutil

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel
from safetensors.torch import load_file, save_file

from canvas_robot.backbone import loading, memory, sources
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
            # T5's `wo` layers would overflow float16; transformers keeps them in float32 too.
            wide = dtype == torch.float16 and ".wo." in key
            assert tensor.dtype == (torch.float32 if wide else dtype), key
            assert torch.equal(tensor, whole[key].to(tensor.dtype)), key


def test_int8_keeps_the_fingerprint_and_leaves_vae_and_text_encoder_alone(tiny, folder, digests):
    for source, expected in (("tiny", tiny.sha256), (str(folder), digests)):
        small = load_backbone(source, torch.bfloat16, int8=True)
        assert small.sha256 == expected
        assert small.transformer.transformer_blocks[0].attn1.to_q.weight.dtype == torch.int8
        assert {p.dtype for p in small.vae.parameters()} == {torch.bfloat16}
        assert {p.dtype for p in small.text_encoder.parameters()} == {torch.bfloat16}


def test_8_bit_floats_are_a_format_too_and_one_format_is_enough(tiny):
    small = load_backbone("tiny", torch.bfloat16, float8=True)
    assert small.transformer.transformer_blocks[0].attn1.to_q.weight.dtype == torch.float8_e4m3fn
    assert small.sha256 == tiny.sha256
    with pytest.raises(BackboneError, match="expected int8 or float8, got both"):
        load_backbone("tiny", torch.bfloat16, int8=True, float8=True)


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


@pytest.fixture(scope="module")
def digests(folder):
    """Of that folder's parts."""
    return load_backbone(str(folder)).sha256


@pytest.fixture
def spoilt(folder, tmp_path):
    """A copy of that folder that a test may spoil."""
    return shutil.copytree(folder, tmp_path / "spoilt")


def edit_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_weights(path, edit):
    weights = load_file(path)
    edit(weights)
    save_file(weights, path, {"format": "pt"})


def differing(digests, others) -> list[str]:
    assert digests.keys() == others.keys()
    return [part for part in digests if digests[part] != others[part]]


def test_a_folder_in_diffusers_layout_gives_the_weights_that_were_saved(tiny, folder):
    loaded = load_backbone(str(folder))
    assert differing(loaded.sha256, tiny.sha256) == ["text_encoder"]  # its tokenizer is in files
    assert (loaded.trained, loaded.source, loaded.revision) == (True, str(folder), None)
    prompt = "put the carrot on the plate"
    assert loaded.tokenizer(prompt).input_ids == tiny.tokenizer(prompt).input_ids
    assert not any(p.requires_grad for part in parts(loaded).values() for p in part.parameters())
    for name, part in parts(loaded).items():
        saved = parts(tiny)[name].state_dict()
        assert all(torch.equal(tensor, saved[key]) for key, tensor in part.state_dict().items())


def test_a_loaded_part_computes_what_the_saved_one_did(tiny, folder, make_inputs):
    loaded = load_backbone(str(folder))
    given = make_inputs(tiny.transformer, height=8, width=8)
    ids = torch.tensor([tiny.tokenizer("lift the carrot").input_ids])
    with torch.inference_mode():
        for of_part in (
            lambda backbone: backbone.transformer(**given).sample,
            lambda backbone: backbone.vae.decode(given["hidden_states"].transpose(1, 2)).sample,
            lambda backbone: backbone.text_encoder(ids).last_hidden_state,
        ):
            torch.testing.assert_close(of_part(loaded), of_part(tiny))


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
    digests = load_backbone(str(spoilt), text_encoder=False).sha256
    assert digests == {part: tiny.sha256[part] for part in ("transformer", "vae")}
    files[0].unlink()
    assert f"missing transformer/{files[0].name}" in refusal(spoilt)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_table_of_tokens_has_one_fingerprint_under_either_of_its_names(spoilt, dtype):
    before = load_backbone(str(spoilt), dtype)
    edit_weights(
        spoilt / "text_encoder" / "model.safetensors",
        lambda weights: weights.update(
            {"encoder.embed_tokens.weight": weights.pop("shared.weight")}
        ),
    )
    after = load_backbone(str(spoilt), dtype)
    assert after.sha256 == before.sha256
    tokens = after.text_encoder.encoder.embed_tokens.weight
    assert torch.equal(tokens, before.text_encoder.shared.weight)
    assert tokens is after.text_encoder.shared.weight


# Fingerprints


def test_one_changed_weight_is_another_fingerprint_of_its_part_only(digests, spoilt):
    changed = CogVideoXTransformer3DModel.from_pretrained(spoilt, subfolder="transformer")
    with torch.no_grad():
        changed.proj_out.bias[0] += 1e-3
    changed.save_pretrained(spoilt / "transformer")
    assert differing(load_backbone(str(spoilt)).sha256, digests) == ["transformer"]


@pytest.mark.parametrize(
    "part, changes",
    [
        ("transformer", {"use_rotary_positional_embeddings": True}),
        ("transformer", {"norm_eps": 1e-6}),
        ("transformer", {"max_text_seq_length": 64}),
        ("transformer", {"activation_fn": "gelu"}),
        ("transformer", {"flip_sin_to_cos": False}),
        ("vae", {"scaling_factor": 0.7}),
        ("vae", {"act_fn": "gelu"}),
        ("text_encoder", {"layer_norm_epsilon": 1e-5}),
        ("text_encoder", {"relative_attention_max_distance": 64}),
        ("text_encoder", {"feed_forward_proj": "gelu"}),
    ],
)
def test_a_setting_that_changes_the_function_changes_the_fingerprint(
    tiny, digests, spoilt, monkeypatch, part, changes
):
    edit_json(spoilt / part / "config.json", **changes)
    assert differing(load_backbone(str(spoilt), torch.bfloat16).sha256, digests) == [part]
    spec = sources.named_spec("tiny")
    other = {**spec, part: {**spec[part], **changes}}
    monkeypatch.setattr(loading, "named_spec", lambda name: other)
    assert differing(tiny.sha256, load_backbone("tiny").sha256) == [part]


def test_what_changes_no_function_changes_no_fingerprint(digests, spoilt):
    for part in ("transformer", "vae"):
        edit_json(spoilt / part / "config.json", _name_or_path="elsewhere", _diffusers_version="9")
    path = spoilt / "transformer" / "config.json"
    edit_json(path, spatial_interpolation_scale=1, norm_eps=0.00001)
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items()
                                if k not in ("norm_eps", "dropout", "patch_size_t")}))  # fmt: skip
    edit_json(spoilt / "vae" / "config.json", force_upcast=True)
    edit_json(spoilt / "text_encoder" / "config.json", use_cache=True, dtype="float16")
    assert load_backbone(str(spoilt)).sha256 == digests


def test_another_tokenizer_is_another_text_encoder(digests, spoilt):
    edit_json(spoilt / "tokenizer" / "tokenizer_config.json", extra_ids=3)
    assert differing(load_backbone(str(spoilt)).sha256, digests) == ["text_encoder"]


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


def test_what_a_folder_lacks_is_listed(tmp_path):
    assert refusal(tmp_path, text_encoder=False) == (
        f"backbone {str(tmp_path)!r}: expected transformer, vae in diffusers' layout, as "
        f"safetensors, in {tmp_path}; missing transformer/config.json, transformer/{WEIGHTS}, "
        f"vae/config.json, vae/{WEIGHTS}"
    )
    assert refusal(tmp_path).endswith("text_encoder/model.safetensors, tokenizer")


@pytest.mark.parametrize("name, model", sources.SAME_SIZE.items())
def test_only_a_copy_of_a_known_model_is_completed_and_only_by_what_it_lacks(tmp_path, name, model):
    """Whatever else lies there, a fine-tuned model say, would be mixed with another's files."""
    spec = sources.named_spec(model)
    for part in ("transformer", "vae"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text(json.dumps(spec[part]))
        (tmp_path / part / WEIGHTS).touch()
    command = f"hf download zai-org/{name} --local-dir {tmp_path} --include"
    assert (
        f"; if it is a copy of {name}, complete it with: {command} text_encoder/config.json "
        "--include text_encoder/model.safetensors --include 'tokenizer/*'; or do without: embed "
        "the instructions with `canvas-robot prompts`" in refusal(tmp_path)
    )
    (tmp_path / "vae" / WEIGHTS).unlink()
    text = refusal(tmp_path, text_encoder=False)
    assert text.endswith(f"complete it with: {command} vae/{WEIGHTS}")
    edit_json(tmp_path / "vae" / "config.json", scaling_factor=1.0)
    assert refusal(tmp_path, text_encoder=False).endswith(f"missing vae/{WEIGHTS}")


def test_a_missing_text_encoder_can_be_done_without(spoilt):
    shutil.rmtree(spoilt / "tokenizer")
    assert refusal(spoilt).endswith(
        "missing tokenizer; or do without: embed the instructions with `canvas-robot prompts` on a "
        "machine that has them, and give the folder that it makes"
    )


@pytest.mark.parametrize(
    "source", ["x" * 5000, "x/" * 2500, "x/" + "y" * 5000, "~" + "x" * 300, "x\0y"]
)
def test_a_name_that_no_file_system_takes_is_unknown(source):
    text = refusal(source)
    assert text.endswith("there is no folder of this name") and len(text) < 500


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


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 3.4e38])
def test_weights_that_are_not_finite_are_refused_by_file_and_tensor(spoilt, value, int8):
    """A number beyond bfloat16's range is none of its numbers."""
    name = "transformer_blocks.0.attn1.to_q.weight"
    path = spoilt / "transformer" / WEIGHTS
    edit_weights(path, lambda weights: weights[name].view(-1)[3].fill_(value))
    assert refusal(spoilt, dtype=torch.bfloat16, int8=int8) == (
        f"{path}: {name}: expected weights that are finite in torch.bfloat16, got NaN, infinity or "
        "one beyond its range"
    )


@pytest.mark.parametrize(
    "dtype, name",
    [(torch.float64, "F64"), (torch.int32, "I32"), (torch.bool, "BOOL"),
     (torch.complex64, "C64"), (torch.float8_e4m3fn, "F8_E4M3")],
)  # fmt: skip
@pytest.mark.parametrize("part", ["vae", "text_encoder"])
def test_weights_in_other_formats_are_refused_by_file_and_tensor(spoilt, part, dtype, name):
    (path,) = (spoilt / part).glob("*.safetensors")
    key = min(load_file(path))
    edit_weights(path, lambda weights: weights.update({key: weights[key].to(dtype)}))
    assert refusal(spoilt) == f"{path}: {key}: expected float32, bfloat16, float16, got {name}"


def test_a_weight_of_another_shape_is_refused_by_file_and_tensor(spoilt):
    path = spoilt / "vae" / WEIGHTS
    edit_weights(path, lambda w: w.update({"decoder.conv_out.conv.bias": torch.zeros(4)}))
    assert refusal(spoilt) == (
        f"{path}: decoder.conv_out.conv.bias: expected shape [3], as config.json says, got [4]"
    )


@pytest.mark.parametrize(
    "text",
    ["{}", "[]", "{", '{"weight_map": [1]}', '{"weight_map": {"a": 1}}', '{"weight_map": {}}',
     '{"weight_map": {"a": "../x.safetensors"}}', '{"weight_map": {"a": "/etc/x.safetensors"}}',
     '{"weight_map": {"a": "x.bin"}}', '{"weight_map": {"a": "x.safetensors\\n"}}',
     "[" * 100_000, '{"weight_map": {"a": "%s.safetensors"}}' % ("x" * 5000)],
)  # fmt: skip
def test_an_index_that_names_no_files_of_its_folder_is_refused(spoilt, text):
    path = spoilt / "vae" / "x.safetensors.index.json"
    path.write_text(text)
    assert refusal(spoilt).startswith(f"{path}: ")


@pytest.mark.parametrize("part", PARTS)
def test_weights_that_are_not_all_there_are_refused_and_never_drawn(spoilt, part):
    (path,) = (spoilt / part).glob("*.safetensors")
    gone = max(key for key in load_file(path) if key.endswith("weight"))
    edit_weights(path, lambda weights: weights.update({"extra.weight": weights.pop(gone)}))
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
            "expected a CogVideoXTransformer3DModel, got 'WanTransformer3DModel'",
        ),
        ("vae", {"block_out_channels": "many"}, "block_out_channels: expected type array"),
        ("transformer", {"num_layers": 10**9}, "num_layers: expected type integer, minimum 1"),
        ("text_encoder", {"quantization_config": {"a": 1}}, "quantization_config: expected none"),
    ],
)
def test_other_models_are_refused_before_their_weights_are_read(
    spoilt, monkeypatch, part, changes, text
):
    """And before anything is built."""
    edit_json(spoilt / part / "config.json", **changes)
    monkeypatch.setattr(loading, "load", None)
    monkeypatch.setattr(loading.BackboneConfiguration, "make", None)
    found = refusal(spoilt)
    assert text in found and found.startswith(str(spoilt))


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, "1" * 5000])
def test_a_configuration_that_is_no_json_object_is_refused_by_its_path(spoilt, text):
    path = spoilt / "vae" / "config.json"
    path.write_text(text)
    assert refusal(spoilt).startswith(f"{path}: expected ")


# Memory


def test_weights_larger_than_free_memory_are_refused_before_they_are_read(folder, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda device: 10_000_000)
    monkeypatch.setattr(loading, "load", None)
    with pytest.raises(BackboneMemoryError) as error:
        load_backbone(str(folder))
    assert "transformer weights" in str(error.value) and "0.010 GB" in str(error.value)


def test_the_table_is_noted_in_the_log(caplog):
    with caplog.at_level(logging.INFO, "canvas_robot.backbone.memory"):
        load_backbone("tiny", text_encoder=False)
    assert "transformer weights" in caplog.text and "text_encoder" not in caplog.text


# The tokenizer


@pytest.mark.parametrize("kept", [("tokenizer_class",), ()])
def test_code_in_a_folder_never_runs_and_nobody_is_asked(spoilt, tmp_path, monkeypatch, kept):
    monkeypatch.setattr(builtins, "input", lambda *prompt: "y")
    evil = f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n"
    for part in PARTS:
        (spoilt / part / "evil.py").write_text(evil)
        edit_json(spoilt / part / "config.json", auto_map={"AutoModel": "evil.Evil"})
    assert load_backbone(str(spoilt)).trained
    config = spoilt / "tokenizer" / "tokenizer_config.json"
    (spoilt / "tokenizer" / "evil.py").write_text(evil)
    settings = {key: value for key, value in json.loads(config.read_text()).items() if key in kept}
    config.write_text(json.dumps(settings | {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}}))
    assert refusal(spoilt) == (
        f"{config}: auto_map: expected one of transformers' own tokenizers, got "
        "{'AutoTokenizer': ['evil.Evil', None]}; code in a folder is not run"
    )
    config.unlink()
    (spoilt / "tokenizer" / "config.json").write_text(
        json.dumps({"model_type": "evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None],
                                                       "AutoConfig": "evil.Evil"}})
    )  # fmt: skip
    assert refusal(spoilt).startswith(f"{spoilt / 'tokenizer'}: cannot be loaded: ")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["tokenizer_config.json", "tokenizer.json"])
@pytest.mark.parametrize("text", ["[1]", "{", "\0", "[" * 100_000])
def test_a_tokenizer_that_is_none_is_refused_by_its_folder(spoilt, name, text):
    (spoilt / "tokenizer" / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "T5TokenizerFast"}'
    )
    (spoilt / "tokenizer" / name).write_text(text)
    assert str(spoilt / "tokenizer") in refusal(spoilt)


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
