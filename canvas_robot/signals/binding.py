"""Binding: the robot-side declaration, read once from YAML into checked values.

It says which signal fills or reads which region by which codec, where signals come from, and what
the arm may do. Nothing is executed here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import yaml

from canvas_robot.schema import CanvasSchema, RegionSpec
from canvas_robot.signals.codecs import CODEC_DECLARATIONS, RegionBinding, Role, region_binding
from canvas_robot.signals.env_sources import EnvJoints, EnvSource, check_env_source
from canvas_robot.signals.environment import Environment
from canvas_robot.signals.signal import Signal, SignalError, VectorSignal


class BindingError(ValueError):
    """A binding is not valid by itself or does not fit the schema."""


class _Declared(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class DepthRange(_Declared):
    """How a depth image becomes a grey one: `near` (m) and closer white, `far` and beyond black."""

    near: float
    far: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.near < self.far < np.inf:
            raise BindingError(f"depth: expected 0 <= near < far, got {self.near} and {self.far}")


class _Stamped(_Declared):
    """stamp: when a message counts as taken: as its header says, or when it is received, for a
    driver that sets no stamps, or those of a clock of its own. What it was late by on the way is
    not seen then.
    """

    stamp: Literal["header", "received"] = "header"


class RosImage(_Stamped, kw_only=True, tag_field="type", tag="image"):
    """sensor_msgs/Image on `topic`, sensor_msgs/CompressedImage on `topic`/compressed.

    transport: which of them; None: as whoever listens is told for all cameras.
    depth: the images are of depth, 16UC1 in mm or 32FC1 in m, not compressed.
    dark_below: pictures of a smaller mean, 0 to 255, are refused; 0: none is.
    frozen_after_s: a picture that has not changed for longer is refused, as of a camera that hangs;
        0: never. A simulated camera before a still scene shows the same, too.
    """

    topic: str
    transport: Literal["raw", "compressed"] | None = None
    depth: DepthRange | None = None
    dark_below: float = 0.0
    frozen_after_s: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.dark_below < 255.0 or not 0.0 <= self.frozen_after_s < np.inf:
            raise BindingError(
                f"sources.ros, topic {self.topic}: expected dark_below from 0 to 255 and "
                f"frozen_after_s of at least 0, got {self.dark_below} and {self.frozen_after_s}"
            )
        if self.transport == "compressed" and self.depth is not None:
            raise BindingError(
                f"sources.ros, topic {self.topic}: expected transport: raw with depth, for depth "
                f"images are not read compressed, got {self.transport}"
            )


class RosJoints(_Stamped, kw_only=True, tag_field="type", tag="joint_states"):
    """End-effector state by forward kinematics of measured joints.

    They come as sensor_msgs/JointState on `topic`, by name.
    """

    topic: str
    joints: tuple[str, ...]
    finger: str


class RosPose(_Declared, tag_field="type", tag="pose"):
    """End-effector state as measured elsewhere.

    The pose comes as geometry_msgs/PoseStamped on `topic`, in the base frame; the gripper in
    Bridge's scale, as position of the joint `gripper` in sensor_msgs/JointState on
    `gripper_topic`.
    """

    topic: str
    gripper_topic: str
    gripper: str = "gripper"


class RosFields(_Stamped, kw_only=True, tag_field="type", tag="fields"):
    """A vector of numbers out of messages of any type.

    message: its type, such as geometry_msgs/msg/WrenchStamped. fields: a path for each component of
    the signal, such as wrench.force.x, data[3], or position[waist] by the message's own names.
    A message without a header counts as taken when it is received.
    """

    topic: str
    message: str
    fields: tuple[str, ...]

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]*/msg/[A-Z][A-Za-z0-9]*", self.message):
            raise BindingError(
                f"message: expected a type such as geometry_msgs/msg/WrenchStamped, "
                f"got {self.message!r}"
            )


class RosJoined(_Declared, tag_field="type", tag="joined"):
    """A vector of numbers out of messages on several topics, one part after the other.

    It is stamped as the first part's message, and made with the newest of each other part at or
    before that stamp, once one at or after it has come: name the slowest topic first.
    """

    parts: tuple[RosFields, ...]

    def __post_init__(self) -> None:
        if len(self.parts) < 2:
            raise BindingError(
                f"parts: expected two sources of type fields at least, got {len(self.parts)}; "
                "one needs no joining"
            )

    @property
    def fields(self) -> tuple[str, ...]:
        """Of all parts, in their order."""
        return tuple(field for part in self.parts for field in part.fields)


RosSource = RosImage | RosJoints | RosPose | RosFields | RosJoined


class Sources(_Declared):
    """Where each observed signal comes from, by name: ROS topics, environment and dataset keys.

    An environment may also give the instruction.
    """

    ros: dict[str, RosSource] = {}
    env: dict[str, EnvSource] = {}
    dataset: dict[str, str] = {}


class Robot(_Declared):
    """The arm and its limits.

    arm: name of a model of `canvas_robot.kinematics`; or a path to an MJCF (.xml) or URDF (.urdf)
        file; or a topic such as /robot_description, on which the node hears a URDF.
    base_frame, ee_frame: frames of the published pose (REP-103: metres, x forward, y left, z up),
        and of the model: between them lie the arm's joints, all hinges. A prefix up to the last /
        need not be in the model.
    tool: what is moved, in ee_frame: x, y, z in m, fixed-axis roll, pitch, yaw in rad; its x axis
        points out of the gripper and its y axis to the left, as on the WidowX. Left out: ee_frame.
    joint_limits: (low, high) in rad by the joint's name; they narrow those of the model.
    finger_range: position of the finger's joint closed and open; may be left out for a joint
        left_finger: its limits in the model.
    step_limits: largest change of the target in one control tick, (6,): x, y, z in m, then rad
        about x, y, z.
    box_low, box_high: workspace of the target's position in `base_frame`, (3,) m.
    rpy_low, rpy_high: bounds of the target's orientation, (3,) rad, in Bridge V2's convention
        (0 = pointing down).
    tilt_limit: largest angle between the gripper and straight down, rad; left out: none of its own.
    speed_limits, acceleration_limits: of the commanded motion, (6,): m/s and rad/s, m/s^2 and
        rad/s^2, by x, y, z, roll, pitch, yaw; left out: the node refuses to move the arm.
    joint_speed_limit: of every joint of a commanded joint trajectory, rad/s; measured joints that
        turn more than twice as fast are not believed.
    effort_limit: of every arm joint that a joint state tells the effort of, N m; above it the node
        holds until ~/start; left out: efforts are not looked at.
    anchor: what an action's delta acts on: the previous "target" (Bridge's rule) or the "measured"
        pose.
    home, park: poses that ~/home and ~/park lead the arm to, (6,): x, y, z in m, roll, pitch, yaw
        in Bridge V2's convention; left out: there is none.
    part_m, part_rad: when target and measured pose are further apart, the node holds; "target"
        anchor only.
    reactions: what the node does, by reason to hold, where it is not to do its own default.
    """

    arm: str
    base_frame: str
    ee_frame: str
    step_limits: tuple[float, float, float, float, float, float]
    box_low: tuple[float, float, float]
    box_high: tuple[float, float, float]
    rpy_low: tuple[float, float, float]
    rpy_high: tuple[float, float, float]
    tilt_limit: float | None = None
    speed_limits: tuple[float, float, float, float, float, float] | None = None
    acceleration_limits: tuple[float, float, float, float, float, float] | None = None
    joint_speed_limit: float = 3.14
    effort_limit: float | None = None
    anchor: Literal["target", "measured"] = "target"
    home: tuple[float, float, float, float, float, float] | None = None
    park: tuple[float, float, float, float, float, float] | None = None
    part_m: float = 0.08
    part_rad: float = 0.4
    reactions: dict[str, Literal["hold", "slow_stop", "zero_twist", "deactivate"]] = {}
    tool: tuple[float, float, float, float, float, float] | None = None
    joint_limits: dict[str, tuple[float, float]] = {}
    finger_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        self._check_model()
        low, high = (*self.box_low, *self.rpy_low), (*self.box_high, *self.rpy_high)
        motion = (*(self.speed_limits or ()), *(self.acceleration_limits or ()))
        positive = (*self.step_limits, *motion, self.joint_speed_limit, self.part_m, self.part_rad)
        numbers = (*positive, *low, *high)
        if not np.isfinite(numbers).all():
            raise BindingError(f"robot: expected finite limits, got {numbers}")
        if min(positive) <= 0:
            raise BindingError(
                "robot: expected step_limits, speed_limits, acceleration_limits, "
                "joint_speed_limit, part_m and part_rad > 0"
            )
        if self.effort_limit is not None and not 0.0 < self.effort_limit < np.inf:
            raise BindingError(f"robot: expected effort_limit > 0 N m, got {self.effort_limit}")
        if self.tilt_limit is not None and not 0.0 < self.tilt_limit < np.pi / 2:
            raise BindingError(
                f"robot: expected tilt_limit between 0 and pi/2, got {self.tilt_limit}"
            )
        if not all(a < b for a, b in zip(low, high, strict=True)):
            raise BindingError(
                f"robot: expected box_low < box_high and rpy_low < rpy_high, got {low} and {high}"
            )
        if not (-np.pi / 2 < self.rpy_low[1] and self.rpy_high[1] < np.pi / 2):
            raise BindingError(
                f"robot: expected pitch bounds within +-pi/2, "
                f"got {self.rpy_low[1]}, {self.rpy_high[1]}"
            )
        for lowest, highest in zip(self.rpy_low, self.rpy_high, strict=True):
            # Angles are measured from -pi to pi: those beyond would be at the other end.
            some = -np.pi <= lowest and highest <= np.pi
            if not some and not (lowest <= -np.pi and np.pi <= highest):
                raise BindingError(
                    f"robot: expected bounds of roll and yaw within +-pi, or +-3.15 for all the "
                    f"way round, got {lowest}, {highest}"
                )
        for name in ("home", "park"):
            pose = getattr(self, name)
            if pose and not all(a <= x <= b for a, x, b in zip(low, pose, high, strict=True)):
                raise BindingError(
                    f"robot.{name}: expected a pose within box and orientation limits, {low} to "
                    f"{high}, got {pose}"
                )

    def _check_model(self) -> None:
        """What is said of the arm's model."""
        if self.tool is not None and not np.isfinite(self.tool).all():
            raise BindingError(f"robot.tool: expected finite numbers, got {self.tool}")
        for name, (low, high) in self.joint_limits.items():
            if not (np.isfinite([low, high]).all() and low < high):
                raise BindingError(
                    f"robot.joint_limits.{name}: expected low < high, finite, got {low} and {high}"
                )
        if self.finger_range is not None:
            closed, opened = self.finger_range
            if not (np.isfinite([closed, opened]).all() and closed != opened):
                raise BindingError(
                    f"robot.finger_range: expected two finite positions that differ, closed and "
                    f"open, got {closed} and {opened}"
                )


class Binding(_Declared, omit_defaults=True):
    """All of a binding file.

    control_rate_hz: rate of control ticks.
    robot: left out where only an environment of its own obeys.
    environment: what a Gymnasium environment takes; left out: the action signal as it is.
    """

    control_rate_hz: float
    signals: dict[str, Signal]
    regions: dict[str, RegionBinding]
    sources: Sources
    robot: Robot | None = None
    environment: Environment | None = None

    def __post_init__(self) -> None:
        if not 0.1 <= self.control_rate_hz <= 1000.0:
            raise BindingError(f"control_rate_hz: expected 0.1 to 1000, got {self.control_rate_hz}")
        for region, bound in self.regions.items():
            if bound.signal is not None:
                _check_signal(region, bound, self.signals)
        for origin in ("ros", "env", "dataset"):
            unknown = sorted(set(getattr(self.sources, origin)) - set(self.signals))
            if unknown:
                raise BindingError(
                    f"sources.{origin}: names signals {unknown}; "
                    f"declared signals: {sorted(self.signals)}"
                )
        self._check_ros_sources()
        try:
            self._check_environment()
        except SignalError as error:
            raise BindingError(str(error)) from error

    @property
    def tick_ns(self) -> int:
        """Length of one control tick in nanoseconds."""
        return round(1e9 / self.control_rate_hz)

    @property
    def joint_source(self) -> RosJoints | None:
        """Where the node hears the arm's joints; None where it hears poses alone."""
        sources = self.sources.ros.values()
        return next((source for source in sources if isinstance(source, RosJoints)), None)

    def regions_by_codec(self, codec: str) -> tuple[str, ...]:
        """Names of the regions that the codec fills, in the binding's order."""
        return tuple(name for name, bound in self.regions.items() if bound.codec == codec)

    def regions_by_role(self, role: Role) -> tuple[str, ...]:
        """Names of the regions whose codec has a role, in the binding's order."""
        return tuple(name for name, bound in self.regions.items() if bound.role == role)

    def observed_regions(self) -> tuple[str, ...]:
        """Regions filled from sampled streams."""
        return self.regions_by_role("frames")

    def future_regions(self, schema: CanvasSchema) -> frozenset[str]:
        """Video that is predicted and never observed.

        These are visual regions that are outputs and begin after the current tick.
        """
        return frozenset(
            name
            for name in self.observed_regions()
            if _is_future(schema.layout.region_spec(name), self.regions[name], schema)
        )

    def action_region(self) -> str:
        """The one region whose tokens decode to the action."""
        return self.regions_by_role("action")[0]

    def action_signal(self) -> VectorSignal:
        """Declaration of the action's vector."""
        return self.signals[self.regions[self.action_region()].signal]

    def goal_region(self) -> str:
        """The one region that holds the instruction."""
        return self.regions_by_role("instruction")[0]

    def check_schema(self, schema: CanvasSchema) -> None:
        """Raises BindingError unless the binding fits the schema.

        It fits if it fills exactly the schema's regions, one action, one goal.
        """
        bound, declared = set(self.regions), set(schema.layout.regions)
        if bound != declared:
            raise BindingError(
                f"binding and schema name different regions: "
                f"only in the binding {sorted(bound - declared)}, "
                f"only in the schema {sorted(declared - bound)}"
            )
        for role in ("action", "instruction"):
            regions = self.regions_by_role(role)
            if len(regions) != 1:
                codecs = [name for name, d in CODEC_DECLARATIONS.items() if d.role == role]
                raise BindingError(
                    f"expected one region with codec {' or '.join(codecs)}, got {list(regions)}"
                )
        for region, bound_region in self.regions.items():
            _check_region(region, bound_region, schema)

    def _check_ros_sources(self) -> None:
        for name, source in self.sources.ros.items():
            signal = self.signals[name]
            parts = source.parts if isinstance(source, RosJoined) else (source,)
            received = any(getattr(part, "stamp", "header") == "received" for part in parts)
            if received and getattr(signal, "max_skew_s", None) is not None:
                raise BindingError(
                    f"sources.ros.{name}: expected stamp: header where the signal has max_skew_s, "
                    f"which compares when samples were taken, got received"
                )
            if isinstance(source, RosFields | RosJoined) and (
                not isinstance(signal, VectorSignal) or signal.size != len(source.fields)
            ):
                raise BindingError(
                    f"sources.ros.{name}: expected a vector signal and one field for each of its "
                    f"components, got a {type(signal).__name__} and {len(source.fields)} fields"
                )

    def _check_environment(self) -> None:
        for name, source in self.sources.env.items():
            check_env_source(name, self.signals[name], source)
            if isinstance(source, EnvJoints) and self.robot is None:
                raise SignalError(
                    f"sources.env.{name}: joints need the arm that robot.arm names; "
                    f"this binding declares no robot"
                )
        if self.environment is not None:
            self.environment.steps_per_tick(self.control_rate_hz)
            for region in self.regions_by_role("action"):
                signal = self.regions[region].signal
                self.environment.check(signal, self.signals[signal])

    def with_control_rate(self, control_rate_hz: float) -> Binding:
        """The same binding at another rate of control ticks."""
        return msgspec.structs.replace(self, control_rate_hz=control_rate_hz)

    def to_yaml(self) -> str:
        """The binding as YAML; the inverse of `binding_from_yaml`."""
        return yaml.safe_dump(msgspec.to_builtins(self), sort_keys=False)


def load_binding(path: str | Path) -> Binding:
    """Reads a binding file.

    Raises BindingError naming the file, the field, what was expected and what came.
    """
    try:
        return binding_from_yaml(Path(path).read_text(encoding="utf-8"))
    except (BindingError, SignalError, UnicodeDecodeError) as error:
        raise BindingError(f"{path}: {error}") from error


def binding_from_yaml(text: str) -> Binding:
    """Parses a binding; raises BindingError for anything that is not one."""
    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # a date that is none is a ValueError
        raise BindingError(f"binding: {error}") from error
    try:
        return msgspec.convert(data, Binding, dec_hook=lambda _, entry: region_binding(entry))
    except msgspec.ValidationError as error:
        raise BindingError(f"binding: {error}") from error


def _check_signal(region: str, bound: RegionBinding, signals: dict[str, Signal]) -> None:
    if bound.signal not in signals:
        raise BindingError(
            f"region {region!r}: names signal {bound.signal!r}; declared signals: {sorted(signals)}"
        )
    signal = signals[bound.signal]
    if not isinstance(signal, bound.signal_kind):
        raise BindingError(
            f"region {region!r}: codec {bound.codec!r} needs a {bound.signal_kind.__name__}, "
            f"signal {bound.signal!r} is a {type(signal).__name__}"
        )
    if bound.components is not None and signal.size != bound.components:
        raise BindingError(
            f"region {region!r}: codec {bound.codec!r} needs a signal of {bound.components} "
            f"component, signal {bound.signal!r} has {signal.size}"
        )


def _is_future(spec: RegionSpec, bound: RegionBinding, schema: CanvasSchema) -> bool:
    after = spec.bounds[0] == schema.layout.t_current + 1
    return bound.role == "frames" and bound.native and spec.is_output and after


def _check_region(region: str, bound: RegionBinding, schema: CanvasSchema) -> None:
    spec, now = schema.layout.region_spec(region), schema.layout.t_current
    t0, t1, *_ = spec.bounds
    if bound.role == "frames" and t1 != now + 1 and not _is_future(spec, bound, schema):
        raise BindingError(
            f"region {region!r}: an observed region ends at the current tick, "
            f"t1 = t_current + 1 = {now + 1}; got t1 = {t1}"
        )
    if bound.role in ("action", "reward") and t0 != now:
        raise BindingError(
            f"region {region!r}: a region that decodes to {bound.role} starts at the current tick, "
            f"t0 = t_current = {now}; got t0 = {t0}"
        )
    if spec.stream != bound.stream:
        raise BindingError(
            f"region {region!r}: codec {bound.codec!r} fills the {bound.stream} stream, "
            f"the schema declares {spec.stream!r}"
        )
