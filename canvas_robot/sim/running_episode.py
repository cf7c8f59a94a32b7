"""An episode in a simulation that runs on by itself, as a robot does, and not from step to step."""

from __future__ import annotations

from typing import final

from canvas_robot.sim.physics import WidowXSim
from canvas_robot.sim.task import CONTROL_PERIOD_S, Task


@final
class RunningEpisode:
    """Resets the simulator to an episode of a task, and judges it from the first command on.

    One control period after the other is judged by the task's own judge, as in the Gymnasium
    environment; a period begins with the first command and then every 0.2 s.

    sim: with the task's props. episode_id: as of `Task.episode`.
    """

    def __init__(self, task: Task, episode_id: int, sim: WidowXSim) -> None:
        self.episode = task.episode(episode_id)
        sim.reset(self.episode.poses)
        self._task, self._sim = task, sim
        self._judge = task.judge(self.episode, sim)
        self._begun, self._since, self.periods = False, 0, 0
        self._per_period = round(CONTROL_PERIOD_S / sim.timestep)

    def begin(self) -> None:
        """A command came: from now on it counts."""
        self._begun = True

    @property
    def ended(self) -> bool:
        """Whether it is decided for good."""
        return self._judge.ended

    def step(self, count: int) -> bool:
        """Advances the physics; whether a control period ended, or the episode."""
        if not self._begun or self.ended:
            self._sim.step(count)
            return False
        self._judge.watch(self._sim, count)
        self._since += count
        if self._since < self._per_period and not self.ended:
            return False
        self._judge.note(self._sim)
        self._since, self.periods = 0, self.periods + 1
        return True

    def facts(self) -> dict[str, object]:
        """Which episode this is and how it stands; the judge's own words among them."""
        return {
            "task": self._task.name,
            "episode": self.episode.episode_id,
            "instruction": self.episode.instruction,
            "periods": self.periods,
            "ended": self.ended,
            **self._judge.verdict(),
        }
