"""Processes and what they have started, as /proc tells. Linux."""

from __future__ import annotations

from pathlib import Path


def stat(pid: int) -> list[str]:
    """Fields of /proc/<pid>/stat from the state on; empty for a process that has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def lives(pid: int) -> bool:
    """Whether it runs; one that has ended and was not waited for does not."""
    fields = stat(pid)
    return bool(fields) and fields[0] != "Z"


def family(pid: int) -> set[int]:
    """A process and all that run of those that it, or they, have started."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        fields = stat(int(folder.name))
        if fields and fields[0] != "Z":
            parents[int(folder.name)] = int(fields[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def parent(pid: int) -> int | None:
    """Who started it; None where it has ended."""
    fields = stat(pid)
    return int(fields[1]) if fields else None
