"""Whether whoever is told of ends was told of each of them, once, and the truth."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence

from attrs import frozen

from opencode_actors.machines.vocabulary import JobId, JobStatus
from opencode_actors.stress.files import JobFile
from opencode_actors.stress.receiver import Receiver
from opencode_actors.stress.scenario import FaultKind
from opencode_actors.stress.windows import MARGIN, Hit

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
    receiver: Receiver, files: dict[JobId, JobFile], hits: Sequence[Hit]
) -> Iterator[Wrong]:
    """Of each job that ended one announcement was taken; of a second one the service did not know that the
    first was, because it died, or could not write it down."""
    for text in receiver.strange:
        yield Wrong(text)
    taken: dict[str, list[float]] = defaultdict(list)
    for one in receiver.taken:
        taken[one.job].append(one.at)
        file = files.get(JobId(one.job))
        wrong = None if file is None else _untrue(file, one.text)
        if wrong is not None:
            yield Wrong(wrong, file)
    for file in files.values():
        moments = taken.pop(file.id, [])
        if not moments:
            yield Wrong("its end was announced to nobody", file)
        for before, after in itertools.pairwise(moments):
            if not _forgotten(before, after, hits):
                yield Wrong(f"its end was announced again {after - before:.1f} s later", file)
        known = file.ended_at is not None and not file.was_doubtful
        if moments and known and moments[0] < file.ended_since - MARGIN:
            yield Wrong("it was announced before its end", file)
    for job in taken:
        yield Wrong(f"{job} was announced, and never was")


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
    return f"its announcement does not say {missing[0]!r}: {first[:160]!r}" if missing else None


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
