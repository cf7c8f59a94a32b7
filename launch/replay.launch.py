"""A recorded bag played to a policy that commands nothing.

`ros2 launch canvas_robot replay.launch.py bag:=runs/record/one checkpoint:=...`
"""

import os

import yaml
from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    OpaqueFunction,
    SetEnvironmentVariable,
    Shutdown,
)
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode

from launch import LaunchDescription

SHARE = get_package_share_directory("canvas_robot")

ARGUMENTS = {
    "bag": (None, "folder that `canvas-robot record` has written"),
    "rate": ("1.0", "recorded seconds per second"),
    "delay": ("20.0", "seconds until the bag begins, while the model is loaded"),
    "checkpoint": ("demo", "folder; demo: the policy that ships; empty: an untrained one"),
    "binding": ("", "binding, a path or a name in config/bindings; empty: the checkpoint's"),
    "instruction": ("", "the goal in words; empty: hold until one comes out of the bag"),
    "device": ("", "torch device, such as cpu or cuda:0; empty: the parameters file's"),
    "params_file": (
        os.path.join(SHARE, "config", "ros", "policy.yaml"),
        "parameters of the policy node; the arguments here win over it",
    ),
    "namespace": ("", "namespace of the policy node, now and in the bag"),
    "dry_run": ("true", "propose poses on policy/proposed, and command nothing"),
    "autostart": ("true", "configure and activate the policy at start"),
    "log_level": ("info", "debug, info, warn, error or fatal"),
}
# What a recorded policy said is not played: this one says its own.
SAID = (
    "target_pose",
    "target_twist",
    "proposed",
    "gripper",
    "joint_trajectory",
    "gripper_trajectory",
    "joint_positions",
    "gripper_position",
    "action_chunk",
    "status",
)


def switch(arguments, name):
    """An argument that is true or false."""
    if arguments[name].lower() not in ("true", "false"):
        raise ValueError(f"{name}: expected true or false, got {arguments[name]!r}")
    return arguments[name].lower() == "true"


def check_is_file(name, path):
    """Launch itself only warns of a parameters file that is not there, and starts without it."""
    if not os.path.isfile(path):
        raise ValueError(f"{name}: expected a parameters file, got {path!r}; nothing was started")


def make_policy(arguments):
    """The policy node, on the bag's clock."""
    parameters = {name: switch(arguments, name) for name in ("dry_run", "autostart")}
    for name in ("checkpoint", "binding", "instruction", "device"):
        if arguments[name]:  # empty arguments set nothing
            parameters[name] = arguments[name]
    logger = os.path.join(arguments["namespace"].strip("/"), "policy").replace("/", ".")
    return LifecycleNode(
        package="canvas_robot",
        executable="policy",
        name="policy",
        namespace=arguments["namespace"],
        parameters=[arguments["params_file"], {**parameters, "use_sim_time": True}],
        ros_arguments=["--log-level", f"{logger}:={arguments['log_level']}"],
        output="screen",
        emulate_tty=True,
    )


def policies_of(bag):
    """Names of the nodes whose decisions are in a bag, by its metadata."""
    try:
        with open(os.path.join(bag, "metadata.yaml")) as file:
            said = yaml.safe_load(file)["rosbag2_bagfile_information"]
        topics = [one["topic_metadata"] for one in said["topics_with_message_count"]]
        statuses = [one["name"] for one in topics if one["type"].endswith("/DiagnosticStatus")]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"bag: expected the folder of a bag, with its metadata.yaml, got {bag!r}: {error}"
        ) from error
    return sorted(name.rpartition("/")[0] for name in statuses if name.endswith("/status"))


def end_with_bag(event, context):
    """Nothing more will be heard, if this is not the end already."""
    return None if context.is_shutdown else [Shutdown(reason="the bag has been played")]


def make_player(arguments):
    """What the recorded policy heard, and the clock of that time."""
    policy = os.path.join("/", arguments["namespace"].strip("/"), "policy")
    recorded = policies_of(arguments["bag"])
    if recorded and policy not in recorded:
        raise ValueError(
            f"namespace: expected the recorded node's, which was {', '.join(recorded)}, "
            f"got {arguments['namespace']!r}; its node is called policy here"
        )
    try:
        get_package_share_directory("ros2bag")
    except PackageNotFoundError:
        raise ValueError(
            "bag: `ros2 bag play` is not there; apt-get install ros-$ROS_DISTRO-ros2bag "
            "ros-$ROS_DISTRO-rosbag2-storage-mcap"
        ) from None
    said = [f"{node}/{topic}" for node in sorted({policy, *recorded}) for topic in SAID]
    return ExecuteProcess(
        cmd=[
            *("ros2", "bag", "play", arguments["bag"], "--clock", "100"),
            *("--rate", arguments["rate"], "--delay", arguments["delay"]),
            *("--disable-keyboard-controls", "--exclude-topics", *said),
            *("/diagnostics", "/clock"),
        ],
        output="screen",
        on_exit=end_with_bag,
    )


def make_nodes(context):
    """Policy and player, once the arguments' values are known."""
    arguments = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    check_is_file("params_file", arguments["params_file"])
    return [make_policy(arguments), make_player(arguments)]


def generate_launch_description():
    # As in policy.launch.py: pictures need more shared memory than Fast DDS takes by itself.
    profile = os.path.join(SHARE, "config", "ros", "fastdds.xml")
    transport = [
        SetEnvironmentVariable(name, os.environ.get(name, profile))
        for name in ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
    ]
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    return LaunchDescription([*declared, *transport, OpaqueFunction(function=make_nodes)])
