"""Laws of embeddings by the default model, and of schemas that get theirs."""

import math
import subprocess
import sys

import pytest

from canvas_robot.schema import CanvasSchema, SchemaError, transfer_distance
from canvas_robot.semantic import (
    DEFAULT_MODEL,
    EmbeddedTextError,
    embed,
    model_name,
    with_embeddings,
    with_missing_embeddings,
)

STORED = {"semantic_embedding": (1.0, 0.0), "embedding_model": "openai/text-embedding-3-small"}


def test_a_text_gives_384_plain_numbers_of_unit_length(minilm):
    vector = embed("6-DoF joint angles in radians")
    assert len(vector) == 384 and {type(x) for x in vector} == {float}
    assert math.hypot(*vector) == pytest.approx(1.0, abs=1e-6)


def test_the_similarities_are_those_published_for_the_model(minilm):
    """Figures from gist.github.com/Spartee/52d91a87571f37e5b34555c1db987f5f, of 2022."""
    person, very, dog, day = embed(
        [
            "That is a happy person",
            "That is a very happy person",
            "That is a happy dog",
            "Today is a sunny day",
        ]
    )
    for other, published in ((very, 0.94291496), (dog, 0.69457746), (day, 0.25687605)):
        cosine = math.fsum(x * y for x, y in zip(person, other, strict=True))
        assert cosine == pytest.approx(published, abs=1e-5)


def test_a_text_s_embedding_does_not_depend_on_its_neighbours(minilm):
    texts = ["reward", "a much longer description of a camera on the wrist of an arm", "reward"]
    assert embed(texts) == [embed(text) for text in texts]
    assert embed([]) == []


@pytest.mark.parametrize("text", ["", "  \n", ["a", 5], ["a", None], [["a"]]])
def test_a_text_without_words_is_refused(text):
    with pytest.raises(EmbeddedTextError, match="expected words that say what a region means"):
        embed(text)


@pytest.mark.parametrize("text", [5, None, b"camera", {"a": "camera"}])
def test_what_is_no_text_is_refused_before_a_model_is_looked_for(text):
    with pytest.raises(EmbeddedTextError, match="text: expected a text or a list of texts, got"):
        embed(text, "no/such-model")


def test_half_a_character_is_refused_with_its_place():
    with pytest.raises(EmbeddedTextError, match="got half a character at place 4 of 'cam "):
        embed("cam \ud800")


def test_importing_it_loads_no_torch():
    code = (
        "import canvas_robot.semantic, canvas_robot.cli.schema_distance, sys\n"
        "assert not {'torch', 'transformers', 'huggingface_hub', 'rich'} & set(sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr


# ---------------------------------------------------------------- schemas


def test_regions_with_a_meaning_get_its_embedding_and_the_model_s_name(schema_of, sentence_model):
    schema = schema_of({"cam": {"semantic_type": "camera"}, "other": {}, "raw": None})
    before = schema.to_dict()
    result = with_embeddings(schema, str(sentence_model))
    cam = result.layout.region_spec("cam")
    assert cam.semantic_embedding == embed("camera", str(sentence_model))
    assert cam.embedding_model == model_name(str(sentence_model))
    assert result.layout.regions["other"] == schema.layout.regions["other"]
    assert result.layout.regions["raw"] == (0, 1, 2, 3, 0, 1)
    assert schema.to_dict() == before
    assert list(result.layout.regions) == list(schema.layout.regions)


def test_nothing_else_of_a_schema_changes(schema_of, sentence_model):
    schema = schema_of({"cam": {"semantic_type": "camera", "period": 3, "loss_weight": 2.0}})
    schema.metadata["framing"] = "image"
    result = with_embeddings(schema, str(sentence_model)).to_dict()
    del result["regions"]["cam"]["semantic_embedding"], result["regions"]["cam"]["embedding_model"]
    assert result == schema.to_dict()


def test_stored_embeddings_are_replaced_or_kept_as_asked(schema_of, sentence_model):
    schema = schema_of(
        {"old": {"semantic_type": "wrist", **STORED}, "new": {"semantic_type": "camera"}}
    )
    every = with_embeddings(schema, str(sentence_model)).layout
    missing = with_missing_embeddings(schema, str(sentence_model)).layout
    assert every.region_spec("old").embedding_model.startswith("sha256:")
    assert missing.region_spec("old") == schema.layout.region_spec("old")
    assert missing.region_spec("new") == every.region_spec("new")


def test_where_nothing_is_missing_no_model_is_needed(schema_of):
    schema = schema_of({"old": {"semantic_type": "wrist", **STORED}, "none": {}})
    assert with_missing_embeddings(schema, "no/such-model") == schema


def test_a_path_is_no_schema():
    with pytest.raises(
        SchemaError, match=r"schema: expected a CanvasSchema, got 'bimanual\.json'; "
    ):
        with_embeddings("bimanual.json")


def test_embeddings_survive_the_file(minilm, schema_of, tmp_path):
    schema = with_embeddings(schema_of({"cam": {"semantic_type": "RGB video"}}))
    schema.to_json(tmp_path / "schema.json")
    loaded = CanvasSchema.from_json(tmp_path / "schema.json")
    assert loaded == schema
    cam = loaded.layout.region_spec("cam")
    assert cam.embedding_model == DEFAULT_MODEL
    assert transfer_distance(cam, schema.layout.region_spec("cam")) == 0.0
