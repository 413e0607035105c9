"""The scenarios that are run when none is given: each kind of fault in the company of its like, then all."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve

from opencode_actors.stress.scenario import Arrival, FaultKind, FaultPlan, Scenario, Talk, Value

_EVERY_TALK: Mapping[Talk, int] = {
    Talk.SHORT: 4,
    Talk.STREAM: 4,
    Talk.BURST: 1,
    Talk.TOOL: 2,
    Talk.CHILD: 1,
    Talk.QUESTION: 1,
    Talk.PERMISSION: 1,
    Talk.HANG: 1,
}


def _scenario(
    name: str,
    *kinds: FaultKind,
    times: int = 3,
    lasts: float = 20.0,
    arrival: Arrival = Arrival.RANDOM,
    sessions: int = 4,
    cancelled: float = 0.1,
    **settings: Value,
) -> Scenario:
    return Scenario(
        name=name,
        sessions=sessions,
        jobs=40,
        duration=900.0,
        arrival=arrival,
        cancelled=cancelled,
        prompts=_EVERY_TALK,
        settings=settings,
        faults=tuple(FaultPlan(kind=kind, times=times, lasts=lasts) for kind in kinds),
    )


_HARD_TIMES = (60.0, 200.0, 340.0, 480.0, 620.0, 760.0)

# A service begins, and the server that it finds is frozen: it does not get ready.
_FREEZES = tuple(float(at) for at in range(60, 900, 90))
_WHILE_FROZEN = tuple(at + 4.0 for at in _FREEZES[::2])

_OFTEN = tuple(float(at) for at in range(40, 900, 20))

DEFAULTS: tuple[Scenario, ...] = (
    # A silence ends by idleTimeout here, and in most others by whoever loses patience first.
    _scenario("fair weather", arrival=Arrival.STEADY, headerTimeout=900.0, chunkTimeout=900.0),
    _scenario("crowds", FaultKind.CANCEL_STORM, arrival=Arrival.BURSTS, maxQueuedJobs=3),
    _scenario(
        "containers die",
        FaultKind.CONTAINER_CRASH,
        FaultKind.CONTAINER_OOM,
        FaultKind.CONTAINER_REMOVED,
        FaultKind.CRASH_LOOP,
        lasts=90.0,
        arrival=Arrival.BURSTS,  # so that somebody waits for the container after the next one
    ),
    _scenario(
        "servers misbehave",
        FaultKind.SERVER_FROZEN,
        FaultKind.SERVER_SLOW,
        FaultKind.ANSWERS_LOST,
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
        FaultKind.PROVIDER_SLOW,
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
        times=4,
        lasts=45.0,
        # So that it has something to do: containers are made and ended all the time.
        sessionIdleTimeout=10.0,
    ),
    evolve(
        _scenario("cancels have it hard", sessions=2, cancelled=0.5),
        prompts={Talk.STREAM: 2, Talk.TOOL: 3, Talk.CHILD: 3, Talk.QUESTION: 1, Talk.HANG: 1},
        faults=(
            # What an abort and a stop cannot end: the server hears nothing, and the engine lies.
            FaultPlan(kind=FaultKind.SERVER_FROZEN, at=_HARD_TIMES, lasts=60.0),
            FaultPlan(kind=FaultKind.ENGINE_LIES, at=_HARD_TIMES, lasts=60.0),
            FaultPlan(kind=FaultKind.CANCEL_STORM, at=_HARD_TIMES, lasts=20.0),
            FaultPlan(kind=FaultKind.ENGINE_REFUSES, times=4),
        ),
    ),
    _scenario(
        "the host fails",
        FaultKind.DISK_FULL,
        FaultKind.JOURNAL_SLOW,
        FaultKind.CLOCK_STEP,
        FaultKind.SERVICE_KILLED,
    ),
    _scenario(
        "killed while it writes",
        FaultKind.SERVICE_KILLED,
        FaultKind.JOURNAL_SLOW,
        times=8,
        lasts=60.0,
        arrival=Arrival.BURSTS,
    ),
    _scenario(
        "ended while it works",
        FaultKind.SERVICE_ENDED,
        FaultKind.CANCEL_STORM,
        FaultKind.JOURNAL_SLOW,
        times=6,
        arrival=Arrival.BURSTS,
    ),
    evolve(
        _scenario("answers are lost", arrival=Arrival.BURSTS, sessions=2),
        faults=(
            # And nothing is heard of what was asked for: whether it happened is not known for a while.
            FaultPlan(kind=FaultKind.ANSWERS_LOST, at=_HARD_TIMES, lasts=120.0),
            FaultPlan(kind=FaultKind.STREAM_DROPPED, at=_OFTEN, lasts=6.0),
            FaultPlan(kind=FaultKind.SERVICE_KILLED, times=4),
            FaultPlan(kind=FaultKind.CANCEL_STORM, times=3),
        ),
    ),
    _scenario(
        "clients misbehave",
        FaultKind.CANCEL_STORM,
        FaultKind.CLEANUP_STORM,
        FaultKind.CLOSE_STORM,
        FaultKind.VANISHING_FOLLOWERS,
        lasts=10.0,
    ),
    _scenario(
        "nobody wants to hear",
        FaultKind.RECEIVER_REFUSES,
        FaultKind.RECEIVER_HANGS,
        FaultKind.RECEIVER_AWAY,
        FaultKind.SERVICE_KILLED,
        FaultKind.VANISHING_FOLLOWERS,
        FaultKind.RECEIVER_SLOW,
        FaultKind.CANCEL_STORM,
        lasts=60.0,
        arrival=Arrival.BURSTS,  # so that several have ended, and wait
    ),
    _scenario(
        "bounds are reached",
        FaultKind.CANCEL_STORM,
        FaultKind.CONTAINER_CRASH,
        FaultKind.SERVICE_KILLED,
        maxOutputSize="100k",
        jobTimeout=130.0,
    ),
    evolve(
        _scenario(
            "bounds are tight",
            maxSessions=2,
            sessionIdleTimeout=20.0,
            serverReadyTimeout=10.0,
            maxProviderRetries=1,
        ),
        faults=(
            FaultPlan(kind=FaultKind.SERVER_FROZEN, at=_FREEZES, lasts=40.0),
            FaultPlan(kind=FaultKind.SERVICE_KILLED, at=_WHILE_FROZEN, lasts=2.0),
            FaultPlan(kind=FaultKind.PROVIDER_429, times=3, lasts=60.0),
            FaultPlan(kind=FaultKind.PROVIDER_500, times=3, lasts=60.0),
        ),
    ),
    _scenario(
        "gone on with after a crash",
        FaultKind.CONTAINER_CRASH,
        FaultKind.CONTAINER_OOM,
        FaultKind.CANCEL_STORM,
        FaultKind.SERVICE_KILLED,
        onCrash="resume",
    ),
    # More jobs than a system remembers of those that have ended, and more notices.
    evolve(
        _scenario("a long day", sessions=6, cancelled=0.2), jobs=300, duration=3600.0, prompts={Talk.SHORT: 1}
    ),
    _scenario("everything at once", *FaultKind, times=1),
)

# For worlds whose seconds are real: what takes minutes elsewhere takes less than one.
BRISK = Scenario(
    name="brisk",
    sessions=3,
    jobs=40,
    duration=15.0,
    cancelled=0.15,
    prompts=_EVERY_TALK,
    pace=0.06,
    settle_within=120.0,
    settings={"idleTimeout": 10.0, "questionTimeout": 3.0, "abortGrace": 3.0, "stopGrace": 2.0},
    faults=tuple(FaultPlan(kind=kind, times=1, lasts=2.5) for kind in FaultKind),
)

# For the real world, where a server takes seconds to begin.
BRIEF = Scenario(
    name="brief",
    sessions=2,
    jobs=10,
    duration=35.0,
    cancelled=0.15,
    prompts=_EVERY_TALK,
    pace=0.05,
    settle_within=400.0,
    settings={
        # On a host that does much else, two servers that begin at once took 60 s.
        "serverReadyTimeout": 180.0,
        "restartPeriod": 3600.0,
        "idleTimeout": 60.0,
        "headerTimeout": 6.0,
        "chunkTimeout": 6.0,
        "questionTimeout": 3.0,
        "abortGrace": 5.0,
        "stopGrace": 5.0,
        "maxProviderRetries": 1,
    },
    faults=(
        FaultPlan(kind=FaultKind.CONTAINER_CRASH, times=2, lasts=0.0),
        FaultPlan(kind=FaultKind.CONTAINER_REMOVED, lasts=0.0),
        FaultPlan(kind=FaultKind.SERVER_SLOW, lasts=4.0),
        FaultPlan(kind=FaultKind.PROVIDER_401, lasts=2.0),
        FaultPlan(kind=FaultKind.PROVIDER_500, lasts=2.0),
        FaultPlan(kind=FaultKind.PROVIDER_SLOW, lasts=4.0),
        FaultPlan(kind=FaultKind.ENGINE_AWAY, lasts=3.0),
        FaultPlan(kind=FaultKind.SERVICE_KILLED, lasts=0.0),
        FaultPlan(kind=FaultKind.CANCEL_STORM, lasts=2.0),
        FaultPlan(kind=FaultKind.CLEANUP_STORM, lasts=2.0),
        FaultPlan(kind=FaultKind.VANISHING_FOLLOWERS, lasts=10.0),
        FaultPlan(kind=FaultKind.RECEIVER_REFUSES, lasts=3.0),
        FaultPlan(kind=FaultKind.RECEIVER_HANGS, lasts=3.0),
    ),
)
