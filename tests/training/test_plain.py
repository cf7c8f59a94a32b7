"""Laws of a plain policy's training: it learns, is gone on with, exports what it was."""

import json
import os
import shutil
import signal
from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from canvas_robot.data.bridge import BridgeV2
from canvas_robot.data.windows import Draw
from canvas_robot.evaluation.training_report import write_report_of
from canvas_robot.policy.codecs.squash import squash
from canvas_robot.policy.loading import load_policy
from canvas_robot.policy.plain_model import PlainModel
from canvas_robot.resources import resolve_config
from canvas_robot.schema import CanvasSchema
from canvas_robot.signals import load_binding
from canvas_robot.training.checkpoints import CheckpointFileError
from canvas_robot.training.config import ConfigError, OptimiserConfig
from canvas_robot.training.config_file import config_of, load_config, with_overrides
from canvas_robot.training.export import ExportError, read_record
from canvas_robot.training.objective import ObjectiveError
from canvas_robot.training.plain_config import PlainTrainConfig
from canvas_robot.training.plain_data import open_plain_data, statistics_for
from canvas_robot.training.plain_export import export_plain
from canvas_robot.training.plain_launch import run_plain_training
from canvas_robot.training.plain_objective import PlainObjective, shifted
from canvas_robot.training.plain_pictures import PicturesError
from canvas_robot.training.plain_progress import PlainProgress
from canvas_robot.training.plain_run import PlainRun
from canvas_robot.training.plain_trainer import PlainTrainer, rate
from canvas_robot.training.run_folder import RunFolder, RunFolderError

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def make_plain(bridge_sample, declarations):
    """A function that makes the configuration of a small run; `key=value` overrides on top."""

    def make(*overrides: str) -> PlainTrainConfig:
        data = {
            "policy": "plain",
            "schema": str(declarations / "small.json"),
            "network": {"width": 8, "image_size": [32, 32], "binary": ["gripper"]},
            "shift": 2,
            "data": {
                "folder": str(bridge_sample),
                "holdout": 0.2,
                "holdout_windows": 4,
                "workers": 0,
            },
            "statistics": "bridge_v2.json",
            "steps": 4,
            "batch_size": 4,
            "ema": {"decay": 0.5},
            "log_every": 2,
            "checkpoint_every": 2,
            "evaluate_every": 100,
        }
        return config_of(with_overrides(data, overrides), "plain", PlainTrainConfig)

    return make


@pytest.fixture(scope="module")
def trained(make_plain, tmp_path_factory):
    """A run of four steps."""
    run = tmp_path_factory.mktemp("runs") / "run"
    run_plain_training(make_plain(f"run={run}"), QUIET)
    return run


@pytest.fixture
def run(trained, tmp_path):
    """A copy that a test may spoil; what config.yaml says of its place is passed over."""
    return shutil.copytree(trained, tmp_path / "run")


def parts_of(config: PlainTrainConfig, folder):
    """(model, data) of a configuration."""
    schema = CanvasSchema.from_json(config.schema)
    binding = load_binding(resolve_config("bindings", config.binding))
    data = open_plain_data(config, schema, binding, folder / "pictures", lambda *_: None)
    torch.manual_seed(config.seed)
    model = PlainModel(schema, binding, statistics_for(config, binding, data), config.network)
    return model, data


# ---------------------------------------------------------------- it learns


def test_two_episodes_are_learned_by_heart(make_plain, tmp_path):
    config = make_plain(
        "steps=250",
        "batch_size=16",
        "shift=0",
        "ema=off",
        "optimiser.lr=3e-3",
        "optimiser.weight_decay=0.0",
        "log_every=1000",
        "checkpoint_every=1000",
        "data.holdout=off",
    )
    model, data = parts_of(config, tmp_path)
    data = replace(data, train=data.train.part(0, 2))
    batch = data.train.read(data.train.draws(100, seed=0))
    objective = PlainObjective(model, shift=0)
    before = objective.losses(batch)["loss"].item()
    trainer = PlainTrainer(config, model, data, PlainRun(tmp_path), PlainProgress(QUIET))
    assert trainer.train() == 0
    with torch.no_grad():
        after = objective.losses(batch)["loss"].item()
        decided = model.to_units(model(model.encode(batch.frames, batch.instructions)))
    values, missing = batch.targets["action"]
    known = ~missing.numpy()
    error = np.abs(decided - values.numpy())[known].mean(axis=0)
    recorded = np.abs(values.numpy()[known] - values.numpy()[known].mean(axis=0)).mean(axis=0)
    assert after < 0.1 * before
    assert (error[:6] < 0.4 * recorded[:6]).all() and error[6] == 0


def test_pictures_are_decoded_once_and_are_those_that_the_policy_sees(make_plain, tmp_path):
    config = make_plain()
    _, data = parts_of(config, tmp_path)
    whole = BridgeV2(config.data.folder, config.data.split)
    episode, step = int(data.train.selection.episodes[3]), 2
    (window,) = data.train.reader.windows([Draw(episode, step)])
    shown = int(window.frames["visual"].stamps_ns[0] // 200_000_000) + 1  # the first is dropped
    expected = squash(whole.read(episode).image("image_0", shown), (32, 32))
    assert np.array_equal(window.frames["visual"].values[0], expected)
    (file,) = (tmp_path / "pictures").iterdir()
    written = file.stat().st_mtime_ns
    parts_of(config, tmp_path)
    assert file.stat().st_mtime_ns == written, "it is there already"


def test_pictures_that_are_too_many_are_refused_before_any_is_read(make_plain, tmp_path):
    with pytest.raises(PicturesError, match=r"pictures_gb: .* GB, expected at most 1e-05"):
        parts_of(make_plain("pictures_gb=1e-5"), tmp_path)
    assert not (tmp_path / "pictures").exists()


def test_a_file_of_other_pictures_is_refused(make_plain, tmp_path):
    config = make_plain()
    parts_of(config, tmp_path)
    (file,) = (tmp_path / "pictures").iterdir()
    np.save(file, np.zeros((3, 32, 32, 3), np.uint8))
    with pytest.raises(PicturesError, match=r"expected pictures \(.*\) uint8, got \(3, 32"):
        parts_of(config, tmp_path)
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(PicturesError, match="delete it, and it is made again"):
        parts_of(config, tmp_path)


# ---------------------------------------------------------------- what is minimised


def test_pictures_are_moved_whole_and_by_no_more_than_asked():
    random = np.random.default_rng(0)
    pictures = torch.from_numpy(random.integers(0, 256, (20, 2, 12, 10, 3), dtype=np.uint8))
    moved = shifted(pictures, 2, np.random.default_rng(1))
    padded = np.pad(pictures.numpy(), ((0, 0), (0, 0), (2, 2), (2, 2), (0, 0)), "edge")
    offsets = set()
    for sample, got in zip(padded, moved.numpy(), strict=True):
        places = [(y, x) for y in range(5) for x in range(5)]
        fits = [
            at for at in places if np.array_equal(sample[:, at[0] :, at[1] :][:, :12, :10], got)
        ]
        assert len(fits) == 1
        offsets |= set(fits)
    assert len(offsets) > 8
    assert torch.equal(shifted(pictures, 2, np.random.default_rng(1)), moved)


def test_steps_beyond_the_end_of_a_recording_weigh_nothing(make_plain, tmp_path):
    model, data = parts_of(make_plain(), tmp_path)
    episode = int(data.train.selection.episodes[0])
    last = int(data.train.selection.counts[0]) - 1
    batch = data.train.read([Draw(episode, last)])
    values, missing = batch.targets["action"]
    assert missing.tolist() == [[False, True, True, True]]
    loss = PlainObjective(model, 0).losses(batch)
    values[:, 1:] = 0.03
    assert PlainObjective(model, 0).losses(batch) == loss
    values[:, :1, 0] += 0.1
    assert PlainObjective(model, 0).losses(batch)["loss"] != loss["loss"]


def test_a_gripper_beyond_its_ends_is_refused(make_plain, tmp_path):
    model, data = parts_of(make_plain(), tmp_path)
    batch = data.train.read(data.train.draws(4, seed=0))
    batch.targets["action"].values[..., 6] = 1.5
    with pytest.raises(ObjectiveError, match="expected gripper between"):
        PlainObjective(model, 0).losses(batch)


def test_the_rate_rises_then_falls_with_what_is_used_up():
    config = OptimiserConfig(lr=1.0, warmup_steps=10, min_lr_ratio=0.1)
    assert [rate(config, step, 0.0) for step in (0, 4, 9)] == [0.1, 0.5, 1.0]
    assert rate(config, 50, 0.5) == pytest.approx(0.55)
    assert rate(config, 99, 1.2) == pytest.approx(0.1)
    constant = msgspec.structs.replace(config, schedule="constant")
    assert rate(constant, 99, 0.9) == 1.0


# ---------------------------------------------------------------- a run


def test_a_run_that_was_stopped_ends_as_one_that_was_not(make_plain, tmp_path):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    constant = ("optimiser.schedule=constant", "log_every=1")
    run_plain_training(make_plain(f"run={whole}", *constant), QUIET)
    run_plain_training(make_plain(f"run={halves}", *constant, "steps=2"), QUIET)
    run_plain_training(PlainRun.open(halves).config(("steps=4",)), QUIET)
    for name in ("trained", "average", "moments"):
        files = [
            p / "checkpoints" / "step_00000004" / f"{name}.safetensors" for p in (whole, halves)
        ]
        one, other = map(load_file, files)
        assert set(one) == set(other) and all(torch.equal(one[n], other[n]) for n in one), name


def test_a_signal_ends_a_run_with_a_checkpoint_of_its_step(make_plain, tmp_path):
    folder = tmp_path / "run"

    def interrupt(_):
        if not (folder / "checkpoints" / "step_00000003").is_dir():
            os.kill(os.getpid(), signal.SIGINT)

    ending = run_plain_training(make_plain(f"run={folder}", "steps=8"), QUIET, interrupt)
    assert (ending.step, ending.signal, ending.policy) == (3, signal.SIGINT, None)
    assert PlainRun.open(folder).checkpoints.steps() == [2, 3]
    assert not (folder / "export").exists()


def test_time_ends_a_run_too(make_plain, tmp_path):
    config = make_plain("steps=off", "minutes=0.01", f"run={tmp_path / 'run'}")
    ending = run_plain_training(config, QUIET)
    assert ending.step > 0 and ending.policy.name == f"step_{ending.step:08d}"
    assert load_policy(ending.policy).trained
    assert read_record(ending.policy).steps == ending.step


def test_the_exported_policy_is_the_average_of_the_run(trained):
    policy = load_policy(trained / "export" / "step_00000004")
    theirs = load_file(trained / "checkpoints" / "step_00000004" / "average.safetensors")
    own = policy.model.own_parameters()
    assert set(own) == set(theirs) and all(torch.equal(own[n], theirs[n]) for n in own)
    assert policy.trained and policy.binding.robot.anchor == "measured", "composed actions"


def test_what_is_exported_says_what_it_is(trained, tmp_path):
    folder, record = export_plain(trained, tmp_path / "out", step=2, average=False)
    facts = PlainRun.open(trained).facts()
    assert (record.step, record.steps, record.weights, record.episodes) == (2, 4, "last", 20)
    assert record.fingerprint == facts.data["fingerprint"] and record == read_record(folder)
    config = json.loads((folder / "config.json").read_text())
    assert (config["kind"], config["actions"], config["data"]) == (
        "plain",
        "composed",
        record.fingerprint,
    )
    with pytest.raises(ExportError, match=r"step: expected one of \[2, 4\], got 3"):
        export_plain(trained, tmp_path / "other", step=3)
    with pytest.raises(ExportError, match="expected a new or empty folder"):
        export_plain(trained, folder)


def test_the_run_leaves_what_every_run_leaves(trained):
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4]
    assert set(rows[-1]["parts"]) == {"motion", "binary"} == set(rows[-1]["held_out_parts"])
    facts = PlainRun.open(trained).facts()
    assert facts.data["episodes"] == 20 and facts.held_out["episodes"] == 5
    assert facts.frozen == 0 and facts.trained > 1000


def test_a_report_is_drawn_of_it(run):
    page = write_report_of(PlainRun.open(run)).read_text()
    assert "Missing" not in page and "Curves of the run" in page
    assert "Not finished" not in page


def test_another_configuration_is_another_run(make_plain, run):
    with pytest.raises(RunFolderError, match=r"shift: 2, now 3; .*train-plain --resume"):
        run_plain_training(make_plain(f"run={run}", "shift=3"), QUIET)


def test_a_folder_with_something_else_in_it_is_left_alone(make_plain, tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(RunFolderError, match=r"holds other files \(note\.txt\)"):
        run_plain_training(make_plain(f"run={tmp_path}"), QUIET)


def test_pictures_of_a_start_that_failed_are_made_anew(make_plain, tmp_path):
    (tmp_path / "pictures").mkdir()
    np.save(tmp_path / "pictures" / "train_image_0.npy", np.zeros((3, 8, 8, 3), np.uint8))
    assert run_plain_training(make_plain(f"run={tmp_path}", "steps=1"), QUIET).step == 1


@pytest.mark.parametrize("name", ["trained", "average", "moments"])
def test_a_damaged_checkpoint_is_refused_by_its_file(run, name):
    path = run / "checkpoints" / "step_00000004" / f"{name}.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointFileError, match=rf"{name}\.safetensors: expected .* bytes"):
        run_plain_training(PlainRun.open(run).config(("steps=6",)), QUIET)


def test_a_run_of_another_kind_is_refused_by_either(make_config, trained, tmp_path):
    with pytest.raises(ConfigError, match="unknown key policy"):
        RunFolder.open(trained).config()
    (tmp_path / "config.yaml").write_text(make_config().to_yaml())
    with pytest.raises(RunFolderError, match="expected the folder of a plain policy's run"):
        PlainRun.open(tmp_path)


# ---------------------------------------------------------------- its configuration


def test_a_configuration_comes_back_from_its_file(make_plain, tmp_path):
    config = make_plain("minutes=2", "data.rules.gripper=raw")
    (tmp_path / "c.yaml").write_text(config.to_yaml())
    assert load_config(tmp_path / "c.yaml", (), PlainTrainConfig) == config


@pytest.mark.parametrize(
    "override, text",
    [
        ("policy=canvas", "policy: expected plain, got 'canvas'"),
        ("steps=off", "steps: expected how many, or minutes, got neither"),
        ("data.latents=folder", "data.latents: a plain policy sees pictures"),
        ("network.width=2", "network.width: expected a whole number"),
        ("loops=3", "unknown key loops"),
        ("network.widht=3", "unknown key network.widht; did you mean width?"),
        ("minutes=-1", "minutes: expected a number"),
        ("optimiser.warmup_steps=4", "optimiser.warmup_steps: expected fewer than the 4 steps"),
    ],
)
def test_a_mistake_is_named_by_its_key(make_plain, override, text):
    with pytest.raises(ConfigError) as error:
        make_plain(override)
    assert str(error.value).startswith(f"plain: {text}")


def test_what_is_used_up_first_ends_the_run(make_plain):
    config = make_plain("steps=100", "minutes=2")
    assert config.used(50, 0.0) == 0.5 and config.used(10, 60.0) == 0.5
    assert make_plain("steps=off", "minutes=2").used(10**8, 12.0) == 0.1
