"""Laws of the picture of a decision: it shows what it is given, and changes with it."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from canvas_robot.resources import config_path
from canvas_robot.ros.canvas_picture import DECISIONS, FORESEEN, HEIGHT, WIDTH, CanvasPicture
from canvas_robot.ros.decisions import Decision, HoldReason
from canvas_robot.ros.foresight import Foreseen
from canvas_robot.signals import ActionChunk, load_binding

STAMP_NS, TICK_NS = 1_000_000_000_000, 200_000_000
BINDINGS = ["widowx.yaml", "widowx_two_cameras.yaml"]


@pytest.fixture(params=BINDINGS)
def binding(request):
    return load_binding(config_path("bindings", request.param))


def pictures_of(binding) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    cameras = binding.regions_by_codec("visual")
    return {region: rng.integers(0, 256, (480, 640, 3), dtype=np.uint8) for region in cameras}


def decision_of(binding, index: int = 0, age: int = 0) -> Decision:
    regions, stamp_ns = binding.observed_regions(), STAMP_NS + index * TICK_NS
    stamps_ns = {region: stamp_ns - age * TICK_NS - 45_000_000 for region in regions}
    action = binding.action_signal()
    share = np.linspace(0.2, 0.7, 4, dtype=np.float32)[:, None]
    values = np.float32(action.low) + share * (np.float32(action.high) - np.float32(action.low))
    ages = dict.fromkeys(regions, age)
    chunk = ActionChunk("action", index, values, stamps_ns=stamps_ns, ages=ages)
    return Decision(
        index,
        stamp_ns,
        tick=index,
        instruction="touch the red cube",
        chunk=chunk,
        stamps_ns=stamps_ns,
    )


def with_chunk(decision: Decision, **changes) -> Decision:
    return dataclasses.replace(decision, chunk=dataclasses.replace(decision.chunk, **changes))


def drawn(binding, decision: Decision, pictures: dict | None = None) -> np.ndarray:
    """The picture by somebody who has drawn nothing before."""
    pictures = pictures_of(binding) if pictures is None else pictures
    return CanvasPicture(binding).draw(decision, pictures)


def test_it_is_one_rgb_picture_that_depends_on_nothing_else(binding):
    first, again = (drawn(binding, decision_of(binding)) for _ in range(2))
    assert first.shape == (HEIGHT, WIDTH, 3) and first.dtype == np.uint8
    assert np.array_equal(first, again)


def test_every_camera_is_shown_apart(binding):
    pictures = pictures_of(binding)
    shown = drawn(binding, decision_of(binding), pictures)
    changed = []
    for region in pictures:
        other = drawn(binding, decision_of(binding), {**pictures, region: 255 - pictures[region]})
        columns = np.flatnonzero((shown != other).any(axis=(0, 2)))
        changed.append((columns.min(), columns.max()))
    assert all(left[1] < right[0] for left, right in itertools.pairwise(changed))


def test_pictures_are_drawn_as_they_are(binding):
    plain = {region: np.full((64, 64, 3), (10, 200, 30), np.uint8) for region in ("visual",)}
    shown = drawn(binding, decision_of(binding), plain)
    assert (shown == (10, 200, 30)).all(axis=2).sum() > 200 * 200


def test_what_is_given_is_not_written_to(binding):
    decision, pictures = decision_of(binding), pictures_of(binding)
    before = [decision.chunk.values.copy(), *(picture.copy() for picture in pictures.values())]
    drawn(binding, decision, pictures)
    after = [decision.chunk.values, *pictures.values()]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(
    "changed",
    [
        lambda d: dataclasses.replace(d, instruction="touch the blue cube"),
        lambda d: dataclasses.replace(d, stamp_ns=d.stamp_ns + 30_000_000),
        lambda d: with_chunk(d, values=d.chunk.values[::-1].copy()),
        lambda d: with_chunk(d, values=d.chunk.values[:1]),
        lambda d: dataclasses.replace(
            d, chunk=None, reason=HoldReason.STALE_INPUT, detail="signal 'image': 0.6 s old"
        ),
    ],
    ids=["instruction", "age", "actions", "horizon", "hold"],
)
def test_it_changes_with_the_decision(binding, changed):
    decision = decision_of(binding)
    assert not np.array_equal(drawn(binding, decision), drawn(binding, changed(decision)))


def test_the_reason_of_a_hold_is_shown(binding):
    hold = Decision(3, STAMP_NS, reason=HoldReason.ESTOP, detail="pressed")
    other = dataclasses.replace(hold, reason=HoldReason.STOPPED)
    assert not np.array_equal(drawn(binding, hold, {}), drawn(binding, other, {}))


def test_the_timeline_tells_computed_regions_from_older_ones(binding):
    """The second decision is the same but for what its regions rest on."""
    shown = []
    for stamps_move, age in ((True, 0), (True, 3), (False, 3)):
        picture = CanvasPicture(binding)
        first, second = decision_of(binding, 0), decision_of(binding, 1, age)
        if not stamps_move:
            first = dataclasses.replace(first, stamps_ns=second.stamps_ns)
        picture.draw(first, {})
        shown.append(picture.draw(second, {})[HEIGHT // 2 :, : WIDTH * 3 // 5])
    fresh, moved, kept = shown
    assert np.array_equal(fresh, moved)
    assert not np.array_equal(moved, kept)


def test_the_timeline_forgets_what_is_older_than_its_columns(binding):
    held, fresh = CanvasPicture(binding), CanvasPicture(binding)
    held.draw(Decision(0, STAMP_NS, reason=HoldReason.ESTOP, detail="pressed"), {})
    for index in range(DECISIONS):
        last = [picture.draw(decision_of(binding, index), {}) for picture in (held, fresh)]
        assert np.array_equal(*last) == (index == DECISIONS - 1)


def test_words_that_are_too_long_or_foreign_are_cut_and_kept_apart(binding):
    long = dataclasses.replace(decision_of(binding), instruction="räum den Tisch auf " * 40)
    longer = dataclasses.replace(long, instruction=long.instruction + "!")
    assert np.array_equal(drawn(binding, long), drawn(binding, longer))


def test_actions_beyond_their_limits_stay_in_their_panel(binding):
    decision = decision_of(binding)
    far = with_chunk(decision, values=decision.chunk.values * 1e6)
    assert np.array_equal(
        drawn(binding, decision)[:, : WIDTH // 2], drawn(binding, far)[:, : WIDTH // 2]
    )


# ---------------------------------------------------------------- what is predicted


def foreseen_of(camera: str | None, count: int = 2, **changes) -> list[Foreseen]:
    """Pictures of one colour each, the first a tick ahead, predicted a tick before the decision."""
    made_ns = STAMP_NS - TICK_NS
    first = Foreseen("future", camera, made_ns, 0, True, np.zeros((16, 16, 3), np.uint8))
    return [
        dataclasses.replace(
            first,
            at_ns=made_ns + step * TICK_NS,
            picture=np.full((16, 16, 3), (step, 250, 250 - step), np.uint8),
            **changes,
        )
        for step in range(1, count + 1)
    ]


def shown_with(foreseen: list[Foreseen]) -> np.ndarray:
    binding = load_binding(config_path("bindings", "widowx.yaml"))
    picture = np.full((240, 320, 3), (1, 2, 3), np.uint8)
    return CanvasPicture(binding).draw(decision_of(binding), {"visual": picture}, foreseen)


def columns_of(image: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return np.flatnonzero((image == colour).all(axis=2).sum(axis=0) > 50)


@pytest.mark.parametrize("camera", ["visual", None], ids=["its camera is seen", "it is not"])
def test_what_is_predicted_follows_its_camera_in_the_order_of_time(camera):
    image = shown_with(foreseen_of(camera))
    colours = [(1, 2, 3), (1, 250, 249), (2, 250, 248)]
    spans = [columns_of(image, colour) for colour in colours]
    assert all(len(span) > 100 for span in spans)
    assert all(left.max() < right.min() for left, right in itertools.pairwise(spans))


def test_a_prediction_has_the_shape_of_its_cameras_picture():
    image = shown_with(foreseen_of("visual", 1))
    seen, predicted = ((image == colour).all(axis=2).sum() for colour in ((1, 2, 3), (1, 250, 249)))
    assert seen * 0.95 < predicted < seen  # but for its frame


@pytest.mark.parametrize(
    "changes",
    [{"learned": False}, {"made_ns": STAMP_NS - 5 * TICK_NS}, {"region": "later"}],
    ids=["untrained", "age", "region"],
)
def test_it_says_what_a_prediction_is_worth(changes):
    image = shown_with(foreseen_of("visual"))
    assert not np.array_equal(image, shown_with(foreseen_of("visual", **changes)))


def test_of_many_predictions_a_few_are_shown_and_the_last_is_one():
    image = shown_with(foreseen_of("visual", 9))
    shown = [step for step in range(1, 10) if len(columns_of(image, (step, 250, 250 - step)))]
    assert len(shown) == FORESEEN and {1, 9} < set(shown)


def test_without_predictions_nothing_is_different():
    binding = load_binding(config_path("bindings", "widowx.yaml"))
    decision, pictures = decision_of(binding), pictures_of(binding)
    without = CanvasPicture(binding).draw(decision, pictures)
    assert np.array_equal(CanvasPicture(binding).draw(decision, pictures, []), without)
