"""Small runs on the real sample, and what they are made of."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.state import AcceleratorState, GradientState
from rich.console import Console

from canvas_robot.resources import config_path
from canvas_robot.training.config_file import config_of, with_overrides

SHARED = Path(__file__).parents[3] / "shared" / "data"
BOUNDS = {
    "visual": [1, 2, 0, 4, 0, 4],
    "proprio": [0, 2, 4, 5, 0, 1],
    "action": [1, 5, 4, 5, 1, 3],
    "goal": [0, 4, 5, 7, 0, 16],
    "future": [2, 4, 0, 4, 0, 4],
}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """For small tensors more threads only wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True, scope="module")
def alone():
    """Accelerate keeps one state for a process; each module has its own."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.fixture(scope="session")
def bridge_sample() -> Path:
    """25 real Bridge V2 episodes, cut to 10 steps, pictures 64x64."""
    path = SHARED / "bridge_sample" / "bridge_dataset" / "1.0.0"
    if not path.exists():
        pytest.skip("recorded data not found at ../shared/data/bridge_sample")
    return path


@pytest.fixture(scope="session")
def declarations(tmp_path_factory) -> Path:
    """A folder with small.json, small_video.json that predicts pictures too, and one_step.json.

    The last one's chunks have one step, so that no recording ends before its chunk does.
    """
    folder = tmp_path_factory.mktemp("declarations")
    for small, name in (
        ("small", "widowx_tiny"),
        ("one_step", "widowx_tiny"),
        ("small_video", "widowx_tiny_video"),
    ):
        data = json.loads(config_path("schemas", f"{name}.json").read_text())
        data["layout"].update(H=7, W=16)
        for region, spec in data["regions"].items():
            spec["bounds"] = BOUNDS[region]
        if small == "one_step":
            data["regions"]["action"]["bounds"] = [1, 2, 4, 5, 1, 3]
        (folder / f"{small}.json").write_text(json.dumps(data))
    return folder


@pytest.fixture(scope="session")
def make_config(bridge_sample, declarations):
    """A function that makes the configuration of a small run; `key=value` overrides on top."""

    def make(*overrides: str):
        data = {
            "schema": str(declarations / "small.json"),
            "data": {
                "folder": str(bridge_sample),
                "holdout": 0.2,
                "holdout_windows": 4,
                "workers": 0,
            },
            "loops": 2,
            "statistics": "bridge_v2.json",
            "steps": 4,
            "batch_size": 2,
            "log_every": 2,
            "checkpoint_every": 2,
            "evaluate_every": 100,
        }
        return config_of(with_overrides(data, overrides), "small")

    return make


@pytest.fixture(scope="session")
def video(declarations):
    """Overrides of a run that predicts pictures too: it draws noise in every step."""
    schema = declarations / "small_video.json"
    return (f"schema={schema}", "binding=widowx_video.yaml")


@pytest.fixture
def quiet() -> Console:
    """A console that shows nothing."""
    return Console(quiet=True)


@pytest.fixture(scope="session")
def rows_of():
    """A function that reads metrics.jsonl of a run, without what a clock or the machine says."""

    def read(run: Path) -> list[dict]:
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        changing = ("time", "steps_per_s", "data_wait", "memory_mb")
        return [{k: v for k, v in row.items() if k not in changing} for row in rows]

    return read


@pytest.fixture(scope="session")
def write_config():
    """A function that writes a configuration to a file, for commands."""

    def write(config, path: Path) -> Path:
        path.write_text(config.to_yaml())
        assert yaml.safe_load(path.read_text())
        return path

    return write
