"""The bounds that the settings set for a job: that each is kept, and that nobody keeps to a smaller one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attrs import define

from opencode_actors.machines.vocabulary import OnCrash
from opencode_actors.settings import Settings
from opencode_actors.stress.files import JobFile
from opencode_actors.stress.ledger import Ledger
from opencode_actors.stress.scenario import FaultKind, Talk
from opencode_actors.stress.talk import without_remark
from opencode_actors.stress.windows import SERVICE_GOES, Excuse, Hit, Tolerance, excused, overlapping

# The longest character has so many bytes, and is not cut.
_CUT = 3
# A service that begins looks first at what the one before it left, and waits for an engine that is away.
_BEGINS_WITHIN = 30.0
_KEEPS_IT_AWAY = frozenset({FaultKind.ENGINE_AWAY, FaultKind.ENGINE_SLOW, *SERVICE_GOES})
# The provider's errors after which OpenCode asks it again.
_ASKED_AGAIN = frozenset({FaultKind.PROVIDER_429, FaultKind.PROVIDER_500})


@define(eq=False)
class Bounds:
    """`ledger` is None where the model is not the world's."""

    settings: Settings
    tolerance: Tolerance
    hits: Sequence[Hit]
    ledger: Ledger | None = None

    def broken(self, file: JobFile, output: str) -> Iterator[str]:
        """What is wrong with what it was given, when it has ended; `output` is what is kept of it."""
        if file.was_doubtful or file.ended_at is None:
            return
        wrong = (self._overlong(file), self._filled(file, output), self._retried(file))
        yield from (text for text in wrong if text is not None)

    def _overlong(self, file: JobFile) -> str | None:
        """Who goes on after a crash begins anew."""
        bound = self.settings.job_timeout
        if not bound or file.started_at is None or self.settings.on_crash == OnCrash.RESUME.value:
            return None
        due = file.started_at + bound
        if excused(Excuse.WRITTEN_LATE, self.hits, due, file.decided_at):
            return None
        for hit in overlapping(self.hits, _KEEPS_IT_AWAY, due - _BEGINS_WITHIN, file.decided_at):
            if hit.at <= due:
                due = max(due, hit.until + _BEGINS_WITHIN)
        if file.decided_at <= due + self.tolerance.slack:
            return None
        return f"it ran for {file.decided_at - file.started_at:.1f} s, and jobTimeout is {bound:g} s"

    def _filled(self, file: JobFile, output: str) -> str | None:
        """It is full when there is no room for the next character, and not before."""
        bound = self.settings.max_output_size
        size = len((without_remark(output) if file.full else output).encode())
        if not bound or (size <= bound and (not file.full or size >= bound - _CUT)):
            return None
        full = "full" if file.full else "not full"
        return f"it has {size} bytes and is {full}, and maxOutputSize is {bound} bytes"

    def _retried(self, file: JobFile) -> str | None:
        """By the provider's word. A sub-agent is counted for itself, and a request may be on its way."""
        job, most = file.planned, self.settings.max_provider_retries
        if self.ledger is None or job is None or self.settings.on_crash == OnCrash.RESUME.value:
            return None
        since, until = file.started_since, file.ended_at or 0.0
        if excused(Excuse.HUNG_LATE, self.hits, since, until, session=file.session):
            return None
        in_a_row = longest = 0
        for asked in self.ledger.entries.get(job.number, ()):
            in_a_row = in_a_row + 1 if asked.fate in _ASKED_AGAIN else 0
            longest = max(longest, in_a_row)
        if longest <= (most + 1) * (2 if job.talk is Talk.CHILD else 1) + 1:
            return None
        return f"the provider refused it {longest} times in a row, and maxProviderRetries is {most}"
