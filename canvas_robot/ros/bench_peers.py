"""Processes beside a node that is being measured: a feed, a probe, and a sleeper.

Each runs until SIGTERM and then prints one JSON line: a list of what it saw, each entry with its
time on the steady clock, by which whoever measures tells what belongs to the measurement.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable

import numpy as np

from canvas_robot.ros.process import orphaned

CAMERAS = ("camera/image_raw", "wrist_camera/image_raw")
CAMERA_HZ, JOINT_HZ, COMMAND_HZ = 30.0, 100.0, 50.0
OWN_TIME = 1.001  # of devices: no run then depends on where between two pictures its ticks lie
SIZE = (480, 640)
PROBE_DEPTH = 10
_POLL_S = 0.2


class _Stop:
    """Whether SIGTERM has come, or the bench has ended without one."""

    def __init__(self) -> None:
        self._asked = False
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    @property
    def asked(self) -> bool:
        return self._asked or orphaned()

    def _stop(self, number: int, frame) -> None:
        self._asked = True


def _due(stop: _Stop, rate_hz: float, call: Callable[[int], None]) -> list[dict]:
    """Calls at a rate, on absolute deadlines, by sleeping; how late each was."""
    period, due, index, seen = 1.0 / rate_hz, time.monotonic(), 0, []
    while not stop.asked:
        left = due - time.monotonic()
        if left > 0:
            time.sleep(left)
        now = time.monotonic()
        seen.append({"at_s": now, "late_ms": (now - due) * 1e3})
        call(index)
        index += 1
        due += period
    return seen


def sleeper(stop: _Stop) -> list[dict]:
    """A process that only sleeps, at the command rate: how late this machine wakes anybody."""
    return _due(stop, COMMAND_HZ, lambda index: None)


def feed(stop: _Stop) -> list[dict]:
    """Two cameras and joint states; each picture's number is in its frame_id.

    One thread, at the rate of the joints by a clock of its own: pictures go out with every
    JOINT_HZ / CAMERA_HZth.
    """
    import rclpy
    from rclpy.qos import QoSProfile, qos_profile_sensor_data
    from rclpy.signals import SignalHandlerOptions
    from sensor_msgs.msg import Image, JointState

    from canvas_robot.kinematics.arm import FINGER_JOINT, Arm
    from canvas_robot.ros.images import image_to_msg
    from canvas_robot.ros.messages import joints_to_msg, stamp_from_ns
    from canvas_robot.sim.workplace import FINGER_RESET, TABLE_RESET

    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("bench_feed")
    cameras = [node.create_publisher(Image, topic, qos_profile_sensor_data) for topic in CAMERAS]
    joints = node.create_publisher(JointState, "joint_states", QoSProfile(depth=10))
    names = (*Arm.load("wx250s").joint_names, FINGER_JOINT)
    positions = np.append(TABLE_RESET, FINGER_RESET)
    random, sent = np.random.default_rng(0), 0
    pictures = [
        image_to_msg(random.integers(0, 256, (*SIZE, 3), np.uint8), 0, "") for _ in range(4)
    ]

    def publish(index: int) -> None:
        nonlocal sent
        now = node.get_clock().now().nanoseconds
        joints.publish(joints_to_msg(names, positions, now))
        if index * CAMERA_HZ >= sent * JOINT_HZ:
            for camera, publisher in enumerate(cameras):
                msg = pictures[(2 * sent + camera) % len(pictures)]
                msg.header.frame_id = str(sent)
                msg.header.stamp = stamp_from_ns(node.get_clock().now().nanoseconds)
                publisher.publish(msg)
            sent += 1

    seen = _due(stop, JOINT_HZ * OWN_TIME, publish)
    node.destroy_node()
    rclpy.shutdown()
    return seen


def probe(stop: _Stop) -> list[dict]:
    """A bare node that hears the cameras: how long pictures travel, how many were lost before."""
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from rclpy.signals import SignalHandlerOptions
    from sensor_msgs.msg import Image

    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("bench_probe")
    seen: list[dict] = []
    newest = dict.fromkeys(CAMERAS)

    def hear(topic: str) -> Callable[[Image], None]:
        def receive(msg: Image) -> None:
            stamp = msg.header.stamp.sec * 1_000_000_000 + msg.header.stamp.nanosec
            age_ms = (node.get_clock().now().nanoseconds - stamp) / 1e6
            number, before = int(msg.header.frame_id), newest[topic]
            lost = 0 if before is None else number - before - 1
            newest[topic] = number
            seen.append({"at_s": time.monotonic(), "age_ms": age_ms, "lost": lost})

        return receive

    qos = QoSProfile(depth=PROBE_DEPTH, reliability=ReliabilityPolicy.BEST_EFFORT)
    for topic in CAMERAS:
        node.create_subscription(Image, topic, hear(topic), qos)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    while not stop.asked:
        executor.spin_once(timeout_sec=_POLL_S)
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown()
    return seen


PEERS = {"feed": feed, "probe": probe, "sleeper": sleeper}


def main(arguments: list[str] | None = None) -> int:
    """Runs one peer, named by the first argument."""
    (name,) = sys.argv[1:] if arguments is None else arguments
    print(json.dumps(PEERS[name](_Stop())), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
