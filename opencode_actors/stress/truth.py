"""What a job may have ended of: its own nature, the bounds that were set for it, and what the world did to it.

A job that nothing hit has to end as its prompt says. One that failed has felt what it names: while it had its turn its
own container died or its server did not answer, its own request was refused by the provider, or its session said aloud
that it gives up, and of what. What happened to somebody else, or at another time, is no cause.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from attrs import define, field, frozen

from opencode_actors.machines.vocabulary import Cause, Failure, JobStatus, OnUnanswered, SessionStatus
from opencode_actors.settings import Settings
from opencode_actors.stress.files import JobFile
from opencode_actors.stress.ledger import Ledger
from opencode_actors.stress.plan import PlannedJob
from opencode_actors.stress.scenario import ASKS, FaultKind, Talk
from opencode_actors.stress.windows import Excuse, Hit, Tolerance, excused, killed_between

# Whoever gives up a silent provider first: this system, or OpenCode, which asks it a few times again.
OF_SILENCE = frozenset({Cause.IDLE_TIMEOUT, Cause.PROVIDER})

# What makes which end of a container.
_DEATHS: Mapping[Cause, frozenset[FaultKind]] = {
    Cause.CRASH: frozenset({FaultKind.CONTAINER_CRASH, FaultKind.CRASH_LOOP}),
    Cause.OOM: frozenset({FaultKind.CONTAINER_OOM}),
    Cause.REMOVED: frozenset({FaultKind.CONTAINER_REMOVED}),
}
DEATHS = frozenset({FaultKind.CONTAINER_CRASH, FaultKind.CONTAINER_OOM, FaultKind.CONTAINER_REMOVED})
ALL_DEATHS = DEATHS | {FaultKind.CRASH_LOOP}

# What makes a server one that does not answer, and for how many seconds after it is over that may still be found:
# probes have their deadlines.
_HANGS: Mapping[FaultKind, float] = {
    FaultKind.SERVER_FROZEN: 30.0,
    FaultKind.SERVER_SLOW: 30.0,
    FaultKind.STREAM_DROPPED: 60.0,
    FaultKind.STREAM_TRUNCATED: 60.0,
    FaultKind.JOURNAL_SLOW: 30.0,
    FaultKind.ANSWERS_LOST: 60.0,
}

# Which of the provider's moods is called what.
_PROVIDER: Mapping[Cause, frozenset[FaultKind]] = {
    Cause.AUTH: frozenset({FaultKind.PROVIDER_401}),
    Cause.RATE_LIMIT: frozenset({FaultKind.PROVIDER_429}),
    Cause.PROVIDER: frozenset({FaultKind.PROVIDER_500, FaultKind.PROVIDER_SILENT}),
    Cause.IDLE_TIMEOUT: frozenset({FaultKind.PROVIDER_SILENT}),
}

# What a session that gives up may name, of what happened to it within its memory of crashes; an engine that was away
# is waited for besides.
_OF_SESSIONS: Mapping[Cause, frozenset[FaultKind]] = {
    **_DEATHS,
    Cause.SERVER_HUNG: frozenset(_HANGS),
    Cause.STARTUP_TIMEOUT: frozenset(
        {FaultKind.SERVER_FROZEN, FaultKind.SERVER_SLOW, FaultKind.ENGINE_AWAY, FaultKind.ENGINE_SLOW,
         FaultKind.JOURNAL_SLOW}
    ),
    Cause.ENGINE_UNAVAILABLE: frozenset({FaultKind.ENGINE_AWAY, FaultKind.ENGINE_SLOW}),
    Cause.ENGINE_REFUSED: frozenset({FaultKind.ENGINE_LIES, FaultKind.ENGINE_REFUSES}),
    Cause.STORE: frozenset({FaultKind.DISK_FULL}),
}  # fmt: skip
# Of these a session gives up at once: another try would end the same way.
_AT_ONCE = frozenset({Cause.CRASH, Cause.OOM, Cause.ENGINE_REFUSED, Cause.STORE})
_GIVES_UP = frozenset({SessionStatus.GIVEN_UP, SessionStatus.QUARANTINED})
_WAITED_FOR = 180.0
# In a crash loop a container lives for this long.
_LOOPED = 2.5


@frozen
class Word:
    """What a session was said to be."""

    at: float
    status: SessionStatus
    detail: str


@define(eq=False)
class Evidence:
    """`ledger` is None where the model is not the world's; `words` is what each session said of itself."""

    settings: Settings
    tolerance: Tolerance
    hits: list[Hit] = field(factory=list[Hit])
    words: dict[str, list[Word]] = field(factory=dict[str, list[Word]])
    ledger: Ledger | None = None

    def untrue(self, file: JobFile) -> str | None:
        """What is wrong with the end that it is said to have had, if anything."""
        job, end = file.planned, file.end
        if job is None or end is None or file.ended_at is None:
            return None
        if end.status is JobStatus.CANCELLED:
            asked = file.cancel_asked_at
            wanted = asked is not None and asked <= file.ended_at + self.tolerance.late
            if wanted or self._hung_up(file):
                return None
            return "it was cancelled, and nobody had asked for that"
        if end.status is JobStatus.COMPLETED:
            hangs = job.talk is Talk.HANG and not file.interrupted
            return "it was completed, and its answer has no end" if hangs else None
        if end.failure is None:
            return "it failed of nothing"
        if self._felt(file, job, end.failure):
            return None
        hits = sorted(
            {
                hit.kind.value
                for hit in self.hits
                if hit.session in (None, file.session)
                and hit.at <= file.ended_at
                and hit.until >= (file.queued_at or 0.0)
            }
        )
        had = "while it ran" if file.started_at is not None else "and never had its turn"
        return (
            f"it failed of {end.failure.cause.value} ({end.failure.message}), which it cannot have felt {had}; "
            f"what happened from its place in the queue to its end: {', '.join(hits) or 'nothing'}"
        )

    # ---- what it felt

    def _hung_up(self, file: JobFile) -> bool:
        """Whoever wanted it went with the service before it had its turn: a start that is given up is cancelled. On a
        slow disk it has its turn before its start has returned."""
        queued, ended = file.queued_at or 0.0, file.ended_at or 0.0
        if file.started_at is None:
            return killed_between(self.hits, queued - self.tolerance.slack, ended) > 0
        asked, accepted = file.asked_at or 0.0, file.accepted_at or 0.0
        return any(hit.kind is FaultKind.SERVICE_ENDED and asked <= hit.at <= accepted for hit in self.hits)

    def _felt(self, file: JobFile, job: PlannedJob, failure: Failure) -> bool:
        if self._closed(file, failure.cause) or self._given_up(file, failure):
            return True
        if failure.cause is Cause.STORE:
            since, until = file.decided_since, file.decided_at
            return file.was_doubtful or excused(Excuse.NOT_RECORDED, self.hits, since, until)
        if file.started_at is None:
            return False
        checks: dict[Cause, Callable[[], bool]] = {
            Cause.CRASH: lambda: self._died(file, failure),
            Cause.OOM: lambda: self._died(file, failure),
            Cause.REMOVED: lambda: self._died(file, failure),
            Cause.SERVER_HUNG: lambda: self._hung(file),
            Cause.STARTUP_TIMEOUT: lambda: self._began_again(file),
            Cause.LOST: lambda: self._lost(file),
            Cause.AUTH: lambda: self._refused(file, job, failure.cause),
            Cause.RATE_LIMIT: lambda: self._refused(file, job, failure.cause),
            Cause.PROVIDER: lambda: self._silent(file, job, failure.cause),
            Cause.IDLE_TIMEOUT: lambda: self._silent(file, job, failure.cause),
            Cause.JOB_TIMEOUT: lambda: self._timed_out(file),
            Cause.UNANSWERED: lambda: self._unanswered(file),
        }
        check = checks.get(failure.cause)
        return check is not None and check()

    def _closed(self, file: JobFile, cause: Cause) -> bool:
        since, until = file.decided_since, file.decided_at
        return cause is Cause.CLOSED and excused(Excuse.CLOSED, self.hits, since, until, session=file.session)

    def _given_up(self, file: JobFile, failure: Failure) -> bool:
        """Its session said so, in the same words, and had a reason."""
        kinds = _OF_SESSIONS.get(failure.cause, frozenset())
        ended_at = file.ended_at or 0.0
        around = self.tolerance.slack
        if excused(Excuse.WRITTEN_LATE, self.hits, ended_at):
            around += 30.0
        words = self.words.get(file.session, ())
        before = (None, *(word.status for word in words))
        said = any(
            word.detail == failure.message
            and abs(word.at - ended_at) <= around
            and (word.status in _GIVES_UP or self._at_once(failure, word, earlier))
            for word, earlier in zip(words, before, strict=False)
        )
        memory = self.settings.restart_period + _WAITED_FOR
        return said and any(
            hit.kind in kinds
            and hit.session in (None, file.session)
            and hit.at <= ended_at
            and hit.until + memory >= ended_at
            for hit in self.hits
        )

    def _at_once(self, failure: Failure, word: Word, before: SessionStatus | None) -> bool:
        """A container that could not even be started, of which another try would end the same way."""
        while_made = before is SessionStatus.CREATING and word.status is SessionStatus.STOPPING
        return while_made and failure.cause in _AT_ONCE

    def _died(self, file: JobFile, failure: Failure) -> bool:
        """Its own container, while it had its turn."""
        since = file.started_since - self.tolerance.found_within
        until = (file.ended_at or 0.0) + min(self.tolerance.late, self.tolerance.settles)
        for hit in self.hits:
            if hit.kind not in _DEATHS[failure.cause] or hit.session != file.session or hit.at > until:
                continue
            lasts = hit.until + _LOOPED if hit.kind is FaultKind.CRASH_LOOP else hit.at
            exact = failure.exit_code == hit.exit_code or (
                failure.cause is Cause.REMOVED and failure.exit_code in (None, 137)
            )
            if failure.exit_code is None and excused(Excuse.FOUND_LATE, self.hits, hit.at, until):
                exact = True  # who knows it is away
            if lasts >= since and exact:
                return True
        return False

    def _hung(self, file: JobFile) -> bool:
        """Its own server, when that was decided. Who was killed before it had stopped one decides again later."""
        began, ended, decided = file.started_since, file.ended_at or 0.0, file.decided_at
        for hit in self.hits:
            if hit.kind in ALL_DEATHS and hit.session == file.session and began <= hit.at <= decided:
                if excused(Excuse.NOT_FOUND, self.hits, hit.at, decided):
                    return True
                continue
            after = _HANGS.get(hit.kind)
            if after is None or hit.session not in (None, file.session):
                continue
            if hit.at <= decided and (
                hit.until + after >= decided
                or (hit.until + after >= began and killed_between(self.hits, hit.at, ended) > 0)
            ):
                return True
        return False

    def _began_again(self, file: JobFile) -> bool:
        """Its turn had begun in an earlier process, and its server does not get ready for this one."""
        began, ended = file.started_since - self.tolerance.late, file.ended_at or 0.0
        return killed_between(self.hits, began, ended) > 0 and self._hung(file)

    def _lost(self, file: JobFile) -> bool:
        """Its container ended while there was no service to see it, or there was no room to say that the job had; or
        the clock was set back under it, and OpenCode would not have come to an end."""
        began, ended = file.started_since - self.tolerance.late, file.ended_at or 0.0
        if any(hit.kind is FaultKind.CLOCK_STEP and began <= hit.at <= ended for hit in self.hits):
            return True
        if file.was_doubtful or any(
            hit.kind is FaultKind.SERVICE_ENDED
            and began <= hit.at <= ended
            and excused(Excuse.NOT_RECORDED, self.hits, hit.at, hit.at + self.tolerance.slack)
            for hit in self.hits
        ):
            return True
        return killed_between(self.hits, began, ended) > 0 and any(
            hit.kind in ALL_DEATHS and hit.session == file.session and began <= hit.at <= ended
            for hit in self.hits
        )

    def _refused(self, file: JobFile, job: PlannedJob, cause: Cause) -> bool:
        """A request that was its own, by the provider, in its turn."""
        if self.ledger is None:
            return False
        since = file.started_since - self.tolerance.late
        return any(self.ledger.refused(job.number, _PROVIDER[cause], since, file.ended_at or 0.0))

    def _silent(self, file: JobFile, job: PlannedJob, cause: Cause) -> bool:
        """No sooner than its time is over."""
        if cause is Cause.IDLE_TIMEOUT:
            signs = [file.sign_at or 0.0]
            if file.decided_at - max(signs) < self.settings.idle_timeout - self._late_by:
                return False
        return job.talk is Talk.HANG or self._refused(file, job, cause)

    @property
    def _late_by(self) -> float:
        """On a host that does much else a sign was heard 1.5 s after the system had heard it."""
        return max(self.tolerance.late, self.tolerance.slack)

    def _timed_out(self, file: JobFile) -> bool:
        bound = self.settings.job_timeout
        ran = file.decided_at - file.started_since
        return 0 < bound <= ran + self.tolerance.slack

    def _unanswered(self, file: JobFile) -> bool:
        bound = self.settings.question_timeout
        if self.settings.on_unanswered != OnUnanswered.FAIL.value or not bound:
            return False
        late = self.tolerance.slack
        return any(
            request not in file.answers and file.decided_at - at >= bound - late
            for request, at in file.wanted_at.items()
        )

    # ---- what it should have felt

    def misheard(self, file: JobFile) -> str | None:
        """What the model was told in answer to its question is what was taken for one; a command that is permitted
        says yes by itself."""
        job = file.planned
        if self.ledger is None or job is None or not self._asks(job):
            return None
        if file.was_doubtful or (
            file.end is not None and file.end.failure is not None and file.end.failure.cause is Cause.STORE
        ):
            return None  # nobody could write down what became of the answer
        results = [said for asked in self.ledger.entries.get(job.number, ()) for said in asked.results]
        heard = {word for said in results for word in _YES_OR_NO.findall(said)}
        taken = set(file.answers.values())
        if not heard <= taken | file.unsure:
            return f"the model was told {sorted(heard)}, and what was taken is {sorted(taken)}"
        # What an abort left on a server's list is told from what waits by the order of ids, which are made of the
        # time of day: after a step back a later service takes a ghost for this job's own.
        began, ended = file.started_since, file.ended_at or 0.0
        stepped = any(hit.kind is FaultKind.CLOCK_STEP and hit.at <= ended for hit in self.hits)
        if stepped and killed_between(self.hits, began, ended):
            return None
        if file.end is not None and file.end.status is JobStatus.COMPLETED and not taken <= heard:
            return f"{sorted(taken)} was taken, and the model was told {sorted(heard)}"
        return None

    def _asks(self, job: PlannedJob) -> bool:
        by_permission = job.talk is Talk.PERMISSION and ASKS in self.settings.permission_rules
        return by_permission or job.talk is Talk.QUESTION

    def overdue(self, file: JobFile) -> str | None:
        """A silence that nothing else disturbed and that lasted longer than one may."""
        end, job = file.end, file.planned
        if end is None or job is None or end.failure is None or file.started_at is None:
            return None
        if end.failure.cause is not Cause.IDLE_TIMEOUT:
            return None
        if excused(Excuse.HUNG_LATE, self.hits, file.started_at, file.ended_at, session=file.session):
            return None
        asked = () if self.ledger is None else self.ledger.entries.get(job.number, ())
        signs = [one.at for one in asked if one.at <= file.decided_at]
        last = max(*signs, file.sign_at or 0.0, file.started_at)
        took, bound = file.decided_at - last, self.settings.idle_timeout
        if took > bound + _PAUSE + self.tolerance.slack:
            return f"nothing was heard of it for {took:.1f} s, and idleTimeout is {bound:g} s"
        return None


_YES_OR_NO = re.compile(r"\b(yes|no)\b")
# A prompt that hangs pauses for so long before it does.
_PAUSE = 5.0
