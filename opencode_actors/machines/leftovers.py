"""Which of a container's processes are a job's, and what is said of those that outlive it.

OpenCode starts each command of an agent in a process session of its own, so that it can kill the command's
group; its language servers and MCP servers share the session that it was started in itself. A process can
leave a session only for a new one. So what is in a session that was there when the turn began is the
server's, or what an earlier job left on purpose (and what that started since); everything else is the job's.
"""

from __future__ import annotations

from opencode_actors.ports import Process

_NAMED = 3


def of_the_job(
    living: tuple[Process, ...], residents: frozenset[Process] | None, *, first: int
) -> tuple[Process, ...]:
    """`residents` lived there when the job's turn began; where nobody knows, only those of the session of
    the container's `first` process are not the job's."""
    if residents is None:
        residents = frozenset(process for process in living if process.pid == first)
    sessions = {resident.session for resident in residents}
    # The number of a session that has died out may be given to a new one, whose leader is new as well.
    renewed = {
        process.session for process in living if process.pid == process.session and process not in residents
    }
    sessions -= renewed
    return tuple(
        process for process in living if process not in residents and process.session not in sessions
    )


def in_words(processes: tuple[Process, ...]) -> str:
    named = ", ".join(f"{process.name} (pid {process.pid})" for process in processes[:_NAMED])
    more = len(processes) - _NAMED
    return f"{named} and {more} more" if more > 0 else named
