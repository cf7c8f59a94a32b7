"""Laws of the objective: what counts, what does not, and that it computes what ticks compute."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from canvas_robot.backbone.loading import load_backbone
from canvas_robot.data.batches import Batch, Stacked
from canvas_robot.policy.model import CanvasModel, ModelError
from canvas_robot.policy.runner import PlanRunner
from canvas_robot.policy.ticks import TickRunner
from canvas_robot.policy.video_noise import VideoNoise
from canvas_robot.resources import config_path
from canvas_robot.schema import CanvasSchema, compile_plan
from canvas_robot.signals import load_statistics
from canvas_robot.signals.binding import binding_from_yaml
from canvas_robot.training.objective import Objective, ObjectiveError

BINDING = config_path("bindings", "widowx.yaml").read_text()
STATISTICS = load_statistics(config_path("statistics", "bridge_v2.json"))
BOUNDS = {
    "visual": [1, 2, 0, 4, 0, 4],
    "proprio": [0, 2, 4, 5, 0, 1],
    "action": [1, 5, 4, 5, 1, 3],
    "goal": [0, 4, 5, 7, 0, 16],
    "future": [2, 4, 0, 4, 0, 4],
}
LATENT = (8, 8, 8)  # channels, height and width of 4 x 4 patches


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def small(video: bool = False, **regions) -> tuple[CanvasSchema, object]:
    """widowx_tiny with small pictures, with frames to come if asked; fields replaced by region."""
    data = json.loads(config_path("schemas", "widowx_tiny.json").read_text())
    bound = yaml.safe_load(BINDING)
    data["layout"].update(H=7, W=16)
    if video:
        data["regions"]["future"] = {"is_output": True, "timestep": 500}
        data["topology"] += [
            {"src": "future", "dst": "future"},
            {"src": "future", "dst": "visual"},
            {"src": "future", "dst": "goal"},
        ]
        bound["regions"]["future"] = {"signal": "image", "codec": "visual"}
    for name, region in data["regions"].items():
        region.update(bounds=BOUNDS[name], **regions.get(name, {}))
    return CanvasSchema.from_dict(data), binding_from_yaml(yaml.safe_dump(bound))


def build(schema, binding, loops: int = 2, **options) -> CanvasModel:
    torch.manual_seed(0)
    model = CanvasModel(schema, binding, STATISTICS, load_backbone("tiny"), loops, **options)
    with torch.no_grad():  # away from the fresh graft, where later loops change nothing
        for parameter in model.own_parameters().values():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return model


def drawn(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def batch_of(model: CanvasModel, size: int = 2, seed: int = 0) -> Batch:
    known = torch.zeros(size, 1, dtype=torch.bool)
    frames = {
        "visual": Stacked(drawn((size, 1, *LATENT), seed), known),
        "proprio": Stacked(drawn((size, 2, 7), seed + 1), known.expand(-1, 2)),
    }
    targets = {"action": Stacked(drawn((size, 4, 7), seed + 2) * 0.02, known.expand(-1, 4))}
    if "future" in model.future_regions:
        targets["future"] = Stacked(drawn((size, 2, *LATENT), seed + 3), known.expand(-1, 2))
    steps = torch.zeros(size, dtype=torch.long)
    instructions = ["lift", "push", "lift"][:size]
    return Batch(frames, targets, instructions, ["a", "b", "c"][:size], steps, steps)


def with_missing(batch: Batch, region: str, missing: list[list[bool]], **values) -> Batch:
    stacked = batch.targets[region]
    changed = Stacked(values.get("values", stacked.values), torch.tensor(missing))
    return replace(batch, targets={**batch.targets, region: changed})


def test_the_loss_of_actions_is_the_codecs_own_on_what_the_policy_would_do():
    schema, binding = small()
    model = build(schema, binding)
    batch, objective = batch_of(model), Objective(model, schema)
    inputs = {
        "visual": batch.frames["visual"].values,
        "goal": torch.stack([model.text.encode(text) for text in batch.instructions]),
        "proprio": model.codec("proprio").encode_batch(*batch.frames["proprio"]),
        "action": torch.empty(2, 0),
    }
    actions = model(model.rows(inputs))
    targets = model.action.from_units(batch.targets["action"].values.numpy())
    expected = (actions - targets).abs().mean()
    losses = objective(batch)
    assert torch.allclose(losses["action"], expected, rtol=1e-5)
    assert torch.allclose(losses["loss"], losses["action"])


def test_what_stands_in_for_the_unrecorded_future_counts_nothing():
    schema, binding = small()
    model = build(schema, binding)
    batch, objective = batch_of(model), Objective(model, schema)
    missing = [[False, False, True, True], [False, True, True, True]]
    values = batch.targets["action"].values.clone()
    values[torch.tensor(missing)] = 7.0
    first = objective(with_missing(batch, "action", missing))["loss"]
    second = objective(with_missing(batch, "action", missing, values=values))["loss"]
    assert torch.equal(first, second)
    everything = [[True] * 4] * 2
    assert objective(with_missing(batch, "action", everything))["loss"] == 0


def test_a_batch_weighs_all_its_samples_the_same_so_it_may_be_split_anyhow():
    schema, binding = small()
    model = build(schema, binding)
    objective, whole = Objective(model, schema), batch_of(model, size=3)
    missing = [[False] * 4, [False, True, True, True], [False, False, False, True]]
    whole = with_missing(whole, "action", missing)

    def sample(i: int) -> Batch:
        def one(regions):
            return {name: Stacked(*(part[i : i + 1] for part in x)) for name, x in regions.items()}

        texts = {"instructions": [whole.instructions[i]], "names": [whole.names[i]]}
        return replace(whole, frames=one(whole.frames), targets=one(whole.targets), **texts)

    losses = torch.stack([objective(sample(i))["loss"] for i in range(3)])
    assert torch.allclose(objective(whole)["loss"], losses.mean(), rtol=1e-6)


def test_each_position_weighs_as_its_regions_loss_weight():
    schema, binding = small(video=True, action={"loss_weight": 3.0}, future={"loss_weight": 0.5})
    model = build(schema, binding)
    torch.manual_seed(1)
    losses = Objective(model, schema)(batch_of(model))
    action, video = 3.0 * 4 * 2, 0.5 * 2 * 16  # weight x steps x tokens of a step
    expected = (action * losses["action"] + video * losses["future"]) / (action + video)
    assert torch.allclose(losses["loss"], expected, rtol=1e-5)


def test_every_own_parameter_learns_and_nothing_frozen_does():
    schema, binding = small(video=True)
    model = build(schema, binding)
    objective = Objective(model, schema)
    objective(batch_of(model))["loss"].backward()
    trained = objective.trained()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained.values())
    own = {id(p) for p in model.own_parameters().values()}
    frozen = [p for p in model.parameters() if id(p) not in own]
    assert frozen and all(p.grad is None and not p.requires_grad for p in frozen)


def test_one_loop_more_changes_nothing_at_first():
    schema, binding = small()
    torch.manual_seed(0)
    model = CanvasModel(schema, binding, STATISTICS, load_backbone("tiny"), 3)
    batch, objective = batch_of(model), Objective(model, schema)
    losses = []
    for loops in (1, 2, 3):
        objective.set_loops(loops)
        losses.append(objective(batch)["loss"])
    assert losses[0] == losses[1] == losses[2]
    with pytest.raises(ObjectiveError, match="loops: expected 1 to 3, got 4"):
        objective.set_loops(4)


def test_recomputing_activations_changes_no_gradient():
    schema, binding = small(video=True)
    model = build(schema, binding)
    batch, objective, gradients = batch_of(model), Objective(model, schema), []
    for checkpointing in (False, True):
        for block in model.runner.transformer.transformer_blocks:
            block.use_gradient_checkpointing = checkpointing
        torch.manual_seed(1)
        objective.zero_grad()
        objective(batch)["loss"].backward()
        gradients.append([p.grad.clone() for p in objective.trained().values()])
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(*gradients, strict=True))


class FixedNoise(VideoNoise):
    """Real noise at timesteps that are given."""

    def __init__(self, timesteps: list[int]) -> None:
        super().__init__()
        self._given = torch.tensor(timesteps)

    def draw(self, clean):
        torch.manual_seed(2)
        made = super().draw(clean)
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(3))
        return replace(
            made,
            latents=self._scheduler.add_noise(clean, noise, self._given),
            velocity=self._scheduler.get_velocity(clean, noise, self._given),
            timesteps=self._given,
        )


def test_a_sample_is_computed_at_its_own_timestep():
    schema, binding = small(video=True)
    model = build(schema, binding)
    batch = batch_of(model)
    timesteps = [37, 911]
    together = Objective(model, schema, noise=FixedNoise(timesteps))(batch)["future"]
    errors = []
    for sample, timestep in enumerate(timesteps):
        noise = FixedNoise(timesteps).draw(batch.targets["future"].values)
        fixed, _ = small(video=True, future={"timestep": timestep})
        counts = {r: model.codec(r).token_count for r in fixed.layout.regions}
        plan = compile_plan(fixed, 2, counts)
        runner = PlanRunner(model.runner.transformer, plan)
        tokens = model.tokens(
            {
                "visual": batch.frames["visual"].values,
                "goal": torch.stack([model.text.encode(text) for text in batch.instructions]),
                "proprio": model.codec("proprio").encode_batch(*batch.frames["proprio"]),
                "action": torch.empty(2, 0),
                "future": noise.latents,
            }
        )
        rows = torch.cat([tokens[r.name] for r in plan.regions], dim=1)[sample : sample + 1]
        placed = plan.region("future")
        out = runner(rows)[:, placed.start : placed.stop]
        patches = model.runner.transformer.proj_out(runner.modulator.finish(out, timestep))
        patches = patches.reshape(1, 2, 4, 4, 8, 2, 2).permute(0, 1, 4, 2, 5, 3, 6)
        predicted = patches.reshape(1, 2, *LATENT)
        errors.append((predicted - noise.velocity[sample]).square().mean())
    assert torch.allclose(together, torch.stack(errors).mean(), rtol=1e-5)


@pytest.mark.parametrize("loops", [{}, {"proprio": {"loops": 1}}])
def test_held_regions_are_trained_as_ticks_compute_them(loops):
    """Visual holds, refreshed at tick 0, and reads proprio, which changes every tick."""
    regions = {"visual": {"period": 3, "hold": True}, "proprio": {}, **loops}
    schema, binding = small(**regions)
    data = schema.to_dict()
    data["topology"].append({"src": "visual", "dst": "proprio"})
    schema = CanvasSchema.from_dict(data)
    model = build(schema, binding).eval().double()
    start, now = batch_of(model, seed=0), batch_of(model, seed=10)
    frames = {"visual": start.frames["visual"], "proprio": now.frames["proprio"]}
    batch = replace(now, frames=frames, past={"proprio": start.frames["proprio"]})
    losses = Objective(model, schema)(batch)

    ticks = TickRunner(model.runner, batch=2)
    encoded = {
        "visual": start.frames["visual"].values,
        "goal": torch.stack([model.text.encode(text) for text in start.instructions]),
        "proprio": model.codec("proprio").encode_batch(*start.frames["proprio"]),
        "action": torch.empty(2, 0),
    }
    with torch.inference_mode():
        ticks.tick(model.tokens(encoded))
        proprio = model.codec("proprio").encode_batch(*now.frames["proprio"])
        out = ticks.tick(model.tokens({"proprio": proprio}))
        actions = model.action.decode(model.output_tokens(out, "action", ticks.modulator))
    targets = model.action.from_units(now.targets["action"].values.numpy())
    assert torch.allclose(losses["action"], (actions - targets).abs().mean(), rtol=1e-10)
    joint = Objective(model, schema)(replace(batch, past={}))
    assert not torch.allclose(joint["action"], losses["action"], rtol=1e-7), "holding matters"


def test_what_cannot_be_learned_is_refused():
    schema, binding = small()
    model = build(schema, binding)
    with pytest.raises(ObjectiveError, match="mode 'pretrain' trains the whole backbone"):
        Objective(model, schema, mode="pretrain")
    free = build(schema, binding, freeze="none")
    with pytest.raises(ObjectiveError, match="learns video and actions together"):
        Objective(free, schema, mode="pretrain")
    idle, _ = small(action={"is_output": False})
    with pytest.raises(ObjectiveError, match="'action' holds the action and is no output"):
        Objective(model, idle)
    weightless, _ = small(action={"loss_weight": 0.0})
    with pytest.raises(ObjectiveError, match="every output has loss_weight 0"):
        Objective(model, weightless)
    several, _ = small(visual={"hold": True, "period": 2}, proprio={"hold": True, "period": 3})
    with pytest.raises(ObjectiveError, match=r"hold and have periods \[2, 3\]"):
        Objective(build(several, binding), several)
    with pytest.raises(ObjectiveError, match="expected targets of region 'action'"):
        Objective(model, schema)(replace(batch_of(model), targets={}))


def test_pretraining_trains_the_backbone_too():
    schema, binding = small(video=True)
    model = build(schema, binding, freeze="none")
    objective = Objective(model, schema, mode="pretrain")
    objective(batch_of(model))["loss"].backward()
    blocks = model.runner.transformer.transformer_blocks
    assert all(block.original.attn1.to_q.weight.grad.abs().sum() > 0 for block in blocks)


def test_an_action_may_not_read_video_that_is_still_to_come():
    schema, binding = small(video=True)
    data = schema.to_dict()
    data["topology"].append({"src": "action", "dst": "future"})
    with pytest.raises(ModelError, match=r"regions \['future'\]: are video to predict"):
        build(CanvasSchema.from_dict(data), binding)
