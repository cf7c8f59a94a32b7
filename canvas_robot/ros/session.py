"""Session: a policy with all that follows from it and the parameters, checked. No topics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from canvas_robot.kinematics.arm import Arm
from canvas_robot.policy.chunk_execution import make_execution
from canvas_robot.policy.model_process import ModelProcess
from canvas_robot.ros.control import ControlLoop
from canvas_robot.ros.decisions import Instant
from canvas_robot.ros.description import arm_of
from canvas_robot.ros.foresight import Foresight
from canvas_robot.ros.inputs import check_sources
from canvas_robot.ros.joint_commands import JointCommands
from canvas_robot.ros.parameters import Settings
from canvas_robot.ros.status import Identity
from canvas_robot.signals import Binding, BindingError


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
    binding, robot = model.binding, model.binding.robot
    if robot is None:
        raise BindingError("binding: expected a robot, the arm to command; it declares none")
    arm = arm_of(binding, description)
    check_sources(binding, arm, model.schema)
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
