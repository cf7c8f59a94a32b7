"""A report tells the truth about a run, and what it cannot tell it names."""

import json
from html.parser import HTMLParser

import cv2
import imageio_ffmpeg
import numpy as np
import pytest

from canvas_robot.data.video import read_video
from canvas_robot.evaluation.episode_video import FPS, STRIP_HEIGHT
from canvas_robot.evaluation.run_report import (
    BRIDGE_TABLE_CAMERA,
    RunMeta,
    TickRecord,
    summarise,
    write_report,
)

NAN = float("nan")


def record(tick, **changes):
    fields = {
        "tick": tick,
        "wall_s": 0.2 * tick + 0.05,
        "image_stamp_ns": 1 + 200_000_000 * tick,
        "command_stamp_ns": 1 + 200_000_000 * tick + 50_000_000,
        "transport_ms": 5.0,
        "assembly_ms": 2.0,
        "model_ms": 30.0 + tick,
        "publish_ms": 1.0,
        "total_ms": 50.0 + tick,
        "position": np.array([0.3, 0.01 * tick, 0.1]),
        "gripper": 1.0,
        "state": "active",
    }
    return TickRecord(**{**fields, **changes})


def hold(tick, reason="no image"):
    nothing = dict.fromkeys(
        ("transport_ms", "assembly_ms", "model_ms", "publish_ms", "total_ms", "gripper"), NAN
    )
    return record(
        tick, state="hold", reason=reason, image_stamp_ns=0, position=np.full(3, NAN), **nothing
    )


def meta(**changes):
    fields = {
        "instruction": "touch the red cube",
        "trained": True,
        "seconds": 2.0,
        "control_rate_hz": 5.0,
        "expected_ticks": 10,
        "versions": {"canvas_robot": "0.1.0"},
    }
    return RunMeta(**{**fields, **changes})


def pictures(count=10, size=(24, 32)):
    return [(0.2 * k, np.full((*size, 3), 20 * k, np.uint8)) for k in range(count)]


# Summary.


def test_percentiles_are_those_of_the_active_ticks():
    records = [*(record(k) for k in range(9)), hold(9)]
    latency = summarise(records, meta())["latency_ms"]
    assert latency["total"] == {"p50": 54.0, "p95": 57.6, "p99": 57.92}
    assert latency["transport"] == {"p50": 5.0, "p95": 5.0, "p99": 5.0}
    assert set(latency) == {"total", "transport", "wait", "assembly", "model", "publish"}


def test_the_stages_and_the_wait_add_up_to_the_total():
    one = record(3)
    stages = one.transport_ms + one.wait_ms + one.assembly_ms + one.model_ms + one.publish_ms
    assert stages == pytest.approx(one.total_ms)


@pytest.mark.parametrize(
    ("ticks", "missed"),
    [
        (range(10), 0),
        (range(8), 2),
        ([], 10),
        (range(12), 0),
        # As many as expected, but the numbers have gaps.
        ([*range(5), *range(7, 12)], 2),
    ],
)
def test_missed_ticks_are_absent_ones_or_gaps(ticks, missed):
    assert summarise([record(k) for k in ticks], meta())["missed_ticks"] == missed


def test_an_image_used_twice_is_fresh_once():
    records = [record(k, image_stamp_ns=1 + k // 2) for k in range(10)]
    assert summarise(records, meta())["fresh_image_fraction"] == 0.5


def test_holds_are_counted_by_reason():
    records = [record(0), hold(1), hold(2, "goal changed"), hold(3)]
    summary = summarise(records, meta())
    assert summary["hold_reasons"] == {"no image": 2, "goal changed": 1}
    assert (summary["ticks"], summary["active_ticks"], summary["hold_ticks"]) == (4, 1, 3)


def test_a_tick_whose_work_exceeds_the_period_is_slow():
    records = [record(0), record(1, model_ms=198.0, total_ms=260.0), record(2, total_ms=400.0)]
    assert summarise(records, meta())["slow_ticks"] == 1


def test_the_measured_rate_is_that_of_the_commands():
    assert summarise([record(k) for k in range(10)], meta())["measured_rate_hz"] == 5.0


def test_the_order_of_the_records_does_not_matter():
    records = [record(k) for k in range(10)]
    assert summarise(records[::-1], meta()) == summarise(records, meta())


def test_what_no_record_tells_is_none():
    summary = summarise([], meta())
    assert summary["measured_rate_hz"] is None and summary["fresh_image_fraction"] is None
    assert summary["latency_ms"]["total"] == {"p50": None, "p95": None, "p99": None}


# Declarations.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"state": "paused"}, "TickRecord 4: expected state to be one of .* got 'paused'"),
        ({"state": "hold"}, "expected a reason for the hold"),
        ({"model_ms": NAN}, "expected finite position, gripper and latencies while active"),
        ({"position": np.full(3, NAN)}, "record a tick without command as hold"),
        ({"position": np.zeros(2)}, r"expected position \(3,\) in metres, got \(2,\)"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        record(4, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"control_rate_hz": 0.0}, "expected a positive rate, got 0"),
        ({"seconds": NAN}, "expected finite seconds and expected_ticks, not negative, got nan"),
        ({"expected_ticks": -1}, "got 2.0 and -1"),
        ({"details": {"loss": NAN}}, "finite numbers or booleans in versions and details"),
        ({"details": {"device": object()}}, "finite numbers or booleans in versions and details"),
    ],
)
def test_meta_that_cannot_be_reported_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        meta(**changes)


# The folder.


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A run with a hold, a missed tick and an untrained policy: its folder and its summary."""
    folder = tmp_path_factory.mktemp("runs") / "report"
    records = [*(record(k) for k in range(5)), hold(5), *(record(k) for k in range(7, 10))]
    untrained = meta(trained=False, details={"device": "cpu"}, instruction="touch <the> & cube")
    summary = write_report(folder, records, pictures(), BRIDGE_TABLE_CAMERA, untrained)
    return folder, summary


def test_the_folder_holds_the_four_files(report):
    folder, _ = report
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["episode.mp4", "latency.png", "report.html", "report.json"]


def test_report_json_is_the_summary(report):
    folder, summary = report
    assert json.loads((folder / "report.json").read_text()) == summary
    assert summary["trained"] is False and summary["missed_ticks"] == 1
    assert summary["missing"] == []


def test_the_video_plays_in_a_browser_at_the_speed_of_the_run(report):
    folder, _ = report
    facts = next(imageio_ffmpeg.read_frames(str(folder / "episode.mp4")))
    assert (facts["codec"], facts["pix_fmt"].split("(")[0]) == ("h264", "yuv420p")
    # The last tick is 1.85 s after the first picture.
    assert facts["fps"] == FPS and facts["duration"] == pytest.approx(1.85, abs=0.1)


def test_pictures_are_stretched_to_the_cameras_shape(report):
    folder, _ = report
    frames, _ = read_video(folder / "episode.mp4")
    assert frames.shape[1:] == (480 + STRIP_HEIGHT, 640, 3)


def test_the_target_is_drawn_where_the_camera_sees_it(report):
    folder, _ = report
    frames, _ = read_video(folder / "episode.mp4")
    x, y = BRIDGE_TABLE_CAMERA.project([record(9).position])[0]
    patch = frames[-1][STRIP_HEIGHT + int(y) - 1 :, int(x) - 1 :][:3, :3].astype(int)
    # Green on a grey picture.
    assert (patch[..., 1] - patch[..., 0]).mean() > 60


def test_an_untrained_policy_is_marked_on_every_frame_and_on_the_page(report):
    folder, _ = report
    frames, _ = read_video(folder / "episode.mp4")
    badge = frames[:, STRIP_HEIGHT + 15 : STRIP_HEIGHT + 40, 14:22].astype(int)
    assert (badge[..., 0] - badge[..., 1] > 100).all()
    assert "Untrained policy." in (folder / "report.html").read_text()


def test_the_page_says_what_went_wrong(report):
    folder, _ = report
    page = (folder / "report.html").read_text()
    assert "Control ticks missed: 1." in page and "no image" in page


def test_the_page_needs_nothing_but_the_video_beside_it(report):
    folder, _ = report
    sources = _Sources()
    sources.feed((folder / "report.html").read_text())
    assert sources.found[0] == "episode.mp4"
    assert all(source.startswith("data:image/png;base64,") for source in sources.found[1:])
    assert len(sources.found) == 2


def test_the_instruction_is_text_not_markup(report):
    folder, _ = report
    assert "touch &lt;the&gt; &amp; cube" in (folder / "report.html").read_text()


def test_the_plot_is_a_readable_picture(report):
    folder, _ = report
    plot = cv2.imread(str(folder / "latency.png"))
    assert plot.shape[1] > 1200 and plot.std() > 10


def test_a_trained_policy_without_faults_has_no_notes(tmp_path):
    records = [record(k) for k in range(10)]
    write_report(tmp_path, records, pictures(2), BRIDGE_TABLE_CAMERA, meta())
    assert 'class="note' not in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("records", "frames", "camera", "missing"),
    [
        ([], [], BRIDGE_TABLE_CAMERA, ["no control ticks", "no camera frames"]),
        ([], pictures(1), BRIDGE_TABLE_CAMERA, ["no control ticks"]),
        ([record(0)], [], BRIDGE_TABLE_CAMERA, ["no camera frames"]),
        ([record(0)], pictures(1), None, ["no camera model"]),
        ([hold(0), hold(1)], pictures(3), BRIDGE_TABLE_CAMERA, ["every tick was a hold"]),
        ([record(0)], pictures(1, size=(25, 33)), BRIDGE_TABLE_CAMERA, []),
    ],
)
def test_few_records_make_a_report_that_names_what_is_missing(
    tmp_path, records, frames, camera, missing
):
    summary = write_report(tmp_path, records, frames, camera, meta())
    assert len(summary["missing"]) == len(missing)
    page = (tmp_path / "report.html").read_text()
    for expected, said in zip(missing, summary["missing"], strict=True):
        assert said.startswith(expected) and said in page
    assert (tmp_path / "episode.mp4").exists() == bool(frames)
    assert (tmp_path / "latency.png").exists() == any(one.state == "active" for one in records)


def test_a_target_out_of_view_or_behind_the_camera_is_simply_not_drawn(tmp_path):
    records = [
        record(0, position=np.array([-1.0, 0, 0])),
        record(1, position=np.array([0.3, 50.0, 0])),
        record(2),
    ]
    assert write_report(tmp_path, records, pictures(3), BRIDGE_TABLE_CAMERA, meta())["ticks"] == 3


def test_a_frame_that_is_no_rgb_picture_is_refused(tmp_path):
    grey = [(0.4, np.zeros((8, 8), np.uint8))]
    with pytest.raises(ValueError, match=r"frame at 0\.400 s: expected \(H, W, 3\) uint8 RGB"):
        write_report(tmp_path, [], grey, None, meta())


def test_frames_on_another_clock_are_refused(tmp_path):
    absolute = [(1.7e9, np.zeros((8, 8, 3), np.uint8))]
    with pytest.raises(ValueError, match="times on the ticks' clock, got 1700000000 s"):
        write_report(tmp_path, [record(0)], absolute, None, meta())


class _Sources(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found += [value for name, value in attrs if name in ("src", "href")]
