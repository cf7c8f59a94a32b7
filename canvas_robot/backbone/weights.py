"""Giving a part its weights, one tensor at a time: checked, fingerprinted, cast.

They come from safetensors files or a generator; what is fingerprinted is what is used. Nothing else
of a folder is read, so that nothing in it can run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from canvas_robot.backbone.configuration import BackboneConfiguration, BackboneError
from canvas_robot.backbone.digest import digest_of

STORED = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}  # by safetensors' names
ALIASES = {"encoder.embed_tokens.weight": "shared.weight"}  # T5's one table of tokens


def number_format(module: nn.Module, name: str, dtype: torch.dtype) -> torch.dtype:
    """What a part loaded as `dtype` keeps a tensor in: T5's `wo` layers would overflow float16."""
    if dtype != torch.float16:
        return dtype
    kept = set(module._keep_in_fp32_modules or ())
    return dtype if kept.isdisjoint(name.split(".")) else torch.float32


def cast(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Casts parameters and buffers in place to their number formats.

    Past diffusers' own `to`, which warns of modules to keep in float32 when there are none.
    """
    for name, tensor in chain(module.named_parameters(), module.named_buffers()):
        tensor.data = tensor.data.to(number_format(module, name, dtype))
    return module


def empty(configuration: BackboneConfiguration, part: str) -> nn.Module:
    """A part whose parameters have shapes only; sin-cos positions, its one table, are computed."""
    module = configuration.skeleton(part)
    if part == "transformer" and module.patch_embed.use_positional_embeddings:
        embed = module.patch_embed
        embed.pos_embedding = embed._get_positional_embeddings(
            embed.sample_height, embed.sample_width, embed.sample_frames
        )
    return module


def fill(module: nn.Module, tensors: Iterable[tuple[str, torch.Tensor]], dtype: torch.dtype) -> str:
    """Gives an empty part its weights, cast, as they come; their digest.

    They are all its parameters, sorted by name. Those of a file that need no cast stay mapped from
    it, so that int8 holds one layer more than it keeps.
    """

    def used() -> Iterator[tuple[str, torch.Tensor]]:
        for name, tensor in tensors:
            yield name, tensor
            owner, _, leaf = name.rpartition(".")
            own = nn.Parameter(tensor.to(number_format(module, name, dtype)))
            setattr(module.get_submodule(owner), leaf, own)

    digest = digest_of(used())
    for alias, name in ALIASES.items():
        if name in dict(module.named_parameters()):
            owner, _, leaf = alias.rpartition(".")
            setattr(module.get_submodule(owner), leaf, module.get_parameter(name))
    cast(module, dtype)
    return digest


def load(
    configuration: BackboneConfiguration, part: str, files: Sequence[Path], dtype: torch.dtype
) -> tuple[nn.Module, str]:
    """A part with the weights in safetensors files, and their digest.

    How the weights are spread over the files does not matter.

    Raises BackboneError, naming the file and the tensor: for a file that is no safetensors file,
    weights that are missing, unknown, of another shape, in another format than float32, bfloat16
    and float16, or not finite in `dtype`.
    """
    module = empty(configuration, part)
    with ExitStack() as stack:
        opened = [(path, stack.enter_context(_opened(path))) for path in files]
        found = {name: _Stored(path, file, name) for path, file in opened for name in file.keys()}
        # Backwards: where T5's table is stored under both names, the encoder reads its own.
        weights = {ALIASES.get(name, name): found[name] for name in sorted(found, reverse=True)}
        _require_described(files[0].parent, module, weights)
        return module, fill(module, _read(module, weights, dtype), dtype)


class _Stored(NamedTuple):
    """A tensor in a file."""

    path: Path
    file: safe_open
    name: str

    def __str__(self) -> str:
        return f"{self.path}: {self.name}"


def _opened(path: Path) -> safe_open:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise BackboneError(f"{path}: expected a safetensors file, got {error}") from error


def _require_described(folder: Path, module: nn.Module, weights: Mapping[str, _Stored]) -> None:
    """Raises BackboneError unless the weights are those that config.json describes."""
    parameters = dict(module.named_parameters())
    missing, unknown = parameters.keys() - weights.keys(), weights.keys() - parameters.keys()
    if missing or unknown:
        raise BackboneError(
            f"{folder}: expected the weights that its config.json describes; "
            f"missing {sorted(missing)[:5]}, unknown {sorted(unknown)[:5]}"
        )
    for name, stored in weights.items():
        header, shape = stored.file.get_slice(stored.name), list(parameters[name].shape)
        if header.get_dtype() not in STORED:
            raise BackboneError(
                f"{stored}: expected {', '.join(STORED.values())}, got {header.get_dtype()}"
            )
        if header.get_shape() != shape:
            raise BackboneError(
                f"{stored}: expected shape {shape}, as config.json says, got {header.get_shape()}"
            )


def _read(
    module: nn.Module, weights: Mapping[str, _Stored], dtype: torch.dtype
) -> Iterator[tuple[str, torch.Tensor]]:
    """All weights, sorted by name; raises BackboneError for one that is not finite once cast."""
    for name, stored in sorted(weights.items()):
        tensor, own = stored.file.get_tensor(stored.name), number_format(module, name, dtype)
        if not torch.stack(tensor.aminmax()).to(own).isfinite().all():
            raise BackboneError(
                f"{stored}: expected weights that are finite in {own}, got NaN, infinity or one "
                "beyond its range"
            )
        yield name, tensor
