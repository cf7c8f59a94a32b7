"""Laws of ControlLoop: what it commands, when it holds and why. No ROS: instants by hand."""

import dataclasses
import json
from dataclasses import dataclass, field

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from canvas_robot.kinematics.rule import compose, limits_of
from canvas_robot.policy.chunk_execution import make_execution
from canvas_robot.policy.policy import CanvasPolicy
from canvas_robot.resources import config_path
from canvas_robot.ros.control import ControlLoop
from canvas_robot.ros.decisions import (
    Decision,
    HoldReason,
    Instant,
    InstructionState,
    InstructionTurn,
    Motion,
    Reaction,
)
from canvas_robot.ros.moving import GuideError
from canvas_robot.ros.rehearsal import Rehearsal
from canvas_robot.ros.serialized import CommandMessages
from canvas_robot.schema import CanvasSchema
from canvas_robot.signals import ActionChunk, BindingError, load_binding, load_statistics
from canvas_robot.signals.pose import (
    bridge_state_from_pose,
    coordinates_from_pose,
    pose_from_bridge_state,
    rpy_from_matrix,
)

SECOND = 1_000_000_000
TICK = SECOND // 5
WIDOWX = load_binding(config_path("bindings", "widowx.yaml"))
LIMITS = limits_of(WIDOWX.robot)
HOME = np.array([0.3, 0.0, 0.1, 0.0, 0.0, 0.0, 1.0], np.float32)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """For small tensors more threads only wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def trained_for() -> CanvasPolicy:
    """An untrained policy: widowx_tiny with a picture of 4 x 4 patches."""
    data = json.loads(config_path("schemas", "widowx_tiny.json").read_text())
    data["layout"].update(H=7, W=16)
    data["regions"]["visual"]["bounds"] = [1, 2, 0, 4, 0, 4]
    data["regions"]["proprio"]["bounds"] = [0, 2, 4, 5, 0, 1]
    data["regions"]["action"]["bounds"] = [1, 5, 4, 5, 1, 3]
    data["regions"]["goal"]["bounds"] = [0, 4, 5, 7, 0, 16]
    statistics = load_statistics(config_path("statistics", "bridge_v2.json"))
    return CanvasPolicy.untrained(CanvasSchema.from_dict(data), WIDOWX, statistics, loops=1)


@pytest.fixture
def policy(trained_for, monkeypatch) -> CanvasPolicy:
    """The shared policy, with nothing remembered; what a test patches is undone."""
    trained_for.forget()
    monkeypatch.setattr(trained_for, "binding", WIDOWX)
    return trained_for


@dataclass
class Bench:
    """A control loop, its clocks, and the robot that stands before it."""

    policy: CanvasPolicy
    ros_ns: int = 100 * SECOND
    steady_ns: int = 5 * SECOND
    index: int = 0
    state: np.ndarray = field(default_factory=HOME.copy)
    image: np.ndarray = field(default_factory=lambda: np.full((64, 64, 3), 90, np.uint8))
    warnings: list[str] = field(default_factory=list)

    timeout_s: float = 0.4
    execution: str = "first"

    def __post_init__(self) -> None:
        self.loop = ControlLoop(
            self.policy,
            lambda: Instant(self.ros_ns, self.steady_ns),
            self.warnings.append,
            decision_timeout_s=self.timeout_s,
            execution=make_execution(self.execution, horizon=self.policy.horizon),
        )

    def wait(self, ns: int = TICK) -> None:
        self.ros_ns += ns
        self.steady_ns += ns

    def sample(self, *signals: str, stamp_ns: int | None = None) -> None:
        """Samples taken now, or stamped otherwise."""
        values = {"image": self.image, "state": self.state}
        for signal in signals or values:
            stamp = self.ros_ns if stamp_ns is None else stamp_ns
            self.loop.sample(signal, stamp, values[signal])

    def tick(self) -> Decision:
        self.index += 1
        return self.loop.tick(self.index, self.ros_ns)

    def unblock(self, reason: HoldReason) -> Decision | None:
        return self.loop.unblock(-1, self.ros_ns, reason)

    def step(self) -> Decision:
        """One control period later: fresh samples, then a decision."""
        self.wait()
        self.sample()
        return self.tick()

    def measure(self, *changes: tuple[int, float]) -> None:
        """Moves the measured state: (component, value)."""
        self.state = HOME.copy()
        for component, value in changes:
            self.state[component] = value


@pytest.fixture
def bench(policy) -> Bench:
    """A loop that has an instruction and no sample yet."""
    bench = Bench(policy)
    bench.loop.instruct("touch the red cube")
    return bench


@pytest.fixture
def moving(bench) -> Bench:
    """A loop that has commanded twice."""
    assert bench.step().reason is None and bench.step().reason is None
    return bench


def acts(policy, monkeypatch, *actions) -> None:
    """Makes the model decide these actions in turn, the last one for ever."""
    queue = list(actions)

    def act(observation, going_on=None) -> ActionChunk:
        action = queue.pop(0) if len(queue) > 1 else queue[0]
        stamps = {"visual": int(observation.frames["visual"].stamps_ns[-1])}
        rows = np.tile(np.float32(action), (4, 1))
        return ActionChunk("action", observation.tick, rows, stamps_ns=stamps)

    monkeypatch.setattr(policy, "act", act)


def delta(*values: float) -> np.ndarray:
    return np.array([*values, *[0.0] * (7 - len(values))])


def at(decision: Decision) -> np.ndarray:
    """Bridge state of the commanded target, (7,)."""
    return bridge_state_from_pose(decision.command.target, decision.command.gripper)


# ---------------------------------------------------------------- while all is well


def test_on_good_input_each_tick_carries_a_command_composed_of_the_policys_own_chunk(
    bench, policy, monkeypatch
):
    seen = []
    act = policy.act
    monkeypatch.setattr(
        policy, "act", lambda observation, *_: seen.append(observation) or act(observation)
    )
    target = pose_from_bridge_state(HOME)[0]
    for tick in range(4):
        decision = bench.step()
        assert (decision.reason, decision.detail, decision.tick) == (None, "", tick)
        assert (decision.index, decision.stamp_ns) == (bench.index, bench.ros_ns)
        assert decision.chunk.values.shape == (4, 7)
        expected = compose(target, decision.chunk.values[0], LIMITS)
        assert np.array_equal(decision.command.target.position, expected.target.position)
        assert np.array_equal(decision.command.target.rotation, expected.target.rotation)
        assert decision.command.gripper == expected.gripper
        target = decision.command.target
        bench.state = np.append(bridge_state_from_pose(target, 1.0)[:6], np.float32(1.0))
    assert [observation.tick for observation in seen] == [0, 1, 2, 3]


def test_a_decision_says_which_samples_it_used_when_they_came_and_how_long_it_took(bench):
    bench.wait()
    bench.sample("state", stamp_ns=bench.ros_ns - 7)
    bench.wait(5)
    bench.sample("image")
    decision = bench.tick()
    assert decision.stamps_ns == {"visual": bench.ros_ns, "proprio": bench.ros_ns - 12}
    assert decision.arrivals_ns == {"visual": bench.ros_ns, "proprio": bench.ros_ns - 5}
    assert set(decision.timings_ms) == {
        *("assembly", "model", "squash", "codec", "forward", "follow"),
    }


def test_while_active_a_delta_acts_on_the_previous_target(bench, policy, monkeypatch):
    acts(policy, monkeypatch, delta(0.01, 0.0, 0.0, 0.0, 0.0, 0.1))
    for step in (1, 2, 3):  # the arm does not move, yet not too far from its target
        state = at(bench.step())
        np.testing.assert_allclose(state[0], HOME[0] + 0.01 * step, atol=1e-6)
        np.testing.assert_allclose(state[5], 0.1 * step, atol=1e-6)


def test_anchored_to_the_measured_pose_a_delta_acts_on_that(policy, monkeypatch):
    robot = msgspec.structs.replace(WIDOWX.robot, anchor="measured")
    monkeypatch.setattr(policy, "binding", msgspec.structs.replace(WIDOWX, robot=robot))
    bench = Bench(policy)
    bench.loop.instruct("touch the red cube")
    acts(policy, monkeypatch, delta(0.02))
    for x in (0.3, 0.3, 0.2, 0.4):  # jumps further than any arm would follow
        bench.measure((0, x))
        np.testing.assert_allclose(at(bench.step())[0], x + 0.02, atol=1e-6)


def test_the_gripper_is_absolute(bench, policy, monkeypatch):
    acts(policy, monkeypatch, delta(0, 0, 0, 0, 0, 0, 0.25), delta(0, 0, 0, 0, 0, 0, 9.0))
    assert [bench.step().command.gripper for _ in range(3)] == [0.25, 1.0, 1.0]


def test_an_action_beyond_a_step_is_cut_to_one(bench, policy, monkeypatch):
    acts(policy, monkeypatch, delta(9.0, -9.0, 0.0, 0.0, 0.0, 9.0))
    expected = HOME[:6] + delta(0.05, -0.05, 0.0, 0.0, 0.0, 0.25)[:6]
    np.testing.assert_allclose(at(bench.step())[:6], expected, atol=1e-6)


# ---------------------------------------------------------------- commands within limits

SHIPPED = {
    path.stem: load_binding(path)
    for path in config_path("bindings", "widowx.yaml").parent.iterdir()
    if load_binding(path).robot
    and path.stem not in ("widowx_video", "widowx_two_cameras")  # which fit another schema
}

numbers = (
    st.sampled_from([-0.25, -0.05, 0.0, 0.05, 0.25]) | st.floats(-0.3, 0.3) | st.floats(-1e3, 1e3)
)
random_actions = st.lists(st.lists(numbers, min_size=7, max_size=7), min_size=1, max_size=8)
places = st.lists(st.floats(0.0, 1.0), min_size=6, max_size=6).map(np.array)


def start_in(limits, place) -> np.ndarray:
    """A state between one step below the limits (0) and one above (1), component by component."""
    low = np.concatenate([limits.box_low, limits.rpy_low]) - limits.step
    high = np.concatenate([limits.box_high, limits.rpy_high]) + limits.step
    return np.append(low + place * (high - low), 1.0).astype(np.float32)


def assert_within(limits, command, previous) -> None:
    """Finite, within box and angle bounds, and within one step of the previous pose."""
    position, angles = command.target.position, bridge_state_from_pose(command.target, 0.0)[3:6]
    assert (limits.box_low <= position).all() and (position <= limits.box_high).all()
    assert (limits.rpy_low - 1e-6 <= angles).all() and (angles <= limits.rpy_high + 1e-6).all()
    assert 0.0 <= command.gripper <= 1.0
    turn = rpy_from_matrix(command.target.rotation @ previous.rotation.T)
    moved = np.concatenate([position - previous.position, turn])
    assert (np.abs(moved) <= limits.step + 1e-6).all()


@pytest.mark.parametrize("binding", SHIPPED.values(), ids=SHIPPED)
@settings(max_examples=60, deadline=None)
@given(places, random_actions, st.floats(0.0, 1.0))
def test_every_command_is_within_limits_and_a_step_whatever_the_model_says_and_the_arm_does(
    trained_for, binding, place, actions, lag
):
    """The arm starts in or just outside its limits and follows its target with a lag."""
    limits = limits_of(binding.robot)
    trained_for.forget()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(trained_for, "binding", binding)
        acts(trained_for, monkeypatch, *actions)
        bench = Bench(trained_for, state=start_in(limits, place))
        bench.loop.instruct("touch the red cube")
        target = None
        for _ in actions:
            measured = pose_from_bridge_state(bench.state)[0]
            decision = bench.step()
            anchored = binding.robot.anchor == "measured" or decision.reason is not None
            if decision.command is not None:
                previous = measured if target is None or anchored else target
                assert_within(limits, decision.command, previous)
            target = None if decision.reason else decision.command.target
            if target is not None:
                behind = bridge_state_from_pose(target, 1.0) - bench.state
                bench.state = bench.state + np.float32(lag) * behind


@pytest.mark.parametrize(
    "rpy, action",
    [
        ((0.79, 0.79, -1.361), delta(0, 0, 0, 0.23, -0.209, 0.24)),
        ((1.04, 1.04, 0.007), delta(0, 0, 0, 0.249, 0.218, 0.178)),
    ],
    ids=["inside the bounds", "just outside"],
)
def test_where_clipped_angles_are_far_away_the_arm_turns_by_no_more_than_a_step(
    bench, policy, monkeypatch, rpy, action
):
    acts(policy, monkeypatch, action)
    bench.measure(*zip((3, 4, 5), rpy, strict=True))
    decision = bench.step()
    if decision.command is not None:
        assert_within(LIMITS, decision.command, pose_from_bridge_state(bench.state)[0])
    else:
        assert decision.reason == HoldReason.OUTSIDE_WORKSPACE


# ---------------------------------------------------------------- reasons to hold


def assert_holds(decision: Decision, reason: HoldReason, *words: str) -> None:
    assert decision.reason == reason, decision.detail
    assert (decision.tick, decision.chunk) == (-1, None)
    for word in words:
        assert word in decision.detail


def test_what_a_tick_will_see_is_foreseen_until_something_newer_comes(moving):
    moving.wait()
    moving.sample()
    due_ns = moving.ros_ns + 7_000_000
    foreseen = moving.loop.foreseen(moving.index + 1, due_ns)
    assert {int(f.stamps_ns[-1]) for f in foreseen.frames.values()} == {moving.ros_ns}
    again = moving.loop.foreseen(moving.index + 1, due_ns)
    assert again.tick == foreseen.tick and again.frames.keys() == foreseen.frames.keys()
    moving.wait(5_000_000)
    moving.sample("image")
    newer_ns = moving.ros_ns
    moving.wait(2_000_000)
    decision = moving.tick()
    assert decision.tick == foreseen.tick and decision.stamps_ns["visual"] == newer_ns


def test_nothing_is_foreseen_where_nothing_will_be_decided(bench):
    assert bench.loop.foreseen(1, bench.ros_ns) is None  # no sample yet
    bench.step()
    bench.loop.hold(bench.index, bench.ros_ns, HoldReason.STOPPED, "by hand")
    assert bench.loop.foreseen(bench.index + 1, bench.ros_ns + TICK) is None


def test_without_input_it_waits_and_names_the_signals(bench):
    assert_holds(bench.tick(), HoldReason.WAITING_FOR_INPUT, "no sample yet of 'image', 'state'")
    bench.sample("image")
    assert_holds(bench.tick(), HoldReason.WAITING_FOR_INPUT, "no sample yet of 'state'")
    bench.sample("state")
    assert bench.tick().reason is None


def test_samples_later_than_the_tick_are_waited_for(bench):
    bench.sample()
    decision = bench.loop.tick(1, bench.ros_ns - 1)
    assert_holds(decision, HoldReason.WAITING_FOR_INPUT, "no sample at or before the tick")


@pytest.mark.parametrize("old", ["image", "state"])
def test_input_that_is_stale_by_its_stamp_holds(moving, old):
    for _ in range(2):
        moving.wait()
        moving.sample("state" if old == "image" else "image")
        assert moving.tick().reason is None
    moving.wait()
    moving.sample("state" if old == "image" else "image")
    assert_holds(
        moving.tick(),
        HoldReason.STALE_INPUT,
        f"signal {old!r}: newest sample is 0.60 s old, expected at most 0.5 s",
    )


def test_a_fresh_message_of_an_old_sample_is_stale(bench):
    bench.sample("image")
    bench.sample("state", stamp_ns=bench.ros_ns - 600_000_000)
    assert_holds(
        bench.tick(), HoldReason.STALE_INPUT, "signal 'state': newest sample is 0.60 s old"
    )


def test_input_that_is_stale_by_the_steady_clock_holds_though_the_robots_clock_stands(moving):
    moving.steady_ns += 600_000_000
    assert_holds(moving.tick(), HoldReason.STALE_INPUT, "newest sample is 0.60 s old")


@pytest.mark.parametrize("signal", ["image", "state"])
def test_a_stamp_from_the_future_holds_and_is_not_kept(moving, signal):
    moving.wait()
    moving.sample()
    moving.sample(signal, stamp_ns=moving.ros_ns + SECOND)
    assert_holds(
        moving.tick(),
        HoldReason.BAD_INPUT,
        f"signal {signal!r}: expected a stamp no later than the clock {moving.ros_ns} ns, got "
        f"{moving.ros_ns + SECOND} ns; synchronise the clocks or set use_sim_time on both sides",
    )
    assert moving.step().reason is None


def test_a_stamp_within_the_clocks_tolerance_passes(bench):
    bench.sample("image")
    bench.sample("state", stamp_ns=bench.ros_ns)
    bench.sample("state", stamp_ns=bench.ros_ns + 100_000_000)
    assert bench.tick().reason is None


@pytest.mark.parametrize("signal", ["image", "state"])
@pytest.mark.parametrize("stamp_ns", [1, -1, 99 * SECOND])
def test_a_stamp_that_goes_backward_holds(moving, signal, stamp_ns):
    moving.wait()
    moving.sample()
    moving.sample(signal, stamp_ns=stamp_ns)
    assert_holds(
        moving.tick(),
        HoldReason.BAD_INPUT,
        f"signal {signal!r}: expected a stamp after {moving.ros_ns} ns, got {stamp_ns} ns",
    )
    assert moving.step().reason is None


@pytest.mark.parametrize("signal", ["image", "state"])
def test_a_message_without_a_stamp_holds_and_says_what_it_lacks(moving, signal):
    moving.wait()
    moving.sample()
    moving.sample(signal, stamp_ns=0)
    assert_holds(moving.tick(), HoldReason.BAD_INPUT, f"signal {signal!r}", "set header.stamp")
    assert moving.step().reason is None


def test_the_same_sample_again_is_no_fault(moving):
    moving.wait()
    moving.sample()
    moving.sample()
    assert moving.tick().reason is None and not moving.warnings


@pytest.mark.parametrize("index", range(7))
def test_a_state_that_is_not_finite_holds_until_the_next_good_one(moving, index):
    moving.measure((index, np.nan))
    name = WIDOWX.signals["state"].names[index]
    decision = moving.step()
    assert_holds(decision, HoldReason.BAD_INPUT, f"expected component {name!r} in", "got nan")
    assert moving.warnings == [f"input refused: {decision.detail}"]
    moving.measure()
    assert moving.step().reason is None


def test_a_state_out_of_its_range_holds(moving):
    moving.measure((0, 5.0))
    assert_holds(moving.step(), HoldReason.BAD_INPUT, "component 'x' in [-1.0, 1.0] m, got 5.0")


@pytest.mark.parametrize(
    "image, words",
    [
        (np.zeros((100, 120, 3), np.uint8), "got 120x100; set the camera to one of these"),
        (np.zeros((64, 64), np.uint8), "expected (H, W, 3) uint8 RGB, got (64, 64) uint8"),
        (np.zeros((64, 64, 3)), "expected (H, W, 3) uint8 RGB, got (64, 64, 3) float64"),
    ],
)
def test_an_image_that_is_not_what_the_binding_accepts_holds(moving, image, words):
    moving.image = image
    assert_holds(moving.step(), HoldReason.BAD_INPUT, "signal 'image'", words)


def test_an_image_that_changes_its_size_holds_until_a_reset(moving):
    moving.image = np.zeros((256, 256, 3), np.uint8)
    words = "expected images of 64x64 as before, got 256x256"
    assert_holds(moving.step(), HoldReason.BAD_INPUT, words)
    assert_holds(moving.step(), HoldReason.BAD_INPUT, words)
    moving.loop.reset()
    assert moving.step().reason is None


def test_a_message_that_could_not_be_read_holds_and_is_reported_once(moving):
    moving.wait()
    moving.sample()
    moving.loop.fault("image", "image: expected rgb8, got yuv422")
    moving.loop.fault("image", "image: expected rgb8, got yuv422")
    assert_holds(moving.tick(), HoldReason.BAD_INPUT, "image: expected rgb8, got yuv422")
    assert moving.warnings == ["input refused: image: expected rgb8, got yuv422"]


def test_a_silent_topic_holds_until_it_is_heard_and_is_reported_once(moving):
    for _ in range(3):
        moving.loop.silent("image", "/camera deadline", "/camera: no message")
        held = moving.step()
        assert held.reason is HoldReason.STALE_INPUT and held.detail == "/camera: no message"
    assert moving.step().reason is HoldReason.STALE_INPUT  # though a sample came, it stands
    assert moving.loop.inputs()["image"].refused == 0
    moving.loop.heard("/camera deadline")
    assert moving.step().reason is None
    assert [w for w in moving.warnings if "/camera" in w] == ["input silent: /camera: no message"]


def test_a_silence_that_ends_before_the_next_tick_holds_that_one(moving):
    moving.loop.silent("image", "/camera deadline", "/camera: no message")
    moving.loop.heard("/camera deadline")
    assert moving.step().reason is HoldReason.STALE_INPUT
    assert moving.step().reason is None


def test_a_silence_that_begins_while_deciding_drops_the_decision(moving, policy, monkeypatch):
    act = policy.act

    def silent_meanwhile(observation, going_on=None):
        moving.loop.silent("image", "/camera deadline", "/camera: no message")
        return act(observation)

    monkeypatch.setattr(policy, "act", silent_meanwhile)
    held = moving.step()
    assert held.reason is HoldReason.STALE_INPUT and held.detail == "/camera: no message"
    assert held.command is not None and held.chunk is None


def test_of_two_silences_both_must_end(moving):
    moving.loop.silent("image", "/camera deadline", "late")
    moving.loop.silent("image", "/camera liveliness", "gone")
    moving.loop.heard("/camera deadline")
    moving.step()
    assert moving.step().detail == "gone"
    moving.loop.heard("/camera liveliness")
    assert moving.step().reason is None


def test_an_arm_whose_pose_is_silent_is_not_led(moving):
    moving.loop.silent("state", "/joints deadline", "/joints: no message")
    with pytest.raises(GuideError, match="/joints: no message"):
        moving.loop.teleoperate(np.zeros(6))


def test_a_publisher_that_is_not_heard_holds_nothing_and_says_why_nothing_comes(bench):
    bench.loop.unheard("image", "/camera: not heard")
    bench.sample("state")
    held = bench.tick()
    assert held.reason is HoldReason.WAITING_FOR_INPUT
    assert held.detail == "no sample yet of 'image' (/camera: not heard)"
    assert bench.step().reason is None
    bench.loop.unheard("image", "/camera: not heard")
    assert bench.step().reason is None
    bench.loop.unheard("image", "/camera: not heard")
    bench.wait(3 * TICK)
    bench.sample("state")
    assert bench.tick().detail.endswith("expected at most 0.5 s (/camera: not heard)")


def test_without_an_instruction_it_holds(policy):
    bench = Bench(policy)
    assert_holds(bench.step(), HoldReason.NO_INSTRUCTION, "publish one on ~/instruction")
    bench.loop.instruct("touch the red cube")
    assert bench.step().reason is None


@pytest.mark.parametrize(
    "component, value",
    [(0, 0.51), (0, 0.04), (1, 0.31), (2, 0.36), (3, 1.06), (4, -1.06), (5, 1.83)],
)
def test_a_measured_pose_further_outside_the_workspace_than_a_step_holds(bench, component, value):
    bench.measure((component, value))
    decision = bench.step()
    assert_holds(decision, HoldReason.OUTSIDE_WORKSPACE, "move the arm inside")
    assert decision.command is None
    bench.measure()
    assert bench.step().reason is None


def test_a_measured_pose_within_a_step_outside_the_box_is_brought_back(bench, policy, monkeypatch):
    acts(policy, monkeypatch, delta(0.05))
    bench.measure((0, 0.48))
    np.testing.assert_allclose(bench.step().command.target.position[0], LIMITS.box_high[0])


@pytest.mark.parametrize("component, value", [(0, 0.2), (1, 0.1), (4, 0.5), (5, -0.5)])
def test_target_and_measured_pose_that_parted_hold_then_start_from_the_measured_pose(
    moving, policy, monkeypatch, component, value
):
    acts(policy, monkeypatch, delta())
    moving.measure((component, value))
    decision = moving.step()
    assert_holds(decision, HoldReason.PARTED, "limits 0.08 m, 0.4 rad", "the arm does not follow")
    np.testing.assert_allclose(at(decision)[:6], moving.state[:6], atol=1e-6)
    following = moving.step()
    assert (following.reason, following.tick) == (None, 0)
    np.testing.assert_allclose(at(following)[:6], moving.state[:6], atol=1e-6)


def test_a_sample_that_lags_behind_what_is_seen_with_it_holds(trained_for, policy, monkeypatch):
    """Each is young enough by itself; only where the binding says so."""
    image = msgspec.structs.replace(WIDOWX.signals["image"], max_skew_s=0.05)
    strict = msgspec.structs.replace(WIDOWX, signals={**WIDOWX.signals, "image": image})
    for binding, lag_ns, reason in (
        (strict, 60_000_000, HoldReason.STALE_INPUT),
        (strict, 50_000_000, None),
        (WIDOWX, 60_000_000, None),
    ):
        monkeypatch.setattr(policy, "binding", binding)
        bench = Bench(policy)
        bench.loop.instruct("touch it")
        bench.wait()
        bench.sample("image", stamp_ns=bench.ros_ns - lag_ns)
        bench.sample("state")
        decision = bench.tick()
        assert decision.reason is reason
        assert ("'visual': its sample is 0.060 s older" in decision.detail) == (reason is not None)


def parted(bench) -> Decision:
    """The arm follows a decision, then is found elsewhere."""
    bench.measure()
    assert bench.step().reason is None
    bench.measure((1, 0.1))
    return bench.step()


def test_an_arm_that_parts_again_and_again_is_held_until_start(moving, policy, monkeypatch):
    acts(policy, monkeypatch, delta())
    for _ in range(2):
        assert_holds(parted(moving), HoldReason.PARTED, "the arm does not follow")
    assert_holds(parted(moving), HoldReason.PARTED, "for the 3rd time; free it, then ~/start")
    for _ in range(3):
        assert_holds(moving.step(), HoldReason.PARTED)
    moving.unblock(HoldReason.PARTED)
    assert moving.step().reason is None


def test_an_arm_that_parts_now_and_then_starts_afresh_each_time(moving, policy, monkeypatch):
    acts(policy, monkeypatch, delta())
    for _ in range(5):
        assert_holds(parted(moving), HoldReason.PARTED)
        moving.measure()
        for _ in range(16):
            assert moving.step().reason is None


def raising(error: Exception):
    def act(observation, going_on=None):
        raise error

    return act


def test_a_model_that_raises_holds_and_the_next_good_decision_starts_afresh(
    moving, policy, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(policy, "act", raising(RuntimeError("out of memory")))
        assert_holds(moving.step(), HoldReason.MODEL_ERROR, "RuntimeError: out of memory")
    decision = moving.step()
    assert (decision.reason, decision.tick) == (None, 0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_action_that_is_not_finite_holds(moving, policy, monkeypatch, value):
    acts(policy, monkeypatch, delta(0.0, value))
    assert_holds(moving.step(), HoldReason.BAD_ACTION, "action: expected finite numbers")


def test_a_model_slower_than_the_age_of_its_inputs_allows_holds(moving, policy, monkeypatch):
    act = policy.act

    def slow(observation, going_on=None):
        moving.wait(600_000_000)
        return act(observation)

    monkeypatch.setattr(policy, "act", slow)
    decision = moving.step()
    assert_holds(decision, HoldReason.OVERRUN, "'image': newest sample is 0.60 s old", "'state'")
    assert decision.command is None, "the measured pose is too old to be sent anywhere"


def test_a_slow_model_is_in_time_where_new_samples_came_meanwhile(policy, monkeypatch):
    bench, act = Bench(policy, timeout_s=1.0), policy.act
    bench.loop.instruct("touch the red cube")

    def slow(observation, going_on=None):
        bench.wait(600_000_000)
        bench.sample()
        return act(observation)

    monkeypatch.setattr(policy, "act", slow)
    assert bench.step().reason is None


def test_a_reset_while_deciding_drops_the_decision(moving, policy, monkeypatch):
    act = policy.act
    with monkeypatch.context() as patch:
        patch.setattr(policy, "act", lambda o, *_: moving.loop.reset() or act(o))
        decision = moving.step()
    assert_holds(decision, HoldReason.INTERRUPTED)
    assert decision.command is None
    assert_holds(moving.tick(), HoldReason.WAITING_FOR_INPUT)
    assert moving.step().tick == 0


def test_a_reset_starts_over_from_the_measured_pose_with_no_history(moving, policy, monkeypatch):
    acts(policy, monkeypatch, delta())
    moving.loop.reset()
    moving.measure((0, 0.2))
    decision = moving.step()
    assert (decision.reason, decision.tick) == (None, 0)
    np.testing.assert_allclose(at(decision)[:6], moving.state[:6], atol=1e-6)


# ---------------------------------------------------------------- the stop command


def test_the_first_hold_after_motion_carries_one_command_at_the_measured_pose_later_ones_none(
    moving, policy
):
    gripper = moving.step().command.gripper
    for hold in range(4):
        moving.measure((0, 0.31))
        moving.wait()
        moving.sample()
        moving.loop.fault("image", "cannot be read")
        decision = moving.tick()
        assert_holds(decision, HoldReason.BAD_INPUT)
        if hold:
            assert decision.command is None
            continue
        np.testing.assert_allclose(at(decision)[:6], moving.state[:6], atol=1e-6)
        assert decision.command.gripper == gripper


def test_before_any_motion_a_hold_carries_no_command(bench, policy, monkeypatch):
    monkeypatch.setattr(policy, "act", raising(RuntimeError("boom")))
    bench.wait()
    bench.sample()
    assert_holds(decision := bench.tick(), HoldReason.MODEL_ERROR)
    assert decision.command is None


def test_a_hold_whose_measured_pose_is_too_old_carries_no_command(moving):
    moving.wait(600_000_000)
    moving.sample("image")
    decision = moving.tick()
    assert_holds(decision, HoldReason.STALE_INPUT, "'state'")
    assert decision.command is None


def test_a_stale_camera_still_stops_the_arm_where_it_is(moving):
    moving.wait(600_000_000)
    moving.measure((1, 0.05))
    moving.sample("state")
    decision = moving.tick()
    assert_holds(decision, HoldReason.STALE_INPUT, "'image'")
    np.testing.assert_allclose(at(decision)[:6], moving.state[:6], atol=1e-6)


def test_a_hold_that_the_caller_asks_for_stops_the_arm_and_the_next_good_tick_starts_afresh(moving):
    decision = moving.loop.hold(9, moving.ros_ns, HoldReason.CLOCK_STOPPED, "no tick for 1 s")
    assert_holds(decision, HoldReason.CLOCK_STOPPED, "no tick for 1 s")
    assert (decision.index, decision.stamp_ns) == (9, moving.ros_ns)
    np.testing.assert_allclose(at(decision)[:6], HOME[:6], atol=1e-6)
    again = moving.loop.hold(10, moving.ros_ns, HoldReason.DEACTIVATED, "")
    assert again.command is None
    assert moving.step().tick == 0


def test_after_a_hold_the_target_starts_from_the_measured_pose(moving, policy, monkeypatch):
    acts(policy, monkeypatch, delta(0.03))
    for _ in range(2):
        moving.step()
    moving.measure((0, 0.25))
    moving.wait()
    moving.sample()
    moving.loop.fault("image", "cannot be read")
    assert_holds(moving.tick(), HoldReason.BAD_INPUT)
    decision = moving.step()
    assert (decision.reason, decision.tick) == (None, 0)
    np.testing.assert_allclose(at(decision)[0], 0.25 + 0.03, atol=1e-6)


def test_after_a_hold_the_policy_sees_nothing_from_before_it(moving, policy, monkeypatch):
    seen = []
    act = policy.act
    monkeypatch.setattr(policy, "act", lambda o, *_: seen.append(o.frames["proprio"]) or act(o))
    moving.step()
    moving.loop.fault("image", "cannot be read")
    assert_holds(moving.step(), HoldReason.BAD_INPUT)
    moving.step()
    assert [frames.missing.tolist() for frames in seen] == [[False, False], [True, False]]
    assert seen[1].stamps_ns.tolist() == [moving.ros_ns, moving.ros_ns]


@pytest.mark.parametrize("fault", ["raises", "not finite", "slow"])
def test_a_lasting_fault_of_the_model_stops_the_arm_once_then_is_silent(
    moving, policy, monkeypatch, fault
):
    if fault == "raises":
        monkeypatch.setattr(policy, "act", raising(RuntimeError("boom")))
    elif fault == "not finite":
        acts(policy, monkeypatch, np.full(7, np.nan))
    else:

        def slow(observation, going_on=None):
            moving.wait(600_000_000)
            moving.sample("state")

        monkeypatch.setattr(policy, "act", slow)
    holds = [moving.step() for _ in range(3)]
    assert all(hold.reason for hold in holds)
    assert [hold.command is not None for hold in holds] == [True, False, False]


def test_a_new_instruction_at_the_tick_of_a_fault_does_not_keep_the_arm_from_being_stopped(moving):
    moving.wait()
    moving.sample()
    moving.loop.instruct("touch the blue cube")
    moving.loop.fault("image", "cannot be read")
    decision = moving.tick()
    assert_holds(decision, HoldReason.BAD_INPUT)
    assert decision.command is not None


# ---------------------------------------------------------------- between decisions

PERIOD = SECOND // 50


def motions(bench, count: int) -> list:
    """What there is to publish at the command rate, `count` times."""
    found = []
    for _ in range(count):
        bench.wait(PERIOD)
        found.append(bench.loop.motion())
    return found


def test_what_is_decided_on_the_same_picture_again_is_followed_no_longer(moving):
    moving.wait()
    moving.sample("state")
    assert moving.tick().reason is None  # the picture is from the tick before
    *others, last = motions(moving, 11)
    assert all(isinstance(motion, Motion) for motion in others)  # till 0.4 s after the picture
    assert last.reason == HoldReason.TIMEOUT


def test_before_the_first_decision_nothing_is_to_be_published(bench):
    assert bench.loop.motion() is None
    bench.sample()
    assert bench.loop.motion() is None


def test_between_decisions_set_points_lead_from_the_measured_pose_to_the_target(
    bench, policy, monkeypatch
):
    acts(policy, monkeypatch, delta(0.02, 0, 0, 0, 0, 0.1, 0.5))
    decision = bench.step()
    image_ns, computed_ns = bench.ros_ns, bench.ros_ns
    led = motions(bench, 15)
    xs = [motion.set_point.pose.position[0] for motion in led]
    assert HOME[0] < xs[0] < HOME[0] + 0.005 and xs == sorted(xs)
    np.testing.assert_allclose(xs[-1], decision.command.target.position[0], atol=1e-6)
    assert {motion.decision for motion in led} == {bench.index}
    assert {motion.image_stamp_ns for motion in led} == {image_ns}
    assert {motion.computed_ns for motion in led} == {computed_ns}
    assert {motion.gripper for motion in led} == {0.5}
    assert led[3].set_point.linear[0] > 0.01 and led[3].set_point.angular[2] > 0.1


def test_when_no_newer_decision_comes_the_arm_is_stopped_once_at_the_measured_pose(moving):
    """0.4 s from the stamp of the picture, on whichever clock has gone further."""
    ended = motions(moving, 22)
    assert all(isinstance(motion, Motion) for motion in ended[:20])
    assert_holds(ended[20], HoldReason.TIMEOUT, "its picture is older than decision_timeout 0.4 s")
    np.testing.assert_allclose(at(ended[20])[:6], moving.state[:6], atol=1e-6)
    assert ended[21] is None
    decision = moving.step()
    assert (decision.reason, decision.tick) == (None, 0)


def test_the_timeout_counts_from_the_pictures_stamp_and_not_from_the_decision(bench):
    bench.wait()
    bench.sample()
    bench.wait(10 * PERIOD)
    bench.sample("state")
    assert bench.tick().reason is None
    ended = motions(bench, 11)
    assert isinstance(ended[9], Motion)
    assert_holds(ended[10], HoldReason.TIMEOUT)


def test_the_timeout_runs_on_the_steady_clock_though_the_robots_clock_stands(moving):
    moving.steady_ns += 410_000_000
    assert_holds(moving.loop.motion(), HoldReason.TIMEOUT)


def test_a_decision_whose_picture_is_too_old_already_is_not_followed(bench, policy, monkeypatch):
    act = policy.act

    def slow(observation, going_on=None):
        bench.wait(450_000_000)
        return act(observation)

    monkeypatch.setattr(policy, "act", slow)
    assert_holds(bench.step(), HoldReason.OVERRUN, "decision_timeout 0.4 s")
    assert bench.loop.motion() is None


def test_a_decision_is_followed_no_longer_than_its_chunk(policy):
    bench = Bench(policy, timeout_s=30.0)
    bench.loop.instruct("touch the red cube")
    horizon = bench.step().chunk.horizon
    bench.wait(horizon * TICK)
    assert isinstance(bench.loop.motion(), Motion)
    bench.wait(PERIOD)
    assert_holds(bench.loop.motion(), HoldReason.TIMEOUT, "its action chunk has ended")


def test_a_picture_that_the_schema_keeps_for_some_ticks_may_be_older_by_these(
    bench, policy, monkeypatch
):
    act, seen = policy.act, []

    def kept(observation, going_on=None):
        chunk = act(observation)
        seen.append(chunk.stamps_ns["visual"])
        stamps = {**chunk.stamps_ns, "visual": seen[0]}
        return dataclasses.replace(chunk, stamps_ns=stamps, ages={"visual": len(seen) - 1})

    monkeypatch.setattr(policy, "act", kept)
    for _ in range(3):  # the last one acts on the picture of two ticks before
        bench.step()
    bench.wait(400_000_000)
    assert isinstance(bench.loop.motion(), Motion)
    bench.wait(PERIOD)
    assert_holds(bench.loop.motion(), HoldReason.TIMEOUT)


def test_a_hold_ends_the_motion(moving):
    moving.loop.fault("image", "cannot be read")
    assert_holds(moving.step(), HoldReason.BAD_INPUT)
    assert moving.loop.motion() is None


def test_a_hold_between_ticks_drops_what_the_model_is_deciding(moving, policy, monkeypatch):
    act = policy.act

    def slow(observation, going_on=None):
        moving.steady_ns += 410_000_000
        assert_holds(moving.loop.motion(), HoldReason.TIMEOUT)
        moving.sample()
        return act(observation)

    with monkeypatch.context() as patch:
        patch.setattr(policy, "act", slow)
        assert_holds(moving.step(), HoldReason.INTERRUPTED)
    assert moving.loop.motion() is None
    assert moving.step().tick == 0


def test_a_block_stops_the_arm_once_and_lasts_until_it_is_undone(moving):
    block = (7, moving.ros_ns, HoldReason.ESTOP, "emergency stop")
    stopped = moving.loop.block(*block)
    assert_holds(stopped, HoldReason.ESTOP, "emergency stop")
    np.testing.assert_allclose(at(stopped)[:6], moving.state[:6], atol=1e-6)
    assert moving.loop.block(*block) is None and moving.loop.motion() is None
    for _ in range(2):
        assert_holds(held := moving.step(), HoldReason.ESTOP, "emergency stop")
        assert held.command is None
    moving.unblock(HoldReason.ESTOP)
    assert moving.step().reason is None


def test_two_blocks_must_both_be_undone(moving):
    for reason in (HoldReason.STOPPED, HoldReason.DEADMAN):
        moving.loop.block(1, moving.ros_ns, reason, str(reason))
    moving.unblock(HoldReason.STOPPED)
    assert_holds(moving.step(), HoldReason.DEADMAN)
    moving.unblock(HoldReason.DEADMAN)
    moving.unblock(HoldReason.DEADMAN)
    assert moving.step().reason is None


def test_a_block_while_deciding_drops_the_decision_and_is_told(moving, policy, monkeypatch):
    act = policy.act

    def estop(observation, going_on=None):
        assert moving.loop.block(1, moving.ros_ns, HoldReason.ESTOP, "stop").command is not None
        return act(observation)

    monkeypatch.setattr(policy, "act", estop)
    assert_holds(moving.step(), HoldReason.ESTOP, "stop")
    assert moving.loop.motion() is None


@pytest.mark.parametrize("missing", ["speed_limits", "acceleration_limits"])
def test_an_arm_without_limits_of_motion_is_refused(policy, monkeypatch, missing):
    robot = msgspec.structs.replace(WIDOWX.robot, **{missing: None})
    monkeypatch.setattr(policy, "binding", msgspec.structs.replace(WIDOWX, robot=robot))
    with pytest.raises(BindingError, match=f"robot: expected {missing}"):
        Bench(policy)
    ControlLoop(policy, lambda: Instant(0, 0), print, unsafe=True)


# ---------------------------------------------------------------- chunks


def chunks(policy, monkeypatch, bench, delay_ns: int = 0, *, broken: float | None = None) -> None:
    """Decisions after `delay_ns`, in which the arm follows the last one: step n is dx = n mm."""

    def act(observation, going_on=None) -> ActionChunk:
        rows = np.zeros((4, 7), np.float32)
        rows[:, 0] = (bench.loop.steps + np.arange(4)) / 1e3
        during(bench, delay_ns)
        if broken is not None:
            rows[3, 0] = broken
        stamps = {"visual": int(observation.frames["visual"].stamps_ns[-1])}
        return ActionChunk("action", observation.tick, rows, stamps_ns=stamps)

    monkeypatch.setattr(policy, "act", act)


def during(bench, ns: int) -> list[float]:
    """Time goes by: commands at their rate, samples of an arm that follows; the targets' x."""
    targets = []
    for _ in range(ns // PERIOD):
        bench.wait(PERIOD)
        motion = bench.loop.motion()
        if isinstance(motion, Motion):
            bench.state = np.append(coordinates_from_pose(motion.set_point.pose), 1.0)
            targets.append(float(bench.state[0]))
        bench.sample()
    return targets


def test_receding_carries_out_the_whole_chunk_before_it_decides_again(policy, monkeypatch):
    bench = Bench(policy, timeout_s=2.0, execution="receding")
    bench.loop.instruct("touch the red cube")
    chunks(policy, monkeypatch, bench)
    decided = []
    for _ in range(9):
        bench.sample()
        decision = bench.tick()
        assert decision.reason is None, decision.detail
        decided.append(decision.chunk is not None)
        during(bench, TICK)
    assert decided == [True, False, False, False] * 2 + [True]
    # 0 + 1 + 2 + 3 mm of the decision at tick 0, 4 + ... + 7 of the one at tick 4, 8 of the last.
    np.testing.assert_allclose(bench.state[0], HOME[0] + 0.036, atol=2e-3)


@pytest.mark.parametrize("execution", ["rtc", "temporal_ensemble"])
@pytest.mark.parametrize("delay_ticks", [0, 1, 2])
def test_while_a_decision_is_made_the_last_one_goes_on_and_no_step_is_lost_or_done_twice(
    policy, monkeypatch, execution, delay_ticks
):
    """Decisions agree about each step, so the arm's way is the sum of steps, whatever they take."""
    bench = Bench(policy, timeout_s=5.0, execution=execution)
    bench.loop.instruct("touch the red cube")
    chunks(policy, monkeypatch, bench, delay_ticks * TICK)
    bench.sample()
    way = []
    for _ in range(4):
        decision = bench.tick()
        assert decision.reason is None, decision.detail
        way += during(bench, TICK)
    steps = bench.loop.steps
    assert steps >= 4
    np.testing.assert_allclose(way[-1], HOME[0] + sum(range(steps)) / 1e3, atol=steps / 1e3 + 1e-6)
    assert way == sorted(way)


@pytest.mark.parametrize("execution, delay_ticks", [("rtc", 1), ("rtc", 0), ("receding", 1)])
def test_a_policy_is_told_what_goes_on_and_a_chunk_drawn_to_go_on_is_not_mixed(
    policy, monkeypatch, execution, delay_ticks
):
    """Decision k says dx = k mm of every step, and is told what is left of the one before."""
    bench = Bench(policy, timeout_s=5.0, execution=execution)
    bench.loop.instruct("touch the red cube")
    told, after = [], []

    def act(observation, going_on=None) -> ActionChunk:
        told.append(going_on)
        rows = np.zeros((4, 7), np.float32)
        rows[:, 0] = len(told) / 1e3
        during(bench, delay_ticks * TICK)
        stamps = {"visual": int(observation.frames["visual"].stamps_ns[-1])}
        return ActionChunk("action", observation.tick, rows, stamps_ns=stamps, continues=going_on)

    monkeypatch.setattr(policy, "act", act)
    bench.sample()
    for _ in range(3):
        decision = bench.tick()
        assert decision.reason is None, decision.detail
        during(bench, TICK)
        after.append(bench.state[0])
    if execution == "receding":
        assert told == [None]  # its rows are carried out before the next decision
        return
    # A step begins just before each picture: it counts as not begun, and is frozen with the others.
    assert told[0] is None and [going_on.frozen for going_on in told[1:]] == [1, delay_ticks + 1]
    assert [len(going_on.rows) for going_on in told[1:]] == [3, 3 - delay_ticks]
    for k, going_on in enumerate(told[1:], start=1):
        np.testing.assert_allclose(going_on.rows[:, 0], k / 1e3, rtol=1e-6)
    steps = [[1.0, 1.0, 2.0], [1.0, 1.0 + 1.0, 2.0 + 2.0]][delay_ticks]
    np.testing.assert_allclose(np.diff([HOME[0], *after]) * 1e3, steps, atol=0.1)


def test_a_chunk_with_one_number_that_is_not_finite_is_not_followed_at_all(policy, monkeypatch):
    bench = Bench(policy, timeout_s=2.0, execution="receding")
    bench.loop.instruct("touch the red cube")
    chunks(policy, monkeypatch, bench, broken=np.nan)
    bench.sample()
    assert_holds(bench.tick(), HoldReason.BAD_ACTION, "action: expected finite numbers")
    assert bench.loop.motion() is None


def test_after_a_hold_nothing_of_an_old_chunk_is_carried_out(policy, monkeypatch):
    bench = Bench(policy, timeout_s=2.0, execution="receding")
    bench.loop.instruct("touch the red cube")
    chunks(policy, monkeypatch, bench)
    bench.sample()
    assert bench.tick().reason is None
    bench.loop.fault("image", "cannot be read")
    during(bench, TICK)
    assert_holds(bench.tick(), HoldReason.BAD_INPUT)
    assert during(bench, 3 * TICK) == [] and bench.loop.steps == 0
    decision = bench.tick()
    assert (decision.reason, decision.tick) == (None, 0) and decision.chunk is not None


def test_a_timeout_that_would_end_a_chunk_early_is_refused(policy):
    with pytest.raises(ValueError, match=r"decision_timeout: expected at least 0.8 s"):
        Bench(policy, timeout_s=0.4, execution="receding")


# ---------------------------------------------------------------- instructions


@pytest.mark.parametrize(
    "instruction, words",
    [
        ("a" * 128, "instruction: expected at most 128 tokens, got 129"),
        ("a" * 2000, "signal 'instruction': expected at most 1024 bytes of text, got more"),
        ("touch\nthe cube", "signal 'instruction': expected printable characters only"),
    ],
    ids=["tokens", "bytes", "newline"],
)
def test_a_refused_instruction_keeps_the_old_one_and_the_motion(moving, policy, instruction, words):
    moving.loop.instruct(instruction)
    decision = moving.step()
    assert (decision.reason, decision.tick) == (None, 2)
    assert policy.instruction == "touch the red cube"
    (warning,) = moving.warnings
    assert warning.startswith("instruction refused, staying with 'touch the red cube': ")
    assert words in warning


def test_a_refused_first_instruction_leaves_none(policy):
    bench = Bench(policy)
    bench.loop.instruct("a" * 200)
    assert_holds(bench.step(), HoldReason.NO_INSTRUCTION)
    assert bench.warnings[0].startswith("instruction refused, staying with none: ")


def test_a_new_instruction_takes_effect_at_the_next_tick_from_the_measured_pose(
    moving, policy, monkeypatch
):
    acts(policy, monkeypatch, delta())
    moving.measure((0, 0.2))
    moving.loop.instruct("touch the blue cube")
    decision = moving.step()
    assert (decision.reason, decision.tick) == (None, 0)
    assert policy.instruction == "touch the blue cube"
    np.testing.assert_allclose(at(decision)[:6], moving.state[:6], atol=1e-6)


def test_of_several_instructions_before_a_tick_the_last_one_counts(bench, policy):
    bench.loop.instruct("touch the green cube")
    assert bench.step().reason is None
    assert policy.instruction == "touch the green cube"


def test_a_hold_keeps_the_instruction(moving, policy):
    moving.loop.fault("image", "cannot be read")
    assert moving.step().reason == HoldReason.BAD_INPUT
    assert moving.step().reason is None
    assert policy.instruction == "touch the red cube"


def test_a_binding_without_a_measured_pose_is_refused(policy, monkeypatch):
    sources = msgspec.structs.replace(WIDOWX.sources, ros={"image": WIDOWX.sources.ros["image"]})
    monkeypatch.setattr(policy, "binding", msgspec.structs.replace(WIDOWX, sources=sources))
    with pytest.raises(ValueError) as error:
        Bench(policy)
    assert str(error.value) == (
        "binding: expected a sources.ros entry of type joint_states or pose; "
        "the node needs the pose"
    )


# ---------------------------------------------------------------- led otherwise

AWAY = (0.3, 0.05, 0.2, 0.0, 0.0, 0.5)


def led(bench, periods: int, speed: np.ndarray | None = None) -> list:
    """What is published while an arm that obeys is led: its state is the last set-point."""
    found = []
    for _ in range(periods):
        bench.wait(PERIOD)
        bench.sample("state")
        if speed is not None:
            bench.loop.teleoperate(speed)
        found.append(bench.loop.motion())
        if isinstance(found[-1], Motion):
            pose = found[-1].set_point.pose
            bench.state = np.float32(bridge_state_from_pose(pose, found[-1].gripper))
    return found


def test_the_arm_is_led_to_a_declared_pose_and_stays_until_the_policy_is_let_on(moving):
    held = moving.loop.go_to(HoldReason.HOME, AWAY)
    assert held.reason == HoldReason.HOME and held.command is not None
    found = led(moving, 200)
    np.testing.assert_allclose(moving.state[:6], AWAY, atol=2e-3)
    ends = [one for one in found if isinstance(one, Decision)]
    assert [end.reason for end in ends] == [HoldReason.HOME] and ends[0].command is not None
    assert found[-1] is None
    assert moving.step().reason == HoldReason.HOME
    moving.unblock(HoldReason.HOME)
    assert moving.step().reason is None


def test_ticks_on_the_way_do_not_stop_it(moving):
    moving.loop.go_to(HoldReason.PARK, AWAY)
    led(moving, 10)
    decision = moving.step()
    assert (decision.reason, decision.command) == (HoldReason.PARK, None)
    assert isinstance(led(moving, 1)[0], Motion)


def test_who_lets_the_policy_on_halfway_ends_the_motion_at_once(moving):
    moving.loop.go_to(HoldReason.HOME, AWAY)
    led(moving, 10)
    moving.wait(PERIOD)
    moving.sample("state")
    held = moving.unblock(HoldReason.HOME)
    assert (held.reason, held.halts) == (HoldReason.INTERRUPTED, True)
    np.testing.assert_allclose(held.command.target.position, moving.state[:3], atol=1e-6)
    assert moving.unblock(HoldReason.HOME) is None
    assert moving.step().reason is None


def test_a_model_that_fails_ends_nobodys_hand(moving, policy, monkeypatch):
    def fails(*_):
        moving.loop.go_to(HoldReason.HOME, AWAY)  # while it decides
        raise RuntimeError("the model fails")

    monkeypatch.setattr(policy, "act", fails)
    assert moving.step().reason == HoldReason.HOME
    assert "the model fails" in moving.warnings[-1]
    assert isinstance(led(moving, 1)[0], Motion)
    monkeypatch.setattr(policy, "reset", fails)
    moving.loop.instruct("touch the blue cube")
    assert moving.step().reason == HoldReason.HOME
    assert isinstance(led(moving, 1)[0], Motion)
    assert moving.loop.instruction == "touch the blue cube"  # it waits


def test_a_hand_that_holds_something_goes_on_holding_it(bench, policy):
    """What it holds is known from the last command, else from where the fingers are."""
    bench.measure((6, 0.2 + 0.25 * 0.88))
    bench.sample()
    bench.loop.block(-1, bench.ros_ns, HoldReason.STOPPED, "stopped")
    bench.loop.go_to(HoldReason.HOME, AWAY)
    assert led(bench, 3)[-1].gripper == pytest.approx(0.25, abs=1e-6)
    other = Bench(policy, ros_ns=bench.ros_ns, steady_ns=bench.steady_ns)
    bench.loop.teleoperate_gripper(0.0)
    other.loop.take_over(bench.loop)
    other.measure((6, 0.9))
    other.sample()
    other.loop.go_to(HoldReason.HOME, AWAY)
    assert led(other, 3)[-1].gripper == pytest.approx(0.25, abs=1e-6)


def test_it_is_known_whose_instruction_is_followed_and_whose_was_refused(moving, policy):
    first = moving.loop.turn.taken
    assert moving.loop.turn == InstructionTurn(first, 0)
    second = moving.loop.instruct("touch the blue cube")
    assert moving.loop.turn.taken == first < second
    assert moving.step().reason is None
    assert moving.loop.turn == InstructionTurn(second, 0)
    third = moving.loop.instruct("word " * 200)
    assert moving.step().refusal
    assert moving.loop.turn == InstructionTurn(second, third)
    fourth = moving.loop.instruct("")
    moving.step()
    assert moving.loop.turn == InstructionTurn(fourth, third)


def test_an_instruction_that_the_model_reads_is_the_one_that_was_asked_for(
    moving, policy, monkeypatch
):
    seen = []
    monkeypatch.setattr(policy, "reset", lambda text: seen.append(moving.loop.instruction))
    moving.loop.instruct("touch the blue cube")
    moving.step()
    assert seen[0] == "touch the blue cube"


def test_a_hand_takes_over_at_once_and_the_policy_goes_on_from_where_it_let_go(moving):
    speed = np.array([0.1, 0, 0, 0, 0, 0])
    held = moving.loop.teleoperate(speed)
    assert held.reason == HoldReason.TELEOPERATED
    x = moving.state[0]
    found = led(moving, 25, speed)
    assert all(isinstance(one, Motion) for one in found) and moving.state[0] > x + 0.03
    assert moving.step().reason == HoldReason.TELEOPERATED
    moving.loop.teleoperate_gripper(0.2)
    found = led(moving, 25)
    end = next(one for one in found if isinstance(one, Decision))
    assert end.reason == HoldReason.TELEOPERATED and end.command.gripper == pytest.approx(0.2)
    decision = moving.step()
    assert decision.reason is None
    start = decision.command.target.position - moving.state[:3]
    assert (np.abs(start) <= LIMITS.step[:3] + 1e-6).all()


@pytest.mark.parametrize(
    "reason", [HoldReason.ESTOP, HoldReason.DEADMAN, HoldReason.SECOND_PUBLISHER]
)
def test_what_forbids_motion_ends_it_and_keeps_it_from_beginning(moving, reason):
    moving.loop.go_to(HoldReason.HOME, AWAY)
    led(moving, 10)
    moving.wait(PERIOD)
    moving.sample("state")
    held = moving.loop.block(-1, moving.ros_ns, reason, "no")
    assert held.reason == reason and held.command is not None
    np.testing.assert_allclose(held.command.target.position, moving.state[:3], atol=1e-6)
    assert led(moving, 5) == [None] * 5
    for call in (
        lambda: moving.loop.go_to(HoldReason.HOME, AWAY),
        lambda: moving.loop.teleoperate(np.zeros(6)),
    ):
        with pytest.raises(GuideError, match="no"):
            call()


def test_a_stopped_arm_may_be_led_and_stops_again_when_it_is_told_to(moving):
    moving.loop.block(-1, moving.ros_ns, HoldReason.STOPPED, "stopped")
    moving.loop.go_to(HoldReason.HOME, AWAY)
    assert all(isinstance(one, Motion) for one in led(moving, 10))
    assert moving.step().reason == HoldReason.HOME
    assert moving.loop.block(-1, moving.ros_ns, HoldReason.STOPPED, "stopped").command is not None
    assert led(moving, 3) == [None] * 3


def test_a_hand_does_not_move_an_arm_that_was_stopped(moving):
    moving.loop.block(-1, moving.ros_ns, HoldReason.STOPPED, "~/start goes on")
    with pytest.raises(GuideError, match="stopped: ~/start goes on"):
        moving.loop.teleoperate(np.zeros(6))
    moving.unblock(HoldReason.STOPPED)
    assert moving.loop.teleoperate(np.zeros(6)).reason == HoldReason.TELEOPERATED


def test_of_all_that_stops_the_arm_an_emergency_is_told_and_else_what_came_last(moving):
    def block(reason: HoldReason) -> HoldReason:
        moving.loop.block(-1, moving.ros_ns, reason, "no")
        return moving.step().reason

    assert block(HoldReason.STOPPED) == HoldReason.STOPPED
    assert block(HoldReason.EFFORT) == HoldReason.EFFORT
    assert block(HoldReason.ESTOP) == HoldReason.ESTOP
    assert block(HoldReason.DEADMAN) == HoldReason.ESTOP
    for reason in (HoldReason.ESTOP, HoldReason.DEADMAN):
        moving.unblock(reason)
    moving.unblock(HoldReason.EFFORT)
    moving.loop.go_to(HoldReason.HOME, AWAY)
    assert moving.step().reason == HoldReason.HOME
    assert block(HoldReason.STOPPED) == HoldReason.STOPPED


def test_a_pose_that_was_reached_and_one_that_was_not_are_told_apart(moving):
    moving.loop.go_to(HoldReason.HOME, AWAY)
    led(moving, 200)
    assert "is at the binding's home; ~/start" in moving.step().detail
    moving.loop.go_to(HoldReason.PARK, (0.3, -0.1, 0.2, 0.0, 0.0, 0.0))
    for _ in range(200):  # it does not follow
        moving.wait(PERIOD)
        moving.sample("state")
        moving.loop.motion()
    assert "did not reach the binding's park: the arm does not follow" in moving.step().detail


def test_a_pose_that_something_else_kept_the_arm_from_was_not_reached(moving):
    moving.loop.go_to(HoldReason.HOME, AWAY)
    led(moving, 3)
    moving.loop.block(-1, moving.ros_ns, HoldReason.DEADMAN, "hold the switch")
    moving.unblock(HoldReason.DEADMAN)
    told = moving.step()
    assert told.reason == HoldReason.HOME
    assert told.detail.startswith("did not reach the binding's home: hold the switch; ~/start")


def test_an_activation_under_an_instruction_that_is_refused_follows_none(moving):
    moving.loop.begin("so " * 60)
    moving.step()
    held = moving.step()
    assert held.reason == HoldReason.NO_INSTRUCTION
    assert moving.loop.instructions.refused == 1


def test_led_blindly_or_against_an_obstacle_it_holds(moving):
    moving.loop.go_to(HoldReason.HOME, AWAY)
    found = motions(moving, 40)  # no measured pose any more
    (end,) = [one for one in found if isinstance(one, Decision)]
    assert end.reason in (HoldReason.STALE_INPUT, HoldReason.PARTED)
    with pytest.raises(GuideError, match="the measured pose is not known"):
        moving.loop.go_to(HoldReason.HOME, AWAY)
    moving.sample("state")
    moving.loop.go_to(HoldReason.HOME, AWAY)
    for _ in range(100):  # it does not follow
        moving.wait(PERIOD)
        moving.sample("state")
        end = moving.loop.motion()
        if isinstance(end, Decision):
            break
    assert end.reason == HoldReason.PARTED and end.command is not None


def test_speeds_that_are_not_finite_change_nothing(moving):
    moving.loop.teleoperate(np.zeros(6))
    with pytest.raises(ValueError, match="expected finite numbers"):
        moving.loop.teleoperate(np.full(6, np.nan))
    assert isinstance(led(moving, 1)[0], Motion)


# ---------------------------------------------------------------- reactions


def reacting(policy, monkeypatch, **reactions: str) -> Bench:
    """A loop whose arm is under way, fast, along x; its binding declares these reactions."""
    robot = msgspec.structs.replace(WIDOWX.robot, reactions=reactions)
    monkeypatch.setattr(policy, "binding", msgspec.structs.replace(WIDOWX, robot=robot))
    acts(policy, monkeypatch, delta(0.04))
    bench = Bench(policy)
    bench.loop.instruct("touch the red cube")
    assert bench.step().reason is None
    assert led(bench, 5)[-1].set_point.linear[0] > 0.2
    return bench


def blocked(bench, reason: HoldReason) -> Decision:
    return bench.loop.block(-1, bench.ros_ns, reason, f"because of {reason}")


def test_every_hold_tells_its_reaction(moving):
    moving.loop.fault("image", "cannot be read")
    assert moving.step().reaction is Reaction.HOLD
    assert moving.step().reaction is None
    assert blocked(moving, HoldReason.ESTOP).reaction is Reaction.HOLD
    assert moving.step().reaction is Reaction.HOLD


def test_where_no_pose_is_known_a_hold_tells_that_no_speed_is_all_it_commands(moving):
    moving.wait(600_000_000)
    moving.sample("image")
    decision = moving.tick()
    assert_holds(decision, HoldReason.STALE_INPUT)
    assert (decision.reaction, decision.command, decision.halts) == (
        Reaction.ZERO_TWIST,
        None,
        True,
    )


def test_with_zero_twist_no_pose_is_commanded_though_one_is_known(policy, monkeypatch):
    bench = reacting(policy, monkeypatch, stopped="zero_twist")
    held = blocked(bench, HoldReason.STOPPED)
    assert (held.command, held.halts, held.reaction) == (None, True, Reaction.ZERO_TWIST)
    assert led(bench, 3) == [None] * 3


def test_a_slow_stop_brakes_within_the_limits_of_acceleration_and_ends_in_the_hold(
    policy, monkeypatch
):
    bench = reacting(policy, monkeypatch, stopped="slow_stop")
    led(bench, 1)
    speed = bench.loop._follow._stream._stepper._limiter.velocity[0]  # the set-point's own
    held = blocked(bench, HoldReason.STOPPED)
    assert (held.command, held.halts, held.reaction) == (None, False, Reaction.SLOW_STOP)
    found = led(bench, 20)
    end = next(one for one in found if isinstance(one, Decision))
    braking = found[: found.index(end)]
    assert 2 <= len(braking) <= 6  # 0.35 m/s at 3.5 m/s^2, in periods of 0.02 s
    for motion in braking:
        slower = speed - motion.set_point.linear[0]
        assert 0.0 <= slower <= 3.5 * 0.02 + 1e-9 and motion.decision == -1
        speed = motion.set_point.linear[0]
    assert speed == 0.0
    assert_holds(end, HoldReason.STOPPED, "because of stopped")
    assert end.reaction is Reaction.SLOW_STOP
    np.testing.assert_allclose(at(end)[:6], bench.state[:6], atol=1e-6)
    assert found[found.index(end) + 1 :] == [None] * (20 - len(braking) - 1)


def test_ticks_while_it_brakes_go_on_braking_and_decide_nothing(policy, monkeypatch):
    bench = reacting(policy, monkeypatch, decision_timeout="slow_stop")
    held = bench.loop.hold(-1, bench.ros_ns, HoldReason.TIMEOUT, "no newer decision")
    assert held.reaction is Reaction.SLOW_STOP
    bench.sample()
    decision = bench.tick()
    assert_holds(decision, HoldReason.TIMEOUT, "no newer decision")
    assert decision.command is None and not decision.halts
    found = led(bench, 10)
    assert isinstance(found[0], Motion) and found[-1] is None
    decision = bench.step()
    assert (decision.reason, decision.tick) == (None, 0)


@pytest.mark.parametrize(
    "harder", [HoldReason.ESTOP, HoldReason.SECOND_PUBLISHER, HoldReason.EFFORT]
)
def test_a_harder_reason_ends_a_slow_stop_at_once(policy, monkeypatch, harder):
    bench = reacting(policy, monkeypatch, stopped="slow_stop")
    blocked(bench, HoldReason.STOPPED)
    assert isinstance(led(bench, 1)[0], Motion)
    bench.wait(PERIOD)
    bench.sample("state")
    held = blocked(bench, harder)
    assert_holds(held, harder)
    np.testing.assert_allclose(at(held)[:6], bench.state[:6], atol=1e-6)
    assert led(bench, 5) == [None] * 5


def test_a_second_reason_to_stop_slowly_does_not_begin_it_again(policy, monkeypatch):
    bench = reacting(policy, monkeypatch, stopped="slow_stop", deadman_released="slow_stop")
    blocked(bench, HoldReason.STOPPED)
    first = led(bench, 1)[0].set_point.linear[0]
    held = blocked(bench, HoldReason.DEADMAN)
    assert_holds(held, HoldReason.DEADMAN)
    assert held.command is None
    assert led(bench, 1)[0].set_point.linear[0] < first
    ends = [one for one in led(bench, 10) if isinstance(one, Decision)]
    assert [end.reason for end in ends] == [HoldReason.STOPPED]


def test_a_slow_stop_whose_measured_pose_is_lost_commands_no_speed_at_once(policy, monkeypatch):
    bench = reacting(policy, monkeypatch, stopped="slow_stop")
    blocked(bench, HoldReason.STOPPED)
    bench.steady_ns += 600_000_000
    end = bench.loop.motion()
    assert_holds(end, HoldReason.STOPPED)
    assert (end.command, end.halts, end.reaction) == (None, True, Reaction.ZERO_TWIST)
    assert bench.loop.motion() is None


def test_where_the_measured_pose_is_not_known_nothing_brakes_slowly(policy, monkeypatch):
    bench = reacting(policy, monkeypatch, stale_input="slow_stop")
    bench.wait(600_000_000)
    bench.sample("image")
    decision = bench.tick()
    assert_holds(decision, HoldReason.STALE_INPUT)
    assert (decision.reaction, decision.halts) == (Reaction.ZERO_TWIST, True)
    assert bench.loop.motion() is None


def test_an_arm_that_is_blocked_while_it_brakes_is_held(policy, monkeypatch):
    bench = reacting(policy, monkeypatch, stopped="slow_stop")
    blocked(bench, HoldReason.STOPPED)
    bench.wait(PERIOD)
    bench.state[1] += 0.2
    bench.sample("state")
    assert_holds(bench.loop.motion(), HoldReason.PARTED, "while it brakes")
    assert bench.loop.motion() is None


def test_an_arm_at_rest_is_held_at_once_whatever_the_reaction(policy, monkeypatch):
    bench = reacting(policy, monkeypatch, stopped="slow_stop")
    acts(policy, monkeypatch, delta())
    bench.step()
    led(bench, 15)
    held = blocked(bench, HoldReason.STOPPED)
    assert held.command is not None and led(bench, 1) == [None]


def test_a_hand_that_leads_the_arm_is_braked_too(policy, monkeypatch):
    bench = reacting(policy, monkeypatch, deadman_released="slow_stop")
    bench.loop.teleoperate(np.array([0.0, 0.3, 0, 0, 0, 0]))
    led(bench, 8, np.array([0.0, 0.3, 0, 0, 0, 0]))
    assert blocked(bench, HoldReason.DEADMAN).command is None
    found = led(bench, 10)
    speeds = [one.set_point.linear[1] for one in found if isinstance(one, Motion)]
    assert speeds and speeds == sorted(speeds, reverse=True) and speeds[-1] == 0.0
    (end,) = [one for one in found if isinstance(one, Decision)]
    assert_holds(end, HoldReason.DEADMAN)
    with pytest.raises(GuideError):
        bench.loop.teleoperate(np.zeros(6))


def test_a_reset_ends_a_slow_stop(policy, monkeypatch):
    bench = reacting(policy, monkeypatch, stopped="slow_stop")
    blocked(bench, HoldReason.STOPPED)
    held = bench.loop.hold(-1, bench.ros_ns, HoldReason.INTERRUPTED, "reset")
    assert held.command is not None
    bench.loop.reset()
    assert led(bench, 3) == [None] * 3


def test_with_deactivate_the_arm_is_held_and_stays_so_until_somebody_activates(policy, monkeypatch):
    bench = reacting(policy, monkeypatch, bad_input="deactivate")
    assert bench.loop.ended == ""
    bench.loop.fault("image", "cannot be read")
    held = bench.step()
    assert_holds(held, HoldReason.BAD_INPUT)
    assert held.reaction is Reaction.DEACTIVATE and held.command is not None
    assert bench.loop.ended == "bad_input: cannot be read"
    bench.loop.reset()
    for _ in range(3):
        assert_holds(bench.step(), HoldReason.BAD_INPUT, "cannot be read")
    with pytest.raises(GuideError, match="the node deactivates itself: bad_input"):
        bench.loop.go_to(HoldReason.HOME, AWAY)
    other = Bench(policy)
    other.loop.take_over(bench.loop)
    assert other.loop.ended == bench.loop.ended
    bench.loop.rearm()
    assert bench.step().reason is None


def test_a_fault_of_the_node_itself_deactivates_it(moving):
    held = moving.loop.hold(1, moving.ros_ns, HoldReason.INTERNAL_ERROR, "KeyError: 'x'")
    assert held.reaction is Reaction.DEACTIVATE and held.command is not None
    assert moving.loop.ended == "internal_error: KeyError: 'x'"


def test_an_arm_whose_clock_jumped_is_held_where_it_was_measured_last(moving):
    """No stamp says how old that is; the steady clock does."""
    moving.ros_ns += 10 * SECOND
    held = moving.loop.hold(-1, moving.ros_ns, HoldReason.CLOCK_JUMPED, "10 s ahead")
    np.testing.assert_allclose(at(held)[:6], moving.state[:6], atol=1e-6)
    assert held.reaction is Reaction.HOLD
    assert moving.step().reason is None
    moving.ros_ns += 10 * SECOND
    moving.steady_ns += SECOND
    held = moving.loop.hold(-1, moving.ros_ns, HoldReason.CLOCK_JUMPED, "10 s ahead")
    assert (held.command, held.halts) == (None, True)


@pytest.mark.parametrize(
    "reactions, text",
    [({"stale": "hold"}, "got 'stale'"), ({"estop": "slow_stop"}, "stops at once")],
)
def test_reactions_that_cannot_be_are_refused(policy, monkeypatch, reactions, text):
    robot = msgspec.structs.replace(WIDOWX.robot, reactions=reactions)
    monkeypatch.setattr(policy, "binding", msgspec.structs.replace(WIDOWX, robot=robot))
    with pytest.raises(BindingError, match=text):
        Bench(policy)


# ---------------------------------------------------------------- how inputs come in


def test_samples_that_no_decision_saw_are_superseded_and_the_newest_is_not_yet(bench):
    def states() -> tuple[int, int, int]:
        state = bench.loop.inputs()["state"]
        return state.samples, state.superseded, state.refused

    for _ in range(3):
        bench.wait(PERIOD)
        bench.sample()
    assert states() == (3, 2, 0)
    assert bench.tick().reason is None
    assert states() == (3, 2, 0)
    bench.wait(PERIOD)
    bench.sample()
    assert states() == (4, 2, 0)
    bench.sample("state", stamp_ns=bench.ros_ns - 1)
    assert states() == (4, 2, 1)
    bench.wait(PERIOD)
    bench.sample()
    assert states() == (5, 3, 1)


def test_a_sample_that_several_decisions_saw_counts_once(moving):
    before = moving.loop.inputs()["image"]
    for _ in range(2):
        moving.wait(100_000_000)
        moving.sample("state")
        assert moving.tick().reason is None
    after = moving.loop.inputs()["image"]
    assert (after.samples, after.superseded) == (before.samples, before.superseded)
    assert moving.loop.inputs()["state"].superseded == 0


# ---------------------------------------------------------------- what is told of instructions


def test_a_refused_instruction_is_told_by_the_tick_that_refused_it_and_counted(moving):
    moving.loop.instruct("a" * 200)
    refused = moving.step()
    assert refused.reason is None
    assert refused.refusal == moving.warnings[0]
    assert moving.loop.instructions == InstructionState(1, refused.refusal)
    assert moving.step().refusal == ""
    assert moving.loop.instructions.fault, "it stands until another is taken"
    moving.loop.instruct("touch the blue cube")
    moving.step()
    assert moving.loop.instructions == InstructionState(1, "")


def test_a_refused_first_instruction_is_told_by_the_hold(policy):
    bench = Bench(policy)
    bench.loop.instruct("a" * 200)
    held = bench.step()
    assert_holds(held, HoldReason.NO_INSTRUCTION)
    assert held.refusal.startswith("instruction refused, staying with none: ")


def test_the_model_is_reset_once_for_each_beginning(bench, policy, monkeypatch):
    resets, reset = [], policy.reset
    monkeypatch.setattr(policy, "reset", lambda text: resets.append(text) or reset(text))
    bench.step(), bench.step()
    assert resets == ["touch the red cube"]
    bench.loop.instruct("touch the blue cube")
    bench.loop.fault("image", "cannot be read")
    assert_holds(bench.step(), HoldReason.BAD_INPUT)
    bench.step(), bench.step()
    assert resets[1:] == ["touch the blue cube"]
    bench.loop.fault("image", "cannot be read")
    bench.step(), bench.step()
    assert resets[2:] == ["touch the blue cube"], "after a hold it starts afresh"


def test_a_model_is_made_ready_ahead_of_a_beginning_and_no_tick_resets_it_again(
    bench, policy, monkeypatch
):
    resets, reset = [], policy.reset
    monkeypatch.setattr(policy, "reset", lambda text: resets.append(text) or reset(text))
    bench.loop.make_ready()
    assert resets == [], "the instruction has not been taken over yet"
    bench.step()
    bench.loop.make_ready()
    assert len(resets) == 1, "it goes on"
    bench.loop.fault("image", "cannot be read")
    bench.step()
    bench.wait(10 * TICK)
    bench.loop.make_ready()
    assert len(resets) == 1, "its inputs are stale"
    bench.sample()
    bench.loop.make_ready(), bench.loop.make_ready()
    assert len(resets) == 2
    decision = bench.tick()
    assert decision.reason is None and decision.tick == 0
    assert len(resets) == 2

    bench.loop.block(-1, bench.ros_ns, HoldReason.STOPPED, "by hand")
    bench.wait(), bench.sample()
    bench.loop.make_ready()
    assert len(resets) == 2, "it is stopped"


def held_with_good_input_again(bench) -> None:
    bench.step()
    bench.loop.fault("image", "cannot be read")
    assert_holds(bench.step(), HoldReason.BAD_INPUT)
    bench.wait(), bench.sample()


def test_another_instruction_than_the_one_it_was_made_ready_for_is_what_counts(bench, policy):
    held_with_good_input_again(bench)
    bench.loop.make_ready()
    bench.loop.instruct("touch the blue cube")
    assert bench.tick().instruction == policy.instruction == "touch the blue cube"


def test_a_model_that_cannot_be_made_ready_holds_at_the_tick_and_not_before(
    bench, policy, monkeypatch
):
    held_with_good_input_again(bench)
    with monkeypatch.context() as patch:
        patch.setattr(policy, "reset", raising(RuntimeError("killed")))
        bench.loop.make_ready()
        held = bench.tick()
    assert_holds(held, HoldReason.MODEL_ERROR)
    assert "killed" in held.detail
    assert bench.step().reason is None


def test_a_model_that_failed_after_its_reset_is_reset_again(bench, policy, monkeypatch):
    """It may be another process by now."""
    resets, reset = [], policy.reset
    monkeypatch.setattr(policy, "reset", lambda text: resets.append(text) or reset(text))
    with monkeypatch.context() as patch:
        patch.setattr(policy, "act", raising(RuntimeError("killed")))
        assert_holds(bench.step(), HoldReason.MODEL_ERROR)
    assert bench.step().reason is None
    assert len(resets) == 2


# ---------------------------------------------------------------- decisions that take long


@pytest.mark.parametrize("since, first_row", [(0.0, 1), (0.4, 1), (0.6, 0), (0.95, 0)])
def test_what_was_seen_as_a_step_began_shows_nothing_of_it(policy, monkeypatch, since, first_row):
    """Row 0 is for the step that began `since` before, up to its half; then for the next."""
    acts(policy, monkeypatch, delta(0.001))
    bench = Bench(policy, execution="temporal_ensemble", timeout_s=10.0)
    bench.loop.instruct("touch the red cube")
    bench.step()  # its first row begins
    begun = bench.loop.steps
    bench.wait(round(since * TICK))
    bench.sample()
    seen = bench.loop._follow.begun(bench.steady_ns)
    assert begun - seen == first_row


# ---------------------------------------------------------------- rehearsals


def test_a_rehearsal_before_each_decision_changes_nothing(policy):
    def moved(rehearses: bool) -> list[np.ndarray]:
        policy.forget()
        bench, seen, runs = Bench(policy), [], 0
        rehearsal = Rehearsal(WIDOWX, 50.0, False, "base")

        def rehearse() -> None:
            nonlocal runs
            rehearsal.run(*bench.loop.present())
            runs += 1

        policy.about_to_decide = rehearse if rehearses else lambda: None
        bench.loop.instruct("touch the red cube")
        for _ in range(4):
            seen.append(at(bench.step()))
            for _ in range(9):
                bench.wait(TICK // 10)
                motion = bench.loop.motion()
                point = motion.set_point
                seen += [point.pose.position, point.pose.rotation, point.linear, point.angular]
                seen.append(np.array([motion.gripper, motion.decision, motion.computed_ns]))
            bench.state = np.append(at_rest(motion), np.float32(1.0))
            bench.wait(-9 * (TICK // 10))
        assert runs == (4 if rehearses else 0)
        return seen

    try:
        for ours, theirs in zip(moved(True), moved(False), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    finally:
        policy.about_to_decide = lambda: None


def at_rest(motion) -> np.ndarray:
    return bridge_state_from_pose(motion.set_point.pose, 1.0)[:6]


@pytest.mark.parametrize("until", [0, 1, 2])
def test_a_rehearsal_goes_no_further_than_to_where_it_is_over(moving, monkeypatch, until):
    said, asked = [], iter([False] * until + [True] * 9)
    monkeypatch.setattr(CommandMessages, "pose", lambda self, *command: said.append(command))
    rehearsal = Rehearsal(WIDOWX, 50.0, False, "base")
    rehearsal.run(*moving.loop.present(), lambda: next(asked))
    assert bool(said) == (until == 2)
    rehearsal.run(*moving.loop.present())
    assert len(said) == 1 + (until == 2), "one that was cut short leaves nothing behind"


def test_it_is_rehearsed_only_where_a_decision_could_be_followed(moving):
    measured, now = moving.loop.present()
    assert now == Instant(moving.ros_ns, moving.steady_ns)
    np.testing.assert_array_equal(bridge_state_from_pose(measured, 1.0), HOME)
    moving.loop.block(-1, moving.ros_ns, HoldReason.STOPPED, "stopped")
    assert moving.loop.present() is None
    moving.unblock(HoldReason.STOPPED)
    assert moving.loop.present() is not None
    moving.loop.silent("image", "deadline", "no message")
    assert moving.loop.present() is None
    moving.loop.heard("deadline")
    moving.measure((0, 0.8))
    moving.wait()
    moving.sample()
    assert moving.loop.present() is None  # outside
    moving.wait(10 * SECOND)
    assert moving.loop.present() is None  # stale


def test_nothing_is_rehearsed_before_anything_was_measured(bench):
    assert bench.loop.present() is None
