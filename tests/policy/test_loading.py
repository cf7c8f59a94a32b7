"""Laws of load_policy: each kind by its own loader, bit for bit; what does not fit is refused."""

import json
import pickle
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from canvas_robot.policy.checkpoint import fingerprint, save_checkpoint
from canvas_robot.policy.checkpoint_files import FILES, CheckpointError
from canvas_robot.policy.loading import load_policy
from canvas_robot.policy.plain import PlainPolicy
from canvas_robot.policy.plain_checkpoint import save_plain
from canvas_robot.policy.plain_model import PlainModel
from canvas_robot.policy.plain_network import PlainShape
from canvas_robot.policy.policy import CanvasPolicy

SHAPE = PlainShape(width=8, image_size=(32, 48), binary=("gripper",))


@pytest.fixture(scope="module")
def plain(small_schema, widowx, bridge) -> PlainPolicy:
    torch.manual_seed(0)
    model = PlainModel(small_schema(), widowx, bridge, SHAPE)
    return PlainPolicy(model, small_schema(), widowx, bridge, trained=True)


@pytest.fixture(scope="module")
def saved(plain, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / "plain"
    return save_plain(plain, folder, actions="recorded", data="abc")


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    """A copy of the checkpoint that a test may spoil."""
    return Path(shutil.copytree(saved, tmp_path / "checkpoint"))


def decide(policy, samples) -> np.ndarray:
    policy.reset("touch the red cube")
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
        load_policy(folder, **arguments)
    return str(error.value)


def test_a_plain_policy_comes_back_bit_for_bit(plain, saved, samples):
    loaded = load_policy(saved)
    assert isinstance(loaded, PlainPolicy)
    assert np.array_equal(decide(loaded, samples), decide(plain, samples))
    assert fingerprint(loaded) == fingerprint(plain)
    assert (loaded.schema, loaded.binding) == (plain.schema, plain.binding)
    assert (loaded.statistics, loaded.trained) == (plain.statistics, True)
    assert (loaded.horizon, loaded.model.shape) == (4, SHAPE)


def test_saving_what_was_loaded_writes_the_same_files(saved, tmp_path):
    again = save_plain(load_policy(saved), tmp_path / "again", actions="recorded", data="abc")
    assert sorted(path.name for path in again.iterdir()) == sorted(FILES)
    for name in FILES:
        assert (again / name).read_bytes() == (saved / name).read_bytes(), name


def test_a_folder_without_a_kind_holds_a_canvas_policy(make_policy, samples, tmp_path):
    policy = make_policy()
    loaded = load_policy(save_checkpoint(policy, tmp_path))
    assert isinstance(loaded, CanvasPolicy)
    assert np.array_equal(decide(loaded, samples), decide(policy, samples))


def test_an_unknown_kind_is_refused_with_those_that_there_are(folder):
    edit_config(folder, kind="octo")
    assert refusal(folder) == (
        f"{folder / 'config.json'}: kind: expected one of canvas, plain; got 'octo'; "
        "use a newer canvas_robot"
    )


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    assert refusal(folder).endswith(f"missing {name}")


@pytest.mark.parametrize(
    "change, text",
    [
        ({"kind": 3}, "Expected `str`, got `int` - at `$.kind`"),
        ({"colour": "red"}, "Object contains unknown field `colour`"),
        ({"format": 2}, "expected format 1, got 2; use a newer canvas_robot"),
        ({"network": {"width": 10**9}}, "Expected `int` <= 1024 - at `$.network.width`"),
        ({"network": {"image_size": [96]}}, "Expected `array` of length 2 - at"),
    ],
)
def test_a_wrong_config_is_refused_by_field(folder, change, text):
    edit_config(folder, **change)
    assert refusal(folder).startswith(f"{folder / 'config.json'}: {text}")


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[]", b" " * 2_000_000])
def test_a_config_that_is_none_is_refused(folder, content):
    (folder / "config.json").write_bytes(content)
    assert refusal(folder).startswith(f"{folder / 'config.json'}: ")


def test_weights_of_another_shape_and_other_names_are_refused(folder):
    edit_config(folder, network={"width": 16, "image_size": [32, 48], "binary": ["gripper"]})
    assert "network.told.0.weight: expected shape (16, 64), got (8, 64)" in refusal(folder)
    edit_config(folder, network=msgspec.to_builtins(SHAPE))
    edit_weights(folder, lambda w: w.update(extra=w.pop("network.told.0.bias")))
    assert "weights missing ['network.told.0.bias'], unknown ['extra']" in refusal(folder)


@pytest.mark.parametrize("value", [float("nan"), -float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(folder, value):
    edit_weights(folder, lambda weights: weights["network.told.0.bias"].fill_(value))
    assert "network.told.0.bias: expected finite weights" in refusal(folder)


class Bomb:
    """Runs code when it is unpickled."""

    went_off = False

    def __reduce__(self):
        return setattr, (Bomb, "went_off", True)


def test_a_pickle_in_place_of_weights_is_refused_and_not_run(folder):
    (folder / "weights.safetensors").write_bytes(pickle.dumps(Bomb()))
    assert "expected a safetensors file" in refusal(folder) and not Bomb.went_off


@pytest.mark.parametrize("name", ["schema.json", "statistics.json", "weights.safetensors"])
def test_a_file_that_changed_since_it_was_written_is_refused(folder, name):
    if name == "weights.safetensors":
        edit_weights(folder, lambda weights: next(iter(weights.values())).add_(1e-3))
    else:
        (folder / name).write_text((folder / name).read_text() + "\n")
    assert f"{folder / name}: changed since the checkpoint was written" in refusal(folder)


def test_a_binding_of_another_rate_or_other_signals_is_refused(saved, plain):
    faster = plain.binding.with_control_rate(10.0)
    assert "trained with control rate 5.0" in refusal(saved, binding=faster)
    assert "trained with control rate 5.0" in refusal(saved, control_rate_hz=10.0)
    state = msgspec.structs.replace(plain.binding.signals["state"], frame="world")
    other = msgspec.structs.replace(
        plain.binding, signals={**plain.binding.signals, "state": state}
    )
    assert "trained with signals" in refusal(saved, binding=other)


def test_motions_that_were_achieved_act_on_the_measured_pose_only(plain, tmp_path):
    folder = save_plain(plain, tmp_path / "checkpoint", actions="composed")
    assert "robot.anchor 'measured', got 'target'" in refusal(folder)


@pytest.mark.parametrize(
    "options, named",
    [
        ({"dtype": torch.bfloat16}, "dtype"),
        ({"device": "cuda"}, "device"),
        ({"prompts": "folder"}, "prompts"),
    ],
)
def test_options_that_are_about_a_backbone_are_refused(saved, options, named):
    assert refusal(saved, **options).endswith(f"in float32; leave out {named}")


def test_options_that_ask_for_what_it_is_anyway_are_no_mistake(saved):
    assert load_policy(saved, device="cpu", dtype=torch.float32, prompts="").trained
