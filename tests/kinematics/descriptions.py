"""URDF texts of arms: the WidowX by its maker's names, and one of seven joints."""

from __future__ import annotations


def _joint(name, kind, parent, child, xyz, axis=(0, 0, 1), limits=None, rpy=(0, 0, 0)) -> str:
    def spaced(numbers) -> str:
        return " ".join(map(str, numbers))

    low, high = limits or (0, 0)
    limit = f'<limit lower="{low}" upper="{high}" effort="1" velocity="1"/>'
    return (
        f'<joint name="{name}" type="{kind}"><parent link="{parent}"/><child link="{child}"/>'
        f'<origin xyz="{spaced(xyz)}" rpy="{spaced(rpy)}"/>'
        + (f'<axis xyz="{spaced(axis)}"/>' if kind != "fixed" else "")
        + (limit if limits else "")
        + "</joint>"
    )


def _robot(name: str, links: list[str], joints: list[str]) -> str:
    mesh = '<geometry><mesh filename="package://nowhere/part.dae" scale="0.001 0.001 0.001"/>'
    look = f"<visual>{mesh}</geometry></visual><collision>{mesh}</geometry></collision>"
    parts = [f'<link name="{link}">{look}</link>' for link in links]
    inside = "".join(parts + joints)
    return f'<?xml version="1.0"?><!-- <mujoco/> --><robot name="{name}">{inside}</robot>'


def widowx(prefix: str = "wx250s/") -> str:
    """The WidowX 250S; link names with a prefix, as its maker's description has them."""
    x, y, z, turn = (1, 0, 0), (0, 1, 0), (0, 0, 1), (-3.14158, 3.14158)
    chain = [
        ("waist", "shoulder_link", (0, 0, 0.072), z, turn),
        ("shoulder", "upper_arm_link", (0, 0, 0.03865), y, (-1.88496, 1.98968)),
        ("elbow", "upper_forearm_link", (0.04975, 0, 0.25), y, (-2.14675, 1.6057)),
        ("forearm_roll", "lower_forearm_link", (0.175, 0, 0), x, turn),
        ("wrist_angle", "wrist_link", (0.075, 0, 0), y, (-1.74533, 2.14675)),
        ("wrist_rotate", "gripper_link", (0.065, 0, 0), x, turn),
    ]
    links, joints = ["base_link"], []
    for name, child, xyz, axis, limits in chain:
        parent = prefix + links[-1]
        joints.append(_joint(name, "revolute", parent, prefix + child, xyz, axis, limits))
        links.append(child)
    gripper, ee = f"{prefix}gripper_link", f"{prefix}ee_gripper_link"
    joints.append(_joint("ee_gripper", "fixed", gripper, ee, (0.093575, 0, 0)))
    for side, limits in (("left", (0.015, 0.037)), ("right", (-0.037, -0.015))):
        finger = f"{prefix}{side}_finger_link"
        joints.append(
            _joint(f"{side}_finger", "prismatic", gripper, finger, (0.066, 0, 0), y, limits)
        )
        links.append(f"{side}_finger_link")
    return _robot("wx250s", [prefix + link for link in [*links, "ee_gripper_link"]], joints)


def seven_joints(pedestal=((0, 0, 0), (0, 0, 0))) -> str:
    """An arm of seven hinges, the first without limits, that stands on a pedestal of a cell."""
    xyz, rpy = pedestal
    joints = [_joint("mount", "fixed", "world", "link0", xyz, rpy=rpy)]
    links = ["world", "link0"]
    for index in range(7):
        name, parent, child = f"joint{index + 1}", f"link{index}", f"link{index + 1}"
        axis = (0, 0, 1) if index % 2 == 0 else (0, 1, 0)
        kind, limits = ("continuous", None) if index == 0 else ("revolute", (-2.5, 2.5))
        joints.append(_joint(name, kind, parent, child, (0, 0, 0.15), axis, limits))
        links.append(child)
    joints.append(_joint("grip", "revolute", "link7", "jaw", (0, 0, 0.1), (1, 0, 0), (0.0, 0.8)))
    joints.append(_joint("rail", "prismatic", "link7", "slider", (0, 0, 0.1), (1, 0, 0), (0, 1)))
    return _robot("seven", [*links, "jaw", "slider"], joints)
