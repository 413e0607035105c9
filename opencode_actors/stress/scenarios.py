"""The scenarios that are run when none is given: each kind of fault in the company of its like, then all."""

from __future__ import annotations

from collections.abc import Mapping

from opencode_actors.stress.scenario import Arrival, FaultKind, FaultPlan, Scenario, Talk

_EVERY_TALK: Mapping[Talk, int] = {
    Talk.SHORT: 4,
    Talk.STREAM: 4,
    Talk.BURST: 1,
    Talk.TOOL: 2,
    Talk.CHILD: 1,
    Talk.QUESTION: 2,
    Talk.HANG: 1,
}


def _scenario(
    name: str,
    *kinds: FaultKind,
    times: int = 3,
    lasts: float = 20.0,
    arrival: Arrival = Arrival.RANDOM,
    sessions: int = 4,
) -> Scenario:
    return Scenario(
        name=name,
        sessions=sessions,
        jobs=40,
        duration=900.0,
        arrival=arrival,
        prompts=_EVERY_TALK,
        faults=tuple(FaultPlan(kind=kind, times=times, lasts=lasts) for kind in kinds),
    )


DEFAULTS: tuple[Scenario, ...] = (
    _scenario("fair weather", arrival=Arrival.STEADY),
    _scenario("crowds", FaultKind.CANCEL_STORM, arrival=Arrival.BURSTS, sessions=12),
    _scenario(
        "containers die",
        FaultKind.CONTAINER_CRASH,
        FaultKind.CONTAINER_OOM,
        FaultKind.CONTAINER_REMOVED,
        FaultKind.CRASH_LOOP,
    ),
    _scenario(
        "servers misbehave",
        FaultKind.SERVER_FROZEN,
        FaultKind.SERVER_SLOW,
        FaultKind.STREAM_DROPPED,
        FaultKind.STREAM_TRUNCATED,
        FaultKind.EVENTS_DUPLICATED,
        FaultKind.EVENTS_REORDERED,
        lasts=40.0,
    ),
    _scenario(
        "the provider fails",
        FaultKind.PROVIDER_401,
        FaultKind.PROVIDER_429,
        FaultKind.PROVIDER_500,
        FaultKind.PROVIDER_SILENT,
    ),
    _scenario(
        "the engine fails",
        FaultKind.ENGINE_AWAY,
        FaultKind.ENGINE_LIES,
        FaultKind.ENGINE_REFUSES,
        FaultKind.ENGINE_SLOW,
        FaultKind.IGNORES_SIGTERM,
        FaultKind.CANCEL_STORM,
        FaultKind.CONTAINER_CRASH,
    ),
    _scenario(
        "the host fails",
        FaultKind.DISK_FULL,
        FaultKind.JOURNAL_SLOW,
        FaultKind.CLOCK_STEP,
        FaultKind.SERVICE_KILLED,
    ),
    _scenario(
        "clients misbehave",
        FaultKind.CANCEL_STORM,
        FaultKind.CLEANUP_STORM,
        FaultKind.CLOSE_STORM,
        FaultKind.VANISHING_FOLLOWERS,
        lasts=10.0,
    ),
    _scenario("everything at once", *FaultKind, times=1),
)
