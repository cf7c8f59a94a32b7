"""encode_dataset: the VAE over all frames of a plan, the text encoder over all instructions.

A range of episodes is one file, written whole or not at all, so that a run that was ended goes on
where it stopped, and processes share the work without speaking to one another. What is written is
read by latents.py and policy/prompts.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import msgspec
import numpy as np
import torch
from safetensors.numpy import save_file

from canvas_robot.data.crops import crop_box
from canvas_robot.data.encoding import EncodingPlan, write_whole
from canvas_robot.data.latent_files import LatentCacheError, RangeNote, open_file, tensor_name
from canvas_robot.data.stored import StoredEpisode
from canvas_robot.policy.codecs.text import PromptTooLongError, prompt_embedding
from canvas_robot.policy.codecs.visual import FRAMES_AT_A_TIME, VisualCodec
from canvas_robot.policy.prompts import create_prompts

T = TypeVar("T")
R = TypeVar("R")

PROMPTS = "prompts"  # folder of the instructions' embeddings, beside the caches

Progress = Callable[[int, int], None]
"""Called after each episode with the latents that are done and those of the whole run."""


@dataclass(frozen=True)
class EncodingReport:
    """What one process did.

    files_made, files_kept: of latents. latents: how many it computed.
    prompts_made, prompts_kept: of instructions.
    """

    files_made: int
    files_kept: int
    latents: int
    prompts_made: int
    prompts_kept: int


def encode_dataset(
    plan: EncodingPlan,
    process_index: int = 0,
    num_processes: int = 1,
    batch_size: int = FRAMES_AT_A_TIME,
    progress: Progress | None = None,
) -> EncodingReport:
    """Makes what is missing; whole files stay as they are.

    Of n processes, number i makes the files i, i + n, ... of each cache.

    Args:
        batch_size: frames that go through the VAE at a time.
    Raises:
        LatentCacheError: latents that float16 does not hold. What was made until then stays.
        PromptTooLongError: after all else is done, for instructions that the text stream does not
            hold.
    """
    prompts = _Prompts(plan)
    numbers = range(process_index, plan.files, num_processes)
    work = [(part, number) for number in numbers for part in range(len(plan.parts))]
    done, total = 0, sum(plan.parts[part].frames_of(number) for part, number in work)

    def advance(frames: int) -> None:
        nonlocal done
        done += frames
        if progress is not None:
            progress(done, total)

    made = latents = 0
    for p, number in work:
        part = plan.parts[p]
        if part.whole[number]:
            prompts.add(open_file(part.folder, part.manifest, number).note.instructions)
            advance(part.frames_of(number))
        else:
            latents += _encode_file(plan, p, number, prompts, batch_size, advance)
            made += 1
    prompts.require_all()
    return EncodingReport(made, len(work) - made, latents, prompts.made, prompts.kept)


def _encode_file(
    plan: EncodingPlan,
    p: int,
    number: int,
    prompts: _Prompts,
    batch_size: int,
    advance: Callable[[int], None],
) -> int:
    """Encodes and writes the episodes of a file of a part; how many latents it has."""
    part = plan.parts[p]
    key, episodes = part.manifest.key, part.manifest.episodes_of(number)

    def read(episode: int) -> tuple[StoredEpisode, np.ndarray]:
        stored = plan.dataset.read(episode)
        return stored, stored.images(key.camera, range(len(stored)))

    tensors, steps, instructions = {}, [], []
    for episode, (stored, images) in zip(episodes, _ahead(read, episodes), strict=True):
        steps.append(len(stored))
        instructions.append(stored.instruction)
        if (images == images[:1]).all():  # black ones, most often
            images = images[:1]
        for crop in range(key.crops):
            box = crop_box(key.dataset, episode, crop, images.shape[1:3])
            latents = _latents(part.codec, box.of(images), batch_size)
            if not np.isfinite(latents).all():
                raise LatentCacheError(
                    f"episode {stored.name!r}: {key.camera}: expected latents that float16 holds, "
                    f"up to 65504, got larger ones or NaN; the VAE computes in "
                    f"{part.manifest.computed_in}: try --dtype float32"
                )
            tensors[tensor_name(episode, crop)] = latents
        advance(int(part.frames[episode]))
    prompts.add(instructions)  # first: who finds the file finds them too
    note = msgspec.json.encode(RangeNote(steps, list(dict.fromkeys(instructions)))).decode()
    write = partial(save_file, tensors, metadata={"range": note})
    write_whole(part.folder / part.manifest.file(number), write)
    return sum(map(len, tensors.values()))


def _latents(codec: VisualCodec, images: np.ndarray, batch_size: int) -> np.ndarray:
    """Images (n, H, W, 3) uint8 to latents (n, C, h, w) float16.

    They are contiguous: safetensors writes memory as it lies, and convolutions leave channels last.
    """
    batch, missing = torch.from_numpy(images)[None], torch.zeros(1, len(images), dtype=torch.bool)
    latents = codec.encode_batch(batch, missing, batch_size)[0]
    return latents.to(torch.float16).cpu().contiguous().numpy()


def _ahead(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """`function` of each item, the next one in a thread while this one is worked on."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        coming = None
        for item in items:
            ready, coming = coming, pool.submit(function, item)
            if ready is not None:
                yield ready.result()
        if coming is not None:
            yield coming.result()


class _Prompts:
    """The embeddings of instructions, each made once; those that are too long are gathered."""

    def __init__(self, plan: EncodingPlan) -> None:
        self._folder = create_prompts(plan.folder / PROMPTS, plan.backbone)
        self._encoder = plan.backbone.text_encoder, plan.backbone.tokenizer
        self._seen: set[str] = set()
        self._too_long: list[str] = []
        self.made = 0

    @property
    def kept(self) -> int:
        """How many were there before."""
        return len(self._seen) - self.made - len(self._too_long)

    def add(self, instructions: Iterable[str]) -> None:
        """Makes those that are missing."""
        for text in dict.fromkeys(instructions):
            if text in self._seen:
                continue
            self._seen.add(text)
            if not self._folder.file(text).is_file():
                self._make(text)

    def require_all(self) -> None:
        """Raises PromptTooLongError for instructions that could not be made."""
        if self._too_long:
            raise PromptTooLongError(
                f"{len(self._too_long)} of {len(self._seen)} instructions have more than the "
                f"{self._folder.encoder.max_tokens} tokens of the text stream, and no embedding; "
                f"the latents are whole. The first: {self._too_long[0]!r}; use a backbone with a "
                "longer text stream"
            )

    def _make(self, text: str) -> None:
        try:
            embedding = prompt_embedding(*self._encoder, text, self._folder.encoder.max_tokens)
        except PromptTooLongError:
            self._too_long.append(text)
        else:
            self._folder.save(text, embedding)
            self.made += 1
