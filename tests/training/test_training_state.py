"""Laws of a training's state: nothing in a checkpoint is executed, and only its own is accepted."""

import json
import os
import pickle
import shutil

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from canvas_robot.training.checkpoints import MANIFEST, CheckpointFileError, _record
from canvas_robot.training.parts import build_parts
from canvas_robot.training.progress import TrainingProgress
from canvas_robot.training.run_folder import RunFolder
from canvas_robot.training.sharing import make_accelerator
from canvas_robot.training.trainer import Trainer

FILES = (
    "trained.safetensors",
    "average.safetensors",
    "optimizer.bin",
    "scheduler.bin",
    "random_states_0.pkl",
    "process_0.json",
)


class Hostile:
    """To unpickle it makes a folder."""

    def __init__(self, canary) -> None:
        self._canary = canary

    def __reduce__(self):
        return (os.mkdir, (str(self._canary),))


@pytest.fixture(scope="module")
def trainer(make_config, tmp_path_factory):
    """A trainer with one checkpoint, of step 0, that was never trained."""
    config = make_config("ema.decay=0.9", "data.holdout=off")
    accelerator = make_accelerator(config)
    parts = build_parts(config, accelerator)
    run = RunFolder(tmp_path_factory.mktemp("run"))
    shown = TrainingProgress(Console(quiet=True), 1, shown=False)
    trainer = Trainer(parts, accelerator, run, False, shown)
    trainer.save()
    return trainer


@pytest.fixture
def checkpoint(trainer):
    """The checkpoint's folder; it is put back afterwards."""
    (folder,) = trainer._run.checkpoints.root.iterdir()
    kept = folder.parent.with_name("kept")
    shutil.copytree(folder, kept)
    yield folder
    shutil.rmtree(folder)
    kept.rename(folder)


def vouch(folder):
    """Makes the manifest agree with the files as they are now: nobody but the reader can tell."""
    data = json.loads((folder / MANIFEST).read_text())
    for name in data["files"]:
        record = _record(folder / name)
        data["files"][name] = {"bytes": record.bytes, "sha256": record.sha256}
    (folder / MANIFEST).write_text(json.dumps(data))


def write_pickle(value, path):
    path.write_bytes(pickle.dumps(value))


def test_the_hostile_file_does_what_it_must_not(tmp_path):
    pickle.loads(pickle.dumps(Hostile(tmp_path / "canary")))
    assert (tmp_path / "canary").exists()


def test_a_checkpoint_holds_these_files_and_is_read_back(trainer, checkpoint):
    names = {path.name for path in checkpoint.iterdir()}
    assert names == {*FILES, MANIFEST}
    trainer.resume()


@pytest.mark.parametrize("name", (*FILES, MANIFEST))
@pytest.mark.parametrize("write", [write_pickle, torch.save], ids=["pickle", "torch.save"])
def test_a_hostile_file_is_refused_by_name_and_not_executed(
    trainer, checkpoint, tmp_path, name, write
):
    canary = tmp_path / "canary"
    write(Hostile(canary), checkpoint / name)
    if name != MANIFEST:
        vouch(checkpoint)
    with pytest.raises(CheckpointFileError) as error:
        trainer.resume()
    assert str(checkpoint / name) in str(error.value)
    assert not canary.exists()


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_refused_by_name_even_if_the_manifest_agrees(trainer, checkpoint, name):
    whole = (checkpoint / name).read_bytes()
    (checkpoint / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointFileError, match=f"{name}: expected {len(whole):,} bytes"):
        trainer.resume()
    vouch(checkpoint)
    with pytest.raises(CheckpointFileError, match=name):
        trainer.resume()


def test_weights_of_another_model_are_refused(trainer, checkpoint):
    path = checkpoint / "trained.safetensors"
    weights = load_file(path)
    name = next(iter(weights))
    for changed, said in (
        ({k: v for k, v in weights.items() if k != name}, f"of another model: missing \\['{name}'"),
        (weights | {"stranger": torch.zeros(1)}, r"unknown \['stranger'\]"),
        (weights | {name: torch.zeros(3)}, r"expected .* got \(3,\) torch.float32"),
        (weights | {name: weights[name].half()}, "got .* torch.float16"),
        (weights | {name: weights[name] * torch.nan}, "expected finite numbers"),
    ):
        save_file(changed, path)
        vouch(checkpoint)
        with pytest.raises(CheckpointFileError, match=said):
            trainer.resume()


def test_moments_of_another_model_are_refused(trainer, checkpoint):
    """They are only looked at when they are used: torch loads them whatever their shapes."""
    path = checkpoint / "optimizer.bin"
    state = torch.load(path, weights_only=True)
    state["state"][0] = {
        "step": torch.tensor(1.0),
        "exp_avg": torch.zeros(5),
        "exp_avg_sq": torch.zeros(5),
    }
    torch.save(state, path)
    vouch(checkpoint)
    with pytest.raises(CheckpointFileError, match="moments of other shapes: "):
        trainer.resume()
    torch.save({"state": {}, "param_groups": [{"params": [0]}]}, path)
    vouch(checkpoint)
    with pytest.raises(CheckpointFileError, match="expected groups of"):
        trainer.resume()
    torch.save([1, 2], path)
    vouch(checkpoint)
    with pytest.raises(CheckpointFileError, match="expected the state of an AdamW"):
        trainer.resume()


@pytest.mark.parametrize("change", [{"betas": (5.0, 5.0)}, {"eps": float("nan")}])
def test_settings_of_another_optimiser_are_refused(trainer, checkpoint, change):
    path = checkpoint / "optimizer.bin"
    state = torch.load(path, weights_only=True)
    state["param_groups"][0] |= change
    torch.save(state, path)
    vouch(checkpoint)
    with pytest.raises(CheckpointFileError, match=r"optimizer\.bin: expected finite moments and"):
        trainer.resume()


@pytest.mark.parametrize("place", [{"_step_count": "x"}, {"last_epoch": 10**30}])
def test_the_place_of_no_schedule_is_refused(trainer, checkpoint, place):
    path = checkpoint / "scheduler.bin"
    torch.save(torch.load(path, weights_only=True) | place, path)
    vouch(checkpoint)
    with pytest.raises(CheckpointFileError, match=r"scheduler\.bin: expected the place of a"):
        trainer.resume()


def test_random_numbers_that_cannot_be_set_are_refused(trainer, checkpoint):
    """Accelerate would go on with others, and only note it in its log."""
    path = checkpoint / "random_states_0.pkl"
    torch.save({"step": 0, "random_state": "none"}, path)
    vouch(checkpoint)
    with pytest.raises(CheckpointFileError, match=r"_0\.pkl: expected the states of"):
        trainer.resume()


def test_a_place_in_other_data_is_refused(trainer, checkpoint):
    path = checkpoint / "process_0.json"
    data = json.loads(path.read_text())
    data["loader"]["of"]["windows"] = 1
    path.write_text(json.dumps(data))
    vouch(checkpoint)
    with pytest.raises(CheckpointFileError, match=r"process_0\.json: .*windows"):
        trainer.resume()


@pytest.mark.parametrize(
    "field, value, said",
    [
        ("processes", 2, "with processes 2, this one has 1"),
        ("data_fingerprint", "x", "with data x"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(trainer, checkpoint, field, value, said):
    data = json.loads((checkpoint / MANIFEST).read_text())
    (checkpoint / MANIFEST).write_text(json.dumps(data | {field: value}))
    with pytest.raises(CheckpointFileError, match=said):
        trainer.resume()
