"""Laws of a node's process: what a user got wrong ends it with one line that says what to mend."""

from __future__ import annotations

import subprocess
import sys

import pytest

from canvas_robot.ros.processes import node_environment

RUN = "import sys; from canvas_robot.ros.sim_robot import main; raise SystemExit(main(sys.argv))"


def refused(*arguments: str, **environment: str) -> str:
    """What the simulated robot's process says on its last line, and that it says no more."""
    run = subprocess.run(
        [sys.executable, "-c", RUN, "--ros-args", *arguments],
        env={**node_environment(1), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 1 and "Traceback" not in run.stderr, run.stderr
    return run.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("/**/sim_robot:\n  ros__parameters:\n", "before ros__parameters at line"),
        ("sim_robot: {camera_rate: 5.0}", "before ros__parameters at line"),
        ("sim_robot: {ros__parameters: {colours: [red, 1]}}", "Sequence should be of same type"),
        ("sim_robot: ]", "Error parsing"),
    ],
)
def test_a_parameters_file_that_is_none_is_named_with_what_one_is(tmp_path, text, words):
    file = tmp_path / "robot.yaml"
    file.write_text(text)
    said = refused("--params-file", str(file))
    assert said.startswith(f"error: {file}: expected a ROS parameters file: a node such as")
    assert words in said and said.endswith("; mend the file") and "/project/" not in said


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("/sim_robt: {ros__parameters: {episode: 3}}", "/sim_robt"),
        ("sim_robot: {ros__parameters: {episode: 3}}", "/sim_robot"),
        ("left: {arm: {ros__parameters: {episode: 3}}, b: {ros__parameters: {a: 1}}}", "/left/arm"),
    ],
)
def test_a_parameters_file_that_says_nothing_to_the_node_is_told(tmp_path, text, got):
    file = tmp_path / "robot.yaml"
    file.write_text(text)
    said = refused("--params-file", str(file), "-r", "__ns:=/left")
    assert said.startswith(f"error: {file}: expected an entry for /left/sim_robot, got {got}")
    assert said.endswith("; name it /left/sim_robot, or /** for any node")


@pytest.mark.parametrize("key", ["/**", "/left/sim_robot", "/*/sim_robot", "left/sim_robot"])
def test_a_parameters_file_that_says_something_to_the_node_is_read(tmp_path, key):
    file = tmp_path / "robot.yaml"
    file.write_text(f"{key}: {{ros__parameters: {{episode: -1}}}}")
    assert refused("--params-file", str(file), "-r", "__ns:=/left").startswith("error: episode: ")
    file.write_text("left: {sim_robot: {ros__parameters: {episode: -1}}}")
    assert refused("--params-file", str(file), "-r", "__ns:=/left").startswith("error: episode: ")


def test_a_parameters_file_that_only_ros_can_read_is_told_in_one_line(tmp_path):
    file = tmp_path / "robot.yaml"
    file.write_text("/**: {ros__parameters: {task: !mine reach}}")
    assert refused("--params-file", str(file)).startswith(f"error: {file}: expected a ROS param")


def test_arguments_and_environment_that_ros_does_not_take_are_named():
    assert refused("-p", "task:=").startswith("error: ROS could not start: Couldn't parse param")
    said = refused(ROS_DOMAIN_ID="mine")
    assert said.startswith("error: ROS could not start: ") and "mend the environment" in said


def test_a_parameter_that_the_node_refuses_is_named():
    assert refused("-p", "episode:=-1") == (
        "error: episode: expected the first episode's number, from 0, got -1"
    )
