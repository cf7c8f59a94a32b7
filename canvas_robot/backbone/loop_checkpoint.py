"""Loop checkpoints: what a graft trains, and its action head, in one safetensors file.

Files are opened in loop_files.py; a whole policy's checkpoint folder is policy/checkpoint.py. The
backbone is in neither.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from canvas_robot.backbone.freeze import is_looped
from canvas_robot.backbone.loop_files import (
    FACTS,
    FORMAT,
    LoopCheckpointError,
    joined,
    read_loop_file,
    shape_facts,
)
from canvas_robot.backbone.looped_block import LoopedCogVideoXBlock
from canvas_robot.backbone.looped_wrapper import LoopedBlockWrapper
from canvas_robot.backbone.loops import GATES

OVERHEAD = 16 << 20  # bytes that a file may have beyond its tensors: header, metadata
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def save_loop_checkpoint(
    blocks: Sequence[nn.Module],
    action_head: nn.Module,
    path: str | Path,
    metadata: dict | None = None,
    *,
    backbone_sha256: str | None = None,
    schema_sha256: str | None = None,
) -> None:
    """Writes the loop parameters, whatever else of the blocks trains, and the head.

    The file is safetensors whatever its suffix, and replaces an older one only when it is whole.
    Metadata (JSON values) goes into its header and, where not empty, beside it with the
    suffix .json.

    Args:
        blocks: looped blocks, as graft_looped_blocks returns them.
        action_head: its state goes along.
        path: missing folders are made.
        backbone_sha256, schema_sha256: fingerprints that loading can ask for.
    Raises:
        LoopCheckpointError: a block that is not looped, numbers that are not finite, or metadata
            for a path that ends in .json. Nothing has been written then.
        TypeError: metadata that is no dict or that JSON cannot hold.
    """
    path = Path(path)
    beside = path.with_suffix(".json")
    if not isinstance(metadata, dict | None):
        raise TypeError(f"metadata: expected a dict or None, got a {type(metadata).__name__}")
    if metadata and beside == path:
        raise LoopCheckpointError(
            f"{path}: expected another suffix than .json, where the metadata goes"
        )
    hashes = {"backbone_sha256": backbone_sha256, "schema_sha256": schema_sha256}
    header = {
        "format": FORMAT,
        **_facts(blocks),
        **{name: value for name, value in hashes.items() if value is not None},
        "metadata": json.dumps(metadata or {}),
    }
    targets = {**_trained(blocks), **_head_state(action_head)}
    tensors = {name: t.detach().cpu().clone().contiguous() for name, t in targets.items()}
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise LoopCheckpointError(
                f"{path}: {name}: expected finite numbers to save, has NaN or infinity; "
                "has training diverged? go back to an earlier checkpoint"
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, lambda part: save_file(tensors, part, metadata=header))
    if metadata:
        text = json.dumps(metadata, indent=2)
        _replace(beside, lambda part: part.write_text(text, encoding="utf-8"))


def load_loop_checkpoint(
    blocks: Sequence[nn.Module],
    action_head: nn.Module,
    path: str | Path,
    *,
    backbone_sha256: str | None = None,
    schema_sha256: str | None = None,
) -> dict:
    """Loads a loop checkpoint into blocks and head, whole or not at all; returns its metadata.

    A file of canvas-engineering 0.1.0 fits blocks of gate "sigmoid" only and has no metadata.

    What is frozen stays as it is, loop parameters excepted: a file with other parameters of the
    blocks fits a graft that trains them (freeze "half" or "none").

    Args:
        blocks, action_head: as they were when the file was saved.
        backbone_sha256, schema_sha256: where given, the file has to hold the same.
    Raises:
        LoopCheckpointError: unreadable, truncated or far too large; another number of blocks, loop
            count, width, gate, head or fingerprint; missing, unknown, misshapen or non-finite
            tensors, or such as are too large for the parameter; tensors of frozen parameters.
            Nothing has been changed then.
        FileNotFoundError: there is no such file.
    """
    path = Path(path)
    parameters = {
        f"blocks.{i}.{name}": parameter
        for i, block in enumerate(blocks)
        for name, parameter in block.named_parameters()
    }
    head = _head_state(action_head)
    targets = {**parameters, **head}
    asked = {"backbone_sha256": backbone_sha256, "schema_sha256": schema_sha256}
    expected = {**_facts(blocks), **{k: v for k, v in asked.items() if v is not None}}

    content = read_loop_file(path, limit=OVERHEAD + sum(8 * t.numel() for t in targets.values()))
    _require_same_facts(path, expected, content.facts)
    loop_names = set(_loop_names(blocks))
    _require_same_shapes(path, {*loop_names, *head}, targets, content.shapes)
    frozen = {n for n, p in parameters.items() if not p.requires_grad} - loop_names
    _require_trained(path, sorted(frozen.intersection(content.shapes)))
    tensors = {name: content.read(name) for name in content.shapes}
    for name, tensor in tensors.items():
        _require_usable(f"{path}: {name}", targets[name], tensor)
    with torch.no_grad():
        for name, tensor in tensors.items():
            targets[name].copy_(tensor)
    return content.metadata


def _facts(blocks: Sequence[nn.Module]) -> dict[str, str]:
    """Keys of FACTS that blocks have; several values are joined in the blocks' order."""
    for i, block in enumerate(blocks):
        if not is_looped(block):
            raise LoopCheckpointError(
                f"blocks[{i}]: expected a looped block, got a {type(block).__name__}; "
                "pass the blocks that graft_looped_blocks returns"
            )
    shapes = [b.loop_emb.shape for b in blocks if "loop_emb" in b.loop_parameter_names]
    gates = [b.gate for b in blocks if isinstance(b, LoopedBlockWrapper | LoopedCogVideoXBlock)]
    return {"blocks": str(len(blocks)), **shape_facts(shapes), **joined("gate", gates)}


def _loop_names(blocks: Sequence[nn.Module]) -> list[str]:
    return [f"blocks.{i}.{n}" for i, b in enumerate(blocks) for n in b.loop_parameter_names]


def _trained(blocks: Sequence[nn.Module]) -> dict[str, torch.Tensor]:
    """The loop parameters, and what else of the blocks trains (freeze "half" and "none")."""
    return {
        f"blocks.{i}.{name}": parameter
        for i, block in enumerate(blocks)
        for name, parameter in block.named_parameters()
        if parameter.requires_grad or name in block.loop_parameter_names
    }


def _head_state(action_head: nn.Module) -> dict[str, torch.Tensor]:
    return {f"action_head.{name}": tensor for name, tensor in action_head.state_dict().items()}


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a file beside `path` and puts it in its place when it is whole and on disk."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(part)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _require_same_facts(path: Path, expected: dict[str, str], found: dict[str, str]) -> None:
    differences = [
        f"{FACTS[key]}: the file has {found.get(key, 'none')}, expected {value}"
        for key, value in expected.items()
        if found.get(key) != value
    ]
    if differences:
        gate = found.get("gate")
        remedy = (
            f"graft with gate={gate!r}"
            if gate in GATES and expected.get("gate") not in (None, gate)
            else "load it into the graft that it was saved from"
        )
        raise LoopCheckpointError(
            f"{path}: saved from another graft: {'; '.join(differences)}; {remedy}"
        )


def _require_same_shapes(
    path: Path,
    required: set[str],
    targets: dict[str, torch.Tensor],
    found: dict[str, tuple[int, ...]],
) -> None:
    problems = [f"{name}: missing" for name in sorted(required - set(found))]
    problems += [f"{name}: unknown" for name in sorted(set(found) - set(targets))]
    problems += [
        f"{name}: expected shape {tuple(targets[name].shape)}, got {shape}"
        for name, shape in sorted(found.items())
        if name in targets and targets[name].shape != shape
    ]
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise LoopCheckpointError(f"{path}: {'; '.join(problems[:5])}{more}")


def _require_trained(path: Path, frozen: list[str]) -> None:
    if frozen:
        more = f" and {len(frozen) - 1} more" if len(frozen) > 1 else ""
        raise LoopCheckpointError(
            f"{path}: {frozen[0]}{more}: expected no tensor of a parameter that is frozen here; "
            "load it into a graft with the freeze that it was saved from ('half' or 'none')"
        )


def _require_usable(where: str, target: torch.Tensor, tensor: torch.Tensor) -> None:
    """Numbers that the target can hold, all finite."""
    if tensor.layout != torch.strided or (
        tensor.dtype != target.dtype
        and not (tensor.dtype in FLOATS and target.dtype.is_floating_point)
    ):
        raise LoopCheckpointError(
            f"{where}: expected a dense tensor of {target.dtype}, got {tensor.dtype}"
        )
    if not torch.isfinite(tensor.to(target.dtype)).all():
        raise LoopCheckpointError(
            f"{where}: expected finite numbers of {target.dtype}, got NaN, infinity or one beyond "
            "its range"
        )
