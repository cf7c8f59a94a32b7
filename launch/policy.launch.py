"""The policy node on a robot.

`ros2 launch canvas_robot policy.launch.py checkpoint:=... robot:=widowx`
"""

import os

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode

from launch import LaunchDescription

SHARE = get_package_share_directory("canvas_robot")

ARGUMENTS = {
    "checkpoint": ("", "folder; demo: the policy that ships; empty: an untrained one"),
    "schema": ("", "canvas schema, a path or a name in config/schemas; empty: the checkpoint's"),
    "robot": ("", "robot: a binding's name in config/bindings without its ending, such as widowx"),
    "binding": ("", "binding, a path or a name in config/bindings; wins over robot"),
    "instruction": (
        "",
        "instruction at activation; empty: hold until one comes on policy/instruction",
    ),
    "device": ("", "torch device, such as cpu or cuda:0; empty: the parameters file's"),
    "control_rate": ("", "control ticks per second [Hz]; empty: the binding's"),
    "params_file": (
        os.path.join(SHARE, "config", "ros", "policy.yaml"),
        "parameters of the node; the arguments above win over it",
    ),
    "camera_topic": ("camera/image_raw", "topic of the camera"),
    "joint_states_topic": ("joint_states", "topic of the joint states"),
    "namespace": ("", "namespace of the node and its topics"),
    "use_sim_time": ("false", "take the time from /clock"),
    "autostart": ("true", "configure and activate at start"),
    "autoconfigure": (
        "false",
        "configure at start, and wait for activation; with autostart:=false",
    ),
    "enclave": ("", "SROS2 enclave, such as /policy; empty: none"),
    "log_level": ("info", "debug, info, warn, error or fatal"),
}


def check_is_file(name, path):
    """Launch itself only warns of a parameters file that is not there, and starts without it."""
    if not os.path.isfile(path):
        raise ValueError(f"{name}: expected a parameters file, got {path!r}; nothing was started")


def parameters_from_arguments(arguments):
    """The node's parameters that the arguments set; empty arguments set nothing."""
    parameters = {
        name: arguments[name]
        for name in ("checkpoint", "schema", "instruction", "device")
        if arguments[name]
    }
    binding = arguments["binding"] or (arguments["robot"] and f"{arguments['robot']}.yaml")
    if binding:
        parameters["binding"] = binding
    if arguments["control_rate"]:
        try:
            parameters["control_rate"] = float(arguments["control_rate"])
        except ValueError:
            raise ValueError(
                f"control_rate: expected a number, got {arguments['control_rate']!r}"
            ) from None
    for name in ("use_sim_time", "autostart", "autoconfigure"):
        if arguments[name].lower() not in ("true", "false"):
            raise ValueError(f"{name}: expected true or false, got {arguments[name]!r}")
        parameters[name] = arguments[name].lower() == "true"
    return parameters


def make_node(context):
    """The node, once the arguments' values are known."""
    arguments = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    check_is_file("params_file", arguments["params_file"])
    logger = os.path.join(arguments["namespace"].strip("/"), "policy").replace("/", ".")
    return [
        LifecycleNode(
            package="canvas_robot",
            executable="policy",
            name="policy",
            namespace=arguments["namespace"],
            parameters=[arguments["params_file"], parameters_from_arguments(arguments)],
            remappings=[
                ("camera/image_raw", arguments["camera_topic"]),
                ("camera/image_raw/compressed", f"{arguments['camera_topic']}/compressed"),
                ("joint_states", arguments["joint_states_topic"]),
            ],
            ros_arguments=[
                *["--log-level", f"{logger}:={arguments['log_level']}"],
                *(["--enclave", arguments["enclave"]] if arguments["enclave"] else []),
            ],
            output="screen",
            emulate_tty=True,
        )
    ]


def generate_launch_description():
    # Uncompressed VGA images do not fit Fast DDS's default shared memory; what the user has set
    # stays.
    profile = os.path.join(SHARE, "config", "ros", "fastdds.xml")
    transport = [
        SetEnvironmentVariable(name, os.environ.get(name, profile))
        for name in ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
    ]
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    return LaunchDescription([*declared, *transport, OpaqueFunction(function=make_node)])
