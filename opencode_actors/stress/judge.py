"""Holds what is told of jobs and sessions to the rules, notice by notice, and all of it at the end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from attrs import define, evolve, field

from opencode_actors.machines import notices as n
from opencode_actors.machines.vocabulary import Cause, JobId, JobSnapshot, JobStatus, OnCrash, SessionStatus
from opencode_actors.settings import Settings
from opencode_actors.stress.announced import wrong_announcements
from opencode_actors.stress.bounds import Bounds
from opencode_actors.stress.climbs import skipped, too_slow
from opencode_actors.stress.earshot import Earshot
from opencode_actors.stress.endings import Endings
from opencode_actors.stress.files import JobFile
from opencode_actors.stress.findings import Findings
from opencode_actors.stress.housing import Housing
from opencode_actors.stress.ledger import Ledger
from opencode_actors.stress.plan import PlannedJob
from opencode_actors.stress.receiver import Receiver
from opencode_actors.stress.restarts import Restarts
from opencode_actors.stress.scenario import FaultKind
from opencode_actors.stress.starving import Starving
from opencode_actors.stress.truth import DEATHS, Evidence, Word
from opencode_actors.stress.windows import (
    Excuse,
    Hit,
    Tolerance,
    excused,
    killed_between,
    overlapping,
    owed_to_the_disk,
    tolerance_of,
)

# What a job gives by itself: a reminder comes also from one that is silent.
_SIGNS = (n.JobStarted, n.OutputAdded, n.ToolStarted, n.TodosChanged, n.InputWanted, n.InputAnswered)
_FULL = frozenset({FaultKind.DISK_FULL})


@define(eq=False)
class Judge:
    """`settings` are those of the system; all times are trio's. `late` is by how much one notice may be heard
    later than another, and `ledger` what the model was asked, where the world knows."""

    settings: Settings
    findings: Findings
    late: float = 0.001
    ledger: Ledger | None = None
    hits: list[Hit] = field(factory=list[Hit])
    files: dict[JobId, JobFile] = field(factory=dict[JobId, JobFile])
    latencies: dict[str, list[float]] = field(factory=lambda: defaultdict[str, list[float]](list))
    doubtful: set[JobId] = field(factory=set[JobId])
    told: dict[str, tuple[int, float]] = field(factory=dict[str, tuple[int, float]])
    began_at: float = 0.0
    tolerance: Tolerance = field(init=False)
    earshot: Earshot = field(init=False)
    evidence: Evidence = field(init=False)
    starving: Starving = field(init=False)
    housing: Housing = field(init=False)
    endings: Endings = field(init=False)
    running: dict[str, JobId] = field(factory=dict[str, JobId])
    waiting: dict[str, dict[JobId, JobFile]] = field(
        factory=lambda: defaultdict[str, dict[JobId, JobFile]](dict)
    )
    _restarts: dict[str, Restarts] = field(factory=dict[str, Restarts])

    def __attrs_post_init__(self) -> None:
        self.tolerance = tolerance_of(self.late)
        self.earshot = Earshot(self.tolerance)
        self.starving = Starving(self.earshot, self.hits)
        self.housing = Housing(self.settings, self.earshot, self.hits)
        self.evidence = Evidence(self.settings, self.tolerance, self.hits, ledger=self.ledger)
        bounds = Bounds(self.settings, self.tolerance, self.hits, self.ledger)
        self.endings = Endings(self.settings, self.tolerance, self.hits, self.evidence, bounds)

    # ---- what clients and the world say

    def accepted(self, job: JobId, planned: PlannedJob, now: float, since: float) -> JobFile:
        file = self._file(job, planned.session)
        if file.planned is not None and file.planned.number != planned.number:
            text = f"jobs {file.planned.number} and {planned.number} are one: {job}"
            self.findings.broke("one job for each prompt", now, text, session=planned.session)
        file.planned, file.asked_at, file.accepted_at = planned, since, now
        self.latencies["start"].append(now - since)
        waiting = [one for one in self.unsettled if one.session == file.session and one.started_at is None]
        # The one whose turn is just beginning is not in the queue any more.
        if len(waiting) > self.settings.max_queued_jobs + 1:
            self._broke("bounded", now, f"{len(waiting)} jobs wait in session {file.session}", file)
        self.findings.saw(
            now, f"accepted ({planned.talk.value})", session=planned.session, job=planned.number
        )
        return file

    def hit(self, hit: Hit, now: float) -> None:
        self.hits.append(hit)
        code = "" if hit.exit_code is None else f", exit code {hit.exit_code}"
        lasts = "" if hit.until <= hit.at else f" for {hit.until - hit.at:g} s"
        self.findings.saw(now, f"FAULT {hit.kind.value}{lasts}{code}", session=hit.session)

    def over(self, hit: Hit, now: float) -> None:
        """It has ended: on a busy host later than it was to, and it excuses what came to pass meanwhile."""
        if hit.at < hit.until < now:
            self.hits[self.hits.index(hit)] = evolve(hit, until=now)

    def cancel_asked(self, job: JobId, now: float) -> None:
        file = self.files[job]
        if file.cancel_asked_at is None:
            file.cancel_asked_at = now
        self.findings.saw(now, "a cancel is asked for", session=file.session, job=file.number)

    def cancelled(self, job: JobId, end: JobSnapshot, now: float, since: float) -> None:
        """A cancel has returned."""
        file = self.files[job]
        if not end.settled:
            self._broke("a cancel returns settled", now, f"it returned {end.status.value}", file)
        rung = end.climb.ended_by if end.climb is not None else None
        alone = "queued" if file.started_at is None else "over already"
        name = alone if rung is None else rung.name.lower()
        self.latencies[f"cancel ({name})"].append(now - since)

    @property
    def unsettled(self) -> tuple[JobFile, ...]:
        """Those that were accepted and have not ended."""
        return tuple(file for file in self.files.values() if file.planned is not None and file.end is None)

    def waiting_in(self, session: str, now: float) -> int:
        """How many jobs may wait there, as far as that was told."""
        since = now - self.tolerance.settles
        return sum(
            file.session == session
            and (file.started_at is None or file.started_at >= since)
            and (file.ended_at is None or file.ended_at >= since)
            for file in self.files.values()
        )

    # ---- what is told

    def noticed(self, notice: n.Notice, now: float) -> None:
        count, _ = self.told.get(notice.session, (0, 0.0))
        self.told[notice.session] = count + 1, now
        self._heard(notice, now)
        wrong = self.starving.looked(notice.session, now, idle=self._idle(notice.session))
        if wrong is not None:
            self.findings.broke("nothing starves", now, wrong, session=notice.session)
        used = notice.session in self.running or bool(self.waiting[notice.session])
        if wrong := self.housing.looked(notice.session, now, used=used):
            self.findings.broke("a bound is kept", now, wrong, session=notice.session)

    def _idle(self, session: str) -> bool:
        """Whether it could work, and does not."""
        words = self.evidence.words.get(session)
        ready = words is not None and words[-1].status is SessionStatus.READY
        return ready and session not in self.running and bool(self.waiting[session])

    def _heard(self, notice: n.Notice, now: float) -> None:
        if isinstance(notice, n.SessionChanged):
            self._session_changed(notice, now)
            return
        if isinstance(notice, n.NotificationFailed):
            self._file(notice.about, notice.session).unannounced = notice.reason
            return
        file = self._file(notice.job, notice.session)
        if isinstance(notice, _SIGNS) and file.cancelling_at is None:
            file.sign_at = self.earshot.earliest(now)
        # What the disk had no room for is told at once, and again with the number that it gets later.
        # What was asked for may be ahead of what was told.
        over = file.end is not None and not file.recalled and self.endings.is_recorded(file)
        if over and not isinstance(notice, n.JobEnded):
            self._broke("nothing after the end", now, f"{type(notice).__name__} came after its end", file)
        match notice:
            case n.JobQueued():
                if file.queued_at is not None:
                    self._broke("queued once", now, "it was queued twice", file)
                file.queued_at = self.earshot.earliest(now)
                self.waiting[file.session][file.id] = file
            case n.JobStarted():
                self._started(file, now)
            case n.OutputAdded():
                self._output(file, notice, now)
            case n.InputWanted():
                if notice.request in file.wanted:
                    self._broke("requests end once", now, f"{notice.request} is asked twice", file)
                file.wanted[notice.request] = False
                file.wanted_at.setdefault(notice.request, now)
                self._saw(now, f"asks {notice.request}", file)
            case n.InputAnswered():
                if notice.seq > 0 and notice.request in file.early:
                    file.early.remove(notice.request)
                elif file.wanted.get(notice.request) is not False:
                    self._broke("requests end once", now, f"{notice.request} ended, and did not wait", file)
                file.wanted[notice.request] = True
                file.request_ends[notice.request] = notice.end, now
                if notice.seq == 0:
                    file.early.add(notice.request)
                self._saw(now, f"{notice.request} is {notice.end.value}", file)
                if notice.end is n.InputEnd.UNANSWERED:
                    self._waited(file, notice.request, now)
            case n.OutputFilled():
                file.full = True
                self._saw(now, "its output is full", file)
            case n.JobCancelling():
                self._cancelling(file, notice, now)
            case n.JobEnded():
                self._ended(file, notice.snapshot, now)
                file.numbered = file.numbered or notice.seq > 0
                if self.earshot.is_lost:
                    self._may_go_on(file, now)  # it was on its way when its service went
            case n.ProviderRetrying():
                file.retries += 1
                self._saw(now, "OpenCode asks the model again", file)
            case n.ToolStarted():
                file.tools += 1
                self._saw(now, f"uses {notice.tool}", file)
            case n.TodosChanged() | n.JobLasted() | n.JobReported():
                self._saw(now, type(notice).__name__, file)

    def _started(self, file: JobFile, now: float) -> None:
        self._saw(now, "started", file)
        file.starts += 1
        other = self.running.get(file.session)
        if other is not None and other != file.id and not self._went_unheard(self.files[other], now):
            number = self.files[other].number
            self._broke("one at a time", now, f"it started while job {number} ran", file)
        self.running[file.session] = file.id
        for before in tuple(self.waiting[file.session].values()):
            # Of two that were asked for at the same time either may come first.
            if before is file or before.accepted_at is None or before.accepted_at >= (file.asked_at or 0.0):
                continue
            if before.waits_at > self.earshot.earliest(now):
                continue  # it had ended for nobody to remember, and waits again since a moment after this start
            if not self._went_unheard(before, now):
                text = f"it started before job {before.number}, which was accepted before it was asked for"
                self._broke("in order", now, text, file)
        self.waiting[file.session].pop(file.id, None)
        if file.started_at is None:
            file.started_at, file.started_since = now, self.earshot.earliest(now)

    def _went_unheard(self, file: JobFile, now: float) -> bool:
        """Whether it may have ended while a service began: nobody listened yet, and a full disk had no room for that
        to be told of later. It will be when there is some."""
        whole_at = self.earshot.whole_at
        went = (file.accepted_at or now) < whole_at and any(
            overlapping(self.hits, _FULL, max(self.began_at, file.waits_at), whole_at)
        )
        if went:
            self._doubt(file, now)
        return went

    def _output(self, file: JobFile, notice: n.OutputAdded, now: float) -> None:
        if notice.offset != file.size:
            text = f"a piece stands at {notice.offset}, and {file.size} bytes were told before it"
            self._broke("whole output", now, text, file)
        file.size = notice.offset + len(notice.text.encode(errors="replace"))
        file.text.append(notice.text)
        if file.heard_at is None and file.started_at is not None:
            file.heard_at = now
            self._saw(now, "first output", file)

    def _cancelling(self, file: JobFile, notice: n.JobCancelling, now: float) -> None:
        self._saw(now, f"{notice.rung.name} {notice.why}", file)
        if file.rungs and notice.rung <= file.rungs[-1]:
            # Whoever goes on with it asks its server first, as if nobody had.
            if not killed_between(self.hits, file.rung_since - self.tolerance.late, now):
                text = f"{notice.rung.name} after {file.rungs[-1].name}"
                self._broke("the ladder only climbs", now, text, file)
            file.rungs.clear()
        file.rungs.append(notice.rung)
        file.climbed.append((notice.rung, now))
        file.rung_since = self.earshot.earliest(now)
        if file.cancelling_at is None:
            file.cancelling_at = now

    def _ended(self, file: JobFile, end: JobSnapshot, now: float) -> None:
        why = "" if end.failure is None else f": {end.failure.cause.value}, {end.failure.message}"
        self._saw(now, f"ended {end.status.value}{why}", file)
        self.waiting[file.session].pop(file.id, None)
        if self.running.get(file.session) == file.id:
            del self.running[file.session]
        if file.recalled:
            file.recalled = False
            return
        if file.end is not None:
            text = f"it ended {file.end.status.value}, and then {end.status.value}{why}"
            if self.endings.is_recorded(file):
                self._broke("settles once", now, text, file)
            return
        file.end, file.ended_at, file.ended_since = end, now, self.earshot.earliest(now)
        if not end.settled:
            self._broke("settles once", now, f"it ended as {end.status.value}", file)
        if end.failure is not None and end.failure.cause is Cause.INTERNAL:
            self._broke("no bug", now, end.failure.message, file)
        if open_ := [request for request, over in file.wanted.items() if not over]:
            self._broke("requests end once", now, f"it ended, and {', '.join(open_)} did not", file)
        self._climbed(file, end, now)
        self._found(file, now)

    def _waited(self, file: JobFile, request: str, now: float) -> None:
        """Nobody is waited for longer than was said."""
        since, bound = file.wanted_at.get(request, now), self.settings.question_timeout
        if now - since > bound + self.tolerance.slack and not excused(
            Excuse.HUNG_LATE, self.hits, since, now, session=file.session
        ):
            text = f"an answer was waited for for {now - since:.1f} s, and questionTimeout is {bound:g} s"
            self._broke("a silence ends", now, text, file)

    def _climbed(self, file: JobFile, end: JobSnapshot, now: float) -> None:
        wrong = skipped(end.climb)
        if wrong is not None:
            self._broke("the ladder only climbs", now, wrong, file)
        for wrong in too_slow(file, self.settings, self.tolerance, self.hits):
            self._broke("the ladder is bounded", now, wrong, file)

    def _found(self, file: JobFile, now: float) -> None:
        """A container's end is found at once, and its job not left waiting for an idle time-out."""
        if file.started_at is None or self.settings.on_crash == OnCrash.RESUME.value:
            return
        for hit in self.hits:
            if hit.kind not in DEATHS or hit.session != file.session or not file.started_at <= hit.at <= now:
                continue
            took = now - hit.at
            self.latencies["crash found"].append(took)
            if took > self.tolerance.found_within and not excused(Excuse.FOUND_LATE, self.hits, hit.at, now):
                text = f"its container ended {took:.1f} s before it"
                self._broke("a death is found", now, text, file)

    def _session_changed(self, notice: n.SessionChanged, now: float) -> None:
        self.findings.saw(now, f"{notice.status.value} {notice.detail}", session=notice.session)
        words = self.evidence.words.setdefault(notice.session, [])
        words.append(Word(now, notice.status, notice.detail))
        restarts = self._restarts.get(notice.session)
        if restarts is None:
            restarts = self._restarts[notice.session] = Restarts(self.settings, self.tolerance, self.hits)
        wrong = restarts.changed(notice.status, now, self.earshot.earliest(now))
        if wrong:
            self.findings.broke("restart intensity", now, wrong, session=notice.session)
        if wrong := self.housing.changed(notice.session, notice.status, now):
            self.findings.broke("a bound is kept", now, wrong, session=notice.session)
        if restarts.took is not None:
            self.latencies["restart"].append(restarts.took)

    def is_open(self, session: str) -> bool:
        """By what was told of it last."""
        words = self.evidence.words.get(session, [])
        return bool(words) and words[-1].status is not SessionStatus.ABSENT

    def service_ended(self, now: float) -> None:
        """The next one begins with sessions that know nothing of crashes, and may go on with what ended while
        the disk was full: who knows whether there was room for that since."""
        self._restarts.clear()
        self.housing.begun_anew()
        self.began_at = now
        for file in self.files.values():
            self._may_go_on(file, now)

    def _may_go_on(self, file: JobFile, now: float) -> None:
        if file.ended_at is None or file.numbered:
            return
        if owed_to_the_disk(self.hits, file.ended_since, file.ended_at, now):
            self._doubt(file, now)
            file.end = file.ended_at = None
            file.wanted |= dict.fromkeys(file.early, False)

    def _doubt(self, file: JobFile, now: float) -> None:
        self._saw(now, "its end may not be recorded", file)
        self.doubtful.add(file.id)
        file.was_doubtful = True
        self.waiting[file.session].pop(file.id, None)

    def recalled(self, job: JobId, status: JobSnapshot, now: float) -> None:
        """What the next service knows of a doubtful one."""
        self.doubtful.discard(job)
        file = self.files[job]
        if status.settled and file.end is None:
            file.end, file.ended_at, file.ended_since, file.recalled = status, now, now, True
        elif status.status is JobStatus.PENDING and file.started_at is None and file.end is None:
            # Nothing is told of that it waits again.
            self.waiting[file.session][job], file.waits_at = file, now

    # ---- at the end

    def check_end(self, file: JobFile, status: JobSnapshot, output: str, now: float) -> None:
        """Of a job that has ended: what the system says and keeps of it now."""
        if file.end is None or file.planned is None or file.ended_at is None:
            return
        if file.heard_at is not None and file.asked_at is not None:
            self.latencies["first text"].append(file.heard_at - file.asked_at)
        for rule, wrong in self.endings.wrong(file, status, output):
            self._broke(rule, now, wrong, file)

    def check_taken(self, receiver: Receiver | None, now: float) -> None:
        if receiver is None or self.unsettled:
            return
        rule = "one announcement for each job"
        for wrong in wrong_announcements(
            receiver, self.files, self.hits, self.settings, self.tolerance.slack
        ):
            if wrong.file is None:
                self.findings.broke(rule, now, wrong.text)
            else:
                self._broke(rule, now, wrong.text, wrong.file)

    def check_frozen(self, now: float) -> None:
        for session, words in self.evidence.words.items():
            for wrong in self.housing.never_found(words, session):
                self.findings.broke("a bound is kept", now, wrong, session=session)

    def check_unknown(self, now: float) -> None:
        for file in self.files.values():
            if file.planned is None:
                text = f"{file.id} was told of, and no start returned it"
                self.findings.broke("one job for each prompt", now, text, session=file.session)

    def ends(self) -> Mapping[str, int]:
        """How often jobs ended how."""
        counts: dict[str, int] = {}
        for file in self.files.values():
            if file.end is not None:
                failure = file.end.failure
                name = file.end.status.value + ("" if failure is None else f" ({failure.cause.value})")
                counts[name] = counts.get(name, 0) + 1
        return dict(sorted(counts.items()))

    # ---- inside

    def _file(self, job: JobId, session: str) -> JobFile:
        return self.files.setdefault(job, JobFile(id=job, session=session))

    def _saw(self, now: float, what: str, file: JobFile) -> None:
        self.findings.saw(now, what, session=file.session, job=file.number)

    def _broke(self, rule: str, now: float, text: str, file: JobFile) -> None:
        self.findings.broke(rule, now, text, session=file.session, job=file.number)
