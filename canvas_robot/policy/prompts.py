"""PromptFolder: prompt embeddings on disk, so that the text encoder need not live on the robot.

One folder holds the prompts of one text encoder. Its files are trusted no more than any other
input: what is not exactly what was written is refused by its path. Nothing is encoded here.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from canvas_robot.backbone.digest import digest_of
from canvas_robot.backbone.loading import DTYPES, Backbone

_INDEX = "text_encoder.json"


class PromptFileError(ValueError):
    """A prompt folder or a file in it is not what was written, or belongs to another encoder."""


class PromptNotCachedError(ValueError):
    """A prompt has no embedding on disk, and there is no text encoder to make one."""


class TextEncoderId(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose embeddings a folder holds, and their form.

    backbone: the source it was loaded from, for messages.
    sha256: fingerprint of the text encoder, its tokenizer included (Backbone.sha256).
    max_tokens, width: shape of an embedding; dtype: as the encoder computed it.
    """

    backbone: str
    sha256: str
    max_tokens: int
    width: int
    dtype: str

    def __post_init__(self) -> None:
        if not (re.fullmatch("[0-9a-f]{64}", self.sha256) and self.backbone.isprintable()):
            raise ValueError("sha256, backbone: expected 64 hex digits and printable characters")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype: expected one of {', '.join(DTYPES)}, got {self.dtype!r}")

    @classmethod
    def of(cls, backbone: Backbone) -> TextEncoderId:
        """That of a backbone whose text encoder is loaded."""
        return cls(
            backbone=backbone.source,
            sha256=backbone.sha256["text_encoder"],
            max_tokens=backbone.transformer.config.max_text_seq_length,
            width=backbone.transformer.config.text_embed_dim,
            dtype=str(backbone.text_encoder.dtype).removeprefix("torch."),
        )


@dataclass(frozen=True)
class PromptFolder:
    """A folder of prompt embeddings. `open_prompts` and `create_prompts` make one."""

    path: Path
    encoder: TextEncoderId

    def file(self, prompt: str) -> Path:
        """Where the embedding of a prompt lies, or would lie."""
        key = json.dumps([prompt, self.encoder.sha256, self.encoder.max_tokens])
        return self.path / f"{hashlib.sha256(key.encode()).hexdigest()}.safetensors"

    def prompts(self) -> list[str]:
        """Texts of all prompts in the folder, sorted; raises PromptFileError for a spoilt file."""
        return sorted(_metadata(path).get("prompt", "") for path in self._files())

    def load(self, prompt: str) -> torch.Tensor:
        """The embedding (max_tokens, width), bit for bit as it was saved.

        Raises PromptNotCachedError where there is none, with the command that adds it;
        PromptFileError for a file that is not the one that was written.
        """
        path = self.file(prompt)
        if not path.is_file():
            raise PromptNotCachedError(
                f"instruction {prompt!r}: not among the {len(self._files())} prompts in "
                f"{self.path}, and the text encoder is not loaded; where it is, run: "
                f"{add_command(self.encoder.backbone, prompt, str(self.path))}"
            )
        expected = (self.encoder.max_tokens, self.encoder.width)
        metadata = _metadata(path)
        try:
            with safe_open(path, framework="pt") as file:
                names = list(file.keys())
                if names != ["embedding"]:
                    raise PromptFileError(f"{path}: expected one tensor 'embedding', got {names}")
                shape = tuple(file.get_slice("embedding").get_shape())
                if shape != expected:
                    raise PromptFileError(f"{path}: expected shape {expected}, got {shape}")
                embedding = file.get_tensor("embedding")
        except (SafetensorError, OSError) as error:
            raise PromptFileError(f"{path}: expected a safetensors file, got {error}") from error
        if embedding.dtype != DTYPES[self.encoder.dtype]:
            raise PromptFileError(
                f"{path}: expected {self.encoder.dtype}, the text encoder's dtype, "
                f"got {embedding.dtype}"
            )
        if metadata != self._metadata_of(prompt, embedding):
            raise PromptFileError(
                f"{path}: its contents are not those that were written for prompt {prompt!r} and "
                f"text encoder {self.encoder.sha256[:12]}...; delete it and make it anew"
            )
        if not torch.isfinite(embedding).all():
            raise PromptFileError(f"{path}: expected finite numbers, got NaN or infinity")
        return embedding

    def save(self, prompt: str, embedding: torch.Tensor) -> Path:
        """Writes an embedding (max_tokens, width) in its own dtype, whole or not at all."""
        embedding = embedding.detach().cpu().contiguous()
        path = self.file(prompt)
        partial = path.with_suffix(f".{os.getpid()}.part")
        save_file({"embedding": embedding}, partial, self._metadata_of(prompt, embedding))
        os.replace(partial, path)
        return path

    def _files(self) -> list[Path]:
        return list(self.path.glob("*.safetensors"))

    def _metadata_of(self, prompt: str, embedding: torch.Tensor) -> dict[str, str]:
        return {
            "prompt": prompt,
            "text_encoder": self.encoder.sha256,
            "sha256": digest_of([("embedding", embedding)]),
        }


def open_prompts(path: str | Path, backbone: Backbone) -> PromptFolder:
    """The prompt folder at a path, for a backbone.

    Where the backbone's text encoder is loaded, the folder must be that encoder's; where it is not,
    only the shape of the embeddings can be checked.

    Raises FileNotFoundError where there is no such folder, PromptFileError where it is not a prompt
    folder or one of another encoder.
    """
    path = Path(path).expanduser()
    index = path / _INDEX
    if not index.is_file():
        raise FileNotFoundError(
            f"{path}: expected a folder made by `canvas-robot prompts`, found no {_INDEX} in it"
        )
    try:
        found = msgspec.json.decode(index.read_bytes(), type=TextEncoderId)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PromptFileError(f"{index}: {error}") from error
    config = backbone.transformer.config
    shape, expected = (
        (found.max_tokens, found.width),
        (config.max_text_seq_length, config.text_embed_dim),
    )
    if shape != expected:
        raise PromptFileError(
            f"{path}: holds embeddings of (tokens, width) {shape}, "
            f"backbone {backbone.source!r} needs {expected}"
        )
    if backbone.text_encoder is not None:
        _require_same_encoder(path, found, TextEncoderId.of(backbone))
    return PromptFolder(path, found)


def create_prompts(path: str | Path, backbone: Backbone) -> PromptFolder:
    """The prompt folder at a path, made where there is none.

    The backbone's text encoder must be loaded. Raises PromptFileError as `open_prompts` does.
    """
    path = Path(path).expanduser()
    path.mkdir(parents=True, exist_ok=True)
    if not (path / _INDEX).is_file():
        partial = path / f"{_INDEX}.{os.getpid()}.part"
        encoder = msgspec.json.encode(TextEncoderId.of(backbone))
        partial.write_bytes(msgspec.json.format(encoder) + b"\n")
        os.replace(partial, path / _INDEX)
    return open_prompts(path, backbone)


def add_command(backbone: str, prompt: str, folder: str = "FOLDER") -> str:
    """The command line that adds a prompt's embedding to a folder."""
    return shlex.join(
        ["canvas-robot", "prompts", "--backbone", backbone, "--out", folder, "--", prompt]
    )


def _require_same_encoder(path: Path, found: TextEncoderId, loaded: TextEncoderId) -> None:
    if (found.sha256, found.dtype) != (loaded.sha256, loaded.dtype):
        raise PromptFileError(
            f"{path}: holds prompts of another text encoder, sha256 {found.sha256[:12]}... in "
            f"{found.dtype}; that of backbone {loaded.backbone!r} has {loaded.sha256[:12]}... in "
            f"{loaded.dtype}; use a folder for each"
        )


def _metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise PromptFileError(f"{path}: expected a safetensors file, got {error}") from error
