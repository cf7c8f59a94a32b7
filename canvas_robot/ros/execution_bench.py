"""How each execution of action chunks bears inference that takes long: success, and the seams.

The control loop itself, with its command rate and its limits, on a simulated arm; the clock is the
simulation's, so that a decision takes just as long as it is told to, whatever this machine does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from canvas_robot.kinematics.arm import Arm
from canvas_robot.kinematics.rule import Command
from canvas_robot.policy.chunk_execution import EXECUTIONS, make_execution
from canvas_robot.policy.protocol import Policy
from canvas_robot.ros.control import ControlLoop
from canvas_robot.ros.decisions import Decision, Instant
from canvas_robot.ros.sim_episodes import most_periods
from canvas_robot.signals import ActionChunk, GoingOn, Observation
from canvas_robot.sim.physics import WidowXSim
from canvas_robot.sim.running_episode import RunningEpisode
from canvas_robot.sim.scene import Scene
from canvas_robot.sim.tasks import task_named

DELAYS_MS = (0, 100, 200, 400)
COMMAND_HZ, CAMERA_HZ, SIZE = 50, 25, (256, 256)
TIMEOUT_S = 3.0  # a decision is followed this long: what is measured is the delay, not the holds
SEAM_S = 0.1  # after a decision is taken, its seam
FIRST_EPISODE = 90_000
LONGEST_S = 60.0  # of an episode, should nothing ever be commanded
_START_NS = 1_000_000_000


@dataclass(eq=False)
class _Run:
    """One episode: where the set-points were, and which of them follow a decision."""

    succeeded: bool = False
    periods: int = 0
    holds: int = 0
    positions: list[np.ndarray] = field(default_factory=list)
    seams: list[bool] = field(default_factory=list)


class _Delayed:
    """A policy whose decisions take time, in which the arm moves on."""

    def __init__(self, policy: Policy, wait: Callable[[], None]) -> None:
        self._policy, self._wait = policy, wait

    def __getattr__(self, name: str):
        return getattr(self._policy, name)

    def act(self, observation: Observation, going_on: GoingOn | None = None) -> ActionChunk:
        chunk = self._policy.act(observation, going_on)
        self._wait()
        return chunk


class _Cell:
    """A simulated arm with the control loop on it; time passes only in `advance`."""

    def __init__(self, policy: Policy, task: str, episode: int, execution: str, delay_s: float):
        self._task = task_named(task)
        self._arm = Arm.load("wx250s")
        self._sim = WidowXSim(
            self._arm, Scene(self._task.props, self._task.workplace), 1.0 / COMMAND_HZ
        )
        self._running = RunningEpisode(self._task, episode, self._sim)
        self._slice = round(1.0 / COMMAND_HZ / self._sim.timestep)
        self._slices, self._taken_s = 0, -1.0
        self.run = _Run()
        wait = functools.partial(self.advance, delay_s)
        self._binding = policy.binding
        self._loop = ControlLoop(
            _Delayed(policy, wait),
            self._now,
            lambda line: None,
            TIMEOUT_S,
            COMMAND_HZ,
            execution=make_execution(execution, 0, policy.horizon),
        )
        self._loop.instruct(self._running.episode.instruction)

    def play(self) -> _Run:
        """The episode until it succeeds, or its time is over."""
        self._sense()
        index = 0
        most = most_periods(self._task.name)
        while self._running.periods < most and self._time_s < LONGEST_S and not self._succeeds():
            decision = self._loop.tick(index, self._now().ros_ns)
            self._note(decision)
            due = max(index + 1, -(-round(self._time_s * 1e9) // self._binding.tick_ns))
            self.advance(due * self._binding.tick_ns / 1e9 - self._time_s)
            index = due
        self.run.succeeded = self._succeeds()
        self.run.periods = self._running.periods
        self._sim.close()
        return self.run

    def advance(self, seconds: float) -> None:
        """Physics, samples and commands of so much time."""
        for _ in range(round(seconds * COMMAND_HZ)):
            motion = self._loop.motion()
            if isinstance(motion, Decision):
                self._note(motion)
            elif motion is not None:
                self._sim.command(Command(motion.set_point.pose, motion.gripper))
                self._running.begin()
                self.run.positions.append(motion.set_point.pose.position)
                self.run.seams.append(self._time_s - self._taken_s <= SEAM_S)
            self._running.step(self._slice)
            self._slices += 1
            self._sense()

    def _succeeds(self) -> bool:
        return bool(self._running.facts()["success_any"])

    @property
    def _time_s(self) -> float:
        return self._slices / COMMAND_HZ

    def _now(self) -> Instant:
        ns = _START_NS + round(self._time_s * 1e9)
        return Instant(ns, ns)

    def _sense(self) -> None:
        now_ns = self._now().ros_ns
        state = self._arm.measured_state(self._sim.joints, self._sim.finger)
        self._loop.sample("state", now_ns, np.float32(state))
        if self._slices % (COMMAND_HZ // CAMERA_HZ) == 0:
            self._loop.sample("image", now_ns, self._sim.render(*SIZE))

    def _note(self, decision: Decision) -> None:
        if decision.chunk is not None:
            self._taken_s = self._time_s
        if decision.reason is not None:
            self.run.holds += 1
            if decision.command is not None:
                self._sim.command(decision.command)
            self.run.positions.append(np.full(3, np.nan))  # no jump is measured across a hold
            self.run.seams.append(False)


def bench_execution(
    policy: Policy,
    task: str,
    episodes: int,
    told: Callable[[str], None],
    delays_ms: Sequence[int] = DELAYS_MS,
) -> list[dict]:
    """A row for each execution and delay.

    success: of `episodes`, at some time; periods: control periods until then, median.
    jump_mm: largest step of the set-point between two commands within SEAM_S after a decision is
    taken; jerk: largest third difference there, m/s^3; jerk_rms: of all set-points.
    holds: of all episodes.
    """
    rows = []
    for execution in EXECUTIONS:
        for delay_ms in delays_ms:
            runs = [
                _Cell(policy, task, FIRST_EPISODE + k, execution, delay_ms / 1e3).play()
                for k in range(episodes)
            ]
            rows.append({"execution": execution, "delay_ms": delay_ms, **_figures(runs)})
            told(f"{execution}, {delay_ms} ms: {rows[-1]['success']} of {episodes}")
    return rows


def _figures(runs: Sequence[_Run]) -> dict:
    jumps, jerks, all_jerks = [], [], []
    for run in runs:
        positions, seams = np.array(run.positions), np.array(run.seams)
        step = np.linalg.norm(np.diff(positions, axis=0), axis=1)
        jerk = np.linalg.norm(np.diff(positions, 3, axis=0), axis=1) * COMMAND_HZ**3
        jumps.append(np.nanmax(step[seams[1:]], initial=0.0))
        jerks.append(np.nanmax(jerk[seams[3:]], initial=0.0))
        all_jerks.append(jerk[np.isfinite(jerk)])
    done = [run.periods for run in runs if run.succeeded]
    return {
        "success": sum(run.succeeded for run in runs),
        "episodes": len(runs),
        "periods": float(np.median(done)) if done else None,
        "jump_mm": float(max(jumps)) * 1e3,
        "jerk": float(max(jerks)),
        "jerk_rms": float(np.sqrt(np.mean(np.concatenate(all_jerks) ** 2))),
        "holds": sum(run.holds for run in runs),
    }
