"""What ran when, for a plot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from attrs import frozen

from opencode_actors.machines.vocabulary import JobStatus
from opencode_actors.stress.files import JobFile
from opencode_actors.stress.windows import Hit

_TONES = {JobStatus.COMPLETED: "bar", JobStatus.CANCELLED: "good", JobStatus.FAILED: "bad"}


@frozen(kw_only=True)
class Span:
    """`tone` is a colour's name: of a fault, or of how a job ended."""

    row: str
    begin: float
    end: float
    tone: str
    title: str


def spans_of(files: Iterable[JobFile], hits: Iterable[Hit], *, began: float) -> Iterator[Span]:
    for hit in hits:
        yield Span(
            row=f"faults {hit.session or 'of all'}",
            begin=hit.at - began,
            end=hit.until - began,
            tone="fault",
            title=f"{hit.kind.value} at {hit.at - began:.1f} s",
        )
    for file in files:
        if file.started_at is None or file.ended_at is None or file.end is None:
            continue
        failure = file.end.failure
        why = "" if failure is None else f": {failure.message}"
        yield Span(
            row=file.session,
            begin=file.started_at - began,
            end=file.ended_at - began,
            tone=_TONES[file.end.status],
            title=f"job {file.number}, {file.end.status.value}{why}",
        )
