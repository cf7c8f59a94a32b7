"""PlainNetwork: pictures, numbers and an instruction's code to an action chunk, in one go.

Convolutions, the places of their features, two layers: no canvas, no backbone, no loops. What the
numbers mean is plain_model.py's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
import torch
from msgspec import Meta
from torch import nn
from torch.nn import functional as F

from canvas_robot.policy.plain_words import CODE_SIZE

Pixels = Annotated[int, Meta(ge=16, le=1024)]

KERNELS = ((5, 2), (3, 2), (3, 1), (3, 1))  # size and stride of each convolution
TOLD = 2  # of the last ones the instruction changes; on the larger maps before it takes longer
HIDDEN = 8  # units of the decision's layers, for each channel of width


class PlainShape(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a plain policy's network is made like.

    width: features of a picture; the other layers' sizes follow. 32 makes 0.13M parameters, and
        about as the square.
    image_size: (height, width) in pixels that pictures are squashed to.
    binary: components of the action, by name, that are either as low or as high as declared, such
        as a gripper: they are decided as yes or no, by cross entropy.
    """

    width: Annotated[int, Meta(ge=4, le=1024)] = 32
    image_size: tuple[Pixels, Pixels] = (96, 96)
    binary: tuple[str, ...] = ()


class Eye(nn.Module):
    """Where in a camera's pictures each of `width` features is.

    The instruction scales and shifts features (FiLM, Perez et al. 2018), so that what is looked for
    depends on it; a softmax over all cells gives its place (Finn et al. 2016).

    Args:
        frames: pictures that are seen at once.
        width: features; told: size of the instruction's vector.
    """

    def __init__(self, frames: int, width: int, told: int) -> None:
        super().__init__()
        channels = (3 * frames, width // 2, width, width, width)
        self.layers = nn.ModuleList(
            nn.Conv2d(channels[n], channels[n + 1], size, stride, size // 2)
            for n, (size, stride) in enumerate(KERNELS)
        )
        self.films = nn.ModuleList(nn.Linear(told, 2 * width) for _ in range(TOLD))
        for layer in self.layers:  # else features fade from layer to layer, and all places agree
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        for film in self.films:  # at first the instruction changes nothing
            nn.init.zeros_(film.weight)
            nn.init.zeros_(film.bias)
        self.sharpness = nn.Parameter(torch.full((width,), 2.0))

    def forward(self, pictures: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
        """(B, F, H, W, 3) uint8 and (B, told) to places (B, 2 * width): rows, then columns.

        -1 is the top or the left, 1 the bottom or the right.
        """
        features = pictures.permute(0, 1, 4, 2, 3).flatten(1, 2)  # (B, 3 F, H, W)
        features = (features.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        for layer in self.layers[:-TOLD]:
            features = F.relu(layer(features), inplace=True)
        for layer, film in zip(self.layers[-TOLD:], self.films, strict=True):
            scale, shift = film(told)[:, :, None, None].chunk(2, dim=1)
            features = F.relu(torch.addcmul(shift, layer(features), 1 + scale), inplace=True)
        return self._places(features)

    def _places(self, features: torch.Tensor) -> torch.Tensor:
        _, width, rows, columns = features.shape
        sharp = features * self.sharpness.exp().view(1, width, 1, 1)
        there = sharp.flatten(2).softmax(dim=2).unflatten(2, (rows, columns))
        down, across = (torch.linspace(-1, 1, n, device=there.device) for n in (rows, columns))
        return torch.cat([there.sum(dim=3) @ down, there.sum(dim=2) @ across], dim=1)


class PlainNetwork(nn.Module):
    """An eye for each camera, and two layers that decide.

    Args:
        frames: for each camera, how many pictures of it are seen at once.
        numbers: of all that is measured, together.
        out: (horizon, size) of the action chunk.
        width: as of PlainShape.
    """

    def __init__(
        self, frames: Sequence[int], numbers: int, out: tuple[int, int], width: int
    ) -> None:
        super().__init__()
        self.told = nn.Sequential(nn.Linear(CODE_SIZE, width), nn.GELU())
        self.eyes = nn.ModuleList(Eye(count, width, width) for count in frames)
        known, hidden = 2 * width * len(frames) + numbers + width, HIDDEN * width
        horizon, size = out
        self.decide = nn.Sequential(
            nn.Linear(known, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, horizon * size),
            nn.Unflatten(1, (horizon, size)),
        )

    def forward(
        self, pictures: Sequence[torch.Tensor], numbers: torch.Tensor, code: torch.Tensor
    ) -> torch.Tensor:
        """(B, horizon, size).

        Args:
            pictures: of each camera, (B, F, H, W, 3) uint8.
            numbers: (B, n); code: (B, CODE_SIZE), of the instruction.
        """
        told = self.told(code)
        seen = [eye(each, told) for eye, each in zip(self.eyes, pictures, strict=True)]
        return self.decide(torch.cat([*seen, numbers, told], dim=1))
