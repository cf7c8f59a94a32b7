"""`canvas-robot export`: the deployable checkpoint of a training run."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of the run.")],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Folder to write; default: RUN/export/step_<step>."),
    ] = None,
    step: Annotated[
        int | None, typer.Option(min=1, help="Of the checkpoint; default: the newest.")
    ] = None,
    ema: Annotated[
        bool, typer.Option("--ema/--no-ema", help="The moving average, or the weights themselves.")
    ] = True,
    prompts: Annotated[
        bool,
        typer.Option(
            "--prompts/--no-prompts",
            help="Bring the embeddings of all instructions, if the run used a folder of them.",
        ),
    ] = True,
    whole: Annotated[
        bool,
        typer.Option("--whole", help="Bring the backbone: a folder that needs nothing beside it."),
    ] = False,
    backbone: Annotated[
        bool,
        typer.Option(
            "--backbone", help="Of a run that trained the transformer: write that, to be adapted."
        ),
    ] = False,
) -> None:
    """Write the folder that a robot loads: a run's weights with all that they were made for."""
    if backbone:
        from canvas_robot.training.export_backbone import export_backbone

        if out is None:
            raise ValueError("export --backbone: expected the folder to write: -o FOLDER")
        typer.echo(f"{export_backbone(run, out, step, ema)}: a backbone; use it by this path")
        return
    from canvas_robot.training.export import export_run
    from canvas_robot.training.plain_export import export_plain
    from canvas_robot.training.plain_run import PlainRun

    is_plain = PlainRun.holds_run(run.expanduser())
    if is_plain:
        folder, record = export_plain(run, out, step, ema)
    else:
        folder, record = export_run(run, out, step, ema, prompts, whole)
    rules, of = record.rules, {"average": "the moving average", "last": "the weights themselves"}
    typer.echo(f"{folder}: step {record.step} of {record.steps}, {of[record.weights]}")
    if rules.relabelled:
        typer.echo(
            f"its actions are {rules.actions}, motions that the arm achieved: they act on the "
            "measured pose (robot.anchor: measured)"
        )
    else:
        typer.echo("its actions are as recorded: they act as the binding's robot.anchor says")
    if record.refresh == "sliced":
        typer.echo("it was trained for sliced refreshes: load it with refresh sliced")
    if record.held_out and not is_plain:
        words = [str(folder), record.folder, "--split", record.held_out]
        typer.echo(f"evaluate it with: {shlex.join(['canvas-robot', 'eval-offline', *words])}")
