"""Beginning a run with the weights of an exported checkpoint, region by region.

Codecs, head, edges and, where it trains, the transformer go on from there. What loops add is new:
another number of loops is another function.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from canvas_robot.backbone.freeze import is_looped
from canvas_robot.policy.model import CanvasModel, weight_owners
from canvas_robot.schema import CanvasSchema
from canvas_robot.signals import Binding, load_binding
from canvas_robot.training.training_state import read_weights


class BeginningError(ValueError):
    """A checkpoint cannot begin a run; the text says which file and what of it does not fit."""


@dataclass(frozen=True)
class Beginning:
    """What was taken: names of the run's weights; `fresh`: those that stay as they were drawn."""

    taken: tuple[str, ...]
    fresh: tuple[str, ...]


def begin_from(
    model: CanvasModel, schema: CanvasSchema, binding: Binding, folder: str | Path
) -> Beginning:
    """Puts a checkpoint's weights into the model where both have the same region and part.

    Args:
        model, schema, binding: of the run that begins.
        folder: written by `canvas-robot export`.
    Raises:
        BeginningError: it is no checkpoint, nothing of it fits, or weights of the same part have
            another shape or are not finite. CheckpointFileError: its weights are damaged.
    """
    folder = Path(folder).expanduser()
    names = ("schema.json", "binding.yaml", "weights.safetensors")
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise BeginningError(
            f"start_from: expected a checkpoint's folder, as `canvas-robot export` writes it; "
            f"{folder} lacks {', '.join(missing)}"
        )
    theirs = weight_owners(
        CanvasSchema.from_json(folder / "schema.json"), load_binding(folder / "binding.yaml")
    )
    found = {
        _spoken(name, theirs): tensor
        for name, tensor in read_weights(folder / "weights.safetensors").items()
    }
    ours, looped = weight_owners(schema, binding), _loop_names(model)
    taken, fresh = [], []
    with torch.no_grad():
        for name, parameter in model.own_parameters().items():
            tensor = found.get(_spoken(name, ours))
            if tensor is None or name in looped:
                fresh.append(name)
                continue
            _require_fit(folder, name, tensor, parameter)
            parameter.copy_(tensor)
            taken.append(name)
    if not taken:
        raise BeginningError(
            f"start_from: {folder}: no weight of it is one of this run: expected regions and "
            f"codecs in common with schema and binding, its regions are {sorted(theirs.values())}"
        )
    return Beginning(tuple(taken), tuple(fresh))


def _spoken(name: str, owners: dict[str, str]) -> str:
    """A weight's name with its region in place of the number that the schema gives it."""
    owner = next((prefix for prefix in owners if f"{name}.".startswith(f"{prefix}.")), None)
    if owner is None:
        return name
    kind = owner.rstrip("0123456789")  # codecs.vector_, canvas.modality.
    return f"{kind}{owners[owner]!r}{name.removeprefix(owner)}"


def _loop_names(model: CanvasModel) -> set[str]:
    return {
        f"{path}.{name}"
        for path, module in model.named_modules()
        if is_looped(module)
        for name in module.loop_parameter_names
    }


def _require_fit(
    folder: Path, name: str, tensor: torch.Tensor, parameter: torch.nn.Parameter
) -> None:
    if tensor.shape != parameter.shape:
        raise BeginningError(
            f"start_from: {folder}: {name}: expected shape {tuple(parameter.shape)}, got "
            f"{tuple(tensor.shape)}; begin with a checkpoint of the same codecs and width"
        )
    if not torch.isfinite(tensor).all():
        raise BeginningError(f"start_from: {folder}: {name}: expected finite weights")
