"""One verification of a bag from start to end."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from canvas_robot.policy.assemble import assemble_policy
from canvas_robot.policy.settings import PolicySettings
from canvas_robot.ros.bag import verify_bag


def run_bag(folder: Path, checkpoint: str, binding: str, console: Console) -> bool:
    """Decides a bag's decisions again and says how many are bit for bit as recorded.

    True where all are. Raises BagError, and what `assemble_policy` raises.
    """
    policy = assemble_policy(PolicySettings(checkpoint=checkpoint, binding=binding))
    with console.status(f"deciding again: {folder}"):
        verified = verify_bag(folder, policy)
    console.print(f"{verified.equal} of {verified.decisions} decisions are bit for bit as recorded")
    if verified.missing:
        console.print(
            f"{verified.missing} could not be repeated: samples that they rest on are not in the "
            "bag. The recorder lost them, or they came before it listened; "
            "FASTDDS_DEFAULT_PROFILES_FILE=config/ros/fastdds.xml on all sides loses fewer"
        )
    if verified.first:
        decided = f"by checkpoint {checkpoint}" if checkpoint else "by an untrained policy"
        console.print(
            f"[yellow]{verified.first}. Decided again {decided}; is it the same as then "
            "(--checkpoint), on the same machine?[/yellow]"
        )
    return verified.equal == verified.decisions
