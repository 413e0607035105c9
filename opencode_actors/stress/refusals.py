"""Whether a start was refused for a reason that was there."""

from __future__ import annotations

from collections.abc import Mapping

from opencode_actors.errors import Busy, OpencodeActorsError, StoreError
from opencode_actors.machines.vocabulary import SessionStatus
from opencode_actors.stress.judge import Judge
from opencode_actors.stress.windows import Excuse, excused

# A session's mailbox has this many places for outsiders.
_PLACES = 64


def unfounded(
    judge: Judge, session: str, error: OpencodeActorsError, now: float, starting: Mapping[str, int]
) -> str | None:
    """What is wrong with this refusal, if anything. `starting` counts the other starts that are under way."""
    if isinstance(error, StoreError):
        full = excused(Excuse.NOT_REFUSED_FOR_NOTHING, judge.hits, now)
        return None if full else f"the disk has room: {error.message}"
    if not isinstance(error, Busy):
        return error.message
    if "maxQueuedJobs" in error.message:
        waiting = judge.waiting_in(session, now) + starting.get(session, 0)
        most = judge.settings.max_queued_jobs
        return None if waiting >= most else f"{waiting} jobs wait, and {most} may: {error.message}"
    if "maxSessions" in error.message:
        busy = len({file.session for file in judge.unsettled} | starting.keys())
        most = judge.settings.max_sessions
        return None if busy >= most else f"{busy} sessions have work, and {most} may: {error.message}"
    if "cannot be used" in error.message:
        said = [word.status for word in judge.evidence.words.get(session, ())[-2:]]
        return None if SessionStatus.QUARANTINED in said else f"it is {said}: {error.message}"
    if "requests waiting already" in error.message:
        few = sum(starting.values()) < _PLACES // 2
        return f"{sum(starting.values())} starts are under way: {error.message}" if few else None
    if excused(Excuse.CLOSED, judge.hits, now, session=session):
        return None
    return f"nobody closes it: {error.message}"
