"""Fingerprints of a backbone's parts: one sha256 each, of all that says what the part computes.

Weights are taken as stored (in files) or as drawn (from a seed), before any cast or quantisation: a
policy trained on bfloat16 weights finds its backbone again in float32 or int8.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import nn


def digest_of(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    """sha256 over names, dtypes, shapes and bytes, in the order given; sort them by name."""
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def digest_of_module(module: nn.Module) -> str:
    """Of what the module would save: each weight once, however many names it has."""
    once = dict(module.named_parameters()) | dict(module.named_buffers())
    state = module.state_dict()
    return digest_of((name, state[name]) for name in sorted(set(once) & set(state)))


def digest_of_part(weights: str, configuration: bytes, files: Sequence[Path] = ()) -> str:
    """Of a part whose weights have that digest.

    Args:
        weights: digest_of its weights.
        configuration: what it is made of, the same for equal ones.
        files: whatever else its function depends on: of a text encoder, its tokenizer's.
    """
    digest = hashlib.sha256(f"weights {weights}\n".encode())
    digest.update(b"configuration %d\n" % len(configuration) + configuration)
    for path in files:
        digest.update(f"\n{digest_of_file(path)} {path.name}".encode(errors="surrogateescape"))
    return digest.hexdigest()


def digest_of_file(path: Path) -> str:
    """SHA-256, in hex, of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
