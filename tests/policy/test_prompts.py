"""Laws of prompt folders: bit for bit what the encoder gives; what is not as written is refused."""

import dataclasses
import json
import pickle

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from canvas_robot.backbone.loading import load_backbone
from canvas_robot.cli import app
from canvas_robot.policy.codecs.text import TextCodec, prompt_embedding
from canvas_robot.policy.model import CanvasModel
from canvas_robot.policy.policy import CanvasPolicy
from canvas_robot.policy.prompts import (
    PromptFileError,
    PromptNotCachedError,
    create_prompts,
    open_prompts,
)

TINY = load_backbone("tiny")
ABSENT = load_backbone("tiny", text_encoder=False)
PROMPTS = ["put the carrot on the plate", "lève la tasse"]


def embedding(prompt: str) -> torch.Tensor:
    return prompt_embedding(TINY.text_encoder, TINY.tokenizer, prompt, 128)


@pytest.fixture
def folder(tmp_path):
    made = create_prompts(tmp_path / "prompts", TINY)
    for prompt in PROMPTS:
        made.save(prompt, embedding(prompt))
    return made


def text_codec(folder, backbone=ABSENT) -> TextCodec:
    embed = backbone.transformer.patch_embed
    encoder, tokenizer = backbone.text_encoder, backbone.tokenizer
    return TextCodec(encoder, tokenizer, embed, None, 128, folder, backbone.source)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_an_embedding_comes_back_bit_for_bit_in_the_precision_it_was_computed_in(tmp_path, dtype):
    backbone = load_backbone("tiny", dtype)
    fresh = prompt_embedding(backbone.text_encoder, backbone.tokenizer, "lift", 128)
    create_prompts(tmp_path, backbone).save("lift", fresh)
    for reader in (backbone, load_backbone("tiny", dtype, text_encoder=False)):
        known = open_prompts(tmp_path, reader).load("lift")
        assert known.dtype == dtype and torch.equal(known, fresh)


def test_a_policy_without_a_text_encoder_decides_as_one_with_it(
    folder, small_schema, widowx, bridge, samples
):
    def policy(backbone, prompts):
        torch.manual_seed(0)
        model = CanvasModel(small_schema(), widowx, bridge, backbone, 1, prompts)
        return CanvasPolicy(
            model, small_schema(), widowx, bridge, backbone.source, backbone.sha256, False
        )

    with_encoder = policy(load_backbone("tiny"), None)
    absent = load_backbone("tiny", text_encoder=False)
    without = policy(absent, open_prompts(folder.path, absent))
    for one in (with_encoder, without):
        one.reset(PROMPTS[0])
    assert (with_encoder.act(samples(0)).values == without.act(samples(0)).values).all()
    with pytest.raises(PromptNotCachedError):
        without.reset("never precomputed")
    assert without.instruction == PROMPTS[0]


def test_a_prompt_that_is_nowhere_is_refused_with_the_command_that_adds_it(folder):
    with pytest.raises(PromptNotCachedError) as error:
        text_codec(folder).encode("lift it")
    assert str(error.value) == (
        f"instruction 'lift it': not among the 2 prompts in {folder.path}, and the text encoder "
        f"is not loaded; where it is, run: "
        f"canvas-robot prompts --backbone tiny --out {folder.path} -- 'lift it'"
    )
    with pytest.raises(PromptNotCachedError) as error:
        text_codec(None).encode("lift it")
    assert str(error.value) == (
        "instruction 'lift it': the text encoder is not loaded, and no folder of prompts is given; "
        "where it is, run: canvas-robot prompts --backbone tiny --out FOLDER -- 'lift it'"
    )


def test_a_known_prompt_needs_no_encoder_and_an_unknown_one_is_encoded(folder):
    codec, calls = text_codec(folder, TINY), []
    hook = TINY.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    try:
        assert torch.equal(codec.encode(PROMPTS[0]), folder.load(PROMPTS[0])) and not calls
        assert codec.encode("another").shape == (128, 64) and len(calls) == 1
    finally:
        hook.remove()


def test_the_example_is_a_prompt_that_can_be_encoded(folder):
    for codec in (text_codec(folder), text_codec(folder, TINY), text_codec(None, TINY)):
        assert codec.encode(codec.example()).shape == (128, 64)


def test_prompts_are_listed(folder):
    assert folder.prompts() == sorted(PROMPTS)


def test_files_of_other_prompts_encoders_and_lengths_have_other_names(folder):
    names = {folder.file(prompt).name for prompt in PROMPTS}
    for change in ({"sha256": "0" * 64}, {"max_tokens": 64}):
        encoder = dataclasses.replace(
            folder, encoder=type(folder.encoder)(**(_fields(folder.encoder) | change))
        )
        names |= {encoder.file(prompt).name for prompt in PROMPTS}
    assert len(names) == 6


def _fields(encoder) -> dict:
    return {name: getattr(encoder, name) for name in encoder.__struct_fields__}


def refusal(folder, prompt=PROMPTS[0]) -> str:
    with pytest.raises(PromptFileError) as error:
        folder.load(prompt)
    return str(error.value)


def rewrite(path, **changes) -> None:
    """Writes the file anew, its tensor or metadata replaced."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = changes.pop("tensors", load_file(path))
    save_file(tensors, path, metadata | changes)


@pytest.mark.parametrize("keep", [0, 7, 40, -1])
def test_a_truncated_file_is_refused_by_its_path(folder, keep):
    path = folder.file(PROMPTS[0])
    path.write_bytes(path.read_bytes()[:keep])
    assert refusal(folder).startswith(f"{path}: expected a safetensors file, got ")


class Bomb:
    went_off = False

    def __reduce__(self):
        return setattr, (Bomb, "went_off", True)


def test_a_pickle_is_refused_and_not_run(folder):
    path = folder.file(PROMPTS[0])
    path.write_bytes(pickle.dumps(Bomb()))
    assert refusal(folder).startswith(f"{path}: expected a safetensors file, got ")
    torch.save({"embedding": torch.zeros(128, 64)}, path)
    assert refusal(folder).startswith(f"{path}: expected a safetensors file, got ")
    assert not Bomb.went_off


@pytest.mark.parametrize(
    "tensors, text",
    [
        ({"embedding": torch.zeros(127, 64)}, "expected shape (128, 64), got (127, 64)"),
        ({"embedding": torch.zeros(1)}, "expected shape (128, 64), got (1,)"),
        (
            {"embedding": torch.zeros(128, 64, dtype=torch.bfloat16)},
            "expected float32, the text encoder's dtype, got torch.bfloat16",
        ),
        ({"prompt": torch.zeros(128, 64)}, "expected one tensor 'embedding', got ['prompt']"),
        ({}, "expected one tensor 'embedding', got []"),
    ],
)
def test_another_tensor_is_refused(folder, tensors, text):
    path = folder.file(PROMPTS[0])
    rewrite(path, tensors=tensors)
    assert refusal(folder) == f"{path}: {text}"


@pytest.mark.parametrize(
    "changes",
    [
        {"tensors": {"embedding": torch.zeros(128, 64)}},
        {"prompt": "drop it"},
        {"text_encoder": "0" * 64},
        {"sha256": "0" * 64},
        {"extra": "1"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_contents_that_are_not_those_written_are_refused(folder, changes):
    path = folder.file(PROMPTS[0])
    rewrite(path, **changes)
    assert refusal(folder).startswith(
        f"{path}: its contents are not those that were written for prompt {PROMPTS[0]!r} and "
    )


def test_a_file_under_another_prompts_name_is_refused(folder):
    folder.file(PROMPTS[1]).write_bytes(folder.file(PROMPTS[0]).read_bytes())
    assert "not those that were written for prompt" in refusal(folder, PROMPTS[1])


def test_an_embedding_that_is_not_finite_is_refused(folder):
    path = folder.save(PROMPTS[0], torch.full((128, 64), torch.nan))
    assert refusal(folder) == f"{path}: expected finite numbers, got NaN or infinity"


def test_a_write_that_fails_leaves_the_old_file(folder, monkeypatch):
    def full(*arguments):
        raise OSError("No space left on device")

    monkeypatch.setattr("canvas_robot.policy.prompts.save_file", full)
    with pytest.raises(OSError):
        folder.save(PROMPTS[0], torch.zeros(128, 64))
    assert torch.equal(folder.load(PROMPTS[0]), embedding(PROMPTS[0]))


@pytest.mark.parametrize(
    "change, text",
    [
        ({"colour": 1}, "Object contains unknown field `colour`"),
        ({"max_tokens": "many"}, "Expected `int`, got `str` - at `$.max_tokens`"),
        ({"dtype": "int8"}, "dtype: expected one of float32, bfloat16, float16, got 'int8'"),
        ({"sha256": "x"}, "sha256, backbone: expected 64 hex digits and printable characters"),
        ({"backbone": "\x1b[2J"}, "sha256, backbone: expected 64 hex digits and printable"),
    ],
)
def test_an_index_that_is_not_one_is_refused_by_field(folder, change, text):
    index = folder.path / "text_encoder.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | change))
    with pytest.raises(PromptFileError) as error:
        open_prompts(folder.path, ABSENT)
    assert str(error.value).startswith(f"{index}: {text}")


def test_a_folder_of_another_encoder_or_shape_is_refused(folder):
    with pytest.raises(PromptFileError) as error:
        open_prompts(folder.path, load_backbone("tiny", torch.bfloat16))
    assert str(error.value) == (
        f"{folder.path}: holds prompts of another text encoder, sha256 "
        f"{folder.encoder.sha256[:12]}... in float32; that of backbone 'tiny' has "
        f"{folder.encoder.sha256[:12]}... in bfloat16; use a folder for each"
    )
    index = folder.path / "text_encoder.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"max_tokens": 226}))
    with pytest.raises(PromptFileError) as error:
        open_prompts(folder.path, ABSENT)
    assert str(error.value) == (
        f"{folder.path}: holds embeddings of (tokens, width) (226, 64), "
        "backbone 'tiny' needs (128, 64)"
    )


def test_a_folder_that_holds_no_prompts_is_refused_with_what_makes_one(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        open_prompts(tmp_path, ABSENT)
    assert str(error.value) == (
        f"{tmp_path}: expected a folder made by `canvas-robot prompts`, "
        "found no text_encoder.json in it"
    )


# ---------------------------------------------------------------- the command


def run(*arguments):
    return CliRunner().invoke(app, ["prompts", "--backbone", "tiny", *map(str, arguments)])


def test_the_command_adds_each_instruction_once_and_says_where(tmp_path):
    lines = tmp_path / "prompts.txt"
    lines.write_text("lift\n\n  lower \nlift\n")
    result = run("--out", tmp_path / "out", "--file", lines, "lift", "stop")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "1/3 added: lift",
        "2/3 added: lower",
        "3/3 added: stop",
        f"3 prompts of tiny in {tmp_path / 'out'}",
    ]
    folder = open_prompts(tmp_path / "out", ABSENT)
    assert torch.equal(folder.load("lower"), embedding("lower"))


def test_the_command_passes_over_known_ones_and_makes_spoilt_ones_anew(folder):
    folder.file(PROMPTS[1]).write_bytes(b"")
    result = run("--out", folder.path, *PROMPTS)
    assert result.stdout.splitlines()[:2] == [
        f"1/2 known: {PROMPTS[0]}",
        f"2/2 added: {PROMPTS[1]}",
    ]
    assert torch.equal(folder.load(PROMPTS[1]), embedding(PROMPTS[1]))


@pytest.mark.parametrize(
    "arguments, text",
    [
        ([], "prompts: expected instructions, as arguments or with --file; got none"),
        (["a" * 128], f"{'a' * 128!r}: instruction: expected at most 128 tokens, got 129"),
        (["a\nb"], "signal 'prompt': expected printable characters only"),
        (["--dtype", "int8", "a"], "--dtype: expected one of float32, bfloat16, float16"),
    ],
)
def test_the_command_refuses_what_no_policy_could_follow(tmp_path, arguments, text):
    result = run("--out", tmp_path / "out", *arguments)
    assert result.exit_code == 1
    assert str(result.exception).startswith(text)
