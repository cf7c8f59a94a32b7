"""Where a file is to be written: looked at before the work whose result it takes."""

from __future__ import annotations

import os
from pathlib import Path


def ready_file(path: Path | None) -> Path | None:
    """The path of a file that can be made; the folders above it are there when this returns.

    None is none: for options of commands that may be left out.

    Raises:
        IsADirectoryError: it is a folder.
        NotADirectoryError: something above it is a file.
        PermissionError: it, or the folder that it would be in, may not be written.
    """
    if path is None:
        return None
    if path.is_dir():
        raise IsADirectoryError(f"{path}: expected a file to write, got a folder; name a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise NotADirectoryError(
            f"{path}: expected a file in a folder, got {path.parent}, of which a part is a file; "
            "write elsewhere"
        ) from error
    except PermissionError as error:
        raise _not_allowed(path) from error
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise _not_allowed(path)
    return path


def _not_allowed(path: Path) -> PermissionError:
    return PermissionError(
        f"{path}: expected a file that may be written, got no permission to; write elsewhere, or "
        "have its folder made writable"
    )
