"""`canvas-robot bench`: what things cost, measured on this machine."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from canvas_robot.destinations import ready_file

STDOUT = "/dev/stdout"


class _Bench(TyperGroup):
    """Benchmarks. `--json` without a file prints the figures, and all else as errors are."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:
        named = []
        for arg, following in zip(args, [*args[1:], "-"], strict=True):
            named.append(arg)
            if arg == "--json" and following.startswith("-"):
                named.append(STDOUT)
        ctx.meta[STDOUT] = STDOUT in named
        return super().parse_args(ctx, named)

    def invoke(self, ctx: typer.Context) -> object:
        with redirect_stdout(sys.stderr) if ctx.meta[STDOUT] else nullcontext():
            return super().invoke(ctx)


app = typer.Typer(help="Measure on this machine.", no_args_is_help=True, cls=_Bench)
TRAIN_EPISODES = 60  # synthetic ones, 100 MB
JsonFile = Annotated[
    Path | None,
    typer.Option(
        "--json",
        callback=ready_file,
        help="Write the figures here; without a file, print them, and all else to stderr.",
    ),
]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads.")]
Width = Annotated[int, typer.Option(min=16, help="Token width.")]
Heads = Annotated[int, typer.Option(min=1, help="Attention heads.")]
Blocks = Annotated[int, typer.Option(min=1, help="Transformer blocks.")]
Loops = Annotated[int, typer.Option(min=1, help="Times each block runs.")]


@app.callback()
def _group() -> None:
    """Measure on this machine."""


@app.command("policy")
def policy(
    checkpoint: Annotated[
        str, typer.Option(help="Checkpoint folder; none: an untrained policy.")
    ] = "",
    decisions: Annotated[int, typer.Option(min=5, help="Decisions to time.")] = 100,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: torch's own choice.")] = 1,
    json_file: JsonFile = None,
) -> None:
    """Time whole decisions, codecs included, on new 640x480 pictures."""
    from canvas_robot.evaluation.policy_bench import bench_policy

    _report(bench_policy(checkpoint, decisions, threads), json_file)


@app.command("canvas")
def canvas(
    runs: Annotated[int, typer.Option(min=1, help="Timings of each attention.")] = 20,
    threads: Threads = 2,
    dispatcher: Annotated[
        Path | None,
        typer.Option(help="Folder that holds canvas-engineering 0.5.0, to time its dispatcher."),
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Time compiling schemas and one attention layer, beside canvas-engineering 0.1.0."""
    from canvas_robot.evaluation.canvas_bench import bench_canvas
    from canvas_robot.evaluation.dispatcher_bench import bench_dispatcher

    figures = bench_canvas(threads, runs, typer.echo)
    if dispatcher is not None:
        typer.echo("the same layer beside canvas-engineering 0.5.0's dispatcher")
        beside = bench_dispatcher(dispatcher, threads, runs)
        figures |= {f"dispatched_{name}": value for name, value in beside.items()}
    _report(figures, json_file)


@app.command("attention")
def attention(
    largest: Annotated[int, typer.Option(min=512, help="Most tokens; from 256, doubling.")] = 8192,
    repeats: Annotated[int, typer.Option(min=1, help="Timings of each.")] = 7,
    threads: Threads = 2,
    out: Annotated[
        Path | None, typer.Option(callback=ready_file, help="Write a plot here (PNG or SVG).")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Time every function type between ever more tokens, and how its cost grows."""
    from canvas_robot.evaluation.attention_bench import attention_costs, plot_costs

    sizes = [size for size in (2**power for power in range(8, 21)) if size <= largest]
    result = attention_costs(sizes, threads=threads, repeats=repeats)
    if out is not None:
        plot_costs(result, out)
    _report({f"{name}, ms at {sizes[-1]}": ms[-1] for name, ms in result["ms"].items()}, None)
    if json_file is not None:
        json_file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


@app.command("plan")
def plan(
    width: Width = 1920,
    heads: Heads = 30,
    blocks: Blocks = 3,
    loops: Loops = 3,
    slow: Annotated[int, typer.Option(min=2, help="Tokens of goal and visual.")] = 1506,
    fast: Annotated[int, typer.Option(min=1, help="Tokens of every tick.")] = 30,
    dtype: Annotated[str, typer.Option(help="bfloat16 or float32.")] = "bfloat16",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Threads = 2,
    fuse: Annotated[bool, typer.Option("--fuse", help="torch.compile elementwise parts.")] = False,
    pairs: Annotated[int, typer.Option(min=1, help="Full passes of each kind.")] = 5,
    ticks: Annotated[int, typer.Option(min=1, help="Cached ticks.")] = 100,
    sliced_ticks: Annotated[int, typer.Option(min=1, help="Ticks with slices.")] = 300,
    json_file: JsonFile = None,
) -> None:
    """Time full passes, cached ticks and sliced refreshes of the real block, random weights."""
    from canvas_robot.evaluation.plan_bench import PlanSize, bench_plan

    size = PlanSize(width, heads, blocks, loops, slow, fast, dtype, device, threads, fuse)
    _report(bench_plan(size, pairs, ticks, sliced_ticks, typer.echo), json_file)


@app.command("graft")
def graft(
    width: Width = 1920,
    heads: Heads = 30,
    blocks: Blocks = 2,
    loops: Loops = 3,
    tokens: Annotated[int, typer.Option(min=2, help="Tokens of text and video.")] = 192,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    threads: Threads = 2,
    steps: Annotated[int, typer.Option(min=1, help="Training steps of each graft.")] = 5,
    json_file: JsonFile = None,
) -> None:
    """Time a training step of a looped CogVideoX, and its memory, beside canvas-engineering's."""
    from canvas_robot.evaluation.graft_bench import GraftSize, bench_graft

    size = GraftSize(width, heads, blocks, loops, tokens, dtype, threads)
    _report(bench_graft(size, steps, show=typer.echo), json_file)


@app.command("data")
def data(
    episodes: Annotated[int, typer.Option(min=1, help="Of the synthetic Bridge V2.")] = 2000,
    folder: Annotated[
        Path, typer.Option(help="Where it is made, 1.7 MB an episode, and kept for the next run.")
    ] = Path("runs/bench_data"),
    clip: Annotated[
        Path | None, typer.Option(help="Video to make pictures from; none: simulator.")
    ] = None,
    latent_episodes: Annotated[
        int, typer.Option(min=1, help="About so many of them are encoded.")
    ] = 120,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of a turn of a loader.")] = 10.0,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each loader.")] = 3,
    cores: Annotated[int, typer.Option(min=1, help="That each loader may use.")] = 1,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes of our loader; 0: it reads in its own.")
    ] = 0,
    epochs: Annotated[int, typer.Option(min=1, help="Over which memory is watched.")] = 10,
    json_file: JsonFile = None,
) -> None:
    """Time reading Bridge V2 and its memory, beside TFDS and an Octo-style pipeline."""
    from canvas_robot.evaluation.data_bench import DataBench, bench_data

    bench = DataBench(
        folder=folder,
        episodes=episodes,
        latent_episodes=latent_episodes,
        clip=clip,
        rounds=rounds,
        seconds=seconds,
        cores=cores,
        workers=workers,
        epochs=epochs,
    )
    figures = bench_data(bench, typer.echo)
    if json_file is not None:
        json_file.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    _report_contenders(figures.pop("contenders"))
    targets = {f"target: {target}": met for target, met in figures.pop("targets").items()}
    _report({**figures, **targets}, None)


@app.command("train")
def train(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CONFIG [KEY=VALUE]...]",
            help="As of `canvas-robot train`; without data.folder: on a synthetic Bridge V2.",
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Updates of the weights to time.")] = 30,
    folder: Annotated[
        Path, typer.Option(help="Where the synthetic data are made, and kept for the next run.")
    ] = Path("runs/bench_train"),
    json_file: JsonFile = None,
) -> None:
    """Time training steps by the real trainer, and how long they wait for data."""
    from rich.console import Console

    from canvas_robot.evaluation.data_bench import synthetic_folder
    from canvas_robot.evaluation.train_bench import bench_train
    from canvas_robot.resources import resolve_config
    from canvas_robot.training.config_file import load_config

    name, *overrides = words or ["tiny_sim.yaml"]
    if not any(word.startswith("data.folder=") for word in overrides):
        overrides.append(f"data.folder={synthetic_folder(folder, TRAIN_EPISODES, typer.echo)}")
    config = load_config(resolve_config("train", name), overrides)
    _report(bench_train(config, steps, Console()), json_file)


@app.command("execution")
def execution(
    checkpoint: Annotated[str, typer.Option(help="Checkpoint; demo: the one that ships.")] = "demo",
    task: Annotated[str, typer.Option(help="Simulated task.")] = "cube_on_plate",
    episodes: Annotated[int, typer.Option(min=1, help="Of each execution and delay.")] = 10,
    json_file: JsonFile = None,
) -> None:
    """Compare executions of action chunks under delayed inference: success, jumps and jerk."""
    import torch
    from rich.console import Console
    from rich.table import Table

    from canvas_robot.policy.assemble import assemble_policy
    from canvas_robot.policy.settings import PolicySettings
    from canvas_robot.ros.execution_bench import bench_execution

    torch.set_num_threads(1)
    policy = assemble_policy(PolicySettings(checkpoint=checkpoint))
    rows = bench_execution(policy, task, episodes, typer.echo)
    if json_file is not None:
        json_file.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(_readable(value) for value in row.values()))
    Console(highlight=False).print(table)


@app.command("node")
def node(
    seconds: Annotated[
        float, typer.Option(min=5.0, help="Of each of two runs: a stand-in, then the model.")
    ] = 60.0,
    checkpoint: Annotated[
        str, typer.Option(help="Checkpoint of one camera; none: an untrained policy of two.")
    ] = "",
    device: Annotated[str, typer.Option(help="Of the model: cpu or cuda.")] = "cpu",
    json_file: JsonFile = None,
) -> None:
    """Measure the policy node over DDS: two 640x480 cameras at 30 Hz, joint states at 100 Hz."""
    from canvas_robot.ros.node_bench import bench_node

    figures = bench_node(seconds, typer.echo, checkpoint, device)
    if json_file is not None:
        json_file.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    _report_node(figures)


def _report_node(figures: dict) -> None:
    """Prints the figures of both runs, one figure a row."""
    from rich.console import Console
    from rich.table import Table

    table = Table("milliseconds, and others", "with the model", "with a stand-in")
    for name, value in figures["stand_in"].items():
        table.add_row(name, _readable(figures[name]), _readable(value))
    Console(highlight=False).print(table)


@app.command("faults")
def faults(
    only: Annotated[
        list[str] | None, typer.Option(help="A fault's name; again for more. Default: all.")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Break camera, joints, clock, model and node over DDS; exits with 1 where it goes wrong."""
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

    from canvas_robot.ros.fault_bench import Outcome, bench_faults
    from canvas_robot.ros.faults import faults_named

    table = Table()
    for column in ("fault", "hold", "after ms", "poses then", "again s", "ok"):
        table.add_column(column, no_wrap=True)
    table.add_column("verdict")

    def show(outcome: Outcome) -> None:
        table.add_row(
            outcome.name,
            outcome.reason or "none",
            "" if outcome.hold_ms is None else f"{outcome.hold_ms:.0f}",
            str(outcome.poses_after) if outcome.reason else "",
            "" if outcome.again_s is None else f"{outcome.again_s:.2f}",
            "ok" if outcome.ok else "NOT OK",
            outcome.verdict,
        )

    try:
        names = tuple(fault.name for fault in faults_named(tuple(only or ())))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--only") from error
    with Live(table, console=Console(highlight=False), vertical_overflow="visible"):
        result = bench_faults(names, show)
    typer.echo(f"\n{result['ok']} of {result['of']} ok")
    if json_file is not None:
        json_file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if result["ok"] < result["of"]:
        raise typer.Exit(1)


@app.command("sim")
def sim(
    tasks: Annotated[
        str, typer.Option(help="Names with commas between them; default: all tasks.")
    ] = "",
    steps: Annotated[int, typer.Option(min=1, help="Control steps of each timing.")] = 500,
    pictures: Annotated[int, typer.Option(min=1, help="Pictures of each timing.")] = 20,
    json_file: JsonFile = None,
) -> None:
    """Time control steps of the simulated tasks on one core, and pictures."""
    from canvas_robot.evaluation.sim_bench import bench_sim
    from canvas_robot.sim.tasks import TASK_NAMES

    names = tuple(name.strip() for name in tasks.split(",")) if tasks else TASK_NAMES
    figures = bench_sim(names, steps, pictures, typer.echo)
    if json_file is not None:
        json_file.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    _report_simulator(figures.pop("speed"), figures.pop("picture_ms"))
    targets = {f"target: {target}": met for target, met in figures.pop("targets").items()}
    _report({**targets, **figures}, None)


def _report_simulator(speed: dict[str, dict], picture_ms: dict[str, dict]) -> None:
    """Prints steps a second and milliseconds of pictures, one task a row."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    first_task = next(iter(speed.values()))
    acts = [word for act in next(iter(first_task.values())) for word in (act, "CPU")]
    table = Table("control steps/s", "physics", *acts, "reset ms")
    for task, by_rate in speed.items():
        for rate, by_actor in by_rate.items():
            row = [
                f"{of[figure]:,.0f}"
                for of in by_actor.values()
                for figure in ("steps_per_s", "cpu_steps_per_s")
            ]
            table.add_row(task, rate, *row, _readable(by_actor["expert"]["reset_ms"]))
    console.print(table)
    console.print(
        "expert: its recorded actions until the task is done; episode: to the step limit; null: "
        "action 0; CPU: by this process's own time, which other programs do not lengthen",
        soft_wrap=True,
    )
    first_task = next(iter(picture_ms.values()))
    sizes = [word for size in next(iter(first_task.values())) for word in (size, "CPU")]
    table = Table("picture, ms", "look", *sizes)
    for task, by_look in picture_ms.items():
        for look, by_size in by_look.items():
            row = [_readable(of[figure]) for of in by_size.values() for figure in ("ms", "cpu_ms")]
            table.add_row(task, look, *row)
    console.print(table)


def _report_contenders(contenders: dict[str, dict]) -> None:
    """Prints the loaders' figures, one loader a row, and what the loaders are."""
    from rich.console import Console
    from rich.table import Table

    from canvas_robot.evaluation.data_bench import CONTENDERS

    shown = {
        "steps_per_s": "steps/s",
        "steps_per_s_per_core": "a core",
        "cpu_ms": "CPU ms",
        "anonymous_mib": "MiB",
        "peak_mib": "peak MiB",
    }
    table = Table("loader", *shown.values())
    for name, figures in contenders.items():
        table.add_row(name, *(_readable(figures[column]) for column in shown))
    console = Console(highlight=False)
    console.print(table)
    for name, what in CONTENDERS.items():
        console.print(f"{name}: {what}")


def _report(figures: dict, json_file: Path | None) -> None:
    """Prints the figures as a table and writes them to a file if there is one."""
    from rich.console import Console
    from rich.table import Table

    table = Table("figure", "value")
    for name, value in figures.items():
        table.add_row(name, _readable(value))
    Console().print(table)
    if json_file is not None:
        json_file.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def _readable(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.3g}"
