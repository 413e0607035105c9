"""By when an announcement has to have come: as soon as its job has ended, and after any trouble within the time that an
outbox waits longest for its next try."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from opencode_actors.machines.vocabulary import JobId
from opencode_actors.stress.files import JobFile
from opencode_actors.stress.receiver import Taken
from opencode_actors.stress.scenario import FaultKind
from opencode_actors.stress.windows import Hit

# Said here again, and not taken from the outbox: it waits 1 s, then twice as long each time, and up to half as long
# again. So a try comes no later after some trouble than one and a half times what that took.
_FIRST, _JITTER, _LONGEST = 1.0, 1.5, 300.0
# One that hangs is left after `notifyTimeout`; the one that is tried first, alone, takes its time before the others go.
_AFTER_THAT = 10.0
# A service that ends stops what it has, and the next one looks first at what is left.
_DOWN: dict[FaultKind, float] = {FaultKind.SERVICE_KILLED: 30.0, FaultKind.SERVICE_ENDED: 90.0}
_TROUBLE = frozenset(
    {
        FaultKind.DISK_FULL,
        FaultKind.JOURNAL_SLOW,
        FaultKind.ENGINE_AWAY,
        FaultKind.ENGINE_SLOW,
        FaultKind.RECEIVER_AWAY,
        FaultKind.RECEIVER_HANGS,
        FaultKind.RECEIVER_REFUSES,
        FaultKind.RECEIVER_SLOW,
        *_DOWN,
    }
)


def overdue(
    taken: Sequence[Taken],
    files: Mapping[JobId, JobFile],
    hits: Sequence[Hit],
    *,
    patience: float,
    slack: float,
) -> Iterator[tuple[JobFile, str]]:
    """`patience` is what one attempt may take. What is due stands in the time of day, so nothing is said of a run
    whose clock was set."""
    if any(hit.kind is FaultKind.CLOCK_STEP for hit in hits):
        return
    spans = tuple(_spans(hits, patience))
    for one in taken:
        file = files.get(JobId(one.job))
        if file is None or file.ended_at is None or file.was_doubtful:
            continue
        ends = (until for since, until in spans if since <= one.came)
        due = max((file.ended_at, *ends))
        if one.came > due + slack:
            yield file, f"it was announced {one.came - due:.1f} s late"


def _spans(hits: Sequence[Hit], patience: float) -> Iterator[tuple[float, float]]:
    """From when to when an announcement may wait. What begins before the last trouble is over makes that longer."""
    begins = ends = None
    for hit in sorted((hit for hit in hits if hit.kind in _TROUBLE), key=lambda hit: hit.at):
        until = hit.until + _DOWN.get(hit.kind, 0.0) + patience
        if begins is None or ends is None:
            begins, ends = hit.at, until
        elif hit.at <= ends + _longest(ends - begins):
            ends = max(ends, until)
        else:
            yield begins, ends + _longest(ends - begins)
            begins, ends = hit.at, until
    if begins is not None and ends is not None:
        yield begins, ends + _longest(ends - begins)


def _longest(trouble: float) -> float:
    return min(_LONGEST, trouble + _FIRST) * _JITTER + _AFTER_THAT
