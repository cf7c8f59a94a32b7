"""`canvas-robot data encode`: camera frames to latents and instructions to embeddings, once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from canvas_robot.data.encode_dataset import EncodingReport
    from canvas_robot.data.encoding import EncodingPlan


def encode(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The data set.")],
    backbone: Annotated[str, typer.Option(help="Name, folder or hub id; with its text encoder.")],
    schema: Annotated[str, typer.Option(help="File, or name of a shipped one.")],
    binding: Annotated[str, typer.Option(help="File, or name of a shipped one: the cameras.")],
    out: Annotated[Path, typer.Option(help="Folder to write to; made if there is none.")],
    split: Annotated[str, typer.Option(help="As stored: train or val.")] = "train",
    crops: Annotated[
        int, typer.Option(min=1, max=1024, help="Of each picture; the first is the whole one.")
    ] = 1,
    batch: Annotated[int, typer.Option(min=1, help="Frames that are encoded at a time.")] = 32,
    device: Annotated[
        str, typer.Option(help="cpu, cuda, ...; default: what Accelerate gives this process.")
    ] = "",
    dtype: Annotated[
        str, typer.Option(help="The encoders': float32, bfloat16 or float16.")
    ] = "bfloat16",
    revision: Annotated[str, typer.Option(help="Of a hub id: branch, tag or commit.")] = "",
    skip_corrupt: Annotated[
        bool, typer.Option("--skip-corrupt", help="Leave out episodes that cannot be read.")
    ] = False,
) -> None:
    """Run the frozen VAE over all frames and the text encoder over all instructions.

    Run it again to go on where it stopped. Under `accelerate launch` processes and machines that
    see the folder share the work: accelerate launch -m canvas_robot.cli data encode ...
    """
    from accelerate import PartialState
    from rich.console import Console
    from torch.cuda import is_available

    from canvas_robot.backbone.loading import DTYPES, load_backbone
    from canvas_robot.data.bridge import BridgeV2
    from canvas_robot.data.encode_dataset import encode_dataset
    from canvas_robot.data.encoding import plan_encoding
    from canvas_robot.data.latent_files import Recipe
    from canvas_robot.resources import resolve_config, schema_path
    from canvas_robot.schema import CanvasSchema
    from canvas_robot.signals import load_binding

    if dtype not in DTYPES:
        raise ValueError(f"--dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}")
    if device not in ("", "cpu") and not is_available():
        raise ValueError(f"--device: torch sees no CUDA device here; expected cpu, got {device!r}")
    # Processes without a GPU find one another only where Accelerate is told that there is none.
    process = PartialState(cpu=device == "cpu" or not is_available())
    console = Console(highlight=False, markup=False, emoji=False, quiet=process.process_index > 0)
    declared = CanvasSchema.from_json(schema_path(schema))
    bound = load_binding(resolve_config("bindings", binding))
    bound.check_schema(declared)
    with _shown(console, "reading the index") as progress:
        dataset = BridgeV2(folder, split, skip_corrupt=skip_corrupt, progress=progress)
    own = str(process.device) if process.device.type != "cpu" else "cpu"
    loaded = load_backbone(backbone, DTYPES[dtype], revision=revision or None, device=device or own)
    recipe = Recipe(
        data=str(folder.absolute()), backbone=loaded.source, schema=schema, binding=binding
    )
    plan = plan_encoding(dataset, out, declared, bound, loaded, recipe, crops)
    _print_plan(console, plan)
    plan.require_space()
    started = time.monotonic()
    with _shown(console, "encoding") as progress:
        report = encode_dataset(plan, process.process_index, process.num_processes, batch, progress)
    _print_report(console, plan, report, process.num_processes, time.monotonic() - started)
    process.destroy_process_group()


@contextmanager
def _shown(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """What is told how much is done, of how much: a bar, or lines in a log, a tenth each."""
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = TextColumn(what), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    on_terminal, tenths = console.is_terminal and not console.quiet, 0
    with Progress(*columns, console=console, disable=not on_terminal, transient=True) as bar:
        task = bar.add_task(what, total=None)

        def progress(done: int, total: int) -> None:
            nonlocal tenths
            bar.update(task, completed=done, total=total)
            if not on_terminal and total and 10 * done // total > tenths:
                tenths = 10 * done // total
                console.print(f"{what}: {10 * tenths}%")

        yield progress


def _print_plan(console: Console, plan: EncodingPlan) -> None:
    from canvas_robot.data.download import gigabytes

    prompt = plan.backbone.transformer.config
    each = (
        prompt.max_text_seq_length
        * prompt.text_embed_dim
        * plan.backbone.text_encoder.dtype.itemsize
    )
    for part in plan.parts:
        key, shape = part.manifest.key, " x ".join(map(str, part.manifest.shape))
        console.print(
            f"{key.folder}: {part.frames.sum():,} latents of {len(part.frames):,} episodes, "
            f"{key.crops} of each picture, each {shape} {key.dtype}",
            soft_wrap=True,
        )
    console.print(
        f"expected {gigabytes(plan.bytes_expected)} in {plan.folder}, "
        f"{gigabytes(plan.bytes_there)} of it there; {gigabytes(plan.bytes_free)} free; "
        f"and {gigabytes(each)} for each instruction",
        soft_wrap=True,
    )


def _print_report(
    console: Console, plan: EncodingPlan, report: EncodingReport, processes: int, seconds: float
) -> None:
    of_this = f"this process, of {processes}: " if processes > 1 else ""
    rate = f", {report.latents / seconds:,.0f} a second" if report.latents else ""
    console.print(
        f"{of_this}{report.latents:,} latents in {report.files_made:,} files{rate}; "
        f"{report.files_kept:,} files were there; {report.prompts_made:,} new instructions, "
        f"{report.prompts_kept:,} known: {plan.folder}",
        soft_wrap=True,
    )
