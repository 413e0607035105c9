"""A store in memory, for tests on virtual time: a real one has a thread, and that takes real time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Set
from typing import Self

import trio
from attrs import define, evolve, field, frozen

from opencode_actors.errors import StoreError
from opencode_actors.machines.matters import Choice, Matter, Scope
from opencode_actors.machines.names import numbered
from opencode_actors.machines.notices import (
    Accepted,
    Begun,
    ChoiceRecorded,
    ContainerForgotten,
    ContainerRecorded,
    DirectoriesForgotten,
    Habits,
    InputAnswered,
    InputWanted,
    JobEnded,
    JobForgotten,
    JobRecorded,
    Notice,
    NotificationFailed,
    NotificationRecorded,
    OutputRecorded,
    Record,
    SessionAttached,
    SessionChanged,
    SessionForgotten,
    SessionForked,
    SessionRecorded,
)
from opencode_actors.machines.outbox_messages import LookForNotifications, Notification, NotificationsFound
from opencode_actors.machines.server_events import ConversationId
from opencode_actors.machines.totals import DearJob, Totals, settled_total, summed
from opencode_actors.machines.transcript import Piece
from opencode_actors.machines.vocabulary import (
    Cause,
    Failure,
    JobId,
    JobSnapshot,
    NotificationState,
    PendingRequest,
    SessionKey,
)
from opencode_actors.store.output_files import output_slice
from opencode_actors.store.port import (
    Housed,
    Keyed,
    KnownJob,
    KnownSession,
    Limits,
    OnDisk,
    OpenJob,
    OutputSlice,
    Page,
    Recalled,
    Remembered,
    Tell,
)
from opencode_actors.store.total_rows import day_of

_PAGE = 256


@frozen(kw_only=True)
class OutboxRow:
    """A notification as it stands in the outbox."""

    notification: Notification
    state: NotificationState = NotificationState.PENDING
    due: float

    @classmethod
    def of(cls, job: JobSnapshot, at: float) -> Self:
        """When the job settles at that time of day."""
        one = Notification(job=job.id, session=job.session, aimed=job.aimed, since=at)
        return cls(notification=one, due=0.0)

    @property
    def open(self) -> bool:
        """Whether somebody still has to be told."""
        return self.state in (NotificationState.PENDING, NotificationState.CLAIMED)

    def after(self, record: NotificationRecorded) -> OutboxRow:
        """What is final stays as it is."""
        if not self.open:
            return self
        one = evolve(self.notification, attempts=record.attempts, last_offer=record.last_offer)
        return OutboxRow(notification=one, state=record.state, due=record.due)


@define(eq=False)
class MemoryStore:
    """Outlives a system, as a disk does: give the same one to the next. `full` makes it refuse records,
    `slow` is how many seconds it takes until they are written, and `late` how many from then on until it says so;
    `felt` counts the calls that these could meet. It keeps every notice."""

    owner: str = "fake"
    full: bool = False
    slow: float = 0.0
    late: float = 0.0
    felt: Counter[str] = field(factory=Counter[str])
    records: list[Record] = field(factory=list[Record])
    told: list[Notice] = field(factory=list[Notice])
    _tell: Tell | None = None
    _jobs: dict[JobId, JobSnapshot] = field(factory=dict[JobId, JobSnapshot])
    _accepted: dict[JobId, Accepted] = field(factory=dict[JobId, Accepted])
    _conversations: dict[SessionKey, ConversationId | None] = field(
        factory=dict[SessionKey, ConversationId | None]
    )
    _forks: dict[SessionKey, SessionForked] = field(factory=dict[SessionKey, SessionForked])
    _outputs: dict[JobId, bytes] = field(factory=dict[JobId, bytes])
    _begun: dict[JobId, Begun] = field(factory=dict[JobId, Begun])
    _verdicts: dict[JobId, Failure] = field(factory=dict[JobId, Failure])
    _pieces: dict[JobId, list[Piece]] = field(factory=dict[JobId, list[Piece]])
    _housed: dict[SessionKey, Housed] = field(factory=dict[SessionKey, Housed])
    _directories: dict[SessionKey, set[str]] = field(factory=dict[SessionKey, set[str]])
    choices: dict[tuple[Scope, str, Matter], Choice] = field(factory=dict[tuple[Scope, str, Matter], Choice])
    _settled_at: dict[JobId, float] = field(factory=dict[JobId, float])
    _attached: dict[SessionKey, SessionAttached] = field(factory=dict[SessionKey, SessionAttached])
    outbox: dict[JobId, OutboxRow] = field(factory=dict[JobId, OutboxRow])

    def jobs(self) -> tuple[JobSnapshot, ...]:
        """All of them, as they were last recorded."""
        return tuple(self._jobs.values())

    async def load(self) -> Remembered:
        await trio.lowlevel.checkpoint()
        return Remembered(
            owner=self.owner,
            unsettled=tuple(self._open(job) for job in self._jobs.values() if not job.settled),
            housed=tuple(self._housed.values()),
            attached=tuple(self._attached.values()),
            last_seq=len(self.told),
            choices=tuple(choice for choice in self.choices.values() if choice.on is not None),
        )

    def _open(self, job: JobSnapshot) -> OpenJob:
        accepted = self._accepted.get(job.id)
        return OpenJob(
            snapshot=job,
            accepted=accepted,
            begun=self._begun.get(job.id),
            verdict=self._verdicts.get(job.id),
            told=tuple(self._pieces.get(job.id, ())),
            told_bytes=len(self._outputs.get(job.id, b"")),
            wanted=self._wanted(job.id),
        )

    def _wanted(self, job: JobId) -> tuple[PendingRequest, ...]:
        wanted: dict[str, PendingRequest] = {}
        for notice in self.told:
            if isinstance(notice, InputAnswered) and notice.job == job:
                wanted.pop(notice.request, None)
            elif isinstance(notice, InputWanted) and notice.job == job:
                wanted[notice.request] = PendingRequest(
                    id=notice.request,
                    kind=notice.kind,
                    text=notice.text,
                    options=notice.options,
                    questions=notice.questions,
                    conversation=notice.conversation,
                    sub_agent=notice.sub_agent,
                )
        return tuple(wanted.values())

    def listen(self, tell: Tell) -> None:
        self._tell = tell

    async def append(
        self, records: tuple[Record, ...], notices: tuple[Notice, ...] = (), *, at: float = 0.0
    ) -> None:
        self.felt["slow"] += 1
        await trio.sleep(self.slow)
        if self.full:
            self.felt["full"] += 1
            raise StoreError("writing to memory failed: no space left")
        for record in records:
            self._record(record, at)
        for notice in notices:
            stamped = evolve(notice, seq=len(self.told) + 1, at=at)
            self.told.append(stamped)
            if self._tell is not None:
                self._tell(stamped)
        await trio.sleep(self.late)

    def _record(self, record: Record, at: float) -> None:
        self.records.append(record)
        match record:
            case ChoiceRecorded(choice=choice):
                self.choices[choice.scope, choice.name, choice.matter] = choice
            case JobRecorded(snapshot=job):
                before = self._jobs.get(job.id)
                if job.settled and (before is None or not before.settled):
                    self._settled_at[job.id] = at
                if job.id not in self._jobs:
                    self._directories[job.session] = {"data", "workspace"}
                self._jobs[job.id] = job
                if record.accepted is not None:
                    self._accepted[job.id] = record.accepted
                if record.begun is not None:
                    self._begun[job.id] = record.begun
                if record.verdict is not None:
                    self._verdicts[job.id] = record.verdict
                if job.settled:
                    self._pieces.pop(job.id, None)
                if job.settled and job.notify:
                    self.outbox.setdefault(job.id, OutboxRow.of(job, at))
            case NotificationRecorded():
                self.outbox[record.job] = self.outbox[record.job].after(record)
            case SessionRecorded():
                self._conversations[record.session] = record.conversation
                if record.session in self._forks:
                    self._forks[record.session] = evolve(self._forks[record.session], before=None)
                self._directories.setdefault(record.session, {"data", "workspace"})
            case DirectoriesForgotten(session=key):
                gone = {
                    kind
                    for kind, wanted in (("data", record.data), ("workspace", record.workspace))
                    if wanted
                }
                if not any(_is_of_a_job(notice, key) for notice in self.told[record.since :]):
                    self._directories.get(key, set()).difference_update(gone)
            case SessionForked():
                self._conversations[record.session] = record.conversation
                self._forks[record.session] = record
            case JobForgotten():
                if record.job in self._jobs and self._jobs[record.job].settled:
                    del self._jobs[record.job]
                    self._outputs.pop(record.job, None)
                    self.outbox.pop(record.job, None)
            case SessionForgotten():
                self._forget_session(record.session)
            case SessionAttached():
                self._conversations[record.session] = record.conversation
                if record.attachment is None:
                    self._attached.pop(record.session, None)
                else:
                    self._attached[record.session] = record
            case ContainerForgotten():
                self._housed.pop(record.session, None)
            case ContainerRecorded():
                self._housed[record.session] = Housed(
                    session=record.session, container=record.container, endpoint=record.endpoint
                )
            case OutputRecorded():
                text = record.text.encode(errors="replace")
                self._outputs[record.job] = self._outputs.get(record.job, b"") + text
                self._told_of(record)

    def _forget_session(self, session: SessionKey) -> None:
        self._conversations.pop(session, None)
        self._forks.pop(session, None)
        self._directories.get(session, set()).discard("data")
        for choice in tuple(self.choices):
            if choice[:2] == (Scope.SESSION, session):
                del self.choices[choice]

    def _told_of(self, record: OutputRecorded) -> None:
        pieces = self._pieces.setdefault(record.job, [])
        if pieces and record.span < record.offset:
            pieces[-1] = evolve(pieces[-1], text=pieces[-1].text + record.text)
        else:
            pieces.append(Piece(kind=record.kind, text=record.text, part=record.part, at=record.at))

    async def notices(self, job: JobId | None, session: SessionKey | None, *, after: int, upto: int) -> Page:
        await trio.lowlevel.checkpoint()
        wanted = [notice for notice in self.told[after:upto] if _is_wanted(notice, job, session)]
        page = tuple(wanted[:_PAGE])
        return Page(notices=page, reached=upto if page == tuple(wanted) else page[-1].seq)

    async def recall(self, session: SessionKey) -> Recalled:
        await trio.lowlevel.checkpoint()
        fork = self._forks.get(session)
        return Recalled(
            conversation=self._conversations.get(session),
            before=fork.before if fork else None,
            image=self._image(session) or "",
            habits=self._habits(session) or Habits(),
        )

    def _habits(self, session: SessionKey) -> Habits | None:
        kept: Habits | None = None
        right = Habits()
        for job in self._jobs.values():
            plan = self._accepted.get(job.id)
            if job.session != session or plan is None or plan.habits is None:
                continue
            kept = plan.habits
            if job.failure is not None and job.failure.cause is Cause.REJECTED:
                kept = evolve(kept, model=right.model, agent=right.agent)
            right = kept
        fork = self._forks.get(session)
        return kept if kept is not None or fork is None else self._habits(fork.source)

    def _image(self, session: SessionKey) -> str | None:
        fork = self._forks.get(session)
        jobs = [job for job in self._jobs.values() if job.session == session]
        plans = [self._accepted[job.id] for job in jobs if job.id in self._accepted]
        return next((plan.image for plan in reversed(plans) if plan.image), fork.image if fork else None)

    async def on_disk(self, *, data: bool, workspaces: bool, after: str) -> tuple[OnDisk, ...]:
        await trio.lowlevel.checkpoint()
        wanted = {kind for kind, asked in (("data", data), ("workspace", workspaces)) if asked}
        found = sorted(key for key, kinds in self._directories.items() if kinds & wanted and key > after)
        last = {notice.session: notice for notice in self.told}
        return tuple(
            OnDisk(key=key, used_at=last[key].at, last_seq=last[key].seq) if key in last else OnDisk(key=key)
            for key in found[:_PAGE]
        )

    async def session(self, session: SessionKey) -> KnownSession:
        await trio.lowlevel.checkpoint()
        return self._known(session)

    def _known(self, session: SessionKey) -> KnownSession:
        jobs = [job for job in self._jobs.values() if job.session == session]
        plans = [self._accepted[job.id] for job in jobs if job.id in self._accepted]
        fork = self._forks.get(session)
        return KnownSession(
            key=session,
            used_at=next((notice.at for notice in reversed(self.told) if notice.session == session), None),
            began_at=min((plan.at for plan in plans), default=None),
            jobs=len(jobs),
            name=next((job.name for job in reversed(jobs) if job.name), ""),
            image=self._image(session),
            source=fork.source if fork else None,
            talked=self._conversations.get(session) is not None,
        )

    async def named(self, name: str, *, limit: int) -> tuple[JobSnapshot, ...]:
        await trio.lowlevel.checkpoint()
        return tuple([job for job in reversed(self._jobs.values()) if job.name == name][:limit])

    async def old_jobs(self, limits: Limits) -> tuple[JobId, ...]:
        await trio.lowlevel.checkpoint()
        ended = [job for job in self._jobs.values() if job.settled]
        sizes = [len(self._outputs.get(job.id, b"")) for job in ended]
        most = limits.outputs or sum(sizes)
        last = {job.session: job.id for job in self._jobs.values()}
        return tuple(
            job.id
            for number, job in enumerate(ended)
            if (
                0 < limits.jobs <= len(ended) - number - 1
                or self._came(job.id) < limits.jobs_before
                or sum(sizes[number:]) > most
            )
            and last[job.session] != job.id
            and (not self._is_keyed(job.id) or self._came(job.id) < limits.unkeyed_before)
            and not (job.id in self.outbox and self.outbox[job.id].open)
        )

    async def old_sessions(self, limits: Limits, *, but: Set[SessionKey]) -> tuple[SessionKey, ...]:
        await trio.lowlevel.checkpoint()
        jobs: dict[SessionKey, list[JobSnapshot]] = {}
        for job in self._jobs.values():
            jobs.setdefault(job.session, []).append(job)
        talked = (key for key, conversation in self._conversations.items() if conversation is not None)
        with_data = (key for key, kinds in self._directories.items() if "data" in kinds)
        keys = [key for key in {*jobs, *talked, *with_data} if key not in self._attached]
        used = {key: self._used(key, jobs.get(key, [])) for key in keys}
        newest_first = sorted(keys, key=lambda key: (used[key] or 0.0, key), reverse=True)
        return tuple(
            key
            for number, key in enumerate(newest_first)
            if (
                0 < limits.sessions <= number
                or ((at := used[key]) is not None and at < limits.sessions_before)
            )
            and key not in but
            and all(job.settled for job in jobs.get(key, []))
            and not any(job.id in self.outbox and self.outbox[job.id].open for job in jobs.get(key, []))
        )[::-1]

    def _used(self, session: SessionKey, jobs: list[JobSnapshot]) -> float | None:
        """When its last job came, or else something was announced of it last; None where nobody knows of jobs."""
        came = [self._came(job.id) for job in jobs]
        if jobs:
            return max((at for at in came if at < math.inf), default=None)
        return next((notice.at for notice in reversed(self.told) if notice.session == session), 0.0)

    def _came(self, job: JobId) -> float:
        """Of one that an earlier version took nobody knows how old it is."""
        accepted = self._accepted.get(job)
        return math.inf if accepted is None else accepted.at

    def _is_keyed(self, job: JobId) -> bool:
        accepted = self._accepted.get(job)
        return accepted is not None and accepted.key is not None

    async def jobs_of(self, session: SessionKey) -> tuple[JobId, ...] | None:
        await trio.lowlevel.checkpoint()
        jobs = [job for job in self._jobs.values() if job.session == session]
        return tuple(job.id for job in jobs) if all(job.settled for job in jobs) else None

    async def known_sessions(self, *, limit: int) -> tuple[KnownSession, ...]:
        await trio.lowlevel.checkpoint()
        with_jobs = dict.fromkeys(job.session for job in reversed(self._jobs.values()))
        keys = (*with_jobs, *(key for key in self._forks if key not in with_jobs))
        return tuple(self._known(key) for key in keys[:limit])

    async def remove_strangers(self) -> None:
        await trio.lowlevel.checkpoint()

    async def last_job(self, session: SessionKey) -> JobSnapshot | None:
        await trio.lowlevel.checkpoint()
        return next((job for job in reversed(self._jobs.values()) if job.session == session), None)

    async def recent_names(self, *, jobs: int) -> tuple[str, ...]:
        await trio.lowlevel.checkpoint()
        newest = list(reversed(self._jobs.values()))[:jobs]
        return tuple(dict.fromkeys(word for job in newest for word in (job.name, job.session) if word))

    async def free_number(self, name: str, *, above: int = 0) -> int:
        await trio.lowlevel.checkpoint()
        names = [job.name for job in self._jobs.values()]
        sessions = {job.session for job in self._jobs.values()}
        sessions |= {*self._conversations, *self._forks, *self._directories}
        given = {*names, *sessions}
        if above < 1 and name not in given:
            return 1
        alike = f"{name}-"
        many = max(sum(word.startswith(alike) for word in words) for words in (names, sessions))
        number = max(many + 2, above + 1)
        while numbered(name, number) in given:
            number += 1
        return number

    async def job(self, job: JobId) -> KnownJob | None:
        await trio.lowlevel.checkpoint()
        if job not in self._jobs:
            return None
        accepted = self._accepted.get(job)
        ended = next((n.seq for n in self.told if isinstance(n, JobEnded) and n.job == job), None)
        since = accepted.since if accepted else 0
        return KnownJob(snapshot=self._jobs[job], since=since, ended=ended)

    async def keyed(self, key: str) -> Keyed | None:
        await trio.lowlevel.checkpoint()
        for job, accepted in reversed(self._accepted.items()):
            if accepted.key == key:
                session = self._jobs[job].session
                return Keyed(job=job, session=session, request=accepted.request, at=accepted.at)
        return None

    async def notifications(self, look: LookForNotifications) -> NotificationsFound:
        await trio.lowlevel.checkpoint()
        rows = [
            row
            for row in self.outbox.values()
            if row.open and (row.notification.aimed or not look.aimed_only)
        ]
        due = sorted(
            (row for row in rows if row.due <= look.now or row.due > look.latest), key=lambda row: row.due
        )
        return NotificationsFound(
            found=tuple(row.notification for row in due[: look.limit]),
            next_due=min((row.due for row in rows if look.now < row.due <= look.latest), default=None),
        )

    async def totals(self, since: str) -> Totals:
        await trio.lowlevel.checkpoint()
        ended = [(self._jobs[job], day_of(at), at) for job, at in self._settled_at.items()]
        wanted = [(job, day, at) for job, day, at in ended if day >= since]
        return summed(
            since,
            [settled_total(job, day=day, at=at) for job, day, at in wanted],
            [
                DearJob(
                    day=day,
                    job=job.id,
                    name=job.name,
                    session=job.session,
                    model=job.model,
                    outcome=job.status.value,
                    cost=job.cost_usd,
                )
                for job, day, _ in wanted
                if job.cost_usd > 0
            ],
        )

    async def output(self, job: JobId, *, offset: int, limit: int) -> OutputSlice:
        await trio.lowlevel.checkpoint()
        written = self._outputs.get(job, b"")
        return output_slice(written[offset:], offset=offset, limit=limit, size=len(written))

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


def _is_of_a_job(notice: Notice, session: SessionKey) -> bool:
    return notice.session == session and not isinstance(notice, SessionChanged | NotificationFailed)


def _is_wanted(notice: Notice, job: JobId | None, session: SessionKey | None) -> bool:
    if job is None:
        return session is None or notice.session == session
    if isinstance(notice, SessionChanged | NotificationFailed):
        return notice.session == session
    return notice.job == job
