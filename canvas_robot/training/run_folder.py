"""RunFolder: what a run leaves behind, and what it goes on from.

config.yaml, schema.json, binding.yaml, statistics.json, run.json, metrics.jsonl, tensorboard/ and
checkpoints/. Each file appears whole or not at all; checkpoints are checkpoints.py's.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import msgspec

from canvas_robot.backbone.digest import digest_of_file
from canvas_robot.folder_lock import locked
from canvas_robot.schema import CanvasSchema
from canvas_robot.signals import Binding, Statistics, load_binding, load_statistics, save_statistics
from canvas_robot.training.checkpoints import CheckpointFolders, sync
from canvas_robot.training.config import TrainConfig
from canvas_robot.training.config_file import load_config
from canvas_robot.training.meter import MetricsRow, truncate_metrics

PACKAGES = ("canvas_robot", "torch", "accelerate", "diffusers", "transformers", "numpy")
DECLARATIONS = ("schema.json", "binding.yaml", "statistics.json")
GIT_SECONDS = 10.0


class RunFolderError(ValueError):
    """A folder is not a run, or one that holds another run."""


class Facts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """run.json: what made the run.

    started: by which start, at what time and step, with which processes and code; newest last.
    backbone: its source and the sha256 of its parts. data, held_out: which, and what was left out
    and why; held_out is None where nothing is. actions: of the rules, see DataRules.
    gradient_checkpointing: whether loops are computed again. trained, frozen: parameters.
    declarations: sha256 of schema.json, binding.yaml and statistics.json. configs: sha256 of every
        config.yaml that the run has had.
    """

    started: list[dict[str, object]]
    backbone: dict[str, object]
    data: dict[str, object]
    held_out: dict[str, object] | None
    actions: str
    gradient_checkpointing: bool
    trained: int
    frozen: int
    declarations: dict[str, str] = {}
    configs: list[str] = []
    format: int = 1


class RunFolder:
    """The folder of a run. `create` makes one, `open` finds one."""

    def __init__(self, path: Path, keep_checkpoints: int = 1) -> None:
        self.path = path
        self.checkpoints = CheckpointFolders(path / "checkpoints", keep_checkpoints)
        self.metrics = path / "metrics.jsonl"

    @classmethod
    def holds_run(cls, path: Path) -> bool:
        """Whether there is a run in a folder: it has a config.yaml."""
        return (path / "config.yaml").is_file()

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """The run in a folder; raises RunFolderError where there is none."""
        path = Path(path).expanduser()
        if not cls.holds_run(path):
            raise RunFolderError(
                f"{path}: expected the folder of a run, with config.yaml; "
                "start one with: canvas-robot train CONFIG"
            )
        return cls(path)

    def config(self, overrides: tuple[str, ...] = ()) -> TrainConfig:
        """The run's configuration, with overrides; raises ConfigError."""
        return load_config(self.path / "config.yaml", (*overrides, f"run={self.path}"))

    def schema(self) -> CanvasSchema:
        return CanvasSchema.from_json(self.path / "schema.json")

    def binding(self) -> Binding:
        return load_binding(self.path / "binding.yaml")

    def statistics(self) -> dict[str, Statistics]:
        return load_statistics(self.path / "statistics.json")

    def facts(self) -> Facts:
        """run.json; raises RunFolderError for another file."""
        path = self.path / "run.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=Facts)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RunFolderError(f"{path}: {error}") from error

    def write(
        self,
        config: TrainConfig,
        schema: CanvasSchema,
        binding: Binding,
        statistics: dict[str, Statistics],
        facts: Facts,
    ) -> None:
        """Writes all declarations. config.yaml comes last: with it the folder holds a run."""
        self.path.mkdir(parents=True, exist_ok=True)
        _replace(self.path / "schema.json", schema.to_json)
        _replace(self.path / "binding.yaml", lambda part: part.write_text(binding.to_yaml()))
        _replace(self.path / "statistics.json", lambda part: save_statistics(statistics, part))
        known = self.facts().configs if self.holds_run(self.path) else []
        facts = msgspec.structs.replace(
            facts,
            declarations={name: digest_of_file(self.path / name) for name in DECLARATIONS},
            configs=[*known, hashlib.sha256(config.to_yaml().encode()).hexdigest()],
        )
        text = msgspec.json.format(msgspec.json.encode(facts)) + b"\n"
        _replace(self.path / "run.json", lambda part: part.write_bytes(text))
        _replace(self.path / "config.yaml", lambda part: part.write_text(config.to_yaml()))

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Inside, no other process trains in this folder; raises RunFolderError where one does."""
        refusal = RunFolderError(
            f"{self.path}: another process trains in it; wait for its end, or name another "
            "folder: run=FOLDER"
        )
        with locked(self.path, refusal):
            yield

    def go_back(self, step: int) -> None:
        """Forgets all metrics beyond a step, and checkpoints that were not finished."""
        self.checkpoints.sweep()
        truncate_metrics(self.metrics, step)

    def append(self, row: MetricsRow) -> None:
        """Adds a row to metrics.jsonl."""
        with self.metrics.open("ab") as file:
            file.write(msgspec.json.encode(row) + b"\n")

    def require_unchanged(self) -> None:
        """Raises RunFolderError, naming the file, for a declaration that was edited since."""
        facts, own = self.facts(), digest_of_file(self.path / "config.yaml")
        if facts.configs and own not in facts.configs:
            raise RunFolderError(
                f"{self.path / 'config.yaml'}: edited since the run wrote it; put it back, and say "
                f"what may change behind the command: canvas-robot train --resume {self.path} "
                "KEY=VALUE"
            )
        for name, expected in facts.declarations.items():
            found = digest_of_file(self.path / name) if name in DECLARATIONS else "none"
            if found != expected:
                raise RunFolderError(
                    f"{self.path / name}: changed since the run wrote it: expected sha256 "
                    f"{expected[:12]}..., found {found[:12]}...; put it back, or start another run"
                )

    def sync_metrics(self) -> None:
        """Returns once all rows are on disk."""
        if self.metrics.is_file():
            sync(self.metrics)


def start_record(step: int, processes: int, device: str) -> dict[str, object]:
    """What run.json keeps of a start of the training."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "step": step,
        "processes": processes,
        "device": device,
        "git": git_state(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def git_state() -> dict[str, object] | None:
    """Commit of the checkout that this package lies in, and whether it differs; None outside one.

    Only a checkout that has this package at its top counts, not one that an installation lies in.
    """
    top = Path(__file__).resolve().parents[2]
    if not (top / ".git").exists():
        return None
    commands = {"commit": ["rev-parse", "HEAD"], "changes": ["status", "--porcelain"]}
    said = {}
    for name, command in commands.items():
        try:
            run = subprocess.run(
                ["git", "-C", str(top), *command],
                capture_output=True,
                text=True,
                timeout=GIT_SECONDS,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        said[name] = run.stdout.strip()
    return {"commit": said["commit"], "dirty": bool(said["changes"])}


def new_run_path() -> Path:
    """runs/train/ and the time, below the current folder."""
    return Path("runs", "train", time.strftime("%Y-%m-%d_%H-%M-%S"))


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a file beside `path` and puts it in its place when it is whole and on disk."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(part)
        sync(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
