"""ArmModel: the joints and frames of one arm, read by name from MJCF or URDF. Meshes are not read.

Of a URDF only links and joints count: what they look like, weigh and touch is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np

from canvas_robot.signals.pose import Pose, matrix_from_quaternion, quaternion_from_matrix

BASE_BODY, END_EFFECTOR_SITE = "base_link", "ee_gripper_link"
_SITE = "canvas_robot/end_effector"  # where the model has no site at the frame that is moved
_LONGEST_TEXT = 8 << 20
# Links of a URDF may have no mass, and MuJoCo wants some; no force is computed here.
_MASS_KG, _INERTIA = 1e-3, 1e-6
_MODELS = Path(__file__).parent / "models"


class ArmModelError(ValueError):
    """A model is not such an arm; the text says what it has."""


@dataclass(frozen=True, eq=False)
class ArmModel:
    """One arm in a compiled model.

    hinges: ids of its joints, base to wrist. base: id of the body whose frame poses are given in.
    site: id of the site that is moved. path: of the file; None where it was text.
    """

    compiled: mujoco.MjModel
    hinges: tuple[int, ...]
    base: int
    site: int
    path: Path | None


def is_topic(arm: str) -> bool:
    """Whether an arm's description comes over ROS: a name such as /robot_description, no file."""
    return arm.startswith("/") and Path(arm).suffix not in (".xml", ".urdf")


def arm_path(path_or_name: str | Path) -> Path:
    """A user's .xml (MJCF) or .urdf file, or that of a model that ships with the package, by name.

    Raises FileNotFoundError where there is none.
    """
    path = Path(path_or_name).expanduser()
    if path.suffix not in (".xml", ".urdf"):
        path = _MODELS / f"{path_or_name}.xml"
    if not path.is_file():
        known = sorted(p.stem for p in _MODELS.glob("*.xml"))
        raise FileNotFoundError(
            f"arm {str(path_or_name)!r}: expected an .xml (MJCF) or .urdf file or one of {known}, "
            f"got {path}"
        )
    return path


def read_arm(
    source: Path | str,
    base: str = BASE_BODY,
    end_effector: str = END_EFFECTOR_SITE,
    tool: Pose | None = None,
) -> ArmModel:
    """The arm between two frames of a model.

    Args:
        source: an MJCF or URDF file, or the text of a URDF, as a robot_state_publisher says it.
        base: name of the body (link) that poses are given in; a prefix up to the last / may be
            missing in the model.
        end_effector: name of the site or body (link) that carries what is moved, alike.
        tool: what is moved, in the frame of `end_effector`; None: that frame itself.
    Raises:
        ArmModelError: for a model that cannot be read, or has not those frames with only hinge
            joints between them.
    """
    spec = _spec(source)
    told = f"{source}" if isinstance(source, Path) else "robot description"
    try:
        compiled = spec.compile()
    except ValueError as error:
        raise ArmModelError(f"{told}: {error}") from error
    bodies = [compiled.body(i).name for i in range(compiled.nbody)]
    sites = [compiled.site(i).name for i in range(compiled.nsite)]
    base_id = bodies.index(_found(told, "base_frame", base, bodies))
    name = _found(told, "ee_frame", end_effector, [*sites, *bodies])
    if name in sites:
        site = sites.index(name)
        body, at = (
            compiled.site_bodyid[site],
            _pose(compiled.site_pos[site], compiled.site_quat[site]),
        )
    else:
        site, body, at = None, bodies.index(name), Pose(np.zeros(3), np.eye(3))
    if site is None or tool is not None:
        if tool is not None:
            at = Pose(at.position + at.rotation @ tool.position, at.rotation @ tool.rotation)
        quaternion = np.roll(quaternion_from_matrix(at.rotation), 1)
        spec.body(bodies[body]).add_site(name=_SITE, pos=at.position, quat=quaternion)
        compiled = spec.compile()
        site = compiled.site(_SITE).id
    hinges = _hinges(told, compiled, base_id, int(compiled.site_bodyid[site]))
    path = source if isinstance(source, Path) else None
    return ArmModel(compiled, hinges, base_id, site, path)


def _spec(source: Path | str) -> mujoco.MjSpec:
    if isinstance(source, Path) and source.suffix == ".xml":
        try:
            return mujoco.MjSpec.from_file(str(source))
        except ValueError as error:
            raise ArmModelError(f"{source}: {error}") from error
    if isinstance(source, Path):
        told, text = str(source), source.read_text(encoding="utf-8", errors="replace")
    else:
        told, text = "robot description", source
    if len(text) > _LONGEST_TEXT:
        raise ArmModelError(
            f"{told}: expected at most {_LONGEST_TEXT:,} characters, got {len(text):,}"
        )
    # MJCF could name other files of this machine; what comes over the network must not.
    first = re.search(r"<([A-Za-z_][\w.-]*)", re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL))
    if first is None or first[1] != "robot":
        raise ArmModelError(
            f"{told}: expected a URDF, whose first element is robot, got "
            f"{first[1] if first else text[:40]!r}"
        )
    try:
        spec = mujoco.MjSpec.from_string(text)
    except ValueError as error:
        raise ArmModelError(f"{told}: {error}") from error
    for things in (spec.geoms, spec.meshes, spec.materials, spec.textures):
        for thing in list(things):
            spec.delete(thing)
    spec.compiler.fusestatic = False  # links on fixed joints keep their names
    spec.compiler.boundmass, spec.compiler.boundinertia = _MASS_KG, _INERTIA
    return spec


def _found(told: str, what: str, name: str, names: Iterable[str]) -> str:
    """The name in the model: as it is, or with another prefix or none."""
    last = name.rpartition("/")[2]
    near = [one for one in names if one.rpartition("/")[2] == last]
    if name in near:
        return name
    if len(near) != 1:
        there = ", ".join(sorted(filter(None, names)))
        raise ArmModelError(f"{told}: expected {what} {name!r} among its frames, got {there}")
    return near[0]


def _hinges(told: str, model: mujoco.MjModel, base: int, body: int) -> tuple[int, ...]:
    hinges: list[int] = []
    while body != base:
        if body == 0:
            raise ArmModelError(
                f"{told}: expected ee_frame to hang on base_frame {model.body(base).name!r}, it "
                f"hangs on the world beside it"
            )
        first, count = model.body_jntadr[body], model.body_jntnum[body]
        hinges += reversed(range(first, first + count))
        body = int(model.body_parentid[body])
    hinges.reverse()
    others = [model.joint(i).name for i in hinges if model.jnt_type[i] != _HINGE]
    if others or not hinges:
        raise ArmModelError(
            f"{told}: expected hinge joints alone from base_frame to ee_frame, at least one; got "
            f"{', '.join(others) or 'none'}"
        )
    return tuple(hinges)


_HINGE = mujoco.mjtJoint.mjJNT_HINGE


def _pose(position: np.ndarray, wxyz: np.ndarray) -> Pose:
    return Pose(position, matrix_from_quaternion(np.roll(wxyz, -1)))
