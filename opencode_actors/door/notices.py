"""What a client is told unasked, as the protocol's JSON: notices, and what chats have to be told."""

from __future__ import annotations

from typing import assert_never

from opencode_actors.door.results import Document, todos
from opencode_actors.kernel.hub import NoticesMissed
from opencode_actors.kernel.outbox import Announcement
from opencode_actors.machines import notices as told
from opencode_actors.machines.vocabulary import Origin


def delivery(announced: Announcement) -> Document:
    """For the chat that asked for the job."""
    job, origin = announced.job, announced.job.origin or Origin()
    return {
        "id": announced.id,
        "kind": announced.matter.value,
        "to": announced.to.value,
        "jobId": job.id,
        "sessionKey": job.session,
        "name": job.name or None,
        "origin": {
            "session_key": origin.session_key,
            "agent_id": origin.agent_id,
            "channel": origin.channel,
        },
        "text": announced.text,
    }


def notice(one: told.Notice | NoticesMissed, ended: Document | None) -> Document:
    """Without `subscription`: one notice is the same for all who follow. `ended` is the status of a job that
    has, for the notice that says so."""
    if isinstance(one, NoticesMissed):
        return {"kind": "missed", "count": one.count}
    return {
        "seq": one.seq,
        "at": round(one.at, 3),
        "kind": kind_of(type(one)),
        **({} if isinstance(one, told.SessionChanged | told.NotificationFailed) else {"jobId": one.job}),
        "sessionKey": one.session,
        **_details(one, ended),
    }


def kind_of(notice: type[told.Notice]) -> str:
    """Its name in the protocol."""
    name = "Output" if notice is told.OutputAdded else notice.__name__
    return name[0].lower() + name[1:]


def _details(one: told.Notice, ended: Document | None) -> Document:
    match one:
        case told.SessionChanged():
            return {"status": one.status.value, "detail": one.detail}
        case told.JobQueued():
            return {"ahead": one.ahead}
        case told.JobStarted():
            return {}
        case told.OutputAdded():
            return {"outputKind": one.kind.value, "offset": one.offset, "text": one.text}
        case told.ToolStarted():
            return {"tool": one.tool, "title": one.title}
        case told.TodosChanged():
            return {"todos": todos(one.todos)}
        case told.InputWanted():
            return {
                "requestId": one.request,
                "requestKind": one.kind.value,
                "text": one.text,
                "options": list(one.options),
                "questions": one.questions,
                "subAgent": one.sub_agent,
                "timeoutSeconds": one.timeout,
                "onUnanswered": one.on_unanswered.value,
            }
        case told.InputAnswered():
            return {"requestId": one.request, "end": one.end.value}
        case told.ProviderRetrying():
            return {"attempt": one.attempt, "reason": one.reason, "seconds": round(one.seconds, 3)}
        case told.JobLasted():
            return {"seconds": round(one.seconds, 3)}
        case told.JobReported():
            return {"seconds": round(one.seconds, 3)}
        case told.OutputFilled():
            return {"size": one.size}
        case told.JobCancelling():
            return {"rung": one.rung.name.lower()}
        case told.JobEnded():
            return {"status": ended}
        case told.NotificationFailed():
            return {"about": one.about, "reason": one.reason, "hint": one.hint}
        case _:
            assert_never(one)
