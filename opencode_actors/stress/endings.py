"""What the system says and keeps of a job that has ended, beside what was told and heard of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attrs import define

from opencode_actors.machines.vocabulary import Cause, JobSnapshot, JobStatus, OnCrash
from opencode_actors.settings import Settings
from opencode_actors.stress.bounds import Bounds
from opencode_actors.stress.files import JobFile
from opencode_actors.stress.kept import differs, told_too_often, wrong_ends
from opencode_actors.stress.scenario import FaultKind
from opencode_actors.stress.talk import expected_of, repeats, until_interrupted, without_remark, wrong_output
from opencode_actors.stress.truth import DEATHS, Evidence
from opencode_actors.stress.windows import Excuse, Hit, Tolerance, excused

# What a prompt ends of that OpenCode never asks, because it takes an older one for the last.
_OF_ANOTHER_PROMPT = frozenset(
    {Cause.IDLE_TIMEOUT, Cause.REJECTED, Cause.AUTH, Cause.RATE_LIMIT, Cause.PROVIDER}
)


@define(eq=False)
class Endings:
    settings: Settings
    tolerance: Tolerance
    hits: Sequence[Hit]
    evidence: Evidence
    bounds: Bounds

    def wrong(self, file: JobFile, status: JobSnapshot, output: str) -> Iterator[tuple[str, str]]:
        """Which rule is broken, and how; `status` and `output` are what is said and kept of it now."""
        if file.end is None:
            return
        if status.status is not file.end.status and self.is_recorded(file):
            text = f"it ended {file.end.status.value}, and is said to be {status.status.value}"
            yield "settles once", text
        elif not file.was_doubtful and (wrong := differs(file.end, status)):
            yield "what is kept was told", wrong
        if wrong := told_too_often(file, self.settings, self.hits):
            yield "told once", wrong
        for wrong in wrong_ends(file, self.settings, self.tolerance, self.hits):
            yield "requests end as they were answered", wrong
        for wrong in self._wrong_output(file, file.end, output):
            yield "whole output", wrong
        for wrong in self.bounds.broken(file, output):
            yield "a bound is kept", wrong
        wrong = self.evidence.untrue(file)
        if wrong and not (_fell_silent(file) and self.was_misled(file)):
            yield "the true cause", wrong
        if wrong := self.evidence.misheard(file):
            yield "a request takes one answer", wrong
        if wrong := self.evidence.overdue(file):
            yield "a silence ends", wrong

    def is_recorded(self, file: JobFile) -> bool:
        """Whether its end was durable: on a full disk it is told all the same, and may be heard later."""
        if file.ended_at is None:
            return True
        return not excused(Excuse.NOT_RECORDED, self.hits, file.ended_since, file.ended_at)

    def was_misled(self, file: JobFile) -> bool:
        """Whether the clock may have been set back after its session had looked for that, and before its prompt was
        there: OpenCode takes an older prompt for the last one then, and answers that."""
        if file.started_at is None:
            return False
        since, until = file.started_since - self.tolerance.settles, file.heard_at or file.ended_at
        return any(
            hit.kind is FaultKind.CLOCK_STEP and since <= hit.at <= (until or hit.at) for hit in self.hits
        )

    def _wrong_output(self, file: JobFile, end: JobSnapshot, output: str) -> Iterator[str]:
        told = "".join(file.text)
        if told != output and self.is_recorded(file):
            yield f"{len(told)} characters were told, and {len(output)} are kept"
        file.interrupted = self._gone_on_with(file, output)
        whole = end.status is JobStatus.COMPLETED and not file.full and not file.interrupted
        said = without_remark(output) if file.full else output
        said = until_interrupted(said) if file.interrupted else said
        expected = expected_of("" if file.planned is None else file.planned.prompt)
        wrong = wrong_output(expected, said, whole=whole)
        # A model that is asked again, because an older message is taken for the last one, says it again.
        again = not whole and self._set_back(file) and repeats(expected, said)
        if wrong and not again and not self.was_misled(file):
            yield wrong
        if file.full is not end.output_truncated and self.is_recorded(file):
            yield f"it is full: {file.full}, and said to be: {not file.full}"

    def _gone_on_with(self, file: JobFile, output: str) -> bool:
        """Whether it says so, and has a reason."""
        return (
            self.settings.on_crash == OnCrash.RESUME.value
            and until_interrupted(output) != output
            and any(
                hit.kind in DEATHS and hit.session == file.session and hit.at >= file.started_since
                for hit in self.hits
            )
        )

    def _set_back(self, file: JobFile) -> bool:
        """Whether its turn may have been under way when the clock was."""
        return any(
            hit.kind is FaultKind.CLOCK_STEP and file.started_since <= hit.at <= (file.ended_at or hit.at)
            for hit in self.hits
        )


def _fell_silent(file: JobFile) -> bool:
    """Whether it never said a word, and ended of that, or of what a provider says to another prompt."""
    failure = None if file.end is None else file.end.failure
    return file.heard_at is None and failure is not None and failure.cause in _OF_ANOTHER_PROMPT
