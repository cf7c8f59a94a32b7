"""Laws of the folder: nothing that ended is lost, and nothing is mixed with other settings."""

import json

import msgspec
import numpy as np
import pytest

from canvas_robot.evaluation.eval_film import Camera
from canvas_robot.evaluation.eval_folder import (
    EvalFolder,
    EvalFolderError,
    digest_of_settings,
)
from canvas_robot.evaluation.eval_session import EpisodeRow
from canvas_robot.evaluation.eval_settings import EvalSettings

SETTINGS = EvalSettings(envs=("A-v0",), policy="zero", episodes=(0, 1, 2))
FILES = {"config.json": "a" * 64}
ROW = EpisodeRow(
    env="A-v0", number=0, variant=0, episode_id=None, seed=0, instruction="go", told="gö",
    success_last=True, success_any=True, success_held=None, steps=4, steps_to_success=3,
    terminated=True, failure="", stages={"grasped": True}, reward=None, action_change=None,
    decision_ms=[1.0], seconds=0.1,
)  # fmt: skip


def row(number: int, **changes) -> EpisodeRow:
    return msgspec.structs.replace(ROW, number=number, **changes)


@pytest.fixture
def folder(tmp_path):
    folder = EvalFolder(tmp_path / "run")
    folder.begin(SETTINGS, FILES, {"workers": 1}, resume=False)
    return folder


def keep(folder, *rows, process=0, processes=1):
    with folder.appending(process, processes) as append:
        for each in rows:
            append(each)


def test_what_was_kept_is_read_back(folder):
    keep(folder, row(2), row(0))
    assert folder.rows() == {("A-v0", 2, 0): row(2), ("A-v0", 0, 0): row(0)}


def test_a_row_is_in_the_file_before_the_next_one_comes(folder):
    with folder.appending(0, 1) as append:
        append(row(0))
        assert set(EvalFolder(folder.path).rows()) == {("A-v0", 0, 0)}


@pytest.mark.parametrize("cut", [1, 10, 100])
def test_a_line_that_a_killed_process_left_is_taken_away(folder, cut):
    keep(folder, row(0), row(1))
    path = folder.path / "episodes.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    assert set(folder.rows()) == {("A-v0", 0, 0)}
    keep(folder, row(2))
    assert set(folder.rows()) == {("A-v0", 0, 0), ("A-v0", 2, 0)}


def test_a_line_that_is_no_episode_is_named(folder):
    keep(folder, row(0))
    path = folder.path / "episodes.jsonl"
    path.write_bytes(path.read_bytes() + b'{"env": 3}\n')
    with pytest.raises(EvalFolderError, match=r"episodes.jsonl: line 2: expected an episode"):
        folder.rows()


def test_processes_write_a_file_each_and_all_are_merged_in_order(folder):
    keep(folder, row(0), row(2), process=0, processes=2)
    keep(folder, row(1), process=1, processes=2)
    found = folder.rows()
    folder.merge([found["A-v0", number, 0] for number in range(3)])
    assert [path.name for path in folder.path.glob("*.jsonl")] == ["episodes.jsonl"]
    assert list(folder.rows().values()) == [row(0), row(1), row(2)]


def test_an_evaluation_is_not_begun_over_another(folder):
    keep(folder, row(0))
    with pytest.raises(EvalFolderError, match=r"holds an evaluation; go on with it: --resume"):
        folder.begin(SETTINGS, FILES, {}, resume=False)


def test_one_that_has_no_episode_yet_is_begun_anew(folder):
    other = msgspec.structs.replace(SETTINGS, seed=5)
    folder.begin(other, FILES, {}, resume=False)
    assert folder.record().settings == other and len(folder.record().started) == 1


def test_going_on_adds_a_start(folder):
    folder.begin(SETTINGS, FILES, {"workers": 2}, resume=True)
    assert folder.record().started == [{"workers": 1}, {"workers": 2}]
    assert folder.record().sha256 == digest_of_settings(SETTINGS, FILES)


@pytest.mark.parametrize(
    "changes, files, text",
    [
        ({"seed": 1}, FILES, "seed: 0, now 1"),
        ({"policy": "random", "max_steps": 3}, FILES, "policy: 'zero', now 'random'; max_steps"),
        ({"episodes": (0, 1, 2, 3)}, FILES, "episodes: 0-2, now 0-3"),
        ({}, {"config.json": "b" * 64}, "config.json: another file than then"),
        ({}, {}, "config.json: another file than then"),
    ],
)
def test_other_settings_and_files_are_named(folder, changes, files, text):
    keep(folder, row(0))
    other = msgspec.structs.replace(SETTINGS, **changes)
    with pytest.raises(EvalFolderError, match=text):
        folder.begin(other, files, {}, resume=True)


def test_settings_that_were_edited_are_refused(folder):
    path = folder.path / "settings.json"
    held = json.loads(path.read_text())
    held["settings"]["seed"] = 3
    path.write_text(json.dumps(held))
    with pytest.raises(EvalFolderError, match=r"settings.json: edited since"):
        folder.record()


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(EvalFolderError, match="expected a new folder or that of an evaluation"):
        EvalFolder(tmp_path).begin(SETTINGS, FILES, {}, resume=True)
    with pytest.raises(EvalFolderError, match=r"expected the folder of an evaluation, with sett"):
        EvalFolder(tmp_path).record()


def test_two_runs_do_not_write_at_the_same_time(folder):
    with folder.alone(), pytest.raises(EvalFolderError, match="another evaluation runs in it"):
        with EvalFolder(folder.path).alone():
            pass


def test_films_are_kept_until_they_are_forgotten(folder):
    camera = Camera(5.0)
    camera.take(np.zeros((6, 8, 3), np.uint8))
    other = row(0, variant=1)
    folder.save_film(row(0), camera.film())
    assert folder.films([row(0), row(1), other]) == [(row(0), camera.film())]
    folder.forget_films()
    assert folder.films([row(0)]) == []
