"""Fingerprints of weights: one sha256 per part, streamed tensor by tensor.

They are of the weights as stored (in files) or as drawn (from a seed), before any cast or
quantisation: a policy trained on bfloat16 weights finds its backbone again in float32 or int8.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from canvas_robot.backbone.configuration import BackboneError


def digest_of(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    """sha256 over names, dtypes, shapes and bytes, in the order given; sort them by name."""
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def digest_of_module(module: nn.Module) -> str:
    """Of what the module would save: each weight once, however many names it has."""
    once = dict(module.named_parameters()) | dict(module.named_buffers())
    state = module.state_dict()
    return digest_of((name, state[name]) for name in sorted(set(once) & set(state)))


def digest_of_files(files: Sequence[Path]) -> str:
    """Of safetensors files; how the weights are spread over them does not matter.

    Raises BackboneError, naming the file, for one that is no safetensors file.
    """
    with ExitStack() as stack:
        place = {}
        for path in files:
            try:
                opened = stack.enter_context(safe_open(path, framework="pt"))
            except (SafetensorError, OSError) as error:
                raise BackboneError(f"{path}: expected a safetensors file, got {error}") from error
            place |= dict.fromkeys(opened.keys(), opened)
        return digest_of((name, place[name].get_tensor(name)) for name in sorted(place))
