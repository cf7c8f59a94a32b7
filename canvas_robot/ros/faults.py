"""The faults of the fault bench: what each does, and what the policy node is to make of it."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.qos import QoSProfile

from canvas_robot.ros import process_tree
from canvas_robot.ros.decisions import HoldReason
from canvas_robot.ros.fault_robot import COMMAND_TOPIC, FaultRobot, SimClock
from canvas_robot.ros.monitor import Monitor
from canvas_robot.ros.processes import NodeProcesses

INSTRUCTION, CHINESE = "touch the red cube", "触摸红色方块"
NODE = {
    "autostart": True,
    "instruction": INSTRUCTION,
    "stand_in": "constant",
    "stand_in_ms": 20.0,
}
SIM_TIME = {"use_sim_time": True}
FAST_HZ = 20.0  # a stand-in fails with every 20th decision: so that it comes soon
_END_S = 5.0
_REQUESTED_NS = 150_000_000  # of the camera, where quality of service is requested
_FUTURE_NS, _PAST_NS = 5_000_000_000, 200_000_000
_PICTURES = (HoldReason.TIMEOUT, HoldReason.OVERRUN, HoldReason.STALE_INPUT)


class Scene:
    """The robot, the policy node and who listens to it. Faults act on it.

    complaints: what a fault saw beside the decisions. twists: that the node has commanded.
    """

    def __init__(self, robot: FaultRobot, monitor: Monitor, nodes: NodeProcesses) -> None:
        self.robot, self.monitor, self.nodes = robot, monitor, nodes
        self.complaints: list[str] = []
        self.twists: list[TwistStamped] = []
        monitor.node.create_subscription(
            TwistStamped, "policy/target_twist", self.twists.append, QoSProfile(depth=100)
        )
        self._parameters: dict | None = None
        self._orphans: list[int] = []

    def run_node(self, parameters: Mapping[str, object]) -> None:
        """Starts the node, unless it already runs with these parameters beside `NODE`."""
        wanted = {**NODE, **parameters}
        if wanted == self._parameters:
            return
        if self._parameters is not None:
            self.nodes.stop("policy")
        self.robot.clock = SimClock() if wanted.get("use_sim_time") else None
        self.nodes.start("policy", wanted)
        self._parameters = wanted

    def signal_model(self, number: signal.Signals) -> None:
        """A signal for the model's process; LookupError where there is none."""
        os.kill(self._models()[0], number)

    def kill_node(self) -> None:
        self._orphans = self._models()
        os.kill(self.nodes.pid("policy"), signal.SIGKILL)

    def start_killed_node(self) -> None:
        """Starts it again, and complains where the killed node's model lives on."""
        self.nodes.stop("policy")
        if not self.monitor.wait_for(
            lambda: not any(map(process_tree.lives, self._orphans)), _END_S
        ):
            self.complaints.append(f"the killed node's model still runs (pid {self._orphans})")
        self.nodes.start("policy", self._parameters)

    def subscribe_anew(self) -> None:
        """Whoever hears the commands goes, and another comes."""
        node, heard = self.monitor.node, self.monitor.poses.append
        old = [s for s in node.subscriptions if s.topic_name == f"/{COMMAND_TOPIC}"]
        for subscription in old:
            node.destroy_subscription(subscription)
        node.create_subscription(PoseStamped, COMMAND_TOPIC, heard, QoSProfile(depth=100))

    def _models(self) -> list[int]:
        """The node starts a fork server, and that the model's process."""
        node = self.nodes.pid("policy")
        started = process_tree.family(node) - {node}
        found = sorted(pid for pid in started if process_tree.parent(pid) != node)
        if not found:
            raise LookupError(f"the policy node (pid {node}) has no model's process")
        return found


@dataclass(frozen=True, eq=False)
class Fault:
    """One fault. It begins while the policy decides.

    inject: what happens; None: the stand-in fails by itself. mend: undoes it, beside what
    `FaultRobot.mend` does. reasons: to hold, that are right. goes_on: why it is right not to hold;
    "": it is not. passes: the node gets over it before it is mended. ends_node: it cannot even
    hold. blind: the measured pose is not known then, so that no command can hold the arm at it.
    followed: instructions that may be followed. says: what the node's log must tell. node:
    parameters beside `NODE`.
    """

    name: str
    inject: Callable[[Scene], None] | None
    reasons: tuple[HoldReason, ...] = ()
    mend: Callable[[Scene], None] = lambda scene: None
    goes_on: str = ""
    passes: bool = False
    ends_node: bool = False
    blind: bool = False
    says: str = ""
    followed: tuple[str, ...] = (INSTRUCTION,)
    node: Mapping[str, object] = field(default_factory=dict)


def _camera_stands_still(scene: Scene) -> None:
    stamp = scene.robot.now_ns
    scene.robot.camera_stamp = lambda now_ns: stamp


def _camera_ahead(scene: Scene) -> None:
    scene.robot.camera_stamp = lambda now_ns: now_ns + _FUTURE_NS


def _no_joint_states(scene: Scene) -> None:
    scene.robot.tell = None


def _no_pictures(scene: Scene) -> None:
    scene.robot.pictures = []


def _out_of_order(scene: Scene) -> None:
    scene.robot.joint_stamp = lambda now_ns: now_ns - _PAST_NS


def _nan_joint(scene: Scene) -> None:
    scene.robot.tell = lambda names, at: (names, np.where(np.arange(len(at)) == 2, np.nan, at))


def _joint_jumps(scene: Scene) -> None:
    """Every seventh message tells the waist half a radian off."""
    numbers = itertools.count()

    def tell(names: tuple[str, ...], at: np.ndarray) -> tuple:
        return names, at + np.eye(len(at))[0] * (0.5 if next(numbers) % 7 == 0 else 0.0)

    scene.robot.tell = tell


def _missing_joint(scene: Scene) -> None:
    scene.robot.tell = lambda names, at: (names[1:], at[1:])


def _instruct(text: str) -> Callable[[Scene], None]:
    return lambda scene: scene.robot.instruct(text)


def _signal_model(number: signal.Signals) -> Callable[[Scene], None]:
    return lambda scene: scene.signal_model(number)


def _stand_in(kind: str) -> dict[str, object]:
    return {"stand_in": kind, "control_rate": FAST_HZ}


def _requests(policy: str) -> dict[str, object]:
    """Of the camera, which offers as much; pictures may be old, so that nothing else holds."""
    name = f"qos_overrides./camera/image_raw.subscription.{policy}"
    return {name: _REQUESTED_NS, "decision_timeout": 2.0}


_REFUSED = "refused: the instruction before it is followed"
_BAD = (HoldReason.BAD_INPUT,)
_MODEL = (HoldReason.MODEL_ERROR,)
_STALE = (HoldReason.STALE_INPUT,)

FAULTS = (
    Fault("camera-stops", _no_pictures, _PICTURES),
    Fault(
        "camera-deadline",
        _no_pictures,
        _STALE,
        says="no message within the deadline",
        node=_requests("deadline"),
    ),
    Fault(
        "camera-liveliness",
        _no_pictures,
        _STALE,
        says="no publisher has been alive",
        node=_requests("liveliness_lease_duration"),
    ),
    Fault(
        "camera-freezes",
        lambda scene: scene.robot.freeze(),
        goes_on="not looked for: the binding declares no frozen_after_s",
    ),
    Fault("camera-black", lambda scene: scene.robot.blacken(), _BAD),
    Fault("camera-resized", lambda scene: scene.robot.resize(), _BAD),
    Fault("camera-stamps-stand", _camera_stands_still, _PICTURES),
    Fault("camera-stamps-ahead", _camera_ahead, _BAD),
    Fault("joints-stop", _no_joint_states, _STALE, blind=True),
    Fault("joints-out-of-order", _out_of_order, _BAD),
    Fault("joint-nan", _nan_joint, _BAD),
    Fault("joint-missing", _missing_joint, _BAD),
    Fault("joint-jumps", _joint_jumps, _BAD),
    Fault(
        "instruction-10-mb",
        _instruct("cube " * 2_000_000),
        goes_on=_REFUSED,
        says="at most 1024 bytes",
    ),
    Fault(
        "instruction-control",
        _instruct("touch\x1b[2J\nthe cube\x07"),
        goes_on=_REFUSED,
        says="printable",
    ),
    Fault(
        "instruction-chinese",
        _instruct(CHINESE),
        mend=_instruct(INSTRUCTION),
        goes_on="followed or refused, as the model can",
        followed=(INSTRUCTION, CHINESE),
    ),
    Fault(
        "instruction-blank",
        _instruct(" "),
        (HoldReason.NO_INSTRUCTION,),
        mend=_instruct(INSTRUCTION),
    ),
    Fault(
        "second-publisher",
        lambda scene: scene.robot.command_too(),
        (HoldReason.SECOND_PUBLISHER,),
    ),
    Fault(
        "arm-parted",
        lambda scene: scene.robot.turn_waist(0.3),
        (HoldReason.PARTED,),
        passes=True,
    ),
    Fault(
        "subscriber-dies",
        Scene.subscribe_anew,
        goes_on="nobody has to hear the commands",
    ),
    Fault("robot-dies", lambda scene: scene.robot.silence(), (*_PICTURES, *_BAD)),
    Fault("model-killed", _signal_model(signal.SIGKILL), _MODEL, passes=True),
    Fault("model-stopped", _signal_model(signal.SIGSTOP), (HoldReason.TIMEOUT,), passes=True),
    Fault("node-killed", Scene.kill_node, mend=Scene.start_killed_node, ends_node=True),
    Fault("model-raises", None, _MODEL, passes=True, node=_stand_in("raises")),
    Fault("model-dies", None, _MODEL, passes=True, node=_stand_in("dies")),
    Fault("model-nan", None, (HoldReason.BAD_ACTION,), passes=True, node=_stand_in("nan")),
    Fault("model-hangs", None, (HoldReason.TIMEOUT,), passes=True, node=_stand_in("hangs")),
    Fault(
        "clock-stops",
        lambda scene: scene.robot.clock.stop(),
        (HoldReason.CLOCK_STOPPED, *_PICTURES),
        node=SIM_TIME,
    ),
    Fault(
        "clock-back",
        lambda scene: scene.robot.clock.jump(-10.0),
        (HoldReason.CLOCK_JUMPED,),
        passes=True,
        node=SIM_TIME,
    ),
    Fault(
        "clock-ahead",
        lambda scene: scene.robot.clock.jump(10.0),
        (HoldReason.CLOCK_JUMPED,),
        passes=True,
        node=SIM_TIME,
    ),
)


def faults_named(names: tuple[str, ...]) -> tuple[Fault, ...]:
    """The faults of these names, all where there is none; ValueError for a name that is none."""
    known = [fault.name for fault in FAULTS]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"faults: expected of {', '.join(known)}; got {', '.join(unknown)}")
    return tuple(fault for fault in FAULTS if not names or fault.name in names)
