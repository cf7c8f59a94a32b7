"""StaticModule: a module whose buffers hold what the declaration fixes. What they say is elsewhere.

They are made on the CPU, whatever the default device: making them reads numbers back.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


class StaticModule(nn.Module):
    """Its buffers move with it, but keep their numbers and dtype, and are never saved.

    So `float`, `half` and `to_empty`, which empties parameters, do not touch them. While the module
    is on the meta device, which holds no numbers, they are also kept where they were before.
    """

    def __init__(self) -> None:
        super().__init__()
        self._off_meta: dict[str, torch.Tensor] = {}  # those whose buffers are on the meta device

    def keep_static(self, **tensors: torch.Tensor | None) -> None:
        """Registers tensors by name; None where there is nothing to keep.

        They go where parameters are being made; while that is the meta device, which holds no
        numbers, they stay on the CPU.
        """
        device = torch.get_default_device()
        for name, tensor in tensors.items():
            if tensor is not None and device.type != "meta":
                tensor = tensor.to(device)
            self.register_buffer(name, tensor, persistent=False)

    def _apply(
        self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True
    ) -> StaticModule:
        """What all of nn.Module's conversions go through."""
        kept = {name: tensor for name, tensor in self._buffers.items() if tensor is not None}
        kept |= self._off_meta
        super()._apply(fn, recurse)
        self._off_meta = {}
        for name, tensor in kept.items():
            device = self._buffers[name].device
            if device.type == "meta" and tensor.device.type != "meta":
                self._off_meta[name] = tensor
            self._buffers[name] = tensor.to(device)
        return self
