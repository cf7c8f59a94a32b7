"""Starting and stopping the package's nodes as processes of their own.

They get the environment that they need.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from canvas_robot.resources import config_path
from canvas_robot.ros.process import PARENT_VARIABLE

STOP_TIMEOUT_S = 10.0
ENTRY_POINTS = {"policy": "canvas_robot.ros.policy", "sim_robot": "canvas_robot.ros.sim_robot"}


def node_environment(domain_id: int | None = None) -> dict[str, str]:
    """The environment of a node: loopback only, shared memory large enough for images.

    What the user has set stays as it is, but for the domain where one is given.
    """
    environment = {**transport_environment(), **os.environ}
    environment.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    environment["PYTHONUNBUFFERED"] = "1"
    if domain_id is not None:
        environment["ROS_DOMAIN_ID"] = str(domain_id)
    return environment


def transport_environment() -> dict[str, str]:
    """Shared memory large enough for images: without it, many are lost on the way."""
    profile = str(config_path("ros", "fastdds.xml"))
    return dict.fromkeys(
        ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"), profile
    )


def adopt_transport() -> None:
    """Gives this process the nodes' transport, where the user has chosen none."""
    for name, value in transport_environment().items():
        os.environ.setdefault(name, value)


def adopt_node_environment() -> None:
    """Gives this process the nodes' environment; call it before the first ROS context is made."""
    os.environ.update(node_environment())


def free_domain_id() -> int:
    """The user's ROS_DOMAIN_ID where one is set, else one of 102..200, rarely used by hand."""
    if os.environ.get("ROS_DOMAIN_ID"):
        return user_domain_id()
    return random.SystemRandom().randint(102, 200)


def user_domain_id() -> int:
    """ROS_DOMAIN_ID, 0 where it is not set; raises ValueError where it is no domain."""
    chosen = os.environ.get("ROS_DOMAIN_ID") or "0"
    if not (chosen.isdecimal() and int(chosen) <= 232):
        raise ValueError(f"ROS_DOMAIN_ID: expected a number from 0 to 232, got {chosen!r}")
    return int(chosen)


class NodeProcesses:
    """Nodes as child processes; leaving the context ends them all.

    Args:
        environment: of the children. They end with this process, however it ends.
        log_folder: receives <name>.log of each; a temporary folder where None.
    """

    def __init__(self, environment: dict[str, str], log_folder: Path | None = None) -> None:
        self._environment = {**environment, PARENT_VARIABLE: str(os.getpid())}
        self.log_folder = log_folder or Path(tempfile.mkdtemp(prefix="canvas_robot_"))
        self._children: dict[str, subprocess.Popen] = {}

    def __enter__(self) -> NodeProcesses:
        return self

    def __exit__(self, *exception) -> None:
        self.stop_all()

    def start(self, name: str, parameters: dict | None = None) -> None:
        """Starts node `name` ("policy" or "sim_robot") with ROS parameters."""
        command = [sys.executable, "-m", ENTRY_POINTS[name], "--ros-args"]
        for key, value in (parameters or {}).items():
            command += ["-p", f"{key}:={json.dumps(value)}"]  # JSON is YAML
        with (self.log_folder / f"{name}.log").open("ab") as log:
            # A session of its own: Ctrl-C reaches only this process, which then stops its children
            # in order.
            self._children[name] = subprocess.Popen(
                command,
                env=self._environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def log(self, name: str) -> str:
        """What a node has printed so far."""
        return (self.log_folder / f"{name}.log").read_text(errors="replace")

    def died(self) -> str | None:
        """Name of a node that has ended by itself, if any."""
        return next(
            (name for name, child in self._children.items() if child.poll() is not None), None
        )

    def pid(self, name: str) -> int:
        """Of a node that was started."""
        return self._children[name].pid

    def stop(self, name: str, asked: signal.Signals = signal.SIGINT) -> int:
        """Asks a node to end, waits, and returns its exit code; kills it after STOP_TIMEOUT_S."""
        child = self._children.pop(name)
        if child.poll() is None:
            child.send_signal(asked)
        try:
            return child.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            return child.wait()

    def stop_all(self) -> dict[str, int]:
        """Stops every node that runs, the latest first; exit codes by name."""
        return {name: self.stop(name) for name in reversed(list(self._children))}
