"""Whether a processor may be asked for what it does best: ways for eager tensors without gradients.

Which ways there are is said where they are.
"""

from __future__ import annotations

import torch
from torch.autograd.forward_ad import unpack_dual


def is_eager(*tensors: torch.Tensor) -> bool:
    """Whether all hold numbers in a processor's memory, and nothing traces what becomes of them.

    False with gradients of either mode, under `torch.compile`, tracers, `torch.func.vmap` and
    autocast.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    if any(x.device.type != "cpu" for x in tensors) or torch.is_autocast_enabled("cpu"):
        return False
    return all(_in_memory(x) and unpack_dual(x).tangent is None for x in tensors)


def _in_memory(x: torch.Tensor) -> bool:
    """Whether it has memory of its own; those of `torch.func.vmap` and of tracers have not."""
    try:
        return x.data_ptr() != 0
    except RuntimeError:
        return False
