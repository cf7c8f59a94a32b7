"""A real WidowX 250S and the policy that drives it.

`ros2 launch canvas_robot widowx.launch.py checkpoint:=... drivers:=true dry_run:=false`
"""

import os

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    LogInfo,
    OpaqueFunction,
    SetEnvironmentVariable,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode

from launch import LaunchDescription

SHARE = get_package_share_directory("canvas_robot")

ARGUMENTS = {
    "checkpoint": ("", "folder; demo: the policy that ships; empty: an untrained one"),
    "binding": ("widowx.yaml", "binding, a path or a name in config/bindings"),
    "instruction": ("", "the goal in words; empty: hold until one comes on policy/instruction"),
    "device": ("", "torch device, such as cpu or cuda:0; empty: the parameters file's"),
    "params_file": (
        os.path.join(SHARE, "config", "ros", "policy.yaml"),
        "parameters of the policy node; the arguments here win over it",
    ),
    "robot_name": ("wx250s", "name of the arm: the namespace of its driver"),
    "robot_model": ("wx250s", "model of the arm, for its driver; another wants another binding"),
    "camera_topic": (
        "/camera/image_raw",
        "topic of the camera; usb_cam: /image_raw, RealSense: /camera/camera/color/image_raw",
    ),
    "wrist_camera_topic": (
        "/wrist_camera/image_raw",
        "topic of a second camera, where the binding has one",
    ),
    "joint_states_topic": ("", "topic of the joint states; empty: /<robot_name>/joint_states"),
    "joint_output": ("true", "command joint trajectories as well, as the arm's controllers want"),
    "joint_trajectory_topic": (
        "",
        "commands of the arm's joints; empty: /<robot_name>/arm_controller/joint_trajectory",
    ),
    "gripper_trajectory_topic": (
        "",
        "commands of the finger; empty: /<robot_name>/gripper_controller/joint_trajectory",
    ),
    "target_pose_topic": ("policy/target_pose", "commands as poses, for a Cartesian controller"),
    "target_twist_topic": (
        "policy/target_twist",
        "commands as speeds; MoveIt Servo: /servo_node/delta_twist_cmds",
    ),
    "dry_run": ("true", "true: propose on policy/proposed; false: move the arm"),
    "interbotix": (
        "",
        "namespace of Interbotix's driver, such as /wx250s, where it runs alone; empty: "
        "/<robot_name> where drivers:=true starts it so",
    ),
    "drivers": ("false", "start Interbotix's driver of the arm too, where it is installed"),
    "use_rviz": ("false", "with drivers:=true: show the arm in RViz"),
    "namespace": ("", "namespace of the policy node and its topics"),
    "use_sim_time": ("false", "take the time from /clock"),
    "autostart": ("true", "configure and activate the policy at start"),
    "autoconfigure": (
        "false",
        "configure at start, and wait for activation; with autostart:=false",
    ),
    "log_level": ("info", "debug, info, warn, error or fatal"),
}
SWITCHES = ("joint_output", "dry_run", "use_sim_time", "autostart", "autoconfigure")
# Launch files of Interbotix, the first that is installed: joint trajectory controllers with the
# driver, or the driver alone, which is commanded in messages of its own.
CONTROLLERS, ALONE = "interbotix_xsarm_ros_control", "interbotix_xsarm_control"
DRIVERS = {CONTROLLERS: "xsarm_ros_control.launch.py", ALONE: "xsarm_control.launch.py"}


def remappings(arguments):
    """Of the node's topics, to those of the arm and of the camera."""
    arm, camera = f"/{arguments['robot_name']}", arguments["camera_topic"]
    wrist = arguments["wrist_camera_topic"]
    joints = arguments["joint_states_topic"] or f"{arm}/joint_states"
    trajectory = arguments["joint_trajectory_topic"] or f"{arm}/arm_controller/joint_trajectory"
    gripper = arguments["gripper_trajectory_topic"] or f"{arm}/gripper_controller/joint_trajectory"
    return [
        ("camera/image_raw", camera),
        ("camera/image_raw/compressed", f"{camera}/compressed"),
        ("wrist_camera/image_raw", wrist),
        ("wrist_camera/image_raw/compressed", f"{wrist}/compressed"),
        ("joint_states", joints),
        ("~/joint_trajectory", trajectory),
        ("~/gripper_trajectory", gripper),
        ("~/target_pose", arguments["target_pose_topic"]),
        ("~/target_twist", arguments["target_twist_topic"]),
    ]


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
    """The policy node."""
    parameters = {name: switch(arguments, name) for name in SWITCHES}
    for name in ("checkpoint", "binding", "instruction", "device", "interbotix"):
        if arguments[name]:  # empty arguments set nothing
            parameters[name] = arguments[name]
    logger = os.path.join(arguments["namespace"].strip("/"), "policy").replace("/", ".")
    return LifecycleNode(
        package="canvas_robot",
        executable="policy",
        name="policy",
        namespace=arguments["namespace"],
        parameters=[arguments["params_file"], parameters],
        remappings=remappings(arguments),
        ros_arguments=["--log-level", f"{logger}:={arguments['log_level']}"],
        output="screen",
        emulate_tty=True,
    )


def installed_driver():
    """The first package of DRIVERS that is installed, and its folder; None where none is."""
    for package in DRIVERS:
        try:
            return package, get_package_share_directory(package)
        except PackageNotFoundError:
            continue
    return None


def make_driver(package, share, arguments):
    """Interbotix's launch file for the arm."""
    passed_on = {name: arguments[name] for name in ("robot_model", "robot_name", "use_rviz")}
    if package == ALONE:
        passed_on["mode_configs"] = os.path.join(SHARE, "config", "ros", "interbotix_modes.yaml")
    return IncludeLaunchDescription(
        PythonLaunchDescriptionSource(os.path.join(share, "launch", DRIVERS[package])),
        launch_arguments=passed_on.items(),
    )


def make_nodes(context):
    """Policy and driver, once the arguments' values are known."""
    arguments = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    check_is_file("params_file", arguments["params_file"])
    if not switch(arguments, "drivers"):
        return [make_policy(arguments)]
    found = installed_driver()
    if found is None:
        told = f"drivers: none of {', '.join(DRIVERS)} is installed; start it yourself"
        return [LogInfo(msg=told), make_policy(arguments)]
    package, share = found
    if package == ALONE:
        arguments["interbotix"] = arguments["interbotix"] or f"/{arguments['robot_name']}"
    return [make_driver(package, share, arguments), make_policy(arguments)]


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
