"""A simulated WidowX and the policy that drives it: `ros2 launch canvas_robot sim.launch.py`."""

import os

from ament_index_python.packages import get_package_share_directory
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    OpaqueFunction,
    SetEnvironmentVariable,
    Shutdown,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchDescription

SHARE = get_package_share_directory("canvas_robot")

ARGUMENTS = {
    "clock": ("wall", "wall: the system's time; sim: the simulation publishes /clock"),
    "real_time_factor": ("1.0", "simulated seconds per second"),
    "task": ("reach", "what stands on the table, a name in docs/simulation.md"),
    "episode": ("0", "where the things of the task lie"),
    "sim_params_file": (
        os.path.join(SHARE, "config", "ros", "sim_robot.yaml"),
        "parameters of the simulated robot; the arguments above win over it",
    ),
    "checkpoint": ("demo", "folder; demo: the policy that ships; empty: an untrained one"),
    "schema": ("", "canvas schema, a path or a name in config/schemas; empty: the checkpoint's"),
    "binding": ("", "binding, a path or a name in config/bindings; empty: widowx.yaml"),
    "instruction": ("touch the blue cube", "the goal in words; this one fits episode 0"),
    "device": ("", "torch device, such as cpu or cuda:0; empty: the parameters file's"),
    "control_rate": ("", "control ticks per second [Hz]; empty: the binding's"),
    "params_file": (
        os.path.join(SHARE, "config", "ros", "policy.yaml"),
        "parameters of the policy node; the arguments above win over it",
    ),
    "namespace": ("", "namespace of both nodes and their topics"),
    "autostart": ("true", "configure and activate the policy at start"),
    "log_level": ("info", "debug, info, warn, error or fatal"),
}
PASSED_ON = (
    *("checkpoint", "schema", "binding", "instruction", "device"),
    *("control_rate", "params_file", "namespace", "autostart", "log_level"),
)


def check_is_file(name, path):
    """Launch itself only warns of a parameters file that is not there, and starts without it."""
    if not os.path.isfile(path):
        raise ValueError(f"{name}: expected a parameters file, got {path!r}; nothing was started")


def number(arguments, name, kind, said):
    """An argument that is a number."""
    try:
        return kind(arguments[name])
    except ValueError:
        raise ValueError(f"{name}: expected {said}, got {arguments[name]!r}") from None


def make_policy(arguments):
    """The policy node, on the robot's clock."""
    use_sim_time = "true" if arguments["clock"] == "sim" else "false"
    return IncludeLaunchDescription(
        PythonLaunchDescriptionSource(os.path.join(SHARE, "launch", "policy.launch.py")),
        launch_arguments={
            **{name: arguments[name] for name in PASSED_ON},
            "use_sim_time": use_sim_time,
        }.items(),
    )


def end_with_robot(event, context):
    """Nothing is left to be driven, if this is not the end already."""
    return None if context.is_shutdown else [Shutdown(reason="the simulated robot has ended")]


def make_robot(arguments):
    """The simulated robot."""
    logger = os.path.join(arguments["namespace"].strip("/"), "sim_robot").replace("/", ".")
    return Node(
        package="canvas_robot",
        executable="sim_robot",
        name="sim_robot",
        namespace=arguments["namespace"],
        parameters=[
            arguments["sim_params_file"],
            {
                "clock": arguments["clock"],
                "real_time_factor": number(arguments, "real_time_factor", float, "a number"),
                "task": arguments["task"],
                "episode": number(arguments, "episode", int, "a whole number"),
            },
        ],
        ros_arguments=["--log-level", f"{logger}:={arguments['log_level']}"],
        output="screen",
        emulate_tty=True,
        on_exit=end_with_robot,
    )


def make_nodes(context):
    """Robot and policy, once the arguments' values are known to be right."""
    arguments = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    for name in ("params_file", "sim_params_file"):
        check_is_file(name, arguments[name])
    if arguments["control_rate"]:
        number(arguments, "control_rate", float, "a number")
    # The included file sets the transport profile for both nodes: it stands before the robot.
    return [make_policy(arguments), make_robot(arguments)]


def generate_launch_description():
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    without_screen = SetEnvironmentVariable("MUJOCO_GL", os.environ.get("MUJOCO_GL", "egl"))
    return LaunchDescription([*declared, without_screen, OpaqueFunction(function=make_nodes)])
