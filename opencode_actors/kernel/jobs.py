"""All jobs of a system: each an actor, from its acceptance to its end, and what is remembered of it."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial

import trio
from attrs import define, evolve, field

from opencode_actors.errors import (
    ActorGone,
    RequestGone,
    StoreError,
    UnknownJob,
    UsageError,
)
from opencode_actors.kernel.actor import Actor
from opencode_actors.kernel.answers import why_not_answered
from opencode_actors.kernel.finished import Finished
from opencode_actors.kernel.hub import Allowance, Following
from opencode_actors.kernel.job_entries import JobActor, JobEntries, JobEntry
from opencode_actors.kernel.job_operations import JobOperations
from opencode_actors.kernel.names import Names
from opencode_actors.kernel.policies import job_policy
from opencode_actors.kernel.resuming import check_can_resume, check_is_at_rest
from opencode_actors.kernel.sessions import Sessions
from opencode_actors.kernel.shells import JobShell
from opencode_actors.kernel.surroundings import JobAddress, Surroundings
from opencode_actors.kernel.wishes import Wish
from opencode_actors.machines import job as job_machine
from opencode_actors.machines.interruption import Left, taken_over
from opencode_actors.machines.job_messages import (
    Answer,
    AnswerRequest,
    CancelJob,
    GetJob,
    GiveWay,
    JobMessage,
    JobOver,
    NotAnswered,
    StopForJob,
    TakenOver,
)
from opencode_actors.machines.job_state import (
    JobPolicy,
    JobState,
    new_job,
    pending,
    snapshot,
)
from opencode_actors.machines.notices import (
    Accepted,
    InputAnswered,
    InputEnd,
    JobEnded,
    JobQueued,
    JobRecorded,
    Notice,
)
from opencode_actors.machines.vocabulary import (
    NOBODY,
    ActivityState,
    AskId,
    Cause,
    Failure,
    JobId,
    JobSnapshot,
    JobStatus,
    Origin,
    PendingRequest,
    SessionKey,
)
from opencode_actors.routes import routed
from opencode_actors.store.port import Keyed, KnownJob, OpenJob, Page

_log = logging.getLogger("opencode_actors")

# How long a client's key stands for its job, in seconds.
KEY_LASTS = 24 * 3600.0


def stood_for(known: Keyed, wish: Wish) -> tuple[JobId, SessionKey]:
    """Raises `UsageError` where the key was given to something else."""
    if known.request != wish.request:
        raise UsageError(
            f"the key {wish.key!r} stands for another prompt already (job {known.job})",
            hint="give each new prompt a key of its own",
        )
    return known.job, known.session


def _is_aimed(state: JobState) -> bool:
    return state.notify and state.origin is not None and bool(state.origin.session_key)


LOST = Failure(cause=Cause.LOST, message="opencode-actors ended while the job ran")


@define(eq=False, repr=False, kw_only=True)
class Jobs:
    surroundings: Surroundings
    sessions: Sessions
    names: Names = field(init=False)
    entries: JobEntries = field(factory=JobEntries, init=False)
    _finished: Finished = field(factory=Finished, init=False)
    _keys: dict[str, trio.Lock] = field(factory=dict[str, trio.Lock], init=False)

    def __attrs_post_init__(self) -> None:
        self.names = Names(
            self.surroundings.store, self.entries, self.sessions.is_given, self.sessions.given_keys
        )

    def __len__(self) -> int:
        return len(self.entries)

    def __repr__(self) -> str:
        return f"<Jobs {len(self.entries)} unsettled, {len(self._finished)} remembered>"

    def actors(self) -> tuple[JobActor, ...]:
        return tuple(entry.actor for entry in self.entries)

    async def start(self, session: SessionKey | None, wish: Wish) -> tuple[JobId, SessionKey]:
        """Returns when it has its place in the session and is recorded; without a session it gets one of its
        own. Cancelled before, it leaves nothing behind; cancelled while it is recorded, the job is cancelled.
        With a key that stands for a job already, it is that job."""
        if wish.key is None:
            return await self._start(session, wish)
        async with self.one_at_a_time(wish.key):
            known = await self.keyed(wish.key)
            if known is None:
                return await self._start(session, wish)
        return stood_for(known, wish)

    async def keyed(self, key: str) -> Keyed | None:
        """What a client's key stands for."""
        known = await self.surroundings.store.keyed(key)
        return None if known is None or self.surroundings.wall() - known.at >= KEY_LASTS else known

    @asynccontextmanager
    async def one_at_a_time(self, key: str) -> AsyncGenerator[None]:
        lock = self._keys.setdefault(key, trio.Lock())
        try:
            async with lock:
                yield
        finally:
            statistics = lock.statistics()
            if not statistics.locked and not statistics.tasks_waiting:
                self._keys.pop(key, None)

    async def _start(self, session: SessionKey | None, wish: Wish) -> tuple[JobId, SessionKey]:
        await self.sessions.directories.check_room()
        if wish.name:
            await self.names.check_is_no_session(wish.name, session)
        if session is None or not wish.name:
            made = await self.names.make(wish.prompt.text)
            session, wish = session or SessionKey(made), evolve(wish, name=wish.name or made)
        # From here to its place among the jobs nothing is awaited: what is looked at is still so.
        self.names.check(wish.name)
        if wish.resumes:
            check_is_at_rest(session, self.entries.unsettled_in(session))
        entry = self._new(session, wish)
        job = entry.id
        self.entries.add(entry)
        self.surroundings.addresses[job] = JobAddress(session, entry.actor.mailbox)
        has_place = False
        try:
            if wish.resumes:
                # Whoever forgets the session is through with it then, and sees later that this job is on its way.
                async with self.sessions.kept_closed(session):
                    await check_can_resume(session, self.sessions, self.surroundings.store)
            ahead = await self.sessions.add_job(
                session,
                job,
                image=wish.image,
                first=wish.first,
                permissions=wish.prompt.permissions,
            )
            has_place = True
        finally:
            if not has_place:
                self._let_go(entry)
        self.surroundings.nursery.start_soon(self._run, entry, ahead)
        try:
            await entry.accepted.wait()
        finally:
            if not entry.accepted.is_set():
                entry.actor.mailbox.put(CancelJob(ask=NOBODY))
        if entry.refused is not None:
            raise entry.refused
        if not entry.recorded:
            raise StoreError(
                "opencode-actors ended before it had written the job down",
                hint="start it again, under the same key if it had one: where it was written after all, it is that job",
            )
        return job, session

    async def wait(self, job: JobId) -> JobSnapshot:
        entry = self.entries.get(job)
        if entry is not None:
            await entry.done.wait()
            if entry.ended is not None:
                return entry.ended.snapshot
        return await self.settled(job)

    async def status(self, job: JobId) -> JobSnapshot:
        return await self._ask(job, lambda ask: GetJob(ask=ask))

    async def cancel(self, job: JobId) -> JobSnapshot:
        return await self._ask(job, lambda ask: CancelJob(ask=ask))

    async def answer(self, job: JobId, request: str, answer: Answer) -> None:
        """Raises `RequestGone`, `UsageError` for what does not fit, and `OpenCodeError` when nobody knows."""
        entry = self.entries.get(job)
        if entry is None:
            await self.settled(job)  # or it is not known at all
            raise RequestGone(f"job {job} has ended, and waits for no answer")
        try:
            outcome = await entry.actor.ask(
                lambda ask: AnswerRequest(ask=ask, request=request, answer=answer)
            )
        except ActorGone:
            raise RequestGone(f"job {job} has ended, and waits for no answer") from None
        if isinstance(outcome, NotAnswered):
            raise why_not_answered(outcome)

    async def settled(self, job: JobId) -> JobSnapshot:
        """What is remembered or recorded of a job that does not run. Raises `UnknownJob`."""
        finished = self._finished.get(job)
        if finished is not None:
            await trio.lowlevel.checkpoint()
            return finished.snapshot
        return (await self._recorded(job)).snapshot

    async def _recorded(self, job: JobId) -> KnownJob:
        known = await self.surroundings.store.job(job)
        if known is None:
            raise UnknownJob(f"there is no job {job}")
        return known

    def follow(self, job: JobId, since: int | None, allowance: Allowance | None) -> Following:
        """From when it was queued, if not from a later number. Reading raises `UnknownJob`."""
        hub, entry = self.surroundings.hub, self.entries.get(job)
        history = partial(self._history, job)
        if entry is None:
            return hub.follow(job, since=(since or 0, history), allowance=allowance, ended=True)
        after = max(since or 0, entry.plan.since)
        return hub.follow(job, entry.session, since=(after, history), allowance=allowance)

    async def _history(self, job: JobId, after: int, upto: int) -> Page:
        """What is recorded of a job's notices, and its end whatever is recorded."""
        known = await self._recorded(job)
        session, last = known.snapshot.session, known.ended or upto
        page = await self.surroundings.store.notices(
            job, session, after=max(after, known.since), upto=min(upto, last)
        )
        if page.reached < min(upto, last):
            return page
        page = evolve(page, reached=upto)
        if known.ended is not None or job in self.entries:
            return page
        ended = self._finished.get(job)
        if ended is None:
            ended = JobEnded(job=job, session=session, snapshot=known.snapshot)
        return evolve(page, notices=(*page.notices, ended))

    def aimed_at(self, job: JobId) -> Origin | None:
        """The chat that asked for it, while it is under way."""
        entry = self.entries.get(job)
        return entry.state.origin if entry is not None and _is_aimed(entry.state) else None

    def waiting_for_input(self) -> tuple[tuple[JobId, SessionKey, str], ...]:
        """What the jobs ask that are under way and that a chat asked for: the job, its session, the request's id."""
        states = [entry.state for entry in self.entries if _is_aimed(entry.state)]
        return tuple((state.id, state.session, request.id) for state in states for request in pending(state))

    def asked(self, job: JobId, request: str) -> PendingRequest | None:
        """What it asks under this id, if it does."""
        entry = self.entries.get(job)
        waiting = pending(entry.state) if entry is not None else ()
        return next((one for one in waiting if one.id == request), None)

    def asking(self) -> tuple[JobSnapshot, ...]:
        """Those that wait for an answer."""
        states = [entry.state for entry in self.entries]
        return tuple(snapshot(state, trio.current_time()) for state in states if pending(state))

    def since(self, job: JobId) -> int:
        """The number of the last notice before any of its own, while it is under way."""
        entry = self.entries.get(job)
        return entry.plan.since if entry is not None else 0

    def told(self, notice: Notice) -> None:
        """By the journal, when it is durable."""
        if isinstance(notice, JobEnded) and (entry := self.entries.get(notice.job)) is not None:
            entry.ended = notice
        self.surroundings.hub.publish(notice)

    def __contains__(self, job: JobId) -> bool:
        return job in self.entries

    async def wait_all(self, *, but: frozenset[JobId]) -> None:
        for entry in self.entries:
            if entry.id not in but:
                await entry.done.wait()

    # ---- one job's life

    def _new(self, session: SessionKey, wish: Wish) -> JobEntry:
        here = self.surroundings
        state = new_job(
            job=JobId(f"job_{here.rng.getrandbits(64):016x}"),
            session=session,
            prompt=wish.prompt,
            policy=self._policy(session, wish.timeout, wish.max_cost_usd, wish.report_every),
            now=trio.current_time(),
            name=wish.name,
            origin=self._origin(session, wish.origin),
            notify=here.notify,
        )
        plan = Accepted(
            prompt=wish.prompt,
            timeout=wish.timeout,
            at=here.wall(),
            since=here.hub.position,
            max_cost_usd=wish.max_cost_usd,
            report_every=wish.report_every,
            image=wish.image,
            key=wish.key,
            request=wish.request,
            first=wish.first,
            habits=wish.habits,
        )
        return self._entry(state, plan)

    def _origin(self, session: SessionKey, origin: Origin | None) -> Origin | None:
        here = self.surroundings
        return (
            routed(origin, self.sessions.place_of(session).workspace, here.routes) if here.notify else origin
        )

    def _policy(
        self, session: SessionKey, timeout: float | None, max_cost_usd: float, report_every: float | None
    ) -> JobPolicy:
        attachment = self.sessions.attachments.get(session)
        return job_policy(
            self.surroundings.settings,
            timeout=timeout,
            max_cost_usd=max_cost_usd,
            report_every=report_every,
            elsewhere=attachment.url if attachment is not None else "",
        )

    def _entry(self, state: JobState, plan: Accepted) -> JobEntry:
        here = self.surroundings
        engine = None if state.policy.elsewhere else here.engine
        shell = JobShell(JobOperations(engine, here.servers), here.store, self.sessions.mailbox)
        actor = Actor(f"job {state.id}", state, job_machine.handle, shell, here.moment)
        return JobEntry(actor, state.id, state.session, state.name, plan)

    def take_over(self, job: OpenJob, left: Left | None) -> None:
        """Goes on with one that an earlier process accepted, once its session has a turn for it; `left` is
        how its prompt stands, if that was sent. Those of a session are taken over in the order in which they came."""
        here, plan, last = self.surroundings, job.accepted, job.snapshot
        if plan is None:
            raise ValueError(f"nobody knows what {last.id} was to do")
        moment = here.moment()
        state = new_job(
            job=last.id,
            session=last.session,
            prompt=plan.prompt,
            policy=self._policy(last.session, plan.timeout, plan.max_cost_usd, plan.report_every),
            name=last.name,
            now=moment.now - max(0.0, moment.wall - plan.at),
            origin=last.origin,
            notify=last.notify,
        )
        if left is not None:
            state = evolve(taken_over(state, left, moment), gives_way_to=last.interrupted_by)
        entry = self._entry(state, plan)
        entry.recorded = True
        self.entries.add(entry)
        here.addresses[last.id] = JobAddress(last.session, entry.actor.mailbox)
        entry.accepted.set()
        entry.actor.mailbox.put(TakenOver())
        here.nursery.start_soon(self._go_on, entry)

    async def _go_on(self, entry: JobEntry) -> None:
        try:
            if entry.plan.first and not entry.state.has_begun:
                self._make_way_for(entry)
            await self._live(entry)
        finally:
            self._end(entry)

    async def _live(self, entry: JobEntry) -> None:
        failure = await self.surroundings.supervisor.run(entry.actor)
        if failure is not None:
            await self._fail(entry, failure)

    async def _run(self, entry: JobEntry, ahead: int) -> None:
        state = entry.state
        try:
            recorded = JobRecorded(snapshot=snapshot(state, trio.current_time()), accepted=entry.plan)
            queued = JobQueued(job=state.id, session=entry.session, ahead=ahead)
            try:
                await self.surroundings.store.append((recorded,), (queued,), at=entry.plan.at)
            except StoreError as error:
                entry.refused = error
                self._tell_session(entry, JobOver(job=state.id))
                return
            entry.recorded = True
            entry.accepted.set()
            if entry.plan.first:
                self._make_way_for(entry)
            await self._live(entry)
        finally:
            self._end(entry)

    def _make_way_for(self, entry: JobEntry) -> None:
        """It is recorded, and goes before all that wait; so whoever came before it and is at work, or is to go on with
        what it began, ends. Told to one that is being ended already, it changes nothing."""
        at_work = self.sessions.at_work_in(entry.session)
        for other in self.entries.in_session(entry.session):
            if other is entry:
                return  # who came later, and is at work all the same, goes before it
            if other.id == at_work or other.state.has_begun:
                other.actor.mailbox.put(GiveWay(to=entry.id))

    async def _fail(self, entry: JobEntry, failure: Failure) -> None:
        """After a bug, or when its state could not be recorded."""
        # Nobody follows its prompt any more, so nothing may go on working for it.
        job = entry.id
        self._tell_session(entry, StopForJob(job=job))
        self._tell_session(entry, JobOver(job=job))
        if entry.ended is not None:
            return
        final = self._as_failed(entry, failure)
        gone = [
            InputAnswered(job=job, session=entry.session, request=request.id, end=InputEnd.GONE)
            for request in snapshot(entry.state, trio.current_time()).pending
        ]
        ended = entry.ended = JobEnded(job=final.id, session=final.session, snapshot=final)
        await self.surroundings.announce(*gone, ended, records=(JobRecorded(snapshot=final),))

    def _tell_session(self, entry: JobEntry, message: JobOver | StopForJob) -> None:
        session = self.sessions.mailbox(entry.session)
        if session is not None:
            session.put(message)

    def _end(self, entry: JobEntry) -> None:
        """Whatever happened, whoever waits for it hears of it."""
        if entry.ended is None and entry.refused is None:
            final = self._as_failed(entry, LOST)
            entry.ended = JobEnded(job=entry.id, session=entry.session, snapshot=final)
        if entry.ended is not None:
            self._finished.remember(entry.id, entry.ended)
        self._let_go(entry)

    def _let_go(self, entry: JobEntry) -> None:
        self.entries.remove(entry)
        del self.surroundings.addresses[entry.id]
        entry.accepted.set()
        entry.done.set()

    def _as_failed(self, entry: JobEntry, failure: Failure) -> JobSnapshot:
        last = snapshot(entry.state, trio.current_time())
        if last.settled:
            return last
        return evolve(
            last,
            status=JobStatus.FAILED,
            failure=failure,
            activity=ActivityState.IDLE,
            pending=(),
            interrupted_by=None,
        )

    def forget(self, jobs: tuple[JobId, ...]) -> None:
        """They are not recorded any more."""
        for job in jobs:
            self._finished.forget(job)

    async def _ask(self, job: JobId, make: Callable[[AskId], JobMessage]) -> JobSnapshot:
        entry = self.entries.get(job)
        if entry is None:
            return await self.settled(job)
        try:
            answer = await entry.actor.ask(make)
        except ActorGone:
            return await self.wait(job)
        if not isinstance(answer, JobSnapshot):
            raise TypeError(f"{entry.actor!r} answered {answer!r}")
        return answer
