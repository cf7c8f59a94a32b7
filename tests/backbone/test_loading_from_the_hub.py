"""Laws of hub ids: found in the local cache at one commit, else refused with the command to run."""

import shutil
import socket

import pytest
import torch
from huggingface_hub import constants

from canvas_robot.backbone.loading import BackboneError, load_backbone
from canvas_robot.backbone.sources import names, split_revision

OLD, NEW = "0" * 40, "1f" * 20


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("tiny")


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Whoever asks the network fails at once, with an error that no one expects."""

    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty hub cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def fill(cache, backbone):
    """A function that puts the tiny backbone into the cache as `model` at `commit`, main's."""

    def fill(model: str, commit: str, text_encoder: bool = True):
        repository = cache / f"models--{model.replace('/', '--')}"
        snapshot = repository / "snapshots" / commit
        backbone.transformer.save_pretrained(snapshot / "transformer")
        backbone.vae.save_pretrained(snapshot / "vae")
        if text_encoder:
            backbone.text_encoder.save_pretrained(snapshot / "text_encoder")
            backbone.tokenizer.save_pretrained(snapshot / "tokenizer")
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / "main").write_text(commit)
        return snapshot

    return fill


def refusal(source, **arguments) -> str:
    with pytest.raises(BackboneError) as error:
        load_backbone(source, **arguments)
    return str(error.value)


def test_a_cached_hub_id_is_loaded_and_its_commit_recorded(fill, backbone):
    fill("someone/some-video", NEW)
    loaded = load_backbone("someone/some-video")
    assert (loaded.source, loaded.revision) == (f"someone/some-video@{NEW}", NEW)
    assert loaded.trained
    for part in ("transformer", "vae"):
        assert loaded.sha256[part] == backbone.sha256[part]


@pytest.mark.parametrize("asked", [{"revision": OLD}, {"source": f"someone/some-video@{OLD}"}])
def test_a_pinned_revision_is_the_one_that_is_loaded(fill, asked):
    old = fill("someone/some-video", OLD)
    fill("someone/some-video", NEW)
    shutil.rmtree(old / "transformer")
    other = load_backbone("tiny", torch.bfloat16)
    other.transformer.save_pretrained(old / "transformer")
    pinned = load_backbone(**{"source": "someone/some-video", **asked})
    latest = load_backbone("someone/some-video")
    assert (pinned.revision, latest.revision) == (OLD, NEW)
    assert pinned.sha256["transformer"] != latest.sha256["transformer"]
    assert load_backbone(pinned.source).sha256 == pinned.sha256


@pytest.mark.parametrize("cached", ["THUDM/CogVideoX-2b", "zai-org/CogVideoX-2b"])
@pytest.mark.parametrize("asked", ["THUDM/CogVideoX-2b", "zai-org/CogVideoX-2b"])
def test_both_names_of_the_organisation_find_a_model_fetched_under_either(fill, cached, asked):
    fill(cached, NEW)
    assert load_backbone(asked).source == f"{asked}@{NEW}"


def test_two_revisions_at_once_are_refused(cache):
    text = refusal(f"someone/some-video@{OLD}", revision=NEW)
    assert text.endswith(f"names revision {OLD!r}, asked for {NEW!r}; name one")


@pytest.mark.parametrize(
    "source, arguments, command, sizes",
    [
        (
            "zai-org/CogVideoX-2b",
            {},
            "hf download zai-org/CogVideoX-2b",
            " (about 13.3 GB: transformer 3.4, vae 0.4, text_encoder 9.5)",
        ),
        (
            "THUDM/CogVideoX-5b",
            {"text_encoder": False, "revision": NEW},
            f"hf download zai-org/CogVideoX-5b --revision {NEW} --exclude 'text_encoder/*'",
            " (about 11.6 GB: transformer 11.1, vae 0.4)",
        ),
        ("someone/some-video@v1", {}, "hf download someone/some-video --revision v1", ""),
    ],
)
def test_missing_weights_are_refused_with_the_command_that_fetches_them_and_their_size(
    cache, source, arguments, command, sizes
):
    name, _ = split_revision(source)
    assert refusal(source, **arguments) == (
        f"backbone {name!r}: not in {cache}; fetch it with: {command}{sizes}"
    )


def test_a_snapshot_without_the_text_encoder_serves_those_who_need_none(fill):
    snapshot = fill("zai-org/CogVideoX-2b", NEW, text_encoder=False)
    assert load_backbone("zai-org/CogVideoX-2b", text_encoder=False).revision == NEW
    assert refusal("zai-org/CogVideoX-2b") == (
        f"backbone 'zai-org/CogVideoX-2b@{NEW}': expected transformer, vae, text_encoder in "
        f"diffusers' layout, as safetensors, in {snapshot}; missing text_encoder/config.json, "
        f"text_encoder/model.safetensors, tokenizer; fetch it with: hf download "
        f"zai-org/CogVideoX-2b --revision {NEW} "
        "(about 13.3 GB: transformer 3.4, vae 0.4, text_encoder 9.5); or do without: embed the "
        "instructions with `canvas-robot prompts` on a machine that has them, and give the folder "
        "that it makes"
    )


@pytest.mark.parametrize("cached", ["THUDM/CogVideoX-2b", "zai-org/CogVideoX-2b"])
def test_a_model_that_is_there_at_another_revision_is_said_to_be(cache, fill, cached):
    snapshot = fill(cached, NEW)
    assert refusal(f"zai-org/CogVideoX-2b@{OLD}", text_encoder=False).startswith(
        f"backbone 'zai-org/CogVideoX-2b': revision {OLD!r} not in {cache}, which holds {NEW}; "
        f"fetch it with: hf download zai-org/CogVideoX-2b --revision {OLD} "
    )
    (snapshot.parents[1] / "refs" / "main").unlink()
    assert f"revision 'main' not in {cache}, which holds {NEW}; " in refusal("zai-org/CogVideoX-2b")


def test_a_file_that_was_not_fetched_to_its_end_is_missing(fill):
    snapshot = fill("someone/some-video", NEW)
    weights = snapshot / "vae" / "diffusion_pytorch_model.safetensors"
    weights.unlink()
    weights.symlink_to(snapshot / "no such blob")
    assert "missing vae/diffusion_pytorch_model.safetensors; " in refusal("someone/some-video")


@pytest.mark.parametrize(
    "model, reason",
    [
        ("CogVideoX1.5-5B", "makes one token of 2 latent frames"),
        ("CogVideoX1.5-5B-I2V", "makes one token of 2 latent frames"),
        ("CogVideoX-5b-I2V", "image-to-video models take an image's latents"),
    ],
)
def test_models_that_no_canvas_fits_are_refused_before_anyone_fetches_them(cache, model, reason):
    text = refusal(f"zai-org/{model}")
    assert reason in text and text.endswith("use CogVideoX-2b or CogVideoX-5b")
    assert "hf download" not in text


@pytest.mark.parametrize("source", ["tinny", "", "/no/such/folder", "one/two/three"])
def test_an_unknown_name_is_refused_at_once_with_the_names_there_are(cache, source):
    assert refusal(source) == (
        f"backbone {source!r}: expected one of cogvideox_2b_random, cogvideox_5b_random, small, "
        "tiny, a folder, or a hub id such as zai-org/CogVideoX-2b; there is no folder of this name"
    )
    assert names() == ["cogvideox_2b_random", "cogvideox_5b_random", "small", "tiny"]


def test_an_unreachable_hub_is_named_with_the_command(cache, monkeypatch):
    def unreachable(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr("canvas_robot.backbone.sources.snapshot_download", unreachable)
    text = refusal("zai-org/CogVideoX-2b", local_files_only=False)
    assert "and not to be had from the hub: no route to host; fetch it with: hf download" in text


def test_a_folder_with_an_at_sign_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "mine@home").mkdir(parents=True)
    assert split_revision("models/mine@home") == ("models/mine@home", None)
    assert split_revision("models/mine@work") == ("models/mine", "work")
    assert split_revision("tiny") == ("tiny", None)
