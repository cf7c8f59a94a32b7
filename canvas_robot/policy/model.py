"""CanvasModel: the schema's tokens through the looped backbone to normalised actions, for a batch.

No clock, no I/O. What a region's samples and tokens mean is its codec's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from diffusers import CogVideoXTransformer3DModel
from torch import nn

from canvas_robot.backbone.graft import FREEZES, graft
from canvas_robot.backbone.image_encoder import ImageEncoder
from canvas_robot.backbone.loading import Backbone
from canvas_robot.backbone.schedules import SharpeningSchedule
from canvas_robot.canvas import SpatiotemporalCanvas
from canvas_robot.canvas.attention.residual_edges import ResidualEdges
from canvas_robot.policy.codecs.codec import Codec, CodecSite, ModelError, OutputCodec
from canvas_robot.policy.codecs.frame_cache import FrameCache
from canvas_robot.policy.codecs.registry import CODECS
from canvas_robot.policy.codecs.text import TextCodec
from canvas_robot.policy.modulation import Modulator
from canvas_robot.policy.prompts import PromptFolder
from canvas_robot.policy.rotary import rotary_places
from canvas_robot.policy.runner import PlanRunner
from canvas_robot.schema import CanvasSchema, Plan, compile_plan
from canvas_robot.schema.edge_options import declared_options
from canvas_robot.schema.schedule import needed_for
from canvas_robot.signals import Binding, Frames, Statistics
from canvas_robot.signals.codecs import RegionBinding

MOST_TIMESTEP = 999  # CogVideoX is trained on 1000 noise levels
MOST_SHARPENING = 1e3  # logits stay finite in any precision

ModelInputs = dict[str, torch.Tensor]
"""By region name, what its codec's `encode` gave, each with a batch dimension in front."""


class CanvasModel(nn.Module):
    """Codecs, canvas and grafted backbone, wired by schema and binding.

    Args:
        schema, binding: the declarations; they must fit.
        statistics: by signal name, for every signal that is normalised.
        backbone: frozen; it is grafted in place, so it serves one model.
        loops: times each block runs.
        prompts: precomputed prompt embeddings; needed where the backbone has no text encoder.
        freeze: what of the transformer is no part of this model's own weights: "full" (all of it),
            "half" (its input embeddings), "none".
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
        prompts: PromptFolder | None = None,
        freeze: str = "full",
    ) -> None:
        super().__init__()
        if freeze not in FREEZES:
            raise ModelError(f"freeze: expected one of {tuple(FREEZES)}, got {freeze!r}")
        binding.check_schema(schema)
        _check_backbone(schema, backbone)
        layout, transformer = schema.layout, backbone.transformer
        self.action_region, self.goal_region = binding.action_region(), binding.goal_region()
        self._bound = {region: binding.regions[region] for region in layout.regions}
        self.roles = {region: bound.role for region, bound in self._bound.items()}
        self._slots = _slots(self._bound)
        sites = _sites(schema, binding, statistics, backbone, prompts)
        self.codecs = nn.ModuleDict(
            {self._slots[site.region]: CODECS[site.bound.codec].build(site) for site in sites}
        )
        self.canvas = SpatiotemporalCanvas(layout)
        counts = {region: self.codec(region).token_count for region in layout.regions}
        self.plan = compile_plan(schema, loops, counts)
        self.future_regions = _future_regions(schema, binding, self.plan)
        graft(transformer, loops)
        if freeze != "full":
            transformer.requires_grad_(True)
            FREEZES[freeze](transformer)
        self.freeze = freeze
        self.runner = PlanRunner(
            transformer,
            self.plan,
            _edges(schema, self.plan, transformer),
            _places(binding, schema, self.plan, transformer),
            _sharpening(schema, loops),
        )
        self._timesteps = {r: layout.region_spec(r).timestep for r in layout.regions}
        self._own = {name for name, p in self.named_parameters() if p.requires_grad}
        for modality, bound in zip(self.canvas.modality, self._bound.values(), strict=True):
            modality.requires_grad_(not bound.native)  # the backbone's own embedding has none

    def codec(self, region: str) -> Codec:
        """The codec of a region."""
        return self.codecs[self._slots[region]]

    @property
    def given_regions(self) -> list[str]:
        """All regions but those of the future, which nothing but training can fill."""
        return [region for region in self._slots if region not in self.future_regions]

    @property
    def text(self) -> TextCodec:
        """The codec of the goal region."""
        return self.codec(self.goal_region)

    @property
    def action(self) -> OutputCodec:
        """The codec of the action region."""
        return self.codec(self.action_region)

    def encode(
        self,
        frames: Mapping[str, Frames],
        instruction: str,
        cache: FrameCache | None = None,
        regions: Iterable[str] | None = None,
    ) -> ModelInputs:
        """Runs the codecs on one observation: a batch of one, on the model's device.

        Args:
            frames: by name, of every observed region that is encoded.
            cache: of the episode; its camera frames are not encoded again.
            regions: those to encode; None: all but future ones.
        """
        inputs, device = {}, self.canvas.empty_token.device
        for region in self.given_regions if regions is None else regions:
            role, sample = self.roles[region], None
            if role in ("frames", "instruction"):
                sample = frames[region] if role == "frames" else instruction
            inputs[region] = self.codec(region).encode(sample, cache)[None].to(device)
        return inputs

    def tokens(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Input tokens (B, n, D) of the given regions, each independent of the others.

        Those of visual regions and the goal are what the backbone's own embedding gives, its
        additive positions included.
        """
        dtype, tokens = self.runner.transformer.patch_embed.proj.weight.dtype, {}
        for region, encoded in inputs.items():
            embedded = self.codec(region).embed(encoded)
            if not self._bound[region].native:
                embedded = self.canvas.tokens(embedded, region)
            tokens[region] = embedded.to(dtype)
        return tokens

    def rows(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The canvas: input tokens (B, N, D) of all covered cells, in the plan's order.

        Future regions that are not given are 0.
        """
        tokens = self.tokens(inputs)
        given = next(iter(tokens.values()))
        for region in self.future_regions - tokens.keys():
            count = self.codec(region).token_count
            tokens[region] = given.new_zeros(given.shape[0], count, given.shape[2])
        return torch.cat([tokens[r.name] for r in self.plan.regions], dim=1)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Input tokens (B, N, D) to normalised actions (B, horizon, size)."""
        return self.action.decode(self.output_tokens(self.runner(rows), self.action_region))

    def output_tokens(
        self, rows: torch.Tensor, region: str, modulator: Modulator | None = None
    ) -> torch.Tensor:
        """A region's tokens (B, n, D), as codecs decode them, of the runner's rows (B, N, D).

        They have passed the backbone's final norms, as `modulator` keeps them; None: the runner's,
        made from the weights.
        """
        placed = self.plan.region(region)
        finish = (modulator or self.runner.modulator).finish
        return finish(rows[:, placed.start : placed.stop], self._timesteps[region])

    def own_parameters(self) -> dict[str, nn.Parameter]:
        """What a checkpoint of this model holds, by name: all but what is frozen."""
        return {name: p for name, p in self.named_parameters() if name in self._own}


def _future_regions(schema: CanvasSchema, binding: Binding, plan: Plan) -> frozenset[str]:
    """The binding's future regions; raises ModelError where the action reads one.

    It would have to be drawn in every tick.
    """
    future = binding.future_regions(schema)
    read = sorted(future & needed_for(plan, [binding.action_region()]))
    if read:
        raise ModelError(
            f"regions {read}: are video to predict, and the action reads them, directly or through "
            "others; a tick does not draw videos: remove the connections"
        )
    return future


def _slots(bound: Mapping[str, RegionBinding]) -> dict[str, str]:
    """Names of the codecs' weights: codec and number, in the schema's order of regions.

    Region names may hold dots, which module names may not, and may change without the weights.
    """
    slots: dict[str, str] = {}
    for region, of_region in bound.items():
        number = sum(slot.rpartition("_")[0] == of_region.codec for slot in slots.values())
        slots[region] = f"{of_region.codec}_{number}"
    return slots


def weight_owners(schema: CanvasSchema, binding: Binding) -> dict[str, str]:
    """By the beginning of a weight's name, the region that it belongs to; of codecs and modality.

    Names of weights count codecs and regions, so that two schemas may number one region otherwise.
    """
    bound = {region: binding.regions[region] for region in schema.layout.regions}
    codecs = {f"codecs.{slot}": region for region, slot in _slots(bound).items()}
    return codecs | {f"canvas.modality.{i}": region for i, region in enumerate(bound)}


def _sites(
    schema: CanvasSchema,
    binding: Binding,
    statistics: dict[str, Statistics],
    backbone: Backbone,
    prompts: PromptFolder | None,
) -> list[CodecSite]:
    """What each region's codec is built from, in the schema's order."""
    patch, encoder = backbone.transformer.config.patch_size, ImageEncoder(backbone.vae)
    sizes = {region: schema.layout.region_size(region) for region in schema.layout.regions}
    videos = tuple(
        (t, h * patch, w * patch)
        for region, (t, h, w) in sizes.items()
        if binding.regions[region].native and binding.regions[region].role == "frames"
    )
    return [
        CodecSite(
            region,
            size,
            binding.regions[region],
            binding.signals.get(binding.regions[region].signal),
            statistics,
            backbone,
            encoder,
            videos,
            prompts,
        )
        for region, size in sizes.items()
    ]


def _edges(
    schema: CanvasSchema, plan: Plan, transformer: CogVideoXTransformer3DModel
) -> list[ResidualEdges]:
    """The plan's residual edges, new in every block; none where the plan has none."""
    if not plan.edges:
        return []
    heads, options = transformer.config.num_attention_heads, declared_options(schema.metadata)
    return [
        ResidualEdges(plan, schema.layout, schema.layout.d_model, heads, options)
        for _ in transformer.transformer_blocks
    ]


def _places(
    binding: Binding, schema: CanvasSchema, plan: Plan, transformer: CogVideoXTransformer3DModel
) -> torch.Tensor | None:
    """Places of the rows for a backbone with rotary position embeddings; None for any other."""
    if not transformer.config.use_rotary_positional_embeddings:
        return None
    bound = binding.regions.items()
    videos = {name for name, of in bound if of.native and of.role == "frames"}
    return rotary_places(transformer, schema.layout, plan, videos)


def _sharpening(schema: CanvasSchema, loops: int) -> list[float] | None:
    """Inverse temperature of each loop, as the schema's metadata says under "sharpening"."""
    declared = schema.metadata.get("sharpening")
    if declared is None:
        return None
    try:
        schedule = SharpeningSchedule(max_loops=loops, **declared)
    except (TypeError, ValueError) as error:
        raise ModelError(f"schema: metadata.sharpening: {error}") from error
    betas = [schedule(loop) for loop in range(loops)]
    if max(betas) > MOST_SHARPENING:
        raise ModelError(
            f"schema: metadata.sharpening: expected betas up to {MOST_SHARPENING:g}, got {betas}"
        )
    return betas


def _check_backbone(schema: CanvasSchema, backbone: Backbone) -> None:
    if schema.layout.d_model != backbone.width:
        raise ModelError(
            f"schema: expected d_model {backbone.width}, the width of backbone "
            f"{backbone.source!r}, got {schema.layout.d_model}; "
            f"choose the schema made for this backbone"
        )
    for region in schema.layout.regions:
        timestep = schema.layout.region_spec(region).timestep
        if timestep > MOST_TIMESTEP:
            raise ModelError(
                f"schema: region {region!r}: timestep: the backbone knows 0 to {MOST_TIMESTEP}, "
                f"got {timestep}"
            )
    framing = schema.metadata.get("framing", "image")
    if framing != "image":
        raise ModelError(f"schema: metadata.framing: this version runs 'image', got {framing!r}")
