"""What a forward pass keeps for the backward pass, counted on any device."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks


def saved_bytes(run: Callable[[], object], known: Iterable[torch.Tensor]) -> int:
    """Bytes of the different storages that `run` keeps for a backward pass.

    Args:
        run: returns what holds the graph.
        known: tensors whose storages do not count: weights and inputs.
    """
    counted = {tensor.untyped_storage().data_ptr() for tensor in known}
    kept: dict[int, torch.UntypedStorage] = {}  # held, lest an address come twice

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in counted:
            kept[storage.data_ptr()] = storage
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        graph = run()
    total = sum(storage.nbytes() for storage in kept.values())
    del graph
    return total


def tensor_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of the different storages of some tensors."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def weights_of(module: nn.Module) -> list[torch.Tensor]:
    """All parameters and buffers."""
    return list(chain(module.parameters(), module.buffers()))
