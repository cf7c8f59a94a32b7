"""DiffusionActionCodec: query tokens in, an action chunk out, drawn by flow matching.

Where several chunks are right, a regression gives their middle; this draws one of them.
"""

from __future__ import annotations

import math

import torch
from diffusers.models.embeddings import get_timestep_embedding
from torch import nn

from canvas_robot.policy.chunk_execution import soft_mask
from canvas_robot.policy.codecs.codec import CodecSite, OutputCodec
from canvas_robot.signals import GoingOn, Normaliser

_TIME_WIDTH = 32
STRONGEST_GUIDANCE = 5.0  # beta of Black et al. 2025


class DiffusionActionCodec(OutputCodec):
    """A small network moves noise to an action chunk, given the averaged tokens of all steps.

    x_s = (1 - s) noise + s chunk is the straight path from noise at s = 0 to the chunk at s = 1;
    the network learns its velocity, chunk - noise, at any (x_s, s), and Euler steps follow it:
    flow matching (Lipman et al. 2023, arXiv:2210.02747), for actions as in pi0 (Black et al. 2024,
    arXiv:2410.24164). The backbone runs once; only this head runs `steps` times.

    Args:
        normaliser, size, width: as every output codec; size is (horizon, h, w).
        hidden: size of the head's layers.
        steps: Euler steps.
    """

    goes_on = True

    def __init__(
        self,
        normaliser: Normaliser,
        size: tuple[int, int, int],
        width: int,
        hidden: int = 256,
        steps: int = 8,
    ) -> None:
        super().__init__(normaliser, size, width)
        self.euler_steps = steps
        components = len(normaliser.centre)
        chunk = self.horizon * components
        self.condition = nn.Linear(width, hidden)
        self.network = nn.Sequential(
            nn.Linear(self.horizon * hidden + chunk + _TIME_WIDTH, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, chunk),
        )
        fixed = torch.randn(self.horizon, components, generator=torch.Generator().manual_seed(0))
        self.register_buffer("noise", fixed, persistent=False)

    @classmethod
    def build(cls, site: CodecSite) -> DiffusionActionCodec:
        bound = site.bound
        return cls(site.normaliser, site.size, site.width, bound.hidden, bound.steps)

    def embed(self, inputs: torch.Tensor) -> torch.Tensor:
        """Zeros: what a query asks is its position and modality vector."""
        return inputs.new_zeros(inputs.shape[0], self.token_count, self.width)

    def decode(self, tokens: torch.Tensor) -> torch.Tensor:
        """The chunk drawn from one fixed noise: equal tokens give equal actions."""
        return self.sample(tokens, self.noise.expand(tokens.shape[0], -1, -1))

    def sample(self, tokens: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Normalised chunks (B, horizon, size) from standard normal noise of the same shape."""
        condition, x = self.condition(self.steps(tokens)), noise
        for i in range(self.euler_steps):
            at = x.new_full((x.shape[0],), i / self.euler_steps)
            x = x + self._velocity(x, at, condition) / self.euler_steps
        return x

    def go_on(self, tokens: torch.Tensor, going_on: GoingOn) -> torch.Tensor:
        """As `decode`, guided towards a chunk that goes on with what is carried out.

        At every Euler step the chunk at the path's end is estimated, its difference from the rows
        that go on, weighed by `soft_mask`, is carried back through the network to x, and x is led
        there: pseudo-inverse guidance, real-time chunking (Black et al. 2025, Real-Time Execution
        of Action Chunking Flow Policies, arXiv:2506.07339, equations 2 to 5). Rows without weight
        are free, and with none at all it is `decode`. It leaves no gradient anywhere.
        """
        towards, weights = self._towards(going_on)
        condition = self.condition(self.steps(tokens))
        with torch.inference_mode(False):  # what is differentiated must not come out of it
            condition = condition.detach().clone()
            x = self.noise.expand(tokens.shape[0], -1, -1).clone()
            for i in range(self.euler_steps):
                s = i / self.euler_steps
                velocity = self._guided_velocity(x, s, condition, towards, weights)
                x = x + velocity / self.euler_steps
        return x

    def _towards(self, going_on: GoingOn) -> tuple[torch.Tensor, torch.Tensor]:
        """The rows that go on, normalised (horizon, size), and their weights (horizon, 1)."""
        rows = going_on.rows[: self.horizon]
        towards, weights = torch.zeros_like(self.noise), self.noise.new_zeros(self.horizon, 1)
        towards[: len(rows)] = self.from_units(rows).to(towards)
        mask = soft_mask(len(going_on.rows), going_on.frozen)[: self.horizon]
        weights[: len(rows), 0] = torch.from_numpy(mask).to(weights)
        return towards, weights

    def _guided_velocity(
        self,
        x: torch.Tensor,
        s: float,
        condition: torch.Tensor,
        towards: torch.Tensor,
        weights: torch.Tensor,
    ) -> torch.Tensor:
        """The velocity at x_s, and what leads it towards the rows that go on."""
        x = x.detach().requires_grad_()
        velocity = self._velocity(x, x.new_full((x.shape[0],), s), condition)
        chunk = x + (1 - s) * velocity
        error = weights * (towards - chunk.detach())
        (back,) = torch.autograd.grad(chunk, x, error)
        return velocity.detach() + _guidance(s) * back

    def loss(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Squared error of the velocity at one random point of the path of each sample."""
        noise = torch.randn_like(targets)
        at = torch.rand(targets.shape[0], dtype=targets.dtype, device=targets.device)
        x = torch.lerp(noise, targets, at[:, None, None])
        velocity = self._velocity(x, at, self.condition(self.steps(tokens)))
        return (velocity - (targets - noise)).square().mean(dim=2)

    def _velocity(self, x: torch.Tensor, at: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        time = get_timestep_embedding(at * 1000, _TIME_WIDTH).to(x.dtype)
        given = torch.cat([condition.flatten(1), x.flatten(1), time], dim=1)
        return self.network(given).view_as(x)


def _guidance(s: float) -> float:
    """How strongly x_s is led: (1 - s) / (s r^2), r^2 = (1 - s)^2 / (s^2 + (1 - s)^2), bounded.

    Without the bound it would be infinite at both ends of the path.
    """
    unbounded = (s**2 + (1 - s) ** 2) / (s * (1 - s)) if 0 < s < 1 else math.inf
    return min(STRONGEST_GUIDANCE, unbounded)
