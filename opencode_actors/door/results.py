"""What the core has, as the protocol's JSON: snapshots, output, sessions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import frozen

from opencode_actors.directory_copy import Copied
from opencode_actors.door.limits import Limits
from opencode_actors.kernel.attachments import Attached, KnownConversation
from opencode_actors.kernel.catalogs import Offered
from opencode_actors.kernel.choices import Chosen
from opencode_actors.kernel.cleanup import CleanedUp
from opencode_actors.kernel.forking import Forked
from opencode_actors.kernel.system import EndedSession, SystemStatistics
from opencode_actors.machines.server_events import Todo
from opencode_actors.machines.totals import Tally, Totals
from opencode_actors.machines.vocabulary import (
    Climb,
    Failure,
    JobSnapshot,
    JobStatus,
    PendingRequest,
    SessionKey,
    SessionSnapshot,
)
from opencode_actors.ports import EngineInfo
from opencode_actors.store.port import KnownSession, OutputSlice

Document = dict[str, Any]

# Characters at the end of the output that a status shows, and the bytes that they have at most, with the
# rest of a character before them.
TAIL = 500
TAIL_BYTES = 4 * TAIL + 3

Explain = Callable[[Failure], tuple[str, str]]


@frozen(kw_only=True)
class About:
    """The service itself. `started_at` is in epoch seconds."""

    version: str
    pid: int
    started_at: float
    engine: EngineInfo


def info(
    about: About, limits: Limits, figures: SystemStatistics, *, protocol: int, image: str, seq: int
) -> Document:
    return {
        "service": "opencode-actors",
        "version": about.version,
        "protocol": protocol,
        "pid": about.pid,
        "startedAt": about.started_at,
        "seq": seq,
        "engine": {
            "kind": about.engine.kind.value,
            "version": about.engine.version,
            "rootless": about.engine.rootless,
        },
        "image": image,
        "sessions": figures.sessions,
        "jobs": figures.jobs,
        "limits": {
            "messageBytes": limits.message,
            "batch": limits.batch,
            "nesting": limits.nesting,
            "values": limits.values,
            "callsInFlight": limits.in_flight,
            "subscriptions": limits.subscriptions,
            "backlogBytes": limits.backlog,
            "connections": limits.connections,
            "outputBytes": limits.output,
            "pongSeconds": limits.pong_within,
        },
    }


def status_word(status: JobStatus) -> str:
    """A job that is being ended still runs; `cancelling` says the rest."""
    return "running" if status is JobStatus.CANCELLING else status.value


def status(job: JobSnapshot, *, tail: str, explain: Explain, seq: int) -> Document:
    what, hint = explain(job.failure) if job.failure is not None else (None, None)
    return {
        "jobId": job.id,
        "name": job.name or None,
        "sessionKey": job.session,
        "status": status_word(job.status),
        "cancelling": job.status is JobStatus.CANCELLING,
        "startedAt": _rounded(job.started_at),
        "elapsedSeconds": round(job.elapsed_seconds, 3),
        "outputSize": job.output_bytes,
        "outputTruncated": job.output_truncated,
        "tailOutput": tail[-TAIL:],
        "lastOutputSecondsAgo": _rounded(job.last_output_seconds_ago),
        "activityState": job.activity.value,
        "metrics": {
            "cpuPercent": None if job.cpu_load is None else round(job.cpu_load * 100, 1),
            "memoryBytes": job.memory_bytes,
        },
        "exitCode": job.failure.exit_code if job.failure is not None else None,
        "error": what,
        "cause": job.failure.cause.value if job.failure is not None else None,
        "hint": hint,
        "todos": todos(job.todos),
        "todoDone": sum(todo.status == "completed" for todo in job.todos),
        "todoTotal": len(job.todos),
        "costUsd": job.cost_usd if job.cost_usd or job.cost_known else None,
        "costKnown": job.cost_known,
        "maxCostUsd": job.max_cost_usd or None,
        "tokens": {
            "input": job.tokens.input,
            "output": job.tokens.output,
            "reasoning": job.tokens.reasoning,
            "cacheRead": job.tokens.cache_read,
            "cacheWrite": job.tokens.cache_write,
        },
        "model": job.model or None,
        "climb": _climb(job.climb),
        "interruptedBy": job.interrupted_by,
        "pending": [_request(request) for request in job.pending],
        "seq": seq,
    }


def _request(request: PendingRequest) -> Document:
    return {
        "requestId": request.id,
        "kind": request.kind.value,
        "text": request.text,
        "options": list(request.options),
        "questions": request.questions,
        "subAgent": request.sub_agent,
        "waitingSeconds": _rounded(request.waiting_seconds),
    }


def requests(jobs: tuple[JobSnapshot, ...]) -> Document:
    return {
        "requests": [
            {"jobId": job.id, "name": job.name or None, "sessionKey": job.session, **_request(request)}
            for job in jobs
            for request in job.pending
        ]
    }


def totals(found: Totals, *, days: int) -> Document:
    return {
        "days": days,
        "since": found.since,
        **_tally(found.whole),
        "byDay": [{"day": day, **_tally(tally)} for day, tally in found.days],
        "byOutcome": [{"status": outcome, **_tally(tally)} for outcome, tally in found.outcomes],
        "byCause": [{"cause": cause, **_tally(tally)} for cause, tally in found.causes],
        "byModel": [{"model": model or None, **_tally(tally)} for model, tally in found.models],
        "mostExpensive": [
            {
                "jobId": one.job,
                "name": one.name or None,
                "sessionKey": one.session,
                "day": one.day,
                "status": one.outcome,
                "model": one.model or None,
                "costUsd": one.cost,
            }
            for one in found.dearest
        ],
    }


def _tally(tally: Tally) -> Document:
    return {
        "jobs": tally.jobs,
        "costUsd": tally.cost_usd,
        "costKnown": not tally.unpriced,
        "meanSeconds": _rounded(tally.mean_seconds),
        "tokens": {"input": tally.tokens_in, "output": tally.tokens_out},
    }


def chosen(matters: tuple[Chosen, ...], *, session: str | None, channel: str | None) -> Document:
    return {
        "sessionKey": session,
        "channel": channel,
        "kinds": {one.matter.value: {"on": one.on, "by": one.source.value} for one in matters},
    }


def output(job: JobSnapshot, piece: OutputSlice, *, offset: int) -> Document:
    return {
        "jobId": job.id,
        "text": piece.text,
        "offset": offset,
        "nextOffset": piece.next_offset,
        "hasMore": piece.more,
        "outputSize": max(job.output_bytes, piece.next_offset),
        "status": status_word(job.status),
    }


def session(one: SessionSnapshot, known: KnownSession, *, workspace: str, now: float) -> Document:
    return {
        "sessionKey": one.key,
        "name": known.name or None,
        "status": one.status.value,
        "ageSeconds": _since(known.began_at, now),
        "lastActivitySecondsAgo": _since(known.used_at, now),
        "jobs": known.jobs,
        "serverHealthy": one.status.value == "ready",
        "activeJob": one.running,
        "queued": list(one.queued),
        "image": None if one.server else known.image,
        "server": one.server or None,
        "workspace": workspace,
        "error": one.failure.message if one.failure is not None else None,
        "forkedFrom": known.source,
        "resumable": True,
    }


def ended_session(one: EndedSession, *, workspace: str, now: float) -> Document:
    known = one.known
    return {
        "sessionKey": known.key,
        "name": known.name or None,
        "status": "ended",
        "ageSeconds": _since(known.began_at, now),
        "lastActivitySecondsAgo": _since(known.used_at, now),
        "jobs": known.jobs,
        "serverHealthy": False,
        "activeJob": None,
        "queued": [],
        "image": known.image,
        "server": None,
        "workspace": workspace,
        "error": None,
        "forkedFrom": known.source,
        "resumable": one.resumable,
    }


def _copied(copied: Copied | None) -> Document:
    if copied is None:
        return {"copied": None, "files": None, "bytes": None}
    what = "git repository" if copied.repository else "directory"
    return {"copied": what, "files": copied.files, "bytes": copied.size}


def forked(one: Forked, *, workspace: str, job: Document | None) -> Document:
    return {
        "sessionKey": one.session,
        "forkedFrom": one.source,
        **_copied(one.copied),
        "workspace": workspace,
        "leftOut": one.left_out,
        "job": job,
    }


def attached(done: Attached) -> Document:
    return {
        "sessionKey": done.session,
        "server": done.attachment.url,
        "version": done.version,
        "directory": done.attachment.directory or None,
        "conversation": done.conversation,
        "notes": list(done.notes),
    }


def conversations(session: str, found: tuple[KnownConversation, ...]) -> Document:
    return {
        "sessionKey": session,
        "conversations": [
            {
                "conversation": one.about.id,
                "title": one.about.title,
                "directory": one.about.directory,
                "updatedAt": _rounded(one.about.updated_at or None),
                "state": one.state.value,
                "ours": one.ours,
            }
            for one in found
        ],
    }


def agents(offered: Offered) -> Document:
    """Those that a prompt may name; OpenCode's own helpers are hidden."""
    return {
        "sessionKey": offered.session,
        "started": offered.started,
        "agents": [
            {"name": one.name, "mode": one.mode, "description": one.description}
            for one in offered.catalog.agents
            if not one.hidden
        ],
    }


def models(offered: Offered, *, match: str) -> Document:
    wanted = match.lower()
    return {
        "sessionKey": offered.session,
        "started": offered.started,
        "models": [
            {"name": one.name, "title": one.title, "priced": one.priced}
            for one in offered.catalog.models
            if wanted in one.name.lower() or wanted in one.title.lower()
        ],
    }


def closed(key: SessionKey, climb: Climb) -> Document:
    return {"sessionKey": key, "endedBy": _rung(climb)}


def cleaned_up(done: CleanedUp) -> Document:
    return {
        "ended": [{"sessionKey": key} for key in done.ended],
        "kept": [{"sessionKey": one.session, "reason": one.why} for one in done.kept],
        "deletedWorkspaces": [str(folder) for folder in done.removed],
        "forgottenSessions": [{"sessionKey": key} for key in done.forgotten],
        "forgottenJobs": done.forgotten_jobs,
    }


def todos(found: tuple[Todo, ...]) -> list[Document]:
    return [{"content": todo.content, "status": todo.status} for todo in found]


def _climb(climb: Climb | None) -> Document | None:
    if climb is None:
        return None
    return {
        "endedBy": _rung(climb),
        "seconds": [
            {"rung": rung.name.lower(), "seconds": round(seconds, 3)} for rung, seconds in climb.seconds
        ],
    }


def _rung(climb: Climb) -> str | None:
    return climb.ended_by.name.lower() if climb.ended_by is not None else None


def _since(moment: float | None, now: float) -> float | None:
    """A clock that was set back makes nothing younger than new."""
    return None if moment is None else round(max(0.0, now - moment), 3)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
