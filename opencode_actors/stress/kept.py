"""What is kept of a job against what was told of it, and what was told of it too often."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs

from opencode_actors.machines.notices import InputEnd
from opencode_actors.machines.vocabulary import JobSnapshot, OnCrash
from opencode_actors.settings import Settings
from opencode_actors.stress.files import JobFile
from opencode_actors.stress.scenario import Talk
from opencode_actors.stress.talk import ToolLine, expected_of
from opencode_actors.stress.truth import ALL_DEATHS
from opencode_actors.stress.windows import Excuse, Hit, Tolerance, excused, killed_between


def differs(told: JobSnapshot, said: JobSnapshot) -> str | None:
    """A settled job stays as it is, in all that is said of it."""
    for one in attrs.fields(JobSnapshot):
        was, is_ = getattr(told, one.name), getattr(said, one.name)
        if was != is_:
            return f"its {one.name} was told to be {was!r:.80}, and is said to be {is_!r:.80}"
    return None


def told_too_often(file: JobFile, settings: Settings, hits: Sequence[Hit]) -> str | None:
    """Whoever goes on with a job, after a kill or a crash, may tell of its turn and of its tools once more; and
    what a model does that is asked to go on is its own."""
    if file.planned is None or file.started_at is None:
        return None
    since, until = file.asked_at or 0.0, file.ended_at or file.started_at
    times = 1 + killed_between(hits, since, until)
    if settings.on_crash == OnCrash.RESUME.value:
        times += sum(hit.kind in ALL_DEATHS and since <= hit.at <= until for hit in hits)
    tools = sum(isinstance(piece, ToolLine) for piece in expected_of(file.planned.prompt))
    if file.starts > times:
        return f"it was told to have started {file.starts} times"
    if file.tools > tools * times and settings.on_crash != OnCrash.RESUME.value:
        return f"{file.tools} tools were told of, and its prompt has {tools}"
    return None


def wrong_ends(file: JobFile, settings: Settings, tolerance: Tolerance, hits: Sequence[Hit]) -> Iterator[str]:
    """Of requests, against the answers that were taken: whose fate is not sure is left out."""
    if file.was_doubtful:
        return
    for request, (end, at) in file.request_ends.items():
        since = file.wanted_at.get(request, at)
        if excused(Excuse.UNSURE, hits, since, at, session=file.session) or excused(
            Excuse.WRITTEN_LATE, hits, since, at
        ):
            continue
        taken = file.answers.get(request)
        if taken is not None and end is not _end_of(taken, file):
            yield f"{request} took the answer {taken}, and was told to be {end.value}"
        if end in _BY_SOMEBODY and taken is None and not file.unsure:
            yield f"{request} took no answer, and was told to be {end.value}"
        if end is InputEnd.UNANSWERED and at - since < settings.question_timeout - tolerance.slack:
            yield f"{request} was told to be unanswered after {at - since:.1f} s"


_BY_SOMEBODY = frozenset({InputEnd.ANSWERED, InputEnd.REJECTED})


def _end_of(taken: str, file: JobFile) -> InputEnd:
    """To a question anything is an answer."""
    asks_leave = file.planned is not None and file.planned.talk is Talk.PERMISSION
    return InputEnd.REJECTED if asks_leave and taken == "no" else InputEnd.ANSWERED
