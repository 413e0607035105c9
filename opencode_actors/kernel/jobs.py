"""All jobs of a system: each an actor, from its acceptance to its end, and what is remembered of it."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable

import trio
from attrs import define, evolve, field, frozen

from opencode_actors.errors import ActorGone, StoreError, UnknownJob
from opencode_actors.kernel.actor import NOBODY, Actor
from opencode_actors.kernel.hub import HEAVIEST, Following, weight_of
from opencode_actors.kernel.job_operations import JobOperations
from opencode_actors.kernel.policies import job_policy
from opencode_actors.kernel.sessions import Sessions
from opencode_actors.kernel.shells import JobShell
from opencode_actors.kernel.surroundings import JobAddress, Surroundings
from opencode_actors.machines import job as job_machine
from opencode_actors.machines.job_messages import (
    CancelJob,
    GetJob,
    JobEffect,
    JobMessage,
    JobOver,
    StopForJob,
)
from opencode_actors.machines.job_state import JobState, new_job, snapshot
from opencode_actors.machines.notices import JobEnded, JobQueued, JobRecorded, Notice
from opencode_actors.machines.vocabulary import (
    ActivityState,
    AskId,
    Cause,
    Failure,
    JobId,
    JobSnapshot,
    JobStatus,
    SessionKey,
)
from opencode_actors.ports import Prompt

_log = logging.getLogger("opencode_actors")

_REMEMBERED = 256

JobActor = Actor[JobState, JobMessage, JobEffect]

LOST = Failure(cause=Cause.LOST, message="opencode-actors ended while the job ran")


@define(eq=False, repr=False)
class _Entry:
    """`since` is the hub's position when it was made; `accepted` is set when it is recorded, or `refused`.
    `ended` is what was announced of its end."""

    actor: JobActor
    session: SessionKey
    since: int
    accepted: trio.Event = field(factory=trio.Event, init=False)
    refused: StoreError | None = field(default=None, init=False)
    ended: JobEnded | None = field(default=None, init=False)
    done: trio.Event = field(factory=trio.Event, init=False)


@frozen
class _Finished:
    ended: JobEnded
    since: int


@define(eq=False, repr=False, kw_only=True)
class Jobs:
    surroundings: Surroundings
    sessions: Sessions
    _entries: dict[JobId, _Entry] = field(factory=dict[JobId, _Entry], init=False)
    _finished: OrderedDict[JobId, _Finished] = field(factory=OrderedDict[JobId, _Finished], init=False)
    _finished_weight: int = field(default=0, init=False)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<Jobs {len(self._entries)} unsettled, {len(self._finished)} remembered>"

    def actors(self) -> tuple[JobActor, ...]:
        return tuple(entry.actor for entry in self._entries.values())

    async def start(self, session: SessionKey, prompt: Prompt, *, job_timeout: float | None) -> JobId:
        """Returns when it has its place in the session and is recorded. Cancelled before, it leaves nothing
        behind; cancelled while it is recorded, the job is cancelled."""
        entry = self._new(session, prompt, job_timeout)
        job = entry.actor.state.id
        self._entries[job] = entry
        self.surroundings.addresses[job] = JobAddress(session, entry.actor.mailbox)
        has_place = False
        try:
            ahead = await self.sessions.add_job(session, job)
            has_place = True
        finally:
            if not has_place:
                self._let_go(job, entry)
        self.surroundings.nursery.start_soon(self._run, entry, ahead)
        try:
            await entry.accepted.wait()
        finally:
            if not entry.accepted.is_set():
                entry.actor.mailbox.put(CancelJob(ask=NOBODY))
        if entry.refused is not None:
            raise entry.refused
        return job

    async def wait(self, job: JobId) -> JobSnapshot:
        entry = self._entries.get(job)
        if entry is not None:
            await entry.done.wait()
            if entry.ended is not None:
                return entry.ended.snapshot
        return await self.settled(job)

    async def status(self, job: JobId) -> JobSnapshot:
        return await self._ask(job, lambda ask: GetJob(ask=ask))

    async def cancel(self, job: JobId) -> JobSnapshot:
        return await self._ask(job, lambda ask: CancelJob(ask=ask))

    async def settled(self, job: JobId) -> JobSnapshot:
        """What is remembered or recorded of a job that does not run. Raises `UnknownJob`."""
        finished = self._finished.get(job)
        if finished is not None:
            await trio.lowlevel.checkpoint()
            return finished.ended.snapshot
        final = await self.surroundings.store.job(job)
        if final is None:
            raise UnknownJob(f"there is no job {job}")
        return final

    def follow(self, job: JobId) -> Following:
        hub = self.surroundings.hub
        entry = self._entries.get(job)
        if entry is not None:
            return hub.follow(job, entry.session, since=entry.since)
        finished = self._finished.get(job)
        if finished is None:
            raise UnknownJob(
                f"no job {job} runs here", hint="of one that ended, status and output can be asked for"
            )
        following = hub.follow(job, finished.ended.session, since=finished.since)
        following.tell(finished.ended)  # if that is not remembered any more
        return following

    def __contains__(self, job: JobId) -> bool:
        return job in self._entries

    async def wait_all(self) -> None:
        for entry in tuple(self._entries.values()):
            await entry.done.wait()

    # ---- one job's life

    def _new(self, session: SessionKey, prompt: Prompt, timeout: float | None) -> _Entry:
        here = self.surroundings

        def publish(notice: Notice) -> None:
            if isinstance(notice, JobEnded):
                entry.ended = notice
            here.hub.publish(notice)

        state = new_job(
            job=JobId(f"job_{here.rng.getrandbits(64):016x}"),
            session=session,
            prompt=prompt,
            policy=job_policy(here.settings, timeout=timeout),
            now=trio.current_time(),
        )
        shell = JobShell(JobOperations(here.engine, here.servers), here.store, publish, self.sessions.mailbox)
        actor = Actor(f"job {state.id}", state, job_machine.handle, shell, here.moment)
        entry = _Entry(actor, session, since=here.hub.position)
        return entry

    async def _run(self, entry: _Entry, ahead: int) -> None:
        state = entry.actor.state
        try:
            pending = snapshot(state, trio.current_time())
            try:
                await self.surroundings.store.append((JobRecorded(snapshot=pending),))
            except StoreError as error:
                entry.refused = error
                self._tell_session(entry, JobOver(job=state.id))
                return
            self.surroundings.hub.publish(JobQueued(job=state.id, session=entry.session, ahead=ahead))
            entry.accepted.set()
            failure = await self.surroundings.supervisor.run(entry.actor)
            if failure is not None:
                await self._fail(entry, failure)
        finally:
            self._end(state.id, entry)

    async def _fail(self, entry: _Entry, failure: Failure) -> None:
        """After a bug, or when its state could not be recorded."""
        # Nobody follows its prompt any more, so nothing may go on working for it.
        job = entry.actor.state.id
        self._tell_session(entry, StopForJob(job=job))
        self._tell_session(entry, JobOver(job=job))
        if entry.ended is not None:
            return
        final = self._as_failed(entry, failure)
        try:
            await self.surroundings.store.append((JobRecorded(snapshot=final),))
        except StoreError as error:
            _log.error("the end of %r could not be recorded: %s", entry.actor, error)
        entry.ended = JobEnded(job=final.id, session=final.session, snapshot=final)
        self.surroundings.hub.publish(entry.ended)

    def _tell_session(self, entry: _Entry, message: JobOver | StopForJob) -> None:
        session = self.sessions.mailbox(entry.session)
        if session is not None:
            session.put(message)

    def _end(self, job: JobId, entry: _Entry) -> None:
        """Whatever happened, whoever waits for it hears of it."""
        if entry.ended is None and entry.refused is None:
            final = self._as_failed(entry, LOST)
            entry.ended = JobEnded(job=job, session=entry.session, snapshot=final)
        if entry.ended is not None:
            self._remember(job, _Finished(entry.ended, entry.since))
        self._let_go(job, entry)

    def _let_go(self, job: JobId, entry: _Entry) -> None:
        del self._entries[job]
        del self.surroundings.addresses[job]
        entry.accepted.set()
        entry.done.set()

    def _as_failed(self, entry: _Entry, failure: Failure) -> JobSnapshot:
        last = snapshot(entry.actor.state, trio.current_time())
        if last.settled:
            return last
        return evolve(last, status=JobStatus.FAILED, failure=failure, activity=ActivityState.IDLE)

    def _remember(self, job: JobId, finished: _Finished) -> None:
        self._finished[job] = finished
        self._finished_weight += weight_of(finished.ended)
        while len(self._finished) > _REMEMBERED or self._finished_weight > HEAVIEST:
            _, oldest = self._finished.popitem(last=False)
            self._finished_weight -= weight_of(oldest.ended)

    async def _ask(self, job: JobId, make: Callable[[AskId], JobMessage]) -> JobSnapshot:
        entry = self._entries.get(job)
        if entry is None:
            return await self.settled(job)
        try:
            answer = await entry.actor.ask(make)
        except ActorGone:
            return await self.wait(job)
        if not isinstance(answer, JobSnapshot):
            raise TypeError(f"{entry.actor!r} answered {answer!r}")
        return answer
