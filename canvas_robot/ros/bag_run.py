"""One verification of a bag from start to end."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from canvas_robot.policy.assemble import PolicySettings, assemble_policy
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
        console.print(f"{verified.missing} could not be repeated: samples are not in the bag")
    if verified.first:
        console.print(
            f"[yellow]{verified.first}; is it the same checkpoint, on the same machine?[/yellow]"
        )
    return verified.equal == verified.decisions
