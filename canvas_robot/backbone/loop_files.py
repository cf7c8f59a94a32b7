"""Opening loop checkpoint files: ours (safetensors) and canvas-engineering 0.1.0's (`torch.save`).

Both are read as data only: no file is ever executed. What is done with it is in loop_checkpoint.py.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

FORMAT = "canvas_robot loop checkpoint 1"
FACTS = {  # what has to agree, as header key and as a user calls it
    "blocks": "number of blocks",
    "max_loops": "loop count",
    "width": "width",
    "gate": "gate",
    "backbone_sha256": "backbone sha256",
    "schema_sha256": "schema sha256",
}


class LoopCheckpointError(ValueError):
    """A file is no loop checkpoint, or is not one for these blocks and this head."""


@dataclass(frozen=True)
class Content:
    """A file opened: what it says of itself, its tensors' shapes, and a function to read one."""

    facts: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    read: Callable[[str], torch.Tensor]
    metadata: dict


def read_loop_file(path: Path, limit: int) -> Content:
    """Opens a file of either kind, told apart by its first bytes."""
    with path.open("rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"  # what torch.save writes
    _require_size(path, path.stat().st_size, limit)
    return _read_saved_by_torch(path, limit) if is_zip else _read_safetensors(path)


def _require_size(path: Path, size: int, limit: int) -> None:
    if size > limit:
        raise LoopCheckpointError(
            f"{path}: expected at most {limit:,} bytes for these blocks and this head, "
            f"got {size:,}; it was not saved from them"
        )


def _read_safetensors(path: Path) -> Content:
    try:
        file = safe_open(path, framework="pt", device="cpu")
        header = file.metadata() or {}
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
    except SafetensorError as error:
        raise LoopCheckpointError(
            f"{path}: expected a loop checkpoint (safetensors, or torch.save's zip), whole; {error}"
        ) from error
    if header.get("format") != FORMAT:
        raise LoopCheckpointError(
            f"{path}: expected format {FORMAT!r} in the header, got {header.get('format')!r}; "
            "it is another kind of file, or of a newer canvas_robot"
        )
    try:
        metadata = json.loads(header.get("metadata", "{}"))
    except (ValueError, RecursionError) as error:
        raise LoopCheckpointError(f"{path}: metadata: expected JSON; {error}") from error
    if not isinstance(metadata, dict):
        raise LoopCheckpointError(
            f"{path}: metadata: expected an object, got a {type(metadata).__name__}"
        )
    facts = {key: header[key] for key in FACTS if key in header}
    return Content(facts, shapes, file.get_tensor, metadata)


def _read_saved_by_torch(path: Path, limit: int) -> Content:
    """A canvas-engineering file: {"loop_blocks": {"block_0": {...}, ...}, "action_head": {...}}."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise LoopCheckpointError(f"{path}: expected a whole file; {error}") from error
    _require_size(path, size, limit)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile file can make it raise anything
        # Its text stays out: torch's advises to load the file with its code, if you trust it.
        raise LoopCheckpointError(
            f"{path}: expected tensors and nothing executable; torch's reader of weights alone "
            f"refuses the file ({type(error).__name__}); do not load it by other means"
        ) from error
    blocks, head = _sections(path, state)
    tensors = {
        **{f"blocks.{i}.{name}": t for i, block in enumerate(blocks) for name, t in block.items()},
        **{f"action_head.{name}": tensor for name, tensor in head.items()},
    }
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor) or tensor.device.type != "cpu":
            raise LoopCheckpointError(
                f"{path}: {name}: expected a tensor with data, got {type(tensor).__name__}"
            )
    shapes = [tuple(block["loop_emb"].shape) for block in blocks if "loop_emb" in block]
    facts = {"blocks": str(len(blocks)), "gate": "sigmoid", **shape_facts(shapes)}
    return Content(facts, {n: tuple(t.shape) for n, t in tensors.items()}, tensors.get, {})


def _sections(path: Path, state: object) -> tuple[list[dict], dict]:
    """The blocks' tensors in order, and the head's."""
    sections = state if isinstance(state, dict) else {}
    blocks, head = sections.get("loop_blocks"), sections.get("action_head")
    if isinstance(blocks, dict) and isinstance(head, dict):
        ordered = [blocks.get(f"block_{i}") for i in range(len(blocks))]
        if all(isinstance(block, dict) for block in ordered):
            return ordered, head
    raise LoopCheckpointError(
        f"{path}: expected a canvas-engineering loop checkpoint with loop_blocks (block_0, ...) "
        f"and action_head, got {sorted(map(str, sections)) or type(state).__name__}"
    )


def shape_facts(shapes: Sequence[tuple[int, ...]]) -> dict[str, str]:
    """max_loops and width, from the shapes of the blocks' loop_emb."""
    if not all(len(shape) == 2 for shape in shapes):
        return {}
    return {
        **joined("max_loops", [loops for loops, _ in shapes]),
        **joined("width", [width for _, width in shapes]),
    }


def joined(key: str, values: Sequence[object]) -> dict[str, str]:
    """{key: the value, or all in order where they differ}; {} of no values."""
    distinct = values[:1] if len(set(values)) == 1 else values
    return {key: ", ".join(map(str, distinct))} if values else {}
