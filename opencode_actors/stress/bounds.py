"""The bounds that the settings set for a job: that each is kept, and that nobody keeps to a smaller one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from opencode_actors.machines.vocabulary import OnCrash
from opencode_actors.settings import Settings
from opencode_actors.stress.files import JobFile
from opencode_actors.stress.scenario import FaultKind
from opencode_actors.stress.talk import without_remark
from opencode_actors.stress.windows import SERVICE_GOES, Excuse, Hit, Tolerance, excused, overlapping

# The longest character has so many bytes, and is not cut.
_CUT = 3
# A service that begins looks first at what the one before it left, and waits for an engine that is away.
_BEGINS_WITHIN = 30.0
_KEEPS_IT_AWAY = frozenset({FaultKind.ENGINE_AWAY, FaultKind.ENGINE_SLOW, *SERVICE_GOES})


def out_of_bounds(
    file: JobFile, output: str, settings: Settings, tolerance: Tolerance, hits: Sequence[Hit]
) -> Iterator[str]:
    """What is wrong with how much it was given; `output` is what is kept of it."""
    ends = (_overlong(file, settings, tolerance, hits), _filled(file, output, settings))
    yield from (wrong for wrong in ends if wrong is not None)


def _overlong(file: JobFile, settings: Settings, tolerance: Tolerance, hits: Sequence[Hit]) -> str | None:
    """Who goes on after a crash begins anew."""
    bound = settings.job_timeout
    if not bound or file.started_at is None or file.ended_at is None or file.was_doubtful:
        return None
    if settings.on_crash == OnCrash.RESUME.value:
        return None
    due = file.started_at + bound
    for hit in overlapping(hits, _KEEPS_IT_AWAY, due - _BEGINS_WITHIN, file.decided_at):
        if hit.at <= due:
            due = max(due, hit.until + _BEGINS_WITHIN)
    if file.decided_at <= due + tolerance.slack:
        return None
    if excused(Excuse.WRITTEN_LATE, hits, file.started_at + bound, file.decided_at):
        return None
    return f"it ran for {file.decided_at - file.started_at:.1f} s, and jobTimeout is {bound:g} s"


def _filled(file: JobFile, output: str, settings: Settings) -> str | None:
    """It is full when there is no room for the next character, and not before."""
    bound = settings.max_output_size
    if not bound or file.was_doubtful:
        return None
    size = len((without_remark(output) if file.full else output).encode())
    if size > bound or (file.full and size < bound - _CUT):
        full = "full" if file.full else "not full"
        return f"it has {size} bytes and is {full}, and maxOutputSize is {bound} bytes"
    return None
