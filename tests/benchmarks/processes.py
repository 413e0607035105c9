"""What processes have worked, from the kernel's own count."""

from __future__ import annotations

import os
from pathlib import Path


def cpu_of(pid: int) -> float:
    """Seconds of CPU of this process and of all below it that are alive."""
    parents: dict[int, int] = {}
    worked: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        try:
            one = int(folder.name)
            # A process' name may have spaces and brackets; what follows its last bracket has not.
            fields = (
                (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            )
        except (ValueError, OSError):
            continue  # no process, or one that has ended meanwhile
        parents[one], worked[one] = int(fields[1]), int(fields[11]) + int(fields[12])
    ticks = sum(worked[one] for one in worked if _is_below(one, pid, parents))
    return ticks / os.sysconf("SC_CLK_TCK")


def _is_below(one: int, top: int, parents: dict[int, int]) -> bool:
    while one != top:
        if one not in parents:
            return False
        one = parents[one]
    return True
