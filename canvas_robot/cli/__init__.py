"""The command line: `canvas-robot`. Each command parses, builds and calls; one file each."""

from __future__ import annotations

import logging
import signal
import sys

import typer

from canvas_robot.allocator import keep_freed_memory
from canvas_robot.cli import (
    ablate,
    bench,
    data,
    demo,
    doctor,
    eval_offline,
    export,
    make_backbone,
    prompts,
    record,
    replay,
    replay_sim,
    schema,
    train,
    train_plain,
)
from canvas_robot.cli import eval as evaluate

app = typer.Typer(
    name="canvas-robot",
    help="A frozen, looped CogVideoX as a robot's policy.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)
app.command("record")(record.record)
app.command("replay")(replay.replay)
app.command("replay-sim")(replay_sim.replay_sim)
app.command("prompts")(prompts.prompts)
app.command("train")(train.train)
app.command("train-plain")(train_plain.train_plain)
app.command("make-backbone")(make_backbone.make_backbone)
app.command("export")(export.export)
app.command("ablate")(ablate.ablate)
app.command("eval")(evaluate.eval_policy)
app.command("eval-offline")(eval_offline.eval_offline)
app.add_typer(bench.app, name="bench")
app.add_typer(data.app, name="data")
app.add_typer(schema.app, name="schema")


@app.callback()
def _group() -> None:
    """Robot policies declared as a canvas of tokens."""


def main() -> None:
    """Entry point of `canvas-robot`.

    A mistake of the user's ends with its message, not with a traceback.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: children are ended
    keep_freed_memory()
    memory = logging.getLogger("canvas_robot.backbone.memory")  # what a backbone is about to take
    memory.setLevel(logging.INFO)
    memory.addHandler(logging.StreamHandler())
    try:
        app()
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from error
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        raise SystemExit(130) from None
