"""Laws of the figures in docs/semantics.md: they are what the default model gives."""

import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from canvas_robot.schema.transfer import ADAPTER_UP_TO, DIRECT_UP_TO

FIGURE = re.compile(r"\d\.\d\d")
DOCS = Path(__file__).resolve().parents[2] / "docs"
pytestmark = pytest.mark.usefixtures("minilm")


@pytest.fixture(scope="module")
def script():
    spec = spec_from_file_location("make_semantic_picture", DOCS / "make_semantic_picture.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def distances(script):
    return script.typical_distances()


@pytest.fixture(scope="module")
def relations(script):
    return script.relations()


def test_the_camera_is_nearer_to_depth_than_to_joints(script, distances):
    camera, depth, joints = map(script.TYPICAL.index, ("fixed RGB camera", "depth", "joint angles"))
    assert distances[camera, depth] < 0.3 < ADAPTER_UP_TO < distances[camera, joints]
    assert distances[depth, camera] < distances[depth, joints]


def test_the_tables_of_the_documentation_are_what_the_model_gives(script, distances, relations):
    page = (DOCS / "semantics.md").read_text(encoding="utf-8")
    for table in (script.typical_table(distances), script.relations_table(relations)):
        head, *_ = table.splitlines()
        assert head in page
        documented = page[page.index(head) :][: len(table)]
        assert FIGURE.sub("", documented) == FIGURE.sub("", table)
        pairs = zip(FIGURE.findall(documented), FIGURE.findall(table), strict=True)
        assert all(abs(float(a) - float(b)) < 0.011 for a, b in pairs)  # the last digit, rounded


def test_no_two_signals_of_different_kinds_count_as_bridged_by_an_adapter(relations):
    _, same, _, foreign = relations.values()
    assert foreign[0] > ADAPTER_UP_TO
    assert sum(d <= ADAPTER_UP_TO for d in same) >= 12  # of 14


def test_only_the_same_sentence_but_for_one_word_counts_as_direct(relations):
    edited, *others = relations.values()
    assert edited[len(edited) // 2] <= DIRECT_UP_TO < min(group[0] for group in others)


def test_the_picture_can_be_drawn(script, distances, relations, tmp_path):
    script.draw(distances, relations, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 20_000
