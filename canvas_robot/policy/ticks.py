"""TickRunner: runs a plan tick by tick, keeping the keys and values of what did not change.

Kept or computed anew, every row is what one joint forward of all rows would give. How the slow rows
are computed is the refresh mode: inside their tick, or spread over ticks into a second cache.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from math import ceil

import torch

from canvas_robot.policy.cache import RowCache
from canvas_robot.policy.graphs import Graphs
from canvas_robot.policy.modulation import Modulator
from canvas_robot.policy.passes import CompiledPass
from canvas_robot.policy.runner import PlanRunner
from canvas_robot.schema import Plan, closure, distinct_passes, needed_for

REFRESHES = ("inline", "sliced")


class RefreshError(ValueError):
    """A plan cannot be refreshed as asked, or a tick lacks what it needs."""


class TickRunner:
    """Executes a runner's plan with caches. For inference: weights must not change meanwhile.

    Args:
        runner: on its device, in its precision.
        refresh: "inline" computes what is due inside its tick. "sliced" computes the slow regions
            (those with a period above 1) in slices between ticks: a tick then acts on slow inputs
            between P and 2P-1 ticks old, P being their shortest period.
        outputs: regions whose rows are wanted; what they do not read is never computed. None: all.
        batch: B.
        graphs: on a CUDA device, capture what ticks run and replay it; False: launch each kernel.
    Raises:
        RefreshError: an unknown word, or a plan whose slow regions cannot be computed apart.
    """

    def __init__(
        self,
        runner: PlanRunner,
        refresh: str = "inline",
        outputs: Iterable[str] | None = None,
        batch: int = 1,
        graphs: bool = True,
    ) -> None:
        if refresh not in REFRESHES:
            raise RefreshError(f"refresh: expected one of {REFRESHES}, got {refresh!r}")
        self.plan, self.runner, self.refresh = runner.plan, runner, refresh
        names = [r.name for r in self.plan.regions]
        self.regions = needed_for(self.plan, names if outputs is None else outputs)
        self.slow = frozenset()
        if refresh == "sliced":
            self.slow = slow_regions(self.plan, self.regions)
        weight = runner.transformer.patch_embed.proj.weight
        config = runner.transformer.config
        self._blocks = len(runner.transformer.transformer_blocks)
        self._caches = [
            RowCache(
                self.plan,
                self._blocks,
                config.num_attention_heads,
                config.attention_head_dim,
                batch,
                weight.dtype,
                weight.device,
            )
            for _ in range(2 if self.slow else 1)
        ]
        self._inputs = torch.zeros_like(self._caches[0].out)
        self.modulator = Modulator(runner.transformer, self.plan)
        self.modulator.fold()
        self._passes: dict[frozenset[str], CompiledPass] = {}
        self._spans = {
            r.name: slice(r.start, r.stop) for r in self.plan.regions if r.name in self.regions
        }
        slow_rows = sum(r.stop - r.start for r in self.plan.regions if r.name in self.slow)
        self._sampled = torch.zeros_like(self._inputs[:, :slow_rows])
        periods = [r.period for r in self.plan.regions if r.name in self.slow]
        self.period = min(periods, default=1)
        self._graphs = Graphs()
        if graphs and weight.device.type == "cuda":
            with torch.inference_mode():
                self._capture()
        self.reset()

    @property
    def nbytes(self) -> int:
        """Bytes of all caches."""
        inputs = self._inputs.nbytes + self._sampled.nbytes
        return inputs + sum(cache.nbytes for cache in self._caches)

    @property
    def graphs(self) -> int:
        """Number of captured CUDA graphs."""
        return len(self._graphs)

    @property
    def age(self) -> int:
        """Ticks since the slow inputs were taken that the last tick acted on; 0 without slices."""
        return self._tick - self._published if self.slow and self._tick >= 0 else 0

    @property
    def inputs(self) -> torch.Tensor:
        """(B, N, D), a copy: the newest input tokens of all rows; 0 for regions never computed."""
        return self._inputs.clone()

    @property
    def acted_on(self) -> dict[str, object]:
        """By region, the label of the tokens that the last tick acted on."""
        return {name: self._readable.get(name, label) for name, label in self._labels.items()}

    def reset(self) -> None:
        """Starts over: the next tick must bring tokens of every region."""
        self._tick = -1
        self._labels: dict[str, object] = {}  # of the newest tokens of each region
        self._sampled_labels: dict[str, object] = {}  # of the slow pass that is under way
        self._readable: dict[str, object] = {}  # of the published slow pass
        self._published = -1  # tick whose slow inputs the readable cache holds; -1: none
        self._work: Iterator[None] | None = None
        self._begun = self._done = 0
        self._current = 0

    @torch.inference_mode()
    def tick(
        self,
        tokens: Mapping[str, torch.Tensor],
        events: Iterable[str] = (),
        labels: Mapping[str, object] | None = None,
        number: int | None = None,
    ) -> torch.Tensor:
        """One control tick: the last block's output (B, N, D) of all rows, valid until the next.

        Args:
            tokens: input tokens (B, n, D) of the regions that are due, by region.
            events: regions among them that changed out of turn (a new goal): they count at once,
                in slices too.
            labels: what the tokens are of, for `acted_on` to tell.
            number: of the tick since the reset, where ticks may be left out; None: the next one.
        Raises:
            RefreshError: the first tick lacks a region, an event brings no tokens, or the number is
                not above the last one.
        """
        before, number = self._tick, self._tick + 1 if number is None else number
        if number <= before:
            raise RefreshError(f"tick: expected a number above {before}, got {number}")
        self._take(tokens, frozenset(events), labels or {})
        self._tick = number
        if not self.slow:
            self._run(closure(self.plan, tokens) & self.regions, 0)
            return self._caches[0].out
        boundary = before < 0 or number // self.period != before // self.period
        if boundary:
            self._publish()
        if self._published < 0 or not self.slow.isdisjoint(closure(self.plan, events)):
            self._work = None
            self._run(self.regions, self._current)
            self._published = number
            self._readable = {name: self._labels[name] for name in self.slow}
        else:
            if boundary:
                self._begin()
            self._run(self.regions - self.slow, self._current)
        return self._caches[self._current].out

    @torch.inference_mode()
    def work(self) -> None:
        """After a tick's action is out: its share of the slow pass that is under way."""
        if self._work is None:
            return
        share = ceil((self._tick - self._begun + 1) * self.slices / self.period)
        while self._done < min(share, self.slices):
            next(self._work)
            self._done += 1

    @property
    def slices(self) -> int:
        """(block, loop) units of one slow pass."""
        loops = max((r.loops for r in self.plan.regions if r.name in self.slow), default=0)
        return self._blocks * loops

    def _take(
        self,
        tokens: Mapping[str, torch.Tensor],
        events: frozenset[str],
        labels: Mapping[str, object],
    ) -> None:
        unknown = (set(tokens) | events) - set(self._spans)
        missing = (set(self._spans) - set(self._labels) - set(tokens)) | (events - set(tokens))
        if unknown or missing:
            raise RefreshError(
                f"tick: expected tokens of {sorted(self._spans)} at first, later of those that "
                f"changed; missing {sorted(missing)}, unknown {sorted(unknown)}"
            )
        for region, values in tokens.items():
            expected = self._inputs[:, self._spans[region]].shape
            if values.shape != expected:
                raise RefreshError(
                    f"tick: tokens of {region!r}: expected shape {tuple(expected)}, "
                    f"got {tuple(values.shape)}"
                )
        for region, values in tokens.items():
            self._inputs[:, self._spans[region]] = values
            self._labels[region] = labels.get(region)

    def _begin(self) -> None:
        """Begins a slow pass from the slow inputs as they are at this tick."""
        rows = self._compiled(self.slow).rows
        self._sampled.copy_(self._inputs.index_select(1, rows))
        spare = 1 - self._current
        self._work = self._graphs.steps(("slice", spare), lambda: self._slices(spare))
        self._sampled_labels = {name: self._labels[name] for name in self.slow}
        self._begun, self._done = self._tick, 0

    def _slices(self, half: int) -> Iterator[None]:
        """The slow pass into one half of the caches, a (block, loop) at a time."""
        chosen, cache = self._compiled(self.slow), self._caches[half]
        steps = self.runner.steps(self._sampled, chosen, cache, self.modulator)
        for number, done in enumerate(steps, start=1):
            if number == self.slices:
                cache.out.index_copy_(1, chosen.rows, done)
            yield

    def _publish(self) -> None:
        """Ends the slow pass that is under way, whatever is left of it, and lets ticks read it."""
        if self._work is None:
            return
        for _ in self._work:
            pass
        self._work = None
        self._current, self._published = 1 - self._current, self._begun
        self._readable = self._sampled_labels

    def _run(self, regions: frozenset[str], half: int) -> None:
        """Computes these regions from their inputs into one half of the caches."""
        if regions:
            self._graphs.run((regions, half), lambda: self._pass(regions, half))

    def _pass(self, regions: frozenset[str], half: int) -> None:
        chosen, cache = self._compiled(regions), self._caches[half]
        rows = self._inputs.index_select(1, chosen.rows)
        (last,) = deque(self.runner.steps(rows, chosen, cache, self.modulator), maxlen=1)
        cache.out.index_copy_(1, chosen.rows, last)

    def _capture(self) -> None:
        """Captures every pass and slice that a tick without events runs."""
        passes = {self.regions, self.regions - self.slow}
        if not self.slow:
            passes |= {dirty & self.regions for dirty in distinct_passes(self.plan)}
        for half in range(len(self._caches)):
            for regions in filter(None, passes):
                self._graphs.capture((regions, half), lambda r=regions, h=half: self._pass(r, h))
            if self.slow:
                self._graphs.capture_steps(("slice", half), lambda h=half: self._slices(h))

    def _compiled(self, regions: frozenset[str]) -> CompiledPass:
        if regions not in self._passes:
            self._passes[regions] = CompiledPass(self.plan, regions).to(self._inputs.device)
        return self._passes[regions]


def slow_regions(plan: Plan, regions: Iterable[str]) -> frozenset[str]:
    """Of some regions those that a sliced refresh computes apart: with a period above 1.

    Raises RefreshError where one reads a faster region: what it read would not be of one moment.
    """
    slow = frozenset(r.name for r in plan.regions if r.period > 1) & frozenset(regions)
    for region in plan.regions:
        read = sorted(set(region.reads) - slow)
        if region.name in slow and read:
            raise RefreshError(
                f"refresh 'sliced': region {region.name!r} (period {region.period}) reads {read}, "
                "which change every tick; remove the connections, or use refresh 'inline'"
            )
    holding = sorted(r.name for r in plan.regions if r.hold and r.name in slow)
    if holding and len({r.period for r in plan.regions if r.name in slow}) > 1:
        raise RefreshError(
            f"refresh 'sliced': regions {holding} hold, and the slow regions have several periods; "
            "one pass computes all of them anew: give them one period, or use refresh 'inline'"
        )
    if not slow:
        raise RefreshError("refresh 'sliced': expected a region with a period above 1; all are 1")
    return slow
