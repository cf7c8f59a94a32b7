"""A simulated WidowX and the policy that drives it: `ros2 launch canvas_robot sim.launch.py`."""

import os

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, SetEnvironmentVariable
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PythonExpression
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

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


def generate_launch_description():
    value = {name: LaunchConfiguration(name) for name in ARGUMENTS}
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    policy = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(os.path.join(SHARE, "launch", "policy.launch.py")),
        launch_arguments={
            **{name: value[name] for name in PASSED_ON},
            "use_sim_time": PythonExpression(
                ["'true' if '", value["clock"], "' == 'sim' else 'false'"]
            ),
        }.items(),
    )
    logger = PythonExpression(
        ["('", value["namespace"], "'.strip('/') + '/sim_robot').strip('/').replace('/', '.')"]
    )
    robot = Node(
        package="canvas_robot",
        executable="sim_robot",
        name="sim_robot",
        namespace=value["namespace"],
        parameters=[
            value["sim_params_file"],
            {
                "clock": value["clock"],
                "real_time_factor": ParameterValue(value["real_time_factor"], value_type=float),
                "task": value["task"],
                "episode": ParameterValue(value["episode"], value_type=int),
            },
        ],
        ros_arguments=["--log-level", [logger, ":=", value["log_level"]]],
        output="screen",
        emulate_tty=True,
    )
    without_screen = SetEnvironmentVariable("MUJOCO_GL", os.environ.get("MUJOCO_GL", "egl"))
    # The included file sets the transport profile for both nodes: it stands before the robot.
    return LaunchDescription([*declared, without_screen, policy, robot])
