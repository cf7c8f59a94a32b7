"""What encoding a data set takes: which cameras at which sizes, which files, how many bytes.

Also opens what was encoded, by region. Nothing is encoded here; that is encode_dataset.py's.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from canvas_robot.backbone.image_encoder import ImageEncoder
from canvas_robot.backbone.loading import Backbone
from canvas_robot.data.bridge import BridgeV2
from canvas_robot.data.download import gigabytes
from canvas_robot.data.latent_files import (
    MANIFEST,
    LatentCacheError,
    LatentKey,
    LatentManifest,
    Recipe,
    Size,
    differences,
    open_file,
    read_manifest,
)
from canvas_robot.data.latents import LatentCache
from canvas_robot.policy.codecs.visual import VisualCodec
from canvas_robot.schema import CanvasSchema
from canvas_robot.signals import Binding

EPISODES_PER_FILE = 16  # 20 MB of CogVideoX's latents at 256x256


@dataclass(frozen=True, eq=False)
class Part:
    """What one camera's frames at one size become: the codec that encodes them, and their cache.

    frames: (episodes,) latents of each, about: of one without pictures there is one for each crop.
    whole: (files,) which are there.
    """

    codec: VisualCodec
    manifest: LatentManifest
    folder: Path
    frames: np.ndarray
    whole: np.ndarray

    def frames_of(self, number: int) -> int:
        """Latents of file `number`."""
        return int(self.frames[list(self.manifest.episodes_of(number))].sum())


@dataclass(frozen=True, eq=False)
class EncodingPlan:
    """What is to be encoded, of which data, into which caches; `plan_encoding` makes one."""

    dataset: BridgeV2
    folder: Path
    backbone: Backbone
    parts: tuple[Part, ...]

    @property
    def files(self) -> int:
        """Files of each cache."""
        return self.parts[0].manifest.files

    @property
    def bytes_expected(self) -> int:
        """Of all latents."""
        return sum(part.manifest.bytes_of(int(part.frames.sum())) for part in self.parts)

    @property
    def bytes_there(self) -> int:
        """Of the latents in whole files."""
        return sum(
            part.manifest.bytes_of(part.frames_of(int(number)))
            for part in self.parts
            for number in np.flatnonzero(part.whole)
        )

    @property
    def bytes_free(self) -> int:
        """Of the disk that they go to."""
        return shutil.disk_usage(self.folder).free

    def require_space(self) -> None:
        """Raises OSError where the latents that are still to be made do not fit the disk."""
        needed, free = self.bytes_expected - self.bytes_there, self.bytes_free
        if free < needed:
            raise OSError(
                f"{self.folder}: the latents need {gigabytes(needed)}, {gigabytes(free)} are free; "
                "make room, or choose another disk with --out or fewer --crops"
            )


def camera_sizes(
    schema: CanvasSchema, binding: Binding, pixels: int
) -> dict[str, tuple[str, Size]]:
    """By visual region, its camera of the data set and the (H, W) pixels that its codec encodes.

    `pixels`: along the side of a token. Raises LatentCacheError for a camera without a source.
    """
    found = {}
    for region in binding.regions_by_codec("visual"):
        signal = binding.regions[region].signal
        if signal not in binding.sources.dataset:
            raise LatentCacheError(
                f"binding: sources.dataset: expected the camera of signal {signal!r}, which region "
                f"{region!r} shows; got those of {sorted(binding.sources.dataset)}"
            )
        _, h, w = schema.layout.region_size(region)
        size = (h * pixels, w * pixels)
        found[region] = (binding.sources.dataset[signal], size)
    return found


def latent_keys(
    dataset: BridgeV2, schema: CanvasSchema, binding: Binding, backbone: Backbone, crops: int = 1
) -> dict[str, LatentKey]:
    """By visual region, the key of what it shows; regions may share one.

    Raises LatentCacheError for a schema of another backbone, a framing that is not cached, or a
    camera that is not there.
    """
    if schema.layout.d_model != backbone.width:
        raise LatentCacheError(
            f"schema: expected d_model {backbone.width}, the width of backbone "
            f"{backbone.source!r}, got {schema.layout.d_model}; choose the schema made for it"
        )
    framing = schema.metadata.get("framing", "image")
    if framing != "image":
        raise LatentCacheError(f"schema: metadata.framing: expected 'image', got {framing!r}")
    shown = camera_sizes(schema, binding, backbone.pixels_per_token)
    for region, (camera, _) in shown.items():
        if camera not in dataset.cameras:
            raise LatentCacheError(
                f"binding: sources.dataset: region {region!r}: expected a camera of {dataset!r}, "
                f"{' or '.join(dataset.cameras)}; got {camera!r}"
            )
    return {
        region: LatentKey(
            split=dataset.split,
            camera=camera,
            image_size=size,
            dataset=dataset.fingerprint,
            vae=backbone.sha256["vae"],
            crops=crops,
        )
        for region, (camera, size) in shown.items()
    }


def open_latents(
    folder: str | Path,
    dataset: BridgeV2,
    schema: CanvasSchema,
    binding: Binding,
    backbone: Backbone,
    crops: int = 1,
) -> dict[str, LatentCache]:
    """By visual region, the cache of what it shows; raises as `LatentCache.open` does."""
    keys = latent_keys(dataset, schema, binding, backbone, crops)
    caches = {key: LatentCache.open(folder, key) for key in dict.fromkeys(keys.values())}
    return {region: caches[key] for region, key in keys.items()}


def plan_encoding(
    dataset: BridgeV2,
    folder: str | Path,
    schema: CanvasSchema,
    binding: Binding,
    backbone: Backbone,
    recipe: Recipe,
    crops: int = 1,
) -> EncodingPlan:
    """What encoding takes, and what of it is there. Writes the caches' manifests, nothing else.

    Args:
        backbone: with its text encoder.
        recipe: how to say it again, for messages.
        crops: of each picture, the whole one included.
    Raises:
        LatentCacheError: the folder holds a cache of something else, the schema shows no camera, or
            there are no episodes.
    """
    folder = Path(folder).expanduser()
    keys = dict.fromkeys(latent_keys(dataset, schema, binding, backbone, crops).values())
    if not keys or not len(dataset):
        raise LatentCacheError(
            f"expected episodes, and a region of codec visual to encode them for; got "
            f"{len(dataset)} in {dataset!r}, and regions {list(binding.regions_by_codec('visual'))}"
        )
    encoder = ImageEncoder(backbone.vae)
    parts = tuple(_part(folder, key, dataset, encoder, backbone, recipe) for key in keys)
    return EncodingPlan(dataset, folder, backbone, parts)


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a file whole or not at all, whoever else writes the same."""
    partial = path.with_name(f"{path.name}.{socket.gethostname()}-{os.getpid()}.part")
    try:
        write(partial)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _part(
    folder: Path,
    key: LatentKey,
    dataset: BridgeV2,
    encoder: ImageEncoder,
    backbone: Backbone,
    recipe: Recipe,
) -> Part:
    own, latent = folder / key.folder, tuple(side // encoder.stride for side in key.image_size)
    embed = backbone.transformer.patch_embed
    manifest = LatentManifest(
        key=key,
        shape=(encoder.latent_channels, *latent),
        episodes=len(dataset),
        episodes_per_file=EPISODES_PER_FILE,
        computed_in=str(backbone.vae.dtype).removeprefix("torch."),
        recipe=recipe,
    )
    _write_manifest(own, manifest)
    steps = np.asarray(dataset.steps, np.int64)
    seen = dataset.pictures[:, dataset.cameras.index(key.camera)]
    return Part(
        VisualCodec(encoder, backbone.vae, embed, (1, *latent), camera=key.camera),
        manifest,
        own,
        np.where(seen, steps, 1) * key.crops,
        np.array([_is_whole(own, manifest, number, steps) for number in range(manifest.files)]),
    )


def _write_manifest(folder: Path, manifest: LatentManifest) -> None:
    """Raises LatentCacheError where the folder has one of something else."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / MANIFEST).is_file():
        text = msgspec.json.format(msgspec.json.encode(manifest)) + b"\n"
        write_whole(folder / MANIFEST, lambda path: path.write_bytes(text))
    wrong = differences(manifest.facts(), read_manifest(folder).facts())
    if wrong:
        raise LatentCacheError(
            f"{folder}: {wrong}; choose another folder with --out, or delete this one"
        )


def _is_whole(folder: Path, manifest: LatentManifest, number: int, steps: np.ndarray) -> bool:
    """Whether a file is there, and of these episodes; a spoilt one is made anew."""
    try:
        note = open_file(folder, manifest, number).note
    except LatentCacheError:
        return False
    return note.steps == steps[list(manifest.episodes_of(number))].tolist()
