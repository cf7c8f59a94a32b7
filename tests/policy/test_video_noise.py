"""Laws of the noise on video: the way back undoes a draw, and is CogVideoX's own."""

import pytest
import torch
from diffusers import CogVideoXDDIMScheduler

from canvas_robot.policy.video_noise import SCHEDULE, VideoNoise

SCALE = SCHEDULE["snr_shift_scale"]


def latents(seed: int) -> torch.Tensor:
    return torch.randn(3, 2, 4, 6, 6, generator=torch.Generator().manual_seed(seed))


def test_the_true_velocity_leads_back_to_what_noise_was_put_on():
    noise, clean = VideoNoise(), latents(0)
    for seed in range(5):
        torch.manual_seed(seed)
        drawn = noise.draw(clean)
        for sample, timestep in enumerate(drawn.timesteps.tolist()):
            back = noise.less_noisy(drawn.latents[sample], drawn.velocity[sample], timestep, None)
            torch.testing.assert_close(back, clean[sample], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 4, 10, 50])
def test_steps_are_those_of_diffusers_scheduler(steps):
    scheduler = CogVideoXDDIMScheduler(**SCHEDULE, timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    noise, ours = VideoNoise(), latents(1)
    levels = noise.levels(steps)
    assert levels == scheduler.timesteps.tolist() and levels[0] == 999
    theirs = ours
    for number, level in enumerate(levels):
        velocity = latents(2 + number)
        then = levels[number + 1] if number + 1 < steps else None
        ours = noise.less_noisy(ours, velocity, level, then)
        theirs = scheduler.step(velocity, level, theirs).prev_sample
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_at_the_noisiest_level_nothing_is_left_of_the_picture():
    noise, clean = VideoNoise(), latents(3)
    back = noise.less_noisy(latents(4), -clean, 999, None)
    assert torch.equal(back, clean)
