"""Replay: recorded images and states fed to the running policy node over DDS, and what it answered.

Samples are published half a control tick before the tick that is to see them, so that every tick
sees the next step.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from geometry_msgs.msg import PoseStamped
from rclpy.qos import QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger

from canvas_robot.policy.policy import CanvasPolicy
from canvas_robot.ros.decisions import HoldReason
from canvas_robot.ros.description import arm_of
from canvas_robot.ros.images import image_to_msg
from canvas_robot.ros.messages import joints_to_msg, pose_to_msg, stamp_from_ns
from canvas_robot.ros.monitor import Monitor, Status
from canvas_robot.ros.status import going_on_from
from canvas_robot.signals import History
from canvas_robot.signals.binding import Binding, RosFields, RosImage, RosJoined, RosJoints
from canvas_robot.signals.pose import pose_from_bridge_state

DISCOVERY_TIMEOUT_S = 60.0
ANSWER_TIMEOUT_S = 5.0
CREEP_NS, CREEP_S = 1_000_000, 0.1  # while the node decides, its clock goes this far in this time
CLOCK_STEP_NS = 10_000_000  # /clock at 100 Hz
FIRST_STAMP_NS = 1_000_000_000
# Holds that tell of a machine that came to a halt where a simulation's clock nearly stands still
# while the node decides: they are counted on the steady clock.
LATE = (HoldReason.TIMEOUT, HoldReason.OVERRUN, HoldReason.CLOCK_STOPPED)
TRIES = 3  # of a recording whose decisions are compared


class ReplayError(RuntimeError):
    """The policy node does not answer as a replay needs."""


@dataclass(frozen=True, eq=False)
class Recording:
    """What is replayed: T steps.

    images: (T, H, W, 3) uint8 RGB. stamps_ns: (T,) int64.
    states: (T, 7) float32 Bridge V2 states; or joints: (7,) fixed arm joints (rad) and finger (m);
        or neither.
    """

    name: str
    instruction: str
    images: np.ndarray
    stamps_ns: np.ndarray
    states: np.ndarray | None = None
    joints: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, eq=False)
class Replayed:
    """One recording's replay.

    It holds the stamps its steps were given, and the node's status of each tick, in order. tries:
    how often it was replayed until no decision came too late.
    """

    recording: Recording
    stamps_ns: np.ndarray
    statuses: list[Status]
    tries: int = 1

    def step_of(self, status: Status) -> int:
        """The recording's step that was the newest at the status's tick."""
        return int(np.searchsorted(self.stamps_ns, status.values["stamp_ns"], side="right")) - 1

    @property
    def commands(self) -> int:
        """Ticks that commanded."""
        return sum(status.active for status in self.statuses)

    @property
    def was_late(self) -> bool:
        """Whether the arm was held for a decision that came too late."""
        return any(status.values["reason"] in LATE for status in self.statuses)


class SimulationClock:
    """Publishes /clock, paced by real time."""

    def __init__(self, monitor: Monitor, rate: float) -> None:
        self._monitor, self._rate = monitor, rate
        self._publisher = monitor.node.create_publisher(Clock, "/clock", QoSProfile(depth=10))
        self.now_ns = FIRST_STAMP_NS

    def advance_to(self, stamp_ns: int) -> None:
        """Returns when the clock reads `stamp_ns`; takes messages meanwhile."""
        started, start_ns = time.monotonic(), self.now_ns
        while self.now_ns < stamp_ns:
            self.now_ns = min(self.now_ns + CLOCK_STEP_NS, stamp_ns)
            self._publisher.publish(Clock(clock=stamp_from_ns(self.now_ns)))
            due = started + (self.now_ns - start_ns) / 1e9 / self._rate
            _spin_until(self._monitor, due)

    def creep_until(self, condition: Callable[[], bool], limit_ns: int) -> bool:
        """Lets the clock nearly stand still until the condition holds.

        False where it reads `limit_ns` first. It never stops, which the node would take for a
        fault.
        """
        while not condition():
            if self.now_ns + CREEP_NS > limit_ns:
                return False
            self.now_ns += CREEP_NS
            self._publisher.publish(Clock(clock=stamp_from_ns(self.now_ns)))
            self._monitor.wait_for(condition, CREEP_S)
        return True


class WallClock:
    """The system's clock, for a node that does not use simulation time."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    @property
    def now_ns(self) -> int:
        return time.time_ns()

    def advance_to(self, stamp_ns: int) -> None:
        """Returns when the clock reads `stamp_ns`; takes messages meanwhile."""
        _spin_until(self._monitor, time.monotonic() + (stamp_ns - time.time_ns()) / 1e9)

    def creep_until(self, condition: Callable[[], bool], limit_ns: int) -> bool:
        """Waits for the condition; False where the clock reads `limit_ns` first.

        This clock cannot be slowed.
        """
        return self._monitor.wait_for(condition, (limit_ns - time.time_ns()) / 1e9)


def _spin_until(monitor: Monitor, due_s: float) -> None:
    while (remaining := due_s - time.monotonic()) > 0:
        monitor.spin_once(remaining)


class Replayer:
    """Feeds recordings to one policy node.

    Args:
        monitor: listens to the node.
        binding: the node's binding, for topics and frames.
        clock: what stamps are on.
        name: of the policy node.
        tries: how often a recording is fed until no decision comes too late. More than once only on
            a simulation's clock, and where decisions are compared: what the steady clock measures
            there is the machine, not the policy.
    """

    def __init__(
        self,
        monitor: Monitor,
        binding: Binding,
        clock: SimulationClock | WallClock,
        name: str = "policy",
        tries: int = 1,
    ) -> None:
        self._tries = tries
        self._monitor, self._binding, self._clock, self._name = monitor, binding, clock, name
        node = monitor.node
        self._publishers = {}
        others = [n for n, s in binding.sources.ros.items() if isinstance(s, RosFields | RosJoined)]
        if others:
            raise ReplayError(f"binding: no recording holds the signals {', '.join(others)}")
        for source in binding.sources.ros.values():
            if isinstance(source, RosImage):
                if source.transport == "compressed":
                    raise ReplayError(
                        f"binding: topic {source.topic}: expected transport: raw, as pictures are "
                        f"replayed, got compressed"
                    )
                self._publishers["image"] = node.create_publisher(
                    Image, source.topic, QoSProfile(depth=5)
                )
            elif isinstance(source, RosJoints):
                self._publishers["joints"] = node.create_publisher(
                    JointState, source.topic, QoSProfile(depth=10)
                )
                self._joint_names = (*source.joints, source.finger)
            else:
                self._publishers["pose"] = node.create_publisher(
                    PoseStamped, source.topic, QoSProfile(depth=10)
                )
                self._publishers["gripper"] = node.create_publisher(
                    JointState, source.gripper_topic, QoSProfile(depth=10)
                )
                self._gripper_name = source.gripper
        self._instruction = node.create_publisher(
            String, f"{name}/instruction", QoSProfile(depth=1)
        )
        self._reset = node.create_client(Trigger, f"{name}/reset")

    def wait_for_node(self) -> None:
        """Returns once the node listens and ticks; raises ReplayError saying what is missing."""
        deadline = time.monotonic() + DISCOVERY_TIMEOUT_S
        while time.monotonic() < deadline:
            self._clock.advance_to(self._clock.now_ns + CLOCK_STEP_NS * 4)
            heard = all(
                p.get_subscription_count() for p in (*self._publishers.values(), self._instruction)
            )
            if heard and self._reset.service_is_ready() and self._monitor.statuses:
                return
        silent = [p.topic_name for p in self._publishers.values() if not p.get_subscription_count()]
        raise ReplayError(
            f"node {self._name!r} did not answer within {DISCOVERY_TIMEOUT_S:.0f} s "
            f"(statuses heard: {len(self._monitor.statuses)}; "
            f"topics nobody subscribes to: {silent}); "
            f"start and activate it with the binding that this replay uses, "
            f"in the same ROS domain, with use_sim_time:=true unless --clock wall"
        )

    def replay(self, recording: Recording) -> Replayed:
        """Feeds one recording from its first step to the tick after its last."""
        for count in range(1, self._tries + 1):
            replayed = self._once(recording, count)
            if not replayed.was_late:
                break
        return replayed

    def _once(self, recording: Recording, count: int) -> Replayed:
        period_ns = round(1e9 / self._monitor.statuses[-1].values["control_rate_hz"])
        self._start_over(recording.instruction, period_ns)
        grid_ns = self._monitor.statuses[-1].values["stamp_ns"]
        ahead = -(-(self._clock.now_ns + period_ns - grid_ns) // period_ns)
        first_tick_ns = grid_ns + ahead * period_ns
        stamps = first_tick_ns - period_ns // 2 + (recording.stamps_ns - recording.stamps_ns[0])
        before = len(self._monitor.statuses)
        for step, stamp in enumerate(stamps.tolist()):
            self._clock.advance_to(stamp)
            self._publish(recording, step, stamp)
            last_tick_ns = grid_ns + (stamp - grid_ns + period_ns) // period_ns * period_ns
            self._clock.advance_to(last_tick_ns)
            self._clock.creep_until(
                lambda at=last_tick_ns: self._answered(at), last_tick_ns + period_ns // 2
            )
        seen = self._monitor.statuses[before:]
        return Replayed(
            recording,
            stamps,
            [s for s in seen if first_tick_ns <= s.values["stamp_ns"] <= last_tick_ns],
            count,
        )

    def _start_over(self, instruction: str, period_ns: int) -> None:
        """New instruction and a reset, both in force when this returns."""
        self._instruction.publish(String(data=instruction))
        future = self._reset.call_async(Trigger.Request())
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        while not future.done():
            if time.monotonic() > deadline:
                raise ReplayError(
                    f"node {self._name!r}: ~/reset did not answer; is the node active?"
                )
            self._clock.advance_to(self._clock.now_ns + CLOCK_STEP_NS)
        if not future.result().success:
            raise ReplayError(f"node {self._name!r}: ~/reset: {future.result().message}")
        self._clock.advance_to(self._clock.now_ns + 2 * period_ns)

    def _publish(self, recording: Recording, step: int, stamp: int) -> None:
        if recording.states is not None and "pose" in self._publishers:
            pose, gripper = pose_from_bridge_state(recording.states[step])
            self._publishers["gripper"].publish(
                joints_to_msg((self._gripper_name,), np.array([gripper]), stamp)
            )
            self._publishers["pose"].publish(
                pose_to_msg(pose, stamp, self._binding.robot.base_frame)
            )
        elif recording.joints is not None and "joints" in self._publishers:
            self._publishers["joints"].publish(
                joints_to_msg(self._joint_names, recording.joints, stamp)
            )
        self._publishers["image"].publish(image_to_msg(recording.images[step], stamp, "camera"))

    def _answered(self, tick_ns: int) -> bool:
        return self._monitor.statuses[-1].values["stamp_ns"] >= tick_ns


def direct_actions(policy: CanvasPolicy, replayed: Replayed) -> list[np.ndarray]:
    """The action chunks (horizon, size) that the policy gives on the same frames, tick by tick.

    The policy is called without ROS.
    """
    recording, binding = replayed.recording, policy.binding
    arm = arm_of(binding)
    history = History(policy.schema, binding)
    policy.reset(recording.instruction)
    chunks: list[np.ndarray] = []
    fed = 0
    for tick, status in enumerate(replayed.statuses):
        stamp_ns = status.values["stamp_ns"]
        while fed < len(recording) and replayed.stamps_ns[fed] <= stamp_ns:
            for signal, source in binding.sources.ros.items():
                if isinstance(source, RosImage):
                    value = recording.images[fed]
                elif isinstance(source, RosJoints):
                    value = arm.measured_state(recording.joints[:6], float(recording.joints[6]))
                else:
                    value = recording.states[fed]
                history.push(signal, int(replayed.stamps_ns[fed]), value)
            fed += 1
        observation = history.observe(tick, stamp_ns)
        chunks.append(policy.act(observation, going_on_from(status.values)).values)
    return chunks


def agreement(policy: CanvasPolicy, replayed: Replayed) -> int:
    """Ticks whose published action chunk is bit for bit what the policy gives called directly."""
    torch.set_num_threads(replayed.statuses[0].values["threads"])  # rounding depends on it
    direct = direct_actions(policy, replayed)
    return sum(
        status.active and np.array_equal(np.float32(status.values["action_chunk"]), chunk)
        for status, chunk in zip(replayed.statuses, direct, strict=True)
    )
