"""The policy of an evaluation: which checkpoint or expert a name means, and what it is made of.

torch is imported only where a checkpoint is asked for: workers of a baseline do without.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np

from canvas_robot.evaluation.actors import BASELINES, ActorError
from canvas_robot.evaluation.eval_settings import EvalSettings
from canvas_robot.resources import DEMO, checkpoint_folder, resolve_config
from canvas_robot.signals import load_binding
from canvas_robot.sim.experts import expert_for
from canvas_robot.sim.registration import ENV_IDS

if TYPE_CHECKING:
    from canvas_robot.policy.protocol import Policy

MOST_FILES = 10_000  # of a checkpoint, prompts included


class EvalPolicyError(ValueError):
    """A policy's name means nothing here."""


def checkpoint_of(policy: str) -> Path | None:
    """The folder that a policy's name means; None for a baseline.

    Raises EvalPolicyError where there is no such folder.
    """
    if policy in BASELINES:
        return None
    folder = checkpoint_folder(policy)
    if not folder.is_dir():
        raise EvalPolicyError(
            f"policy {policy!r}: expected {', '.join(BASELINES)}, {DEMO} or the folder of a "
            f"checkpoint, as `canvas-robot export` makes it; there is no folder {folder}"
        )
    return folder


def load_evaluated(settings: EvalSettings) -> Policy:
    """Loads a checkpoint, and sets how many threads torch uses in this process.

    Raises what `load_policy` raises, naming the file, and EvalPolicyError where there is no folder,
    ValueError for a dtype or device that is none.
    """
    folder = checkpoint_of(settings.policy)

    import torch

    from canvas_robot.backbone.loading import DTYPES
    from canvas_robot.policy.loading import load_policy

    if settings.dtype not in DTYPES:
        raise ValueError(f"--dtype: expected one of {sorted(DTYPES)}, got {settings.dtype!r}")
    if settings.device != "cpu" and not torch.cuda.is_available():
        raise ValueError(
            f"--device: torch sees no CUDA device here; expected cpu, got {settings.device!r}"
        )
    torch.set_num_threads(settings.threads)
    binding = None
    if settings.binding:
        binding = load_binding(resolve_config("bindings", settings.binding))
    return load_policy(folder, _own(settings.device), binding, dtype=DTYPES[settings.dtype])


def _own(device: str) -> str:
    """Of several processes that a launcher starts on a machine, each has a GPU of its own."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device == "cuda" else device


def expert_of(env: gymnasium.Env) -> Callable[[gymnasium.Env], np.ndarray]:
    """The scripted expert of an environment's task; raises ActorError where there is none."""
    tasks = {env_id: task for task, env_id in ENV_IDS.items()}
    if env.spec.id not in tasks:
        raise ActorError(
            f"expert: {env.spec.id} has none; expected one of {', '.join(sorted(tasks))}"
        )
    return expert_for(tasks[env.spec.id])


def files_of(settings: EvalSettings) -> dict[str, str]:
    """sha256 of the files that decide, by name: the checkpoint's, and a binding in its place's.

    Raises EvalPolicyError for a folder that is no checkpoint's.
    """
    folder = checkpoint_of(settings.policy)
    if folder is None:
        return {}

    from canvas_robot.backbone.digest import digest_of_file

    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not (folder / "config.json").is_file() or len(files) > MOST_FILES:
        raise EvalPolicyError(
            f"policy {settings.policy!r}: expected the folder of a checkpoint, with config.json; "
            f"make one from a training run with: canvas-robot export RUN -o FOLDER"
        )
    digests = {str(path.relative_to(folder)): digest_of_file(path) for path in files}
    if settings.binding:
        digests["--binding"] = digest_of_file(resolve_config("bindings", settings.binding))
    return digests


def checkpoint_card(policy: str) -> dict[str, Any]:
    """config.json of the checkpoint, for reports; empty for a baseline."""
    folder = checkpoint_of(policy)
    if folder is None:
        return {}
    try:
        card = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise EvalPolicyError(f"{folder / 'config.json'}: {error}") from error
    if not isinstance(card, dict):
        raise EvalPolicyError(f"{folder / 'config.json'}: expected an object, got {card!r}")
    return card
