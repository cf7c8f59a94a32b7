"""Exporting a pretrained transformer as a backbone's folder, for others to adapt."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
from diffusers import CogVideoXTransformer3DModel
from torch import nn

from canvas_robot.backbone.folder import write_backbone
from canvas_robot.backbone.loading import load_backbone
from canvas_robot.backbone.looped_block import LoopedCogVideoXBlock
from canvas_robot.training.export import ExportError, chosen_weights, trained_policy
from canvas_robot.training.run_folder import RunFolder


def export_backbone(
    run: str | Path, folder: str | Path, step: int | None = None, average: bool = True
) -> Path:
    """Writes the transformer that a run trained, with the VAE and text encoder that it began with.

    The blocks are taken out of their loops, so the run must have run each once: what more loops
    compute is not in the blocks alone.

    Args:
        run: folder of a run with freeze "none" or "half" and loops 1.
        folder: to write, new or empty.
        step, average: of the weights, as of `export_run`.
    Raises:
        ExportError: the run trained no transformer, or with more loops; and as `export_run`.
    """
    opened = RunFolder.open(run)
    config, facts = opened.config(), opened.facts()
    if config.freeze == "full" or config.loops != 1:
        raise ExportError(
            f"{opened.path}: expected a run that trained the transformer (freeze none or half) "
            f"with loops 1, got freeze {config.freeze}, loops {config.loops}; export the whole "
            "policy instead: canvas-robot export RUN"
        )
    weights, _, _ = chosen_weights(opened, config, step, average)
    policy = trained_policy(opened, config, facts, weights)
    whole = load_backbone(policy.source)
    transformer = _unlooped(policy.model.runner.transformer)
    whole.transformer.load_state_dict(transformer)
    target = write_backbone(folder, dataclasses.replace(whole, source=str(folder)))
    record = {"run": str(opened.path.absolute()), "config": msgspec.to_builtins(config)}
    (target / "transformer_training.json").write_bytes(
        msgspec.json.format(msgspec.json.encode(record)) + b"\n"
    )
    return target


def _unlooped(transformer: CogVideoXTransformer3DModel) -> dict[str, nn.Parameter]:
    """Weights of the blocks that the loops wrap, under the names that they have without."""
    wrapped = {
        f"transformer_blocks.{b}.original.": f"transformer_blocks.{b}."
        for b, block in enumerate(transformer.transformer_blocks)
        if isinstance(block, LoopedCogVideoXBlock)
    }
    weights = {}
    for name, parameter in transformer.state_dict().items():
        prefix = next((p for p in wrapped if name.startswith(p)), None)
        if prefix is not None:
            weights[wrapped[prefix] + name.removeprefix(prefix)] = parameter
        elif not name.startswith("transformer_blocks."):
            weights[name] = parameter
    return weights
