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

from canvas_robot.kinematics.limiter import motion_limits_of
from canvas_robot.kinematics.rule import limits_of
from canvas_robot.ros.description import arm_of, heard_description
from canvas_robot.ros.findings import Finding, absolute, type_name
from canvas_robot.ros.inputs import Inputs
from canvas_robot.ros.intake import FUTURE_TOLERANCE_NS, why_unstamped
from canvas_robot.ros.listener import Listener, remapping_arguments
from canvas_robot.ros.measured import state_signal, why_outside
from canvas_robot.ros.output_check import OutputCheck
from canvas_robot.ros.parameters import (
    ParameterError,
    declare_parameters,
    read_settings,
    unknown_parameters,
)
from canvas_robot.ros.qos import check_overrides
from canvas_robot.signals import Binding, BindingError, ImageSignal, SignalError
from canvas_robot.signals.binding import RosImage
from canvas_robot.signals.pose import pose_from_bridge_state

_POLL_S = 0.02
LEAST_ALIKE, MOST_SHIFTED = 0.5, 0.05  # correlation; share of the picture's width


@final
class Doctor:
    """Listens as the policy node would. `examine` returns what was found.

    Args:
        binding: of the robot.
        image_transport: "raw" or "compressed", as the node's parameter.
        name: that the policy node has or will have, with its namespace.
        domain_id: ROS domain.
        parameters: of the policy node, by name: its quality of service is listened with, and the
            outputs that they ask for are looked at.
        remap: the node's own rules, such as joint_states:=/wx250s/joint_states.
    Raises:
        BindingError: the binding declares no robot.
        ValueError: a rule is none.
        ParameterError: the node would refuse a parameter.
    """

    def __init__(
        self,
        binding: Binding,
        image_transport: str,
        name: str,
        domain_id: int,
        parameters: Mapping[str, object] | None = None,
        remap: Sequence[str] = (),
    ) -> None:
        if binding.robot is None:
            raise BindingError("binding: expected a robot, the arm to command; it declares none")
        self._binding, self._name = binding, absolute(name)
        namespace = self._name.rpartition("/")[0]
        arguments = remapping_arguments(remap, self._name)
        self._listener = Listener(
            "canvas_robot_doctor", domain_id, parameters, namespace, arguments
        )
        self._node = self._listener.node
        try:
            declare_parameters(self._node)
            self._settings = read_settings(self._node)
            check_overrides(self._node)
        except ParameterException as error:
            self._listener.close()
            raise ParameterError(str(error)) from error
        except ParameterError:
            self._listener.close()
            raise
        self._topics: dict[str, type] = {}
        self._samples, self._faults = Counter(), defaultdict(Counter)
        self._ages_ns: dict[str, list[int]] = defaultdict(list)
        self._newest: dict[str, np.ndarray] = {}
        try:
            arm = arm_of(binding, heard_description(self._node, binding))
        except Exception:
            self._listener.close()
            raise
        self._inputs = Inputs(self, binding, arm, self, image_transport)

    def __enter__(self) -> Doctor:
        return self

    def __exit__(self, *exception) -> None:
        self._listener.close()

    # ------------------------------------------------------------------ as node and loop of Inputs

    def create_subscription(self, msg_type: type, topic: str, callback, qos, **options):
        self._topics[topic] = msg_type
        return self._node.create_subscription(msg_type, topic, callback, qos, **options)

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
        self.fault(signal, detail)

    # ------------------------------------------------------------------ findings

    def listen(self, seconds: float) -> None:
        """Takes messages for so long."""
        self._seconds, until = seconds, time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._listener.spin_once(min(left, _POLL_S))
            self._inputs.poll()

    def examine(self, reference: np.ndarray | None = None) -> list[Finding]:
        """What was found. reference: (H, W, 3) uint8 RGB, what the camera should see."""
        told = unknown_parameters(self._node)
        remedy = "mend its name in the parameters file; the node ignores it"
        findings = [Finding("warning", "parameters", line, remedy) for line in told]
        if self.get_clock().now().nanoseconds == 0:
            remedy = "start the simulator, or set use_sim_time to false"
            findings.append(Finding("fault", "/clock", "it stands still at 0", remedy))
        findings.append(self._limits())
        findings += [self._topic(topic, kind) for topic, kind in self._topics.items()]
        for signal in self._binding.sources.ros:
            findings += self._signal(signal)
        findings.append(self._pose())
        findings += OutputCheck(self._node, self._name, self._settings).findings()
        if reference is not None:
            findings.append(self._view(reference))
        return findings

    def picture(self) -> np.ndarray | None:
        """The newest picture of the first camera, if one came."""
        return next((self._newest.get(signal) for signal in self._cameras()), None)

    def _cameras(self) -> list[str]:
        sources = self._binding.sources.ros
        return [signal for signal, source in sources.items() if isinstance(source, RosImage)]

    def _limits(self) -> Finding:
        try:
            limits = motion_limits_of(self._binding.robot)
        except BindingError as error:
            return Finding("fault", "limits", str(error), "declare them in the binding")
        return Finding(
            "ok",
            "limits",
            f"at most {limits.speed[:3].max()} m/s and {limits.speed[3:].max()} rad/s",
        )

    def _topic(self, topic: str, kind: type) -> Finding:
        full = self._node.resolve_topic_name(topic)
        found = {info.topic_type for info in self._node.get_publishers_info_by_topic(full)}
        wanted = type_name(kind)
        if wanted in found:
            infos = self._node.get_publishers_info_by_topic(full)
            if len(infos) == 1:
                return Finding("ok", full, wanted)
            names = sorted({f"{i.node_namespace.rstrip('/')}/{i.node_name}" for i in infos})
            remedy = "stop one, unless each tells of other joints: the policy sees both in turn"
            return Finding("warning", full, f"{', '.join(names)} publish it", remedy)
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
            f"remap it: {', '.join(others)} carries that type"
            if others
            else "start the driver; check ROS_DOMAIN_ID on both sides"
        )
        return Finding("fault", full, "nobody publishes", remedy)

    def _signal(self, signal: str) -> list[Finding]:
        subject, declared = f"signal {signal}", self._binding.signals[signal]
        findings = [
            Finding("fault", subject, f"{text} ({count} times)", "see docs/robot.md, bad_input")
            for text, count in self._faults[signal].most_common(3)
        ]
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
        measured = state_signal(self._binding)
        if measured not in self._newest:
            return Finding("fault", "measured pose", "unknown", "see its signal above")
        pose = pose_from_bridge_state(self._newest[measured])[0]
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
