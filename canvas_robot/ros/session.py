"""Session: a policy with all that follows from it and the parameters, checked. No topics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from canvas_robot.kinematics.arm import Arm
from canvas_robot.kinematics.limiter import motion_limits_of
from canvas_robot.policy.chunk_execution import make_execution
from canvas_robot.policy.model_process import ModelProcess
from canvas_robot.ros.control import ControlLoop, check_timeout
from canvas_robot.ros.decisions import Instant
from canvas_robot.ros.description import arm_of
from canvas_robot.ros.foresight import Foresight
from canvas_robot.ros.inputs import check_sources
from canvas_robot.ros.joint_commands import JointCommands
from canvas_robot.ros.measured import state_signal
from canvas_robot.ros.parameters import Settings
from canvas_robot.ros.reactions import reactions_of
from canvas_robot.ros.status import Identity
from canvas_robot.schema import CanvasSchema
from canvas_robot.signals import Binding, BindingError
from canvas_robot.signals.binding import Robot


@dataclass(frozen=True)
class Session:
    """One configured period, or what takes its place at a reload."""

    settings: Settings
    model: ModelProcess
    arm: Arm
    loop: ControlLoop
    foresight: Foresight
    joints: JointCommands | None
    identity: Identity
    base_frame: str

    @property
    def binding(self) -> Binding:
        return self.model.binding


def robot_of(binding: Binding) -> Robot:
    """The arm that a binding declares; raises BindingError where it declares none."""
    if binding.robot is None:
        raise BindingError("binding: expected a robot, the arm to command; it declares none")
    return binding.robot


def refusals(
    settings: Settings,
    schema: CanvasSchema,
    binding: Binding,
    arm: Arm,
    horizon: int | None = None,
) -> list[ValueError]:
    """Why declarations, arm and parameters do not go together, all of it; no model is needed.

    horizon: rows of an action chunk; None: as many as the schema says. Empty where they do.
    """

    def check_execution() -> None:
        rows = horizon or schema.layout.region_size(binding.action_region())[0]
        execution = make_execution(settings.execution, settings.execute_steps, rows)
        check_timeout(execution, binding.control_rate_hz, settings.decision_timeout_s)

    if fault := _fault(lambda: binding.check_schema(schema)):
        return [fault]  # the others look at regions that must be there
    checks: list[Callable[[], object]] = [
        lambda: check_sources(binding, arm, schema),
        lambda: state_signal(binding),
        lambda: reactions_of(binding.robot),
        lambda: motion_limits_of(binding.robot, settings.unsafe),
        check_execution,
    ]
    if settings.commands_joints:
        checks.append(lambda: JointCommands(binding, arm, settings.command_rate_hz))
    return [fault for check in checks if (fault := _fault(check))]


def _fault(check: Callable[[], object]) -> ValueError | None:
    try:
        check()
    except ValueError as error:
        return error
    return None


def open_session(
    settings: Settings,
    model: ModelProcess,
    now: Callable[[], Instant],
    warn: Callable[[str], None],
    name: str,
    description: str = "",
) -> Session:
    """Checks that policy, arm and parameters go together.

    name: of the node, with its namespace. description: of the arm, where its binding names a topic.

    Raises BindingError, ValueError and the like where they do not; the model stays open then.
    """
    binding, robot = model.binding, robot_of(model.binding)
    arm = arm_of(binding, description)
    if refused := refusals(settings, model.schema, binding, arm, model.horizon):
        raise refused[0]
    loop = ControlLoop(
        model,
        now,
        warn,
        settings.decision_timeout_s,
        settings.command_rate_hz,
        settings.unsafe,
        make_execution(settings.execution, settings.execute_steps, model.horizon),
    )
    cameras = binding.regions_by_codec("visual")
    identity = Identity(
        name.strip("/"),
        robot.arm,
        settings.ee_frame or robot.ee_frame,
        binding.control_rate_hz,
        model.trained,
        model.facts.threads,
        cameras[0] if cameras else None,
    )
    joints = None
    if settings.commands_joints:
        rate_hz = settings.command_rate_hz
        joints = JointCommands(binding, arm_of(binding, description), rate_hz)
    base_frame = settings.base_frame or robot.base_frame
    foresight = Foresight(model)
    return Session(settings, model, arm, loop, foresight, joints, identity, base_frame)
