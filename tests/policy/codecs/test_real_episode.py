"""One framing: node, simulator and latent cache give a real episode's frames equal latents."""

from pathlib import Path

import numpy as np
import pytest
import torch

from canvas_robot.data.bridge import BridgeV2
from canvas_robot.data.episode import Episode
from canvas_robot.policy.codecs.frame_cache import FrameCache
from canvas_robot.signals import History

SAMPLE = Path(__file__).parents[4] / "shared" / "data" / "bridge_sample"
TICK_NS = 200_000_000

pytestmark = pytest.mark.skipif(not SAMPLE.exists(), reason="no Bridge V2 at ../shared/data")


@pytest.fixture(scope="module")
def episode() -> Episode:
    return BridgeV2(SAMPLE)[0]


@pytest.mark.parametrize("steps, period", [(1, 1), (2, 1), (2, 2)])
def test_every_step_of_a_real_episode_has_equal_latents_on_every_path(
    make_policy, episode, monkeypatch, steps, period
):
    policy = make_policy(loops=1, visual_steps=steps, visual={"period": period})
    model, codec = policy.model, policy.model.codec("visual")
    latent_cache = torch.stack([codec.encode_image(image) for image in episode.images])
    node = latents_of_the_node(policy, episode)
    encoded: list[int] = []
    hook = codec.encoder.register_forward_hook(lambda *_: encoded.append(1))
    simulator = latents_of_the_simulator(policy, episode, monkeypatch)
    hook.remove()
    assert len(encoded) == len(range(0, len(episode), period)), "each sampled frame once"
    for tick in range(len(episode)):
        newest = tick - tick % period
        shown = [max(0, newest - i * period) for i in reversed(range(steps))]
        assert torch.equal(node[tick], latent_cache[shown]), f"node, step {tick}"
        assert torch.equal(simulator[tick], latent_cache[shown]), f"simulator, step {tick}"
    assert len(model.tokens({"visual": node[0][None]})["visual"][0]) == codec.token_count


def latents_of_the_node(policy, episode) -> list[torch.Tensor]:
    """Stamped samples, the pictures a little late, through a history."""
    history, cache = History(policy.schema, policy.binding), FrameCache()
    late = np.random.default_rng(0).integers(0, TICK_NS // 4, len(episode))
    latents = []
    for tick, image in enumerate(episode.images):
        now = 10**10 + tick * TICK_NS
        history.push("image", now - int(late[tick]), image)
        history.push("state", now, episode.states[tick])
        frames = history.observe(tick, now).frames
        latents.append(policy.model.encode(frames, "move", cache, ["visual"])["visual"][0])
    return latents


def latents_of_the_simulator(policy, episode, monkeypatch) -> list[torch.Tensor]:
    """Samples by name; what the model's codecs gave when the policy acted on them."""
    newest, encode = {}, policy.model.encode

    def recorded(*arguments, **options):
        newest.update(inputs := encode(*arguments, **options))
        return inputs

    monkeypatch.setattr(policy.model, "encode", recorded)
    policy.reset("move")
    latents = []
    for image, state in zip(episode.images, episode.states, strict=True):
        policy.act({"image": image, "state": state})
        latents.append(newest["visual"][0])
    return latents
