"""The report says how often, how sure, on what, and by which rule; for people and programs."""

import msgspec
import pytest

from canvas_robot.evaluation.eval_folder import EvalFolder, EvalRecord, digest_of_settings
from canvas_robot.evaluation.eval_page import write_eval_report
from canvas_robot.evaluation.eval_report import envs_of, report_of, share, verdicts
from canvas_robot.evaluation.eval_session import EpisodeRow
from canvas_robot.evaluation.eval_settings import EvalSettings
from canvas_robot.evaluation.eval_statistics import wilson
from canvas_robot.sim.registration import ENV_IDS, REACH_ID

PLATE = ENV_IDS["cube_on_plate"]
ROW = EpisodeRow(
    env=REACH_ID, number=0, variant=0, episode_id=0, seed=0, instruction="go <there>",
    told="go <there>", success_last=True, success_any=True, success_held=None, steps=4,
    steps_to_success=3, terminated=True, failure="", stages={}, reward=1.0, action_change=0.1,
    decision_ms=[1.0, 2.0, 9.0], seconds=0.1,
)  # fmt: skip
BAD = {
    "success_last": False,
    "success_any": False,
    "steps_to_success": None,
    "failure": "out of steps",
}


def rows_of(env_id, good, count, **changes) -> list[EpisodeRow]:
    return [
        msgspec.structs.replace(
            ROW, env=env_id, number=90_000 + n, **(changes if n < good else {**BAD, **changes})
        )
        for n in range(count)
    ]


def record(*envs, files=None, **changes) -> EvalRecord:
    settings = EvalSettings(
        **{"envs": envs, "policy": "random", "episodes": tuple(range(90_000, 90_004)), **changes}
    )
    started = [{"versions": {"gymnasium": "1"}}]
    digest = digest_of_settings(settings, files or {})
    return EvalRecord(settings=settings, files=files or {}, started=started, sha256=digest)


@pytest.fixture
def one():
    return report_of(record(REACH_ID), rows_of(REACH_ID, 3, 4), {})


@pytest.fixture
def two():
    rows = rows_of(REACH_ID, 3, 4) + rows_of(PLATE, 1, 4, success_held=False)
    return report_of(record(REACH_ID, PLATE), rows, {})


def test_of_one_environment_the_figures_are_at_the_top(one):
    assert one["env"] == REACH_ID and one["policy"] == "random"
    assert one["success"]["last"] == wilson(3, 4) and one["success"]["held"] is None
    assert one["env_spec"]["kwargs"] == {"task": "reach"}
    assert "at the last step" in one["protocol"] or "after the last step" in one["protocol"]
    assert "40 steps" in one["protocol"]
    assert one["checkpoint"] is None and one["trained"] is None
    assert one["versions"] == {"gymnasium": "1"}
    (first, *_) = one["episodes"]
    assert first["episode_id"] == 0 and first["decision_ms_p50"] == 2.0
    assert "decision_ms" not in first


def test_of_several_they_are_by_id_with_the_mean(two):
    assert list(two["envs"]) == [REACH_ID, PLATE]
    assert two["mean"] == {"last": 0.5, "any": 0.5, "held": 0.0}
    assert two["envs"][PLATE]["success"]["held"] == wilson(0, 4)
    assert envs_of(two) == two["envs"]


def test_a_checkpoint_is_known_by_its_files():
    files = {"config.json": "a" * 64, "weights.safetensors": "b" * 64}
    made = record(REACH_ID, policy="folder", files=files)
    report = report_of(made, rows_of(REACH_ID, 3, 4), {"trained": False, "kind": "plain"})
    assert report["trained"] is False and report["checkpoint"]["files"] == files
    other = record(REACH_ID, policy="folder", files={**files, "config.json": "c" * 64})
    again = report_of(other, rows_of(REACH_ID, 3, 4), {"trained": False})
    assert report["checkpoint"]["sha256"] != again["checkpoint"]["sha256"]
    assert ("bad", "trained: false.") in [line[:2] for line in verdicts(report)]


@pytest.mark.parametrize(
    "changes, head",
    [
        ({"black_image": True}, "A control."),
        ({"shuffle_instructions": True}, "A control."),
        ({"episodes": (0, 5000, 6000, 7000)}, "Perhaps trained on these episodes."),
        ({}, "Few episodes:"),
    ],
)
def test_what_a_reader_must_know_comes_first(changes, head):
    files = {"config.json": "a" * 64}
    made = record(REACH_ID, policy="folder", files=files, **changes)
    report = report_of(made, rows_of(REACH_ID, 3, 4), {"trained": True})
    assert head in [line[1] for line in verdicts(report)]


def test_published_and_unseen_ids_raise_no_doubt():
    made = record(REACH_ID, policy="folder", files={"c": "a"}, episodes=(*range(24), 90_000))
    report = report_of(made, rows_of(REACH_ID, 3, 4), {"trained": True})
    assert [line[1] for line in verdicts(report)] == ["Few episodes:"]


def test_a_share_is_said_with_its_interval():
    assert share(wilson(3, 4)) == "75.0% (30.1 to 95.4)"
    assert share(None) == "–"


def test_the_page_needs_nothing_else_and_escapes_what_it_shows(one, tmp_path):
    run = EvalFolder(tmp_path)
    (tmp_path / "videos.mp4").write_bytes(b"film")
    write_eval_report(run, one, rows_of(REACH_ID, 3, 4), {REACH_ID: "videos.mp4"})
    page = (tmp_path / "report.html").read_text()
    for text in (
        "data:video/mp4;base64,ZmlsbQ==",
        "75.0% (30.1 to 95.4)",
        "out of steps",
        "go &lt;there&gt;",
        "All 4 episodes",
        "90000-90003",
        one["settings_sha256"],
    ):
        assert text in page
    assert "<there>" not in page and "http://" not in page and "https://" not in page
    assert page.count("data:image/png;base64,") == 2


def test_a_large_video_stays_beside_the_page(one, tmp_path, monkeypatch):
    monkeypatch.setattr("canvas_robot.evaluation.eval_page.LARGEST_EMBEDDED", 3)
    (tmp_path / "videos.mp4").write_bytes(b"film")
    rows = rows_of(REACH_ID, 3, 4)
    write_eval_report(EvalFolder(tmp_path), one, rows, {REACH_ID: "videos.mp4"})
    assert 'src="videos.mp4"' in (tmp_path / "report.html").read_text()


def test_several_environments_are_on_one_page_with_their_mean(two, tmp_path):
    rows = rows_of(REACH_ID, 3, 4) + rows_of(PLATE, 1, 4, success_held=False)
    write_eval_report(EvalFolder(tmp_path), two, rows, {})
    page = (tmp_path / "report.html").read_text()
    assert page.count(f"<th>{PLATE}</th>") >= 1 and "<th>mean</th>" in page


def test_pairs_are_a_figure_of_their_own(tmp_path):
    rows = [
        msgspec.structs.replace(each, variant=variant)
        for each in rows_of(REACH_ID, 3, 4)
        for variant in (0, 1)
    ]
    report = report_of(record(REACH_ID, policy="expert", compare_instructions=True), rows, {})
    assert report["pairs"] == wilson(3, 4)
    write_eval_report(EvalFolder(tmp_path), report, rows, {})
    assert "Both goals of a scene" in (tmp_path / "report.html").read_text()
