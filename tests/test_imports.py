"""Laws of importing: who may import whom, where heavy libraries live, what is loaded."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import canvas_robot

PACKAGE = Path(canvas_robot.__file__).parent
ROOT = PACKAGE.parent
HEAVY = {"torch", "diffusers", "transformers", "tensorflow", "mujoco", "mink", "rclpy", "cv2"}

# A folder imports itself and the folders before it.
ORDER = (
    "schema",
    "semantic",
    "signals",
    "canvas",
    "backbone",
    "policy",
    "data",
    "training",
    "kinematics",
    "sim",
    "evaluation",
    "ros",
    "cli",
)
FOR_ALL = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}  # import no folder themselves

FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE)


def folder_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0]


def imports_of(path: Path) -> list[tuple[int, str]]:
    """(line, dotted name) of every import in a file, wherever it stands."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            inside = path.relative_to(ROOT).parts[: -node.level] if node.level else ()
            module = ".".join([*inside, *([node.module] if node.module else [])])
            found += [(node.lineno, f"{module}.{alias.name}") for alias in node.names]
    return found


def home_of(name: str) -> str | None:
    """The folder of the package that an imported name lives in; None for other packages."""
    package, *rest = name.split(".")
    if package != "canvas_robot":
        return None
    if not rest or rest[0] in {*ORDER, *FOR_ALL}:
        return rest[0] if rest else "canvas_robot"
    return canvas_robot._HOME.get(rest[0], "canvas_robot.canvas_robot").split(".")[1]


def test_the_order_names_every_folder_once():
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert folders == set(ORDER) and len(ORDER) == len(folders)


@pytest.mark.parametrize("folder", ORDER)
def test_a_folder_imports_only_from_those_above_it(folder):
    allowed = {*ORDER[: ORDER.index(folder) + 1], *FOR_ALL}
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in FILES
        if folder_of(path) == folder
        for line, name in imports_of(path)
        if home_of(name) not in {None, *allowed}
    ]
    assert not wrong


def test_what_every_folder_may_import_imports_only_the_standard_library():
    assert "resources" in FOR_ALL
    imported = {name for module in FOR_ALL for _, name in imports_of(PACKAGE / f"{module}.py")}
    assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names


def test_the_schema_imports_only_the_standard_library_and_torch_where_it_fills_a_tensor():
    filling = {"layout.py": {"torch"}, "topology.py": {"torch"}}  # inside the functions
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in FILES
        if folder_of(path) == "schema"
        for line, name in imports_of(path)
        if name.split(".")[0]
        not in {*sys.stdlib_module_names, "canvas_robot", *filling.get(path.name, ())}
    ]
    assert not wrong


@pytest.mark.parametrize(
    "libraries, homes",
    [
        ({"tensorflow", "tensorflow_datasets"}, {"data"}),
        ({"mujoco", "mink"}, {"kinematics", "sim"}),
        ({"diffusers"}, {"backbone", "policy", "training", "evaluation"}),
        ({"rclpy", "rosgraph_msgs", "*_msgs", "*_srvs"}, {"ros"}),
    ],
    ids=["TensorFlow", "MuJoCo", "diffusers", "ROS"],
)
def test_a_heavy_library_is_imported_only_where_it_lives(libraries, homes):
    def is_one(name: str) -> bool:
        top = name.split(".")[0]
        return top in libraries or f"*_{top.rpartition('_')[2]}" in libraries

    importers = {
        path.relative_to(PACKAGE).parts[0]
        for path in PACKAGE.rglob("*.py")
        if any(is_one(name) for _, name in imports_of(path))
    }
    assert importers and importers <= homes


# ---------------------------------------------------------------- in a new interpreter


def loaded_by(code: str, *options: str) -> set[str]:
    """First names of all modules that are loaded after running code in a new interpreter."""
    names = "sorted({name.split('.')[0] for name in sys.modules})"
    report = f"\nimport json, sys\nprint(json.dumps({names}))"
    run = subprocess.run(
        [sys.executable, *options, "-W", "error", "-c", code + report],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    return set(json.loads(run.stdout))


def test_importing_the_package_loads_nothing_heavy():
    assert not loaded_by("import canvas_robot") & HEAVY


def test_importing_the_declarations_loads_nothing_heavy():
    assert (
        not loaded_by("import canvas_robot.schema, canvas_robot.signals, canvas_robot.resources")
        & HEAVY
    )


def test_what_holds_the_arm_loads_no_model_library():
    pytest.importorskip("rclpy")
    loaded = loaded_by("import canvas_robot.ros.policy_node")
    assert {"rclpy", "canvas_robot"} <= loaded
    assert not loaded & {"torch", "diffusers", "transformers", "tensorflow"}


def test_the_schema_alone_runs_on_the_standard_library():
    """Without site-packages: the package's own __init__, which needs Gymnasium, is left out."""
    code = (
        "import sys, types\n"
        "package = types.ModuleType('canvas_robot')\n"
        f"package.__path__ = [{str(PACKAGE)!r}]\n"
        "sys.modules['canvas_robot'] = package\n"
        "import canvas_robot.schema"
    )
    loaded = loaded_by(code, "-I", "-S")
    assert not loaded & {*HEAVY, "numpy", "gymnasium"}
    assert loaded <= {*sys.stdlib_module_names, "canvas_robot", "__main__"}


# ---------------------------------------------------------------- the names of the package


def test_a_star_import_brings_every_public_name():
    names: dict = {}
    exec("from canvas_robot import *", names)
    assert set(canvas_robot.__all__) <= set(names)
    assert all(names[name] is getattr(canvas_robot, name) for name in canvas_robot.__all__)


def test_the_names_are_complete_sorted_and_listed():
    assert canvas_robot.__all__ == sorted(set(canvas_robot.__all__))
    assert set(canvas_robot.__all__) <= set(dir(canvas_robot))
    for name in canvas_robot.__all__:
        value = getattr(canvas_robot, name)
        assert getattr(value, "__name__", name) == name


def test_an_unknown_name_is_refused_with_those_that_there_are():
    with pytest.raises(AttributeError) as error:
        canvas_robot.CanvasPolice  # noqa: B018
    assert str(error.value).startswith(
        "module 'canvas_robot' has no attribute 'CanvasPolice'; it has "
    )
    assert "CanvasPolicy" in str(error.value)


def test_importing_the_package_registers_its_environments():
    import gymnasium

    assert "canvas_robot/WidowXReach-v0" in gymnasium.registry
