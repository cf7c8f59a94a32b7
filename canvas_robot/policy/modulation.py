"""AdaLN as plain layer norms: for a fixed timestep, scale and shift fold into weight and bias.

LN(x) (1 + scale) + shift, with LN's own weight and bias, is LN with weight (1 + scale) and bias
bias (1 + scale) + shift: exact. So a tick need not read the linear layers that make them from the
timestep, a fifth of a block's weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from diffusers import CogVideoXTransformer3DModel
from diffusers.models.normalization import CogVideoXLayerNormZero
from torch import nn

from canvas_robot.policy.elementwise import RunNorm, layer_norm
from canvas_robot.schema import Modulation, Plan

Key = tuple[str, int]  # stream, timestep


@dataclass(frozen=True, eq=False)
class FoldedNorm:
    """A layer norm and the gate after what it feeds, by stream and timestep.

    Each is (D,), or (B, 1, D) where every sample of a batch has a timestep of its own.
    """

    eps: float
    weights: dict[Key, torch.Tensor]
    biases: dict[Key, torch.Tensor]
    gates: dict[Key, torch.Tensor]

    def of(self, runs: Iterable[Modulation]) -> RunNorm:
        """What each run of rows needs."""
        keys = [(run.stream, run.timestep) for run in runs]
        parts = (self.weights, self.biases, self.gates)
        return RunNorm(*(tuple(part[key] for key in keys) for part in parts), self.eps)


class Modulator:
    """The folded norms of a transformer's blocks for the streams and timesteps of a plan.

    Args:
        transformer, plan: whose blocks, whose streams and timesteps.
        drawn: by timestep of the plan, what stands for it: timesteps (B,), one for each sample.
    """

    def __init__(
        self,
        transformer: CogVideoXTransformer3DModel,
        plan: Plan,
        drawn: Mapping[int, torch.Tensor] | None = None,
    ) -> None:
        self._transformer = transformer
        self._drawn = drawn or {}
        self._keys: list[Key] = sorted({(g.stream, g.timestep) for g in plan.groups})
        self._kept: dict[int, tuple[FoldedNorm, FoldedNorm]] = {}
        self._kept_final: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def fold(self) -> None:
        """Folds all norms once and keeps that, for inference; weights must not change after."""
        with torch.inference_mode():
            self.make()

    def make(self) -> None:
        """Makes all norms from the weights and keeps them: for one pass, where weights train.

        They carry gradients to whatever is not frozen, and serve every loop of a block.
        """
        given = {timestep: self._embedding(timestep) for _, timestep in self._keys}
        self._kept = {
            b: self._made(block.original, given)
            for b, block in enumerate(self._transformer.transformer_blocks)
        }
        self._kept_final = {t: self._final(embedding) for t, embedding in given.items()}

    def of_block(self, b: int) -> tuple[FoldedNorm, FoldedNorm]:
        """The norms before attention and before the feed-forward, as kept or as they are now."""
        if b in self._kept:
            return self._kept[b]
        given = {timestep: self._embedding(timestep) for _, timestep in self._keys}
        return self._made(self._transformer.transformer_blocks[b].original, given)

    def finish(self, rows: torch.Tensor, timestep: int) -> torch.Tensor:
        """The backbone's final norms, for rows (B, n, D) of one timestep."""
        kept = self._kept_final.get(timestep)
        weight, bias = kept or self._final(self._embedding(timestep))
        rows, eps = self._transformer.norm_final(rows), self._transformer.norm_out.norm.eps
        return layer_norm(rows, weight, bias, eps)

    def _final(self, embedding: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        norm = self._transformer.norm_out
        shift, scale = _of_samples(norm.linear(norm.silu(embedding))).chunk(2, -1)
        return _scaled(norm.norm, shift, scale)

    def _made(
        self, block: nn.Module, given: Mapping[int, torch.Tensor]
    ) -> tuple[FoldedNorm, FoldedNorm]:
        return self._folded(block.norm1, given), self._folded(block.norm2, given)

    def _folded(
        self, norm: CogVideoXLayerNormZero, given: Mapping[int, torch.Tensor]
    ) -> FoldedNorm:
        """given: by timestep, its embedding."""
        made = {t: _of_samples(norm.linear(norm.silu(each))) for t, each in given.items()}
        weights, biases, gates = {}, {}, {}
        for stream, timestep in self._keys:
            parts = made[timestep].chunk(6, -1)
            shift, scale, gate = parts[3:] if stream == "text" else parts[:3]
            weights[stream, timestep], biases[stream, timestep] = _scaled(norm.norm, shift, scale)
            gates[stream, timestep] = gate
        return FoldedNorm(norm.norm.eps, weights, biases, gates)

    def _embedding(self, timestep: int) -> torch.Tensor:
        """(1, time width) in the backbone's precision; (B, time width) of a drawn timestep."""
        layer = self._transformer.time_embedding.linear_1.weight
        timesteps = self._drawn.get(timestep)
        if timesteps is None:
            timesteps = torch.tensor([timestep], device=layer.device)
        projected = self._transformer.time_proj(timesteps)
        return self._transformer.time_embedding(projected.to(layer.dtype))


def _scaled(
    norm: nn.LayerNorm, shift: torch.Tensor, scale: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of the layer norm that is LN(x) (1 + scale) + shift."""
    factor = 1 + scale
    weight = factor if norm.weight is None else norm.weight * factor
    return weight, shift if norm.bias is None else norm.bias * factor + shift


def _of_samples(made: torch.Tensor) -> torch.Tensor:
    """(1, n) to (n,), which holds for all samples; (B, n) to (B, 1, n)."""
    return made[0] if len(made) == 1 else made[:, None]
