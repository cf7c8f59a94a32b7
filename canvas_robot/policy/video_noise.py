"""Noise for the video that a model learns to predict: a draw for a batch, and the way back.

What the model says of noisy video is policy/imagination.py's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from diffusers import CogVideoXDDIMScheduler

from canvas_robot.schema import CanvasSchema

# CogVideoX's own schedule. Source: scheduler_config.json of zai-org/CogVideoX-2b; 5b differs in
# snr_shift_scale alone (1.0).
SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "snr_shift_scale": 3.0,
}


@dataclass(frozen=True, eq=False)
class NoisyVideo:
    """A batch of latents with noise, and what is to be predicted of it.

    latents: (B, F, C, h, w), sqrt(a) clean + sqrt(1 - a) noise at each sample's timestep.
    velocity: sqrt(a) noise - sqrt(1 - a) clean, of the same shape.
    timesteps: (B,) int64.
    """

    latents: torch.Tensor
    velocity: torch.Tensor
    timesteps: torch.Tensor


class VideoNoise:
    """The forward diffusion that CogVideoX was trained with.

    Its squared error in velocity is its loss: that of the clean latents weighted by 1 / (1 - a).
    """

    def __init__(self, snr_shift_scale: float = SCHEDULE["snr_shift_scale"]) -> None:
        self._scheduler = CogVideoXDDIMScheduler(**SCHEDULE | {"snr_shift_scale": snr_shift_scale})

    def draw(self, clean: torch.Tensor) -> NoisyVideo:
        """Noise and a timestep for each sample of (B, F, C, h, w), from torch's own generators."""
        steps = self._scheduler.config.num_train_timesteps
        timesteps = torch.randint(0, steps, (len(clean),), device=clean.device)
        noise = torch.randn_like(clean)
        return NoisyVideo(
            self._scheduler.add_noise(clean, noise, timesteps),
            self._scheduler.get_velocity(clean, noise, timesteps),
            timesteps,
        )

    def levels(self, steps: int) -> list[int]:
        """Timesteps on the way from noise alone to clean, the noisiest first.

        CogVideoX's own spacing ("trailing"): it begins at the last timestep, which has no signal.
        """
        count = self._scheduler.config.num_train_timesteps
        return [round(count * (steps - done) / steps) - 1 for done in range(steps)]

    def less_noisy(
        self, latents: torch.Tensor, velocity: torch.Tensor, timestep: int, then: int | None
    ) -> torch.Tensor:
        """Latents at a lower noise level, by the velocity predicted of them: a DDIM step.

        Nothing is drawn. `then`: its timestep; None: clean.
        """
        a = self._scheduler.alphas_cumprod[timestep].item()
        clean = a**0.5 * latents - (1 - a) ** 0.5 * velocity
        if then is None:
            return clean
        noise = (1 - a) ** 0.5 * latents + a**0.5 * velocity
        b = self._scheduler.alphas_cumprod[then].item()
        return b**0.5 * clean + (1 - b) ** 0.5 * noise


def with_drawn_timesteps(schema: CanvasSchema, regions: list[str]) -> CanvasSchema:
    """The schema with timesteps of their own for some regions, which no other region has.

    They stand for what is drawn for each sample: a plan keeps rows of equal timestep together.
    """
    declared = schema.layout.regions
    free = SCHEDULE["num_train_timesteps"] + max(
        schema.layout.region_spec(region).timestep for region in declared
    )
    changed = {
        region: replace(schema.layout.region_spec(region), timestep=free + number)
        for number, region in enumerate(regions, start=1)
    }
    return replace(schema, layout=replace(schema.layout, regions={**declared, **changed}))
