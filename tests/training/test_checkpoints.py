"""Laws of checkpoint folders: whole or not there, the newest kept, all else refused by name."""

import json

import pytest

from canvas_robot.training.checkpoints import (
    MANIFEST,
    CheckpointFileError,
    CheckpointFolders,
    Manifest,
    verified,
)


@pytest.fixture
def folders(tmp_path):
    return CheckpointFolders(tmp_path / "checkpoints", keep=2)


def write(folders, step):
    part = folders.begin(step)
    (part / "weights").write_bytes(bytes([step % 256]) * 100)
    manifest = Manifest(step=step, processes=1, data_fingerprint="f", gradient_checkpointing=False)
    return folders.finish(step, manifest)


def test_only_the_newest_are_kept(folders):
    for step in (1, 20, 3_000, 400_000):
        write(folders, step)
    assert folders.steps() == [3_000, 400_000]
    assert folders.newest() == folders.folder(400_000)
    assert sorted(path.name for path in folders.root.iterdir()) == [
        "step_00003000",
        "step_00400000",
    ]


def test_without_any_there_is_no_newest(folders):
    assert folders.steps() == [] and folders.newest() is None


def test_a_crash_while_writing_leaves_the_older_one_in_use(folders):
    write(folders, 1)
    part = folders.begin(2)
    (part / "weights").write_bytes(b"half of i")
    assert folders.newest() == folders.folder(1)
    verified(folders.newest(), ["weights"])
    write(folders, 2)  # what the crash left is in nobody's way
    assert folders.steps() == [1, 2]


def test_a_crash_while_an_old_one_is_removed_leaves_the_newer_ones_in_use(folders):
    write(folders, 5)
    write(folders, 6)
    folders.folder(5).rename(folders.root / ".step_00000005.gone")
    assert folders.steps() == [6]
    folders.sweep()
    assert [path.name for path in folders.root.iterdir()] == ["step_00000006"]


def test_what_was_written_is_verified(folders):
    manifest = verified(write(folders, 7), ["weights"])
    assert (manifest.step, manifest.processes, list(manifest.files)) == (7, 1, ["weights"])


def damage(name):
    """Functions that damage a checkpoint, by what they do."""

    def edit(folder, **changes):
        data = json.loads((folder / MANIFEST).read_text()) | changes
        (folder / MANIFEST).write_text(json.dumps(data))

    return {
        "truncated": lambda f: (f / "weights").write_bytes(b"\x07" * 99),
        "changed": lambda f: (f / "weights").write_bytes(b"\x08" * 100),
        "missing": lambda f: (f / "weights").unlink(),
        "more": lambda f: (f / "custom_checkpoint_0.pkl").write_bytes(b""),
        "no manifest": lambda f: (f / MANIFEST).unlink(),
        "broken manifest": lambda f: (f / MANIFEST).write_text("{"),
        "strange manifest": lambda f: edit(f, weights="here"),
        "newer": lambda f: edit(f, format=2),
        "another step": lambda f: edit(f, step=8),
        "a path": lambda f: edit(f, files={"../weights": {"bytes": 1, "sha256": "0"}}),
    }[name]


@pytest.mark.parametrize(
    "how, said",
    [
        ("truncated", r"weights: expected 100 bytes, got 99; remove .*step_00000007 to go on from"),
        ("changed", "weights: its contents are not those that were written"),
        ("missing", "weights: missing"),
        ("more", "custom_checkpoint_0.pkl: is not of this checkpoint"),
        ("no manifest", "expected a checkpoint"),
        ("broken manifest", "checkpoint.json: "),
        ("strange manifest", "unknown field `weights`"),
        ("newer", "expected format 1, got 2"),
        ("another step", "expected the step of its folder's name, got 8"),
        ("a path", r"\.\./weights: missing"),
    ],
)
def test_what_was_not_written_is_refused_by_name(folders, how, said):
    folder = write(folders, 7)
    damage(how)(folder)
    with pytest.raises(CheckpointFileError, match=said):
        verified(folder, ["weights"])
