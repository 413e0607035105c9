"""What a job may have ended of: its own nature, and what the world did to it while it was under way.

A job that nothing hit has to end as its prompt says. One that was hit may name what hit it, and nothing else:
not another fault that happened to somebody else, or at another time.
"""

from __future__ import annotations

from collections.abc import Iterable

import trio
from attrs import frozen

from opencode_actors.machines.vocabulary import Cause, JobSnapshot, JobStatus
from opencode_actors.stress.plan import PlannedFault, PlannedJob
from opencode_actors.stress.scenario import FaultKind, Talk


@frozen(kw_only=True)
class Hit:
    """A fault as it came to pass. Without a `session` it hit all of them."""

    kind: FaultKind
    at: float
    until: float
    session: str | None = None
    exit_code: int | None = None

    @classmethod
    def of_everybody(cls, fault: PlannedFault) -> Hit:
        """Now."""
        now = trio.current_time()
        return cls(kind=fault.kind, at=now, until=now + fault.lasts)

    @classmethod
    def of_session(
        cls, fault: PlannedFault, *, lasts: float | None = None, exit_code: int | None = None
    ) -> Hit:
        """Now."""
        now = trio.current_time()
        until = now + (fault.lasts if lasts is None else lasts)
        return cls(kind=fault.kind, at=now, until=until, session=fault.session, exit_code=exit_code)


# Whoever gives up a silent provider first: this system, or OpenCode, which asks it a few times again.
_OF_SILENCE = frozenset({Cause.IDLE_TIMEOUT, Cause.PROVIDER})

# What may be named, and for how many seconds after the fault is over: containers are started again, probes
# have their deadlines, and an engine that was away is waited for.
_CAUSES: dict[FaultKind, tuple[frozenset[Cause], float]] = {
    FaultKind.CONTAINER_CRASH: (frozenset({Cause.CRASH}), 5.0),
    FaultKind.CONTAINER_OOM: (frozenset({Cause.OOM}), 5.0),
    FaultKind.CONTAINER_REMOVED: (frozenset({Cause.REMOVED}), 5.0),
    FaultKind.CRASH_LOOP: (frozenset({Cause.CRASH}), 120.0),
    FaultKind.SERVER_FROZEN: (
        frozenset({Cause.SERVER_HUNG, Cause.IDLE_TIMEOUT, Cause.STARTUP_TIMEOUT, Cause.CRASH}),
        180.0,
    ),
    FaultKind.SERVER_SLOW: (
        frozenset({Cause.SERVER_HUNG, Cause.IDLE_TIMEOUT, Cause.STARTUP_TIMEOUT}),
        180.0,
    ),
    FaultKind.ANSWERS_LOST: (frozenset({Cause.SERVER_HUNG}), 60.0),
    FaultKind.STREAM_DROPPED: (frozenset({Cause.SERVER_HUNG}), 60.0),
    FaultKind.STREAM_TRUNCATED: (frozenset({Cause.SERVER_HUNG}), 60.0),
    FaultKind.EVENTS_DUPLICATED: (frozenset(), 0.0),
    FaultKind.EVENTS_REORDERED: (frozenset(), 0.0),
    FaultKind.PROVIDER_401: (frozenset({Cause.AUTH}), 60.0),
    FaultKind.PROVIDER_429: (frozenset({Cause.RATE_LIMIT}), 180.0),
    FaultKind.PROVIDER_500: (frozenset({Cause.PROVIDER}), 180.0),
    FaultKind.PROVIDER_SILENT: (_OF_SILENCE, 180.0),
    FaultKind.PROVIDER_SLOW: (frozenset(), 0.0),
    FaultKind.ENGINE_AWAY: (frozenset({Cause.ENGINE_UNAVAILABLE, Cause.STARTUP_TIMEOUT}), 180.0),
    FaultKind.ENGINE_LIES: (frozenset({Cause.ENGINE_REFUSED}), 60.0),
    FaultKind.ENGINE_REFUSES: (frozenset({Cause.ENGINE_REFUSED}), 120.0),
    FaultKind.ENGINE_SLOW: (frozenset({Cause.STARTUP_TIMEOUT, Cause.ENGINE_UNAVAILABLE}), 120.0),
    FaultKind.IGNORES_SIGTERM: (frozenset(), 0.0),
    FaultKind.DISK_FULL: (frozenset({Cause.STORE}), 60.0),
    FaultKind.JOURNAL_SLOW: (frozenset({Cause.STARTUP_TIMEOUT, Cause.SERVER_HUNG}), 60.0),
    FaultKind.CLOCK_STEP: (frozenset(), 0.0),
    FaultKind.SERVICE_KILLED: (frozenset({Cause.LOST}), 60.0),
    FaultKind.SERVICE_ENDED: (frozenset({Cause.CLOSED, Cause.LOST}), 60.0),
    FaultKind.CANCEL_STORM: (frozenset(), 0.0),
    FaultKind.CLEANUP_STORM: (frozenset({Cause.CLOSED}), 0.0),
    FaultKind.CLOSE_STORM: (frozenset({Cause.CLOSED}), 5.0),
    FaultKind.VANISHING_FOLLOWERS: (frozenset(), 0.0),
    FaultKind.RECEIVER_REFUSES: (frozenset(), 0.0),
    FaultKind.RECEIVER_HANGS: (frozenset(), 0.0),
    FaultKind.RECEIVER_AWAY: (frozenset(), 0.0),
}

DEATHS = frozenset({FaultKind.CONTAINER_CRASH, FaultKind.CONTAINER_OOM, FaultKind.CONTAINER_REMOVED})


@frozen(kw_only=True)
class Life:
    """A job from its place in the queue to its end."""

    job: PlannedJob
    queued_at: float
    ended_at: float
    cancel_asked: bool


def hits_on(life: Life, hits: Iterable[Hit]) -> tuple[Hit, ...]:
    """Those that it can have felt."""
    return tuple(
        hit
        for hit in hits
        if hit.session in (None, life.job.session)
        and hit.at <= life.ended_at
        and hit.until + _CAUSES[hit.kind][1] >= life.queued_at
    )


def untrue(life: Life, end: JobSnapshot, hits: Iterable[Hit]) -> str | None:
    """What is wrong with the end that it is said to have had, if anything."""
    felt = hits_on(life, hits)
    if end.status is JobStatus.CANCELLED:
        return None if life.cancel_asked else "it was cancelled, and nobody asked for that"
    hangs = life.job.talk is Talk.HANG
    if end.status is JobStatus.COMPLETED:
        return "it was completed, and its answer has no end" if hangs else None
    if end.failure is None:
        return "it failed of nothing"
    cause, said = end.failure.cause, f"{end.failure.cause.value} ({end.failure.message})"
    if hangs and cause in _OF_SILENCE:
        return None
    if not any(cause in _CAUSES[hit.kind][0] for hit in felt):
        felt_kinds = ", ".join(sorted({hit.kind.value for hit in felt})) or "nothing"
        return f"it failed of {said}; it was hit by {felt_kinds}"
    codes = {hit.exit_code for hit in felt if hit.exit_code is not None}
    exact = all(hit.kind in DEATHS for hit in felt)
    if exact and cause in (Cause.CRASH, Cause.OOM) and end.failure.exit_code not in codes:
        return f"it failed of {said}; the container's exit code was {codes}"
    return None
