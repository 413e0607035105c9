"""What a system that lives in this process holds, beside what it is asked to hold: counted before its first job, and
when all its sessions have ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import trio

from opencode_actors.kernel.outbox import Outbox
from opencode_actors.kernel.system import System

# The last of what it needed ends a moment after it said so.
_LETS_GO_WITHIN = 20.0
_LOOK_EVERY = 0.25
_OUTBOX = f"{Outbox.__module__}.{Outbox.run.__qualname__}"


def holds(system: System) -> Counter[str]:
    """Its tasks, its clients of servers, who follows it, and the jobs and sessions that it has actors for."""
    inside = system._surroundings  # noqa: SLF001 - nobody else needs to know
    statistics = system.statistics()
    return Counter(
        {
            "tasks": _tasks(inside.nursery.child_tasks),
            "clients of servers": len(inside.servers._open),  # noqa: SLF001
            "followers": statistics.notices.followers,
            "jobs": statistics.jobs,
            "sessions": statistics.sessions,
            "addresses of jobs": len(inside.addresses),
        }
    )


def _tasks(tasks: Iterable[trio.lowlevel.Task]) -> int:
    """The outbox has a timer for as long as somebody is to be told who takes nothing, which may be a day."""
    return sum(
        1 + sum(_tasks(nursery.child_tasks) for nursery in task.child_nurseries if task.name != _OUTBOX)
        for task in tuple(tasks)
    )


async def holds_more(system: System, before: Counter[str]) -> str:
    """What it holds beyond that, once it has had the time to let go."""
    more = ""
    with trio.move_on_after(_LETS_GO_WITHIN):
        await trio.lowlevel.checkpoint()
        while more := _beyond(system, before):  # noqa: ASYNC110 - nothing tells
            await trio.sleep(_LOOK_EVERY)
    return more


def _beyond(system: System, before: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted((holds(system) - before).items()))
