"""`canvas-robot data index` and `inspect` say what is there, and what is not."""

import json
import os
import shutil
from pathlib import Path

import cv2
import pytest
from typer.testing import CliRunner

from canvas_robot.cli import app
from canvas_robot.data.records import open_shard

SAMPLE = Path(__file__).parents[3] / "shared/data/bridge_sample/bridge_dataset/1.0.0"
pytestmark = pytest.mark.skipif(not SAMPLE.exists(), reason="needs ../shared/data/bridge_sample")


def run(*arguments, exit_code=0):
    result = CliRunner().invoke(app, ["data", *map(str, arguments)], env={"COLUMNS": "160"})
    assert result.exit_code == exit_code, result.output
    return result


@pytest.fixture
def folder(tmp_path):
    """The sample, its train split in two shards of 10 and 15 episodes."""
    folder = tmp_path / "bridge_dataset" / "1.0.0"
    shutil.copytree(SAMPLE, folder, copy_function=shutil.copyfile)
    folder.chmod(0o755)
    whole = folder / "bridge_dataset-train.tfrecord-00000-of-00001"
    data = whole.read_bytes()
    starts = [record.offset for record in open_shard(whole, "tfrecord").records()]
    whole.unlink()
    shard(folder, 0).write_bytes(data[: starts[10]])
    shard(folder, 1).write_bytes(data[starts[10] :])
    info = json.loads((folder / "dataset_info.json").read_text())
    info["splits"][0]["shardLengths"] = ["10", "15"]
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder


def shard(folder, number):
    return folder / f"bridge_dataset-train.tfrecord-{number:05}-of-00002"


def row_of(output, split):
    (line,) = [line for line in output.splitlines() if line.split()[:1] == [split]]
    return line.split()


def test_index_sums_up_every_split(folder):
    output = run("index", folder.parent).output
    assert "Bridge V2 1.0.0" in output
    for split in ("train", "val"):
        assert row_of(output, split)[1:5] == ["25", "250", "25", "(100%)"]
        assert row_of(output, split)[-3:] == ["when", "read", "0"]
        assert (folder / f"{split}.index.npz").is_file()


def test_index_as_json(folder):
    (train,) = json.loads(run("index", folder, "--split", "train", "--json").stdout).values()
    assert (train["episodes"], train["steps"], train["with_language"]) == (25, 250, 25)
    assert train["pictures"] == {"image_0": 25, "image_1": 25, "image_2": 25, "image_3": 0}
    assert train["shards"] == 2 and train["skipped"] == [] and not train["verified"]
    assert train["gigabytes"] == pytest.approx(3.475e-3, rel=1e-3)
    assert train["seconds_per_gigabyte"] == pytest.approx(train["seconds"] / train["gigabytes"])


def test_index_lists_damage_and_fails_unless_it_is_to_be_skipped(folder):
    os.truncate(shard(folder, 1), shard(folder, 1).stat().st_size - 10)
    shard(folder, 0).unlink()
    result = run("index", folder, "--split", "train", exit_code=1)
    assert "11 episodes cannot be read" in str(result.exception)
    assert "--skip-corrupt" in str(result.exception)
    output = run("index", folder, "--split", "train", "--skip-corrupt").output
    assert row_of(output, "train")[1] == "14" and row_of(output, "train")[-1] == "11"
    assert row_of(output, shard(folder, 0).name)[1:] == ["-", "10", "the", "file", "is", "missing"]
    assert "the file is cut" in output


def test_verify_reads_all_data_each_time(folder):
    assert json.loads(run("index", folder, "--verify", "--json").stdout)["train"]["verified"]
    path = shard(folder, 0)
    stamps = path.stat()
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(stamps.st_atime_ns, stamps.st_mtime_ns))  # a disk that forgets
    run("index", folder)
    result = run("index", folder, "--verify", exit_code=1)
    assert "wrong checksum of" in result.output
    run("index", folder, exit_code=1)


def test_inspect_prints_and_draws_an_episode(folder, tmp_path):
    picture = tmp_path / "strip.png"
    output = run("inspect", folder, "--episode", 3, "-o", picture).output
    for part in (
        "bridge_dataset/train/3: Bridge V2 1.0.0",
        "instruction: turn lever vertical to front",
        "10 steps, 1.8 s",
        "image_0 64x64, image_1 64x64, image_2 64x64; black: image_3",
        "stored in bridge_dataset-train.tfrecord-00000-of-00002 at 420549",
        f"picture: {picture}",
    ):
        assert part in output
    assert row_of(output, "x")[:4] == ["x", "m", "0.2677", "0.3301"]
    height, width, _ = cv2.imread(str(picture)).shape
    assert width == 1650 and height > 1000


def test_inspect_draws_several_episodes_to_files_of_their_own(folder, tmp_path):
    options = ("--frames", 1, "--split", "val", "-o", tmp_path / "strip.svg")
    run("inspect", folder, "--episode", 0, "--episode", -1, *options)
    assert sorted(path.name for path in tmp_path.glob("*.svg")) == ["strip-0.svg", "strip-24.svg"]


def test_inspect_refuses_an_episode_that_is_not_there(folder):
    result = run("inspect", folder, "--episode", 25, exit_code=1)
    assert "one of the 25 episodes of 'train', 0 to 24" in str(result.exception)


def test_inspect_of_damaged_data_says_what_is_left_out(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shard(folder, 0).unlink()
    result = run("inspect", folder, exit_code=1)
    assert "the file is missing" in str(result.exception)
    output = run("inspect", folder, "--skip-corrupt", "--frames", 1).output
    assert "10 episodes cannot be read and are left out" in output
    assert "bridge_dataset/train/10" in output
    assert (tmp_path / "episode-train-0.png").is_file()
