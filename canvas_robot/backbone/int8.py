"""Int8Linear: frozen linear weights in one byte each, with a scale per output channel.

Embeddings, norms, AdaLN and the final projection keep their format.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXBlock
from torch import nn

LARGEST = 127


class Int8Linear(nn.Module):
    """A linear layer of int8 weights, symmetric per output channel; it computes in x's format.

    Each weight is off by at most half a scale, scale = largest absolute weight of its row / 127.
    It saves memory: without compilation each call casts the weights back, one layer at a time.
    Gradients reach its input and keep no cast weights meanwhile; there are none of its weights.

    Args:
        linear: the layer; bfloat16 or float32.
    Raises:
        ValueError: float16, in which sums over unscaled weights overflow, or weights that are not
            finite.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        if linear.weight.dtype not in (torch.bfloat16, torch.float32):
            raise ValueError(
                f"int8 weights: expected a layer in bfloat16 or float32, got {linear.weight.dtype}"
            )
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight, scale = _quantise(linear.weight.detach())
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in_features) to (..., out_features)."""
        return _Int8Product.apply(x, self.weight, self.scale, self.bias)

    def dequantised(self) -> torch.Tensor:
        """The weights it computes with, (out_features, in_features) in the scale's format."""
        return self.weight * self.scale[:, None]

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}"


class _Int8Product(torch.autograd.Function):
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


def quantise_int8(transformer: nn.Module) -> int:
    """Replaces the attention and feed-forward layers of every CogVideoX block, in place.

    Returns how many layers were replaced. The transformer is frozen already.
    """
    layers = quantisable(transformer)
    for owner, name in layers:
        setattr(owner, name, Int8Linear(getattr(owner, name)))
    return len(layers)


def quantisable(transformer: nn.Module) -> list[tuple[nn.Module, str]]:
    """The layers that int8 replaces, each as its owner and its name there."""
    blocks = [m for m in transformer.modules() if isinstance(m, CogVideoXBlock)]
    return [
        (owner, name)
        for block in blocks
        for root in (block.attn1, block.ff)
        for owner in root.modules()
        for name, child in owner.named_children()
        if isinstance(child, nn.Linear)
    ]


def _quantise(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(int8 weights, scales in the weights' format); rounded against the scale as it is stored."""
    largest = weight.abs().amax(dim=1)
    if not torch.isfinite(largest).all():
        raise ValueError("int8 weights: expected finite weights, got NaN or infinity")
    scale = (largest.float() / LARGEST).to(weight.dtype)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    rounded = torch.round(weight.float() / scale.float()[:, None])
    return rounded.clamp(-LARGEST, LARGEST).to(torch.int8), scale
