"""`canvas-robot eval`: how often a policy succeeds in a simulator, with intervals and videos."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from canvas_robot.destinations import ready_file

if TYPE_CHECKING:
    from rich.console import Console

    from canvas_robot.evaluation.eval_session import EpisodeRow
    from canvas_robot.evaluation.eval_settings import EvalSettings

EPISODES, FIRST_EPISODE = 50, 90_000


def eval_policy(
    ctx: typer.Context,
    env: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Gymnasium environment, or PACKAGE:ID; repeatable."),
    ] = None,
    policy: Annotated[
        str,
        typer.Option(
            "--policy",
            "--checkpoint",
            metavar="NAME|FOLDER",
            help="expert, random, zero, demo (the shipped one), or a checkpoint's folder.",
        ),
    ] = "",
    episodes: Annotated[
        int | None, typer.Option(min=1, help=f"In each environment; default: {EPISODES}.")
    ] = None,
    first_episode: Annotated[
        int | None, typer.Option(min=0, help=f"Number of the first; default: {FIRST_EPISODE}.")
    ] = None,
    episode_ids: Annotated[
        str, typer.Option(metavar="IDS", help="Instead: numbers and ranges, such as 0-23,90000.")
    ] = "",
    env_kwargs: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="For gymnasium.make; repeatable."),
    ] = None,
    binding: Annotated[
        str, typer.Option(help="File, or name of a shipped one; default: the checkpoint's own.")
    ] = "",
    instruction: Annotated[str, typer.Option(help="Said in place of the episodes' own.")] = "",
    steps_per_chunk: Annotated[
        int, typer.Option(min=1, help="Actions of a chunk executed before the next decision.")
    ] = 1,
    max_steps: Annotated[
        int, typer.Option(min=0, help="Of an episode; 0: the environment's own limit.")
    ] = 0,
    success_key: Annotated[
        str,
        typer.Option(help="Entry of info that says success; default: success or is_success."),
    ] = "",
    id_option: Annotated[
        str,
        typer.Option(
            help="Reset option that takes the number as an id; default: episode_id where there is."
        ),
    ] = "",
    seed: Annotated[int, typer.Option(min=0, help="Of what the policy draws.")] = 0,
    compare_instructions: Annotated[
        bool,
        typer.Option("--compare-instructions", help="Each scene twice: its own goal and another."),
    ] = False,
    shuffle_instructions: Annotated[
        bool,
        typer.Option("--shuffle-instructions", help="Control: tell another episode's instruction."),
    ] = False,
    black_image: Annotated[
        bool, typer.Option("--black-image", help="Control: show the policy black pictures.")
    ] = False,
    workers: Annotated[
        int, typer.Option(min=1, max=256, help="Processes that run whole episodes.")
    ] = 1,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of torch in each.")] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    dtype: Annotated[
        str, typer.Option(help="Of the frozen weights: float32, bfloat16 or float16.")
    ] = "float32",
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder; default: runs/eval/<time>.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with --out; its settings need not be said again."),
    ] = False,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", callback=ready_file, help="Write the figures here too."),
    ] = None,
    no_video: Annotated[bool, typer.Option("--no-video", help="Film no episode.")] = False,
) -> None:
    """Run a policy in simulated tasks: success by protocol with intervals, steps, times, videos.

    The number of an episode is its id where the environment has ids, and the seed of its reset.
    Every episode that ends is kept at once. Under `accelerate launch` or torchrun the processes
    share the episodes: torchrun --nproc_per_node 2 -m canvas_robot.cli eval ...
    """
    import msgspec
    from rich.console import Console

    from canvas_robot.evaluation.eval_run import evaluate, launched
    from canvas_robot.evaluation.eval_settings import EvalSettings, parse_kwargs

    given = {
        "envs": tuple(env or ()),
        "policy": policy,
        "episodes": _numbers(episodes, first_episode, episode_ids),
        "env_kwargs": parse_kwargs(env_kwargs or []),
        "id_option": id_option,
        "seed": seed,
        "binding": binding,
        "instruction": instruction,
        "success_key": success_key,
        "max_steps": max_steps,
        "steps_per_chunk": steps_per_chunk,
        "compare_instructions": compare_instructions,
        "shuffle_instructions": shuffle_instructions,
        "black_image": black_image,
        "device": device,
        "dtype": dtype,
        "threads": threads,
    }
    said = _said(ctx)
    if not resume:
        _require_named(env, policy)
    with launched() as share:
        folder = Path(share.agree(str(_folder(out, resume))))
        settings = EvalSettings(**given) if not resume else _recorded(folder)
        if resume:  # what is said again must be what it was: evaluate refuses it by name
            again = {name: value for name, value in given.items() if name in said}
            settings = msgspec.structs.replace(settings, **again)
        console = Console(highlight=False, markup=False, emoji=False, quiet=not share.first)
        try:
            with _shown(console, settings, share.count) as told:
                report = evaluate(settings, folder, workers, not no_video, resume, told, share)
        except KeyboardInterrupt:
            command = shlex.join(["canvas-robot", "eval", "--out", str(folder), "--resume"])
            console.print(f"stopped; go on with: {command}", soft_wrap=True)
            raise
        if report is not None:
            _write(report, json_file)
            _print(console, report)
            console.print(f"{folder / 'report.html'}", soft_wrap=True)


_SETTING_OF = {
    "env": "envs",
    "first_episode": "episodes",
    "episode_ids": "episodes",
}  # options whose setting has another name


def _said(ctx: typer.Context) -> set[str]:
    """Names of the settings that the command line says."""
    options = [
        name
        for name in ctx.params
        if getattr(ctx.get_parameter_source(name), "name", "") == "COMMANDLINE"
    ]
    return {_SETTING_OF.get(name, name) for name in options}


def _require_named(env: Sequence[str] | None, policy: str) -> None:
    if not env:
        raise ValueError(
            "--env: expected the id of an environment, such as canvas_robot/WidowXReach-v0; or "
            "--out FOLDER --resume"
        )
    if not policy:
        raise ValueError("--policy: expected expert, random, zero, demo or a checkpoint's folder")


def _numbers(episodes: int | None, first: int | None, ids: str) -> tuple[int, ...]:
    from canvas_robot.evaluation.eval_settings import parse_episodes

    if not ids:
        first = FIRST_EPISODE if first is None else first
        return tuple(range(first, first + (episodes or EPISODES)))
    if episodes is not None or first is not None:
        raise ValueError(
            "--episode-ids: says which episodes; leave out --episodes, --first-episode"
        )
    return parse_episodes(ids)


def _folder(out: Path | None, resume: bool) -> Path:
    if out is None and resume:
        raise ValueError("--resume: expected the folder of the evaluation, too: --out FOLDER")
    return (out or Path("runs", "eval", time.strftime("%Y-%m-%d_%H-%M-%S"))).expanduser()


def _recorded(folder: Path) -> EvalSettings:
    from canvas_robot.evaluation.eval_folder import EvalFolder

    return EvalFolder(folder).record().settings


def _write(report: Mapping, json_file: Path | None) -> None:
    import json

    if json_file is not None:
        text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False)
        json_file.write_text(f"{text}\n", encoding="utf-8")


@contextmanager
def _shown(
    console: Console, settings: EvalSettings, processes: int
) -> Iterator[Callable[[Sequence[EpisodeRow], int], None]]:
    """A bar with the success until now; where there is no terminal, a line each tenth."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    what = f"{settings.policy}" + (f", 1 of {processes} processes" if processes > 1 else "")
    columns = (
        TextColumn(what, markup=False),
        MofNCompleteColumn(),
        BarColumn(bar_width=20),
        Remaining(),
        TextColumn("{task.description}", markup=False),
    )
    bare, tenths = not console.is_terminal or console.quiet, 0
    with Progress(*columns, console=console, disable=bare, transient=True) as bar:
        task = bar.add_task("", total=None)

        def told(rows: Sequence[EpisodeRow], total: int) -> None:
            nonlocal tenths
            found = {
                name: sum(getattr(row, f"success_{name}") for row in rows) for name in _RUNNING
            }
            said = ", ".join(f"{name} {count / len(rows):.0%}" for name, count in found.items())
            bar.update(task, completed=len(rows), total=total, description=f"success: {said}")
            if bare and 10 * len(rows) // total > tenths:
                tenths = 10 * len(rows) // total
                console.print(f"{what}: {len(rows)} of {total} episodes; success: {said}")

        yield told


_RUNNING = ("last", "any")  # protocols that every task has


def _print(console: Console, report: Mapping) -> None:
    from rich import box
    from rich.table import Table

    from canvas_robot.evaluation.eval_outcome import PROTOCOLS
    from canvas_robot.evaluation.eval_report import envs_of, verdicts

    envs = envs_of(report)
    table = Table(
        "success, 95% interval", "n", *PROTOCOLS, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for env_id, of in envs.items():
        table.add_row(env_id, str(len(of["episodes"])), *map(_share, of["success"].values()))
    if "mean" in report:
        means = ("–" if rate is None else f"{rate:.1%}" for rate in report["mean"].values())
        table.add_section()
        table.add_row("mean", "", *means)
    console.print(table)
    for env_id, of in envs.items():
        console.print(f"{env_id}: {_remarks(of)}", soft_wrap=True)
    for _, title, text in verdicts(report):
        console.print(f"{title} {text}", soft_wrap=True)


def _share(of: Mapping | None) -> str:
    """Short enough for three of them, and an environment's id, in 80 columns."""
    if of is None:
        return "–"
    return f"{of['rate']:.1%}\n{100 * of['low']:.0f} to {100 * of['high']:.0f}"


def _remarks(of: Mapping) -> str:
    """What else there is to know of an environment's episodes, on a line."""
    from canvas_robot.evaluation.eval_report import share
    from canvas_robot.evaluation.page import said

    ms, soon, change = of["decision_ms"], of["steps_to_success"]["p50"], of["action_change"]["mean"]
    parts = [
        *([f"success after {soon:g} steps (median)"] if soon is not None else []),
        *([f"action change {change:.3g}"] if change is not None else []),
        f"{said(ms['p50'])} ms a decision (95%: {said(ms['p95'])})",
        *(f"{count} {failure}" for failure, count in of["failures"].items()),
    ]
    if of["pairs"] is not None:
        parts.append(f"both goals of a scene: {share(of['pairs'])} of {of['pairs']['n']}")
    return "; ".join(parts)
