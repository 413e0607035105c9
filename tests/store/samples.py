"""Records as the machines make them."""

from __future__ import annotations

from opencode_actors.machines.notices import JobRecorded, OutputRecorded, SessionRecorded
from opencode_actors.machines.server_events import ConversationId, Todo, Tokens
from opencode_actors.machines.vocabulary import (
    ActivityState,
    Cause,
    Climb,
    Failure,
    JobId,
    JobSnapshot,
    JobStatus,
    Rung,
    SessionKey,
)

JOB = JobId("job_0123456789abcdef")
SESSION = SessionKey("demo")
CONVERSATION = ConversationId("ses_1")


def job(status: JobStatus = JobStatus.RUNNING, *, id_: JobId = JOB) -> JobRecorded:
    """With something in each of its fields, and in each of the fields of those."""
    failure = Failure(cause=Cause.OOM, message="it ran out of memory – “1 GB”", exit_code=137)
    snapshot = JobSnapshot(
        id=id_,
        session=SESSION,
        prompt="fix the failing test \N{SNOWMAN} \x00 \ud800",
        name="the test",
        status=status,
        activity=ActivityState.PROCESSING,
        failure=failure,
        climb=Climb(ended_by=Rung.KILL, seconds=((Rung.ABORT, 10.0), (Rung.KILL, 0.25))),
        started_at=1_760_000_000.25,
        elapsed_seconds=12.5,
        output_bytes=3,
        output_truncated=True,
        last_output_seconds_ago=1.5,
        todos=(Todo(content="look", status="completed", priority="high"),),
        cost_usd=0.125,
        cost_known=False,
        max_cost_usd=0.5,
        tokens=Tokens(input=1, output=2, reasoning=3, cache_read=4, cache_write=5),
        model="scripted/demo",
        cpu_load=0.5,
        memory_bytes=1 << 30,
    )
    return JobRecorded(snapshot=snapshot)


def said(text: str, *, id_: JobId = JOB, after: str = "") -> OutputRecorded:
    """Behind what was said before, as more of the same."""
    return OutputRecorded(job=id_, text=text, offset=len(after.encode(errors="replace")), at=len(after))


def conversation(value: ConversationId | None = CONVERSATION) -> SessionRecorded:
    return SessionRecorded(session=SESSION, conversation=value)
