"""EvalFolder: what an evaluation leaves behind, line by line, and what it goes on from.

settings.json, episodes.jsonl, films/, then report.json, report.html and videos. An episode that
ended is on disk before the next one is reported; processes that share the work write a file each.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from canvas_robot.evaluation.eval_film import Film, load_film, save_film
from canvas_robot.evaluation.eval_session import EpisodeRow
from canvas_robot.evaluation.eval_settings import EvalSettings, said_episodes
from canvas_robot.folder_lock import locked

SETTINGS, EPISODES = "settings.json", "episodes.jsonl"


class EvalFolderError(ValueError):
    """A folder holds another evaluation, or something else."""


class EvalRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """settings.json: what is evaluated, with which files, and by which starts.

    files: sha256 by name, see `files_of`. started: newest last.
    sha256: of settings and files; two runs with the same one give the same episodes where code and
        packages are the same.
    """

    settings: EvalSettings
    files: dict[str, str]
    started: list[dict[str, object]]
    sha256: str
    format: int = 1


def digest_of_settings(settings: EvalSettings, files: Mapping[str, str]) -> str:
    """sha256 of what decides on the episodes."""
    encoder = msgspec.json.Encoder(order="sorted")
    return hashlib.sha256(encoder.encode([settings, dict(files)])).hexdigest()


class EvalFolder:
    """The folder of an evaluation."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def holds_one(self) -> bool:
        """Whether an evaluation was begun here."""
        return (self.path / SETTINGS).is_file()

    def record(self) -> EvalRecord:
        """settings.json; raises EvalFolderError for another file, one that was edited, or none."""
        path = self.path / SETTINGS
        try:
            record = msgspec.json.decode(path.read_bytes(), type=EvalRecord)
        except FileNotFoundError:
            raise EvalFolderError(
                f"{self.path}: expected the folder of an evaluation, with {SETTINGS}; begin one "
                "with: canvas-robot eval --env ID --policy POLICY --out FOLDER"
            ) from None
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
            raise EvalFolderError(f"{path}: {error}") from error
        if record.sha256 != digest_of_settings(record.settings, record.files):
            raise EvalFolderError(
                f"{path}: edited since the evaluation wrote it; put it back, or begin another one"
            )
        return record

    def begin(
        self,
        settings: EvalSettings,
        files: Mapping[str, str],
        start: Mapping[str, object],
        resume: bool,
    ) -> None:
        """Writes settings.json, or adds a start to it.

        Raises EvalFolderError where the folder holds something else, an evaluation that is not to
        be resumed, or one with other settings or files.
        """
        starts = []
        if self.holds_one and (resume or self.rows()):
            if not resume:
                raise EvalFolderError(
                    f"{self.path}: holds an evaluation; go on with it: --resume, or name another "
                    "folder: --out FOLDER"
                )
            record = self.record()
            self._require_same(record, settings, files)
            starts = record.started
        elif self._holds_other_files():
            raise EvalFolderError(
                f"{self.path}: expected a new folder or that of an evaluation; name another: "
                "--out FOLDER"
            )
        record = EvalRecord(
            settings=settings,
            files=dict(files),
            started=[*starts, dict(start)],
            sha256=digest_of_settings(settings, files),
        )
        self.write(SETTINGS, msgspec.json.format(msgspec.json.encode(record)) + b"\n")

    def rows(self) -> dict[tuple[str, int, int], EpisodeRow]:
        """All episodes that ended, by key, whichever process ran them.

        Raises EvalFolderError, naming file and line, for a line that is none.
        """
        found = {}
        for path in self._episode_files():
            for row in _read(path):
                found[row.key] = row
        return found

    @contextmanager
    def appending(self, process: int, processes: int) -> Iterator[Callable[[EpisodeRow], None]]:
        """What takes episodes as they end; each is on disk when it returns.

        A line that a killed process left half written is taken away first.
        """
        alone = processes == 1
        path = self.path / (EPISODES if alone else f"episodes.{process}.jsonl")
        _mend(path)
        with path.open("ab") as file:

            def append(row: EpisodeRow) -> None:
                file.write(msgspec.json.encode(row) + b"\n")
                file.flush()
                os.fsync(file.fileno())

            yield append

    def merge(self, rows: Iterable[EpisodeRow]) -> None:
        """Puts all episodes into one file, in order."""
        lines = b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
        self.write(EPISODES, lines)
        for path in self._episode_files():
            if path.name != EPISODES:
                path.unlink()

    def save_film(self, row: EpisodeRow, film: Film) -> None:
        """Keeps an episode's pictures until the videos are made."""
        save_film(film, self._film_file(row))

    def films(self, rows: Iterable[EpisodeRow]) -> list[tuple[EpisodeRow, Film]]:
        """The episodes, of those given, that have pictures."""
        return [(row, load_film(self._film_file(row))) for row in rows if self.has_film(row)]

    def has_film(self, row: EpisodeRow) -> bool:
        """Whether an episode's pictures are kept."""
        return self._film_file(row).is_file()

    def forget_films(self) -> None:
        """Takes all pictures away."""
        shutil.rmtree(self.path / "films", ignore_errors=True)

    def write(self, name: str, content: bytes) -> None:
        """Writes a file, whole or not at all."""
        self.path.mkdir(parents=True, exist_ok=True)
        part = self.path / f".{name}.{os.getpid()}.part"
        try:
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, self.path / name)
        finally:
            part.unlink(missing_ok=True)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Inside, no other run writes here; raises EvalFolderError where one does, or a file is."""
        if self.path.exists() and not self.path.is_dir():
            raise EvalFolderError(
                f"{self.path}: expected a folder, it is a file; name another: --out FOLDER"
            )
        refusal = EvalFolderError(
            f"{self.path}: another evaluation runs in it; wait for its end, or name another "
            "folder: --out FOLDER"
        )
        with locked(self.path, refusal):
            yield

    def _film_file(self, row: EpisodeRow) -> Path:
        env = hashlib.sha256(row.env.encode()).hexdigest()[:8]  # an id may hold what a name cannot
        return self.path / "films" / f"{env}_{row.number}_{row.variant}.film"

    def _episode_files(self) -> list[Path]:
        return sorted(self.path.glob("episodes*.jsonl"))

    def _holds_other_files(self) -> bool:
        """Whether anything is here that a start without an episode does not leave."""
        own = {".lock", SETTINGS, *(path.name for path in self._episode_files())}
        return self.path.exists() and any(path.name not in own for path in self.path.iterdir())

    def _require_same(
        self, record: EvalRecord, settings: EvalSettings, files: Mapping[str, str]
    ) -> None:
        changed = [
            f"{name}: {_said(name, then)}, now {_said(name, now)}"
            for name in EvalSettings.__struct_fields__
            if (then := getattr(record.settings, name)) != (now := getattr(settings, name))
        ]
        changed += [
            f"{name}: another file than then"
            for name in sorted({*record.files, *files})
            if record.files.get(name) != files.get(name)
        ]
        if changed:
            raise EvalFolderError(
                f"{self.path}: holds an evaluation with other settings: {'; '.join(changed)}; go "
                f"on with it as it is: canvas-robot eval --out {self.path} --resume, or name "
                "another folder"
            )


def _said(name: str, value: object) -> str:
    return said_episodes(value) if name == "episodes" else repr(value)


def _read(path: Path) -> list[EpisodeRow]:
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):
            break  # half written when its process was killed
        try:
            rows.append(msgspec.json.decode(line, type=EpisodeRow))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise EvalFolderError(
                f"{path}: line {number}: expected an episode: {error}; take the line away, and its "
                "episode is run again"
            ) from error
    return rows


def _mend(path: Path) -> None:
    """Cuts off what follows the last whole line."""
    if path.is_file():
        whole = path.read_bytes().rfind(b"\n") + 1
        os.truncate(path, whole)
