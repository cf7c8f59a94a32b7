"""Laws of beginning from a checkpoint: what both have goes on, by region; loops begin anew."""

import shutil

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from canvas_robot.backbone.loading import load_backbone
from canvas_robot.policy.checkpoint import load_checkpoint
from canvas_robot.training.beginnings import BeginningError, begin_from
from canvas_robot.training.export import ExportError, export_run
from canvas_robot.training.export_backbone import export_backbone
from canvas_robot.training.launch import run_training
from canvas_robot.training.parts import build_parts
from canvas_robot.training.sharing import make_accelerator


@pytest.fixture(scope="module")
def pretrained(make_config, video, tmp_path_factory):
    """A run in which the whole small model learned pictures and actions, each block once."""
    run = tmp_path_factory.mktemp("runs") / "pretrained"
    words = (f"run={run}", "mode=pretrain", "freeze=none", "loops=1", "ema.decay=0.5", *video)
    run_training(make_config(*words), Console(quiet=True))
    return run


@pytest.fixture(scope="module")
def folders(pretrained, tmp_path_factory):
    """Its backbone and its checkpoint."""
    out = tmp_path_factory.mktemp("exported")
    export_backbone(pretrained, out / "backbone")
    export_run(pretrained, out / "checkpoint")
    return out


def parts(config):
    return build_parts(config, make_accelerator(config))


def test_the_exported_backbone_is_the_transformer_that_was_trained(folders):
    policy = load_checkpoint(folders / "checkpoint")
    found, random = load_backbone(str(folders / "backbone")), load_backbone("tiny")
    own = policy.model.runner.transformer.transformer_blocks[1].original.ff.net[2].weight
    assert torch.equal(found.transformer.transformer_blocks[1].ff.net[2].weight, own)
    assert not torch.equal(random.transformer.transformer_blocks[1].ff.net[2].weight, own)
    assert found.sha256["vae"] == random.sha256["vae"]


def test_a_run_goes_on_with_codecs_and_head_of_the_same_regions(folders, make_config):
    words = (f"backbone.source={folders / 'backbone'}", f"start_from={folders / 'checkpoint'}")
    begun, fresh = parts(make_config(*words)), parts(make_config(words[0]))
    theirs = load_checkpoint(folders / "checkpoint").model
    ours, drawn = begun.objective.model, fresh.objective.model
    for region in ("proprio", "action"):
        own = dict(ours.codec(region).named_parameters())
        expected = dict(theirs.codec(region).named_parameters())
        assert own and all(torch.equal(own[name], expected[name]) for name in own)
    order = list(begun.schema.layout.regions)  # the other schema has one region more
    place, other = order.index("action"), list(theirs.roles).index("action")
    assert torch.equal(ours.canvas.modality[place], theirs.canvas.modality[other])
    assert not torch.equal(ours.canvas.modality[place], drawn.canvas.modality[place])
    looped = [model.runner.transformer.transformer_blocks[0].loop_emb for model in (ours, drawn)]
    assert torch.equal(*looped)


def test_a_run_that_trains_the_transformer_goes_on_with_it_too(folders, make_config):
    words = ("freeze=none", "loops=1", f"start_from={folders / 'checkpoint'}")
    begun = parts(make_config(*words)).objective.model.runner.transformer
    theirs = load_backbone(str(folders / "backbone")).transformer
    assert torch.equal(begun.norm_out.linear.weight, theirs.norm_out.linear.weight)
    assert torch.equal(begun.patch_embed.proj.weight, theirs.patch_embed.proj.weight)


def test_a_resumed_run_needs_its_beginning_no_more(folders, make_config, tmp_path):
    start = shutil.copytree(folders / "checkpoint", tmp_path / "start")
    words = (f"run={tmp_path / 'run'}", f"start_from={start}")
    run_training(make_config(*words, "steps=2"), Console(quiet=True))
    shutil.rmtree(start)
    ending = run_training(make_config(*words, "steps=4"), Console(quiet=True))
    assert ending.step == 4


def test_another_folder_is_refused(make_config, tmp_path):
    with pytest.raises(BeginningError, match=r"a checkpoint's folder.* lacks schema\.json"):
        parts(make_config(f"start_from={tmp_path}"))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda weight: weight[:, :4].clone(), "expected shape .*, got .*same codecs"),
        (lambda weight: weight * float("nan"), "expected finite weights"),
    ],
)
def test_weights_that_do_not_fit_are_refused(folders, make_config, tmp_path, change, text):
    start = shutil.copytree(folders / "checkpoint", tmp_path / "start")
    weights = load_file(start / "weights.safetensors")
    name = "codecs.vector_0.project.weight"
    save_file(weights | {name: change(weights[name])}, start / "weights.safetensors")
    made = parts(make_config())
    with pytest.raises(BeginningError, match=text):
        begin_from(made.objective.model, made.schema, made.binding, start)


def test_only_a_run_of_single_loops_that_trained_it_has_a_backbone(make_config, tmp_path):
    run_training(make_config(f"run={tmp_path / 'run'}", "steps=1"), Console(quiet=True))
    with pytest.raises(ExportError, match="expected a run that trained the transformer"):
        export_backbone(tmp_path / "run", tmp_path / "backbone")
    assert not (tmp_path / "backbone").exists()
