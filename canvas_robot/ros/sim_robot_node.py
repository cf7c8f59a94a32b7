"""The simulated robot: MuJoCo's WidowX on ROS topics.

It publishes camera and joint states, obeys the command topics, and says how the task goes.
"""

from __future__ import annotations

import json
import math
import queue
import threading
import time
from collections import deque
from contextlib import closing

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64
from std_srvs.srv import Trigger

from canvas_robot.kinematics.arm import FINGER_JOINT, Arm
from canvas_robot.kinematics.rule import Command
from canvas_robot.ros.images import image_to_msg
from canvas_robot.ros.messages import (
    MessageError,
    joints_to_msg,
    pose_from_msg,
    stamp_from_ns,
    values_to_msg,
)
from canvas_robot.ros.parameters import (
    check_params_files,
    check_ros_name,
    declare,
    unknown_parameters,
)
from canvas_robot.sim.physics import WidowXSim
from canvas_robot.sim.running_episode import RunningEpisode
from canvas_robot.sim.scene import Scene
from canvas_robot.sim.task import Task
from canvas_robot.sim.tasks import task_named

SLICE_STEPS = (
    2  # physics steps between two looks at the wall clock and two /clock messages: 4 ms, 250 Hz
)
SIM_EPOCH_NS = (
    1_000_000_000  # simulation time starts at 1 s: a stamp of zero means "not set" in ROS
)
LATEST_QOS = QoSProfile(depth=1)
KEPT_QOS = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
STOP_TIMEOUT_S = 5.0
RESET_TIMEOUT_S = 5.0

PARAMETERS = {
    "clock": ("wall", "wall: free-running, stamped by the system clock; sim: publishes /clock"),
    "real_time_factor": (1.0, "simulated seconds per second"),
    "motion_time": (0.02, "how long the servos are led to a commanded pose [s]: till the next one"),
    "camera_rate": (15.0, "images per second of the robot's time [Hz]"),
    "joint_rate": (50.0, "joint states per second of the robot's time [Hz]"),
    "image_width": (640, "pixels"),
    "image_height": (480, "pixels"),
    "task": ("reach", "what stands around the arm: a task of canvas_robot.sim.tasks"),
    "episode": (0, "first episode of the task: where things lie; ~/next_episode goes on"),
    "colours": (["red", "blue"], "colours of the cubes of the task reach"),
    "base_frame": ("wx250s/base_link", "frame_id that commanded poses must carry"),
    "camera_frame": ("wx250s/camera_optical", "frame_id of the images"),
    "image_topic": ("camera/image_raw", "sensor_msgs/Image, published"),
    "joint_topic": ("joint_states", "sensor_msgs/JointState, published"),
    "target_topic": ("policy/target_pose", "geometry_msgs/PoseStamped of the end effector, obeyed"),
    "gripper_topic": ("policy/gripper", "std_msgs/Float64, 0 closed to 1 open, obeyed"),
}

_TOPICS = ("image_topic", "joint_topic", "target_topic", "gripper_topic")


class SimRobotNode(Node):
    """Physics, rendering and publishing run in one thread; commands come in from the executor's."""

    def __init__(self, **kwargs) -> None:
        super().__init__("sim_robot", **kwargs)
        for name, (default, description) in PARAMETERS.items():
            descriptor = ParameterDescriptor(description=description, read_only=True)
            declare(self, name, default, descriptor)
        check_params_files(self)
        for line in unknown_parameters(self):
            self.get_logger().error(f"ignored: {line}")
        self._check_parameters()
        self._arm = Arm.load("wx250s")
        self._commands: deque[Command] = deque(maxlen=8)
        self._wanted: queue.SimpleQueue[queue.SimpleQueue] = queue.SimpleQueue()
        self._gripper = 1.0
        self._target = None
        self._simulated_clock = self._value("clock") == "sim"
        self._images = self.create_publisher(Image, self._value("image_topic"), LATEST_QOS)
        self._joints = self.create_publisher(
            JointState, self._value("joint_topic"), QoSProfile(depth=10)
        )
        self._clock_out = (
            self.create_publisher(Clock, "/clock", QoSProfile(depth=10))
            if self._simulated_clock
            else None
        )
        self.create_subscription(
            PoseStamped, self._value("target_topic"), self._on_target, LATEST_QOS
        )
        self.create_subscription(
            Float64, self._value("gripper_topic"), self._on_gripper, LATEST_QOS
        )
        self._episodes = self.create_publisher(DiagnosticStatus, "~/episode", KEPT_QOS)
        self.create_service(Trigger, "~/next_episode", self._on_next_episode)
        self._ended = self.create_guard_condition(self._leave)
        self._running = True
        self._thread = threading.Thread(target=self._run, name="physics", daemon=True)
        self._thread.start()

    def shut_down(self) -> None:
        """Stops physics and frees the renderer."""
        self._running = False
        self._thread.join(STOP_TIMEOUT_S)

    def _value(self, name: str):
        return self.get_parameter(name).value

    def _check_parameters(self) -> None:
        if self._value("clock") not in ("wall", "sim"):
            raise ValueError(f"clock: expected wall or sim, got {self._value('clock')!r}")
        for name in ("real_time_factor", "camera_rate", "joint_rate"):
            if not (math.isfinite(self._value(name)) and 0.0 < self._value(name) <= 500.0):
                raise ValueError(f"{name}: expected a number in (0, 500], got {self._value(name)}")
        if not 0.0 < self._value("motion_time") <= 10.0:
            raise ValueError(
                f"motion_time: expected seconds in (0, 10], got {self._value('motion_time')}"
            )
        if not (
            16 <= self._value("image_width") <= 1920 and 16 <= self._value("image_height") <= 1080
        ):
            size = f"{self._value('image_width')}x{self._value('image_height')}"
            raise ValueError(
                f"image_width, image_height: expected 16x16 to 1920x1080 pixels, got {size}"
            )
        if self._value("episode") < 0:
            raise ValueError(
                f"episode: expected the first episode's number, from 0, got "
                f"{self._value('episode')}"
            )
        for name in _TOPICS:
            check_ros_name(self, name, self._value(name))
        self._task()

    def _task(self) -> Task:
        name = self._value("task")
        if name != "reach":
            return task_named(name)
        colours = self.get_parameter_or("colours").value  # none where the list is empty
        return task_named(name, tuple(colours or ()))

    # ------------------------------------------------------------------ commands

    def _on_gripper(self, msg: Float64) -> None:
        if not (math.isfinite(msg.data) and 0.0 <= msg.data <= 1.0):
            self.get_logger().warning(
                f"gripper refused: expected 0 to 1, got {msg.data}", throttle_duration_sec=5.0
            )
            return
        self._gripper = msg.data
        if self._target is not None:
            self._commands.append(Command(self._target, self._gripper))

    def _on_target(self, msg: PoseStamped) -> None:
        try:
            if msg.header.frame_id != self._value("base_frame"):
                raise MessageError(
                    f"frame_id: expected {self._value('base_frame')!r}, got {msg.header.frame_id!r}"
                )
            self._target = pose_from_msg(msg)
        except MessageError as error:
            self.get_logger().warning(f"target refused: {error}", throttle_duration_sec=5.0)
            return
        self._commands.append(Command(self._target, self._gripper))

    def _on_next_episode(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        """Waits for the physics thread: what is published after the answer is of the new one."""
        answer: queue.SimpleQueue = queue.SimpleQueue()
        self._wanted.put(answer)
        try:
            response.message = json.dumps(answer.get(timeout=RESET_TIMEOUT_S))
            response.success = True
        except queue.Empty:
            response.message = f"the physics did not answer within {RESET_TIMEOUT_S:.0f} s"
        return response

    def _leave(self) -> None:
        """A robot without physics is none: whoever started the process sees that it failed."""
        raise SystemExit(1)

    # ------------------------------------------------------------------ physics thread

    def _run(self) -> None:
        try:
            task = self._task()
            scene = Scene(task.props, task.workplace)
            with closing(WidowXSim(self._arm, scene, self._value("motion_time"))) as sim:
                self._simulate(sim, self._begun(task, sim))
        except Exception as error:
            if self._running:
                self.get_logger().fatal(f"physics stopped: {type(error).__name__}: {error}")
                self._ended.trigger()

    def _begun(self, task: Task, sim: WidowXSim) -> RunningEpisode:
        running = RunningEpisode(task, self._value("episode"), sim)
        sim.render(
            self._value("image_width"), self._value("image_height")
        )  # the first picture sets the renderer up
        self.get_logger().info(
            f"running on {self._value('clock')} clock; a fitting goal: "
            f"{running.episode.instruction!r}"
        )
        return running

    def _simulate(self, sim: WidowXSim, running: RunningEpisode) -> None:
        factor = self._value("real_time_factor")
        camera = _Periodic(self._value("camera_rate"))
        joints = _Periodic(self._value("joint_rate"))
        started, steps = time.monotonic(), 0  # over all episodes: the robot's time never goes back
        self._publish_episode(running)
        while self._running:
            time_s = steps * sim.timestep
            ahead = time_s / factor - (time.monotonic() - started)
            if ahead > 0:
                time.sleep(ahead)
            while not self._wanted.empty():
                running = self._next(running, sim)
                self._wanted.get().put(running.facts())
            while self._commands:
                self._obey(sim, self._commands.popleft())
                running.begin()
            if running.step(SLICE_STEPS):
                self._publish_episode(running)
            steps += SLICE_STEPS
            time_s = steps * sim.timestep
            stamp = self._stamp(time_s)
            if self._clock_out is not None:
                self._clock_out.publish(Clock(clock=stamp_from_ns(stamp)))
            if joints.due(time_s):
                self._publish_joints(sim, stamp)
            if camera.due(time_s):
                image = sim.render(self._value("image_width"), self._value("image_height"))
                self._images.publish(image_to_msg(image, stamp, self._value("camera_frame")))

    def _next(self, running: RunningEpisode, sim: WidowXSim) -> RunningEpisode:
        """The next episode, at rest; what was commanded in the one before is forgotten."""
        self._commands.clear()
        self._target, self._gripper = None, 1.0
        following = RunningEpisode(self._task(), running.episode.episode_id + 1, sim)
        self._publish_episode(following)
        return following

    def _publish_episode(self, running: RunningEpisode) -> None:
        status = DiagnosticStatus(
            level=DiagnosticStatus.OK,
            name="sim_robot: episode",
            message=running.episode.instruction,
            values=values_to_msg(running.facts()),
        )
        self._episodes.publish(status)

    def _stamp(self, time_s: float) -> int:
        """A simulated time on the robot's clock."""
        if self._simulated_clock:
            return SIM_EPOCH_NS + round(time_s * 1e9)
        return self.get_clock().now().nanoseconds

    def _publish_joints(self, sim: WidowXSim, stamp: int) -> None:
        names = (*self._arm.joint_names, FINGER_JOINT)
        self._joints.publish(joints_to_msg(names, np.append(sim.joints, sim.finger), stamp))

    def _obey(self, sim: WidowXSim, command: Command) -> None:
        solution = sim.command(command)
        if not solution.converged:
            self.get_logger().warning(
                f"target out of reach by {solution.position_error_m:.3f} m; "
                f"staying at the last one",
                throttle_duration_sec=5.0,
            )


class _Periodic:
    """Says when something of a fixed rate is due, without drift."""

    def __init__(self, rate_hz: float) -> None:
        self._period_s = 1.0 / rate_hz
        self._next_s = 0.0

    def due(self, time_s: float) -> bool:
        if time_s < self._next_s:
            return False
        self._next_s = max(self._next_s + self._period_s, time_s)
        return True
