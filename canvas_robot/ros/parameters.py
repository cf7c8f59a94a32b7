"""The policy node's parameters: declared with descriptions, read once into checked settings."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import rclpy
import yaml
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.context import Context
from rclpy.exceptions import (
    InvalidParameterTypeException,
    InvalidParameterValueException,
    InvalidTopicNameException,
)
from rclpy.expand_topic_name import expand_topic_name
from rclpy.node import Node
from rclpy.parameter import Parameter, parameter_dict_from_yaml_file
from rclpy.validate_full_topic_name import validate_full_topic_name

from canvas_robot.policy.chunk_execution import EXECUTIONS
from canvas_robot.policy.settings import (
    DEFAULT_THREADS,
    DTYPE_NAMES,
    STAND_INS,
    PolicySettings,
)
from canvas_robot.ros.images import TRANSPORTS
from canvas_robot.ros.process import why_no_ros


class ParameterError(ValueError):
    """A parameter's value cannot be used."""


@dataclass(frozen=True)
class Settings:
    """What the policy node reads at configure; see PARAMETERS for the meaning."""

    policy: PolicySettings
    base_frame: str
    ee_frame: str
    image_transport: str
    threads: int
    thread_priority: int
    command_rate_hz: float
    decision_timeout_s: float
    diagnostic_period_s: float
    execution: str
    execute_steps: int
    unsafe: bool
    dry_run: bool
    joint_output: bool
    joint_positions: bool
    gripper_action: str
    servo: str
    interbotix: str
    estop_topic: str
    deadman_topic: str
    teleop_topic: str

    @property
    def commands_joints(self) -> bool:
        """Whether anything asks for joints, by inverse kinematics."""
        return self.joint_output or self.joint_positions or bool(self.interbotix)


# What MoveIt Servo can be commanded by, of what the node publishes; the numbers are those of
# moveit_msgs/srv/ServoCommandType.
SERVO_COMMANDS = {"twist": 1, "pose": 2}

PARAMETERS = {
    "checkpoint": (
        "",
        "checkpoint folder; demo: the policy that ships; empty: an untrained one of schema, "
        "binding and backbone",
    ),
    "schema": (
        "",
        "canvas schema, a path or a name in config/schemas; empty: the checkpoint's, "
        "or widowx_tiny.json",
    ),
    "binding": (
        "",
        "binding, a path or a name in config/bindings; empty: the checkpoint's, or widowx.yaml",
    ),
    "backbone": (
        "tiny",
        "backbone of an untrained policy: a name in config/backbones, a folder or a hub id",
    ),
    "device": ("cpu", "torch device of the model, such as cpu or cuda:0"),
    "dtype": ("float32", "precision of the frozen weights: float32, bfloat16 or float16"),
    "int8": (False, "the frozen linear layers in 8 bits"),
    "float8": (False, "the same as 8-bit floats (e4m3)"),
    "prompts": (
        "",
        "folder made by `canvas-robot prompts`: the text encoder is not loaded, and only its "
        "instructions are known; empty: the checkpoint's, if it has one",
    ),
    "fuse": (False, "let torch.compile fuse the elementwise parts; needs a C++ compiler or CUDA"),
    "refresh": (
        "inline",
        "inline: a region with a period above 1 is computed in the tick in which it is due; "
        "sliced: between ticks, which then act on older pictures but are never late",
    ),
    "instruction": ("", "instruction at activation; empty: hold until one comes on ~/instruction"),
    "base_frame": ("", "frame_id of the commanded pose; empty: the binding's base_frame"),
    "ee_frame": ("", "frame that the commanded pose places; empty: the binding's ee_frame"),
    "image_transport": (
        "raw",
        "raw: sensor_msgs/Image; compressed: sensor_msgs/CompressedImage on <topic>/compressed; of "
        "cameras for which the binding does not say",
    ),
    "autostart": (False, "configure and activate at start"),
    "autoconfigure": (
        False,
        "configure at start: load and warm the model, and wait for activation",
    ),
    "execution": (
        "first",
        "which rows of an action chunk are carried out: first (of every decision, at once), "
        "receding (execute_steps rows, then the next decision), temporal_ensemble (the mean of all "
        "decisions), rtc (real-time chunking: the old chunk until the new one is there, passing "
        "over softly)",
    ),
    "unsafe": (False, "move an arm whose binding declares no limits of speed and acceleration"),
    "dry_run": (
        False,
        "publish poses on ~/proposed, and nothing on the topics, services and actions that move an "
        "arm",
    ),
    "joint_output": (
        False,
        "publish joints as well, by inverse kinematics: trajectory_msgs/JointTrajectory on "
        "~/joint_trajectory and ~/gripper_trajectory; needs a source of type joint_states",
    ),
    "joint_positions": (
        False,
        "publish joints as bare positions, too, for forward_command_controller: "
        "std_msgs/Float64MultiArray on ~/joint_positions and ~/gripper_position; needs a source of "
        "type joint_states",
    ),
    "gripper_action": (
        "",
        "name of an action of type control_msgs/ParallelGripperCommand, such as "
        "gripper_controller/gripper_cmd, that gets the gripper as goals, too; empty: none",
    ),
    "servo": (
        "",
        "twist or pose: what MoveIt Servo is told to hear, at activation, by "
        "servo_node/switch_command_type (moveit_msgs/ServoCommandType); empty: nothing is told",
    ),
    "interbotix": (
        "",
        "namespace of Interbotix's own driver, such as /wx250s, that gets joints and gripper as "
        "interbotix_xs_msgs, too; needs a source of type joint_states; empty: none",
    ),
    "stand_in": (
        "",
        f"in place of a model, to measure and to test the node, one of {', '.join(STAND_INS)}: "
        "decides no motion after stand_in_ms; all but the first fail with every 20th decision",
    ),
    "estop_topic": (
        "",
        "std_msgs/Bool: true holds the arm until it says false and ~/start is called; empty: none "
        "is heard",
    ),
    "deadman_topic": (
        "",
        "std_msgs/Bool: the arm moves only while it says true, at least every 0.5 s; empty: none",
    ),
    "teleop_topic": (
        "",
        "geometry_msgs/TwistStamped in the base frame: leads the arm in place of the policy while "
        "it comes, at least every 0.25 s; beside it <teleop_topic>_gripper, std_msgs/Float64; "
        "empty: none",
    ),
}

# The words that a parameter may be.
_WORDS = {
    "image_transport": TRANSPORTS,
    "dtype": DTYPE_NAMES,
    "refresh": ("inline", "sliced"),
    "execution": EXECUTIONS,
    "servo": (*SERVO_COMMANDS, ""),
    "stand_in": (*STAND_INS, ""),
}

# Names of topics, actions and namespaces; "" is none.
_ROS_NAMES = ("estop_topic", "deadman_topic", "teleop_topic", "gripper_action", "interbotix")

# What is read as the node is made, and never again.
AT_START = ("autostart", "autoconfigure")

# What ~/reload reads again; all else is read at configure.
RELOADED = ("checkpoint", "schema", "binding", "backbone", "prompts")

# Numbers, whole where their default is: default, lowest, highest, description.
NUMBERS = {
    "stand_in_ms": (20.0, 0.0, 60_000.0, "how long a stand-in takes to decide [ms]"),
    "control_rate": (0.0, 0.0, 1000.0, "control ticks per second [Hz]; 0: the binding's"),
    "command_rate": (
        50.0,
        10.0,
        500.0,
        "commands per second [Hz]: set-points between two decisions, each with a fresh stamp",
    ),
    "decision_timeout": (
        0.4,
        0.05,
        60.0,
        "how long a decision is followed if no newer one comes [s], from the stamp of the picture "
        "that it saw; then the arm is held",
    ),
    "diagnostic_updater.period": (1.0, 0.1, 60.0, "between two messages on /diagnostics [s]"),
    "execute_steps": (
        0,
        0,
        1000,
        "rows of a chunk that execution: receding carries out; 0: all",
    ),
    "threads": (
        DEFAULT_THREADS,
        0,
        1024,
        "CPU threads of the model; 0: torch's own choice. More than one is faster on idle cores "
        "and far slower beside other programs",
    ),
    "thread_priority": (
        50,
        0,
        99,
        "real-time priority (SCHED_FIFO) of the thread that commands, and one less of the one that "
        "decides, where the system allows it; 0: none is asked for",
    ),
}


def declare_parameters(node: Node) -> None:
    """Declares every parameter; those of AT_START are read-only.

    All others are read at configure, and the node then refuses to change them; but `instruction` is
    read at activation and whenever it is set, and those of RELOADED again at ~/reload.
    Raises ParameterError for what was set at start and cannot be a parameter's value.
    """
    for name, (default, description) in PARAMETERS.items():
        descriptor = ParameterDescriptor(
            description=description,
            additional_constraints=f"one of {_listed(name)}" if name in _WORDS else "",
            read_only=name in AT_START,
        )
        declare(node, name, default, descriptor)
    for name, (default, low, high, description) in NUMBERS.items():
        descriptor = ParameterDescriptor(description=description)
        if isinstance(default, int):
            descriptor.integer_range = [IntegerRange(from_value=low, to_value=high)]
        else:
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
        declare(node, name, default, descriptor)


def declare(node: Node, name: str, default: object, descriptor: ParameterDescriptor) -> None:
    """Declares one parameter; raises ParameterError for what it was set to at start."""
    try:
        node.declare_parameter(name, default, descriptor)
    except (InvalidParameterTypeException, InvalidParameterValueException) as error:
        got = node._parameter_overrides[name].value  # rclpy has no public way to it
        raise ParameterError(
            f"{name}: expected {_expected(default, descriptor)}, got {got!r}"
        ) from error


def _expected(default: object, descriptor: ParameterDescriptor) -> str:
    """What a parameter takes, in words."""
    if isinstance(default, bool):
        return "true or false"
    if isinstance(default, str):
        return "text, in quotes where it reads as a number or a truth"
    if isinstance(default, list):
        return "a list of text"
    kind = "a number with a decimal point" if isinstance(default, float) else "a whole number"
    for allowed in (*descriptor.floating_point_range, *descriptor.integer_range):
        kind += f" from {allowed.from_value} to {allowed.to_value}"
    return kind


def unknown_parameters(node: Node) -> list[str]:
    """What was set at start and is no parameter of the node, each with what may have been meant."""
    known = [*node.get_parameters_by_prefix("")]
    told = []
    for name in node._parameter_overrides:
        if not node.has_parameter(name) and not name.startswith("qos_overrides."):
            near = difflib.get_close_matches(name, known, 1)
            told.append(f"{name}: no such parameter" + (f"; {near[0]}?" if near else ""))
    return told


def parameters_of_file(path: Path, name: str = "/policy") -> dict[str, object]:
    """What a parameters file gives the policy node of an absolute name, by the parameter's name.

    Of several entries that mean the node, later ones win, as in ROS. Raises ParameterError where
    the node would not start with the file, as with one that has no entry for it.
    """
    if path.is_dir() or not path.exists():
        found = "a folder" if path.is_dir() else "none there"
        raise ParameterError(f"{path}: expected a parameters file, got {found}; name another")
    context = Context()
    try:
        rclpy.init(args=["--ros-args", "--params-file", str(path)], context=context)
    except RuntimeError as error:
        raise ParameterError(why_no_ros(error)) from error
    finally:
        rclpy.try_shutdown(context=context)
    found, tree = {}, _tree_for(path, name)
    for key in tree:
        if _means(key, name):
            found |= parameter_dict_from_yaml_file(str(path), target_nodes=[key])
    return {name: Parameter.from_parameter_msg(msg).value for name, msg in found.items()}


def check_params_files(node: Node) -> None:
    """Raises ParameterError for a parameters file of the command line that says nothing to a node.

    ROS passes over it in silence, and with it over a dry run or an emergency stop that it declares.
    """
    words = sys.argv
    for at, word in enumerate(words[:-1]):
        if word == "--params-file":
            _tree_for(Path(words[at + 1]), node.get_fully_qualified_name())


def _tree_for(file: Path, name: str) -> dict:
    """What is in a parameters file; ParameterError where no entry means the node of that name."""
    try:
        tree = yaml.safe_load(file.read_text())
    except (OSError, yaml.YAMLError) as error:
        told = " ".join(str(error).split())
        raise ParameterError(f"{file}: expected a ROS parameters file, got {told}") from error
    meant = list(_entries(tree))
    if not any(_means(one, name) for one in meant):
        raise ParameterError(
            f"{file}: expected an entry for {name}, got {', '.join(meant) or 'none'}; name it "
            f"{name}, or /** for any node"
        )
    return tree


def _entries(tree: object, above: str = "") -> Iterator[str]:
    """Names, maybe with wildcards, of the nodes that a parameters file has an entry for."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            if key == "ros__parameters":
                yield above
            else:
                yield from _entries(value, f"{above}/{str(key).strip('/')}")


def _means(key: str, name: str) -> bool:
    """Whether an entry of a parameters file is about a node: * is any token, ** any number of them.

    Other entries of the file are other nodes'.
    """
    pattern = re.escape("/" + key.strip("/")).replace(r"/\*\*", "(/[^/]+)*").replace(r"\*", "[^/]+")
    return re.fullmatch(pattern, name) is not None


def read_settings(node: Node) -> Settings:
    """The parameters as they are now; raises ParameterError naming the one that is wrong."""
    value = {name: node.get_parameter(name).value for name in (*PARAMETERS, *NUMBERS)}
    for name in value:
        check_value(node, name, value[name])
    policy = PolicySettings(
        control_rate_hz=value["control_rate"], **_of_same_name(PolicySettings, value)
    )
    return Settings(
        policy=policy,
        command_rate_hz=value["command_rate"],
        decision_timeout_s=value["decision_timeout"],
        diagnostic_period_s=value["diagnostic_updater.period"],
        **_of_same_name(Settings, value),
    )


def check_value(node: Node, name: str, value: object) -> None:
    """Raises ParameterError for a word or a name that a parameter cannot be.

    ROS itself looks at types and ranges.
    """
    if name in _WORDS and value not in _WORDS[name]:
        raise ParameterError(f"{name}: expected one of {_listed(name)}, got {value!r}")
    if name in _ROS_NAMES and value:
        check_ros_name(node, name, value)


def _listed(name: str) -> str:
    return ", ".join(word or "nothing" for word in _WORDS[name])


def _of_same_name(settings: type, value: dict[str, object]) -> dict[str, object]:
    """The values of those parameters that are called as a field of the settings is."""
    return {field.name: value[field.name] for field in fields(settings) if field.name in value}


def check_ros_name(node: Node, parameter: str, name: str) -> None:
    """Raises ParameterError for a name of a topic or the like that ROS does not take."""
    try:
        full = expand_topic_name(name, node.get_name(), node.get_namespace())
        validate_full_topic_name(full)
    except (InvalidTopicNameException, ValueError) as error:
        why = str(error).splitlines()[0].split(": ", 1)[-1].split(", at /")[0].rstrip(":")
        raise ParameterError(
            f"{parameter}: expected a ROS name such as /robot/{parameter}, got {name!r}: {why}"
        ) from error
