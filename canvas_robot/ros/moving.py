"""Moving: what moves the arm, and how it comes to rest. No ROS.

One thing at a time moves it: a decision that is followed, somebody who leads it, or a slow stop.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np

from canvas_robot.kinematics.guide import GoTo, Guide, Teleoperation
from canvas_robot.kinematics.rule import Command, parted
from canvas_robot.ros.blocks import LED_THROUGH, THEN_START, Blocks
from canvas_robot.ros.decisions import Decision, HoldReason, Instant, Motion, Reaction
from canvas_robot.ros.following import Following
from canvas_robot.ros.intake import Intake
from canvas_robot.ros.measured import Measured
from canvas_robot.ros.reactions import reactions_of
from canvas_robot.signals.binding import Robot
from canvas_robot.signals.pose import Pose, bridge_state_from_pose

# An arm that parts from its target so often, each time soon after the last, is blocked: pushing on
# from where it stands would only press harder.
PARTINGS, SOON_TICKS = 3, 15


class GuideError(RuntimeError):
    """The arm must not be led now; the text says why."""


@dataclass(frozen=True, eq=False)
class _SlowStop:
    """What brakes, whose speed it is, and why."""

    moves: Following | Guide
    gripper: float
    reason: HoldReason
    detail: str


@final
class Moving:
    """The arm on its way, or at rest. Not thread-safe: the control loop's lock guards it.

    blocks: what stops it until that is let go. generation: counts what ends a motion; a decision
    that was begun in another one is not followed.

    Args:
        robot: declares reactions, and how far the arm may part from its target.
        follow: carries out decisions.
        measured: where the arm is; intake: how old that is.
        now: the present moment.
    Raises:
        BindingError: reactions that cannot be.
    """

    def __init__(
        self,
        robot: Robot,
        follow: Following,
        measured: Measured,
        intake: Intake,
        now: Callable[[], Instant],
    ) -> None:
        self._robot, self._reactions = robot, reactions_of(robot)
        self._follow, self._measured, self._intake, self._now = follow, measured, intake, now
        self.blocks = Blocks()
        self.generation = 0
        self._guide: Guide | None = None
        self._guided_for: HoldReason | None = None
        self._slow_stop: _SlowStop | None = None
        self._partings, self._parted_index = 0, -SOON_TICKS

    @property
    def is_led(self) -> bool:
        """Whether somebody leads the arm, or it goes to a declared pose."""
        return self._guide is not None

    @property
    def standing(self) -> tuple[HoldReason, str] | None:
        """What is told of all that stops the policy: an end, who leads the arm, another block."""
        if self.blocks.ended is None and self._guide is not None:
            return self._guided_for, self.blocks[self._guided_for]
        return self.blocks.ended or self.blocks.foremost

    def motion(self, now: Instant) -> Motion | Decision | None:
        """What to publish now: a set-point, the hold that ends the motion, or nothing."""
        if self._guide is not None:
            return self._guided(now)
        if self._slow_stop is not None:
            return self._slowed(now)
        course = self._follow.course
        if course is None:
            return None
        if now.steady_ns > course.until_ns:
            return self.hold(-1, now.ros_ns, HoldReason.TIMEOUT, course.end)
        try:
            return self._follow.motion(self._measured.pose, now.steady_ns)
        except ValueError as error:
            return self.hold(-1, now.ros_ns, HoldReason.BAD_ACTION, str(error))

    def disengage(self) -> None:
        """The next decision starts from the measured pose; none that is under way is followed."""
        self._follow.disengage()
        self.generation += 1

    def reset(self) -> None:
        """Whatever moves the arm ends, without a command."""
        self.disengage()
        self._follow.course = self._slow_stop = None
        self._end_guide()

    # ---------------------------------------------------------------- to rest

    def hold(self, index: int, stamp_ns: int, reason: HoldReason, detail: str) -> Decision:
        """Disengages, with the reaction that is declared for the reason."""
        reaction = self._reactions[reason]
        goes_on = self._guide is not None and reason == self._guided_for
        if not goes_on and reaction is Reaction.SLOW_STOP:
            goes_on = self._slow_stop is not None or self._begin_slow_stop(reason, detail)
        if goes_on:
            return self.told(index, stamp_ns, reason, detail)
        if reaction is Reaction.DEACTIVATE:
            self.blocks.end(reason, detail)
        return self._halt(index, stamp_ns, reason, detail, reaction)

    def told(self, index: int, stamp_ns: int, reason: HoldReason, detail: str) -> Decision:
        """A hold that ends no motion."""
        reaction = self._reactions[reason]
        return Decision(index, stamp_ns, reason=reason, detail=detail, reaction=reaction)

    def hindered(self, index: int, stamp_ns: int) -> Decision | None:
        """The hold of an arm that is where it must not be; None where it may be decided on."""
        measured = self._measured.pose
        if self._measured.is_outside:
            return self.hold(
                index,
                stamp_ns,
                HoldReason.OUTSIDE_WORKSPACE,
                f"measured pose {np.round(bridge_state_from_pose(measured, 0.0)[:6], 3).tolist()} "
                f"(m, rad) is further outside box and orientation limits of the binding "
                f"than one step; move the arm inside",
            )
        target = self._follow.target
        if target is not None and self._robot.anchor == "target" and self._parted(target):
            return self._part(index, stamp_ns, target)
        if self._slow_stop is not None:  # which comes to its end before anything begins
            return self.hold(index, stamp_ns, self._slow_stop.reason, self._slow_stop.detail)
        return None

    def block(self, index: int, stamp_ns: int, reason: HoldReason, detail: str) -> Decision | None:
        """A reason stands until `unblock`: the hold, or None where it stood already."""
        if reason in self.blocks and self._guide is None:
            self.blocks.retell(reason, detail)
            return None
        self.blocks.add(reason, detail)
        return self.hold(index, stamp_ns, reason, detail)

    def unblock(self, index: int, stamp_ns: int, reason: HoldReason) -> Decision | None:
        """A reason stands no more: the hold that ends the motion, where the arm was led for it."""
        held = None
        if reason == self._guided_for and self._guide is not None:
            detail = "led no further; the policy goes on from the measured pose"
            held = self.hold(index, stamp_ns, HoldReason.INTERRUPTED, detail)
        self.blocks.remove(reason)
        return held

    def _halt(
        self, index: int, stamp_ns: int, reason: HoldReason, detail: str, reaction: Reaction
    ) -> Decision:
        """Ends whatever moves the arm, at once.

        The first hold after motion carries one command at the measured pose, if that is known.
        """
        self._give_up_guide(reason, detail)
        moves = (self._follow.course, self._guide, self._slow_stop)
        command, moving = None, any(one is not None for one in moves)
        self._end_guide()
        self._follow.course = self._slow_stop = None
        if moving and reaction is not Reaction.ZERO_TWIST:
            command = self._stay(by_stamp=reason is not HoldReason.CLOCK_JUMPED)
            if command is None and reaction is not Reaction.DEACTIVATE:
                reaction = Reaction.ZERO_TWIST
        self.disengage()
        return Decision(
            index,
            stamp_ns,
            command=command,
            halts=moving,
            reason=reason,
            detail=detail,
            reaction=reaction,
        )

    def _begin_slow_stop(self, reason: HoldReason, detail: str) -> bool:
        """Brakes what moves; False where nothing does, or where nobody knows the arm's pose."""
        guide = self._guide
        moves = guide if guide is not None else self._follow if self._follow.course else None
        if moves is None or moves.is_still or self._stay() is None:
            return False
        self._give_up_guide(reason, detail)
        self._end_guide()
        self._follow.course = None
        self.disengage()
        self._slow_stop = _SlowStop(moves, self._follow.gripper, reason, detail)
        return True

    def _slowed(self, now: Instant) -> Motion | Decision:
        """The next set-point of a slow stop, or the hold at its end."""
        stop = self._slow_stop
        set_point = stop.moves.brake(now.steady_ns / 1e9) if self._stay() is not None else None
        if set_point is None:
            return self._halt(-1, now.ros_ns, stop.reason, stop.detail, Reaction.SLOW_STOP)
        if self._parted(set_point.pose):
            detail = "the arm does not follow while it brakes"
            return self.hold(-1, now.ros_ns, HoldReason.PARTED, detail)
        return Motion(set_point, stop.gripper, -1, 0, now.ros_ns)

    def _stay(self, by_stamp: bool = True) -> Command | None:
        """The command to stay at the measured pose; None where that is not known, or outside.

        by_stamp: whether stamps tell how old it is, beside the steady clock.
        """
        now = self._now()
        if not by_stamp:  # whatever the robot's clock says
            now = Instant(0, now.steady_ns)
        if self._measured.is_old(now) or self._measured.is_outside:
            return None
        self._follow.keep_gripper(self._measured.gripper)
        return self._follow.stay(self._measured.pose)

    def _parted(self, target: Pose) -> bool:
        return parted(target, self._measured.pose, self._robot.part_m, self._robot.part_rad)

    def _part(self, index: int, stamp_ns: int, target: Pose) -> Decision:
        apart = float(np.linalg.norm(target.position - self._measured.pose.position))
        detail = (
            f"target and measured pose are {apart:.3f} m apart (limits {self._robot.part_m} m, "
            f"{self._robot.part_rad} rad); the arm does not follow"
        )
        soon = index - self._parted_index <= SOON_TICKS
        self._partings, self._parted_index = self._partings + 1 if soon else 1, index
        if self._partings >= PARTINGS:
            self._partings = 0
            detail = f"{detail}, for the {PARTINGS}rd time; free it, then ~/start goes on"
            self.blocks.add(HoldReason.PARTED, detail)
        return self.hold(index, stamp_ns, HoldReason.PARTED, detail)

    # ---------------------------------------------------------------- led

    def go_to(self, now: Instant, reason: HoldReason, coordinates: tuple[float, ...]) -> Decision:
        """Leads the arm to a declared pose; the hold of the policy meanwhile.

        Raises GuideError where the arm must not be moved now.
        """
        if why_not := self._not_guidable(now):
            raise GuideError(why_not)
        if reason == self._guided_for and self._guide is not None:
            return self.hold(-1, now.ros_ns, reason, LED_THROUGH[reason])  # on its way
        target = np.asarray(coordinates)
        return self._begin_guide(now, reason, functools.partial(GoTo, target=target))

    def teleoperate(self, now: Instant, speed: np.ndarray) -> Decision | None:
        """Somebody's hand says speeds (6,); the hold of the policy, where this is the first.

        Raises GuideError where the arm must not be moved now, ValueError for speeds that are not
        finite.
        """
        why_not, held = self._not_guidable(now), None
        if not why_not and HoldReason.STOPPED in self.blocks:
            why_not = f"{HoldReason.STOPPED}: {self.blocks[HoldReason.STOPPED]}"
        if why_not:
            raise GuideError(why_not)
        if not isinstance(self._guide, Teleoperation):
            held = self._begin_guide(now, HoldReason.TELEOPERATED, Teleoperation)
        self._guide.say(speed, now.steady_ns / 1e9)
        return held

    def teleoperate_gripper(self, share: float) -> None:
        """0 closed to 1 open, while somebody's hand leads the arm."""
        if isinstance(self._guide, Teleoperation):
            self._guide.gripper = min(max(share, 0.0), 1.0)

    def _not_guidable(self, now: Instant) -> str:
        """Why the arm must not be led now; "" where it may."""
        if against := self.blocks.against_leading:
            return against
        signal = self._measured.signal
        if self._intake.is_old(signal, now):
            if not self._intake.has_come(signal):
                return f"the measured pose is not known: no sample of signal {signal!r} yet"
            age_s = self._intake.age_s(signal, now)
            return f"the measured pose is not known: signal {signal!r} is {age_s:.2f} s old"
        return self._intake.silence_of(signal)

    def _begin_guide(
        self, now: Instant, reason: HoldReason, make: Callable[..., Guide]
    ) -> Decision:
        held = self.hold(-1, now.ros_ns, reason, LED_THROUGH[reason])
        self._follow.keep_gripper(self._measured.gripper)
        self._guide = self._follow.guide(make, self._measured.pose, now.steady_ns)
        self._guided_for = reason
        self.blocks.add(reason, LED_THROUGH[reason])
        return held

    def _guided(self, now: Instant) -> Motion | Decision:
        """The guide's next set-point, or the hold at its end."""
        if why_not := self._not_guidable(now):
            return self.hold(-1, now.ros_ns, HoldReason.STALE_INPUT, why_not)
        reason = self._guided_for
        motion = self._follow.guided(self._guide, self._measured.pose, now)
        if motion is None:
            self._end_guide()
            command = self._stay()
            detail = "nobody leads the arm any more"
            if reason in self.blocks:
                detail = f"is at the binding's {reason}; {THEN_START}"
                self.blocks.retell(reason, detail)
            return Decision(
                -1,
                now.ros_ns,
                command=command,
                halts=True,
                reason=reason,
                detail=detail,
                reaction=self._reactions[reason],
            )
        if self._parted(motion.set_point.pose):
            detail = "the arm does not follow where it is led"
            return self.hold(-1, now.ros_ns, HoldReason.PARTED, detail)
        return motion

    def _give_up_guide(self, reason: HoldReason, detail: str) -> None:
        """Whoever asked for a pose is told that it was not reached."""
        if self._guided_for in (HoldReason.HOME, HoldReason.PARK):
            why = reason if reason in LED_THROUGH else detail
            told = f"did not reach the binding's {self._guided_for}: {why}; {THEN_START}"
            self.blocks.retell(self._guided_for, told)

    def _end_guide(self) -> None:
        """What somebody's hand did leaves nothing behind; a pose that was gone to keeps the arm."""
        if self._guide is not None:
            self._follow.gripper = self._guide.gripper
        if self._guided_for is HoldReason.TELEOPERATED:
            self.blocks.remove(HoldReason.TELEOPERATED)
        self._guide = self._guided_for = None
