"""Laws of an export: it is the run's weights with the run's declarations, or it is refused."""

import json
import shutil

import msgspec
import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from canvas_robot.backbone.folder import write_backbone
from canvas_robot.backbone.loading import load_backbone
from canvas_robot.backbone.part_config import BackboneError
from canvas_robot.data.bridge import BridgeV2
from canvas_robot.policy.checkpoint import load_checkpoint
from canvas_robot.policy.codecs.text import prompt_embedding
from canvas_robot.policy.prompts import create_prompts
from canvas_robot.training.checkpoints import (
    CheckpointFileError,
    CheckpointFolders,
    read_manifest,
)
from canvas_robot.training.export import ExportError, export_run, read_record
from canvas_robot.training.launch import run_training
from canvas_robot.training.run_folder import RunFolder, RunFolderError


@pytest.fixture(scope="module")
def trained(make_config, tmp_path_factory):
    """A run of four steps, with a moving average."""
    run = tmp_path_factory.mktemp("runs") / "run"
    run_training(make_config(f"run={run}", "ema.decay=0.5"), Console(quiet=True))
    return run


@pytest.fixture
def run(trained, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(trained, tmp_path / "run")


def decide(policy, sample) -> np.ndarray:
    policy.reset("put the carrot on the plate")
    return policy.act(sample).values


@pytest.fixture(scope="module")
def sample(bridge_sample):
    episode = BridgeV2(bridge_sample).read(0)
    return {"image": episode.image("image_0", 0), "state": episode.states[0]}


def edited(path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def spoil_schema(run, edit) -> None:
    data = json.loads((run / "schema.json").read_text())
    edit(data["regions"])
    (run / "schema.json").write_text(json.dumps(data))


# ---------------------------------------------------------------- what is written


@pytest.mark.parametrize("average", [True, False])
def test_the_weights_are_those_of_the_run(trained, tmp_path, average):
    folder, record = export_run(trained, tmp_path / "out", average=average)
    file = "average.safetensors" if average else "trained.safetensors"
    theirs = load_file(trained / "checkpoints" / "step_00000004" / file)
    own = load_checkpoint(folder).model.own_parameters()
    assert set(theirs) == {name for name, p in own.items() if p.requires_grad}
    assert all(torch.equal(own[name].detach(), theirs[name]) for name in theirs)
    assert record.weights == ("average" if average else "last")


def test_average_and_last_weights_act_otherwise_and_both_act(trained, tmp_path, sample):
    chunks = [
        decide(load_checkpoint(export_run(trained, tmp_path / str(a), average=a)[0]), sample)
        for a in (True, False)
    ]
    assert np.isfinite(chunks).all() and not np.array_equal(*chunks)


def test_one_run_gives_one_checkpoint(trained, tmp_path):
    weights = [
        (export_run(trained, tmp_path / name)[0] / "weights.safetensors").read_bytes()
        for name in "ab"
    ]
    assert weights[0] == weights[1]


def test_the_checkpoint_says_what_it_is(trained, tmp_path):
    folder, record = export_run(trained, tmp_path / "out")
    config = json.loads((folder / "config.json").read_text())
    facts = RunFolder.open(trained).facts()
    assert config["trained"] is True and config["actions"] == "composed"
    assert config["data"] == facts.data["fingerprint"] == record.fingerprint
    assert config["backbone_sha256"] == facts.backbone["sha256"]
    assert (config["freeze"], config["loops"], config["framing"]) == ("full", 2, "image")
    assert (record.step, record.steps, record.split, record.episodes) == (4, 4, "train", 20)
    assert record.held_out == "train", "the last fifth of it"
    assert read_record(folder) == record
    for name in ("schema.json", "statistics.json"):
        assert json.loads((folder / name).read_text()) == json.loads((trained / name).read_text())


def test_by_default_it_lies_in_the_run_under_its_step(run):
    folder, record = export_run(run, step=2)
    assert folder == run / "export" / "step_00000002" and record.step == 2
    assert export_run(run, step=2, average=False)[0].name == "step_00000002_last"


def test_motions_that_were_achieved_act_on_the_measured_pose(trained, tmp_path):
    assert RunFolder.open(trained).binding().robot.anchor == "target"
    folder, _ = export_run(trained, tmp_path / "out")
    assert load_checkpoint(folder).binding.robot.anchor == "measured"


def test_commands_act_as_the_binding_says(make_config, tmp_path, quiet):
    config = make_config(f"run={tmp_path / 'run'}", "data.rules.actions=recorded", "steps=1")
    run_training(config, quiet)
    folder, record = export_run(tmp_path / "run", tmp_path / "out")
    assert load_checkpoint(folder).binding.robot.anchor == "target"
    assert record.rules.actions == "recorded"


def test_prompts_of_the_run_come_along(make_config, bridge_sample, tmp_path, quiet, sample):
    backbone = load_backbone("tiny")
    prompts = create_prompts(tmp_path / "prompts", backbone)
    told = {BridgeV2(bridge_sample).read(k).instruction for k in range(25)}
    for text in {*told, "put the carrot on the plate"}:
        tokens = backbone.transformer.config.max_text_seq_length
        prompts.save(
            text, prompt_embedding(backbone.text_encoder, backbone.tokenizer, text, tokens)
        )
    config = make_config(f"run={tmp_path / 'run'}", f"prompts={prompts.path}", "steps=1")
    run_training(config, quiet)
    with_them, _ = export_run(tmp_path / "run", tmp_path / "with")
    without, _ = export_run(tmp_path / "run", tmp_path / "without", prompts=False)
    shutil.rmtree(prompts.path)
    policy = load_checkpoint(with_them)
    assert policy.model.text.encode("put the carrot on the plate").isfinite().all()
    assert np.isfinite(decide(policy, sample)).all()
    assert not (without / "prompts").exists()


def test_a_whole_checkpoint_needs_nothing_beside_it(make_config, tmp_path, quiet, sample):
    source = write_backbone(tmp_path / "backbone", load_backbone("tiny"))
    config = make_config(f"run={tmp_path / 'run'}", f"backbone.source={source}", "steps=1")
    run_training(config, quiet)
    named, _ = export_run(tmp_path / "run", tmp_path / "named")
    expected = decide(load_checkpoint(named), sample)
    whole, _ = export_run(tmp_path / "run", tmp_path / "whole", whole=True)
    shutil.rmtree(source)
    moved = whole.rename(tmp_path / "moved")
    np.testing.assert_array_equal(decide(load_checkpoint(moved), sample), expected)
    with pytest.raises(BackboneError, match="there is no folder of this name"):
        load_checkpoint(named)


def test_a_whole_checkpoint_names_a_backbone_that_ships(trained, tmp_path):
    whole, _ = export_run(trained, tmp_path / "whole", whole=True)
    assert not (whole / "backbone").exists()
    assert json.loads((whole / "config.json").read_text())["backbone"] == "tiny"


# ---------------------------------------------------------------- what is refused


def test_a_run_without_a_whole_checkpoint_is_refused(run):
    with pytest.raises(ExportError, match=r"step: expected one of \[2, 4\], got 3"):
        export_run(run, step=3)
    weights = run / "checkpoints" / "step_00000004" / "average.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(CheckpointFileError, match=r"average\.safetensors: expected .* bytes"):
        export_run(run)
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(ExportError, match="expected a checkpoint, there is none yet"):
        export_run(run)


def test_another_backbone_is_refused_by_its_part(run):
    backbone = json.loads((run / "run.json").read_text())["backbone"]
    edited(run / "run.json", backbone=backbone | {"sha256": backbone["sha256"] | {"vae": "0" * 64}})
    with pytest.raises(ExportError, match="'tiny' whose vae has sha256 000000000000"):
        export_run(run)


def test_a_schema_that_was_edited_is_refused(run):
    spoil_schema(run, lambda regions: regions["visual"].update(period=2))
    with pytest.raises(RunFolderError, match=r"schema\.json: changed since the run wrote it"):
        export_run(run)


def test_a_schema_that_the_weights_do_not_fit_is_refused(run):
    spoil_schema(run, lambda regions: regions["proprio"].update(bounds=[0, 2, 4, 5, 3, 5]))
    edited(run / "run.json", declarations={})
    with pytest.raises(ExportError, match=r"schema\.json.* declare: .* expected .* got"):
        export_run(run)
    assert not (run / "export").exists() or not list((run / "export").iterdir())


def test_another_meaning_of_actions_than_was_trained_is_refused(run):
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("actions: composed", "actions: recorded"))
    with pytest.raises(ExportError, match=r"'recorded', run\.json says .* on 'composed'"):
        export_run(run)


def test_weights_that_are_not_finite_are_refused(run):
    folders = CheckpointFolders(run / "checkpoints", 3)
    weights = load_file(folders.folder(4) / "average.safetensors")
    first = sorted(weights)[0]
    weights[first] = torch.full_like(weights[first], torch.nan)
    part = shutil.copytree(folders.folder(4), folders.part(5))
    (part / "checkpoint.json").unlink()
    save_file(weights, part / "average.safetensors")
    manifest = read_manifest(folders.folder(4))
    folders.finish(5, msgspec.structs.replace(manifest, step=5))
    with pytest.raises(ExportError, match="expected finite weights"):
        export_run(run)


def test_a_folder_with_something_in_it_is_left_alone(trained, tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(ExportError, match="expected a new or empty folder"):
        export_run(trained, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_a_spoilt_record_is_refused_by_its_name(trained, tmp_path):
    folder, _ = export_run(trained, tmp_path / "out")
    (folder / "training.json").write_text("{}")
    with pytest.raises(ExportError, match=r"training\.json: Object missing required field"):
        read_record(folder)
