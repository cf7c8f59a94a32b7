"""What a task is: props at a workplace, episodes by id, and a judge that says how it goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from canvas_robot.kinematics.rule import Limits
from canvas_robot.signals.pose import Pose
from canvas_robot.sim.physics import WidowXSim
from canvas_robot.sim.props import Prop
from canvas_robot.sim.workplace import Workplace

CONTROL_PERIOD_S = 0.2

# Bridge's action box, and the workspace of config/bindings/widowx.yaml, so that one action means
# one command here and on a robot. Source of the box: bridge_data_robot, robot_base_env.py.
STEP_LIMITS = (0.05, 0.05, 0.05, 0.25, 0.25, 0.25)
LIMITS = Limits(
    step=STEP_LIMITS,
    box_low=(0.10, -0.20, 0.018),
    box_high=(0.45, 0.25, 0.30),
    rpy_low=(-0.8, -0.8, -1.57),
    rpy_high=(0.8, 0.8, 1.57),
)


@dataclass(frozen=True, eq=False)
class Episode:
    """One start of a task; equal ids give equal episodes.

    poses: of every prop, in `base_link`. target: the prop that is to be touched, or placed upon.
    """

    episode_id: int
    instruction: str
    poses: Mapping[str, Pose]
    target: str


class Judge(Protocol):
    """Watches one episode. Made after the simulator's reset; `watch` runs the physics."""

    @property
    def ended(self) -> bool:
        """Whether the task is decided for good, so that no further step makes sense."""

    def watch(self, sim: WidowXSim, count: int) -> None:
        """Advance by `count` physics steps of the present control step, or to the decision."""

    def note(self, sim: WidowXSim) -> None:
        """Take note of how things stand at the end of a control step."""

    def verdict(self) -> dict[str, bool]:
        """success, success_any, and what else the task defines; the same keys at every step."""


class Task(Protocol):
    """A task by value.

    published: how many episode ids, from 0 on, are poses that others publish results on; every
    further id is a draw of its own.
    """

    name: str
    props: tuple[Prop, ...]
    workplace: Workplace
    published: int

    def alternatives(self, episode: Episode) -> tuple[str, ...]:
        """Other targets that the same scene can be asked for; none where it has one goal."""

    def episode(self, episode_id: int, target: str | None = None) -> Episode:
        """The episode of an id >= 0; with another target than its own where one is named."""

    def judge(self, episode: Episode, sim: WidowXSim) -> Judge:
        """A judge of an episode that the simulator has just been reset to."""
