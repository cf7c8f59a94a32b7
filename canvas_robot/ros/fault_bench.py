"""What the policy node does when things fail, over DDS: a fault, the hold, and the way back."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from geometry_msgs.msg import PoseStamped, TwistStamped

from canvas_robot.ros.fault_robot import FaultRobot
from canvas_robot.ros.faults import Fault, Scene, faults_named
from canvas_robot.ros.messages import MessageError, pose_from_msg, stamp_ns, twist_from_msg
from canvas_robot.ros.monitor import Monitor, Status
from canvas_robot.ros.processes import NodeProcesses, free_domain_id, node_environment
from canvas_robot.signals.pose import Pose

START_TIMEOUT_S, AGAIN_TIMEOUT_S = 120.0, 30.0
HOLD_TIMEOUT_S = 6.0
QUIET_S = 0.5  # after a hold, in which no pose may come
GOING_ON_S = 2.0  # that a fault which holds nothing is watched
FLOWING = 3  # decisions in a row
LAG_RAD = 0.1  # of the waist, 3 cm: the arm lags behind its target, so that a hold has to move it
TRIES = 4  # to be told of what is refused: the node logs a line of one kind every 5 s at most
GAP_MS = 200.0  # between two commands, that is too long
NEAR_M, NEAR_RAD = 0.001, 0.01  # of the measured pose: a hold's command


class FaultBenchError(RuntimeError):
    """There is nothing to measure: the node does not decide; the text says what it printed."""


@dataclass(frozen=True)
class Outcome:
    """What one fault led to.

    reason: of the first hold, "" where there was none; message: its words. hold_ms: from the fault
    to the hold's status. poses_after: after a hold, those published behind the hold's own, within
    `QUIET_S` and before decisions go on; else all of them. off_mm: of the last pose from the
    measured one; speed: of the last twist, m/s. gap_ms: the longest between two commands while
    nothing holds. followed: instructions of the decisions from the fault on. again_s: until
    decisions flow again, since it was mended or, if it passes by itself, since the hold. verdict:
    in words. None: it did not come, or does not matter.
    """

    name: str
    reason: str
    message: str
    hold_ms: float | None
    poses_after: int
    off_mm: float | None
    speed: float | None
    gap_ms: float | None
    followed: tuple[str, ...]
    again_s: float | None
    ok: bool
    verdict: str


@dataclass(frozen=True, eq=False)
class _Seen:
    """What was seen between the fault and its mending.

    commanded: whether the hold came with a command. off: metres and rad, speed: m/s and rad/s of
    the last pose and twist after a hold. gap_ms: the longest between two commands without one.
    """

    hold: Status | None
    hold_ms: float | None
    poses_after: int
    decisions: int
    followed: set[str]
    commanded: bool = False
    resumed: bool = False
    off: tuple[float, float] | None = None
    speed: tuple[float, float] | None = None
    gap_ms: float | None = None
    unsaid: bool = False


def bench_faults(
    names: tuple[str, ...] = (), show: Callable[[Outcome], None] = lambda outcome: None
) -> dict:
    """Injects the faults of these names, or all, one after the other.

    Returns "faults", a dict for each, "ok", how many went as they should, and "of", how many there
    were. show: receives each outcome as it comes. Raises ValueError for a name that is no fault,
    FaultBenchError where the node does not decide.
    """
    faults = faults_named(names)
    domain, outcomes = free_domain_id(), []
    with (
        FaultRobot(domain) as robot,
        Monitor(domain) as monitor,
        NodeProcesses(node_environment(domain)) as nodes,
    ):
        scene = Scene(robot, monitor, nodes)
        for fault in faults:
            outcomes.append(_outcome(scene, fault))
            show(outcomes[-1])
    return {
        "faults": [vars(outcome) for outcome in outcomes],
        "ok": sum(outcome.ok for outcome in outcomes),
        "of": len(outcomes),
    }


def _outcome(scene: Scene, fault: Fault) -> Outcome:
    """From decisions that flow, through the fault, to decisions that flow again."""
    scene.run_node(fault.node)
    scene.complaints.clear()
    monitor = scene.monitor
    if _flowing_since(scene, len(monitor.statuses), START_TIMEOUT_S) is None:
        raise FaultBenchError(
            f"before {fault.name}: the node does not decide; it printed:\n"
            f"{scene.nodes.log('policy')[-2000:]}"
        )
    scene.robot.turn_waist(LAG_RAD)
    decided = len(monitor.statuses) + 1  # the next is to have seen it
    monitor.wait_for(lambda: len(monitor.statuses) > decided, HOLD_TIMEOUT_S)
    seen = _killed(scene, fault) if fault.ends_node else _watched(scene, fault)
    if fault.passes and seen.hold is not None:
        began, since = monitor.statuses.index(seen.hold), seen.hold.received_s
        again = _flowing_since(scene, began, AGAIN_TIMEOUT_S)
        _mend(scene, fault)
    else:
        began, since = len(monitor.statuses), time.monotonic()
        _mend(scene, fault)
        again = _flowing_since(scene, began, AGAIN_TIMEOUT_S)
    again_s = None if again is None else again - since
    wrong = [*_wrong(fault, seen, again_s), *scene.complaints]
    return Outcome(
        name=fault.name,
        reason=seen.hold.values["reason"] if seen.hold is not None else "",
        message=seen.hold.message if seen.hold is not None else "",
        hold_ms=seen.hold_ms,
        poses_after=seen.poses_after,
        off_mm=None if seen.off is None else seen.off[0] * 1e3,
        speed=None if seen.speed is None else seen.speed[0],
        gap_ms=seen.gap_ms,
        followed=tuple(sorted(text[:80] for text in seen.followed)),
        again_s=again_s,
        ok=not wrong,
        verdict="; ".join(wrong) or _right(fault, seen),
    )


def _mend(scene: Scene, fault: Fault) -> None:
    scene.robot.mend()
    fault.mend(scene)


def _flowing_since(scene: Scene, began: int, timeout_s: float) -> float | None:
    """When, steady clock, the first of FLOWING decisions in a row came; None: not in time.

    began: how many statuses to leave out.
    """

    def first() -> Status | None:
        statuses = scene.monitor.statuses[began:]
        rows = zip(*(statuses[k:] for k in range(FLOWING)), strict=False)
        return next((row[0] for row in rows if all(s.active for s in row)), None)

    scene.monitor.wait_for(lambda: first() is not None or scene.nodes.died() is not None, timeout_s)
    found = first()
    return None if found is None else found.received_s


def _watched(scene: Scene, fault: Fault) -> _Seen:
    """Injects, and watches the hold and what follows it, or that there is none."""
    monitor = scene.monitor
    began, posed, twisted = len(monitor.statuses), len(monitor.poses), len(scene.twists)
    moved, injected = len(monitor.motions), time.monotonic()
    unsaid = not _injected(scene, fault, began)
    hold = _held(monitor, began)
    active = [s for s in monitor.statuses[began:] if s.active]
    followed = {str(s.values["instruction"]) for s in active}
    if hold is None:
        gap_ms = _gap_ms(monitor.motions[moved:]) if scene.robot.clock is None else None
        poses = len(monitor.poses) - posed
        return _Seen(None, None, poses, len(active), followed, gap_ms=gap_ms, unsaid=unsaid)
    if fault.inject is None and active:
        injected = active[-1].received_s  # the decision after it failed
    # Messages of one topic come in order: a pose that is not announced by now came after the hold.
    announced = {motion["command_stamp_ns"] for motion in monitor.motions}
    announced.add(hold.values["command_stamp_ns"])
    after_hold = monitor.statuses.index(hold) + 1

    def resumed() -> Status | None:
        return next((s for s in monitor.statuses[after_hold:] if s.active), None)

    monitor.wait_for(lambda: resumed() is not None, QUIET_S)
    onward = resumed()
    poses = _before(monitor.poses[posed:], onward)
    twists = _before(scene.twists[twisted:], onward)
    return _Seen(
        hold=hold,
        hold_ms=(hold.received_s - injected) * 1e3,
        poses_after=sum(stamp_ns(pose.header.stamp) not in announced for pose in poses),
        decisions=len(active),
        followed=followed,
        commanded=hold.values["command_stamp_ns"] != 0,
        resumed=onward is not None,
        off=_off(poses[-1], scene.robot.pose) if poses else None,
        speed=_speed(twists[-1]) if twists else None,
        unsaid=unsaid,
    )


def _injected(scene: Scene, fault: Fault, began: int) -> bool:
    """Injects, and waits for a hold; again, if the log is to say something and does not yet.

    Returns whether it does.
    """
    logged = len(scene.nodes.log("policy"))
    for _ in range(TRIES):
        if fault.inject is not None:
            fault.inject(scene)
        scene.monitor.wait_for(
            lambda: _held(scene.monitor, began) is not None,
            GOING_ON_S if fault.goes_on else HOLD_TIMEOUT_S,
        )
        if fault.says in scene.nodes.log("policy")[logged:]:
            return True
    return False


def _held(monitor: Monitor, began: int) -> Status | None:
    return next((status for status in monitor.statuses[began:] if not status.active), None)


def _gap_ms(motions: list[dict]) -> float | None:
    """The longest between two commands, by their stamps; None where there are not two."""
    stamps = [motion["command_stamp_ns"] for motion in motions]
    return float(np.max(np.diff(stamps))) / 1e6 if len(stamps) > 1 else None


def _before(commands: list, onward: Status | None) -> list:
    """The stamped commands before that of a decision."""
    stamps = [stamp_ns(command.header.stamp) for command in commands]
    resumed_ns = onward.values["command_stamp_ns"] if onward is not None else None
    return commands[: stamps.index(resumed_ns)] if resumed_ns in stamps else commands


def _killed(scene: Scene, fault: Fault) -> _Seen:
    """Ends the node, and counts the poses that come when none can."""
    monitor = scene.monitor
    fault.inject(scene)
    monitor.wait_for(lambda: scene.nodes.died() is not None, HOLD_TIMEOUT_S)
    monitor.wait_for(lambda: False, QUIET_S)  # what was under way arrives
    posed, decided = len(monitor.poses), len(monitor.statuses)
    monitor.wait_for(lambda: False, QUIET_S)
    poses, decisions = len(monitor.poses) - posed, len(monitor.statuses) - decided
    return _Seen(None, None, poses, decisions, set())


def _off(msg: PoseStamped, measured: Pose) -> tuple[float, float]:
    """How far a commanded pose is from the measured one: m, rad."""
    try:
        commanded = pose_from_msg(msg)
    except MessageError:
        return float("inf"), float("inf")
    cosine = (np.trace(commanded.rotation.T @ measured.rotation) - 1.0) / 2.0
    metres = float(np.linalg.norm(commanded.position - measured.position))
    return metres, float(np.arccos(np.clip(cosine, -1.0, 1.0)))


def _speed(msg: TwistStamped) -> tuple[float, float]:
    """Of a commanded twist: m/s, rad/s."""
    try:
        linear, angular = twist_from_msg(msg)
    except MessageError:
        return float("inf"), float("inf")
    return float(np.linalg.norm(linear)), float(np.linalg.norm(angular))


def _wrong(fault: Fault, seen: _Seen, again_s: float | None) -> list[str]:
    """What should not have been."""
    wrong = []
    expected = ", ".join(fault.reasons) or "none"
    if seen.hold is None and not fault.goes_on and not fault.ends_node:
        wrong.append(f"not held within {HOLD_TIMEOUT_S:g} s; expected {expected}")
    if seen.hold is not None:
        reason = seen.hold.values["reason"]
        if reason not in fault.reasons:
            wrong.append(f"held by {reason}; expected {expected}")
        if seen.resumed and not fault.passes:
            wrong.append(f"decided again within {QUIET_S:g} s though the fault stood")
    if seen.poses_after and (seen.hold is not None or fault.ends_node):
        wrong.append(f"{seen.poses_after} poses after it had ended")
    if seen.hold is None and fault.goes_on and (not seen.poses_after or not seen.decisions):
        wrong.append(f"{seen.decisions} decisions, {seen.poses_after} poses while it should go on")
    if seen.hold is not None:
        wrong += _moving(fault, seen)
    if seen.unsaid:
        wrong.append(f"the log does not say {fault.says!r}")
    if seen.gap_ms is not None and seen.gap_ms > GAP_MS:
        wrong.append(f"no command for {seen.gap_ms:.0f} ms")
    if strange := seen.followed - set(fault.followed):
        wrong.append(f"followed {', '.join(repr(text[:40]) for text in strange)}")
    if again_s is None:
        wrong.append(f"no decisions within {AGAIN_TIMEOUT_S:g} s of mending it")
    return wrong


def _moving(fault: Fault, seen: _Seen) -> list[str]:
    """What is wrong with the last pose and twist, as a driver that obeys them would see it."""
    wrong = []
    if not seen.commanded and not fault.blind:
        wrong.append("no command came with the hold")
    if seen.commanded and (seen.off is None or seen.off[0] > NEAR_M or seen.off[1] > NEAR_RAD):
        far = (
            "nowhere" if seen.off is None else f"{seen.off[0] * 1e3:.1f} mm, {seen.off[1]:.3f} rad"
        )
        wrong.append(f"the last pose is {far} from the measured one")
    if seen.speed is not None and max(seen.speed) > 0.0:
        wrong.append(f"the last twist stands at {seen.speed[0]:.3f} m/s, {seen.speed[1]:.3f} rad/s")
    return wrong


def _right(fault: Fault, seen: _Seen) -> str:
    if seen.hold is None:
        return fault.goes_on or "commands end with it; starts again"
    where = "at the measured pose" if seen.commanded else "without a command"
    return f"held {where}, then silent" + ("; passed by itself" if fault.passes else "")
