"""Linear layers on a processor, by oneDNN where that is faster than torch's own choice."""

from __future__ import annotations

import torch
from torch import nn

from canvas_robot.canvas.attention.eager import is_eager

# Torch multiplies float32 by MKL, which on AMD's processors is slower than the oneDNN that torch
# brings along and uses in compiled models; eager code has no other way to ask for it than this
# operator. It is looked for, and where there is none nothing changes.
_ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
# Products of two numbers from where on it is faster: 1.05 to 1.5 times, with 2 threads, on widths
# of 256 to 1024.
FEWEST_PRODUCTS = 2**25


def project(linear: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What `linear(x)` gives, to within float32 rounding."""
    if not _suits(linear, x):
        return linear(x)
    return _ONEDNN(x, linear.weight, linear.bias, "none", [], "")


def _suits(linear: nn.Module, x: torch.Tensor) -> bool:
    """Whether oneDNN takes it, and is the faster way; a layer that does more is left alone."""
    if type(linear) is not nn.Linear or not is_eager(x, linear.weight):
        return False
    if linear._forward_hooks or linear._forward_pre_hooks or "forward" in vars(linear):
        return False
    if _ONEDNN is None or not torch.backends.mkldnn.enabled:
        return False
    single = x.dtype == linear.weight.dtype == torch.float32
    return single and x.numel() * linear.out_features >= FEWEST_PRODUCTS
