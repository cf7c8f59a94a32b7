"""Freezing: which parameters of a model train, chosen by module and never by part of a name."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

INPUT_EMBEDDINGS = ("patch_embed", "pos_embedding")  # what freeze_half freezes


class FreezeError(ValueError):
    """A model has nothing that this freeze set could freeze."""


def freeze_full(model: nn.Module) -> int:
    """Freezes all but the loop parameters of looped blocks, and lets those train.

    Returns the number of frozen parameters.
    """
    loops = {id(p) for p in loop_parameters(model)}
    return _freeze(model, {id(p) for p in model.parameters()} - loops)


def freeze_half(model: nn.Module) -> int:
    """Freezes patch embedding and position embedding only, and lets everything else train.

    They are the modules and parameters named exactly `patch_embed` or `pos_embedding`, at any
    depth. Returns the number of frozen parameters.

    Raises FreezeError when there are none: nothing would be frozen.
    """
    return _freeze(model, {id(p) for p in input_embeddings(model)})


def loop_parameters(model: nn.Module) -> Iterator[nn.Parameter]:
    """The loop parameters of all looped blocks in a model."""
    for module in model.modules():
        if is_looped(module):
            yield from (module.get_parameter(name) for name in module.loop_parameter_names)


def is_looped(module: nn.Module) -> bool:
    """Whether a module is a looped block: it names the parameters it adds to the one it wraps."""
    return "loop_parameter_names" in vars(module)


def input_embeddings(model: nn.Module) -> list[nn.Parameter]:
    """Parameters of the patch embedding and the position embedding; FreezeError without any."""
    found = [
        parameter
        for name, parameter in model.named_parameters()
        if not set(INPUT_EMBEDDINGS).isdisjoint(name.split("."))
    ]
    if not found:
        raise FreezeError(
            f"freeze 'half': expected {' or '.join(INPUT_EMBEDDINGS)} with parameters in a "
            f"{type(model).__name__}, found neither; use 'full' or 'none'"
        )
    return found


def _freeze(model: nn.Module, frozen: set[int]) -> int:
    count = 0
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) not in frozen)
        if id(parameter) in frozen:
            count += parameter.numel()
    return count
