"""Timing and memory of a training step: our graft of a CogVideoX and canvas-engineering's.

Both loop the same frozen blocks of one transformer with random weights, in turns, in one process;
only peak process memory is measured in processes of their own.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from diffusers import CogVideoXTransformer3DModel
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

from canvas_robot.backbone.graft import graft_looped_blocks
from canvas_robot.evaluation.canvas_bench import require_other

TEXT_TOKENS = 226
WARM_UP_STEPS = 1
OURS, OURS_SIGMOID, THEIRS = GRAFTS = ("ours", "ours_sigmoid", "theirs")
DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class GraftSize:
    """What is trained: blocks of `width` with `heads`, `loops` each, over `tokens` of both streams.

    Up to 226 of the tokens, and at most half of them, are text.
    """

    width: int = 1920
    heads: int = 30
    blocks: int = 2
    loops: int = 3
    tokens: int = 192
    dtype: str = "float32"
    threads: int = 2

    def __post_init__(self) -> None:
        counts = (self.width, self.heads, self.blocks, self.loops, self.tokens - 1, self.threads)
        if min(counts) < 1 or self.width % (4 * self.heads) or self.dtype not in DTYPES:
            raise ValueError(
                "size: expected counts of at least 1, 2 tokens, a width that 4 times heads "
                f"divides and dtype float32 or bfloat16, got {self}"
            )

    @property
    def text(self) -> int:
        """Text tokens."""
        return min(TEXT_TOKENS, self.tokens // 2)

    @property
    def video(self) -> int:
        """Video tokens: patches of one frame."""
        return self.tokens - self.text


def bench_graft(
    size: GraftSize,
    steps: int = 5,
    peak_memory: bool = True,
    show: Callable[[str], None] = print,
) -> dict:
    """All figures: times in milliseconds, memory in MiB. A ratio is theirs to ours.

    Ours is timed with gate "identity" and, for the same function as theirs, with gate "sigmoid".

    Args:
        size: what is trained.
        steps: of each graft, in turns.
        peak_memory: also start a process for each graft and measure its peak memory.
        show: is told what is being measured.
    Raises:
        RuntimeError: canvas-engineering 0.1.0 is not installed, or the grafts of equal gates do not
            compute the same.
    """
    require_other()
    torch.set_num_threads(size.threads)
    show(f"{size.blocks} blocks x {size.loops} loops, {size.width} wide, {size.dtype}")
    trials = grafted(size, GRAFTS)
    _require_same_loss(trials)
    kept = {name: trial.kept_bytes() / 2**20 for name, trial in trials.items()}
    show(f"{steps} training steps of each graft, in turns")
    times = _in_turns(trials, steps)
    figures = {f"{name}_step_ms": median(values) for name, values in times.items()}
    figures |= _ratios("step", times)
    figures |= {f"{name}_kept_mib": value for name, value in kept.items()}
    figures |= _ratios("kept", {name: [value] for name, value in kept.items()})
    if peak_memory:
        show("peak memory of a process for each graft")
        peaks = {name: peak_in_own_process(size, name) for name in GRAFTS}
        figures |= {f"{name}_peak_mib": value for name, value in peaks.items()}
        figures |= _ratios("peak", {name: [value] for name, value in peaks.items()})
    return figures | {
        **{f"{name}_trained": trial.trained for name, trial in trials.items()},
        "tokens": size.tokens,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


class Trial:
    """A transformer under one graft: a training step of it, on fixed inputs.

    Args:
        transformer: shared by all trials; each puts its own looped blocks into it.
        blocks: looped, with their loops set.
        size: of the inputs.
    """

    def __init__(
        self, transformer: CogVideoXTransformer3DModel, blocks: nn.ModuleList, size: GraftSize
    ) -> None:
        self._transformer, self._blocks = transformer, blocks
        self._parameters = [p for p in blocks.parameters() if p.requires_grad]
        self._optimiser = torch.optim.AdamW(self._parameters, lr=1e-4)
        random, dtype = torch.Generator().manual_seed(1), getattr(torch, size.dtype)
        config = transformer.config
        shape = (1, 1, config.in_channels, config.sample_height, config.sample_width)
        self._latents = torch.randn(shape, generator=random).to(dtype)
        self._target = torch.randn(shape, generator=random).to(dtype)
        prompt = torch.randn(1, size.text, config.text_embed_dim, generator=random)
        self._prompt, self._timestep = prompt.to(dtype), torch.tensor([500])

    @property
    def trained(self) -> int:
        """Number of parameters that are trained."""
        return sum(p.numel() for p in self._parameters)

    def loss(self) -> torch.Tensor:
        """Squared error of the transformer's output."""
        self._transformer.transformer_blocks = self._blocks
        output = self._transformer(self._latents, self._prompt, self._timestep, return_dict=False)
        return F.mse_loss(output[0], self._target)

    def step(self) -> None:
        """Forward, backward and an AdamW step on what is trained."""
        self._optimiser.zero_grad(set_to_none=True)
        self.loss().backward()
        self._optimiser.step()

    def kept_bytes(self) -> int:
        """Bytes that a forward pass keeps for the backward pass, weights and inputs aside."""
        given = [*self._transformer.parameters(), *self._transformer.buffers()]
        given += [self._latents, self._target, self._prompt, self._timestep]
        known = {tensor.untyped_storage().data_ptr() for tensor in given}
        kept: dict[int, torch.UntypedStorage] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in known:
                kept[storage.data_ptr()] = storage
            return tensor

        with saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = self.loss()
        total = sum(storage.nbytes() for storage in kept.values())
        del loss
        return total


def grafted(size: GraftSize, names: tuple[str, ...]) -> dict[str, Trial]:
    """One random transformer, frozen, and a trial of it under each named graft."""
    torch.manual_seed(0)
    dtype = getattr(torch, size.dtype)
    transformer = CogVideoXTransformer3DModel(
        num_layers=size.blocks,
        num_attention_heads=size.heads,
        attention_head_dim=size.width // size.heads,
        sample_height=2,  # a strip of patches: any number of tokens fits
        sample_width=2 * size.video,
        sample_frames=1,
        max_text_seq_length=size.text,
    )
    nn.Module.to(transformer, dtype)  # diffusers' own warns of modules that it does not have
    originals, trials = list(transformer.transformer_blocks), {}
    for name in names:
        transformer.transformer_blocks = nn.ModuleList(originals)
        if name == THEIRS:
            looped, _ = require_other().graft_looped_blocks(transformer, size.loops)
        else:
            gate = "sigmoid" if name == OURS_SIGMOID else "identity"
            looped, _ = graft_looped_blocks(transformer, size.loops, gate=gate)
        for block in looped:
            block.set_loops(size.loops)
        blocks = transformer.transformer_blocks
        if name == THEIRS:
            blocks.to(dtype)  # its loop parameters in float32 would make float32 of all rows
        trials[name] = Trial(transformer, blocks, size)
    return trials


def peak_in_own_process(size: GraftSize, name: str) -> float:
    """MiB by which a training step raises a new process's memory above what the model takes."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(_peak, size, name).result()


def _peak(size: GraftSize, name: str) -> float:
    torch.set_num_threads(size.threads)
    trial = grafted(size, (name,))[name]
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten: proc(5)
    before = _status_kib("VmRSS")
    trial.step()
    return (_status_kib("VmHWM") - before) / 1024


def _status_kib(field: str) -> int:
    """A figure of this process's memory, of its own pages alone, unlike getrusage's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def _require_same_loss(trials: dict[str, Trial]) -> None:
    """Before any step: the identity gate aside, ours and theirs are the same function."""
    with torch.no_grad():
        ours, theirs = trials[OURS_SIGMOID].loss().item(), trials[THEIRS].loss().item()
    if abs(ours - theirs) > 1e-3 * abs(theirs):
        raise RuntimeError(f"the grafts differ: loss {ours:g} and {theirs:g}; nothing to compare")


def _in_turns(trials: dict[str, Trial], steps: int) -> dict[str, list[float]]:
    """Milliseconds of each step; who begins a round changes from round to round."""
    names, times = list(trials), {name: [] for name in trials}
    for turn in range(WARM_UP_STEPS + steps):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            started = time.perf_counter()
            trials[name].step()
            if turn >= WARM_UP_STEPS:
                times[name].append((time.perf_counter() - started) * 1e3)
    return times


def _ratios(what: str, values: dict[str, list[float]]) -> dict[str, float]:
    """Theirs to ours, the median over rounds: above 1, ours takes less."""
    return {
        f"{what}_ratio" + name.removeprefix(OURS): median(
            theirs / ours for theirs, ours in zip(values[THEIRS], values[name], strict=True)
        )
        for name in (OURS, OURS_SIGMOID)
    }
