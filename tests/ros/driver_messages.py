"""Messages that no wheel brings, generated and compiled from their definitions: drivers', and ours.

Run with a folder, this makes importable packages there by the ROS 2 wheels' own generators, so that
tests speak them over DDS as with the real packages. `add_to_path` does that, in another process.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

# Fields and types as in control_msgs 5 and 6, moveit_msgs 2.6 and interbotix_xs_msgs 1.
JOINT_STATE = "sensor_msgs/JointState"
DEFINITIONS = {
    "control_msgs": {
        "action/ParallelGripperCommand.action": f"""
            {JOINT_STATE} command
            ---
            {JOINT_STATE} state
            bool stalled
            bool reached_goal
            ---
            {JOINT_STATE} state
        """
    },
    "moveit_msgs": {
        "srv/ServoCommandType.srv": """
            int8 JOINT_JOG = 0
            int8 TWIST = 1
            int8 POSE = 2
            int8 command_type
            ---
            bool success
        """
    },
    "interbotix_xs_msgs": {
        "msg/JointGroupCommand.msg": """
            string name
            float32[] cmd
        """,
        "msg/JointSingleCommand.msg": """
            string name
            float32 cmd
        """,
        "srv/RegisterValues.srv": """
            string cmd_type
            string name
            string reg
            int32 value
            ---
            int32[] values
        """,
        "srv/RobotInfo.srv": """
            string cmd_type
            string name
            ---
            string mode
            string profile_type
            string[] joint_names
            int16[] joint_ids
            float32[] joint_lower_limits
            float32[] joint_upper_limits
            float32[] joint_velocity_limits
            float32[] joint_sleep_positions
            int16[] joint_state_indices
            int16 num_joints
            string[] name
        """,
    },
}
DRIVERS = tuple(DEFINITIONS)
INTERFACES = "canvas_robot_interfaces"
_ACTIONS = (Path(__file__).parents[2] / "interfaces" / "action").glob("*.action")
DEFINITIONS[INTERFACES] = {f"action/{path.name}": path.read_text() for path in sorted(_ACTIONS)}
PREFIX = Path(sys.prefix)
PYTHON_HEADERS = Path(sysconfig.get_paths()["include"])
IMPLEMENTATIONS = ("rosidl_typesupport_fastrtps_c", "rosidl_typesupport_introspection_c")


def missing(packages: tuple[str, ...] = DRIVERS) -> list[str]:
    """Packages that are not installed."""
    return [name for name in packages if importlib.util.find_spec(name) is None]


def hide(monkeypatch) -> None:
    """Drivers' packages are not installed, for the time of a test."""
    imported = [name for name in sys.modules if name.split(".")[0] in DRIVERS]
    for name in (*imported, *DRIVERS):
        monkeypatch.setitem(sys.modules, name, None)


def why_not() -> str:
    """Why they cannot be made here; "" where they can."""
    needed = {
        "a C++ compiler": shutil.which("g++"),
        "Python's headers": (PYTHON_HEADERS / "Python.h").is_file(),
        "the wheels of ROS 2": (PREFIX / "include" / "rosidl_runtime_c").is_dir(),
    }
    return ", ".join(what for what, there in needed.items() if not there)


def provide(folders: pytest.TempPathFactory, packages: tuple[str, ...] = DRIVERS) -> None:
    """Makes the messages importable, installed or made; skips where neither can be."""
    if missing(packages) and why_not():
        pytest.skip(f"no messages of {missing(packages)}, and to make them: {why_not()}")
    add_to_path(folders.mktemp("messages"), packages)


def add_to_path(folder: Path, packages: tuple[str, ...] = DRIVERS) -> None:
    """Makes what is missing in a folder and lets this process import it."""
    made = missing(packages)
    if made:
        environment = {**os.environ, "AMENT_PREFIX_PATH": str(PREFIX)}
        subprocess.run([sys.executable, __file__, folder, *made], check=True, env=environment)
    for package in made:
        sys.path.append(str(folder / package / "python"))
        # By their names, under which the middleware asks for them, they are found once loaded.
        for implementation in IMPLEMENTATIONS:
            ctypes.CDLL(str(folder / package / f"lib{package}__{implementation}.so"))


def make(package: str, folder: Path) -> None:
    """One package: `python/` to import from, and the two libraries that the middleware opens."""
    python = folder / "python" / package
    generate(package, folder, python)
    (python / "__init__.py").touch()
    sources = [*folder.rglob("*.c"), *folder.rglob("*.cpp")]
    objects = [compile_source(path, folder) for path in sources]
    library = python / f"{package}_s__rosidl_typesupport_c.so"
    wheels = [*PREFIX.glob("lib/lib*__rosidl_*_c.so"), *PREFIX.glob("lib/lib*_generator_py.so")]
    wheels += [PREFIX / "lib" / f"lib{name}.so" for name in ("rcutils", "fastcdr", "rmw")]
    wheels += PREFIX.glob("lib/librosidl_*.so")
    found = f"-Wl,-rpath,{PREFIX}/lib"
    link(library, *objects, *wheels, found)
    # All is in one library; the other names lead to it.
    for implementation in IMPLEMENTATIONS:
        stub = folder / f"lib{package}__{implementation}.so"
        link(stub, library, f"-Wl,-rpath,{library.parent}", "-Wl,--no-as-needed", library)


def generate(package: str, folder: Path, python: Path) -> None:
    """Sources, each generator's in a folder of its own: some of their names are the same."""
    from rosidl_adapter.action import convert_action_to_idl
    from rosidl_adapter.msg import convert_msg_to_idl
    from rosidl_adapter.srv import convert_srv_to_idl
    from rosidl_generator_c.cli import GenerateC
    from rosidl_generator_py.cli import GeneratePython
    from rosidl_typesupport_c.cli import GenerateCTypesupport
    from rosidl_typesupport_fastrtps_c.cli import GenerateFastRTPSCTypesupport
    from rosidl_typesupport_introspection_c.cli import GenerateIntrospectionCTypesupport

    convert = {
        "msg": convert_msg_to_idl,
        "srv": convert_srv_to_idl,
        "action": convert_action_to_idl,
    }
    described = []
    for name, text in DEFINITIONS[package].items():
        path = folder / "definitions" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(line.strip() for line in text.splitlines()))
        kind = path.suffix[1:]
        convert[kind](folder / "definitions", package, Path(name), folder / "idl" / kind)
        described.append(f"{folder / 'idl'}:{Path(name).with_suffix('.idl')}")
    dispatching = {"typesupport_implementations": list(IMPLEMENTATIONS)}
    for generator, into in (
        (GenerateC("c"), folder / "c" / package),
        (GenerateFastRTPSCTypesupport("fastrtps"), folder / "fastrtps" / package),
        (GenerateIntrospectionCTypesupport("introspection"), folder / "introspection" / package),
        (GenerateCTypesupport("typesupport", **dispatching), folder / "typesupport" / package),
        (
            GeneratePython("py", typesupport_implementations=["rosidl_typesupport_c"]),
            python,
        ),
    ):
        generator.generate(package, described, [str(PREFIX / "share")], into)


def compile_source(source: Path, folder: Path) -> Path:
    import numpy

    compiled = source.with_suffix(f"{source.suffix}.o")
    ours = PREFIX / "include"
    headers = [*folder.iterdir(), ours, *ours.iterdir(), PYTHON_HEADERS, numpy.get_include()]
    include = [f"-I{path}" for path in headers]
    compiler = "g++" if source.suffix == ".cpp" else "gcc"
    subprocess.run([compiler, "-O0", "-fPIC", "-c", source, "-o", compiled, *include], check=True)
    return compiled


def link(library: Path, *arguments) -> None:
    named = f"-Wl,-soname,{library.name}"
    subprocess.run(["g++", "-shared", "-o", library, named, *arguments], check=True)


if __name__ == "__main__":
    out, *wanted = sys.argv[1:]
    for name in wanted:
        make(name, Path(out) / name)
