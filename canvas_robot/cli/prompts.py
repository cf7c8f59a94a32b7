"""`canvas-robot prompts`: embeds instructions where the text encoder is, for robots without it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def prompts(
    backbone: Annotated[str, typer.Option(help="Name, folder or hub id; with its text encoder.")],
    out: Annotated[Path, typer.Option(help="Folder to add to; made if there is none.")],
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[PROMPT]...", help="Instructions.")
    ] = None,
    file: Annotated[Path | None, typer.Option(help="A text file, an instruction a line.")] = None,
    dtype: Annotated[
        str, typer.Option(help="The text encoder's: float32, bfloat16 or float16.")
    ] = "float32",
) -> None:
    """Compute and keep the text encoder's embeddings of instructions; known ones are passed over.

    A policy that is given the folder follows these instructions without a text encoder.
    """
    wanted = _instructions(texts or [], file)
    if not wanted:
        raise ValueError("prompts: expected instructions, as arguments or with --file; got none")

    from canvas_robot.backbone.loading import DTYPES, load_backbone
    from canvas_robot.policy.codecs.text import PromptTooLongError, prompt_embedding
    from canvas_robot.policy.prompts import PromptFileError, PromptNotCachedError, create_prompts

    if dtype not in DTYPES:
        raise ValueError(f"--dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}")
    loaded = load_backbone(backbone, DTYPES[dtype])
    folder, encoder = create_prompts(out, loaded), (loaded.text_encoder, loaded.tokenizer)
    for number, text in enumerate(wanted, start=1):
        try:
            folder.load(text)
            done = "known"
        except (PromptNotCachedError, PromptFileError):  # a spoilt one is made anew
            try:
                embedding = prompt_embedding(*encoder, text, folder.encoder.max_tokens)
            except PromptTooLongError as error:
                raise PromptTooLongError(f"{text!r}: {error}") from error
            folder.save(text, embedding)
            done = "added"
        typer.echo(f"{number}/{len(wanted)} {done}: {text}")
    typer.echo(f"{len(folder.prompts())} prompts of {folder.encoder.backbone} in {folder.path}")


def _instructions(texts: list[str], file: Path | None) -> list[str]:
    """Each once, in order; raises SignalError for a text that no binding accepts."""
    from canvas_robot.signals import TextSignal

    lines = file.read_text(encoding="utf-8").splitlines() if file is not None else []
    named = [("--file", line.strip()) for line in lines if line.strip()]
    named += [("prompt", text) for text in texts]
    return list(dict.fromkeys(TextSignal().checked(name, text) for name, text in named))
