"""Laws of what a policy predicts to see: what it is, and that no decision knows of it."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from diffusers import CogVideoXDDIMScheduler

from canvas_robot.policy.imagination import STEPS
from canvas_robot.policy.policy import CanvasPolicy
from canvas_robot.policy.protocol import Imagined
from canvas_robot.policy.runner import PlanRunner
from canvas_robot.policy.video_noise import SCHEDULE
from canvas_robot.resources import config_path
from canvas_robot.schema import CanvasSchema, compile_plan
from canvas_robot.signals import TickHistory
from canvas_robot.signals.binding import binding_from_yaml

READS = {
    "visual": ["visual", "goal"],
    "goal": ["goal"],
    "proprio": ["proprio"],
    "future": ["future", "visual", "goal", "proprio"],
    "action": ["visual", "goal", "proprio", "action"],
}
KINDS = {
    "as shipped": {},
    "slow pictures": {"visual": {"period": 2}, "goal": {"period": 3}},
    "two pictures to come, fewer loops": {"future": {"bounds": [2, 4, 0, 4, 0, 4], "loops": 1}},
    "the action reads no state": {"action reads": ["visual", "goal", "action"]},
}


def small(**changes) -> tuple[CanvasSchema, object]:
    """Regions' fields replaced by name; "action reads": what it reads."""
    data = json.loads(config_path("schemas", "widowx_tiny.json").read_text())
    bound = yaml.safe_load(config_path("bindings", "widowx.yaml").read_text())
    data["layout"].update(H=7, W=16)
    data["regions"]["future"] = {"is_output": True, "timestep": 500, "loss_weight": 0.1}
    bound["regions"]["future"] = {"signal": "image", "codec": "visual"}
    bounds = {
        "visual": [1, 2, 0, 4, 0, 4],
        "proprio": [0, 2, 4, 5, 0, 1],
        "action": [1, 5, 4, 5, 1, 3],
        "goal": [0, 4, 5, 7, 0, 16],
        "future": [2, 3, 0, 4, 0, 4],
    }
    for name, region in data["regions"].items():
        region.update({"bounds": bounds[name]} | changes.get(name, {}))
    reads = READS | {"action": changes.get("action reads", READS["action"])}
    data["topology"] = [{"src": s, "dst": d} for s, dsts in reads.items() for d in dsts]
    return CanvasSchema.from_dict(data), binding_from_yaml(yaml.safe_dump(bound))


@pytest.fixture(scope="module")
def imagining(bridge):
    """A function that makes a policy with video to come, whose loops and outputs do something."""

    def make(refresh: str = "inline", **changes) -> CanvasPolicy:
        policy = CanvasPolicy.untrained(*small(**changes), bridge, loops=2, seed=0, refresh=refresh)
        for name, parameter in policy.model.named_parameters():
            if name.endswith("loop_gate"):
                parameter.data.fill_(0.5)
        return policy

    return make


def seen(policy, samples, ticks: int) -> list:
    history = TickHistory(policy.schema, policy.binding)
    return [history.observe(samples(tick)) for tick in range(ticks)]


def in_pieces(policy, between=lambda: None) -> tuple[Imagined, int]:
    """What is predicted, the least at a time, and in how many pieces."""
    for count in range(1, 10_000):
        done = policy.imagined(0.0)
        if done is not None:
            return done, count
        between()
    raise AssertionError("it never ends")


@torch.no_grad()
def reference(policy, observation) -> np.ndarray:
    """All rows computed jointly at each noise level, and diffusers' own scheduler and VAE."""
    model, schema = policy.model, policy.schema
    scheduler = CogVideoXDDIMScheduler(**SCHEDULE, timestep_spacing="trailing")
    scheduler.set_timesteps(STEPS)
    frames = schema.layout.region_size("future")[0]
    random = torch.Generator().manual_seed(0)
    x = torch.randn(1, frames, 8, 8, 8, generator=random)
    counts = {r: model.codec(r).token_count for r in schema.layout.regions}
    encoded = policy.encode(observation)
    for level in scheduler.timesteps.tolist():
        spec = replace(schema.layout.region_spec("future"), timestep=level)
        regions = {**schema.layout.regions, "future": spec}
        layout = replace(schema.layout, regions=regions)
        plan = compile_plan(replace(schema, layout=layout), 2, counts)
        runner = PlanRunner(model.runner.transformer, plan)
        tokens = model.tokens(encoded | {"future": x})
        placed = plan.region("future")
        out = runner(torch.cat([tokens[r.name] for r in plan.regions], dim=1))
        out = runner.modulator.finish(out[:, placed.start : placed.stop], level)
        patches = model.runner.transformer.proj_out(out).reshape(1, frames, 4, 4, 8, 2, 2)
        velocity = patches.permute(0, 1, 4, 2, 5, 3, 6).reshape(x.shape)
        x = scheduler.step(velocity, level, x).prev_sample
    vae = model.codec("future").vae
    pixels = [vae.decode(z[None, :, None] / vae.config.scaling_factor).sample for z in x[0]]
    return (torch.cat(pixels)[:, :, 0].clamp(-1, 1) + 1).permute(0, 2, 3, 1).numpy() * 127.5


@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS.keys())
def test_it_is_what_joint_denoising_and_the_vae_give(imagining, samples, changes):
    policy = imagining(**changes)
    policy.reset("lift")
    for observation in seen(policy, samples, 4):
        policy.act(observation)
        done = policy.imagined(math.inf)
        assert done.tick == observation.tick and set(done.frames) == {"future"}
        assert done.frames["future"].dtype == np.uint8
        np.testing.assert_allclose(done.frames["future"], reference(policy, observation), atol=0.6)


def test_it_depends_on_what_was_seen_and_asked_for_and_on_nothing_else(imagining, samples):
    policy, pictures = imagining(), []
    for instruction, tick in (("lift", 0), ("lift", 0), ("lower", 0), ("lift", 1)):
        torch.manual_seed(len(pictures))
        policy.reset(instruction)
        policy.act(samples(tick))
        pictures.append(policy.imagined(math.inf).frames["future"])
    first, again, other_goal, other_picture = pictures
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other_goal) and not np.array_equal(first, other_picture)


SLICED = {"visual": {"period": 3}, "goal": {"period": 3}, "future": {"period": 3}}


@pytest.mark.parametrize("refresh, changes", [("inline", {}), ("sliced", SLICED)])
def test_decisions_and_random_numbers_are_bit_for_bit_the_same(
    imagining, samples, refresh, changes
):
    policy, episodes = imagining(refresh, **changes), []
    for watched in (False, True):
        torch.manual_seed(0)
        policy.reset("lift")
        chunks = []
        for observation in seen(policy, samples, 8):
            chunks.append(policy.act(observation).values)
            policy.work()
            if watched:
                assert policy.imagined(math.inf) is not None
                policy.imagined(0.0)  # half done at the next decision
        episodes.append((np.array(chunks), torch.rand(3), policy.last_canvas))
    alone, beside = episodes
    assert np.array_equal(alone[0], beside[0])
    assert torch.equal(alone[1], beside[1]) and torch.equal(alone[2], beside[2])


@pytest.mark.parametrize("refresh, changes", [("inline", {}), ("sliced", SLICED)])
def test_decisions_between_its_pieces_change_nothing_of_it(imagining, samples, refresh, changes):
    policy = imagining(refresh, **changes)
    first, *others = seen(policy, samples, 200)
    policy.reset("lift")
    policy.act(first)
    wanted = policy.imagined(math.inf)
    policy.reset("lift")
    policy.act(first)
    coming = iter(others)

    def decide() -> None:
        policy.act(next(coming))
        policy.work()

    found, pieces = in_pieces(policy, decide)
    blocks = len(policy.model.runner.transformer.transformer_blocks)
    assert pieces == STEPS * blocks * 2 + 1 + 1  # loops, a picture, and the end
    assert found.tick == wanted.tick == 0
    assert np.array_equal(found.frames["future"], wanted.frames["future"])
    assert policy.imagined(math.inf).tick == pieces - 1


def test_there_is_none_before_a_decision_and_none_of_an_episode_that_has_ended(imagining, samples):
    policy = imagining()
    assert policy.imagined(math.inf) is None
    policy.reset("lift")
    assert policy.imagined(math.inf) is None
    policy.act(samples(0))
    assert policy.imagined(0.0) is None
    policy.reset("lower")
    assert policy.imagined(math.inf) is None
    policy.act(samples(1))
    found = policy.imagined(math.inf)
    policy.reset("lower")
    policy.act(samples(1))
    assert np.array_equal(policy.imagined(math.inf).frames["future"], found.frames["future"])


def test_without_video_to_come_there_is_nothing(policy, samples):
    policy.reset("lift")
    policy.act(samples(0))
    assert policy.imagined(math.inf) is None


def test_a_fault_in_it_is_told_and_harms_nothing(imagining, samples, monkeypatch):
    policy = imagining()
    policy.reset("lift")
    wanted = [policy.act(observation).values for observation in seen(policy, samples, 2)]
    policy.reset("lift")
    first, second = seen(policy, samples, 2)
    policy.act(first)
    before = policy.imagined(math.inf).frames["future"]
    with monkeypatch.context() as patch:
        patch.setattr(policy.model.codec("future"), "decode", lambda latents: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            policy.imagined(math.inf)
    assert np.array_equal(policy.imagined(math.inf).frames["future"], before)
    assert np.array_equal(policy.act(second).values, wanted[1])
