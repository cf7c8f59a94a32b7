"""From a configuration to the parts of a run: the one place where its files are chosen."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from canvas_robot.backbone.loading import DTYPES, Backbone, load_backbone
from canvas_robot.data.index import Progress
from canvas_robot.policy.model import CanvasModel
from canvas_robot.policy.prompts import open_prompts
from canvas_robot.resources import resolve_config, schema_path
from canvas_robot.schema import CanvasSchema
from canvas_robot.signals import Binding, Statistics, load_binding, load_statistics
from canvas_robot.training.beginnings import begin_from
from canvas_robot.training.config import TrainConfig
from canvas_robot.training.objective import Objective
from canvas_robot.training.run_folder import RunFolder
from canvas_robot.training.training_data import TrainingData, by_signal, open_data


@dataclass(frozen=True, eq=False)
class Parts:
    """What a run is made of. `objective` holds the model; the backbone is grafted into it."""

    config: TrainConfig
    schema: CanvasSchema
    binding: Binding
    statistics: dict[str, Statistics]
    backbone: Backbone
    data: TrainingData
    objective: Objective

    @property
    def counts(self) -> tuple[int, int]:
        """Parameters that train, and those that do not, text encoder and VAE included."""
        own = {id(p) for p in self.objective.trained().values()}
        sizes = [(id(p) in own, p.numel()) for p in self.objective.parameters()]
        return sum(n for trains, n in sizes if trains), sum(n for trains, n in sizes if not trains)


def build_parts(
    config: TrainConfig,
    accelerator: Accelerator,
    run: RunFolder | None = None,
    progress: Progress | None = None,
) -> Parts:
    """Builds the parts of a run on the accelerator's device; all processes call it together.

    Args:
        run: its declarations and statistics are used; None: those that the configuration names.
        progress: called while an index is made.
    Raises:
        ValueError, FileNotFoundError and the like, naming the file or key, for parts that are
            missing or do not fit one another.
    """
    schema = run.schema() if run else CanvasSchema.from_json(schema_path(config.schema))
    binding = run.binding() if run else load_binding(resolve_config("bindings", config.binding))
    binding.check_schema(schema)
    backbone = load_backbone(
        config.backbone.source,
        DTYPES[config.backbone.dtype],
        revision=config.backbone.revision or None,
        device=accelerator.device,
        text_encoder=not config.prompts,
        int8=config.backbone.int8,
    )
    prompts = open_prompts(config.prompts, backbone) if config.prompts else None
    with accelerator.main_process_first():  # the others find its index
        data = open_data(config, schema, binding, backbone, progress)
    statistics = run.statistics() if run else _statistics(config, binding, data, accelerator)
    torch.manual_seed(config.seed)
    model = CanvasModel(schema, binding, statistics, backbone, config.loops, prompts, config.freeze)
    if config.start_from and run is None:
        begin_from(model, schema, binding, config.start_from)
    objective = Objective(model.to(accelerator.device), schema, config.mode)
    return Parts(config, schema, binding, statistics, backbone, data, objective)


def _statistics(
    config: TrainConfig, binding: Binding, data: TrainingData, accelerator: Accelerator
) -> dict[str, Statistics]:
    """Those of a file, or computed by the main process, by the binding's names of signals."""
    if config.statistics != "data":
        return load_statistics(resolve_config("statistics", config.statistics))
    found = [None]
    if accelerator.is_main_process:
        found = [data.statistics()]
    (computed,) = broadcast_object_list(found)
    return by_signal(computed, binding)
