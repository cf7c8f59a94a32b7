"""From a configuration to what a plain policy learns from: the canvas policies' windows, squashed.

The same reader cuts the same episodes into the same windows; only the pictures come smaller.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from canvas_robot.data.bridge import BridgeV2
from canvas_robot.data.transitions import chosen
from canvas_robot.data.windows import WindowReader
from canvas_robot.resources import resolve_config
from canvas_robot.schema import CanvasSchema
from canvas_robot.signals import Binding, ImageSignal, Statistics, load_statistics
from canvas_robot.training.config import OFF
from canvas_robot.training.plain_config import PlainTrainConfig
from canvas_robot.training.plain_pictures import PicturesError, bytes_of, squashed_pictures
from canvas_robot.training.training_data import (
    Source,
    TrainingData,
    by_signal,
    divided,
    require_holdout,
)

Told = Callable[[str, int, int], None]
"""Called with what is done, how much of it, and how much there is."""


def open_plain_data(
    config: PlainTrainConfig, schema: CanvasSchema, binding: Binding, folder: Path, told: Told
) -> TrainingData:
    """Opens the data of a configuration.

    Args:
        folder: where the squashed pictures lie, or are put.
        told: of indexing and squashing.
    Raises:
        PicturesError: they would be larger than `pictures_gb`; what BridgeV2, WindowReader and
            `chosen` raise; ConfigError for a split that is not there, or a fraction that leaves no
            episode on one side.
    """
    data = config.data
    sources = [_source(config, data.split, schema, binding, told)]
    if isinstance(data.holdout, str) and data.holdout != OFF:
        require_holdout(data, sources[0].dataset)
        sources.append(_source(config, data.holdout, schema, binding, told))
    _require_room(config, sources)
    sources = [_squashed(config, source, schema, binding, folder, told) for source in sources]
    if isinstance(data.holdout, float):
        sources = list(divided(sources[0], data.holdout))
    return TrainingData(data, sources[0], sources[1] if len(sources) > 1 else None, {})


def statistics_for(
    config: PlainTrainConfig, binding: Binding, data: TrainingData
) -> dict[str, Statistics]:
    """Those of a file, or computed from what is trained on, by the binding's names of signals."""
    if config.statistics != "data":
        return load_statistics(resolve_config("statistics", config.statistics))
    return by_signal(data.statistics(), binding)


def _source(
    config: PlainTrainConfig, split: str, schema: CanvasSchema, binding: Binding, told: Told
) -> Source:
    data = config.data
    dataset = BridgeV2(
        Path(data.folder).expanduser(),
        split,
        skip_corrupt=data.skip_corrupt,
        progress=lambda done, total: told("indexing the data", done, total),
    )
    reader = WindowReader(dataset, schema, binding, data.rules)
    return Source(dataset, reader, chosen(dataset, data.rules, reader.cameras))


def _require_room(config: PlainTrainConfig, sources: list[Source]) -> None:
    size = config.network.image_size
    needed = sum(
        bytes_of(source.dataset, source.selection.episodes, size) * len(source.reader.cameras)
        for source in sources
    )
    if needed > config.pictures_gb * 1e9:
        raise PicturesError(
            f"pictures_gb: the pictures squashed to {size[0]}x{size[1]} are {needed / 1e9:.2f} GB, "
            f"expected at most {config.pictures_gb:g}; allow more, or choose a smaller "
            "network.image_size or fewer episodes"
        )


def _squashed(
    config: PlainTrainConfig,
    source: Source,
    schema: CanvasSchema,
    binding: Binding,
    folder: Path,
    told: Told,
) -> Source:
    """The source with a reader that takes its pictures from files."""
    dataset, episodes = source.dataset, source.selection.episodes
    by_camera = {
        camera: squashed_pictures(
            folder / f"{dataset.split}_{camera}.npy",
            dataset,
            camera,
            episodes,
            config.network.image_size,
            lambda done, total: told("squashing the pictures", done, total),
        )
        for camera in source.reader.cameras
    }
    signals = {region: binding.regions[region].signal for region in binding.observed_regions()}
    pictures = {
        region: by_camera[binding.sources.dataset[signal]]
        for region, signal in signals.items()
        if isinstance(binding.signals[signal], ImageSignal)
    }
    reader = WindowReader(dataset, schema, binding, config.data.rules, pictures)
    return replace(source, reader=reader)
