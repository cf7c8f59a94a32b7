"""Judging the runs of an ablation: each one's deployable checkpoint on held-out episodes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from canvas_robot.evaluation.offline import POLICY, PREVIOUS, ZERO
from canvas_robot.evaluation.offline_run import OfflineSettings, evaluate_offline
from canvas_robot.training.ablation import Interval, Judge, Judgement
from canvas_robot.training.config import TrainConfig
from canvas_robot.training.export import export_run


def judge_by(episodes: int, device: str, batch: int) -> Judge:
    """What judges a run: `canvas-robot export`, then `canvas-robot eval-offline` on its result.

    Their folders are in the run's own.

    Args:
        episodes: how many of those held out, evenly spread; 0: all.
        device, batch: as of OfflineSettings.
    """

    def judge(run: Path, config: TrainConfig) -> Judgement:
        checkpoint = run / "export" / f"step_{config.steps:08d}"
        if not checkpoint.exists():
            export_run(run, checkpoint, config.steps, prompts=False)
        holdout = config.data.holdout
        settings = OfflineSettings(
            checkpoint=checkpoint,
            data=Path(config.data.folder).expanduser(),
            split=holdout if isinstance(holdout, str) else config.data.split,
            episodes=episodes,
            device=device,
            dtype=config.backbone.dtype,
            prompts=config.prompts,
            batch=batch,
            skip_corrupt=config.data.skip_corrupt,
        )
        return judgement(evaluate_offline(settings, run / "eval_offline"))

    return judge


def judgement(report: Mapping) -> Judgement:
    """What an offline evaluation's report comes to."""
    of = report["predictors"]
    return Judgement(
        motion=Interval(**of[POLICY]["motion"]),
        previous_action=Interval(**of[PREVIOUS]["motion"]),
        zero_action=Interval(**of[ZERO]["motion"]),
        gripper=Interval(**of[POLICY]["gripper"]["accuracy"]),
        episodes=report["data"]["episodes"],
        windows=report["data"]["windows"],
        trained_on=report["trained_on"]["answer"],
    )
