"""Laws of `canvas-robot schema`: what is printed, what is written, how it exits."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from canvas_robot.cli import app
from canvas_robot.resources import config_path
from canvas_robot.schema import ATTENTION_TYPES, CanvasSchema, PlanError, compile_plan

TINY = config_path("schemas", "widowx_tiny.json")
OVERLAP = {
    "layout": {"T": 1, "H": 2, "W": 2, "d_model": 8},
    "regions": {"a": {"bounds": [0, 1, 0, 2, 0, 2]}, "b": {"bounds": [0, 1, 1, 2, 0, 1]}},
}


def run(*arguments):
    return CliRunner(env={"COLUMNS": None}).invoke(app, ["schema", *map(str, arguments)])


def written(folder, name, data):
    path = folder / name
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return path


def test_check_says_ok_in_one_line_each_and_advises_below():
    result = run("check", TINY, "bimanual", "multi_robot.json")
    assert result.exit_code == 0
    lines = [line for line in result.stdout.splitlines() if not line.startswith("  ")]
    assert lines == [
        f"{TINY}: ok, 5x19x16 cells, 4 regions, 394 tokens",
        "bimanual: ok, 20x31x24 cells, 8 regions, 964 tokens",
        "multi_robot.json: ok, 10x23x24 cells, 11 regions, 538 tokens",
    ]
    assert "  note: 1126 of 1520 cells (74%) belong to no region" in result.stdout


def test_check_goes_on_after_an_error_and_exits_with_1(tmp_path):
    bad = written(tmp_path, "bad.json", "{")
    overlap = written(tmp_path, "overlap.json", OVERLAP)
    result = run("check", bad, overlap, "nosuch", TINY)
    lines = result.stdout.splitlines()
    assert result.exit_code == 1
    assert lines[0].startswith(f"{bad}: error: expected a canvas schema in JSON, got ")
    assert lines[1].startswith(f"{overlap}: error: regions 'a' and 'b' overlap")
    assert lines[2].startswith(
        "nosuch: error: no such file, and no shipped schema of that name; there are bimanual, "
    )
    assert lines[2].endswith("widowx_two_cameras_tiny") and lines[0].count(str(bad)) == 1
    assert lines[3].startswith(f"{TINY}: ok")


def test_check_warns_and_exits_with_0(tmp_path):
    data = json.loads(TINY.read_text())
    data["topology"] = [c for c in data["topology"] if c["src"] != "action"]
    result = run("check", written(tmp_path, "blind.json", data))
    assert result.exit_code == 0
    assert "  warning: region 'action': an output that reads no other region" in result.stdout


@pytest.mark.parametrize("name", ["widowx_tiny", "mobile_manipulator", "multi_robot", "bimanual"])
def test_show_fits_120_columns_and_names_everything(name):
    result = run("show", name)
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 120
    schema = CanvasSchema.from_json(config_path("schemas", f"{name}.json"))
    for region in schema.layout.regions:
        assert result.stdout.count(region) >= 3
    for heading in ("regions", "connections", "execution groups", "residual edges", "is read by"):
        assert heading in result.stdout


@pytest.mark.parametrize("columns", [80, 60, 40, 20])
def test_show_names_every_region_as_often_however_narrow(columns, monkeypatch):
    def names():
        words = Counter(re.findall(r"[\w.]+", run("show", "multi_robot").stdout))
        return {region: words[region] for region in schema.layout.regions}

    schema = CanvasSchema.from_json(config_path("schemas", "multi_robot.json"))
    monkeypatch.setenv("COLUMNS", "500")
    wide = names()
    monkeypatch.setenv("COLUMNS", str(columns))
    assert names() == wide


def test_show_takes_the_rate_from_the_command_the_metadata_or_the_default():
    assert "control rate 50 Hz" in run("show", "bimanual").stdout
    assert "control rate 20 Hz" in run("show", "bimanual", "--rate", 20).stdout
    assert "control rate 5 Hz" in run("show", "widowx_tiny").stdout
    for rate in ("0", "-1", "inf", "nan", "fast"):
        assert run("show", "bimanual", "--rate", rate).exit_code == 2


def test_show_prints_the_same_as_json():
    result = json.loads(run("show", "multi_robot", "--json").stdout)
    region = next(r for r in result["regions"] if r["name"] == "robot_a.action")
    assert region["period"] == 1 and region["rate_hz"] == 10.0 and region["size"] == [8, 1, 1]
    assert region["readers"] == ["robot_a.action", "robot_b.action", "robot_c.action"]
    assert {"region": "world", "fn": "cross_attention", "weight": 1.0} | {
        "t_src": None,
        "t_dst": None,
    } in region["sources"]
    assert sum(group["stop"] - group["start"] for group in result["groups"]) == result["tokens"]
    assert {edge["fn"] for edge in result["edges"]} == {"mamba", "gated", "pooling"}


def test_show_prints_names_as_they_are(tmp_path):
    data = {
        "layout": {"T": 1, "H": 1, "W": 1, "d_model": 8},
        "regions": {"[red]:smile:": {"bounds": [0, 1, 0, 1, 0, 1]}},
    }
    result = run("show", written(tmp_path, "odd.json", data))
    assert "[red]:smile:" in result.stdout


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_draw_writes_a_picture_of_the_kind_its_name_says(tmp_path, ending):
    out = tmp_path / f"tiny.{ending}"
    result = run("draw", "widowx_tiny", "-o", out)
    assert result.exit_code == 0 and result.stdout == f"wrote {out}\n"
    assert out.read_bytes().startswith(b"\x89PNG" if ending == "png" else b"<?xml")


DOES_NOT_COMPILE = {
    "overlap": (OVERLAP, "regions 'a' and 'b' overlap"),
    "copy": (
        {
            "layout": {"T": 1, "H": 3, "W": 2, "d_model": 8},
            "regions": {"a": {"bounds": [0, 1, 0, 1, 0, 2]}, "b": {"bounds": [0, 1, 1, 3, 0, 2]}},
            "topology": [{"src": "a", "dst": "b", "fn": "copy"}],
        },
        "connection 'a' -> 'b': copy hands tokens over",
    ),
}


@pytest.mark.parametrize("data, text", DOES_NOT_COMPILE.values(), ids=DOES_NOT_COMPILE)
def test_a_file_that_does_not_compile_is_named_by_every_command(tmp_path, data, text):
    path = written(tmp_path, "wrong.json", data)
    for arguments in (("show", path), ("draw", path, "-o", tmp_path / "x.png")):
        result = run(*arguments)
        assert isinstance(result.exception, PlanError)
        assert str(result.exception).startswith(f"{path}: {text}")
    for pair in ((path, TINY), (TINY, path), (path, path)):
        result = run("diff", *pair)
        assert result.exit_code == 2 and result.output.startswith(f"error: {path}: {text}")
    assert run("check", path).stdout.startswith(f"{path}: error: {text}")


def test_what_a_schema_says_cannot_command_the_terminal(tmp_path):
    data = json.loads(TINY.read_text())
    data["regions"]["action"]["semantic_type"] = "\x1b[31mred\u202e \ud800"
    data["metadata"] = {"note": "\x1b]0;title\x07"}
    path = written(tmp_path, "loud.json", data)
    for arguments in (("show", path), ("show", path, "--json"), ("diff", TINY, path)):
        result = run(*arguments)
        assert not isinstance(result.exception, UnicodeError)
        assert "\x1b" not in result.stdout and "\u202e" not in result.stdout
    assert "\\x1b[31mred\\u202e" in run("show", path).stdout


HOSTILE = {
    "a weight of 400 digits": lambda data: data["topology"][0].update(weight=10**400),
    "a rate of 400 digits": lambda data: data.update(metadata={"control_rate_hz": 10**400}),
    "a period of 400 digits": lambda data: data["regions"]["goal"].update(period=10**400),
    "a loss weight of 400 digits": lambda data: data["regions"]["goal"].update(loss_weight=10**400),
    "a number for words": lambda data: data["regions"]["goal"].update(semantic_type=5),
    "half a character for a name": lambda data: data["regions"].update(
        {"\ud800": {"bounds": [0, 1, 18, 19, 0, 1]}}
    ),
    "a list for metadata": lambda data: data.update(metadata=[]),
    "options that there are not": lambda data: data.update(metadata={"attention": {"latent": 2}}),
    "a grid without end": lambda data: data["layout"].update(T=10**15),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_no_file_ends_a_command_but_by_an_error_that_names_it(tmp_path, change):
    data = json.loads(TINY.read_text())
    change(data)
    path = written(tmp_path, "hostile.json", data)
    for arguments in (
        ("show", path),
        ("draw", path, "-o", tmp_path / "x.png"),
        ("upgrade", path),
        ("distance", path, TINY),
    ):
        result = run(*arguments)
        assert result.exit_code == 1 and isinstance(result.exception, ValueError)
        assert "hostile.json: " in str(result.exception) and len(str(result.exception)) < 700
    assert run("diff", path, TINY).exit_code == 2
    result = run("check", path, TINY)
    assert result.exit_code == 1 and result.exception.__class__ is SystemExit
    assert result.stdout.startswith(f"{path}: error: ") and f"{TINY}: ok" in result.stdout


def test_a_folder_is_no_schema(tmp_path):
    result = run("check", tmp_path, TINY)
    assert result.stdout.startswith(f"{tmp_path}: error: expected a schema's file, got a folder")
    assert f"{TINY}: ok" in result.stdout


def test_a_folder_does_not_hide_a_shipped_schema_of_its_name(tmp_path, monkeypatch):
    (tmp_path / "bimanual").mkdir()
    monkeypatch.chdir(tmp_path)
    result = run("check", "bimanual", "")
    assert result.stdout.startswith("bimanual: ok, ")
    assert ": error: '': no such file, and no shipped schema of that name" in result.stdout


def test_what_writes_makes_the_folder_and_refuses_one_in_place_of_a_file(tmp_path):
    new = tmp_path / "new"
    assert run("draw", TINY, "-o", new / "one" / "tiny.png").exit_code == 0
    assert (new / "one" / "tiny.png").stat().st_size > 10_000
    assert run("upgrade", TINY, "-o", new / "two" / "tiny.json").exit_code == 0
    assert CanvasSchema.from_json(new / "two" / "tiny.json") == CanvasSchema.from_json(TINY)
    for command in ("draw", "upgrade"):
        result = run(command, TINY, "-o", new)
        assert (
            str(result.exception) == f"{new}: expected a file to write, got a folder; name a file"
        )


def test_diff_exits_as_diff_does(tmp_path):
    assert run("diff", TINY, "widowx_tiny").exit_code == 0
    assert run("diff", TINY, "widowx_tiny").stdout == "equal\n"
    assert run("diff", TINY, "widowx_bridge_2b").exit_code == 1
    missing = run("diff", TINY, "nosuch")
    assert missing.exit_code == 2 and "error: nosuch: no such file, and no" in missing.output
    help_text = run("diff", "--help").output
    assert "0 if they are equal, 1 if they differ, 2 if one cannot be read or compiled" in " ".join(
        help_text.split()
    )


def test_diff_gives_the_verdict_with_its_reasons(tmp_path):
    data = json.loads(TINY.read_text())
    data["regions"]["visual"]["period"] = 2
    other = written(tmp_path, "slow.json", data)
    result = run("diff", TINY, other)
    assert "period: 1 -> 2" in result.stdout
    assert "A checkpoint trained under A, in B: loads, but is another function" in result.stdout
    parsed = json.loads(run("diff", TINY, other, "--json").stdout)
    assert parsed["verdict"] == "loads, but is another function"
    assert [change["where"] for change in parsed["changes"]] == ["region 'visual'"]


def test_diff_asks_a_binding_what_fills_a_region(tmp_path):
    data = json.loads(TINY.read_text())
    data["regions"]["visual"]["bounds"] = [1, 2, 0, 8, 0, 16]
    other = written(tmp_path, "low.json", data)
    assert "in B: does not fit" in run("diff", TINY, other).stdout
    assert "in B: loads, but" in run("diff", TINY, other, "--binding", "widowx").stdout
    assert run("diff", TINY, other, "--binding", "nosuch").exit_code == 2


SEED = {
    "schema_version": "0.2.0",
    "layout": {"T": 1, "spatial_shape": [2, 2], "d_model": 8, "t_current": 0},
    "regions": {"a": {"bounds": [0, 1, 0, 2, 0, 2], "carrier": "deterministic"}},
    "topology": [{"src": "a", "dst": "a", "write_mode": "gate"}],
}


def test_upgrade_prints_unless_it_is_told_where_to_write(tmp_path):
    seed = json.loads(json.dumps(SEED))
    seed["topology"][0]["write_mode"] = "add"
    path = written(tmp_path, "seed.json", seed)
    before = path.read_bytes()
    result = run("upgrade", path)
    assert json.loads(result.stdout)["layout"]["H"] == 2
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    assert "translated: layout: spatial_shape [2, 2] to H = 2, W = 2" in result.stderr
    assert "dropped: region 'a': carrier 'deterministic'" in result.stderr
    out = tmp_path / "out.json"
    assert run("upgrade", path, "-o", out).exit_code == 0
    assert path.read_bytes() == before
    assert run("upgrade", path, "--in-place").exit_code == 0
    assert CanvasSchema.from_json(path) == CanvasSchema.from_json(out)
    assert run("upgrade", path, "-o", out, "--in-place").exit_code == 2


def test_upgrade_changes_no_shipped_schema_by_its_name():
    before = TINY.stat().st_mtime_ns
    result = run("upgrade", "widowx_tiny", "--in-place")
    assert result.exit_code == 2 and "is the name of a shipped schema" in result.output
    assert TINY.stat().st_mtime_ns == before


def test_upgrade_refuses_by_name_and_writes_nothing(tmp_path):
    path, out = written(tmp_path, "seed.json", SEED), tmp_path / "out.json"
    result = run("upgrade", path, "-o", out)
    assert result.exit_code == 1 and not out.exists()
    assert str(path) in str(result.exception) and "write_mode 'gate'" in str(result.exception)
    result = run("upgrade", path, "-o", out, "--drop-unknown")
    assert "dropped: connection 'a' -> 'a': write_mode 'gate'" in result.stderr
    assert CanvasSchema.from_json(out).layout.W == 2


def test_upgrade_warns_of_a_schema_that_it_writes_and_nobody_can_execute(tmp_path):
    for name, (data, text) in DOES_NOT_COMPILE.items():
        path, out = written(tmp_path, f"{name}.json", data), tmp_path / "out.json"
        result = run("upgrade", path, "-o", out)
        assert result.exit_code == 0 and CanvasSchema.from_json(out).layout.T == 1
        assert f"warning: the upgraded schema cannot be executed: {text}" in result.stderr
    assert "warning" not in run("upgrade", TINY).stderr


@pytest.mark.parametrize("content", ["{", "[1]", '"\\ud800"', "[" * 100000], ids=range(4))
def test_upgrade_names_a_file_that_is_no_schema(tmp_path, content):
    result = run("upgrade", written(tmp_path, "bad.json", content))
    assert result.exit_code == 1
    assert isinstance(result.exception, ValueError) and "bad.json: expected a" in str(
        result.exception
    )


def test_the_distance_of_two_schemas_is_among_the_commands():
    assert "distance" in run("--help").output


ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "schemas.md").read_text(encoding="utf-8")
CONSOLE = re.findall(r"```console\n\$ canvas-robot schema (.+)\n((?:.*\n)*?)```", PAGE)


@pytest.mark.parametrize("command, expected", CONSOLE, ids=[c.split()[0] for c, _ in CONSOLE])
def test_the_page_shows_what_the_commands_print(command, expected, tmp_path):
    arguments = command.replace("docs/", f"{ROOT}/docs/").replace("whole.png", f"{tmp_path}/w.png")
    if command.startswith("draw"):
        assert run(*arguments.split()).exit_code == 0
        return
    printed = run(*arguments.split()).stdout.replace(f"{ROOT}/docs/", "docs/")
    lines = [line.rstrip() for line in printed.splitlines()]
    assert "\n".join(lines).strip("\n") == expected.strip("\n")


def set_region(name, **fields):
    return lambda data: data["regions"][name].update(fields)


def connect(**fields):
    return lambda data: data["topology"].append({"src": "action", "dst": "joints"} | fields)


MISTAKES = {
    "a box that leaves the grid": set_region("action", bounds=[2, 7, 16, 17, 0, 2]),
    "two boxes on one cell": set_region("joints", bounds=[0, 3, 15, 16, 4, 5]),
    "an empty box": set_region("joints", bounds=[0, 3, 16, 16, 4, 5]),
    "period 0": set_region("camera", period=0),
    "a misspelt field": set_region("camera", perid=4),
    "a misspelt type": set_region("goal", default_attn="cros_attention"),
    "a misspelt region": connect(dst="jionts"),
    "a negative weight": connect(weight=-1),
    "`copy` between unlike boxes": connect(fn="copy"),
    "`t_current` outside the grid": lambda data: data["layout"].update(t_current=6),
}


@pytest.mark.parametrize("mistake, change", MISTAKES.items(), ids=MISTAKES)
def test_the_page_shows_the_error_of_each_mistake(mistake, change):
    data = json.loads((ROOT / "docs" / "schema_steps" / "2_told.json").read_text())
    change(data)
    with pytest.raises(ValueError) as error:
        compile_plan(CanvasSchema.from_dict(data))
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| {mistake} |")]
    shown = row.split("|")[2].strip().removesuffix("...")
    assert f"`{type(error.value).__name__}`: {error.value}".startswith(shown)


def test_the_page_tells_of_every_function_type():
    assert all(f"| `{name}` |" in PAGE for name in ATTENTION_TYPES)
