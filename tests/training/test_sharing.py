"""Laws of sharing: who trains alone by mistake is told, frozen weights are left alone."""

import json
import os
import subprocess
import sys

import pytest
from accelerate.utils import FullyShardedDataParallelPlugin
from torch import nn

from canvas_robot.training import sharing
from canvas_robot.training.config import ConfigError

# Without GPUs Accelerate does not shard; torch does, and this is what Accelerate calls.
SHARDED = """
import json, sys, torch
from torch.distributed.fsdp import fully_shard
from canvas_robot.training.config_file import load_config
from canvas_robot.training.optimisation import make_optimiser
from canvas_robot.training.parts import build_parts
from canvas_robot.training.sharing import frozen_modules, make_accelerator

config = load_config(sys.argv[1])
accelerator = make_accelerator(config)
losses = {}
for sharded in (False, True):
    parts = build_parts(config, accelerator)
    objective = parts.objective
    if sharded:
        ignored = {p for module in frozen_modules(objective) for p in module.parameters()}
        fully_shard(objective, ignored_params=ignored)
    trained = objective.trained()
    optimiser = make_optimiser(objective, trained, config.optimiser)
    batch, losses[str(sharded)] = parts.data.largest(2), []
    for _ in range(3):
        loss = objective(batch)["loss"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        losses[str(sharded)].append(loss.item())
if accelerator.is_main_process:
    print(json.dumps(losses))
accelerator.end_training()
"""


class Mixed(nn.Module):
    """A frozen encoder of two layers beside a head that trains and a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
        self.encoder.requires_grad_(False)
        self.head = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False))


def test_the_outermost_frozen_modules_are_found():
    module = Mixed()
    assert sharing.frozen_modules(module) == [module.encoder, module.head[1]]
    assert sharing.frozen_modules(nn.ReLU()) == []


@pytest.mark.parametrize(
    "variables, expected",
    [
        ({"WORLD_SIZE": "2"}, "expected 2, as the launcher was told, got one"),
        ({"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1"}, "expected several"),
    ],
)
def test_a_process_that_trains_alone_by_mistake_is_told(monkeypatch, variables, expected):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RuntimeError) as error:
        sharing._require_together(1)
    assert expected in str(error.value) and "torchrun --nproc_per_node 2" in str(error.value)
    sharing._require_together(2)


def test_one_process_may_train_alone(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert sharing._require_together(1) is None


def test_sharded_states_are_refused_for_reading_them_runs_code(make_config):
    def plugin(kind):
        return FullyShardedDataParallelPlugin(fsdp_version=2, state_dict_type=kind)

    with pytest.raises(ConfigError, match="expected version 2 with FULL_STATE_DICT, got version 2"):
        sharing._require_whole_states(plugin("SHARDED_STATE_DICT"), make_config())
    sharing._require_whole_states(plugin("FULL_STATE_DICT"), make_config())
    with pytest.raises(ConfigError, match="ema: expected off under FSDP"):
        sharing._require_whole_states(plugin("FULL_STATE_DICT"), make_config("ema.decay=0.9"))


@pytest.mark.slow
def test_a_sharded_model_learns_as_a_whole_one(make_config, write_config, tmp_path):
    config = write_config(make_config("freeze=none", "data.holdout=off"), tmp_path / "small.yaml")
    script = tmp_path / "sharded.py"
    script.write_text(SHARDED)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    run = subprocess.run(
        [sys.executable, *torchrun, str(script), str(config)],
        env=os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert run.returncode == 0, run.stderr
    losses = json.loads(run.stdout)
    assert losses["True"] == pytest.approx(losses["False"], rel=1e-5)
    assert losses["True"][2] < losses["True"][0]
