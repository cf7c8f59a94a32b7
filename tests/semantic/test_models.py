"""Laws of finding a sentence model: on this disk, or with the command that brings it there."""

from pathlib import Path

import pytest

from canvas_robot.semantic import (
    DEFAULT_MODEL,
    ModelNotHereError,
    SemanticModelError,
    ServiceModelError,
    UnsupportedModelError,
    embed,
    model_folder,
    model_name,
    models,
)


def test_the_default_model_is_the_packaged_one(minilm):
    assert (model_folder() / "model.safetensors").is_file()
    assert model_name() == DEFAULT_MODEL == "sentence-transformers/all-MiniLM-L6-v2"


def test_without_its_package_the_default_model_names_what_to_install(monkeypatch, empty_hub_cache):
    monkeypatch.setattr(models, "find_spec", lambda name: None)
    with pytest.raises(ModelNotHereError) as error:
        embed("joint angles")
    assert str(error.value) == (
        "model 'sentence-transformers/all-MiniLM-L6-v2': not on this disk; install it with: "
        "pip install 'canvas_robot[semantic]' (or fetch it: hf download "
        "sentence-transformers/all-MiniLM-L6-v2)"
    )


def test_a_model_that_was_not_fetched_names_the_command_that_does(empty_hub_cache):
    with pytest.raises(ModelNotHereError) as error:
        embed("joint angles", "someone/sentence-model")
    assert str(error.value) == (
        "model 'someone/sentence-model': not on this disk; "
        "fetch it with: hf download someone/sentence-model"
    )


def test_a_folder_that_is_not_there_is_called_that(tmp_path):
    with pytest.raises(ModelNotHereError, match="found no such folder"):
        embed("joint angles", str(tmp_path / "nothing" / "here"))


def test_a_web_service_is_refused_with_what_to_do_instead():
    with pytest.raises(ServiceModelError) as error:
        embed("joint angles", "openai/text-embedding-3-small")
    assert "Store them in the schema file" in str(error.value)
    assert DEFAULT_MODEL in str(error.value)
    assert isinstance(error.value, SemanticModelError) and isinstance(error.value, ValueError)


def test_a_fetched_model_is_used_and_recorded_by_its_hub_id(make_sentence_model, empty_hub_cache):
    home = empty_hub_cache / "models--someone--tiny"
    make_sentence_model(home / "snapshots" / "0123abcd")
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("0123abcd")
    assert model_folder("someone/tiny") == home / "snapshots" / "0123abcd"
    assert model_name("someone/tiny") == "someone/tiny"
    assert len(embed("joint angles", "someone/tiny")) == 8


def test_a_folder_is_recorded_by_what_its_weights_are(make_sentence_model, tmp_path):
    first, copy, other = (
        make_sentence_model(tmp_path / name, seed=seed)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert model_name(str(first)).startswith("sha256:")
    assert model_name(str(first)) == model_name(str(copy)) != model_name(str(other))


def test_a_folder_without_weights_has_no_name(tmp_path):
    with pytest.raises(UnsupportedModelError, match=r"expected \*\.safetensors in it, found none"):
        model_name(str(tmp_path))


def test_a_folder_next_to_the_user_does_not_stand_in_for_the_default_model(
    minilm, make_sentence_model, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    make_sentence_model(Path(DEFAULT_MODEL))
    assert len(embed("joint angles")) == 384


@pytest.mark.parametrize("model", [5, None, "", " ", Path("folder")])
def test_what_is_no_model_s_name_is_refused(model):
    for ask in (model_folder, model_name, lambda model: embed("camera", model)):
        with pytest.raises(SemanticModelError, match=r"model: expected a hub id such as '.*got"):
            ask(model)
