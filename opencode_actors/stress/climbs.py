"""Whether an end was forced rung by rung, each within its own time."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

from opencode_actors.machines.names import directory_name, session_key
from opencode_actors.machines.vocabulary import Climb, Rung, SessionStatus
from opencode_actors.settings import Settings
from opencode_actors.stress.files import JobFile
from opencode_actors.stress.scenario import FaultKind
from opencode_actors.stress.truth import ALL_DEATHS, Word
from opencode_actors.stress.windows import (
    SERVICE_GOES,
    Excuse,
    Hit,
    Tolerance,
    excused,
    killed_between,
    overlapping,
)
from opencode_actors.testing.fake_container import Deed

# Without an engine nothing can be ended: that is waited for, and then the rung has its time again.
_NO_ENGINE = frozenset({FaultKind.ENGINE_AWAY, FaultKind.ENGINE_SLOW})
_DOES = {Rung.STOP: "stop", Rung.KILL: "kill", Rung.REMOVE: "remove"}
_HAS_A_CONTAINER = frozenset({SessionStatus.READY, SessionStatus.UNREADY})
# What keeps an abort from ending what it is asked to end, or whoever climbs from hearing that it has.
_DISTURBS = ALL_DEATHS | frozenset(
    {
        FaultKind.SERVER_FROZEN,
        FaultKind.SERVER_SLOW,
        FaultKind.ANSWERS_LOST,
        FaultKind.STREAM_DROPPED,
        FaultKind.STREAM_TRUNCATED,
        FaultKind.EVENTS_DUPLICATED,
        FaultKind.EVENTS_REORDERED,
        FaultKind.ENGINE_AWAY,
        FaultKind.ENGINE_SLOW,
        FaultKind.ENGINE_LIES,
        FaultKind.ENGINE_REFUSES,
        FaultKind.IGNORES_SIGTERM,
        FaultKind.JOURNAL_SLOW,
        FaultKind.DISK_FULL,
        FaultKind.CLOCK_STEP,
        FaultKind.CLOSE_STORM,
        FaultKind.CLEANUP_STORM,
        *SERVICE_GOES,
    }
)
_MISLEADS = _DISTURBS - {FaultKind.SERVER_FROZEN, FaultKind.SERVER_SLOW}
_HEALS = 60.0  # so long after a fault a client may still look for what it has missed
_DAEMON = "setsid "  # in a prompt: what that begins no abort ends
_WRITES = 10.0  # on a slow disk, for what a rung has to record
_BEGINS_AGAIN = 15.0  # a service, with a look at all that the one before it left


def graces(settings: Settings) -> dict[Rung, float]:
    return {
        Rung.ABORT: settings.abort_grace,
        Rung.STOP: settings.stop_grace,
        Rung.KILL: settings.kill_grace,
        Rung.REMOVE: settings.remove_grace,
    }


def skipped(climb: Climb | None) -> str | None:
    """No rung is, on the way."""
    rungs = [] if climb is None else [rung for rung, _ in climb.seconds]
    own = rungs[1:] if rungs and rungs[0] is Rung.ABORT else rungs
    if any(after != before + 1 for before, after in itertools.pairwise(own)) or (
        own and rungs != own and Rung.ABORT in own
    ):
        return f"the rungs were {', '.join(rung.name for rung in rungs)}"
    return None


def not_done(
    files: Iterable[JobFile],
    asked: Sequence[Deed],
    words: Mapping[str, Sequence[Word]],
    tolerance: Tolerance,
    hits: Sequence[Hit],
) -> Iterator[tuple[JobFile, str]]:
    """Each rung that was told of was tried, by the word of the engine, of what it was `asked`. A service that goes may
    not come to that, and a container that has ended by itself, or that its session was ending anyhow, needs none."""
    for file in files:
        first = min((at for rung, at in file.climbed if rung in _DOES), default=0.0)
        before = [word.status for word in words.get(file.session, ()) if word.at < first]
        own = _done_to(file.session, asked) if file.climbed else []
        for rung, at in file.climbed:
            since, until = at - tolerance.slack, at + tolerance.slack
            if excused(Excuse.WRITTEN_LATE, hits, at):
                until += _WRITES
            spared = (
                (hit.kind in SERVICE_GOES or (hit.kind in ALL_DEATHS and hit.session == file.session))
                and since <= hit.until
                and hit.at <= until
                for hit in hits
            )
            verb = _DOES.get(rung)
            if verb is None or any(spared) or (before and before[-1] not in _HAS_A_CONTAINER):
                continue
            if not any(deed.verb == verb and since <= deed.at <= until for deed in own):
                yield file, f"{rung.name} was told, and the engine was not asked to {verb} its container"


def torn(
    asked: Sequence[Deed],
    words: Mapping[str, Sequence[Word]],
    settings: Settings,
    tolerance: Tolerance,
    hits: Sequence[Hit],
) -> Iterator[tuple[str, Deed]]:
    """Each removal of a session's container that had a server at work, and that nobody had tried to kill."""
    within = settings.kill_grace + tolerance.slack
    for session, said in words.items():
        own = _done_to(session, asked)
        killed = [deed.at for deed in own if deed.verb == "kill"]
        for deed in own:
            if deed.verb != "remove" or deed.ran is None:
                continue
            before = [
                word.status
                for word in said
                if word.at < deed.at - tolerance.slack and word.status is not SessionStatus.STOPPING
            ]
            if not before or before[-1] not in _HAS_A_CONTAINER:
                continue
            if overlapping(hits, _MISLEADS, deed.at - _HEALS, deed.at):
                continue
            if not any(deed.at - within <= at <= deed.at for at in killed):
                yield session, deed


def _done_to(session: str, asked: Sequence[Deed]) -> list[Deed]:
    name = f"-{directory_name(session_key(session))}"
    return [deed for deed in asked if deed.whom.endswith(name)]


def too_steep(file: JobFile, settings: Settings, tolerance: Tolerance, hits: Sequence[Hit]) -> Iterator[str]:
    """Where nothing is in its way an abort ends all that is not in a process session of its own, and a rung that is
    left had its whole grace. What is said of each rung's time is what was seen of it."""
    end, ended_at = file.end, file.ended_at
    if end is None or ended_at is None or end.climb is None or file.planned is None or not file.climbed:
        return
    own, rungs = graces(settings), end.climb.seconds
    since = min(file.climbed[0][1], file.decided_at) - _HEALS
    if any(hit.session in (None, file.session) for hit in overlapping(hits, _DISTURBS, since, ended_at)):
        return
    # Whoever takes over a turn does not know what an earlier job had left in the container on purpose.
    taken_over = killed_between(hits, file.started_since, ended_at) > 0
    if end.climb.ended_by is not Rung.ABORT and _DAEMON not in file.planned.prompt and not taken_over:
        last = "nothing" if end.climb.ended_by is None else end.climb.ended_by.name
        yield f"{last} ended it, and an abort would have"
    for rung, spent in rungs[:-1]:
        if spent < own[rung] - min(tolerance.slack, own[rung] / 2):
            yield f"{rung.name} had {spent:.1f} s, and its grace is {own[rung]:g} s"
    took, said = ended_at - file.climbed[0][1], sum(spent for _, spent in rungs)
    if abs(took - said) > tolerance.slack:
        yield f"its climb took {took:.1f} s, and is said to have taken {said:.1f} s"


def too_slow(file: JobFile, settings: Settings, tolerance: Tolerance, hits: Sequence[Hit]) -> Iterator[str]:
    """No rung takes longer than it may, nor do all of them together."""
    end, ended_at = file.end, file.ended_at
    if end is None or ended_at is None:
        return
    own, slack = graces(settings), tolerance.slack
    began = file.decided_at if file.cancelling_at is None else min(file.cancelling_at, file.decided_at)
    if excused(Excuse.WRITTEN_LATE, hits, began, ended_at):
        slack += _WRITES
    away = [hit.until - hit.at for hit in overlapping(hits, _NO_ENGINE, began, ended_at)]
    for rung, spent in () if end.climb is None else end.climb.seconds:
        grace = own.get(rung, 0.0)
        if spent > grace + slack + (sum(away) + grace if away else 0.0):
            yield f"{rung.name} took {spent:.1f} s, and its grace is {grace:g} s"
    if file.cancelling_at is None:
        return
    whole, took = sum(own.values()), ended_at - file.cancelling_at
    again = killed_between(hits, file.cancelling_at, ended_at) * (whole + _BEGINS_AGAIN)
    if took > whole + slack + again + (sum(away) + whole if away else 0.0):
        yield f"it took {took:.1f} s, and the graces are {whole:g} s"
