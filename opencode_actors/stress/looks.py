"""Holds what one is told who asks against what has been told of it: of a session where nothing happens meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from opencode_actors.machines.vocabulary import (
    Cause,
    JobSnapshot,
    JobStatus,
    OnCrash,
    Rung,
    SessionSnapshot,
    SessionStatus,
)
from opencode_actors.stress.files import JobFile
from opencode_actors.stress.judge import Judge
from opencode_actors.stress.windows import Excuse, excused


def is_quiet(judge: Judge, session: str, now: float, heard: int | None = None) -> bool:
    """Whether nothing happens in it, and nothing has happened since so many notices were heard: a decision is made
    a moment before it is told, and a slow disk makes that long."""
    count, last = judge.told.get(session, (0, 0.0))
    return (
        (count == heard if heard is not None else now - last > judge.tolerance.settles)
        and not excused(Excuse.WRITTEN_LATE, judge.hits, now)
        and not excused(Excuse.CLOSED, judge.hits, now, session=session)
    )


_BY_US = frozenset({Cause.IDLE_TIMEOUT, Cause.JOB_TIMEOUT, Cause.UNANSWERED, Cause.BUDGET})


def was_forced(end: JobSnapshot) -> bool:
    """Whether somebody, or a bound, ended it; where the engine could not, that was said."""
    if end.climb is not None and end.climb.ended_by is Rung.QUARANTINE:
        return False
    return end.status is JobStatus.CANCELLED or (end.failure is not None and end.failure.cause in _BY_US)


def wrong_status(file: JobFile, said: JobSnapshot) -> str | None:
    if file.end is not None:
        want = file.end.status
    elif file.cancelling_at is not None:
        want = JobStatus.CANCELLING
    elif file.started_at is not None:
        want = JobStatus.RUNNING
    elif file.cancel_asked_at is None:
        want = JobStatus.PENDING
    else:
        return None
    if said.status is not want:
        return f"it is said to be {said.status.value}, and was told to be {want.value}"
    if said.output_bytes != file.size:
        return f"it is said to have put out {said.output_bytes} bytes, and {file.size} were told"
    waits = {request for request, over in file.wanted.items() if not over}
    if {one.id for one in said.pending} != waits:
        return f"{len(said.pending)} requests are said to wait in it, and {len(waits)} were told to"
    return None


def wrong_sessions(judge: Judge, session: str, said: Sequence[SessionSnapshot]) -> Iterator[str]:
    if judge.settings.on_crash == OnCrash.RESUME.value:
        return  # a job whose container ended waits again, and nothing is told of that
    running, waiting = judge.running.get(session), set(judge.waiting[session])
    found = [one for one in said if one.key == session]
    if not found:
        if running is not None or waiting:
            yield "it is not among the sessions, and has jobs"
        return
    (one,) = found
    if one.status is not SessionStatus.READY:
        # One that is taken over waits for its server, and was told to run.
        if {one.running, *one.queued} - {None} != {running, *waiting} - {None}:
            yield "the jobs that are said to be in it are others than those that were told to"
    elif one.running != running:
        yield f"{one.running} is said to run in it, and {running} was told to"
    elif set(one.queued) != waiting:
        yield f"{len(one.queued)} jobs are said to wait in it, and {len(waiting)} were told to"
    words = [word for word in judge.evidence.words.get(session, ()) if word.at >= judge.began_at]
    if words and words[-1].status is not one.status:
        yield f"it is said to be {one.status.value}, and was told to be {words[-1].status.value}"
