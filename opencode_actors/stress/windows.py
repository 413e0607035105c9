"""What came to pass in the world, and what it excuses, for how long: all exemptions stand in one table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum, auto

import trio
from attrs import frozen

from opencode_actors.stress.plan import PlannedFault
from opencode_actors.stress.scenario import FaultKind

# From a container's end until its job has settled. It is pushed; on a real host the engine's own word is the slowest
# way to hear of it.
_FOUND_WITHIN, _FOUND_WITHIN_IN_TRUTH = 1.0, 40.0
# Beyond what a rung may take: the engine's answer, and a look at what is left.
MARGIN = 6.0


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


@frozen(kw_only=True)
class Tolerance:
    """`late` is by how much one notice may be heard later than another, `slack` what anything may take beyond its own
    time, and `found_within` how soon a container's end ends its job."""

    late: float
    slack: float
    found_within: float
    settles: float


def tolerance_of(late: float) -> Tolerance:
    """A clock that only runs when nobody has anything to do leaves no excuse."""
    if late < 0.1:
        return Tolerance(late=late, slack=1.0, found_within=_FOUND_WITHIN, settles=0.1)
    # On a host that does much else what is told is heard seconds later.
    return Tolerance(late=max(late, MARGIN), slack=MARGIN, found_within=_FOUND_WITHIN_IN_TRUTH, settles=1.0)


# A service is not there any more: at once, or when it has ended in order.
SERVICE_GOES = frozenset({FaultKind.SERVICE_KILLED, FaultKind.SERVICE_ENDED})


class Excuse(Enum):
    """What may be otherwise while a fault lasts, and for how long before and after it."""

    NOT_RECORDED = auto()  # what ended then
    NOT_REFUSED_FOR_NOTHING = auto()  # a start that could not be recorded
    CLOSED = auto()  # a session, and with it its jobs
    FOUND_LATE = auto()  # a container's end
    NOT_FOUND = auto()  # a container's end, which only the engine knows: its server just does not answer
    HUNG_LATE = auto()  # a hang's end
    UNSURE = auto()  # whether a server took what it was sent
    WRITTEN_LATE = auto()  # whatever has to be recorded first


_EXCUSES: Mapping[Excuse, Mapping[FaultKind, tuple[float, float]]] = {
    Excuse.NOT_RECORDED: {FaultKind.DISK_FULL: (0.0, MARGIN)},
    Excuse.NOT_REFUSED_FOR_NOTHING: {FaultKind.DISK_FULL: (0.0, MARGIN)},
    Excuse.CLOSED: {
        FaultKind.CLOSE_STORM: (0.0, 5.0),
        FaultKind.CLEANUP_STORM: (0.0, 5.0),
        FaultKind.SERVICE_ENDED: (0.0, 60.0),
    },
    Excuse.FOUND_LATE: {
        FaultKind.ENGINE_AWAY: (0.0, 10.0),
        FaultKind.JOURNAL_SLOW: (0.0, 30.0),
        FaultKind.SERVICE_KILLED: (0.0, 10.0),
        FaultKind.SERVICE_ENDED: (0.0, 90.0),
        FaultKind.ANSWERS_LOST: (0.0, 10.0),
        FaultKind.DISK_FULL: (0.0, 10.0),
    },
    Excuse.NOT_FOUND: {FaultKind.ENGINE_AWAY: (0.0, 10.0)},
    Excuse.HUNG_LATE: dict.fromkeys(
        (
            FaultKind.SERVER_FROZEN,
            FaultKind.SERVER_SLOW,
            FaultKind.STREAM_DROPPED,
            FaultKind.STREAM_TRUNCATED,
            FaultKind.EVENTS_DUPLICATED,
            FaultKind.EVENTS_REORDERED,
            FaultKind.ENGINE_AWAY,
            FaultKind.ENGINE_SLOW,
            FaultKind.JOURNAL_SLOW,
            FaultKind.SERVICE_KILLED,
            FaultKind.SERVICE_ENDED,
            FaultKind.ANSWERS_LOST,
            FaultKind.DISK_FULL,
        ),
        (0.0, 60.0),
    ),
    Excuse.UNSURE: dict.fromkeys(
        (
            FaultKind.CONTAINER_CRASH,
            FaultKind.CONTAINER_OOM,
            FaultKind.CONTAINER_REMOVED,
            FaultKind.CRASH_LOOP,
            FaultKind.SERVER_FROZEN,
            FaultKind.SERVER_SLOW,
            FaultKind.SERVICE_KILLED,
            FaultKind.SERVICE_ENDED,
            FaultKind.ANSWERS_LOST,
            FaultKind.DISK_FULL,
        ),
        (0.0, 30.0),
    ),
    Excuse.WRITTEN_LATE: {FaultKind.JOURNAL_SLOW: (0.0, 30.0), FaultKind.DISK_FULL: (0.0, 2 * MARGIN)},
}


def excused(
    excuse: Excuse,
    hits: Iterable[Hit],
    since: float,
    until: float | None = None,
    *,
    session: str | None = None,
) -> bool:
    """Whether a fault excuses it at some moment from `since` to `until`. Without a `session` it is asked of what
    concerns all of them, and faults of any count."""
    until = since if until is None else until
    return any(
        (span := _EXCUSES[excuse].get(hit.kind)) is not None
        and (session is None or hit.session in (None, session))
        and hit.at - span[0] <= until
        and hit.until + span[1] >= since
        for hit in hits
    )


def owed_to_the_disk(hits: Iterable[Hit], ended_since: float, ended_at: float, now: float) -> bool:
    """Whether what ended between the two may still not be recorded: what failed is tried again every few seconds."""
    return any(
        hit.kind is FaultKind.DISK_FULL
        and hit.at <= ended_at
        and ended_since <= hit.until + MARGIN
        and now <= hit.until + 2 * MARGIN
        for hit in hits
    )


def killed_between(hits: Iterable[Hit], since: float, until: float) -> int:
    """How often the service was."""
    return sum(hit.kind in SERVICE_GOES and since <= hit.at <= until for hit in hits)


def overlapping(
    hits: Sequence[Hit], kinds: frozenset[FaultKind], since: float, until: float
) -> tuple[Hit, ...]:
    return tuple(hit for hit in hits if hit.kind in kinds and hit.at <= until and hit.until >= since)
