"""Whether whoever is told of ends was told of each of them, once, and the truth."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence

from attrs import frozen

from opencode_actors.machines.vocabulary import JobId, JobStatus
from opencode_actors.settings import Settings
from opencode_actors.stress.due import overdue
from opencode_actors.stress.files import JobFile
from opencode_actors.stress.receiver import Receiver, Taken
from opencode_actors.stress.scenario import FaultKind
from opencode_actors.stress.talk import Words, expected_of
from opencode_actors.stress.windows import MARGIN, SERVICE_GOES, Excuse, Hit, excused, overlapping

# Announcements that go out together come together, and no more of them than that.
_SOON = 0.5
_ROOM = 3
# So many of an answer's last characters are looked for: none of them is the end of a line.
_QUOTED = 12
# What keeps an outbox from sending at once.
_DISTURB = frozenset(
    {
        FaultKind.DISK_FULL,
        FaultKind.JOURNAL_SLOW,
        FaultKind.SERVICE_KILLED,
        FaultKind.SERVICE_ENDED,
        FaultKind.CLOCK_STEP,
        FaultKind.RECEIVER_AWAY,
        FaultKind.RECEIVER_HANGS,
        FaultKind.RECEIVER_REFUSES,
    }
)
_SAYS = {
    JobStatus.COMPLETED: "is completed",
    JobStatus.CANCELLED: "was cancelled",
    JobStatus.FAILED: "has failed",
}


@frozen
class Wrong:
    """`file` is None where nobody knows the job."""

    text: str
    file: JobFile | None = None


def wrong_announcements(
    receiver: Receiver, files: dict[JobId, JobFile], hits: Sequence[Hit], settings: Settings, slack: float
) -> Iterator[Wrong]:
    """Of each job that ended one announcement was taken; of a second one the service did not know that the
    first was, because it died, or could not write it down."""
    for text in receiver.strange:
        yield Wrong(text)
    taken: dict[str, list[Taken]] = defaultdict(list)
    for one in receiver.taken:
        taken[one.job].append(one)
        file = files.get(JobId(one.job))
        wrong = None if file is None else _untrue(file, one.text)
        if wrong is not None:
            yield Wrong(wrong, file)
    for file in files.values():
        moments = taken.pop(file.id, [])
        if not moments:
            yield Wrong("its end was announced to nobody", file)
        for before, after in itertools.pairwise(moments):
            if not _forgotten(before.at, after.at, hits) and not _unheard(before, receiver, hits):
                yield Wrong(f"its end was announced again {after.at - before.at:.1f} s later", file)
        known = file.ended_at is not None and not file.was_doubtful
        if moments and known and moments[0].at < file.ended_since - MARGIN:
            yield Wrong("it was announced before its end", file)
        if file.unannounced and not _gives_up(file, receiver, hits, settings):
            yield Wrong(
                f"its end was told to be announced to nobody, and was taken: {file.unannounced}", file
            )
    yield from _waited(receiver.taken, files, hits)
    patience = settings.notify_timeout
    for file, text in overdue(receiver.taken, files, hits, patience=patience, slack=slack):
        yield Wrong(text, file)
    for job in taken:
        yield Wrong(f"{job} was announced, and never was")


def _waited(taken: Sequence[Taken], files: dict[JobId, JobFile], hits: Sequence[Hit]) -> Iterator[Wrong]:
    """A receiver that takes its time for one is asked for the others beside it."""
    for one in taken:
        # After a failure one alone is tried, until it is taken.
        well_since = max((other.at for other in taken if other.at <= one.came), default=None)
        if well_since is None or one.at - one.came < 2 * _SOON:
            continue
        if overlapping(hits, _DISTURB, well_since, one.at):
            continue
        if excused(Excuse.WRITTEN_LATE, hits, well_since, one.at):
            continue  # what has ended may have no row yet
        beside = sum(abs(other.came - one.came) <= _SOON for other in taken)
        under_way = sum(other.came < one.came < other.at for other in taken)
        if beside > _ROOM or under_way:
            continue
        for late in taken:
            file = files.get(JobId(late.job))
            if file is None or file.ended_at is None or file.was_doubtful:
                continue
            if file.ended_at < one.came - _SOON and one.at <= late.came <= one.at + _SOON:
                yield Wrong(
                    f"its announcement waited for {late.came - one.came:.1f} s until another was taken", file
                )


def _gives_up(file: JobFile, receiver: Receiver, hits: Sequence[Hit], settings: Settings) -> bool:
    """Whether it may have been refused for good, or tried for too long."""
    over = max((one.at for one in receiver.taken if one.job == file.id), default=math.inf)
    stepped = any(hit.kind is FaultKind.CLOCK_STEP for hit in hits)
    return bool(receiver.strange) or stepped or over - file.ended_since >= settings.notify_give_up


def _untrue(file: JobFile, said: str) -> str | None:
    """What its first line says of its end, if that is not so."""
    end = file.end
    if end is None or file.was_doubtful:
        return None
    first = said.partition("\n")[0]
    wanted = [f"OpenCode job {file.id} ", _SAYS[end.status]]
    if end.failure is not None:
        wanted.append(f"({end.failure.cause.value}")
    missing = [words for words in wanted if words not in first]
    if missing:
        return f"its announcement does not say {missing[0]!r}: {first[:160]!r}"
    return _unquoted(file, said) if end.status is JobStatus.COMPLETED else None


def _unquoted(file: JobFile, said: str) -> str | None:
    """The end of a whole answer stands in it, as its own words and not as those of the task."""
    if file.planned is None or file.full or file.interrupted:
        return None
    last = [piece for piece in expected_of(file.planned.prompt) if isinstance(piece, Words)][-1:]
    end = last[0].text.rstrip()[-_QUOTED:] if last else ""
    quoted = [line for line in said.splitlines() if line.startswith(">")]
    return None if any(end in line for line in quoted) else f"its announcement does not quote {end!r}"


def _unheard(taken: Taken, receiver: Receiver, hits: Sequence[Hit]) -> bool:
    """Whether whoever asked was not there any more when it was answered; it may also have gone just before it was
    taken, for nobody notices that at once. It goes by itself when its time is over, or with its service."""
    return any(
        one.job == taken.job
        and one.since <= taken.came <= one.until + _SOON
        and (not one.broken_off or overlapping(hits, SERVICE_GOES, one.until - MARGIN, one.until + MARGIN))
        for one in receiver.unheard
    )


def _forgotten(taken_at: float, again_at: float, hits: Sequence[Hit]) -> bool:
    """Whether something kept the service from writing down that it was taken."""
    return any(
        hit.at <= again_at
        and (
            (hit.kind is FaultKind.SERVICE_KILLED and abs(hit.at - taken_at) <= MARGIN)
            or (hit.kind is FaultKind.DISK_FULL and hit.at - MARGIN <= taken_at <= hit.until + MARGIN)
        )
        for hit in hits
    )
