"""A robot for the fault bench: a camera, joint states and a clock that fail as they are told.

Which faults there are is in `faults`, what the node makes of them in `fault_bench`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.context import Context
from rclpy.duration import Duration
from rclpy.qos import LivelinessPolicy, QoSProfile, qos_profile_sensor_data
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String

from canvas_robot.kinematics.arm import FINGER_JOINT, Arm
from canvas_robot.ros.images import image_to_msg
from canvas_robot.ros.messages import joints_to_msg, stamp_from_ns
from canvas_robot.ros.processes import adopt_node_environment
from canvas_robot.signals.pose import Pose
from canvas_robot.sim.workplace import FINGER_RESET, TABLE_RESET

CAMERA_HZ, JOINT_HZ = 20.0, 50.0
SIZE, OTHER_SIZE = (480, 640), (240, 320)
TURN_RAD = 0.05  # between two joint states, of an arm that is turned
COMMAND_TOPIC = "policy/target_pose"
_LATE = Duration(nanoseconds=100_000_000)  # two periods of the camera
_CAMERA_QOS = QoSProfile(
    depth=qos_profile_sensor_data.depth,
    reliability=qos_profile_sensor_data.reliability,
    deadline=_LATE,
    liveliness=LivelinessPolicy.MANUAL_BY_TOPIC,  # a picture says that it is alive
    liveliness_lease_duration=_LATE,
)
_SIM_START_NS = 1_000_000_000_000


class SimClock:
    """A simulation's time in ns, as fast as the steady clock until it is told otherwise."""

    def __init__(self) -> None:
        self._offset_ns = _SIM_START_NS - time.monotonic_ns()
        self._stopped_ns: int | None = None

    @property
    def stopped(self) -> bool:
        return self._stopped_ns is not None

    def now_ns(self) -> int:
        if self._stopped_ns is not None:
            return self._stopped_ns
        return time.monotonic_ns() + self._offset_ns

    def jump(self, seconds: float) -> None:
        """Goes on from so much later, or earlier."""
        self._offset_ns += round(seconds * 1e9)

    def stop(self) -> None:
        self._stopped_ns = self.now_ns()

    def go(self) -> None:
        """Goes on from where it stopped."""
        if self._stopped_ns is not None:
            self._offset_ns = self._stopped_ns - time.monotonic_ns()
            self._stopped_ns = None


class FaultRobot:
    """Publishes pictures, joint states and /clock from a thread of its own until closed.

    Faults change its attributes; `mend` undoes all of them.

    pictures: shown in turn; none: the camera is silent. camera_stamp, joint_stamp: the stamp of a
    message sent at a time, both in ns. joints: arm (rad) and finger (m) as they are; tell: names
    and positions as they are told; None: no joint states. clock: gives the stamps; None: the
    system's.
    """

    def __init__(self, domain_id: int) -> None:
        adopt_node_environment()
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain_id)
        self._node = rclpy.create_node("fault_bench_robot", context=self._context)
        publisher = self._node.create_publisher
        self._camera = publisher(Image, "camera/image_raw", _CAMERA_QOS)
        self._joints = publisher(JointState, "joint_states", QoSProfile(depth=10))
        self._clock = publisher(Clock, "/clock", qos_profile_sensor_data)
        self._instruction = publisher(String, "policy/instruction", QoSProfile(depth=1))
        self._rival = None
        self._arm = Arm.load("wx250s")
        self._names = (*self._arm.joint_names, FINGER_JOINT)
        random = np.random.default_rng(0)
        self._moving = [
            image_to_msg(random.integers(0, 256, (*SIZE, 3), np.uint8), 0, "") for _ in range(4)
        ]
        self._black = image_to_msg(np.zeros((*SIZE, 3), np.uint8), 0, "")
        self._other = image_to_msg(np.full((*OTHER_SIZE, 3), 90, np.uint8), 0, "")
        self.clock: SimClock | None = None
        self.mend()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="robot", daemon=True)
        self._thread.start()

    def __enter__(self) -> FaultRobot:
        return self

    def __exit__(self, *exception) -> None:
        self._stop.set()
        self._thread.join()
        self._node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    def mend(self) -> None:
        """Everything is as it should be, and the arm where it started."""
        self.pictures: Sequence[Image] = self._moving
        self.camera_stamp: Callable[[int], int] = _now
        self.joint_stamp: Callable[[int], int] = _now
        self.joints, self._turning = np.append(TABLE_RESET, FINGER_RESET), 0.0
        self.tell: Callable[[tuple[str, ...], np.ndarray], tuple] | None = _as_they_are
        if self.clock is not None:
            self.clock.go()
        if self._rival is not None:
            self._node.destroy_publisher(self._rival)
            self._rival = None

    @property
    def pose(self) -> Pose:
        """Where the end effector is."""
        return self._arm.forward(self.joints[:-1])

    @property
    def now_ns(self) -> int:
        """On the clock of the stamps."""
        return time.time_ns() if self.clock is None else self.clock.now_ns()

    def freeze(self) -> None:
        """The camera sends one picture again and again."""
        self.pictures = self._moving[:1]

    def blacken(self) -> None:
        self.pictures = [self._black]

    def resize(self) -> None:
        self.pictures = [self._other]

    def silence(self) -> None:
        """Neither pictures nor joint states."""
        self.pictures, self.tell = [], None

    def turn_waist(self, radians: float) -> None:
        """The arm is turned, as fast as somebody's hand turns it."""
        self._turning += radians

    def instruct(self, text: str) -> None:
        self._instruction.publish(String(data=text))

    def command_too(self) -> None:
        """Becomes a second publisher of the node's commands; it says nothing."""
        self._rival = self._node.create_publisher(PoseStamped, COMMAND_TOPIC, QoSProfile(depth=1))

    def _run(self) -> None:
        due, index, shown = time.monotonic(), 0, 0
        while not self._stop.wait(max(due - time.monotonic(), 0.0)):
            self._publish(index)
            if index * CAMERA_HZ >= shown * JOINT_HZ:
                self._show(shown)
                shown += 1
            index += 1
            due += 1.0 / JOINT_HZ

    def _publish(self, index: int) -> None:
        clock, now_ns, tell = self.clock, self.now_ns, self.tell
        self._turn()
        if clock is not None and not clock.stopped:
            self._clock.publish(Clock(clock=stamp_from_ns(now_ns)))
        if tell is not None:
            names, positions = tell(self._names, self.joints)
            # Every second message may be stamped otherwise: index tells which.
            stamp = self.joint_stamp(now_ns) if index % 2 else now_ns
            self._joints.publish(joints_to_msg(names, positions, stamp))

    def _turn(self) -> None:
        turned = max(-TURN_RAD, min(self._turning, TURN_RAD))
        if turned:
            self._turning -= turned
            self.joints = self.joints + np.eye(len(self.joints))[0] * turned

    def _show(self, index: int) -> None:
        pictures = self.pictures
        if pictures:
            msg = pictures[index % len(pictures)]
            msg.header.stamp = stamp_from_ns(self.camera_stamp(self.now_ns))
            self._camera.publish(msg)


def _now(now_ns: int) -> int:
    return now_ns


def _as_they_are(names: tuple[str, ...], positions: np.ndarray) -> tuple:
    return names, positions
