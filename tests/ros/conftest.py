"""A policy node over real DDS, fed by a robot whose every message the test controls."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import itertools
import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rclpy
import torch
import yaml
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String

from canvas_robot.resources import config_path
from canvas_robot.ros.images import image_to_msg
from canvas_robot.ros.messages import joints_to_msg
from canvas_robot.ros.monitor import Monitor
from canvas_robot.ros.processes import adopt_node_environment
from canvas_robot.sim.workplace import FINGER_RESET, TABLE_RESET

JOINTS = (
    "waist",
    "shoulder",
    "elbow",
    "forearm_roll",
    "wrist_angle",
    "wrist_rotate",
    "left_finger",
)
RESET = np.append(TABLE_RESET, FINGER_RESET)
TIMEOUT_S = 30.0
PATIENCE_S = 5.0  # a decision is followed this long: machines that test are slow
FOLLOWING = {
    "autostart": True,
    "instruction": "touch the red cube",
    "decision_timeout": PATIENCE_S,
}

torch.set_num_threads(1)  # as the node does: rounding depends on it
# A shell without job control starts background jobs with Ctrl-C ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
adopt_node_environment()
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"


def received(*signals: str) -> str:
    """The shipped binding's YAML, where messages of these signals count as taken on receipt."""
    data = yaml.safe_load(config_path("bindings", "widowx.yaml").read_text())
    for signal_name in signals:
        data["sources"]["ros"][signal_name]["stamp"] = "received"
    return yaml.safe_dump(data)


def _claimed() -> Iterator[int]:
    """Ten domains that no other process of tests on this machine draws until this one ends."""
    for block in range(10):
        path = Path(tempfile.gettempdir()) / f"canvas_robot_domains_{block}.lock"
        with contextlib.suppress(OSError):  # another process has it, or another user
            fcntl.flock(os.open(path, os.O_RDWR | os.O_CREAT), fcntl.LOCK_EX | fcntl.LOCK_NB)
            return itertools.cycle(range(10 * block + 1, 10 * block + 11))
    raise RuntimeError("ten processes run tests of nodes already: no ROS domain is left")


_domains = _claimed()


def new_domain() -> int:
    """A ROS domain of nobody else, below those that the demo draws from."""
    return next(_domains)


@pytest.fixture
def domain_id() -> int:
    """A ROS domain of this test's own."""
    return new_domain()


@pytest.fixture
def monitor(domain_id):
    with Monitor(domain_id) as monitor:
        yield monitor


class Robot:
    """Publishes a camera picture and joint states at 20 Hz until told otherwise.

    Tests change what it publishes.
    """

    def __init__(self, domain_id: int) -> None:
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain_id)
        self.node = rclpy.create_node("robot", context=self.context)
        self.images = self.node.create_publisher(Image, "camera/image_raw", QoSProfile(depth=1))
        self.joints = self.node.create_publisher(JointState, "joint_states", QoSProfile(depth=10))
        self.instruction = self.node.create_publisher(
            String, "policy/instruction", QoSProfile(depth=1)
        )
        self.picture: np.ndarray | None = np.full((256, 256, 3), 90, np.uint8)
        self.names, self.positions, self.efforts = JOINTS, RESET, []
        self.stamp = lambda now_ns: now_ns
        self.lively = None  # makes each picture anew
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.05):
            now_ns = self.node.get_clock().now().nanoseconds
            stamp = self.stamp(now_ns)
            if self.names:
                joints = joints_to_msg(self.names, self.positions, stamp)
                joints.effort = list(self.efforts)
                self.joints.publish(joints)
            picture = self.lively() if self.lively is not None else self.picture
            if picture is not None:
                self.images.publish(image_to_msg(picture, stamp, "camera"))

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)


@pytest.fixture
def robot(domain_id):
    robot = Robot(domain_id)
    yield robot
    robot.close()


class NodeInThread:
    """A PolicyNode spinning in a thread of this process, in a context of its own."""

    def __init__(self, domain_id: int, **parameters) -> None:
        from canvas_robot.ros.policy_node import PolicyNode

        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain_id)
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        self.node = PolicyNode(context=self.context, parameter_overrides=overrides)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self._stop = False
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()
        for name in ("configure", "activate", "deactivate", "cleanup", "shutdown"):
            transition = getattr(self.node, f"trigger_{name}")
            setattr(self.node, f"trigger_{name}", functools.partial(self._do, transition))

    def _do(self, call):
        """What a call returns, made by the executor: as a service would, between other calls."""
        if threading.current_thread() is self._thread:  # the node's own
            return call()
        done, task = threading.Event(), self.executor.create_task(call)
        task.add_done_callback(lambda _: done.set())
        assert done.wait(TIMEOUT_S)
        return task.result()

    def _spin(self) -> None:
        while not self._stop:
            self.executor.spin_once(timeout_sec=0.05)

    def close(self) -> None:
        self._stop = True
        self._thread.join()
        self.node.shut_down()
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)


@pytest.fixture
def start_policy(domain_id):
    """Starts policy nodes with parameters; stops them after the test."""
    nodes = []

    def start(**parameters) -> NodeInThread:
        nodes.append(NodeInThread(domain_id, **parameters))
        return nodes[-1]

    yield start
    for node in nodes:
        node.close()


@pytest.fixture
def active_policy(start_policy, robot, monitor):
    """An active policy node that follows an instruction on good input."""
    node = start_policy(**FOLLOWING)
    assert monitor.wait_for(lambda: sum(s.active for s in monitor.statuses) >= 2, TIMEOUT_S)
    return node
