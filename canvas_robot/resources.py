"""Finding the files that ship with the package.

They lie in config/ beside the checkout, or under the prefix's share folder.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent

DEMO = "demo"
"""In place of a checkpoint's folder: the trained policy that ships with the package."""
DEMO_FOLDER = _PACKAGE / "demo_checkpoint"


def config_root() -> Path:
    """The config folder; raises FileNotFoundError naming every place that was searched."""
    prefixes = [*map(str, _PACKAGE.parents), sys.prefix]
    prefixes += os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    candidates = [_PACKAGE.parent / "config"]
    candidates += [Path(prefix, "share", "canvas_robot", "config") for prefix in prefixes if prefix]
    for candidate in candidates:
        if (candidate / "schemas").is_dir():
            return candidate
    raise FileNotFoundError(
        f"config folder of canvas_robot: searched {[str(c) for c in dict.fromkeys(candidates)]}"
    )


def config_path(kind: str, name: str) -> Path:
    """Path of a shipped file such as ("schemas", "widowx_tiny.json").

    Raises FileNotFoundError with the names there are.
    """
    folder = config_root() / kind
    names = sorted(path.name for path in folder.glob("*")) if folder.is_dir() else []
    if name not in names:
        raise FileNotFoundError(f"{kind}/{name}: not in {folder}; there are {names}")
    return folder / name


def resolve_config(kind: str, reference: str) -> Path:
    """A user's path if it exists, else the shipped file of that name; raises FileNotFoundError."""
    path = Path(reference).expanduser()
    if path.is_file():
        return path
    folder = config_root() / kind
    if path.name != reference:
        names = sorted(shipped.name for shipped in folder.glob("*"))
        raise FileNotFoundError(f"{reference}: no such file; by name there are {names}")
    named = [reference, *(f"{reference}{ending}" for ending in (".yaml", ".json"))]
    return config_path(kind, next((n for n in named if (folder / n).is_file()), reference))


def checkpoint_folder(reference: str | Path) -> Path:
    """A user's folder, or that of the shipped policy, which is called `demo`."""
    return DEMO_FOLDER if str(reference) == DEMO else Path(reference).expanduser()


def schema_path(reference: str) -> Path:
    """A schema's file: a user's path, or the name of a shipped one with or without .json.

    Raises FileNotFoundError with the names there are, IsADirectoryError for a folder.
    """
    path = Path(reference).expanduser()
    if path.exists() and not path.is_dir():
        return path
    shipped = {file.stem: file for file in sorted((config_root() / "schemas").glob("*.json"))}
    name = reference.removesuffix(".json")
    if name not in shipped:
        if reference and path.is_dir():
            raise IsADirectoryError(f"{reference}: expected a schema's file, got a folder")
        raise FileNotFoundError(
            f"{reference or repr('')}: no such file, and no shipped schema of that name; "
            f"there are {', '.join(shipped)}"
        )
    return shipped[name]
