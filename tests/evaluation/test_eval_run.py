"""Laws of an evaluation: it goes on with exactly what is missing; shares make up the whole."""

import json

import pytest

from canvas_robot.evaluation.eval_env import EvalEnvError
from canvas_robot.evaluation.eval_folder import EvalFolder, EvalFolderError
from canvas_robot.evaluation.eval_run import Share, evaluate, launched
from canvas_robot.evaluation.eval_settings import EvalSettings

CLOCKS = {"decision_ms_p50", "seconds"}


def settings(*envs, **changes) -> EvalSettings:
    return EvalSettings(**{"envs": envs, "policy": "random", "episodes": (3, 1, 2), **changes})


class Listener:
    """Remembers which episodes it was told of."""

    def __init__(self, most=99):
        self.heard, self.most = [], most

    def __call__(self, rows, total):
        self.heard.append((rows[-1].number, len(rows), total))
        if len(self.heard) == self.most:
            raise KeyboardInterrupt


def episodes(report):
    return [{k: v for k, v in row.items() if k not in CLOCKS} for row in report["episodes"]]


@pytest.fixture(scope="module")
def whole(made_up_envs, tmp_path_factory):
    """A run without interruption: its report, its folder, and what it told."""
    folder, listener = tmp_path_factory.mktemp("runs") / "whole", Listener()
    report = evaluate(settings("made_up_envs:made_up/Line-v0"), folder, told=listener)
    return report, folder, listener


def test_each_episode_is_told_and_reported_in_its_order(whole):
    report, _, listener = whole
    assert listener.heard == [(3, 1, 3), (1, 2, 3), (2, 3, 3)]
    assert [row["number"] for row in report["episodes"]] == [3, 1, 2]


def test_the_folder_holds_the_whole_report_and_no_pictures_on_their_own(whole):
    report, folder, _ = whole
    assert json.loads((folder / "report.json").read_text()) == report
    assert sorted(path.name for path in folder.iterdir()) == [
        ".lock", "episodes.jsonl", "report.html", "report.json", "settings.json", "videos.mp4",
    ]  # fmt: skip


@pytest.mark.parametrize("ended", [1, 2, 3])
def test_a_run_that_was_interrupted_goes_on_with_what_is_missing(line, tmp_path, whole, ended):
    with pytest.raises(KeyboardInterrupt):
        evaluate(settings(line), tmp_path / "run", told=Listener(most=ended))
    listener = Listener()
    report = evaluate(settings(line), tmp_path / "run", resume=True, told=listener)
    assert [number for number, *_ in listener.heard] == [3, 1, 2][ended:]
    assert episodes(report) == episodes(whole[0])
    assert (tmp_path / "run" / "videos.mp4").is_file()
    assert len(report["started"]) == 2


def test_a_finished_run_is_reported_again_without_an_episode(line, tmp_path):
    evaluate(settings(line), tmp_path / "run")
    film = (tmp_path / "run" / "videos.mp4").read_bytes()
    listener = Listener()
    report = evaluate(settings(line), tmp_path / "run", resume=True, told=listener)
    assert listener.heard == [] and len(report["episodes"]) == 3
    assert (tmp_path / "run" / "videos.mp4").read_bytes() == film
    assert "video/mp4" in (tmp_path / "run" / "report.html").read_text()


def test_a_run_is_not_begun_twice_nor_resumed_with_other_settings(line, tmp_path):
    evaluate(settings(line), tmp_path / "run", video=False)
    with pytest.raises(EvalFolderError, match="--resume"):
        evaluate(settings(line), tmp_path / "run")
    with pytest.raises(EvalFolderError, match="seed: 0, now 1"):
        evaluate(settings(line, seed=1), tmp_path / "run", resume=True)


@pytest.mark.parametrize("count", [2, 4])
def test_shares_make_up_the_whole(line, tmp_path, whole, count):
    """As processes do that wait for one another: the first one comes last here."""
    folder = EvalFolder(tmp_path / "run")
    folder.begin(settings(line), {}, {"versions": {}}, resume=False)
    told = Listener()
    for index in reversed(range(count)):
        report = evaluate(
            settings(line),
            folder.path,
            resume=True,
            told=told,
            share=Share(index, count),
        )
        assert (report is None) == (index > 0)
    assert episodes(report) == episodes(whole[0])
    assert len(told.heard) == 3
    assert [path.name for path in folder.path.glob("*.jsonl")] == ["episodes.jsonl"]


def test_no_video_where_none_is_wanted(line, tmp_path):
    evaluate(settings(line), tmp_path / "run", video=False)
    assert not list((tmp_path / "run").glob("*.mp4"))
    assert "<video" not in (tmp_path / "run" / "report.html").read_text()


def test_an_unknown_environment_leaves_no_folder(line, tmp_path):
    with pytest.raises(EvalEnvError, match="env 'Dance-v0': not registered"):
        evaluate(settings(line, "Dance-v0"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_alone_there_is_one_share():
    with launched() as share:
        assert (share.index, share.count, share.first) == (0, 1, True)
        assert share.agree("runs/eval/now") == "runs/eval/now"
