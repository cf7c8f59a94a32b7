"""Laws of the launch files: what is wrong with an argument is told before anything starts.

The ROS wheels bring no `launch`, so its actions are recorded here; functions that know the
arguments' values are the files' own.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import yaml

FOLDER = Path(__file__).resolve().parents[2] / "launch"
NAMES = ("policy", "widowx", "sim", "replay")


class Recorded:
    """An action, a substitution or a source: what it was made with."""

    def __init__(self, *arguments, **named) -> None:
        self.arguments, self.named = arguments, named


class LaunchConfiguration(Recorded):
    def perform(self, context: dict[str, str]) -> str:
        return context[self.arguments[0]]


@pytest.fixture
def load(monkeypatch):
    """A launch file as a module, by its name."""
    ros = pytest.importorskip("ament_index_python.packages")
    monkeypatch.setattr(ros, "get_package_share_directory", lambda package: f"/share/{package}")
    for name in (
        *("launch", "launch.actions", "launch.launch_description_sources"),
        *("launch.substitutions", "launch_ros", "launch_ros.actions"),
    ):
        module = ModuleType(name)
        module.__getattr__ = lambda wanted: type(wanted, (Recorded,), {})
        monkeypatch.setitem(sys.modules, name, module)
    sys.modules["launch.substitutions"].LaunchConfiguration = LaunchConfiguration

    def of(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.launch.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return of


@pytest.fixture
def start(load, tmp_path):
    """What a launch file starts, with these of its arguments."""
    (tmp_path / "params.yaml").write_text("/**: {ros__parameters: {dry_run: true}}")

    def of(name: str, **given: str) -> list[Recorded]:
        module = load(name)
        context = {argument: default for argument, (default, _) in module.ARGUMENTS.items()}
        for argument in ("params_file", "sim_params_file"):
            context |= {argument: str(tmp_path / "params.yaml")} if argument in context else {}
        make = module.make_node if name == "policy" else module.make_nodes
        return make(context | given)

    return of


def bag(folder: Path, *topics: tuple[str, str]) -> str:
    """A folder with the metadata of a bag of these topics, (name, type)."""
    folder.mkdir()
    said = [{"topic_metadata": {"name": n, "type": t}, "message_count": 1} for n, t in topics]
    about = {"rosbag2_bagfile_information": {"topics_with_message_count": said}}
    (folder / "metadata.yaml").write_text(yaml.safe_dump(about))
    return str(folder)


@pytest.fixture
def recorded(tmp_path):
    """A bag of the node /arm1/policy."""
    return bag(
        tmp_path / "bag",
        ("/arm1/policy/status", "diagnostic_msgs/msg/DiagnosticStatus"),
        ("/arm1/policy/target_pose", "geometry_msgs/msg/PoseStamped"),
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_parameters_file_that_is_not_there_starts_nothing(start, recorded, name):
    given = {"bag": recorded, "namespace": "arm1"} if name == "replay" else {}
    with pytest.raises(ValueError, match=r"params_file: expected a parameters file, got 'dry.y"):
        start(name, params_file="dry.yaml", **given)
    assert start(name, **given)


@pytest.mark.parametrize(
    ("name", "argument", "got", "expected"),
    [
        ("policy", "control_rate", "fast", "a number"),
        ("policy", "autostart", "maybe", "true or false"),
        ("sim", "control_rate", "fast", "a number"),
        ("sim", "real_time_factor", "fast", "a number"),
        ("sim", "episode", "three", "a whole number"),
        ("sim", "sim_params_file", "none.yaml", "a parameters file"),
        ("widowx", "dry_run", "no", "true or false"),
        ("widowx", "drivers", "perhaps", "true or false"),
    ],
)
def test_a_value_that_an_argument_cannot_have_is_named(start, name, argument, got, expected):
    with pytest.raises(ValueError, match=f"{argument}: expected {expected}, got '{got}'"):
        start(name, **{argument: got})


def test_the_simulation_ends_with_its_robot_and_the_replay_with_its_bag_but_only_once(
    start, recorded
):
    robot = start("sim", clock="sim", episode="3")[-1]
    assert robot.named["parameters"][-1]["episode"] == 3
    for process in (robot, start("replay", bag=recorded, namespace="arm1")[-1]):
        ends = process.named["on_exit"]
        (action,) = ends(None, SimpleNamespace(is_shutdown=False))
        assert type(action).__name__ == "Shutdown"
        assert ends(None, SimpleNamespace(is_shutdown=True)) is None


def test_what_the_recorded_policy_said_is_not_played_whatever_its_namespace(start, recorded):
    player = start("replay", bag=recorded, namespace="/arm1/")[-1]
    words = player.named["cmd"]
    assert {"/arm1/policy/target_pose", "/arm1/policy/target_twist"} <= set(
        words[words.index("--exclude-topics") :]
    )
    with pytest.raises(ValueError, match=r"namespace: expected .* was /arm1/policy, got ''"):
        start("replay", bag=recorded)


def test_a_bag_of_inputs_alone_is_played(start, tmp_path):
    only = bag(tmp_path / "inputs", ("/camera/image_raw", "sensor_msgs/msg/Image"))
    assert only in start("replay", bag=only)[-1].named["cmd"]


@pytest.mark.parametrize("text", [None, "", "[1, 2]", "rosbag2_bagfile_information: {a: 1}", "{"])
def test_what_is_no_bag_is_not_played(start, tmp_path, text):
    if text is not None:
        (tmp_path / "metadata.yaml").write_text(text)
    with pytest.raises(ValueError, match="bag: expected the folder of a bag"):
        start("replay", bag=str(tmp_path))


def test_without_ros2_bag_the_packages_to_install_are_named(load, start, recorded, monkeypatch):
    packages = sys.modules["ament_index_python.packages"]

    def missing(package: str) -> str:
        if package == "ros2bag":
            raise packages.PackageNotFoundError(package)
        return f"/share/{package}"

    monkeypatch.setattr(packages, "get_package_share_directory", missing)
    with pytest.raises(ValueError, match=r"apt-get install ros-\$ROS_DISTRO-ros2bag"):
        start("replay", bag=recorded, namespace="arm1")
