"""Doctor: looks at a live robot before its first motion, and says what is wrong and what to do.

Nothing is published. Samples go through the same code as the node's, so what the node would refuse
is found here.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import final

import cv2
import numpy as np
from rclpy.exceptions import ParameterException
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription
from sensor_msgs.msg import JointState

from canvas_robot.kinematics.rule import limits_of
from canvas_robot.policy.settings import binding_of, declarations, schema_of
from canvas_robot.policy.stand_in import HORIZON
from canvas_robot.resources import checkpoint_folder
from canvas_robot.ros.description import arm_of, heard_description
from canvas_robot.ros.findings import Finding, absolute, full_name, type_name
from canvas_robot.ros.inputs import Inputs
from canvas_robot.ros.intake import FUTURE_TOLERANCE_NS, why_unstamped
from canvas_robot.ros.listener import Listener, remapping_arguments
from canvas_robot.ros.measured import state_signal, why_outside
from canvas_robot.ros.output_check import OutputCheck, not_heard
from canvas_robot.ros.parameters import (
    ParameterError,
    declare_parameters,
    read_settings,
    unknown_parameters,
)
from canvas_robot.ros.priority import priority_refused
from canvas_robot.ros.promised import Promised
from canvas_robot.ros.qos import (
    check_overrides,
    unmet,
    untaken_overrides,
)
from canvas_robot.ros.session import refusals, robot_of
from canvas_robot.signals import Binding, ImageSignal, SignalError
from canvas_robot.signals.binding import RosImage
from canvas_robot.signals.pose import pose_from_bridge_state

_POLL_S = 0.02
# A publisher that the first looks miss is found when it announces itself anew: Fast DDS, every 3 s.
DISCOVERY_S = 4.0
LEAST_ALIKE, MOST_SHIFTED = 0.5, 0.05  # correlation; share of the picture's width


@final
class Doctor:
    """Listens as the policy node would. `examine` returns what was found.

    Args:
        binding: of the robot; None: as the parameters say.
        name: that the policy node has or will have, with its namespace.
        domain_id: ROS domain.
        parameters: of the policy node, by name: its quality of service is listened with, and the
            outputs that they ask for are looked at.
        remap: the node's own rules, such as joint_states:=/wx250s/joint_states.
    Raises:
        BindingError: the binding is none, or declares no robot.
        ValueError: a rule is none.
        ParameterError: the node would refuse a parameter.
        FileNotFoundError, SchemaError, CheckpointError: of what they name.
    """

    def __init__(
        self,
        binding: Binding | None,
        name: str,
        domain_id: int,
        parameters: Mapping[str, object] | None = None,
        remap: Sequence[str] = (),
    ) -> None:
        self._name = absolute(name)
        namespace = self._name.rpartition("/")[0]
        arguments = remapping_arguments(remap, self._name)
        try:
            self._listener = Listener(
                "canvas_robot_doctor", domain_id, parameters, namespace, arguments
            )
        except ParameterException as error:  # of rclpy's own, use_sim_time
            raise ParameterError(str(error)) from error
        self._node = self._listener.node
        self._topics: dict[str, Subscription] = {}
        self._samples, self._faults = Counter(), defaultdict(Counter)
        self._ages_ns: dict[str, list[int]] = defaultdict(list)
        self._newest: dict[str, np.ndarray] = {}
        try:
            self._configure(binding)
        except BaseException:
            self._listener.close()
            raise

    def _configure(self, binding: Binding | None) -> None:
        """As the node does, up to the model."""
        declare_parameters(self._node)
        self._settings = read_settings(self._node)
        check_overrides(self._node)
        policy = self._settings.policy
        if policy.checkpoint:
            from canvas_robot.policy.checkpoint_files import check_checkpoint  # brings torch

            named = binding or declarations(policy)[1]
            check_checkpoint(checkpoint_folder(policy.checkpoint), named, policy.control_rate_hz)
        self._binding = binding or binding_of(policy)
        robot_of(self._binding)
        self._arm = arm_of(self._binding, heard_description(self._node, self._binding))
        self._schema = schema_of(policy)
        self._inputs = Inputs(self, self._binding, self._arm, self, self._settings.image_transport)
        self._promised = Promised(self._node, self._name, self._settings, self._binding)

    def __enter__(self) -> Doctor:
        return self

    def __exit__(self, *exception) -> None:
        self._listener.close()

    # ------------------------------------------------------------------ as node and loop of Inputs

    def create_subscription(self, msg_type: type, topic: str, callback, qos, **options):
        made = self._node.create_subscription(msg_type, topic, callback, qos, **options)
        self._topics[made.topic_name] = made
        return made

    def get_clock(self):
        return self._node.get_clock()

    def sample(self, signal: str, stamp_ns: int, value: np.ndarray, waited_ns: int = 0) -> None:
        if unstamped := why_unstamped(stamp_ns, self.get_clock().now().nanoseconds):
            self.fault(signal, unstamped)
            return
        try:
            self._newest[signal] = self._binding.signals[signal].checked(signal, value)
        except SignalError as error:
            self.fault(signal, str(error))
            return
        self._samples[signal] += 1
        self._ages_ns[signal].append(self.get_clock().now().nanoseconds - waited_ns - stamp_ns)

    def fault(self, signal: str, detail: str) -> None:
        self._faults[signal][detail] += 1

    def silent(self, signal: str, event: str, detail: str) -> None:
        self.fault(signal, detail)

    def heard(self, event: str) -> None:
        """It was silent before, which counts."""

    def skipped(self, signal: str, messages: int) -> None:
        self._samples[signal] += messages

    def unheard(self, signal: str, detail: str) -> None:
        """The graph tells more, of its topic."""

    # ------------------------------------------------------------------ findings

    def listen(self, seconds: float) -> None:
        """Takes messages for so long, once the publishers of all inputs are known."""
        until = time.monotonic() + DISCOVERY_S
        while time.monotonic() < until and not all(map(self._node.count_publishers, self._topics)):
            self._take(_POLL_S)
        self._samples.clear()  # from here on they are counted by time
        self._seconds, until = seconds, time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._take(min(left, _POLL_S))

    def _take(self, timeout_s: float) -> None:
        self._listener.spin_once(timeout_s)
        self._inputs.poll()

    def examine(self, reference: np.ndarray | None = None) -> list[Finding]:
        """What was found. reference: (H, W, 3) uint8 RGB, what the camera should see."""
        findings = self._configuration()
        if self.get_clock().now().nanoseconds == 0:
            remedy = "start the simulator, or set use_sim_time to false"
            findings.append(Finding("fault", "/clock", "it stands still at 0", remedy))
        for topic, subscription in self._topics.items():
            findings.append(self._topic(topic, subscription.msg_type))
            findings += self._quality(topic, subscription.qos_profile)
        for signal in self._binding.sources.ros:
            findings += self._signal(signal)
        findings.append(self._pose())
        findings += OutputCheck(self._node, self._name, self._settings, self._promised).findings()
        if reference is not None:
            findings.append(self._view(reference))
        return findings

    def picture(self) -> np.ndarray | None:
        """The newest picture of the first camera, if one came."""
        return next((self._newest.get(signal) for signal in self._cameras()), None)

    def _cameras(self) -> list[str]:
        sources = self._binding.sources.ros
        return [signal for signal, source in sources.items() if isinstance(source, RosImage)]

    def _configuration(self) -> list[Finding]:
        """What the node would ignore, and why it would refuse to configure."""
        lines = [*unknown_parameters(self._node), *untaken_overrides(self._node)]
        remedy = "mend its name in the parameters file; the node ignores it"
        findings = [Finding("warning", "parameters", line, remedy) for line in lines]
        settings, binding = self._settings, self._binding
        horizon = HORIZON if settings.policy.stand_in else None
        refused = refusals(settings, self._schema, binding, self._arm, horizon)
        for error in refused:
            found, _, remedy = str(error).partition("; ")
            remedy = remedy or "mend it in the binding or the parameters file"
            findings.append(Finding("fault", "configure", found, remedy))
        return [*findings, *self._limits(), *self._priority()]

    def _limits(self) -> list[Finding]:
        robot = self._binding.robot
        if robot.speed_limits is not None and robot.acceleration_limits is not None:
            metres, radians = max(robot.speed_limits[:3]), max(robot.speed_limits[3:])
            return [Finding("ok", "limits", f"at most {metres:g} m/s and {radians:g} rad/s")]
        if self._settings.unsafe:
            remedy = "declare speed_limits and acceleration_limits in the binding"
            return [Finding("warning", "limits", "none of motion, and unsafe is true", remedy)]
        return []  # the node refuses to configure

    def _priority(self) -> list[Finding]:
        """Of the node's threads that keep time, if it runs as this user."""
        asked = self._settings.thread_priority
        found, _, remedy = priority_refused(asked).partition("; ")
        if found:
            return [Finding("warning", "thread_priority", found, remedy)]
        return [Finding("ok", "thread_priority", f"{asked}, real time")] if asked else []

    def _quality(self, topic: str, requested: QoSProfile) -> list[Finding]:
        """Publishers that the node will not hear, and what is to be set to what."""
        findings = []
        for publisher in self._node.get_publishers_info_by_topic(topic):
            for policy in unmet(publisher.qos_profile, requested):
                told = not_heard(topic, publisher, requested, policy)
                findings.append(Finding("fault", topic, *told))
        return findings

    def _topic(self, full: str, kind: type) -> Finding:
        found = {info.topic_type for info in self._node.get_publishers_info_by_topic(full)}
        wanted = type_name(kind)
        if wanted in found:
            infos = self._node.get_publishers_info_by_topic(full)
            if len(infos) == 1:
                return Finding("ok", full, wanted)
            names = sorted({full_name(info) for info in infos})
            harm = ", and is held by each that lacks a joint" if kind is JointState else ""
            remedy = (
                f"stop all but one, or give the others a topic of their own (-r {full}:=/other "
                f"where they start): the policy sees their messages in turn{harm}"
            )
            return Finding("warning", full, f"{len(infos)} publish it: {', '.join(names)}", remedy)
        if found:
            return Finding(
                "fault",
                full,
                f"expected {wanted}, got {', '.join(sorted(found))}",
                "mend the topic or the source's type in the binding",
            )
        others = [
            name
            for name, types in self._node.get_topic_names_and_types()
            if wanted in types and self._node.count_publishers(name)
        ]
        remedy = (
            f"{', '.join(others)} carries that type: name it in the binding, or remap the node "
            f"(-r {full}:={others[0]})"
            if others
            else "start the driver; check ROS_DOMAIN_ID on both sides"
        )
        return Finding("fault", full, "nobody publishes", remedy)

    def _signal(self, signal: str) -> list[Finding]:
        subject, declared = f"signal {signal}", self._binding.signals[signal]
        findings = []
        for text, times in self._faults[signal].most_common(3):
            found, _, remedy = text.partition("; ")
            remedy = remedy or "mend the source; see docs/robot.md, bad_input"
            findings.append(Finding("fault", subject, f"{found} ({times} times)", remedy))
        count, needed = self._samples[signal], self._binding.control_rate_hz
        if not count:
            none = Finding("fault", subject, "no sample came", "see its topic above")
            return findings or [none]
        rate = count / self._seconds
        found = f"{rate:.1f} samples a second, the policy decides {needed:g} times"
        slow = (
            "raise the rate of the driver, or lower control_rate; where the driver does publish "
            "more, pictures are lost on the way: set FASTDDS_DEFAULT_PROFILES_FILE for it too"
            if rate < needed
            else ""
        )
        findings.append(Finding("warning" if slow else "ok", subject, found, slow))
        age_ns = float(np.median(self._ages_ns[signal]))
        found = f"stamps are {age_ns / 1e6:.0f} ms old when they arrive"
        if min(self._ages_ns[signal]) < -FUTURE_TOLERANCE_NS:
            remedy = "synchronise the clocks (chrony), or set use_sim_time on both sides"
            findings.append(Finding("fault", subject, f"{found}: ahead of the clock", remedy))
        elif age_ns / 1e9 > declared.max_age_s:
            remedy = "synchronise the clocks (chrony), or raise max_age_s in the binding"
            limit = f"{found}, expected at most {declared.max_age_s} s"
            findings.append(Finding("fault", subject, limit, remedy))
        else:
            findings.append(Finding("ok", subject, found))
        if isinstance(declared, ImageSignal) and not self._newest[signal].any():
            remedy = "take the lid off the camera, switch the light on"
            findings.append(Finding("fault", subject, "the picture is black", remedy))
        return findings

    def _pose(self) -> Finding:
        try:
            newest = self._newest.get(state_signal(self._binding))
        except ValueError:  # as configure refuses it, above
            newest = None
        if newest is None:
            return Finding("fault", "measured pose", "unknown", "see its signal above")
        pose = pose_from_bridge_state(newest)[0]
        where = f"{np.round(pose.position, 3).tolist()} m"
        if outside := why_outside(pose, limits_of(self._binding.robot)):
            return Finding("fault", "measured pose", outside, "move the arm inside, by hand")
        return Finding("ok", "measured pose", f"{where}, within the workspace or a step of it")

    def _view(self, reference: np.ndarray) -> Finding:
        picture = self.picture()
        if picture is None:
            return Finding("fault", "camera's view", "no picture came", "see its topic above")
        alike, shift = compared(picture, reference)
        found = f"correlation {alike:.2f} with the reference, shifted by {shift:.1%} of its width"
        if alike < LEAST_ALIKE or shift > MOST_SHIFTED:
            return Finding(
                "fault",
                "camera's view",
                found,
                "with the arm where it was then: bring the camera back to where it stood, or "
                "record a new reference (--save)",
            )
        return Finding("ok", "camera's view", found)


def compared(picture: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """How alike two pictures are, (H, W, 3) uint8 of any sizes, and how far they are shifted.

    Of their edges, so that light matters little: correlation after shifting, and the shift as a
    share of the width, by phase correlation.
    """
    first, second = (_edges(image) for image in (picture, reference))
    (dx, dy), _ = cv2.phaseCorrelate(first, second, cv2.createHanningWindow(_SIZE, cv2.CV_64F))
    moved = cv2.warpAffine(first, np.array([[1.0, 0.0, dx], [0.0, 1.0, dy]]), _SIZE)
    a, b = moved - moved.mean(), second - second.mean()
    scale = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum()) / scale if scale > 0 else 0.0, float(np.hypot(dx, dy)) / _SIZE[0]


_SIZE = (160, 120)


def _edges(image: np.ndarray) -> np.ndarray:
    grey = cv2.cvtColor(cv2.resize(image, _SIZE, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    blurred = cv2.GaussianBlur(grey.astype(np.float64), (0, 0), 1.5)
    return np.hypot(cv2.Sobel(blurred, cv2.CV_64F, 1, 0), cv2.Sobel(blurred, cv2.CV_64F, 0, 1))
