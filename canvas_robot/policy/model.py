"""CanvasModel: the schema's tokens through the looped backbone to normalised actions, for a batch.

No clock, no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import CogVideoXTransformer3DModel
from torch import nn

from canvas_robot.backbone.graft import graft
from canvas_robot.backbone.loading import Backbone
from canvas_robot.canvas import SpatiotemporalCanvas
from canvas_robot.canvas.attention.canvas_attention import edge_options
from canvas_robot.canvas.attention.residual_edges import ResidualEdges
from canvas_robot.policy.codecs.action import ActionCodec
from canvas_robot.policy.codecs.text import TextCodec
from canvas_robot.policy.codecs.vector import VectorCodec
from canvas_robot.policy.codecs.visual import VisualCodec
from canvas_robot.policy.runner import PlanRunner
from canvas_robot.schema import CanvasSchema, Plan, compile_plan
from canvas_robot.signals import Binding, Statistics, StatisticsError


class ModelError(ValueError):
    """Schema, binding, statistics and backbone do not fit one another."""


@dataclass(frozen=True, eq=False)
class ModelInputs:
    """Encoded observations of a batch.

    latents: per visual region (B, F, C, h, w).
    vectors: per vector region (B, F, size + 1).
    prompt: (B, max_tokens, text width).
    """

    latents: dict[str, torch.Tensor]
    vectors: dict[str, torch.Tensor]
    prompt: torch.Tensor


class CanvasModel(nn.Module):
    """Codecs, canvas, grafted backbone and head, wired by schema and binding.

    Args:
        schema, binding: the declarations; they must fit.
        statistics: by signal name, for every signal that is normalised.
        backbone: frozen; it is grafted in place, so it serves one model.
        loops: times each block runs.
    Raises:
        ModelError, BindingError, PlanError, StatisticsError: what does not fit.
    """

    def __init__(
        self,
        schema: CanvasSchema,
        binding: Binding,
        statistics: dict[str, Statistics],
        backbone: Backbone,
        loops: int = 3,
    ) -> None:
        super().__init__()
        binding.check_schema(schema)
        _check_backbone(schema, backbone)
        layout, transformer = schema.layout, backbone.transformer
        self.action_region, self.goal_region = binding.action_region(), binding.goal_region()
        self.text = TextCodec(
            backbone.text_encoder, backbone.tokenizer, transformer.config.max_text_seq_length
        )
        patch = transformer.config.patch_size
        self.visual = nn.ModuleDict()
        self.vector = nn.ModuleDict()
        self._slot = {}  # ModuleDict keys may not hold dots, region names may
        for region in binding.regions_by_codec("visual"):
            _, h, w = layout.region_size(region)
            self._slot[region] = f"visual_{len(self._slot)}"
            self.visual[self._slot[region]] = VisualCodec(backbone.vae, (h * patch, w * patch))
        for region in binding.regions_by_codec("vector"):
            _, h, w = layout.region_size(region)
            self._slot[region] = f"vector_{len(self._slot)}"
            normaliser = _normaliser(binding, statistics, region)
            self.vector[self._slot[region]] = VectorCodec(normaliser, h * w, layout.d_model)
        action_size = layout.region_size(self.action_region)
        self.action = ActionCodec(
            _normaliser(binding, statistics, self.action_region), action_size, layout.d_model
        )
        self.canvas = SpatiotemporalCanvas(layout)
        self.plan = compile_plan(schema, loops, {self.goal_region: self.text.max_tokens})
        graft(transformer, loops)
        self.runner = PlanRunner(transformer, self.plan, _edges(schema, self.plan, transformer))
        self.action_timestep = layout.region_spec(self.action_region).timestep

    def visual_codec(self, region: str) -> VisualCodec:
        """The codec of a visual region."""
        return self.visual[self._slot[region]]

    def vector_codec(self, region: str) -> VectorCodec:
        """The codec of a vector region."""
        return self.vector[self._slot[region]]

    def rows(self, inputs: ModelInputs) -> torch.Tensor:
        """The canvas: input tokens (B, N, D) of all covered cells, in the plan's order.

        Visual and goal rows are what the backbone's own embedding gives, its positions included.
        """
        tokens = self._native_tokens(inputs)
        embeddings = {
            region: self.vector_codec(region)(vectors) for region, vectors in inputs.vectors.items()
        }
        embeddings[self.action_region] = self.action.queries(inputs.prompt.shape[0]).to(
            inputs.prompt
        )
        for region, embedded in embeddings.items():
            tokens[region] = self.canvas.tokens(embedded, region, self.plan.region(region).cells)
        return torch.cat([tokens[r.name] for r in self.plan.regions], dim=1)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Input tokens (B, N, D) to normalised actions (B, horizon, size)."""
        out = self.runner(rows)
        action = self.plan.region(self.action_region)
        return self.action(
            self.runner.finish(out[:, action.start : action.stop], self.action_timestep)
        )

    def own_parameters(self) -> dict[str, nn.Parameter]:
        """What a checkpoint of this model holds, by name: all but the frozen backbone."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def _native_tokens(self, inputs: ModelInputs) -> dict[str, torch.Tensor]:
        tokens = {}
        for region, latents in inputs.latents.items():
            joint = self.runner.transformer.patch_embed(inputs.prompt, latents)
            tokens[self.goal_region] = joint[:, : inputs.prompt.shape[1]]
            tokens[region] = joint[:, inputs.prompt.shape[1] :]
        return tokens


def _edges(
    schema: CanvasSchema, plan: Plan, transformer: CogVideoXTransformer3DModel
) -> list[ResidualEdges]:
    """The plan's residual edges, new in every block; none where the plan has none."""
    if not plan.edges:
        return []
    heads, options = transformer.config.num_attention_heads, edge_options(schema)
    return [
        ResidualEdges(plan, schema.layout, schema.layout.d_model, heads, options)
        for _ in transformer.transformer_blocks
    ]


def _check_backbone(schema: CanvasSchema, backbone: Backbone) -> None:
    if schema.layout.d_model != backbone.width:
        raise ModelError(
            f"schema: expected d_model {backbone.width}, the width of backbone "
            f"{backbone.source!r}, got {schema.layout.d_model}; "
            f"choose the schema made for this backbone"
        )
    framing = schema.metadata.get("framing", "image")
    if framing != "image":
        raise ModelError(f"schema: metadata.framing: this version runs 'image', got {framing!r}")


def _normaliser(binding: Binding, statistics: dict[str, Statistics], region: str):
    bound = binding.regions[region]
    signal = binding.signals[bound.signal]
    if bound.signal not in statistics:
        raise StatisticsError(
            f"statistics: region {region!r} needs those of signal {bound.signal!r}; "
            f"there are {sorted(statistics)}"
        )
    normaliser = statistics[bound.signal].normaliser(bound.normalise)
    if len(normaliser.centre) != signal.size:
        raise StatisticsError(
            f"statistics of {bound.signal!r}: expected {signal.size} components, "
            f"got {len(normaliser.centre)}"
        )
    return normaliser
