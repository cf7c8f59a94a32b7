"""Foresight: the pictures that a policy predicts, for who watches it. No ROS; no part of acting.

Decisions come first: it computes only in what a decision leaves of its tick, and a small share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from canvas_robot.policy.protocol import Imagined, Policy
from canvas_robot.ros.decisions import Decision

SHARE = 0.2  # of a control tick, at most
EVERY_NS = 1_000_000_000  # at least, from one prediction to the next


@dataclass(frozen=True, eq=False)
class Foreseen:
    """One predicted picture.

    region: of the future. camera: the observed region of the same camera, None where no region is.
    made_ns: of the tick whose decision it follows; at_ns: the moment that it is a picture of.
    learned: whether training taught the policy to predict it.
    """

    region: str
    camera: str | None
    made_ns: int
    at_ns: int
    learned: bool
    picture: np.ndarray


@final
class Foresight:
    """What a policy predicts, kept until it predicts anew. For the control thread.

    policy: asked between its decisions; never where its schema has no video to come.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy, binding, schema = policy, policy.binding, policy.schema
        future = binding.future_regions(schema)
        regions = binding.regions_by_codec("visual")
        cameras = {binding.regions[r].signal: r for r in regions if r not in future}
        self._cameras = {r: cameras.get(binding.regions[r].signal) for r in sorted(future)}
        specs = {region: schema.layout.region_spec(region) for region in future}
        self._tick_ns = binding.tick_ns
        self._periods = {region: spec.period for region, spec in specs.items()}
        self._learned = {r: policy.trained and spec.loss_weight > 0 for r, spec in specs.items()}
        self.forget()

    def forget(self) -> None:
        """Nobody watches, or the arm is held: what is predicted of before does not count."""
        self.shown: tuple[Foreseen, ...] = ()
        self._since_ns: int | None = None
        self._next_ns = 0

    def go_on(self, decision: Decision, left_s: float) -> None:
        """Lets the policy go on predicting, after a decision that it has made.

        left_s: until the next tick. Raises what the policy raises.
        """
        if not self._cameras or left_s <= 0:
            return
        if self._since_ns is None:
            self._since_ns = decision.stamp_ns
        if decision.stamp_ns < self._next_ns:
            return
        done = self._policy.imagined(min(left_s, SHARE * self._tick_ns / 1e9))
        if done is None:
            return
        made_ns = decision.stamp_ns - (decision.chunk.tick - done.tick) * self._tick_ns
        if made_ns >= self._since_ns:
            self._next_ns = made_ns + EVERY_NS
            self.shown = self._foreseen(done, made_ns)

    def _foreseen(self, done: Imagined, made_ns: int) -> tuple[Foreseen, ...]:
        return tuple(
            Foreseen(
                region,
                self._cameras[region],
                made_ns,
                made_ns + number * self._periods[region] * self._tick_ns,
                self._learned[region],
                picture,
            )
            for region, frames in done.frames.items()
            for number, picture in enumerate(frames, start=1)
        )
