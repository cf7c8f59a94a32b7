"""Laws of a file that is to be written: it can be, or is refused before the work."""

import os

import pytest

from canvas_robot.destinations import ready_file


def test_the_folders_above_are_made(tmp_path):
    path = tmp_path / "a" / "b" / "c.json"
    assert ready_file(path) == path and path.parent.is_dir() and not path.exists()


def test_what_may_not_be_written_is_told_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may all
    for path in (tmp_path / "new.json", tmp_path / "a" / "new.json"):
        with pytest.raises(PermissionError, match="expected a file that may be written, got no"):
            ready_file(path)


def test_none_is_none():
    assert ready_file(None) is None


def test_a_folder_is_no_file_to_write(tmp_path):
    with pytest.raises(IsADirectoryError, match=f"{tmp_path}: expected a file to write, got a fol"):
        ready_file(tmp_path)


def test_a_file_is_no_folder_to_write_in(tmp_path):
    (tmp_path / "a").write_text("x")
    for path in (tmp_path / "a" / "b.json", tmp_path / "a" / "b" / "c.json"):
        with pytest.raises(NotADirectoryError, match="of which a part is a file; write elsewhere"):
            ready_file(path)
