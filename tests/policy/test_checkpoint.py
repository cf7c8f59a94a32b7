"""Laws of checkpoints: saving and loading changes no action; what does not fit is refused."""

import json
import pickle
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from canvas_robot.backbone import loading, memory
from canvas_robot.backbone.loading import BackboneError, load_backbone
from canvas_robot.backbone.memory import BackboneMemoryError
from canvas_robot.policy.assemble import assemble_policy, warm_up
from canvas_robot.policy.checkpoint import fingerprint, load_checkpoint, save_checkpoint
from canvas_robot.policy.checkpoint_files import FILES, CheckpointError
from canvas_robot.policy.model import CanvasModel
from canvas_robot.policy.policy import CanvasPolicy
from canvas_robot.policy.settings import PolicySettings
from canvas_robot.resources import config_path
from canvas_robot.signals import load_statistics


@pytest.fixture(scope="module")
def trained(make_policy) -> CanvasPolicy:
    """A policy whose every own weight was moved from where it started."""
    policy = make_policy(loops=2)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in policy.model.own_parameters().values():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return policy


@pytest.fixture(scope="module")
def saved(trained, tmp_path_factory) -> Path:
    return save_checkpoint(trained, tmp_path_factory.mktemp("checkpoints") / "carrot")


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    """A copy of the checkpoint that a test may spoil."""
    return Path(shutil.copytree(saved, tmp_path / "checkpoint"))


def decide(policy, samples) -> np.ndarray:
    policy.reset("lift")
    policy.act(samples(0))
    return policy.act(samples(1)).values


def edit_config(folder: Path, **changes) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_weights(folder: Path, edit) -> None:
    path = folder / "weights.safetensors"
    weights = load_file(path)
    edit(weights)
    save_file(weights, path)


def refusal(folder: Path, **arguments) -> str:
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(folder, **arguments)
    return str(error.value)


def test_a_loaded_checkpoint_decides_bit_for_bit_as_the_saved_policy(trained, saved, samples):
    loaded = load_checkpoint(saved)
    assert np.array_equal(decide(loaded, samples), decide(trained, samples))
    assert fingerprint(loaded) == fingerprint(trained)
    assert (loaded.schema, loaded.binding) == (trained.schema, trained.binding)
    assert loaded.statistics == trained.statistics
    assert (loaded.source, loaded.sha256, loaded.trained) == ("tiny", trained.sha256, False)
    assert loaded.model.plan == trained.model.plan


def test_saving_what_was_loaded_writes_the_same_files(saved, tmp_path):
    again = save_checkpoint(load_checkpoint(saved), tmp_path / "again")
    assert sorted(path.name for path in again.iterdir()) == sorted(FILES)
    for name in FILES:
        assert (again / name).read_bytes() == (saved / name).read_bytes(), name


def test_the_backbones_weights_are_named_not_copied(saved, trained):
    weights = load_file(saved / "weights.safetensors")
    assert set(weights) == set(trained.model.own_parameters())
    config = json.loads((saved / "config.json").read_text())
    assert config["backbone"] == "tiny" and config["backbone_sha256"] == trained.sha256


def test_fingerprints_tell_weights_apart(make_policy, trained):
    assert fingerprint(make_policy(loops=2)) != fingerprint(trained)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    assert refusal(folder) == (
        f"checkpoint {folder}: expected a folder with schema.json, binding.yaml, statistics.json, "
        f"weights.safetensors, config.json; missing {name}"
    )


def test_a_folder_that_does_not_exist_lacks_everything(tmp_path):
    assert refusal(tmp_path / "none").endswith(f"missing {', '.join(FILES)}")


@pytest.mark.parametrize("keep", [0, 7, 40, -1])
def test_truncated_weights_are_refused(folder, keep):
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    assert refusal(folder).startswith(f"{path}: expected a safetensors file, got ")


class Bomb:
    """Runs code when it is unpickled."""

    went_off = False

    def __reduce__(self):
        return setattr, (Bomb, "went_off", True)


def test_a_pickle_in_place_of_weights_is_refused_and_not_run(folder):
    path = folder / "weights.safetensors"
    path.write_bytes(pickle.dumps(Bomb()))
    assert refusal(folder).startswith(f"{path}: expected a safetensors file, got ")
    torch.save({"action": torch.zeros(1)}, path)
    assert refusal(folder).startswith(f"{path}: expected a safetensors file, got ")
    assert not Bomb.went_off


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder"])
def test_another_backbones_weights_are_refused_by_part(folder, trained, part):
    edit_config(folder, backbone_sha256={**trained.sha256, part: "0123456789ab" + "0" * 52})
    assert refusal(folder) == (
        f"checkpoint {folder}: made for backbone 'tiny' whose {part} has sha256 0123456789ab..., "
        f"the one found has {trained.sha256[part][:12]}...; "
        "install the backbone it was trained on"
    )


def test_a_backbone_of_which_nothing_was_recorded_is_refused(folder):
    edit_config(folder, backbone_sha256={})
    assert "whose transformer has sha256 none..." in refusal(folder)


def test_a_text_encoder_that_was_not_there_in_training_is_not_checked(folder, trained):
    kept = {part: trained.sha256[part] for part in ("transformer", "vae")}
    edit_config(folder, backbone_sha256=kept)
    assert load_checkpoint(folder).sha256 == kept


def test_the_revision_of_a_hub_id_is_recorded_beside_it(trained, monkeypatch, tmp_path):
    monkeypatch.setattr(trained, "source", "zai-org/CogVideoX-2b@" + "a1" * 20)
    config = json.loads((save_checkpoint(trained, tmp_path) / "config.json").read_text())
    assert config["backbone"] == "zai-org/CogVideoX-2b"
    assert config["backbone_revision"] == "a1" * 20


def test_a_recorded_revision_is_the_one_that_is_looked_up(folder):
    edit_config(folder, backbone="zai-org/CogVideoX-2b", backbone_revision="a1" * 20)
    with pytest.raises(BackboneError) as error:
        load_checkpoint(folder)
    assert f"hf download zai-org/CogVideoX-2b --revision {'a1' * 20} (about" in str(error.value)


def test_a_checkpoint_of_a_float32_backbone_loads_on_the_same_weights_in_bfloat16(saved, trained):
    loaded = load_checkpoint(saved, dtype=torch.bfloat16)
    assert loaded.model.runner.transformer.dtype == torch.bfloat16
    assert loaded.sha256 == trained.sha256


def test_a_device_without_the_memory_is_refused_before_the_backbone_is_loaded(saved, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda device: 1000)
    monkeypatch.setattr(loading, "load_backbone", None)
    with pytest.raises(BackboneMemoryError, match="keys and values"):
        load_checkpoint(saved)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(folder, value):
    edit_weights(folder, lambda weights: weights["codecs.action_0.head.net.0.bias"].fill_(value))
    assert refusal(folder) == (
        f"{folder / 'weights.safetensors'}: codecs.action_0.head.net.0.bias: "
        "expected finite weights, got NaN or infinity"
    )


def test_weights_of_another_shape_are_refused_by_name(folder):
    edit_weights(folder, lambda weights: weights.update({"canvas.empty_token": torch.zeros(64)}))
    assert refusal(folder) == (
        f"{folder / 'weights.safetensors'}: canvas.empty_token: expected shape (128,), got (64,)"
    )


def test_unknown_and_missing_weights_are_refused_by_name(folder):
    edit_weights(
        folder, lambda weights: weights.update({"extra": weights.pop("canvas.empty_token")})
    )
    assert refusal(folder) == (
        f"{folder / 'weights.safetensors'}: weights missing ['canvas.empty_token'], "
        "unknown ['extra']"
    )


@pytest.mark.parametrize(
    "change, text",
    [
        ({"colour": "red"}, "Object contains unknown field `colour`"),
        ({"loops": "two"}, "Expected `int`, got `str` - at `$.loops`"),
        ({"loops": 0}, "loops: expected 1 to 64, got 0"),
        ({"loops": 65}, "loops: expected 1 to 64, got 65"),
        ({"format": 2}, "expected format 1, got 2; use a newer canvas_robot"),
    ],
)
def test_a_wrong_config_is_refused_by_field(folder, change, text):
    edit_config(folder, **change)
    assert refusal(folder) == f"{folder / 'config.json'}: {text}"


def test_a_config_that_is_no_json_is_refused(folder):
    (folder / "config.json").write_bytes(b"{")
    assert refusal(folder) == f"{folder / 'config.json'}: Input data was truncated"


@pytest.mark.parametrize("name", ["schema.json", "binding.yaml", "statistics.json"])
def test_a_declaration_that_cannot_be_read_is_refused_by_its_path(folder, name):
    (folder / name).write_text("[")
    with pytest.raises(ValueError) as error:
        load_checkpoint(folder)
    assert str(folder / name) in str(error.value)


# ---------------------------------------------------------------- another robot


def test_another_robot_may_differ_in_sources_and_limits(saved, trained, samples):
    robot = msgspec.structs.replace(trained.binding.robot, anchor="measured", part_m=0.2)
    binding = msgspec.structs.replace(trained.binding, robot=robot)
    loaded = load_checkpoint(saved, binding=binding)
    assert loaded.binding.robot == robot
    assert np.array_equal(decide(loaded, samples), decide(trained, samples))


def test_a_binding_of_another_control_rate_is_refused(saved, trained):
    faster = trained.binding.with_control_rate(10.0)
    text = f"checkpoint {saved}: trained with control rate 5.0, asked to run with 10.0"
    assert refusal(saved, binding=faster) == text
    assert refusal(saved, control_rate_hz=10.0) == text
    assert load_checkpoint(saved, control_rate_hz=5.0).binding == trained.binding


def test_a_binding_of_another_control_rate_is_refused_though_the_trained_rate_is_asked_for(
    saved, trained
):
    faster = trained.binding.with_control_rate(10.0)
    text = refusal(saved, binding=faster, control_rate_hz=5.0)
    assert text.endswith("trained with control rate 5.0, asked to run with 10.0")


def test_a_binding_of_other_regions_or_signals_is_refused(saved, trained):
    binding = trained.binding
    proprio = msgspec.structs.replace(binding.regions["proprio"], normalise="mean_std")
    other = msgspec.structs.replace(binding, regions={**binding.regions, "proprio": proprio})
    assert refusal(saved, binding=other).startswith(f"checkpoint {saved}: trained with regions ")
    state = msgspec.structs.replace(binding.signals["state"], frame="world")
    other = msgspec.structs.replace(binding, signals={**binding.signals, "state": state})
    assert refusal(saved, binding=other) == (
        f"checkpoint {saved}: trained with signals {{'state.frame': 'base_link'}}, "
        f"asked to run with {{'state.frame': 'world'}}"
    )


# ---------------------------------------------------------------- from settings


def test_settings_name_a_checkpoint_and_may_repeat_what_it_holds(saved, samples, trained):
    policy = assemble_policy(
        PolicySettings(
            checkpoint=str(saved), schema=str(saved / "schema.json"), binding="widowx.yaml"
        )
    )
    assert np.array_equal(decide(policy, samples), decide(trained, samples))


def test_another_schema_than_the_checkpoints_is_refused(saved):
    settings = PolicySettings(checkpoint=str(saved), schema="widowx_tiny.json")
    with pytest.raises(CheckpointError) as error:
        assemble_policy(settings)
    assert str(error.value) == (
        f"checkpoint {saved}: its schema differs from widowx_tiny.json; "
        "leave the schema out, or use a checkpoint that was trained with it"
    )


def test_without_a_checkpoint_the_policy_is_untrained_at_any_rate_and_says_so():
    policy = assemble_policy(PolicySettings(control_rate_hz=10.0))
    assert policy.trained is False
    assert policy.binding.control_rate_hz == 10.0
    assert policy.schema.layout.num_positions == 5 * 19 * 16


def test_a_file_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(FileNotFoundError, match=r"bindings/panda\.yaml: not in .*'widowx\.yaml'"):
        assemble_policy(PolicySettings(binding="panda.yaml"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has what the test lacks")
def test_a_device_that_torch_does_not_see_is_refused():
    with pytest.raises(ValueError) as error:
        assemble_policy(PolicySettings(device="cuda"))
    assert str(error.value) == (
        "device: expected cpu, as torch sees no CUDA device here; got 'cuda'"
    )


def test_warming_up_takes_its_time_and_leaves_no_instruction(make_policy):
    policy = make_policy()
    assert warm_up(policy, decisions=1) > 0
    assert policy.instruction is None


def test_a_robot_may_have_another_camera_and_other_ages(saved, trained, samples):
    binding = trained.binding
    image = msgspec.structs.replace(binding.signals["image"], sizes=((480, 640),), max_age_s=2.0)
    state = msgspec.structs.replace(binding.signals["state"], max_age_s=2.0, max_skew_s=0.1)
    signals = {**binding.signals, "image": image, "state": state}
    loaded = load_checkpoint(saved, binding=msgspec.structs.replace(binding, signals=signals))
    assert loaded.binding.signals["image"] == image


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda weight: weight.double() + 1e300,
        lambda weight: weight.to(torch.int32),
        lambda weight: weight.to(torch.bool),
        lambda weight: weight.to(torch.complex64),
        lambda weight: weight.to(torch.float8_e4m3fn),
    ],
    ids=["beyond float32", "int32", "bool", "complex64", "float8"],
)
def test_weights_that_are_no_float32_are_refused(folder, spoilt):
    def edit(weights):
        name = next(name for name in weights if name.endswith("loop_gate"))
        weights[name] = spoilt(weights[name])

    edit_weights(folder, edit)
    assert "loop_gate: expected" in refusal(folder)


@pytest.mark.parametrize("name", ["schema.json", "statistics.json", "weights.safetensors"])
def test_a_file_that_changed_since_it_was_written_is_refused(folder, name):
    if name == "weights.safetensors":
        edit_weights(folder, lambda weights: next(iter(weights.values())).add_(1e-3))
    else:
        (folder / name).write_text((folder / name).read_text() + "\n")
    assert f"{folder / name}: changed since the checkpoint was written" in refusal(folder)


def test_the_binding_may_be_edited_in_place(folder, trained, samples):
    path = folder / "binding.yaml"
    path.write_text(path.read_text().replace("camera/image_raw", "front/image_raw"))
    loaded = load_checkpoint(folder)
    assert loaded.binding.sources.ros["image"].topic == "front/image_raw"
    assert np.array_equal(decide(loaded, samples), decide(trained, samples))


@pytest.mark.parametrize(
    "actions, fits", [("composed", False), ("naive", False), ("recorded", True)]
)
def test_motions_that_were_achieved_act_on_the_measured_pose_only(trained, tmp_path, actions, fits):
    folder = save_checkpoint(trained, tmp_path / "checkpoint", actions=actions, data="abc")
    if not fits:
        assert "robot.anchor 'measured', got 'target'" in refusal(folder)
    measured = msgspec.structs.replace(
        trained.binding, robot=msgspec.structs.replace(trained.binding.robot, anchor="measured")
    )
    assert load_checkpoint(folder, binding=measured).binding.robot.anchor == "measured"


@pytest.mark.parametrize("freeze", ["half", "none"])
def test_what_was_not_frozen_of_the_backbone_is_in_the_checkpoint(
    small_schema, widowx, tmp_path, samples, freeze
):
    statistics = load_statistics(config_path("statistics", "bridge_v2.json"))
    backbone = load_backbone("tiny")
    model = CanvasModel(small_schema(), widowx, statistics, backbone, 2, freeze=freeze)
    blocks = model.runner.transformer.transformer_blocks
    with torch.no_grad():
        blocks[0].original.ff.net[0].proj.weight.add_(0.1)
    policy = CanvasPolicy(
        model, small_schema(), widowx, statistics, "tiny", backbone.sha256, trained=True
    )
    folder = save_checkpoint(policy, tmp_path / "checkpoint")
    loaded = load_checkpoint(folder)
    assert np.array_equal(decide(loaded, samples), decide(policy, samples))
    frozen = {id(p) for p in model.parameters() if not p.requires_grad}
    embedding = model.runner.transformer.patch_embed.proj.weight
    assert (id(embedding) in frozen) == (freeze == "half")
