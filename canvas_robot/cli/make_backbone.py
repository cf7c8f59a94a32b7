"""`canvas-robot make-backbone`: a small backbone for data sets of one's own."""

from __future__ import annotations

from typing import Annotated

import typer


def make_backbone(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="CONFIG [KEY=VALUE]...",
            help="A file or the name of a shipped one, and what is to be otherwise than it says.",
        ),
    ],
) -> None:
    """Train a small backbone's VAE on recorded pictures and its tokenizer on their instructions.

    Its transformer stays random: `canvas-robot train` with mode pretrain teaches it. Published
    backbones need none of this.
    """
    from rich.console import Console

    from canvas_robot.resources import resolve_config
    from canvas_robot.training.autoencoder import AutoencoderConfig, make_small_backbone
    from canvas_robot.training.config_file import load_config

    config = load_config(resolve_config("train", words[0]), words[1:], AutoencoderConfig)
    result = make_small_backbone(config, Console())
    typer.echo(
        f"{result.folder}: a VAE of {result.parameters:,} parameters, {result.steps} steps in "
        f"{result.minutes:.1f} minutes, {result.psnr_db:.1f} dB on pictures that were held out"
    )
