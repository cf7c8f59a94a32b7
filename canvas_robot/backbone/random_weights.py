"""Backbones with random weights from a seed.

A small one for demonstrations and tests, real-sized ones for dry runs and benchmarks.
"""

from __future__ import annotations

import torch
from torch import nn

from canvas_robot.backbone.configuration import BackboneConfiguration
from canvas_robot.backbone.digest import digest_of_module
from canvas_robot.backbone.weights import cast, empty, fill


def drawn_by_constructors(
    configuration: BackboneConfiguration, parts: tuple[str, ...], seed: int, dtype: torch.dtype
) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """All parts as their own constructors initialise them in float32, then cast; their digests.

    All parts are drawn whichever are kept, so that these are the same either way.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        modules = {part: configuration.make(part) for part in configuration.parts}
    digests = {part: digest_of_module(modules[part]) for part in parts}
    return {part: cast(modules[part], dtype) for part in parts}, digests


def drawn_uniform(
    configuration: BackboneConfiguration, parts: tuple[str, ...], seed: int, dtype: torch.dtype
) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """Parts of any size, in little more memory than their weights take; their digests."""
    modules, digests = {}, {}
    for part in parts:
        modules[part], digests[part] = draw_uniform(configuration, part, seed, dtype)
    return modules, digests


def draw_uniform(
    configuration: BackboneConfiguration, part: str, seed: int, dtype: torch.dtype
) -> tuple[nn.Module, str]:
    """One part whose weights are drawn once, in float32, and cast one by one; its digest.

    Matrices and kernels are uniform in +-1/sqrt(fan in), as torch initialises linear layers; norms
    are 1, biases 0.
    """
    module, generator = empty(configuration, part), torch.Generator().manual_seed(seed)
    shapes = {name: parameter.shape for name, parameter in module.named_parameters()}
    draws = ((name, _draw(name, shapes[name], generator)) for name in sorted(shapes))
    return module, fill(module, draws, dtype)


def _draw(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    if len(shape) < 2:
        return torch.full(shape, float(name.endswith("weight")))
    bound = shape[1:].numel() ** -0.5
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)
