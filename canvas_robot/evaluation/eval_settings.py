"""EvalSettings: what is evaluated, and on which episodes. Equal settings give equal episodes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby, product
from typing import Any, NamedTuple

import msgspec
import yaml

from canvas_robot.evaluation.actors import BASELINES

MOST_EPISODES = 1_000_000


class EvalSettingsError(ValueError):
    """Settings of an evaluation that are none, or that contradict one another."""


class Start(NamedTuple):
    """One episode: the environment's place among the settings', the number, and which goal.

    variant 0 is the episode's own goal; 1 another one in the same scene.
    """

    env: int
    number: int
    variant: int = 0


class EvalSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is evaluated, and on which episodes.

    envs: Gymnasium ids, each once. env_kwargs: for `gymnasium.make` of each.
    policy: "expert", "random", "zero", "demo", or a checkpoint's folder.
    episodes: numbers of the episodes in each environment. A number is the seed of `reset`, and the
        episode's id where the environment has ids.
    id_option: the reset option that takes the id, with dots where it lies deeper; "": `episode_id`
        where the environment reports one.
    seed: of what the actor draws.
    binding: file or name of a shipped one; "": the checkpoint's own.
    instruction: said in every episode in place of its own; "": its own.
    success_key: entry of `info` that says whether the task is solved, with dots where it lies
        deeper; "": success or is_success.
    max_steps: of an episode; 0: the environment's own limit.
    steps_per_chunk: how many actions of a chunk are executed before the next decision.
    compare_instructions: each scene twice, with its own goal and with another one.
    shuffle_instructions: the policy is told another episode's instruction that differs.
    black_image: the policy sees black pictures.
    device, dtype: as of PolicySettings. threads: of torch, in each worker.

    Raises EvalSettingsError for values that are none.
    """

    envs: tuple[str, ...]
    policy: str
    episodes: tuple[int, ...]
    env_kwargs: dict[str, Any] = {}
    id_option: str = ""
    seed: int = 0
    binding: str = ""
    instruction: str = ""
    success_key: str = ""
    max_steps: int = 0
    steps_per_chunk: int = 1
    compare_instructions: bool = False
    shuffle_instructions: bool = False
    black_image: bool = False
    device: str = "cpu"
    dtype: str = "float32"
    threads: int = 1

    def __post_init__(self) -> None:
        if not self.envs or len(set(self.envs)) < len(self.envs):
            raise EvalSettingsError(
                f"env: expected at least one id, each once, got {list(self.envs)}"
            )
        if not self.episodes or len(set(self.episodes)) < len(self.episodes):
            raise EvalSettingsError("episodes: expected at least one number, each once")
        if min(self.episodes) < 0 or max(self.episodes) >= 2**31:
            raise EvalSettingsError(
                f"episodes: expected numbers from 0 to {2**31 - 1}, got "
                f"{min(self.episodes)} to {max(self.episodes)}"
            )
        for name, least in (("seed", 0), ("max_steps", 0), ("steps_per_chunk", 1), ("threads", 1)):
            if getattr(self, name) < least:
                raise EvalSettingsError(
                    f"{name}: expected at least {least}, got {getattr(self, name)}"
                )
        self._check_controls()

    @property
    def is_baseline(self) -> bool:
        """Whether no checkpoint is needed."""
        return self.policy in BASELINES

    @property
    def starts(self) -> tuple[Start, ...]:
        """All episodes, in order: by environment, number and variant."""
        variants = (0, 1) if self.compare_instructions else (0,)
        return tuple(
            Start(*each) for each in product(range(len(self.envs)), self.episodes, variants)
        )

    def _check_controls(self) -> None:
        told = {
            "--instruction": bool(self.instruction),
            "--shuffle-instructions": self.shuffle_instructions,
            "--compare-instructions": self.compare_instructions,
        }
        given = [option for option, is_given in told.items() if is_given]
        if len(given) > 1:
            raise EvalSettingsError(
                f"{' and '.join(given)}: each says what the policy is told; give one of them"
            )
        seeing = {
            **told,
            "--black-image": self.black_image,
            "--binding": bool(self.binding),
            "--steps-per-chunk": self.steps_per_chunk > 1,
        }
        if self.is_baseline:
            del seeing["--compare-instructions"]  # an expert follows the goal, too
            given = [option for option, is_given in seeing.items() if is_given]
            if given:
                raise EvalSettingsError(
                    f"{', '.join(given)}: {self.policy} hears and sees nothing; expected a "
                    "checkpoint as --policy"
                )


def parse_episodes(text: str) -> tuple[int, ...]:
    """Numbers with commas and ranges, both ends included: "0-23,90000-90099".

    Raises EvalSettingsError for anything else.
    """
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not (first.isdecimal() and (last.isdecimal() if dash else True)):
            raise EvalSettingsError(
                f"--episode-ids: expected numbers and ranges, such as 0-23,90000, got {text!r}"
            )
        low, high = int(first), int(last or first)
        if high < low or high - low >= MOST_EPISODES:
            raise EvalSettingsError(
                f"--episode-ids: expected rising ranges of at most {MOST_EPISODES:,}, got {part!r}"
            )
        numbers += range(low, high + 1)
    return tuple(numbers)


def said_episodes(numbers: Iterable[int]) -> str:
    """The inverse of `parse_episodes`: rising runs as ranges."""
    runs = groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0])
    parts = ([number for _, number in run] for _, run in runs)
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in parts)


def parse_kwargs(words: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE each, values as YAML reads them; raises EvalSettingsError for anything else."""
    kwargs = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not (equals and key.isidentifier()):
            raise EvalSettingsError(f"--env-kwargs: expected KEY=VALUE, got {word!r}")
        try:
            kwargs[key] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError) as error:
            raise EvalSettingsError(f"--env-kwargs: {word!r}: {error}") from error
    return kwargs
