"""What files of encoded frames say of themselves, and opening them: keys, manifests, names.

They are trusted no more than any other input: what is not as the manifest says is refused by its
path. Reading frames is latents.py's, writing them encode_dataset.py's; no torch here.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta
from safetensors import SafetensorError, safe_open

from canvas_robot.data.crops import RULE

Size = tuple[int, int]  # (H, W) of a picture in pixels

MANIFEST = "manifest.json"
_LONGEST_MANIFEST = 65_536  # bytes; a real one has less than two thousand

Count = Annotated[int, Meta(ge=1, le=10**9)]
Side = Annotated[int, Meta(ge=1, le=65_536)]
Text = Annotated[str, Meta(max_length=4096)]


class LatentCacheError(ValueError):
    """A folder is no latent cache, not a whole one, or not one for what it is used with."""


class _Declared(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class LatentKey(_Declared):
    """What latents were made of; caches of equal keys hold the same.

    split, camera: of the data set; dataset: its fingerprint.
    image_size: (H, W) pixels that pictures were squashed to.
    vae: fingerprint of the VAE (Backbone.sha256). framing: of the schema.
    crops: how many there are of each picture, the whole one included.
    dtype: of the stored numbers.
    """

    split: str
    camera: str
    image_size: tuple[Side, Side]
    dataset: str
    vae: str
    framing: Literal["image"] = "image"
    crops: Annotated[int, Meta(ge=1, le=1024)] = 1
    dtype: Literal["float16"] = "float16"

    def __post_init__(self) -> None:
        for name in ("split", "camera"):  # they become part of a path
            if not re.fullmatch(r"\w[\w.-]{0,99}", getattr(self, name)):
                raise ValueError(
                    f"{name}: expected a name of letters, digits, '_', '.' and '-', "
                    f"got {getattr(self, name)[:100]!r}"
                )
        for name in ("dataset", "vae"):
            if not re.fullmatch("[0-9a-f]{64}", getattr(self, name)):
                raise ValueError(
                    f"{name}: expected 64 hex digits, got {getattr(self, name)[:80]!r}"
                )

    @property
    def folder(self) -> str:
        """Name of its folder among others."""
        height, width = self.image_size
        return f"{self.split}-{self.camera}-{height}x{width}"


class Recipe(_Declared):
    """What a cache was made from, as arguments of `canvas-robot data encode`; for messages only."""

    data: Text
    backbone: Text
    schema: Text
    binding: Text

    def __post_init__(self) -> None:
        if not all(value.isprintable() for value in msgspec.structs.astuple(self)):
            raise ValueError("recipe: expected printable characters only")


class LatentManifest(_Declared):
    """manifest.json: what the files of a cache hold, and how to make those that are missing.

    shape: (C, h, w) of a latent.
    episodes: of the split; episodes_per_file: all files but the last hold so many.
    computed_in: precision of the VAE.
    boxes: how crops are drawn, see crops.py.
    """

    key: LatentKey
    shape: tuple[Side, Side, Side]
    episodes: Count
    episodes_per_file: Count
    computed_in: Literal["float32", "bfloat16", "float16"]
    recipe: Recipe
    boxes: Literal[RULE] = RULE
    format: Literal[1] = 1

    @property
    def files(self) -> int:
        """Number of files of a whole cache."""
        return -(-self.episodes // self.episodes_per_file)

    def episodes_of(self, number: int) -> range:
        """The episodes that file `number` holds."""
        first = number * self.episodes_per_file
        return range(first, min(first + self.episodes_per_file, self.episodes))

    def file(self, number: int) -> str:
        """Name of file `number`."""
        episodes = self.episodes_of(number)
        return f"{episodes[0]:06d}-{episodes[-1]:06d}.safetensors"

    def bytes_of(self, latents: int) -> int:
        """Size of so many latents."""
        return latents * 2 * math.prod(self.shape)

    def facts(self) -> dict[str, object]:
        """By name, all that must be equal in what two runs write: everything but the recipe."""
        fields = msgspec.structs.asdict(self.key) | msgspec.structs.asdict(self)
        return {name: value for name, value in fields.items() if name not in ("key", "recipe")}

    def command(self, folder: Path) -> str:
        """The command line that makes what is missing of it; folder: of all caches."""
        recipe, key = self.recipe, self.key
        command = ["canvas-robot", "data", "encode", recipe.data, "--backbone", recipe.backbone]
        command += ["--schema", recipe.schema, "--binding", recipe.binding, "--out", str(folder)]
        command += ["--split", key.split, "--crops", str(key.crops), "--dtype", self.computed_in]
        return shlex.join(command)


class RangeNote(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a file says of its episodes: how many steps each has, and what they were told to do."""

    steps: list[int]
    instructions: list[str]


class LatentFile(NamedTuple):
    """An opened file: `rows` is safetensors' own reader, by tensor name."""

    rows: safe_open
    note: RangeNote


def tensor_name(episode: int, crop: int) -> str:
    """Name of an episode's latents (T, C, h, w) in their file; (1, C, h, w) if all are alike."""
    return f"{episode}.{crop}"


def read_manifest(folder: Path) -> LatentManifest:
    """The manifest in a cache's folder; raises LatentCacheError, naming the field."""
    path = folder / MANIFEST
    if path.stat().st_size > _LONGEST_MANIFEST:
        raise LatentCacheError(f"{path}: expected at most {_LONGEST_MANIFEST} bytes, got more")
    try:
        return msgspec.json.decode(path.read_bytes(), type=LatentManifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LatentCacheError(f"{path}: {error}") from error


def open_file(folder: Path, manifest: LatentManifest, number: int) -> LatentFile:
    """One file of a cache, its names, shapes and types checked; no latents are read.

    Raises LatentCacheError for one that is not what the manifest says.
    """
    path, episodes = folder / manifest.file(number), manifest.episodes_of(number)
    try:
        rows = safe_open(path, framework="np")
        note = msgspec.json.decode((rows.metadata() or {}).get("range", ""), type=RangeNote)
        found = {name: rows.get_slice(name) for name in rows.keys()}
        expected = _expected_shapes(manifest, episodes, note)
        wrong = found.keys() ^ expected.keys() or {
            name
            for name, shapes in expected.items()
            if found[name].get_dtype() != "F16" or tuple(found[name].get_shape()) not in shapes
        }
    except (SafetensorError, OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        wrong, cause = {str(error)}, error
    else:
        cause = None
    if wrong:
        shape = ", ".join(map(str, manifest.shape))
        raise LatentCacheError(
            f"{path}: expected the latents of episodes {episodes[0]} to {episodes[-1]}, each "
            f"(steps, {shape}) float16; wrong: {', '.join(sorted(wrong)[:3])}; delete it and run: "
            f"{manifest.command(folder.parent)}"
        ) from cause
    return LatentFile(rows, note)


def _expected_shapes(
    manifest: LatentManifest, episodes: range, note: RangeNote
) -> dict[str, set[tuple[int, ...]]]:
    """By name of every tensor of a file, the shapes that it may have."""
    counts = note.steps if len(note.steps) == len(episodes) else []
    return {
        tensor_name(episode, crop): {(rows, *manifest.shape) for rows in (1, steps)}
        for episode, steps in zip(episodes, counts, strict=False)
        for crop in range(manifest.key.crops)
    }


def differences(wanted: Mapping, there: Mapping) -> str:
    """The fields that differ, each with what is expected and what is there; "" for none."""
    return "; ".join(
        f"{name}: expected {_shown(wanted[name])}, the cache holds {_shown(there[name])}"
        for name in wanted
        if wanted[name] != there[name]
    )


def _shown(value: object) -> str:
    digest = isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value)
    return f"{value[:12]}..." if digest else repr(value)
