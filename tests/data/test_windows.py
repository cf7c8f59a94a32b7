"""Laws of windows: each is what a history observes at its tick; targets are what came after."""

import importlib
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canvas_robot.data.bridge import BridgeV2
from canvas_robot.data.transitions import DataRules, transitions
from canvas_robot.data.windows import Draw, WindowError, WindowReader
from canvas_robot.resources import config_path
from canvas_robot.schema import CanvasLayout, CanvasSchema, CanvasTopology, RegionSpec
from canvas_robot.signals import BindingError, History, load_binding
from canvas_robot.signals.codecs import RewardBinding, VectorBinding, VisualBinding
from canvas_robot.signals.signal import ImageSignal, VectorSignal

RULES = DataRules()
TICK_NS = 200_000_000
START_NS = 10**10  # of the histories; a window's stamps count from its first transition
CODECS = {"image": VisualBinding, "wrist": VisualBinding, "state": VectorBinding}


def declared(regions, horizon=3, future=None):
    """Schema and binding of regions {name: (signal, frames, period, hold)}.

    future: (frames, period) of a region of video to come.
    """
    widowx = load_binding(config_path("bindings", "widowx.yaml"))
    now = max(frames for _, frames, _, _ in regions.values()) - 1
    specs = {
        "goal": RegionSpec((0, 1, 0, 1, 0, 1), stream="text", is_output=False),
        "action": RegionSpec((now, now + horizon, 1, 2, 0, 1)),
    }
    bound = {name: widowx.regions[name] for name in ("goal", "action")}
    for row, (name, (signal, frames, period, hold)) in enumerate(regions.items(), start=2):
        box = (now + 1 - frames, now + 1, row, row + 1, 0, 1)
        specs[name] = RegionSpec(box, period=period, hold=hold, is_output=False)
        bound[name] = CODECS[signal](signal=signal)
    if future is not None:
        frames, period = future
        specs["future"] = RegionSpec((now + 1, now + 1 + frames, 0, 1, 1, 2), period=period)
        bound["future"] = VisualBinding(signal="image")
    size = max(now + horizon, now + 1 + (future or (0,))[0])
    layout = CanvasLayout(size, len(regions) + 2, 2, 8, specs, t_current=now)
    image = ImageSignal(sizes=((4, 6), (64, 64)))
    binding = msgspec.structs.replace(
        widowx,
        signals=widowx.signals | {"image": image, "wrist": image},
        regions=bound,
        sources=msgspec.structs.replace(
            widowx.sources, dataset={"image": "image_0", "wrist": "image_1", "state": "state"}
        ),
    )
    return CanvasSchema(layout, CanvasTopology.dense(list(specs))), binding


regions = st.tuples(
    st.sampled_from(sorted(CODECS)), st.integers(1, 3), st.integers(1, 4), st.booleans()
)
shapes = st.lists(regions, min_size=1, max_size=4).map(
    lambda drawn: {f"r{i}": region for i, region in enumerate(drawn)}
)


def fed(schema, binding, record, rules, ticks):
    """A history that saw an episode's transitions 0 to `ticks`, and its last stamp."""
    history, keys = History(schema, binding), binding.sources.dataset
    for tick, step in enumerate(transitions(record, rules).steps[: ticks + 1].tolist()):
        stamp = START_NS + tick * TICK_NS
        for signal in history.signals:
            is_state = keys[signal] == "state"
            value = record.states[step] if is_state else record.images(keys[signal], [step])[0]
            history.push(signal, stamp, value)
    return history, stamp


def assert_equal(frames, observed):
    assert frames.values.dtype == observed.values.dtype
    np.testing.assert_array_equal(frames.values, observed.values)
    np.testing.assert_array_equal(frames.stamps_ns + START_NS, observed.stamps_ns)
    np.testing.assert_array_equal(frames.missing, observed.missing)


def assert_all_equal(frames, observed):
    assert frames.keys() == observed.keys()
    for region in frames:
        assert_equal(frames[region], observed[region])


@pytest.fixture(scope="module")
def made_up_dataset():
    """The module of that name beside this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        yield importlib.import_module("made_up_dataset")
        sys.modules.pop("made_up_dataset")


@pytest.fixture(scope="module")
def made_up(made_up_dataset):
    return made_up_dataset.MadeUpDataset(11, 2, 3)


@settings(max_examples=40, deadline=None)
@given(shapes, st.sampled_from(["keep", "drop"]))
def test_phase_0_is_what_a_history_observes_step_by_step_bit_for_bit(made_up, shape, first_step):
    schema, binding = declared(shape)
    rules = DataRules(first_step=first_step)
    record = made_up.read(0)
    history, keys = History(schema, binding), binding.sources.dataset
    steps = transitions(record, rules).steps.tolist()
    reader = WindowReader(made_up, schema, binding, rules)
    windows = reader.windows([Draw(0, tick) for tick in range(len(steps))])
    for tick, (step, window) in enumerate(zip(steps, windows, strict=True)):
        stamp = START_NS + tick * TICK_NS
        for signal in history.signals:
            is_state = keys[signal] == "state"
            value = record.states[step] if is_state else record.images(keys[signal], [step])[0]
            history.push(signal, stamp, value)
        if tick == 0:
            history.reset(stamp)
        assert_all_equal(window.frames, history.observe(tick, stamp).frames)
        assert (window.name, window.step) == ("made up/0", tick)


def observed_at(made_up, schema, binding, tick):
    """What a history that refreshes all regions at `tick` observes there."""
    history, stamp = fed(schema, binding, made_up.read(0), RULES, tick)
    return history.observe(tick, stamp).frames


def last_refresh(tick, period, phase):
    """By definition: the last tick on the shifted clock, or the reset."""
    return max([0, *(t for t in range(tick + 1) if t % period == phase % period)])


@settings(max_examples=40, deadline=None)
@given(shapes, st.integers(0, 8), st.integers(0, 12))
def test_a_phase_shifts_the_clock_of_every_refresh(made_up, shape, tick, phase):
    schema, binding = declared(shape)
    (window,) = WindowReader(made_up, schema, binding, RULES).windows([Draw(0, tick, phase)])
    assert window.phase == phase
    for region, (_, _, period, _) in shape.items():
        refresh = last_refresh(tick, period, phase)
        assert_equal(window.frames[region], observed_at(made_up, schema, binding, refresh)[region])


def test_phases_are_the_ticks_after_which_all_refreshes_repeat(made_up):
    shape = {"a": ("state", 1, 4, False), "b": ("image", 1, 6, False)}
    reader = WindowReader(made_up, *declared(shape), RULES)
    assert reader.phases == 12
    for tick in range(9):
        first, again = reader.windows([Draw(0, tick, 5), Draw(0, tick, 17)])
        for region in shape:
            assert np.array_equal(first.frames[region].stamps_ns, again.frames[region].stamps_ns)


@settings(max_examples=30, deadline=None)
@given(shapes, st.integers(0, 8), st.integers(0, 3), st.data())
def test_an_aged_region_is_as_of_that_many_ticks_ago(made_up, shape, tick, phase, data):
    schema, binding = declared({name: (*region[:3], False) for name, region in shape.items()})
    ages = data.draw(st.dictionaries(st.sampled_from(sorted(shape)), st.integers(0, 10)))
    draw = Draw(0, tick, phase, tuple(ages.items()))
    (window,) = WindowReader(made_up, schema, binding, RULES).windows([draw])
    for region, (_, _, period, _) in shape.items():
        seen = max(0, tick - ages[region]) if region in ages else last_refresh(tick, period, phase)
        assert_equal(window.frames[region], observed_at(made_up, schema, binding, seen)[region])
    assert window.past == {}


@pytest.mark.parametrize("ages", [(), (("held", 5), ("also", 5))])
def test_beside_held_regions_stands_what_the_others_showed_at_their_refresh(made_up, ages):
    shape = {
        "held": ("image", 2, 3, True),
        "also": ("state", 1, 3, True),
        "slow": ("wrist", 1, 2, False),
        "fast": ("state", 2, 1, False),
    }
    schema, binding = declared(shape)
    reader = WindowReader(made_up, schema, binding, RULES)
    for tick in range(9):
        for phase in range(6):
            (window,) = reader.windows([Draw(0, tick, phase, ages)])
            refresh = max(0, tick - 5) if ages else last_refresh(tick, 3, phase)
            assert window.past.keys() == {"slow", "fast"}
            for region in window.past:
                then = last_refresh(refresh, shape[region][2], phase)
                observed = observed_at(made_up, schema, binding, then)
                assert_equal(window.past[region], observed[region])


def test_held_regions_of_several_periods_are_no_ones_past(made_up):
    shape = {"a": ("image", 1, 3, True), "b": ("state", 1, 2, True), "c": ("state", 1, 1, False)}
    (window,) = WindowReader(made_up, *declared(shape), RULES).windows([Draw(0, 4)])
    assert window.past == {}


# What came after.


@pytest.mark.parametrize("actions", ["composed", "naive", "recorded"])
@pytest.mark.parametrize("horizon", [1, 4])
def test_the_chunk_starts_now_and_repeats_the_last_action_where_there_is_none(
    made_up, actions, horizon
):
    rules = DataRules(actions=actions)
    schema, binding = declared({"state": ("state", 1, 1, False)}, horizon)
    rows = transitions(made_up.read(0), rules)
    last = len(rows) - 1
    draws = [Draw(0, tick) for tick in range(len(rows))]
    for window in WindowReader(made_up, schema, binding, rules).windows(draws):
        ticks = [window.step + j for j in range(horizon)]
        chunk = window.targets["action"]
        assert window.targets.keys() == {"action"}
        assert chunk.values.dtype == np.float32 and chunk.values.shape == (horizon, 7)
        np.testing.assert_array_equal(chunk.values, [rows.actions[min(t, last)] for t in ticks])
        assert chunk.missing.tolist() == [tick > last for tick in ticks]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(0, 3), st.booleans())
def test_video_to_come_is_a_target_and_no_observation(made_up, frames, period, phase, recorded):
    rules = DataRules(actions="recorded" if recorded else "composed")
    shape = {"camera": ("image", 1, 1, False)}
    schema, binding = declared(shape, future=(frames, period))
    record = made_up.read(0)
    steps = transitions(record, rules).steps.tolist()
    draws = [Draw(0, tick, phase) for tick in range(len(steps))]
    for window in WindowReader(made_up, schema, binding, rules).windows(draws):
        assert window.frames.keys() == {"camera"}
        coming = window.targets["future"]
        wanted = [steps[0] + window.step + (i + 1) * period for i in range(frames)]
        shown = [min(step, len(record) - 1) for step in wanted]
        np.testing.assert_array_equal(coming.values, record.images("image_0", shown))
        assert coming.missing.tolist() == [step >= len(record) for step in wanted]


# How it is read.


def test_an_episode_is_read_once_and_each_of_its_pictures_decoded_once(made_up_dataset):
    dataset = made_up_dataset.MadeUpDataset(9, 5)
    shape = {"camera": ("image", 2, 2, False), "same": ("image", 3, 1, False)}
    schema, binding = declared(shape, future=(2, 1))
    WindowReader(dataset, schema, binding, RULES).windows([Draw(0, tick) for tick in (5, 2, 6)])
    assert dataset.reads == [0]
    assert len(dataset.decoded) == len(set(dataset.decoded)) > 5


def test_records_are_read_once_and_then_their_pictures_alone(made_up_dataset):
    dataset = made_up_dataset.MadeUpDataset(9, 5)
    schema, binding = declared({"camera": ("image", 1, 1, False), "s": ("state", 2, 1, False)})
    pixels = WindowReader(dataset, schema, binding, RULES)
    latents = WindowReader(dataset, schema, binding, RULES, {"camera": Latents()})
    for reader, pictures in ((latents, 0), (pixels, 4)):
        dataset.reads.clear()
        first = [reader.windows([Draw(episode, 2)])[0] for episode in (0, 1)]
        again = [reader.windows([Draw(episode, 2)])[0] for episode in (0, 1)]
        assert dataset.reads == [0, 1] and len(dataset.decoded) == pictures
        for window, same in zip(first, again, strict=True):
            assert window.name == same.name and window.instruction == same.instruction
            assert np.array_equal(window.frames["s"].values, same.frames["s"].values)


def test_only_so_many_episodes_are_remembered(made_up_dataset, monkeypatch):
    monkeypatch.setattr("canvas_robot.data.windows._KEPT", 2)
    dataset = made_up_dataset.MadeUpDataset(5, 5, 5)
    reader = WindowReader(dataset, *declared({"s": ("state", 1, 1, False)}), RULES)
    for episode in (0, 1, 0, 2, 1, 0):
        reader.windows([Draw(episode, 0)])
    assert dataset.reads == [0, 1, 2, 0]


def test_windows_come_in_the_order_of_their_draws(made_up):
    schema, binding = declared({"state": ("state", 1, 1, False)})
    draws = [Draw(0, tick, phase) for tick, phase in ((6, 1), (0, 0), (6, 0), (3, 2))]
    windows = WindowReader(made_up, schema, binding, RULES).windows(draws)
    assert [(window.step, window.phase) for window in windows] == [draw[1:3] for draw in draws]
    assert {window.instruction for window in windows} == {"do 0"}


class Latents:
    """What an encoder might have kept: each latent says episode, step and crop."""

    def frames(self, episode, steps, crop=0):
        says = [(episode, step, crop) for step in steps]
        return np.array(says, np.float16)[:, :, None, None] * np.ones((1, 1, 2, 2), np.float16)


def test_latents_stand_in_for_the_pictures_of_the_regions_that_have_them(made_up):
    shape = {"camera": ("image", 2, 1, False), "wrist": ("wrist", 2, 1, False)}
    schema, binding = declared(shape, future=(1, 1))
    pixels = WindowReader(made_up, schema, binding, RULES)
    latents = {"camera": Latents(), "wrist": Latents(), "future": Latents()}
    reader = WindowReader(made_up, schema, binding, RULES, latents)
    (seen,), (window,) = pixels.windows([Draw(0, 3)]), reader.windows([Draw(0, 3, crop=2)])
    for part, region in (("frames", "camera"), ("frames", "wrist"), ("targets", "future")):
        pictures, frames = getattr(seen, part)[region], getattr(window, part)[region]
        assert frames.values.dtype == np.float16
        assert frames.values[:, :, 0, 0].tolist() == [[0, p[0, 0, 2], 2] for p in pictures.values]
        assert np.array_equal(frames.missing, pictures.missing)


def test_a_reader_can_be_sent_to_another_process(made_up):
    schema, binding = declared({"camera": ("image", 2, 2, False)})
    reader = WindowReader(made_up, schema, binding, RULES)
    (window,), (same,) = (
        each.windows([Draw(0, 4)]) for each in (reader, pickle.loads(pickle.dumps(reader)))
    )
    assert np.array_equal(window.frames["camera"].values, same.frames["camera"].values)


def test_the_cameras_are_those_that_regions_show(made_up):
    shape = {"a": ("wrist", 1, 1, False), "b": ("state", 1, 1, False), "c": ("wrist", 2, 1, False)}
    assert WindowReader(made_up, *declared(shape), RULES).cameras == ("image_1",)
    reader = WindowReader(made_up, *declared(shape, future=(1, 1)), RULES)
    assert reader.cameras == ("image_1", "image_0")


def test_real_episodes_are_seen_as_the_node_would_see_them(bridge_sample):
    shape = {"camera": ("image", 3, 2, False), "proprio": ("state", 2, 1, False)}
    schema, binding = declared(shape)
    dataset = BridgeV2(bridge_sample)
    record = dataset.read(4)
    (window,) = WindowReader(dataset, schema, binding, RULES).windows([Draw(4, 6)])
    history, stamp = fed(schema, binding, record, RULES, 6)
    assert_all_equal(window.frames, history.observe(6, stamp).frames)
    assert window.name == record.name and window.instruction == record.instruction
    assert window.frames["camera"].values.std() > 10


# Refusing.


def refused(change=None, shape=None, latents=None, **sources):
    """The message with which a reader is refused."""
    schema, binding = declared(shape or {"camera": ("image", 1, 1, False)})
    if sources:
        sources = msgspec.structs.replace(binding.sources, **sources)
        binding = msgspec.structs.replace(binding, sources=sources)
    dataset = SimpleNamespace(cameras=("image_0", "image_1"))
    with pytest.raises(BindingError) as error:
        WindowReader(dataset, schema, (change or (lambda same: same))(binding), RULES, latents)
    return str(error.value)


def test_a_binding_at_another_rate_than_the_dataset_is_refused():
    assert refused(lambda binding: binding.with_control_rate(10.0)) == (
        "control_rate_hz: the dataset was recorded at 5 Hz, the binding says 10; "
        "a window's frames would be those of other times"
    )


def test_a_signal_without_data_is_refused_with_the_data_there_are():
    assert refused(dataset={"state": "state"}) == (
        "region 'camera': sources.dataset: expected for signal 'image' one of "
        "['image_0', 'image_1'], got nothing"
    )
    assert "one of ['image_0', 'image_1'], got 'image_7'" in refused(dataset={"image": "image_7"})
    assert "got 'state'" in refused(dataset={"image": "state"})
    of_state = refused(shape={"s": ("state", 1, 1, False)}, dataset={"state": "image_0"})
    assert "for signal 'state' one of ['state'], got 'image_0'" in of_state


def test_a_reward_is_refused_by_its_region():
    def with_reward(binding):
        done = VectorSignal(names=("done",), units=("1",), low=(0,), high=(1,), frame="base_link")
        return msgspec.structs.replace(
            binding,
            signals=binding.signals | {"done": done},
            regions={**binding.regions, "progress": RewardBinding(signal="done")},
        )

    schema, binding = declared({"camera": ("image", 1, 1, False)})
    layout = schema.layout
    boxes = {**layout.regions, "progress": RegionSpec((0, 1, 2, 3, 1, 2))}
    schema = CanvasSchema(
        CanvasLayout(layout.T, layout.H, layout.W, 8, boxes), CanvasTopology.dense(list(boxes))
    )
    with pytest.raises(BindingError) as error:
        WindowReader(SimpleNamespace(cameras=("image_0",)), schema, with_reward(binding), RULES)
    assert str(error.value) == (
        "region 'progress': decodes to a reward, and recorded episodes hold none; "
        "leave it out of schema and binding"
    )


def test_latents_of_a_region_that_shows_no_camera_are_refused():
    shape = {"camera": ("image", 1, 1, False), "s": ("state", 1, 1, False)}
    message = refused(shape=shape, latents={"s": Latents(), "hand": Latents()})
    assert message == "latents: expected those of camera regions, got ['hand', 's']"


@pytest.mark.parametrize(
    "draw, text",
    [
        (Draw(0, 9), "expected a step below 9 transitions, got 9"),
        (Draw(0, -1), "expected a step below 9 transitions, got -1"),
        (Draw(1, 0), "expected a step below 0 transitions, got 0"),
        (Draw(0, 0, ages=(("hand", 1),)), r"ages: expected some of .*'camera'.*, got \['hand'\]"),
        (Draw(0, 5, ages=(("camera", 1), ("held", 2))), "ages: expected one for all regions that"),
        (Draw(0, 0, crop=1), "region 'camera': crop 1: pictures are read whole"),
    ],
)
def test_a_draw_that_is_no_window_is_refused_with_the_episodes_name(made_up, draw, text):
    shape = {"camera": ("image", 1, 1, True), "held": ("state", 1, 1, True)}
    reader = WindowReader(made_up, *declared(shape), RULES)
    with pytest.raises(WindowError, match=f"^episode 'made up/{draw.episode}' .*{text}"):
        reader.windows([draw])


def test_pictures_of_a_size_that_the_signal_does_not_accept_are_refused(made_up):
    schema, binding = declared({"camera": ("image", 1, 1, False)})
    image = ImageSignal(sizes=((480, 640),))
    binding = msgspec.structs.replace(binding, signals=binding.signals | {"image": image})
    with pytest.raises(WindowError, match=r"expected an image of 640x480 .*, got 6x4"):
        WindowReader(made_up, schema, binding, RULES).windows([Draw(0, 0)])


def test_draws_of_several_episodes_are_refused(made_up):
    reader = WindowReader(made_up, *declared({"camera": ("image", 1, 1, False)}), RULES)
    with pytest.raises(ValueError, match="expected draws of one episode"):
        reader.windows([Draw(0, 0), Draw(2, 0)])
