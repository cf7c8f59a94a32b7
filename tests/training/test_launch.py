"""Laws of a run: what it writes, that it can stop anywhere, and goes on as if it never had."""

import json
import re
import shutil
import signal

import msgspec
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from canvas_robot.signals import Statistics, load_statistics, save_statistics
from canvas_robot.training.launch import run_training
from canvas_robot.training.run_folder import RunFolder, RunFolderError
from canvas_robot.training.trainer import DivergedError


def same_state(one, other) -> None:
    """Two checkpoint folders hold the same state of the training, bit for bit."""
    assert sorted(p.name for p in one.iterdir()) == sorted(p.name for p in other.iterdir())
    for path in one.iterdir():
        twin = other / path.name
        if path.suffix == ".safetensors":
            ours, theirs = load_file(path), load_file(twin)
            assert all(torch.equal(ours[name], theirs[name]) for name in {*ours, *theirs})
        elif path.suffix in (".bin", ".pkl"):
            assert plain(torch.load(path, weights_only=False)) == plain(
                torch.load(twin, weights_only=False)
            )
        elif path.name.startswith("process_"):
            ours, theirs = json.loads(path.read_text()), json.loads(twin.read_text())
            assert ours["loader"] == theirs["loader"]
            assert ours["sums"]["values"] == theirs["sums"]["values"]


def plain(value):
    """A state with its tensors and arrays as bytes, to compare exactly."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value.numpy().tobytes() if isinstance(value, torch.Tensor) else str(value)


class InterruptedAt:
    """A file that a console writes to; the process gets a signal when a text is written."""

    def __init__(self, text: str, number: int) -> None:
        self._text, self._number = text, number

    def write(self, text: str) -> None:
        if self._text in text:
            signal.raise_signal(self._number)

    def flush(self) -> None:
        pass


# ---------------------------------------------------------------- what a run leaves behind


@pytest.fixture(scope="module")
def averaging():
    """Overrides: an average, and a curriculum."""
    return ("ema.decay=0.9", "curriculum.warmup_fraction=0.2")


@pytest.fixture(scope="module")
def finished(make_config, averaging, tmp_path_factory):
    """A run of four steps."""
    run = tmp_path_factory.mktemp("runs") / "finished"
    config = make_config(f"run={run}", *averaging)
    ending = run_training(config, Console(quiet=True))
    assert (ending.step, ending.signal) == (4, 0)
    return run


def test_a_run_leaves_its_declarations_records_and_checkpoints(finished):
    names = {path.name for path in finished.iterdir() if not path.name.startswith(".")}
    assert names == {
        "config.yaml",
        "schema.json",
        "binding.yaml",
        "statistics.json",
        "run.json",
        "metrics.jsonl",
        "tensorboard",
        "checkpoints",
    }
    assert [p.name for p in sorted((finished / "checkpoints").iterdir())] == [
        "step_00000002",
        "step_00000004",
    ]
    assert any((finished / "tensorboard").glob("events.out.tfevents.*"))


def test_run_json_says_what_made_the_run(finished):
    facts = RunFolder.open(finished).facts()
    (start,) = facts.started
    assert start["step"] == 0 and start["processes"] == 1 and start["device"] == "cpu"
    assert start["git"] is None or re.fullmatch("[0-9a-f]{40}", start["git"]["commit"])
    assert start["versions"]["torch"] == torch.__version__
    assert facts.backbone["source"] == "tiny" and len(facts.backbone["sha256"]["vae"]) == 64
    assert facts.data["episodes"] == 20 and facts.held_out["episodes"] == 5
    assert facts.data["windows"] == 20 * 8  # of 10 steps the first and the last have no action
    assert facts.data["left_out"]["blank instruction"] == 0
    assert facts.actions == "composed"
    assert 0 < facts.trained < facts.frozen


def test_metrics_have_a_row_for_every_logged_step(finished, rows_of):
    rows = rows_of(finished)
    assert [row["step"] for row in rows] == [2, 4]
    assert [row["loops"] for row in rows] == [1, 2]
    assert all(row["parts"] == {"action": row["loss"]} for row in rows)
    assert "held_out" not in rows[0] and rows[1]["held_out"] > 0


def test_frozen_weights_are_in_no_checkpoint(finished):
    facts = RunFolder.open(finished).facts()
    newest = finished / "checkpoints" / "step_00000004"
    assert sum(t.numel() for t in load_file(newest / "trained.safetensors").values()) == (
        facts.trained
    )
    size = sum(path.stat().st_size for path in newest.iterdir())
    assert size < 5 * 4 * facts.trained + 200_000  # weights, average, two moments


# ---------------------------------------------------------------- stopping and going on


def test_a_run_that_was_stopped_goes_on_bitwise_as_if_it_never_had(
    finished, averaging, make_config, tmp_path, quiet, rows_of
):
    run = tmp_path / "run"
    config = make_config(f"run={run}", *averaging)
    before = signal.getsignal(signal.SIGTERM)
    ending = run_training(config, Console(file=InterruptedAt("step 2/4", signal.SIGTERM)))
    assert (ending.step, ending.signal) == (3, signal.SIGTERM)  # the step under way is finished
    assert (run / "checkpoints" / "step_00000003").is_dir()
    assert signal.getsignal(signal.SIGTERM) is before
    assert run_training(config, quiet).step == 4
    assert rows_of(run) == rows_of(finished)
    same_state(run / "checkpoints" / "step_00000004", finished / "checkpoints" / "step_00000004")


def test_a_run_that_was_killed_goes_on_bitwise_as_if_it_never_had(
    make_config, video, tmp_path, quiet, rows_of
):
    """What is on disk here is what it leaves that is killed at any moment after step 1.

    All of the backbone trains, noise is drawn in every step, and steps are of several batches.
    """
    settings = (
        *video,
        "mode=pretrain",
        "freeze=none",
        "ema.decay=0.9",
        "curriculum={}",
        "accumulate=2",
        "steps=3",
        "log_every=2",
        "evaluate_every=2",
        "checkpoint_every=1",
        "keep_checkpoints=3",
    )
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    run_training(make_config(*settings, f"run={unbroken}"), quiet)
    shutil.copytree(unbroken, broken)
    for step in (2, 3):
        shutil.rmtree(broken / "checkpoints" / f"step_0000000{step}")
    (broken / "checkpoints" / ".step_00000002.part").mkdir()
    with (broken / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 4, "epo')  # what a crash left of a row
    assert run_training(make_config(*settings, f"run={broken}"), quiet).step == 3
    assert rows_of(broken) == rows_of(unbroken)
    for step in (2, 3):
        name = f"step_0000000{step}"
        same_state(broken / "checkpoints" / name, unbroken / "checkpoints" / name)
    assert [start["step"] for start in RunFolder.open(broken).facts().started] == [0, 1]


def test_a_finished_run_has_nothing_left_to_do(finished, quiet, rows_of, tmp_path):
    run = tmp_path / "copy"
    shutil.copytree(finished, run)
    assert run_training(RunFolder.open(run).config(), quiet).step == 4
    assert rows_of(run) == rows_of(finished)
    longer = run_training(RunFolder.open(run).config(("steps=5",)), quiet)
    assert longer.step == 5 and RunFolder.open(run).config().steps == 5


def test_another_configuration_is_no_resumption(finished, quiet):
    config = RunFolder.open(finished).config(("optimiser.lr=1e-5", "log_every=1"))
    with pytest.raises(RunFolderError) as error:
        run_training(config, quiet)
    assert "holds a run with another configuration: optimiser.lr: 0.0003, now 1e-05;" in str(
        error.value
    )
    assert f"canvas-robot train --resume {finished}" in str(error.value)


def test_other_data_are_no_resumption(finished, quiet, tmp_path):
    run = tmp_path / "copy"
    shutil.copytree(finished, run)
    facts = json.loads((run / "run.json").read_text())
    facts["data"]["fingerprint"] = "0" * 64
    (run / "run.json").write_text(json.dumps(facts))
    with pytest.raises(RunFolderError, match=f"made with another data: {'0' * 64}, found"):
        run_training(RunFolder.open(run).config(), quiet)


@pytest.mark.parametrize("name", ["schema.json", "binding.yaml", "statistics.json"])
def test_declarations_that_were_edited_are_no_resumption(finished, quiet, tmp_path, name):
    run = tmp_path / "copy"
    shutil.copytree(finished, run)
    (run / name).write_text((run / name).read_text() + "\n")
    with pytest.raises(RunFolderError, match=f"{name}: changed since the run wrote it"):
        run_training(RunFolder.open(run).config(), quiet)


def test_an_edited_configuration_is_no_resumption(finished, quiet, tmp_path):
    run = tmp_path / "copy"
    shutil.copytree(finished, run)
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(re.sub(r"lr: \S+", "lr: 0.5", text))
    with pytest.raises(RunFolderError, match=r"config\.yaml: edited since the run wrote it"):
        run_training(RunFolder.open(run).config(), quiet)


def test_more_steps_have_the_rates_of_the_longer_schedule(make_config, quiet, tmp_path):
    settings = ("optimiser.schedule=cosine", "log_every=1", "checkpoint_every=2")
    short, whole = tmp_path / "short", tmp_path / "whole"
    run_training(make_config(f"run={short}", "steps=3", *settings), quiet)
    run_training(RunFolder.open(short).config(("steps=6",)), quiet)
    run_training(make_config(f"run={whole}", "steps=6", *settings), quiet)
    rates = [
        [json.loads(line)["lr"] for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (short, whole)
    ]
    assert len(rates[0]) == 6 and rates[0][3:] == rates[1][3:]


def test_a_run_is_drawn_at_each_checkpoint_and_at_the_end(make_config, quiet, tmp_path):
    drawn = []

    def draw(folder):
        drawn.append(len(list((folder / "checkpoints").glob("step_*"))))

    run_training(make_config(f"run={tmp_path / 'run'}"), quiet, draw)
    assert drawn == [1, 2, 2]


def test_a_folder_with_other_files_is_left_alone(make_config, quiet, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunFolderError, match=r"holds other files \(thesis.tex\)"):
        run_training(make_config(f"run={tmp_path}"), quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_is_trained_in_by_one_process_at_a_time(finished, quiet):
    with RunFolder.open(finished).alone():
        with pytest.raises(RunFolderError, match="another process trains in it"):
            run_training(RunFolder.open(finished).config(), quiet)


# ---------------------------------------------------------------- what must not go on


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_a_loss_that_is_not_finite_stops_before_the_update(make_config, quiet, tmp_path):
    """Statistics of a wrong unit: a spread so small that normalised targets overflow."""
    run = tmp_path / "run"
    run_training(make_config(f"run={run}", "steps=2"), quiet)
    statistics = load_statistics(run / "statistics.json")
    spread = (*statistics["action"].std[:6], 1e-40)
    statistics["action"] = msgspec.structs.replace(statistics["action"], std=spread)
    save_statistics(statistics, run / "statistics.json")
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(facts | {"declarations": {}}))  # as if made so
    weights = (run / "checkpoints" / "step_00000002" / "trained.safetensors").read_bytes()
    with pytest.raises(DivergedError) as error:
        run_training(RunFolder.open(run).config(("steps=4",)), quiet)
    said = str(error.value)
    assert said.startswith("step 3: expected finite losses and gradients; this step changed")
    assert f"the last checkpoint is {run / 'checkpoints' / 'step_00000002'}" in said
    assert re.search(r"loss (inf|nan), action (inf|nan), grad_norm", said)
    assert len(re.findall(r"bridge_dataset/train/\d+ step \d", said)) == 2
    assert [p.name for p in (run / "checkpoints").iterdir()] == ["step_00000002"]
    kept = run / "checkpoints" / "step_00000002" / "trained.safetensors"
    assert kept.read_bytes() == weights


def test_statistics_of_the_data_are_computed_and_stored(make_config, quiet, tmp_path):
    run = tmp_path / "run"
    run_training(make_config(f"run={run}", "steps=1", "statistics=data"), quiet)
    found = load_statistics(run / "statistics.json")
    assert set(found) == {"state", "action"} and isinstance(found["state"], Statistics)
    assert found["state"].count == 20 * 8


def test_loss_goes_down_on_the_real_sample(make_config, quiet, tmp_path, rows_of):
    """On one episode, eight windows, which two steps show: 0.61 at first, then 0.43."""
    config = make_config(
        f"run={tmp_path / 'run'}",
        "steps=30",
        "loops=1",
        "batch_size=4",
        "log_every=2",
        "checkpoint_every=100",
        "optimiser={lr: 3e-3, schedule: constant}",
        "data.holdout=0.96",
    )
    run_training(config, quiet)
    losses = [row["loss"] for row in rows_of(tmp_path / "run")]
    assert losses[-1] < 0.8 * losses[0]
