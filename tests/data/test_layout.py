"""A data set's layout is known by its features, whatever it is called, or it is refused."""

import json

import pytest

from canvas_robot.data.layout import BridgeDataError, Column, read_layout


def test_the_published_features_are_recognised(bridge_sample):
    layout = read_layout(bridge_sample)
    assert layout.name == "Bridge V2 1.0.0"
    assert layout.cameras == ("image_0", "image_1", "image_2", "image_3")
    assert layout.action == (Column("steps/action", 7),)
    assert layout.picture_key("image_2") == "steps/observation/image_2"


def test_the_folders_name_says_nothing(bridge_sample, tmp_path):
    folder = tmp_path / "something_else" / "0.1.0"
    folder.mkdir(parents=True)
    (folder / "features.json").write_text((bridge_sample / "features.json").read_text())
    assert read_layout(folder) == read_layout(bridge_sample)


def test_an_action_in_three_parts_is_open_x_embodiments(write_features):
    layout = read_layout(write_features(**OXE))
    assert layout.name == "Open X-Embodiment bridge 0.1.0"
    assert [(column.size, column.flag) for column in layout.action] == [(3, 0), (3, 0), (1, 1)]
    assert layout.pictures == (
        ("image_0", "steps/observation/image"),
        ("image_1", "steps/observation/image_1"),
    )


def test_cameras_that_are_not_stored_are_not_offered(write_features):
    observation = {**BRIDGE["observation"], "image_1": picture(64, 64, 1)}
    layout = read_layout(write_features(**{**BRIDGE, "observation": observation}))
    assert layout.cameras == ("image_0",)
    with pytest.raises(BridgeDataError, match=r"expected one of \['image_0'\], got 'image_3'"):
        layout.picture_key("image_3")


class Leaf(dict):
    """A feature that holds no others."""


def tensor(*shape, dtype="float32"):
    dimensions = {"dimensions": [str(size) for size in shape]} if shape else {}
    return Leaf(tensor={"shape": dimensions, "dtype": dtype})


def picture(*shape):
    dimensions = {"dimensions": [str(size) for size in shape]}
    return Leaf(image={"shape": dimensions, "dtype": "uint8"})


TEXT = Leaf(text={})


BRIDGE = {
    "action": tensor(7),
    "observation": {"image_0": picture(64, 64, 3), "state": tensor(7)},
    "language_instruction": TEXT,
}
OXE = {
    "action": {
        "world_vector": tensor(3),
        "rotation_delta": tensor(3),
        "open_gripper": tensor(dtype="bool"),
        "terminate_episode": tensor(),
    },
    "observation": {
        "image": picture(480, 640, 3),
        "image_1": picture(480, 640, 3),
        "state": tensor(7),
        "natural_language_instruction": TEXT,
    },
}


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ({**BRIDGE, "action": tensor(8)}, r"steps/action: .* got \('float32', \(8,\)\)"),
        ({**BRIDGE, "action": tensor(7, dtype="float64")}, "steps/action: .* got .*float64"),
        ({**BRIDGE, "action": {"joints": tensor(7)}}, r"got \['steps/action/joints'\]"),
        ({**BRIDGE, "language_instruction": tensor(512)}, r"steps/language_instruction: expected"),
        ({**BRIDGE, "observation": {"state": tensor(7)}}, r"expected pictures .* got none"),
        ({}, r"steps/action: expected float32 \(7,\), got nothing; .*download bridge_dataset/1"),
        (
            {**OXE, "action": {"world_vector": tensor(3), "rotation_delta": tensor(3)}},
            r"steps/action/open_gripper: expected bool \(\), got nothing",
        ),
    ],
)
def test_other_features_are_refused_by_name(write_features, steps, message):
    with pytest.raises(BridgeDataError, match=message):
        read_layout(write_features(**steps))


@pytest.mark.parametrize("text", ["{", "[]", '{"featuresDict": {}}', '{"featuresDict": 3}'])
def test_a_file_without_features_is_refused(tmp_path, text):
    (tmp_path / "features.json").write_text(text)
    with pytest.raises(BridgeDataError, match=r"features\.json: expected the features|steps/act"):
        read_layout(tmp_path)


def test_features_of_other_packages_are_refused_for_tfds_would_import_them(write_features):
    odd = Leaf(tensor(7), pythonClassName="elsewhere.features.Action")
    with pytest.raises(BridgeDataError, match=r"tensorflow_datasets, got \['elsewhere.features"):
        read_layout(write_features(**{**BRIDGE, "action": odd}))


@pytest.fixture
def write_features(tmp_path):
    """A function that writes features.json for these step features and returns its folder."""

    def tree(node):
        if isinstance(node, Leaf):
            return node
        return {"featuresDict": {"features": {name: tree(child) for name, child in node.items()}}}

    def write(**steps):
        root = {"featuresDict": {"features": {"steps": {"sequence": {"feature": tree(steps)}}}}}
        (tmp_path / "features.json").write_text(json.dumps(root))
        return tmp_path

    return write
