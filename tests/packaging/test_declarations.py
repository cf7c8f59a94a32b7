"""Laws of the declarations: setup.py, package.xml and the constraints agree with the tree."""

import ast
import json
import re
import subprocess
import sys
import tomllib
import warnings
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHARE = "share/canvas_robot"

# Where the name one imports is not the name one installs.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "cv2": "opencv-python",
    "google": "protobuf",
    "tensorflow": "tensorflow-cpu",
    "yaml": "pyyaml",
}
# Messages of drivers: imported where a parameter asks for them, and refused where they are missing.
OF_DRIVERS = {"control_msgs", "moveit_msgs", "interbotix_xs_msgs"}
# Our own, built beside the package; without them there is no action.
INTERFACES = "canvas_robot_interfaces"


@pytest.fixture(scope="module")
def setup_py():
    """What setup.py declares."""
    import setuptools  # noqa: F401  (provides distutils)

    from distutils.core import run_setup  # isort: skip

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.chdir(ROOT)  # its globs are relative
        # The `develop` command that colcon needs imports it (setuptools before 80).
        warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
        return run_setup("setup.py", stop_after="init")


@pytest.fixture(scope="module")
def package_xml():
    """The root element of package.xml."""
    return ElementTree.parse(ROOT / "package.xml").getroot()


@pytest.fixture(scope="module")
def installed(setup_py):
    """Installed path -> path in the checkout, of every data file."""
    return {
        f"{folder}/{Path(file).name}": ROOT / file
        for folder, files in setup_py.data_files
        for file in files
    }


def _name(requirement: str) -> str:
    """The normalised distribution name at the start of a requirement."""
    return re.sub(r"[-_.]+", "-", re.match(r"[A-Za-z0-9._-]+", requirement).group()).lower()


def _pins(path: str) -> dict[str, str]:
    lines = (ROOT / path).read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def _files(folder: str, pattern: str = "*") -> list[Path]:
    found = (ROOT / folder).rglob(pattern)
    return [path for path in found if path.is_file() and "__pycache__" not in path.parts]


def _imports(path: Path) -> set[str]:
    """First names of every import statement in a file, wherever it stands."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


def test_package_xml_is_an_ament_python_package_of_format_3(package_xml):
    assert package_xml.get("format") == "3"
    assert package_xml.findtext("export/build_type") == "ament_python"
    for required in ("name", "version", "description", "maintainer", "license"):
        assert package_xml.findtext(required).strip()


def test_name_version_and_license_are_said_once(package_xml, setup_py):
    assert package_xml.findtext("name") == setup_py.get_name() == "canvas_robot"
    assert package_xml.findtext("version") == setup_py.get_version()
    assert package_xml.findtext("license") == setup_py.get_license() == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text()


def test_every_third_party_import_is_declared(package_xml, setup_py):
    ros = {element.text for element in package_xml.iter("exec_depend")}
    extras = [name for extra in setup_py.extras_require.values() for name in extra]
    pip = {_name(requirement) for requirement in [*setup_py.install_requires, *extras]}
    known = sys.stdlib_module_names | {"canvas_robot"} | ros | OF_DRIVERS | {INTERFACES}
    undeclared = {
        f"{path.relative_to(ROOT)}: {name}"
        for folder in ("canvas_robot", "launch")
        for path in _files(folder, "*.py")
        for name in _imports(path) - known
        if _name(DISTRIBUTIONS.get(name, name)) not in pip
    }
    assert not undeclared, "imported, but neither in setup.py nor in package.xml"


def test_what_launch_files_start_by_ros2_is_declared(package_xml):
    """`ros2 bag` is of the package ros2bag, and so on; what it needs to read a bag beside it."""
    commands = {
        command
        for path in _files("launch", "*.launch.py")
        for command in re.findall(r'"ros2", "(\w+)"', path.read_text())
    }
    assert commands == {"bag"}
    declared = {element.text for element in package_xml.iter("exec_depend")}
    assert {f"ros2{command}" for command in commands} | {"rosbag2_storage_mcap"} <= declared


def test_config_launch_and_marker_are_installed_where_ros_looks(installed):
    expected = {
        "share/ament_index/resource_index/packages/canvas_robot": ROOT / "resource/canvas_robot",
        f"{SHARE}/package.xml": ROOT / "package.xml",
        "lib/canvas_robot/policy": ROOT / "tools/launchers/policy",
        "lib/canvas_robot/sim_robot": ROOT / "tools/launchers/sim_robot",
    }
    for path in [*_files("config"), *_files("launch", "*.launch.py")]:
        expected[f"{SHARE}/{path.relative_to(ROOT)}"] = path
    assert installed == expected


def test_the_interfaces_are_a_package_of_the_same_version_that_generates_messages(package_xml):
    theirs = ElementTree.parse(ROOT / "interfaces/package.xml").getroot()
    assert theirs.get("format") == "3"
    assert theirs.findtext("name") == INTERFACES
    assert theirs.findtext("export/build_type") == "ament_cmake"
    assert theirs.findtext("member_of_group") == "rosidl_interface_packages"
    for same in ("version", "maintainer", "license"):
        assert theirs.findtext(same) == package_xml.findtext(same)


def test_every_interface_is_generated_and_can_be_read():
    from rosbags.typesys import get_types_from_msg

    cmake = (ROOT / "interfaces/CMakeLists.txt").read_text()
    assert f"project({INTERFACES})" in cmake
    generated = set(re.findall(r'"(\w+/\w+\.\w+)"', cmake))
    files = _files("interfaces/action")
    assert generated == {f"action/{path.name}" for path in files}
    for path in files:
        parts = path.read_text().split("\n---\n")
        assert len(parts) == 3
        for part in parts:
            assert get_types_from_msg(part, f"{INTERFACES}/msg/Part")


def test_the_interfaces_are_no_part_of_the_python_package(setup_py, installed):
    assert not [name for name in setup_py.packages if "interfaces" in name]
    assert not [path for path in installed.values() if ROOT / "interfaces" in path.parents]


def test_every_file_of_the_package_is_packaged(setup_py):
    packages = {ROOT / name.replace(".", "/") for name in setup_py.packages}
    data = {
        path
        for pattern in setup_py.package_data["canvas_robot"]
        for path in (ROOT / "canvas_robot").glob(pattern)
    }
    left_out = [
        str(path.relative_to(ROOT))
        for path in _files("canvas_robot")
        if path not in data and not (path.suffix == ".py" and path.parent in packages)
    ]
    assert not left_out, "add __init__.py, or the suffix to package_data in setup.py"


def test_only_one_command_goes_on_path(setup_py):
    assert setup_py.entry_points == {"console_scripts": ["canvas-robot = canvas_robot.cli:main"]}
    assert not setup_py.scripts


def test_datasets_is_no_importable_package():
    assert not _files("datasets", "__init__.py")


def test_constraints_pin_every_requirement(setup_py):
    extras = [name for extra in setup_py.extras_require.values() for name in extra]
    required = {_name(requirement) for requirement in [*setup_py.install_requires, *extras]}
    assert required <= set(_pins("constraints.txt"))


def test_the_two_constraints_differ_in_numpy_and_opencv_alone():
    tested, ros = _pins("constraints.txt"), _pins("constraints-ros.txt")
    assert ros.items() - tested.items() == {
        ("numpy", ros["numpy"]),
        ("opencv-python", ros["opencv-python"]),
    }
    assert ros["numpy"].startswith("1.")
    assert tuple(map(int, ros["opencv-python"].split(".")[:2])) < (4, 12)


def test_setuptools_is_one_that_colcon_can_use():
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert pyproject["build-system"]["requires"] == ["setuptools>=68,<80"]
    assert int(_pins("constraints.txt")["setuptools"].split(".")[0]) < 80


@pytest.fixture
def prefix(tmp_path):
    """An installation whose Python prints what it was started with."""
    launcher = tmp_path / "prefix/lib/canvas_robot/policy"
    launcher.parent.mkdir(parents=True)
    launcher.write_bytes((ROOT / "tools/launchers/policy").read_bytes())
    launcher.chmod(0o755)
    return tmp_path / "prefix"


def _python_that_speaks(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('#!/bin/sh\necho "$0" "$@" "[$PYTHONPATH]"\n')
    path.chmod(0o755)


def _launch(prefix: Path) -> str:
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": "theirs"}
    command = [prefix / "lib/canvas_robot/policy", "--ros-args", "-p", "a:=1 2"]
    return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout


def test_a_launcher_starts_its_environments_python(prefix):
    _python_that_speaks(prefix / "bin/python3")
    arguments = "-P -m canvas_robot.ros.policy --ros-args -p a:=1 2"
    assert _launch(prefix) == f"{prefix}/bin/python3 {arguments} [theirs]\n"


def test_a_launcher_keeps_other_ros_libraries_from_its_own(prefix):
    _python_that_speaks(prefix / "bin/python3")
    index = prefix / "share/ament_index/resource_index/packages"
    index.mkdir(parents=True)
    (index / "rclpy").touch()
    assert _launch(prefix).endswith("[]\n")


def test_a_launcher_without_an_environment_starts_the_builders_python(prefix, tmp_path):
    _python_that_speaks(tmp_path / "builder/python3")
    share = prefix / SHARE
    share.mkdir(parents=True)
    (share / "python").write_text(f"{tmp_path}/builder/python3\n")
    (share / "package.sh").write_text('PYTHONPATH="$COLCON_CURRENT_PREFIX:$PYTHONPATH"\n')
    output = _launch(prefix)
    assert output.startswith(f"{tmp_path}/builder/python3 -P -m canvas_robot.ros.policy")
    assert output.endswith(f"[{prefix}:theirs]\n")


# ---------------------------------------------------------------- what people look at


def _panels(tree) -> list[str]:
    """Panels of a Foxglove layout's tree, a name or two halves."""
    return [tree] if isinstance(tree, str) else _panels(tree["first"]) + _panels(tree["second"])


def test_the_foxglove_layout_places_each_of_its_panels_once():
    layout = json.loads((ROOT / "config/foxglove/canvas_robot.json").read_text())
    assert sorted(_panels(layout["layout"])) == sorted(layout["configById"])


def test_the_foxglove_layout_shows_topics_of_the_page():
    page = (ROOT / "docs/robot.md").read_text()
    text = (ROOT / "config/foxglove/canvas_robot.json").read_text()
    topics = set(re.findall(r'"/([a-z_]+(?:/[a-z_]+)*)', text))
    assert len(topics) == 6
    assert not [t for t in topics if f"`/{t}`" not in page and f"`{t}`" not in page]


def test_every_launch_file_stands_on_the_page():
    page = (ROOT / "docs/robot.md").read_text()
    files = [path.name for path in _files("launch", "*.launch.py")]
    assert not [name for name in files if f"| `{name}` |" not in page]


def _launch_arguments(path: Path) -> dict[str, ast.expr]:
    """Name -> (default, description) of a launch file's ARGUMENTS, as they stand there."""
    (declared,) = [
        node.value
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ARGUMENTS"
    ]
    return {key.value: value for key, value in zip(declared.keys, declared.values, strict=True)}


@pytest.mark.parametrize("path", _files("launch", "*.launch.py"), ids=lambda path: path.name)
def test_every_launch_argument_says_what_it_means_and_the_usual_ones_are_there(path):
    arguments = _launch_arguments(path)
    for name, value in arguments.items():
        assert len(ast.literal_eval(value.elts[1])) > 12, name
    usual = {"checkpoint", "binding", "instruction", "device", "params_file", "namespace"}
    assert usual | {"autostart", "log_level"} <= arguments.keys()
