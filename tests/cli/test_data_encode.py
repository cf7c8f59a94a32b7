"""Laws of `canvas-robot data encode`: it says what it takes, does it once, and goes on."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from typer.testing import CliRunner

from canvas_robot.backbone.loading import load_backbone
from canvas_robot.cli import app
from canvas_robot.data.bridge import BridgeV2
from canvas_robot.data.encode_dataset import PROMPTS
from canvas_robot.data.encoding import open_latents
from canvas_robot.data.latent_files import LatentCacheError
from canvas_robot.policy.prompts import open_prompts
from canvas_robot.resources import config_path
from canvas_robot.schema import CanvasSchema
from canvas_robot.signals import load_binding

SAMPLE = Path(__file__).parents[3] / "shared" / "data" / "bridge_sample"
OWN = "train-image_0-32x32"

pytestmark = pytest.mark.skipif(not SAMPLE.exists(), reason="no Bridge V2 at ../shared/data")


@pytest.fixture(autouse=True)
def one_thread_and_no_state_of_accelerate():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    PartialState._reset_state()


@pytest.fixture(scope="module")
def schema(tmp_path_factory) -> Path:
    """A file: widowx_tiny with pictures of 2 x 2 patches, 32 x 32 pixels."""
    data = json.loads(config_path("schemas", "widowx_tiny.json").read_text())
    data["regions"]["visual"]["bounds"] = [1, 2, 0, 2, 0, 2]
    path = tmp_path_factory.mktemp("schema") / "small.json"
    path.write_text(json.dumps(data))
    return path


def arguments(schema: Path, out: Path, *options: object) -> list[str]:
    fixed = ["data", "encode", SAMPLE, "--backbone", "tiny", "--binding", "widowx.yaml"]
    return [str(a) for a in (*fixed, "--schema", schema, "--out", out, *options)]


def run(*words: object):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_it_says_what_it_takes_and_what_it_did_and_does_it_once(schema, tmp_path):
    first = run(*arguments(schema, tmp_path, "--crops", 2, "--dtype", "float32", "--batch", 7))
    assert first.exit_code == 0, first.output
    lines = first.stdout.splitlines()
    what = f"{OWN}: 500 latents of 25 episodes, 2 of each picture, each 8 x 4 x 4 float16"
    room = lines[lines.index(what) + 1]
    assert room.startswith(f"expected 128.0 kB in {tmp_path}, 0 bytes of it there; ")
    assert room.endswith(" free; and 32.8 kB for each instruction")
    assert [line for line in lines if line.startswith("encoding")] == [
        f"encoding: {tenth}0%" for tenth in range(1, 11)
    ]
    assert lines[-1].startswith("500 latents in 2 files, ")
    assert lines[-1].endswith(f"; 4 new instructions, 0 known: {tmp_path}")
    again = run(*arguments(schema, tmp_path, "--crops", 2, "--dtype", "float32"))
    assert again.stdout.splitlines()[1].startswith(
        f"expected 128.0 kB in {tmp_path}, 128.0 kB of it there; "
    )
    assert again.stdout.splitlines()[-1] == (
        f"0 latents in 0 files; 2 files were there; 0 new instructions, 4 known: {tmp_path}"
    )


def opened(schema: Path, out: Path, split: str = "train"):
    """The caches, by region, and the prompts, as a trainer opens them."""
    backbone = load_backbone("tiny", text_encoder=False)
    dataset, declared = BridgeV2(SAMPLE, split), CanvasSchema.from_json(schema)
    binding = load_binding(config_path("bindings", "widowx.yaml"))
    caches = open_latents(out, dataset, declared, binding, backbone)
    return caches, open_prompts(out / PROMPTS, backbone)


def test_a_trainer_opens_what_it_made(schema, tmp_path):
    assert run(*arguments(schema, tmp_path, "--split", "val")).exit_code == 0
    caches, prompts = opened(schema, tmp_path, "val")
    assert caches["visual"].frames(24, range(10)).shape == (10, 8, 4, 4)
    assert caches["visual"].manifest.computed_in == prompts.encoder.dtype == "bfloat16"
    for instruction in {BridgeV2(SAMPLE, "val").read(i).instruction for i in range(25)}:
        assert prompts.load(instruction).shape == (128, 64)


def test_the_command_that_a_message_names_finishes_a_cache(schema, tmp_path):
    assert run(*arguments(schema, tmp_path, "--crops", 2)).exit_code == 0
    lost = tmp_path / OWN / "000016-000024.safetensors"
    before = lost.read_bytes()
    lost.unlink()
    with pytest.raises(LatentCacheError) as error:
        opened(schema, tmp_path)
    words = shlex.split(str(error.value).partition("finish it with: ")[2])
    assert words[0] == "canvas-robot"
    result = run(*words[1:])
    assert result.stdout.splitlines()[-1].startswith("180 latents in 1 files, "), result.output
    assert lost.read_bytes() == before


@pytest.mark.parametrize(
    "options, text",
    [
        (["--dtype", "int8"], "--dtype: expected one of float32, bfloat16, float16, got 'int8'"),
        (["--split", "test"], "split: expected one of ['train', 'val'], got 'test'"),
        (["--schema", "mobile_manipulator"], "binding and schema name different regions"),
        (["--schema", "widowx_bridge_2b"], "schema: expected d_model 128, the width of backbone"),
        (["--backbone", "large"], "backbone 'large': expected one of"),
        (["--revision", "main"], "backbone 'tiny': revisions are of hub ids"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_does_not_fit_is_refused_and_nothing_is_made(schema, tmp_path, options, text):
    result = run(*arguments(schema, tmp_path / "out", *options))
    assert result.exit_code == 1
    assert text in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_a_device_that_is_not_there_is_refused(schema, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    result = run(*arguments(schema, tmp_path, "--device", "cuda:3"))
    assert str(result.exception) == (
        "--device: torch sees no CUDA device here; expected cpu, got 'cuda:3'"
    )


def test_a_cache_of_another_precision_is_left_alone(schema, tmp_path):
    assert run(*arguments(schema, tmp_path)).exit_code == 0
    result = run(*arguments(schema, tmp_path, "--dtype", "float32"))
    assert str(result.exception) == (
        f"{tmp_path / OWN}: computed_in: expected 'float32', the cache holds 'bfloat16'; "
        "choose another folder with --out, or delete this one"
    )


@pytest.mark.slow
def test_two_processes_of_accelerate_give_what_one_gives(schema, tmp_path):
    launch = [Path(sys.executable).with_name("accelerate"), "launch", "--multi_gpu"]
    launch += ["--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
    launch += ["--dynamo_backend", "no", "-m", "canvas_robot.cli"]
    command = [*map(str, launch), *arguments(schema, tmp_path / "two", "--device", "cpu")]
    two = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert two.returncode == 0, two.stderr
    assert "this process, of 2: 160 latents in 1 files, " in two.stdout
    assert run(*arguments(schema, tmp_path / "one", "--device", "cpu")).exit_code == 0
    one = sorted((tmp_path / "one" / OWN).iterdir())
    assert [path.name for path in one] == [
        "000000-000015.safetensors",
        "000016-000024.safetensors",
        "manifest.json",
    ]
    for path in one:
        assert path.read_bytes() == (tmp_path / "two" / OWN / path.name).read_bytes()
    _, prompts = opened(schema, tmp_path / "two")
    assert len(prompts.prompts()) == 4
    assert not list(tmp_path.rglob("*.part"))
