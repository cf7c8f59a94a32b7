"""Laws of making a small backbone: its VAE learns, what is written loads, mistakes are refused."""

import json

import pytest
import torch
from rich.console import Console

from canvas_robot.backbone.loading import load_backbone
from canvas_robot.training import autoencoder
from canvas_robot.training.autoencoder import AutoencoderConfig, make_small_backbone
from canvas_robot.training.config import ConfigError
from canvas_robot.training.config_file import config_of

QUIET = Console(quiet=True)


@pytest.fixture
def config(bridge_sample, tmp_path):
    def make(**changes) -> AutoencoderConfig:
        given = {
            "folders": [str(bridge_sample)],
            "out": str(tmp_path / "made"),
            "image_size": [32, 32],
            "frames": 60,
            "steps": 12,
            "batch_size": 4,
        }
        return config_of(given | changes, "made up", AutoencoderConfig)

    return make


def test_more_steps_make_better_pictures_in_a_backbone_that_loads(config, tmp_path):
    begun = make_small_backbone(config(steps=1, out=str(tmp_path / "begun")), QUIET)
    result = make_small_backbone(config(steps=40), QUIET)
    assert result.psnr_db > begun.psnr_db + 1
    found = load_backbone(str(result.folder))
    assert found.trained and found.vae.config.scaling_factor == pytest.approx(result.scaling_factor)
    drawn = load_backbone("small")
    assert found.sha256["transformer"] == drawn.sha256["transformer"]
    facts = json.loads((result.folder / "vae_training.json").read_text())
    assert facts["steps"] == 40 and facts["psnr_db"] == result.psnr_db
    assert (result.folder / "reconstructions.png").stat().st_size > 1000


def test_latents_have_unit_variance(config, bridge_sample):
    from canvas_robot.backbone.image_encoder import ImageEncoder
    from canvas_robot.data.bridge import BridgeV2
    from canvas_robot.policy.codecs.squash import squash

    vae = load_backbone(str(make_small_backbone(config(), QUIET).folder)).vae
    data = BridgeV2(bridge_sample)
    image = squash(data.read(3).image("image_0", 0), (32, 32))
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        assert 0.2 < ImageEncoder(vae)(pixels).std() < 3


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"image_size": [30, 32]}, r"image_size: expected multiples of 4 pixels.*got \[30, 32\]"),
        ({"frames": 10**8}, "frames: expected pictures of at most 4 GiB together"),
        ({"frame": 3}, "unknown key frame; did you mean frames"),
        ({"lr": 0}, "lr: expected a number > 0"),
    ],
)
def test_mistakes_are_refused_by_name(config, changes, text):
    with pytest.raises(ConfigError, match=text):
        make_small_backbone(config(**changes), QUIET)


def test_a_stopped_training_goes_on_to_the_same_weights(config, tmp_path, monkeypatch):
    whole = make_small_backbone(config(out=str(tmp_path / "whole")), QUIET)
    monkeypatch.setattr(autoencoder, "SAVE_SECONDS", 0.0)
    step, taken = autoencoder._step, []

    def stopped_at_the_eighth(*words):
        if len(taken) == 7:
            raise KeyboardInterrupt
        taken.append(words)
        return step(*words)

    monkeypatch.setattr(autoencoder, "_step", stopped_at_the_eighth)
    with pytest.raises(KeyboardInterrupt):
        make_small_backbone(config(), QUIET)
    with pytest.raises(ConfigError, match="kept of a training with another configuration"):
        make_small_backbone(config(lr=1e-4), QUIET)
    monkeypatch.setattr(autoencoder, "_step", step)
    result = make_small_backbone(config(), QUIET)
    ours, theirs = (load_backbone(str(r.folder)).sha256["vae"] for r in (result, whole))
    assert result.steps == whole.steps == 12 and ours == theirs
    assert not list(tmp_path.glob(".*"))
