"""A small backbone for data of one's own: its video VAE learns single frames of the episodes.

What comes out is a backbone's folder with a tokenizer of the instructions; transformer and text
encoder are those that the source has. The size of the latents' numbers is measured at the end and
becomes the VAE's scaling factor.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cv2
import msgspec
import numpy as np
import torch
from diffusers import AutoencoderKLCogVideoX
from msgspec import Meta
from rich.console import Console
from rich.progress import track

from canvas_robot.backbone.folder import write_backbone
from canvas_robot.backbone.image_encoder import pixels_per_latent
from canvas_robot.backbone.loading import Backbone, load_backbone
from canvas_robot.backbone.single_frames import single_frames
from canvas_robot.data.bridge import BridgeV2
from canvas_robot.policy.codecs.squash import squash
from canvas_robot.training.config import ConfigError, Count, Few, Name
from canvas_robot.training.vocabulary import learn_tokenizer

MOST_BYTES = 4 << 30  # of pictures that are held in memory
REPORT_EVERY = 50  # steps
SAVE_SECONDS = 60.0


class AutoencoderConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a small backbone is made.

    source: the backbone whose VAE begins it, and whose other parts go along.
    folders: of data sets in Bridge's layout; split and camera: of each.
    image_size: (height, width) that pictures are squashed to, in pixels.
    frames: how many pictures at most are learned from, spread evenly over the data.
    steps, batch_size, lr: of AdamW with a cosine schedule; minutes ends it earlier.
    brightness: pictures are brightened or darkened by up to this share of the full range.
    edges: weight of the error in differences between neighbouring pixels, which small things are.
    rare: how much more a pixel counts for each unit that it differs from the data's mean picture,
        of a range of 2: small coloured things would else be left out for long.
    kl: weight of the latents' divergence from a unit Gaussian.
    out: the folder that is written.
    """

    folders: Annotated[tuple[Name, ...], Meta(min_length=1)]
    out: Name
    source: Name = "small"
    split: Name = "train"
    camera: Name = "image_0"
    image_size: tuple[Few, Few] = (96, 96)
    frames: Count = 20_000
    steps: Count = 8_000
    minutes: Annotated[float, Meta(gt=0.0, le=1e5)] = 60.0
    batch_size: Few = 16
    lr: Annotated[float, Meta(gt=0.0, le=1.0)] = 1e-3
    brightness: Annotated[float, Meta(ge=0.0, le=0.5)] = 0.05
    edges: Annotated[float, Meta(ge=0.0, le=100.0)] = 1.0
    rare: Annotated[float, Meta(ge=0.0, le=100.0)] = 4.0
    kl: Annotated[float, Meta(ge=0.0, le=1.0)] = 1e-6
    seed: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0


@dataclass(frozen=True)
class AutoencoderResult:
    """What a training reached: steps done, and quality on pictures that were not learned from."""

    folder: Path
    steps: int
    minutes: float
    psnr_db: float
    scaling_factor: float
    parameters: int


def make_small_backbone(config: AutoencoderConfig, console: Console) -> AutoencoderResult:
    """Trains, and writes the backbone's folder with vae_training.json and reconstructions.png.

    Raises:
        ConfigError: pictures that would not fit the memory, or a size that the VAE cannot halve.
        BackboneError, BridgeDataError: the source or the data are not there or damaged.
    """
    backbone = load_backbone(config.source)
    vae = backbone.vae
    _require_size(config, vae)
    opened = [BridgeV2(Path(f).expanduser(), config.split) for f in config.folders]
    pictures = _pictures(opened, config, console)
    tokenizer = learn_tokenizer(_instructions(opened), backbone.text_encoder.config.vocab_size)
    held, learned = pictures[::20], np.delete(pictures, np.s_[::20], axis=0)
    steps, minutes = _fit(vae, learned, config, console)
    with torch.no_grad(), single_frames(vae):
        factor = 1.0 / _latents(vae, held[:512]).std().item()
        psnr = _psnr(vae, held[:512])
    made = dataclasses.replace(_scaled(backbone, factor), tokenizer=tokenizer)
    folder = write_backbone(Path(config.out).expanduser(), made)
    count = sum(p.numel() for p in vae.parameters())
    result = AutoencoderResult(folder, steps, minutes, psnr, factor, count)
    _describe(folder, config, result, vae, held)
    _StateFile(config).forget()
    return result


def _require_size(config: AutoencoderConfig, vae: AutoencoderKLCogVideoX) -> None:
    stride = pixels_per_latent(vae.config.block_out_channels)
    if any(side % stride for side in config.image_size):
        raise ConfigError(
            f"image_size: expected multiples of {stride} pixels, the side of the VAE's latent "
            f"cells, got {list(config.image_size)}"
        )
    needed = config.frames * math.prod(config.image_size) * 3
    if needed > MOST_BYTES:
        raise ConfigError(
            f"frames: expected pictures of at most {MOST_BYTES >> 30} GiB together, got "
            f"{config.frames} of {list(config.image_size)}, {needed / 2**30:.1f} GiB"
        )


def _instructions(opened: list[BridgeV2]) -> set[str]:
    return {data.read(episode).instruction for data in opened for episode in range(len(data))}


def _pictures(opened: list[BridgeV2], config: AutoencoderConfig, console: Console) -> np.ndarray:
    """(n, H, W, 3) uint8, spread over all episodes of all data sets."""
    places = [
        (data, episode, step)
        for data in opened
        for episode in range(len(data))
        for step in range(int(data.steps[episode]))
    ]
    chosen = np.linspace(0, len(places) - 1, min(config.frames, len(places))).astype(int)
    found = np.empty((len(chosen), *config.image_size, 3), np.uint8)
    stored, last = None, None
    shown = track(chosen, "reading pictures", console=console, disable=not console.is_terminal)
    for row, place in enumerate(shown):
        data, episode, step = places[place]
        if last != (id(data), episode):
            stored, last = data.read(episode), (id(data), episode)
        found[row] = squash(stored.image(config.camera, step), config.image_size)
    return found


def _fit(
    vae: AutoencoderKLCogVideoX,
    pictures: np.ndarray,
    config: AutoencoderConfig,
    console: Console,
) -> tuple[int, float]:
    """Minimises the reconstruction's error; returns the steps done and the minutes they took.

    What an interrupted call had reached goes on: batches depend on the seed and the step alone.
    """
    vae.train().requires_grad_(True)
    optimiser = torch.optim.AdamW(vae.parameters(), lr=config.lr, weight_decay=1e-3)
    state, usual = _StateFile(config), _mean(pictures)
    done, before = state.load(vae, optimiser)
    started, saved, losses = time.monotonic(), time.monotonic(), []
    while done < config.steps:
        minutes = before + (time.monotonic() - started) / 60
        if minutes >= config.minutes:
            break
        share = max(minutes / config.minutes, done / config.steps)
        losses.append(_step(vae, optimiser, pictures, usual, config, done, share))
        done += 1
        if done % REPORT_EVERY == 0:
            rate = len(losses) * config.batch_size / (time.monotonic() - started)
            console.print(
                f"step {done}/{config.steps}: loss {np.mean(losses[-REPORT_EVERY:]):.4f}, "
                f"{rate:.0f} pictures/s, {minutes / config.minutes:.0%} of the time",
                highlight=False,
            )
        if time.monotonic() - saved > SAVE_SECONDS:
            state.save(vae, optimiser, done, before + (time.monotonic() - started) / 60)
            saved = time.monotonic()
    vae.eval().requires_grad_(False)
    return done, before + (time.monotonic() - started) / 60


def _step(
    vae: AutoencoderKLCogVideoX,
    optimiser: torch.optim.Optimizer,
    pictures: np.ndarray,
    usual: torch.Tensor,
    config: AutoencoderConfig,
    step: int,
    share: float,
) -> float:
    """One update, at a share of the training; returns its loss."""
    random = np.random.default_rng([config.seed, step])
    torch.manual_seed(int(random.integers(2**31)))
    for group in optimiser.param_groups:
        warm = min(1.0, (step + 1) / 100)
        group["lr"] = config.lr * warm * (0.02 + 0.49 * (1 + math.cos(math.pi * share)))
    batch = pictures[random.integers(len(pictures), size=config.batch_size)]
    with single_frames(vae):
        loss = _loss(vae, _varied(batch, config.brightness, random), usual, config)
        optimiser.zero_grad()
        loss.backward()
    if not math.isfinite(loss.item()):
        raise RuntimeError(
            f"step {step + 1}: expected a finite loss, got {loss.item()}; lower lr ({config.lr})"
        )
    torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
    optimiser.step()
    return loss.item()


class _StateFile:
    """Where a training that is under way is kept: beside the folder that it will write."""

    def __init__(self, config: AutoencoderConfig) -> None:
        out = Path(config.out).expanduser()
        self.path = out.with_name(f".{out.name}.state.pt")
        learned = msgspec.structs.replace(config, out="x", steps=1, minutes=1.0)
        self._key = hashlib.sha256(msgspec.json.encode(learned)).hexdigest()

    def save(
        self,
        vae: AutoencoderKLCogVideoX,
        optimiser: torch.optim.Optimizer,
        done: int,
        minutes: float,
    ) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        state = {"key": self._key, "done": done, "minutes": minutes}
        torch.save({**state, "vae": vae.state_dict(), "optimiser": optimiser.state_dict()}, part)
        os.replace(part, self.path)

    def load(
        self, vae: AutoencoderKLCogVideoX, optimiser: torch.optim.Optimizer
    ) -> tuple[int, float]:
        """Steps done and their minutes; (0, 0.0) where nothing is kept.

        Raises ConfigError for what is kept of another configuration.
        """
        if not self.path.is_file():
            return 0, 0.0
        kept = torch.load(self.path, weights_only=True)
        if kept["key"] != self._key:
            raise ConfigError(
                f"{self.path}: kept of a training with another configuration; go on with that, or "
                "remove the file"
            )
        vae.load_state_dict(kept["vae"])
        optimiser.load_state_dict(kept["optimiser"])
        return kept["done"], kept["minutes"]

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)


def _varied(batch: np.ndarray, brightness: float, random: np.random.Generator) -> torch.Tensor:
    """(B, 3, 1, H, W) in [-1, 1], each picture brighter or darker."""
    pixels = _tensor(batch)
    shift = random.uniform(-2 * brightness, 2 * brightness, size=(len(batch), 1, 1, 1, 1))
    return (pixels + torch.from_numpy(shift).float()).clamp(-1.0, 1.0)


def _loss(
    vae: AutoencoderKLCogVideoX,
    pixels: torch.Tensor,
    usual: torch.Tensor,
    config: AutoencoderConfig,
) -> torch.Tensor:
    posterior = vae.encode(pixels).latent_dist
    error = (vae.decode(posterior.sample()).sample - pixels)[:, :, 0]
    weight = 1 + config.rare * (pixels[:, :, 0] - usual).abs().amax(dim=1, keepdim=True)
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    return (
        (weight * error.abs()).mean() / weight.mean()
        + config.edges * edges
        + config.kl * posterior.kl().mean()
    )


def _mean(pictures: np.ndarray) -> torch.Tensor:
    """(3, H, W) in [-1, 1]."""
    mean = pictures[:: max(1, len(pictures) // 1000)].mean(axis=0) / 127.5 - 1.0
    return torch.from_numpy(mean).float().permute(2, 0, 1)


def _tensor(pictures: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pictures).permute(0, 3, 1, 2)[:, :, None].float() / 127.5 - 1.0


def _latents(vae: AutoencoderKLCogVideoX, pictures: np.ndarray) -> torch.Tensor:
    return torch.cat([vae.encode(p).latent_dist.mean for p in _tensor(pictures).split(32)])


def _psnr(vae: AutoencoderKLCogVideoX, pictures: np.ndarray) -> float:
    """Peak signal to noise of reconstructions, dB, of values in a range of 2."""
    errors = []
    for pixels in _tensor(pictures).split(32):
        made = vae.decode(vae.encode(pixels).latent_dist.mean).sample
        errors.append((made - pixels).square().mean(dim=(1, 2, 3, 4)))
    return float(10 * math.log10(4.0 / torch.cat(errors).mean().item()))


def _scaled(backbone: Backbone, factor: float) -> Backbone:
    """The backbone with the VAE's scaling factor, by which latents have unit variance."""
    vae = msgspec.structs.replace(backbone.configuration.vae, scaling_factor=factor)
    configuration = dataclasses.replace(backbone.configuration, vae=vae)
    return dataclasses.replace(backbone, configuration=configuration)


def _describe(
    folder: Path,
    config: AutoencoderConfig,
    result: AutoencoderResult,
    vae: AutoencoderKLCogVideoX,
    held: np.ndarray,
) -> None:
    """training.json, and a picture: held-out frames above their reconstructions."""
    facts = {"config": msgspec.to_builtins(config)} | {
        key: value for key, value in dataclasses.asdict(result).items() if key != "folder"
    }
    (folder / "vae_training.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    some = held[:: max(len(held) // 8, 1)][:8]
    with torch.no_grad(), single_frames(vae):
        made = vae.decode(vae.encode(_tensor(some)).latent_dist.mean).sample[:, :, 0]
    back = ((made.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    rows = np.concatenate([np.concatenate(list(of), axis=1) for of in (some, back)], axis=0)
    large = cv2.resize(rows, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    cv2.imwrite(str(folder / "reconstructions.png"), cv2.cvtColor(large, cv2.COLOR_RGB2BGR))
