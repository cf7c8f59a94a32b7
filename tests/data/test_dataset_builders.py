"""The data sets of datasets/ are Bridge V2 to every reader, and raw recordings run no code."""

import importlib
import json
import os
import pickle
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from PIL import Image

from canvas_robot.data.bridge import BridgeV2

DATASETS = Path(__file__).parents[2] / "datasets"


def _module(name):
    """A module of the folder datasets/bridge_v2, loaded as `tfds build` does."""
    sys.path.insert(0, str(DATASETS))
    try:
        return importlib.import_module(f"bridge_v2.{name}")
    finally:
        sys.path.pop(0)


raw = _module("raw_trajectories")
plain = _module("raw_pickle")


# ---------------------------------------------------------------- raw recordings, made here

STEPS = 5  # actions; pictures and states are one more


def write_trajectory(folder, cameras=(0, 1), lang="put the carrot on the plate\n", seed=0):
    """A raw trajectory as bridge_data_robot leaves one."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for camera in cameras:
        (folder / f"images{camera}").mkdir()
        for step in range(STEPS + 1):
            pixels = np.full((480, 640, 3), 40 * step + camera, np.uint8)
            pixels[100:200, 300:500] = (200, 30, 90)
            Image.fromarray(pixels).save(folder / f"images{camera}" / f"im_{step}.jpg", quality=95)
    observed = {
        "full_state": random.normal(size=(STEPS + 1, 7)),
        "qpos": random.normal(size=(STEPS + 1, 6)),
        "time_stamp": [1.5 * step for step in range(STEPS + 1)],
    }
    steps = [
        {"actions": random.normal(size=7), "policy_type": "VRTeleopPolicy"} for _ in range(STEPS)
    ]
    (folder / "obs_dict.pkl").write_bytes(pickle.dumps(observed))
    (folder / "policy_out.pkl").write_bytes(pickle.dumps(steps))
    if lang is not None:
        (folder / "lang.txt").write_text(lang)
    return observed["full_state"].astype(np.float32), np.float32([s["actions"] for s in steps])


NEW, OLD = "2022-01-31_12-00-00", "2021-07-22_23-59-59"


@pytest.fixture
def trajectory(tmp_path):
    """A good one, its states and its actions."""
    folder = tmp_path / NEW / "raw" / "traj_group0" / "traj0"
    states, actions = write_trajectory(folder)
    ((found,),) = raw.find_collections(tmp_path)
    return found, states, actions


def squashed(folder, camera, step):
    with Image.open(folder / f"images{camera}" / f"im_{step}.jpg") as picture:
        return np.asarray(picture.resize((256, 256), Image.Resampling.LANCZOS))


def test_step_k_has_picture_state_and_action_k_and_the_last_picture_is_left_out(trajectory):
    found, states, actions = trajectory
    episode = raw.read_trajectory(found)
    np.testing.assert_array_equal(episode.states, states[:STEPS])
    np.testing.assert_array_equal(episode.actions, actions)
    assert sorted(episode.pictures) == [0, 1]
    for camera, pictures in episode.pictures.items():
        assert pictures.shape == (STEPS, 256, 256, 3)
        np.testing.assert_array_equal(pictures[3], squashed(found.folder, camera, 3))


def test_pictures_are_squashed_not_cut(trajectory):
    # The box at rows 100..200 of 480 and columns 300..500 of 640.
    picture = raw.squash(trajectory[0].folder / "images0" / "im_0.jpg").astype(int)
    inside = picture[:, :, 0] > 120
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    assert (rows[0], rows[-1]) == pytest.approx((100 * 256 / 480, 200 * 256 / 480), abs=1.5)
    assert (columns[0], columns[-1]) == pytest.approx((300 * 0.4, 500 * 0.4), abs=1.5)


def test_before_july_23_2021_pictures_and_states_are_taken_a_step_later(trajectory):
    found, states, actions = trajectory
    found = raw.RawTrajectory(found.folder, found.name, datetime(2021, 7, 22, 23, 59, 59))
    episode = raw.read_trajectory(found)
    np.testing.assert_array_equal(episode.states, states[1:STEPS])
    np.testing.assert_array_equal(episode.actions, actions[: STEPS - 1])
    np.testing.assert_array_equal(episode.pictures[0][0], squashed(found.folder, 0, 1))


def test_the_date_is_that_of_the_folder(tmp_path):
    for date in (NEW, OLD):
        write_trajectory(tmp_path / "task" / "00" / date / "raw" / "traj_group0" / "traj0")
    found = {one.name: one.recorded for (one,) in raw.find_collections(tmp_path)}
    assert found == {
        f"task/00/{OLD}/raw/traj_group0/traj0": datetime(2021, 7, 22, 23, 59, 59),
        f"task/00/{NEW}/raw/traj_group0/traj0": datetime(2022, 1, 31, 12),
    }


def test_a_folder_without_a_date_is_refused(tmp_path):
    (tmp_path / "yesterday" / "raw" / "traj_group0" / "traj0").mkdir(parents=True)
    with pytest.raises(raw.RawDataError, match="yesterday: expected a name such as 2022-"):
        list(raw.find_collections(tmp_path))


@pytest.mark.parametrize(
    ("lang", "instruction"),
    [
        ("take the pot\nsecond annotator\n", "take the pot"),
        ("confidence: 0.9\n take it \n", "take it"),
        ("\n", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_the_instruction_is_the_first_line_that_is_no_confidence(tmp_path, lang, instruction):
    write_trajectory(tmp_path / NEW / "raw/traj_group0/traj0", cameras=(0,), lang=lang)
    ((found,),) = raw.find_collections(tmp_path)
    assert raw.read_trajectory(found).instruction == instruction


@pytest.mark.parametrize("count, train", [(1, 1), (2, 1), (5, 4), (10, 9), (25, 22)])
def test_a_tenth_of_each_dated_folder_is_val_and_the_same_every_time(count, train):
    made = [raw.RawTrajectory(Path(f"t{i}"), f"t{i}", datetime(2022, 1, 1)) for i in range(count)]
    first, again = raw.split_collection(made), raw.split_collection(made[::-1])
    assert first == again and len(first[0]) == train
    assert {one.name for part in first for one in part} == {one.name for one in made}


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda t: (t / "obs_dict.pkl").unlink(), "obs_dict.pkl: expected this file, got none"),
        (lambda t: (t / "policy_out.pkl").write_bytes(b"\x80\x04]"), "policy_out.pkl: .*pickle"),
        (lambda t: (t / "policy_out.pkl").write_bytes(pickle.dumps([])), "a list of actions"),
        (lambda t: (t / "policy_out.pkl").write_bytes(pickle.dumps([{"a": 1}])), "`actions`"),
        (lambda t: (t / "obs_dict.pkl").write_bytes(pickle.dumps({})), "expected full_state"),
        (lambda t: store(t, full_state=np.zeros((6, 6))), r"full_state: .* got \(6, 6\) float64"),
        (lambda t: store(t, full_state=np.full((6, 7), np.nan)), "full_state: .* finite"),
        (lambda t: store(t, full_state=np.zeros((5, 7))), "one more picture .* 'full_state': 5"),
        (lambda t: (t / "images1" / "im_5.jpg").unlink(), "one more picture .* 'images1': 5"),
        (lambda t: (t / "images1" / "im_2.jpg").unlink(), "images1: expected im_0.jpg and all"),
        (lambda t: (t / "images0").rename(t / "other"), "images0: expected im_0.jpg and all"),
        (lambda t: (t / "images0" / "im_2.jpg").write_bytes(b"no"), "im_2.jpg: expected a picture"),
    ],
)
def test_a_damaged_trajectory_is_left_out_with_its_reason(trajectory, harm, message):
    harm(trajectory[0].folder)
    with pytest.raises(raw.DamagedTrajectoryError, match=message):
        raw.read_trajectory(trajectory[0])


def store(folder, **observed):
    (folder / "obs_dict.pkl").write_bytes(pickle.dumps(observed))


# ---------------------------------------------------------------- pickles


def load(tmp_path, content):
    file = tmp_path / "some.pkl"
    file.write_bytes(content)
    return plain.load_plain_pickle(file)


@pytest.mark.parametrize("protocol", range(2, 6))
def test_plain_values_and_arrays_come_back(tmp_path, protocol):
    value = {
        "array": np.arange(12.0).reshape(3, 4),
        "fortran": np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
        "swapped": np.arange(3, dtype=">f4"),
        "empty": np.zeros((0, 7)),
        "number": np.float32(1.5),
        "list": [1, "a", b"b", None, True, (2, 3)],
        "mask": np.array([True, False]),
    }
    again = load(tmp_path, pickle.dumps(value, protocol=protocol))
    assert again["list"] == value["list"] and again.keys() == value.keys()
    for name in value.keys() - {"list"}:
        np.testing.assert_array_equal(again[name], value[name])
        assert again[name].dtype.newbyteorder("=") == value[name].dtype.newbyteorder("=")


def test_arrays_of_numpy_1_are_read(tmp_path):
    old = pickle.dumps([np.arange(3.0)], protocol=2).replace(b"numpy._core", b"numpy.core")
    (again,) = load(tmp_path, old)
    np.testing.assert_array_equal(again, np.arange(3.0))


def test_arrays_of_other_things_than_numbers_are_none(tmp_path):
    assert (
        load(tmp_path, pickle.dumps([np.array(["a"]), np.array([{}], dtype=object)])) == [None] * 2
    )


class Hostile:
    def __init__(self, function, *args):
        self.made = function, args

    def __reduce__(self):
        return self.made


@pytest.mark.parametrize(
    "function",
    [os.mkdir, os.system, eval, exec, getattr, __import__, subprocess.run, np.load, np.save,
     np.memmap, np.lib.format.open_memmap, importlib.import_module, Path],
)  # fmt: skip
def test_no_other_name_is_loaded_wherever_it_stands(tmp_path, function):
    mark = tmp_path / "mark"
    for value in (Hostile(function, str(mark)), [{"actions": Hostile(function, str(mark))}]):
        with pytest.raises(plain.UnsafePickleError, match=r"some\.pkl: expected arrays and plain"):
            load(tmp_path, pickle.dumps(value))
    assert not mark.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"cnumpy\ndtype\n}b.",  # changes what a name stands for
        b"cnumpy.core.multiarray\n_reconstruct\nN}\x8c\x01a\x8c\x01bs\x86b.",
        b"Psomething\n.",  # refers to something outside
        b"cnumpy.core.multiarray\n_reconstruct.__globals__\n.",
        b"c_codecs\nencode\n(\x8c\x01a\x8c\x04zlibtR.",
    ],
)
def test_what_only_a_forger_writes_is_refused(tmp_path, content):
    with pytest.raises(plain.UnsafePickleError):
        load(tmp_path, content)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no pickle",
        pickle.dumps(np.arange(100.0))[:-200],
        # An array that claims more numbers than it brings.
        pickle.dumps(np.arange(3.0), protocol=2).replace(b"K\x03\x85", b"K\x7f\x85"),
        pickle.dumps(np.arange(3.0), protocol=2).replace(b"K\x03\x85", b"N"),
    ],
)
def test_a_damaged_pickle_is_refused_by_name(tmp_path, content):
    with pytest.raises(ValueError, match=r"some\.pkl: expected a pickle of plain data, got"):
        load(tmp_path, content)


def test_a_small_pickle_does_not_become_a_large_value(tmp_path):
    value = [0]
    for _ in range(15):
        value = [value] * 50
    assert len(load(tmp_path, pickle.dumps(value))) == 50
    for _ in range(10):
        value = [value]
    with pytest.raises(ValueError, match="20 containers inside each other"):
        load(tmp_path, pickle.dumps(value))


# ---------------------------------------------------------------- both builders, in one process

BUILD = """
import sys
out, manual, datasets = sys.argv[1:]
sys.path.insert(0, datasets)
from canvas_robot.data.tensorflow_process import import_tfds
tfds = import_tfds()
tfds.disable_progress_bar()
from bridge_v2 import bridge_v2_dataset_builder as bridge
from widowx_sim import widowx_sim_dataset_builder as widowx
config = widowx.WidowXSimConfig(
    name="test", train_episodes=2, val_episodes=1, first_episode_id=7,
    speed_m=0.015, wander_m=0.003, rest_chance=0.04,
)
widowx.Builder(data_dir=out, config=config).download_and_prepare()
bridge.Builder(data_dir=out).download_and_prepare(
    download_config=tfds.download.DownloadConfig(manual_dir=manual)
)
"""


def run_python(*arguments, cwd):
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "MUJOCO_GL": "egl",
    }
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=environment,
        check=True,
        timeout=110,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of both data sets, each with a few episodes, and what the builders said."""
    out = tmp_path_factory.mktemp("built")
    manual = out / "manual"
    for number in range(3):
        write_trajectory(manual / "a" / NEW / "raw" / "traj_group0" / f"traj{number}", seed=number)
    write_trajectory(manual / "b" / OLD / "raw/traj_group0/traj0", cameras=(0,), lang=None, seed=9)
    (manual / "a" / NEW / "raw" / "traj_group0" / "traj2" / "obs_dict.pkl").unlink()
    return out, run_python("-c", BUILD, out, manual, DATASETS, cwd=out).stderr


def without_texts(path):
    """features.json without descriptions, and with pictures of one size."""

    def cleaned(node):
        if not isinstance(node, dict):
            return node
        kept = {key: cleaned(value) for key, value in node.items() if key != "description"}
        return kept | {"shape": "of the picture"} if "encodingFormat" in node else kept

    return cleaned(json.loads(path.read_text()))


@pytest.mark.parametrize("name", ["widowx_sim/test/1.1.0", "bridge_v2/1.0.0"])
def test_the_features_are_those_of_bridge_v2_but_for_the_pictures_size(built, bridge_sample, name):
    made = built[0] / name / "features.json"
    assert without_texts(made) == without_texts(bridge_sample / "features.json")
    assert made.read_text().replace(" ", "").replace("\n", "").count('["256","256","3"]') == 4


def test_demonstrations_are_those_of_the_expert_and_all_succeed(built):
    from canvas_robot.evaluation.rollouts import record_rollout
    from canvas_robot.sim.experts import ReachExpert, UnsteadyExpert
    from canvas_robot.sim.registration import REACH_ID, register

    register()
    env = gymnasium.make(REACH_ID)
    expert = UnsteadyExpert(ReachExpert(speed_m=0.015), wander_m=0.003, rest_chance=0.04)
    folder = built[0] / "widowx_sim" / "test"
    splits = {"train": range(7, 9), "val": range(1_000_007, 1_000_008)}
    for split, ids in splits.items():
        made = [record_rollout(env, expert, episode_id) for episode_id in ids]
        stored = list(BridgeV2(folder, split=split))
        assert len(stored) == len(made) and all(rollout.success for rollout in made)
        for rollout in made:
            (same,) = [e for e in stored if np.array_equal(e.states, rollout.episode.states)]
            assert same.instruction == rollout.episode.instruction
            np.testing.assert_array_equal(same.actions, rollout.episode.actions)
            assert np.abs(same.images.astype(int) - rollout.episode.images).mean() < 3
    env.close()


def test_raw_recordings_become_episodes_and_what_is_damaged_is_left_out(built):
    out, said = built
    folder = out / "bridge_v2"
    stored = [*BridgeV2(folder, split="train"), *BridgeV2(folder, split="val")]
    assert sorted(len(episode) for episode in stored) == [STEPS - 1, STEPS, STEPS]
    assert "traj2/obs_dict.pkl: expected this file, got none" in said
    assert "left out 1 of " in said
    new = next(episode for episode in stored if len(episode) == STEPS)
    assert new.instruction == "put the carrot on the plate"
    old = next(episode for episode in stored if len(episode) < STEPS)
    assert old.instruction == ""


def test_every_camera_is_stored_and_those_that_were_not_there_are_black(built):
    folder = built[0] / "bridge_v2"
    for split in ("train", "val"):
        seen = [list(BridgeV2(folder, split=split, camera=f"image_{k}")) for k in range(4)]
        for cameras in zip(*seen, strict=True):
            lit = [bool(episode.images.any()) for episode in cameras]
            second = len(cameras[0]) == STEPS  # the old one has one camera
            assert lit == [True, second, False, False]


@pytest.mark.slow
def test_a_hostile_pickle_stops_the_build(tmp_path):
    folder = tmp_path / NEW / "raw" / "traj_group0" / "traj0"
    write_trajectory(folder, cameras=(0,))
    mark = tmp_path / "mark"
    (folder / "policy_out.pkl").write_bytes(pickle.dumps([Hostile(os.mkdir, str(mark))]))
    with pytest.raises(subprocess.CalledProcessError) as error:
        run_python(
            DATASETS / "tfds_build.py", "--data_dir", tmp_path / "out", "--manual_dir", tmp_path,
            cwd=DATASETS / "bridge_v2",
        )  # fmt: skip
    assert "UnsafePickleError" in error.value.stderr and not mark.exists()


@pytest.mark.slow
def test_the_build_command_works_in_the_data_sets_folder(tmp_path):
    config = {"name": "tiny", "train_episodes": 2, "val_episodes": 1}
    run_python(
        "../tfds_build.py", "--data_dir", tmp_path, "--config", json.dumps(config),
        cwd=DATASETS / "widowx_sim",
    )  # fmt: skip
    folder = tmp_path / "widowx_sim" / "tiny"
    assert [len(BridgeV2(folder, split=split)) for split in ("train", "val")] == [2, 1]
