"""PlainRun: the folder of a plain policy's training, which is a RunFolder with another config.yaml.

Beside a RunFolder's files it holds pictures/, what plain_pictures.py made.
"""

from __future__ import annotations

from pathlib import Path

from canvas_robot.training.config_file import differences, load_config
from canvas_robot.training.plain_config import PlainTrainConfig
from canvas_robot.training.run_folder import Facts, RunFolder, RunFolderError
from canvas_robot.training.yaml_reader import read_yaml

# What a run may be resumed with otherwise than it was started. All else would make it another run.
CHANGEABLE = {
    "steps",
    "minutes",
    "log_every",
    "checkpoint_every",
    "keep_checkpoints",
    "evaluate_every",
    "pictures_gb",
    "data.folder",
    "data.workers",
}


class PlainRun:
    """The folder of a run. `folder` is what it has in common with other runs."""

    def __init__(self, path: Path, keep_checkpoints: int = 1) -> None:
        self.folder = RunFolder(path, keep_checkpoints)
        self.path, self.metrics = self.folder.path, self.folder.metrics
        self.checkpoints, self.pictures = self.folder.checkpoints, path / "pictures"

    @classmethod
    def holds_run(cls, path: Path) -> bool:
        """Whether there is a run of a plain policy in a folder: its config.yaml says so."""
        if not RunFolder.holds_run(path):
            return False
        config = read_yaml((path / "config.yaml").read_text(encoding="utf-8"))
        return isinstance(config, dict) and config.get("policy") == "plain"

    @classmethod
    def open(cls, path: str | Path) -> PlainRun:
        """The run in a folder; raises RunFolderError where there is none, or another one."""
        path = Path(path).expanduser()
        if not cls.holds_run(path):
            raise RunFolderError(
                f"{path}: expected the folder of a plain policy's run, with config.yaml; "
                "start one with: canvas-robot train-plain CONFIG"
            )
        return cls(path)

    def config(self, overrides: tuple[str, ...] = ()) -> PlainTrainConfig:
        """The run's configuration, with overrides; raises ConfigError."""
        path = self.path / "config.yaml"
        return load_config(path, (*overrides, f"run={self.path}"), PlainTrainConfig)

    def facts(self) -> Facts:
        """run.json; raises RunFolderError for another file."""
        return self.folder.facts()

    def require_free(self) -> None:
        """Raises RunFolderError unless nothing is there but what a start that failed may leave."""
        own = {"schema.json", "binding.yaml", "statistics.json", "run.json", "checkpoints", ".lock"}
        found = {entry.name for entry in self.path.iterdir()} if self.path.exists() else set()
        if others := sorted(found - own - {"pictures"}):
            raise RunFolderError(
                f"run: expected a new folder or that of a run, {self.path} holds other files "
                f"({', '.join(others[:3])}); name another: run=FOLDER"
            )

    def require_same(self, config: PlainTrainConfig) -> None:
        """Raises RunFolderError where a configuration is another run's, or a file was edited."""
        changed = differences(self.config(), config)
        wrong = {k: v for k, v in changed.items() if k not in {*CHANGEABLE, "run"}}
        if wrong:
            said = "; ".join(f"{key}: {then!r}, now {now!r}" for key, (then, now) in wrong.items())
            raise RunFolderError(
                f"{self.path}: holds a run with another configuration: {said}; go on with it as it "
                f"is: canvas-robot train-plain --resume {self.path}, or name another folder: "
                "run=FOLDER"
            )
        self.folder.require_unchanged()
