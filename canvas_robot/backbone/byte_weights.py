"""ByteLinear: frozen linear weights in one byte each, with a scale per output channel.

Embeddings, norms, AdaLN and the final projection keep their format.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXBlock
from torch import nn

# The largest number of each format, to which the largest weight of a row is scaled.
LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}


class ByteLinear(nn.Module):
    """A linear layer of 8-bit weights, symmetric per output channel; it computes in x's format.

    scale = largest absolute weight of a row / LARGEST. In int8 each weight is off by at most half a
    scale, in float8 by at most 1/16 of itself, or half of 2**-9 scales near 0.
    It saves memory: without compilation each call casts the weights back, one layer at a time.
    Gradients reach its input and keep no cast weights meanwhile; there are none of its weights.

    Args:
        linear: the layer; bfloat16 or float32.
        stored: int8 or float8_e4m3fn.
    Raises:
        ValueError: float16, in which sums over unscaled weights overflow, or weights that are not
            finite.
    """

    def __init__(self, linear: nn.Linear, stored: torch.dtype = torch.int8) -> None:
        super().__init__()
        if linear.weight.dtype not in (torch.bfloat16, torch.float32):
            raise ValueError(
                f"8-bit weights: expected a layer in bfloat16 or float32, got {linear.weight.dtype}"
            )
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight, scale = _quantised(linear.weight.detach(), stored)
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in_features) to (..., out_features)."""
        return _Product.apply(x, self.weight, self.scale, self.bias)

    def dequantised(self) -> torch.Tensor:
        """The weights it computes with, (out_features, in_features) in the scale's format."""
        return self.weight.to(self.scale.dtype) * self.scale[:, None]

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}"


class _Product(torch.autograd.Function):
    """x @ (weight * scale).T + bias. Autograd's own rule would keep the cast weight."""

    @staticmethod
    def forward(ctx, x, weight, scale, bias):
        ctx.save_for_backward(weight, scale)
        y = F.linear(x, weight.to(x.dtype)) * scale.to(x.dtype)
        return y if bias is None else y + bias.to(x.dtype)

    @staticmethod
    def backward(ctx, grad):
        weight, scale = ctx.saved_tensors
        return (grad * scale.to(grad.dtype)) @ weight.to(grad.dtype), None, None, None


def quantise(transformer: nn.Module, stored: torch.dtype = torch.int8) -> int:
    """Replaces the attention and feed-forward layers of every CogVideoX block, in place.

    Returns how many layers were replaced. The transformer is frozen already.
    """
    layers = quantisable(transformer)
    for owner, name in layers:
        setattr(owner, name, ByteLinear(getattr(owner, name), stored))
    return len(layers)


def quantisable(transformer: nn.Module) -> list[tuple[nn.Module, str]]:
    """The layers that are replaced, each as its owner and its name there."""
    blocks = [m for m in transformer.modules() if isinstance(m, CogVideoXBlock)]
    return [
        (owner, name)
        for block in blocks
        for root in (block.attn1, block.ff)
        for owner in root.modules()
        for name, child in owner.named_children()
        if isinstance(child, nn.Linear)
    ]


def _quantised(weight: torch.Tensor, stored: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """(8-bit weights, scales in the weights' format); rounded against the scale as it is stored."""
    largest, most = weight.abs().amax(dim=1), LARGEST[stored]
    if not torch.isfinite(largest).all():
        raise ValueError("8-bit weights: expected finite weights, got NaN or infinity")
    scale = (largest.float() / most).to(weight.dtype)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    scaled = (weight.float() / scale.float()[:, None]).clamp(-most, most)
    return (torch.round(scaled) if stored == torch.int8 else scaled).to(stored), scale
