"""Installs the package by pip and by colcon in a scratch folder and checks what ROS 2 needs there.

Run by .venv/bin/python. The scratch environments hold the wheel and the ROS wheels; everything
else they borrow from .venv, so that nothing large is downloaded or copied twice.
"""

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from importlib.metadata import requires
from pathlib import Path

import rclpy
from rclpy.node import Node

CHECKOUT = Path(__file__).resolve().parent.parent
ROS_WHEELS = "ros-wheels"


def run(*command: object, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Standard output of a command that must succeed; its output is shown when it does not."""
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(words)}\n{done.stdout}{done.stderr}exit status {done.returncode}")
    return done.stdout


def copy_sources(target: Path) -> None:
    """The checkout as git sees it, ignored files left out: builds must not write into it."""
    listed = run("git", "ls-files", "-co", "--exclude-standard", "-z", cwd=CHECKOUT)
    for name in filter(None, listed.split("\0")):
        if os.path.lexists(CHECKOUT / name):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, target / name, follow_symlinks=False)


def environment(folder: Path, *packages: str, constraints: str = "constraints.txt") -> Path:
    """An environment with `packages` of its own, and the rest of .venv behind them; its prefix."""
    venv.create(folder, with_pip=True, symlinks=True)
    pip = [folder / "bin/python", "-m", "pip", "install", "--quiet", "--constraint"]
    run(*pip, CHECKOUT / constraints, *packages)
    scheme = {"base": str(folder), "platbase": str(folder)}
    site = Path(sysconfig.get_path("purelib", "venv", vars=scheme))
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def ros_wheels() -> list[str]:
    """The requirements of the extra ros-wheels, as this checkout's setup.py gives them."""
    marker = f'extra == "{ROS_WHEELS}"'
    return [line.split(";")[0] for line in requires("canvas_robot") or [] if marker in line]


# What a process has that nobody set up; ROS stays on this machine, away from other nodes.
BARE = {
    "HOME": os.environ["HOME"],
    "PATH": "/usr/bin:/bin",
    "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    "ROS_DOMAIN_ID": str(os.getpid() % 100),
}


def check_files(prefix: Path, sources: Path) -> None:
    """Raises SystemExit naming each file that `ros2 launch` or the package would miss."""
    share = Path("share/canvas_robot")
    programs = [Path("lib/canvas_robot/policy"), Path("lib/canvas_robot/sim_robot")]
    programs += [Path("bin/canvas-robot")]
    marker = Path("share/ament_index/resource_index/packages/canvas_robot")
    expected = [marker, share / "package.xml", *programs]
    for folder, pattern in (("launch", "*.launch.py"), ("config", "**/*")):
        found = [path for path in (sources / folder).glob(pattern) if path.is_file()]
        expected += [share / path.relative_to(sources) for path in found]
    missing = [str(path) for path in expected if not (prefix / path).is_file()]
    missing += [
        f"{path} (executable)" for path in programs if not os.access(prefix / path, os.X_OK)
    ]
    if missing:
        sys.exit(f"{prefix}: missing after installation: {missing}")
    print(f"ok: {len(expected)} files under {prefix}", flush=True)


def check_node(executable: Path, graph: Node, start_s: float = 90.0) -> None:
    """Starts a node with no environment: it must appear in the ROS graph and exit 0 on SIGINT."""
    with tempfile.TemporaryFile("w+") as output:
        words = [executable, "--ros-args", "--log-level", "info"]
        node = subprocess.Popen(
            words, cwd="/", env=BARE, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        try:
            problem = _life_of(node, graph, start_s)
        finally:
            node.kill()
        if problem:
            output.seek(0)
            sys.exit(f"{executable}: {problem}\n{output.read()}")
    print(f"ok: {executable}", flush=True)


def _life_of(node: subprocess.Popen, graph: Node, start_s: float) -> str | None:
    """What was wrong with the node from its start to its end; None if nothing."""
    deadline = time.monotonic() + start_s
    while set(graph.get_node_names()) <= {graph.get_name()}:
        if node.poll() is not None:
            return f"stopped by itself with exit status {node.returncode}"
        if time.monotonic() > deadline:
            return f"not in the ROS graph after {start_s:g} s"
        time.sleep(0.1)
    node.send_signal(signal.SIGINT)
    try:
        status = node.wait(20)
    except subprocess.TimeoutExpired:
        return "still running 20 s after SIGINT"
    return f"exit status {status} on SIGINT, expected 0" if status else None


def check_install(prefix: Path, sources: Path) -> None:
    """Files and both nodes of one installation."""
    check_files(prefix, sources)
    for name in ("policy", "sim_robot"):
        context = rclpy.Context()
        rclpy.init(context=context, domain_id=int(BARE["ROS_DOMAIN_ID"]))
        graph = rclpy.create_node("check_installs", context=context)
        try:
            check_node(prefix / "lib/canvas_robot" / name, graph)
        finally:
            graph.destroy_node()
            rclpy.shutdown(context=context)


def check_pip(work: Path, sources: Path) -> None:
    """A wheel in an environment."""
    wheels = work / "wheels"
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", wheels, sources)
    prefix = environment(work / "pip", *ros_wheels())
    (wheel,) = wheels.glob("canvas_robot-*.whl")
    run(prefix / "bin/python", "-m", "pip", "install", "--quiet", "--no-deps", wheel)
    check_install(prefix, sources)


def check_colcon(work: Path, sources: Path) -> None:
    """`colcon build`, with copies and with links."""
    tools = environment(work / "colcon", "setuptools", "colcon-common-extensions", *ros_wheels())
    for name, options in (("copied", []), ("linked", ["--symlink-install"])):
        base = work / name
        colcon = [tools / "bin/colcon", "--log-base", base / "log", "build"]
        bases = ["--build-base", base / "build", "--install-base", base / "install"]
        run(*colcon, "--base-paths", sources, *bases, *options, cwd=work)
        check_install(base / "install/canvas_robot", sources)


def check_apt_versions(work: Path, sources: Path) -> None:
    """The package beside rclpy with the NumPy and OpenCV of apt's ROS 2 Jazzy."""
    packages = ["numpy", "opencv-python", *ros_wheels()]
    prefix = environment(work / "apt", *packages, constraints="constraints-ros.txt")
    program = (
        "import numpy, cv2, rclpy\n"
        "from sensor_msgs.msg import Image, JointState\n"
        "import canvas_robot, canvas_robot.ros.policy, canvas_robot.ros.sim_robot\n"
        "assert numpy.__version__ < '2', numpy.__version__\n"
        "print('ok: imports with NumPy', numpy.__version__, 'and OpenCV', cv2.__version__)"
    )
    env = BARE | {"PYTHONPATH": str(sources)}
    print(run(prefix / "bin/python", "-P", "-c", program, cwd=work, env=env).strip(), flush=True)


def main() -> None:
    """All checks, in a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="canvas_robot_installs_") as folder:
        work = Path(folder)
        sources = work / "sources"
        copy_sources(sources)
        check_pip(work, sources)
        check_colcon(work, sources)
        check_apt_versions(work, sources)


if __name__ == "__main__":
    main()
