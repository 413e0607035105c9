"""The protocol's JSON as the core's own values: `results`, read by a client.

What the protocol does not carry is empty: a snapshot's prompt, a request's conversation.
"""

from __future__ import annotations

from typing import Any

from attrs import evolve

from opencode_actors.machines import notices
from opencode_actors.machines.server_events import ConversationId, Todo
from opencode_actors.machines.vocabulary import (
    ActivityState,
    Cause,
    Climb,
    Failure,
    JobId,
    JobSnapshot,
    JobStatus,
    OnUnanswered,
    PendingRequest,
    RequestKind,
    Rung,
    SessionKey,
    SessionSnapshot,
    SessionStatus,
)

Document = dict[str, Any]


def notice_of(told: Document) -> notices.Notice | None:
    """What the service was told itself. None for a kind that is not known yet, and for `missed`."""
    notice = _notice_of(told)
    return None if notice is None else evolve(notice, seq=told["seq"], at=told["at"])


def _notice_of(told: Document) -> notices.Notice | None:
    if told["kind"] == "missed":
        return None
    session = SessionKey(told["sessionKey"])
    if told["kind"] == "sessionChanged":
        return notices.SessionChanged(
            session=session, status=SessionStatus(told["status"]), detail=told["detail"]
        )
    if told["kind"] == "notificationFailed":
        about, reason, hint = JobId(told["about"]), told["reason"], told["hint"]
        return notices.NotificationFailed(session=session, about=about, reason=reason, hint=hint)
    job = JobId(told["jobId"])
    match told["kind"]:
        case "jobQueued":
            return notices.JobQueued(job=job, session=session, ahead=told["ahead"])
        case "jobStarted":
            return notices.JobStarted(job=job, session=session)
        case "output":
            return notices.OutputAdded(
                job=job,
                session=session,
                kind=notices.OutputKind(told["outputKind"]),
                offset=told["offset"],
                text=told["text"],
            )
        case "toolStarted":
            return notices.ToolStarted(job=job, session=session, tool=told["tool"], title=told["title"])
        case "todosChanged":
            todos = tuple(Todo(content=todo["content"], status=todo["status"]) for todo in told["todos"])
            return notices.TodosChanged(job=job, session=session, todos=todos)
        case "inputWanted":
            return notices.InputWanted(
                job=job,
                session=session,
                request=told["requestId"],
                kind=RequestKind(told["requestKind"]),
                text=told["text"],
                options=tuple(told["options"]),
                questions=told["questions"],
                conversation=ConversationId(""),
                sub_agent=told["subAgent"],
                timeout=told["timeoutSeconds"],
                on_unanswered=OnUnanswered(told["onUnanswered"]),
            )
        case "inputAnswered":
            return notices.InputAnswered(
                job=job, session=session, request=told["requestId"], end=notices.InputEnd(told["end"])
            )
        case "providerRetrying":
            return notices.ProviderRetrying(
                job=job,
                session=session,
                attempt=told["attempt"],
                reason=told["reason"],
                seconds=told["seconds"],
            )
        case "jobLasted":
            return notices.JobLasted(job=job, session=session, seconds=told["seconds"])
        case "jobReported":
            return notices.JobReported(job=job, session=session, seconds=told["seconds"])
        case "outputFilled":
            return notices.OutputFilled(job=job, session=session, size=told["size"])
        case "jobCancelling":
            return notices.JobCancelling(job=job, session=session, rung=Rung[told["rung"].upper()])
        case "jobEnded":
            return notices.JobEnded(job=job, session=session, snapshot=snapshot_of(told["status"]))
        case _:
            return None


def snapshot_of(status: Document) -> JobSnapshot:
    return JobSnapshot(
        id=JobId(status["jobId"]),
        session=SessionKey(status["sessionKey"]),
        prompt="",
        name=status["name"] or "",
        status=JobStatus.CANCELLING if status["cancelling"] else JobStatus(status["status"]),
        activity=ActivityState(status["activityState"]),
        failure=_failure_of(status),
        climb=_climb_of(status["climb"]),
        started_at=status["startedAt"],
        elapsed_seconds=status["elapsedSeconds"],
        output_bytes=status["outputSize"],
        output_truncated=status["outputTruncated"],
        last_output_seconds_ago=status["lastOutputSecondsAgo"],
        model=status["model"] or "",
        memory_bytes=status["metrics"]["memoryBytes"],
        pending=tuple(_request_of(request) for request in status["pending"]),
    )


def _request_of(request: Document) -> PendingRequest:
    return PendingRequest(
        id=request["requestId"],
        kind=RequestKind(request["kind"]),
        text=request["text"],
        options=tuple(request["options"]),
        questions=request["questions"],
        conversation=ConversationId(""),
        sub_agent=request["subAgent"],
        waiting_seconds=request["waitingSeconds"],
    )


def _failure_of(status: Document) -> Failure | None:
    if status["cause"] is None:
        return None
    return Failure(cause=Cause(status["cause"]), message=status["error"], exit_code=status["exitCode"])


def _climb_of(climb: Document | None) -> Climb | None:
    if climb is None:
        return None
    ended_by: str | None = climb["endedBy"]
    return Climb(
        ended_by=None if ended_by is None else Rung[ended_by.upper()],
        seconds=tuple((Rung[step["rung"].upper()], step["seconds"]) for step in climb["seconds"]),
    )


def session_of(told: Document) -> SessionSnapshot:
    return SessionSnapshot(
        key=SessionKey(told["sessionKey"]),
        status=SessionStatus(told["status"]),
        conversation=None,
        container=None,
        running=told["activeJob"],
        queued=tuple(JobId(job) for job in told["queued"]),
        crashes=0,
    )
