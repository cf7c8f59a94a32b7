"""Which of torch's attention kernels a training step takes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from accelerate import Accelerator
from torch.nn.attention import SDPBackend, sdpa_kernel


def fast_attention(accelerator: Accelerator) -> AbstractContextManager:
    """Inside, attention goes backward by matrix products where torch's fused kernel is slow at it.

    That is in bfloat16 on a CPU: torch 2.13's fused backward takes several times as long there.
    """
    if accelerator.device.type == "cpu" and accelerator.mixed_precision == "bf16":
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()
