"""The system: sessions and jobs as actors in one nursery, and the face that embedders see.

async with open_system(Settings()) as system:
    job = await system.start("fix the failing test", session="demo")
    async for notice in system.follow(job.id):
        ...
    result = await job.wait()
"""

from __future__ import annotations

import random
import secrets
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import trio
from attrs import define, evolve, field, frozen

from opencode_actors.containers import OWNER_LABEL, ModelAccess, SessionPlace, container_spec
from opencode_actors.errors import ActorGone, Busy, UnknownJob, UnknownSession, UsageError
from opencode_actors.kernel.actor import Actor
from opencode_actors.kernel.hub import Following, Hub
from opencode_actors.kernel.job_operations import JobOperations
from opencode_actors.kernel.mailbox import Mailbox
from opencode_actors.kernel.policies import job_policy, session_policy
from opencode_actors.kernel.servers import Servers
from opencode_actors.kernel.session_operations import SessionOperations
from opencode_actors.kernel.shells import JobShell, SessionShell
from opencode_actors.kernel.supervisor import Supervisor
from opencode_actors.machines import job as job_machine
from opencode_actors.machines import session as session_machine
from opencode_actors.machines.job_messages import (
    CancelJob,
    GetJob,
    JobEffect,
    JobMessage,
    JobOver,
    SessionFailed,
    StopForJob,
)
from opencode_actors.machines.job_state import JobState, new_job
from opencode_actors.machines.job_state import snapshot as job_snapshot
from opencode_actors.machines.names import directory_name, session_key
from opencode_actors.machines.notices import JobEnded, JobQueued, JobRecorded, Notice
from opencode_actors.machines.server_events import ConversationId
from opencode_actors.machines.session_messages import (
    Accepted,
    AddJob,
    CloseSession,
    GetSession,
    Refused,
    SessionEffect,
    SessionMessage,
)
from opencode_actors.machines.session_state import SessionState
from opencode_actors.machines.vocabulary import (
    Cause,
    Climb,
    Failure,
    JobId,
    JobSnapshot,
    JobStatus,
    Moment,
    SessionKey,
    SessionSnapshot,
)
from opencode_actors.ports import ContainerSpec, Engine, Prompt
from opencode_actors.settings import Settings
from opencode_actors.store.port import OutputSlice, Store
from opencode_actors.workdirs import MakeDirectories

LONGEST_PROMPT = 4 << 20  # bytes; the models of today take less
_FINISHED_KEPT = 256
# Beyond the ladder's own graces, for the clean-up of what was just being made.
_SHUTDOWN_MARGIN = 15.0

JobActor = Actor[JobState, JobMessage, JobEffect]
SessionActor = Actor[SessionState, SessionMessage, SessionEffect]


@define(eq=False)
class _JobEntry:
    actor: JobActor
    session: SessionKey
    since: int  # the hub's position when it was accepted
    done: trio.Event = field(factory=trio.Event)
    final: JobSnapshot | None = None


@define(eq=False)
class _SessionEntry:
    actor: SessionActor
    operations: SessionOperations
    done: trio.Event = field(factory=trio.Event)


@frozen
class Job:
    """One accepted prompt."""

    id: JobId
    session: SessionKey
    _system: System = field(repr=False)

    async def wait(self) -> JobSnapshot:
        """Until it has settled."""
        return await self._system.wait(self.id)

    async def status(self) -> JobSnapshot:
        return await self._system.status(self.id)

    async def cancel(self) -> JobSnapshot:
        """Returns when it has settled, by whatever rung of the ladder that took."""
        return await self._system.cancel(self.id)

    async def output(self, *, offset: int = 0, limit: int = 64 << 10) -> OutputSlice:
        return await self._system.output(self.id, offset=offset, limit=limit)


@frozen(kw_only=True)
class SystemStatistics:
    sessions: int
    jobs: int
    failed_actors: int
    notices: int


@define(eq=False, repr=False)
class System:
    """Use `open_system`."""

    settings: Settings
    access: ModelAccess
    engine: Engine
    store: Store
    servers: Servers
    directories: MakeDirectories
    owner: str
    _nursery: trio.Nursery = field(alias="nursery")
    _rng: random.Random = field(alias="rng")
    _wall: Callable[[], float] = field(alias="wall")
    _conversations: dict[SessionKey, ConversationId] = field(alias="conversations")
    _hub: Hub = field(factory=Hub)
    _supervisor: Supervisor = field(factory=Supervisor)
    _sessions: dict[SessionKey, _SessionEntry] = field(factory=dict[SessionKey, _SessionEntry])
    _jobs: dict[JobId, _JobEntry] = field(factory=dict[JobId, _JobEntry])
    _finished: OrderedDict[JobId, JobSnapshot] = field(factory=OrderedDict[JobId, JobSnapshot])
    _closing: bool = False

    def __repr__(self) -> str:
        return f"<System {len(self._sessions)} sessions, {len(self._jobs)} jobs>"

    # ---- jobs

    async def start(
        self,
        prompt: str,
        *,
        session: str | None = None,
        model: str | None = None,
        agent: str | None = None,
        system: str | None = None,
        job_timeout: float | None = None,
    ) -> Job:
        """Accepts a prompt: returns when it is recorded and has its place in its session.

        Without `session` it gets one of its own. Raises `UsageError` for a prompt or a key that cannot
        be, `Busy` when a bound is reached.
        """
        _check_prompt(prompt)
        key = session_key(session) if session is not None else self._new_key()
        entry = self._session(key)
        wish = Prompt(
            text=prompt,
            model=model or self.settings.model or None,
            agent=agent or self.settings.agent or None,
            system=system,
        )
        job = self._make_job(key, wish, job_timeout)
        pending = job_snapshot(job.actor.state, trio.current_time())
        await self.store.append((JobRecorded(snapshot=pending),))
        self._jobs[pending.id] = job
        try:
            answer = await entry.actor.ask(lambda ask: AddJob(ask=ask, job=pending.id))
        except ActorGone:
            answer = Refused(reason=f"session {key} is being closed")
        if not isinstance(answer, Accepted):
            del self._jobs[pending.id]
            reason = answer.reason if isinstance(answer, Refused) else "the session does not answer"
            await self._settle_unstarted(pending, Failure(cause=Cause.CLOSED, message=reason))
            raise Busy(reason, hint="wait for one of its jobs to end, or use another session")
        self._publish(JobQueued(job=pending.id, session=key, ahead=answer.ahead))
        self._nursery.start_soon(self._run_job, job)
        return Job(pending.id, key, self)

    async def wait(self, job: JobId) -> JobSnapshot:
        entry = self._jobs.get(job)
        if entry is None:
            return await self._settled(job)
        await entry.done.wait()
        return await self._settled(job)

    async def status(self, job: JobId) -> JobSnapshot:
        entry = self._jobs.get(job)
        if entry is not None:
            try:
                answer = await entry.actor.ask(lambda ask: GetJob(ask=ask))
            except ActorGone:
                await entry.done.wait()
            else:
                if isinstance(answer, JobSnapshot):
                    return answer
        return await self._settled(job)

    async def cancel(self, job: JobId) -> JobSnapshot:
        entry = self._jobs.get(job)
        if entry is not None:
            try:
                answer = await entry.actor.ask(lambda ask: CancelJob(ask=ask))
            except ActorGone:
                await entry.done.wait()
            else:
                if isinstance(answer, JobSnapshot):
                    return answer
        return await self._settled(job)

    async def output(self, job: JobId, *, offset: int = 0, limit: int = 64 << 10) -> OutputSlice:
        """Readable while the job runs. `offset` and `limit` are bytes; a character is never split."""
        if offset < 0 or limit <= 0:
            raise UsageError("offset must not be negative, and limit must be above 0")
        if job not in self._jobs:
            await self._settled(job)
        return await self.store.output(job, offset=offset, limit=limit)

    def follow(self, job: JobId | None = None) -> Following:
        """The notices of one job, from when it was queued to its end; or all, from now on."""
        if job is None:
            return self._hub.follow()
        entry = self._jobs.get(job)
        if entry is not None:
            return self._hub.follow(job, entry.session, since=entry.since)
        final = self._finished.get(job)
        if final is None:
            raise UnknownJob(f"no job {job} runs here", hint="its status and output can be asked for")
        following = Following(job, final.session)
        following.tell(JobEnded(job=job, session=final.session, snapshot=final))
        return following

    # ---- sessions

    async def sessions(self) -> tuple[SessionSnapshot, ...]:
        snapshots: list[SessionSnapshot] = []
        for entry in tuple(self._sessions.values()):
            try:
                answer = await entry.actor.ask(lambda ask: GetSession(ask=ask))
            except ActorGone:
                continue
            if isinstance(answer, SessionSnapshot):
                snapshots.append(answer)
        return tuple(snapshots)

    async def close_session(self, session: str) -> Climb:
        """Ends the session's container and fails its jobs. The conversation and the workspace stay."""
        key = session_key(session)
        entry = self._sessions.get(key)
        if entry is None:
            raise UnknownSession(f"no session {key} is open")
        return await self._close(entry)

    def workspace(self, session: SessionKey) -> Path:
        return self._place(session).workspace

    def statistics(self) -> SystemStatistics:
        return SystemStatistics(
            sessions=len(self._sessions),
            jobs=len(self._jobs),
            failed_actors=self._supervisor.failures,
            notices=self._hub.position,
        )

    async def aclose(self) -> None:
        """Ends every container by the ladder, all at once."""
        self._closing = True
        async with trio.open_nursery() as nursery:
            for entry in tuple(self._sessions.values()):
                nursery.start_soon(self._close, entry)
        for job in tuple(self._jobs.values()):
            await job.done.wait()
        await self.servers.aclose()
        self._hub.close()

    async def recover(self, unsettled: tuple[JobId, ...]) -> None:
        """What an earlier process left: its containers are removed, its open jobs failed as lost."""
        lost = Failure(cause=Cause.LOST, message="opencode-actors ended while the job ran")
        for job in unsettled:
            snapshot = await self.store.job(job)
            if snapshot is not None:
                await self._settle_unstarted(snapshot, lost)
        strays = await self.engine.list({OWNER_LABEL: self.owner})
        async with trio.open_nursery() as nursery:
            for stray in strays:
                nursery.start_soon(self.engine.remove, stray.id)

    # ---- actors

    def _session(self, key: SessionKey) -> _SessionEntry:
        entry = self._sessions.get(key)
        if entry is not None:
            return entry
        if self._closing:
            raise Busy("the system is shutting down")
        if len(self._sessions) >= self.settings.max_sessions:
            names = ", ".join(self._sessions)
            raise Busy(
                f"{len(self._sessions)} sessions are open already (maxSessions is "
                f"{self.settings.max_sessions}): {names}",
                hint="use one of them, close one, or raise maxSessions",
            )
        place = self._place(key)

        async def prepare(password: str) -> ContainerSpec:
            await self.directories(place, self.engine.directory_owner(), self.access.auth_file)
            return container_spec(self.settings, self.access, place, password=password)

        operations = SessionOperations(self.engine, self.servers, prepare, lambda: secrets.token_urlsafe(24))
        shell = SessionShell(operations, self.store, self._publish, self._job_mailbox)
        state = SessionState(
            key=key,
            container_name=place.container_name,
            title=f"opencode-actors {key}",
            policy=session_policy(self.settings),
            conversation=self._conversations.get(key),
        )
        actor = Actor(f"session {key}", state, session_machine.handle, shell, self._moment)
        entry = self._sessions[key] = _SessionEntry(actor, operations)
        self._nursery.start_soon(self._run_session, key, entry)
        return entry

    async def _run_session(self, key: SessionKey, entry: _SessionEntry) -> None:
        def ended() -> None:
            state = entry.actor.state
            if state.conversation is not None:
                self._conversations[key] = state.conversation
            self._sessions.pop(key, None)

        def failed(failure: Failure) -> None:
            state = entry.actor.state
            for job in (state.current, *state.queue):
                if job is not None and job in self._jobs:
                    self._jobs[job].actor.mailbox.put(SessionFailed(failure=failure))
            self._nursery.start_soon(self.engine.remove, state.container_name)

        await self._supervisor.run(entry.actor, on_end=ended, on_failure=failed)
        await entry.operations.disconnect()
        entry.done.set()

    def _make_job(self, key: SessionKey, wish: Prompt, timeout: float | None) -> _JobEntry:
        state = new_job(
            job=JobId(f"job_{self._rng.getrandbits(48):012x}"),
            session=key,
            prompt=wish,
            policy=job_policy(self.settings, timeout=timeout),
            now=trio.current_time(),
        )
        shell = JobShell(JobOperations(self.servers), self.store, self._publish, self._session_mailbox)
        actor = Actor(f"job {state.id}", state, job_machine.handle, shell, self._moment)
        return _JobEntry(actor, key, self._hub.position)

    async def _run_job(self, entry: _JobEntry) -> None:
        job = entry.actor.state.id
        failure: list[Failure] = []
        await self._supervisor.run(entry.actor, on_end=lambda: None, on_failure=failure.append)
        if failure:
            # Nobody follows its prompt any more, so nothing may go on working for it.
            session = self._session_mailbox(entry.session)
            if session is not None:
                session.put(StopForJob(job=job))
                session.put(JobOver(job=job))
            last = job_snapshot(entry.actor.state, trio.current_time())
            self._finish(evolve(last, status=JobStatus.FAILED, failure=failure[0]), publish=True)
        else:
            self._finish(job_snapshot(entry.actor.state, trio.current_time()), publish=False)
        self._jobs.pop(job, None)
        entry.done.set()

    def _finish(self, final: JobSnapshot, *, publish: bool) -> None:
        self._finished[final.id] = final
        while len(self._finished) > _FINISHED_KEPT:
            self._finished.popitem(last=False)
        if publish:
            self._publish(JobEnded(job=final.id, session=final.session, snapshot=final))

    async def _settle_unstarted(self, snapshot: JobSnapshot, failure: Failure) -> None:
        final = evolve(snapshot, status=JobStatus.FAILED, failure=failure)
        await self.store.append((JobRecorded(snapshot=final),))

    async def _settled(self, job: JobId) -> JobSnapshot:
        final = self._finished.get(job) or await self.store.job(job)
        if final is None:
            raise UnknownJob(f"there is no job {job}")
        return final

    async def _close(self, entry: _SessionEntry) -> Climb:
        try:
            answer = await entry.actor.ask(lambda ask: CloseSession(ask=ask))
        except ActorGone:
            answer = None
        await entry.done.wait()
        return answer if isinstance(answer, Climb) else Climb(ended_by=None)

    # ---- what actors reach each other and the world by

    def _publish(self, notice: Notice) -> None:
        self._hub.publish(notice)

    def _job_mailbox(self, job: JobId) -> Mailbox[JobMessage] | None:
        entry = self._jobs.get(job)
        return entry.actor.mailbox if entry is not None else None

    def _session_mailbox(self, session: SessionKey) -> Mailbox[SessionMessage] | None:
        entry = self._sessions.get(session)
        return entry.actor.mailbox if entry is not None else None

    def _moment(self) -> Moment:
        return Moment(now=trio.current_time(), wall=self._wall(), roll=self._rng.random())

    def _new_key(self) -> SessionKey:
        return SessionKey(f"s-{self._rng.getrandbits(32):08x}")

    def _place(self, key: SessionKey) -> SessionPlace:
        name = directory_name(key)
        return SessionPlace(
            key=key,
            container_name=f"opencode-actors-{self.owner}-{name}",
            data=self.settings.sessions_dir.expanduser() / name / "data",
            workspace=self.settings.workspaces_dir.expanduser() / name,
            owner=self.owner,
        )


def _check_prompt(prompt: str) -> None:
    if not prompt.strip():
        raise UsageError("the prompt is empty", hint="say what is to be done")
    try:
        size = len(prompt.encode())
    except UnicodeEncodeError as error:
        raise UsageError(f"the prompt is not valid text: {error.reason}") from None
    if size > LONGEST_PROMPT:
        raise UsageError(
            f"the prompt has {size} bytes, and at most {LONGEST_PROMPT} are taken",
            hint="put long material into a file of the workspace and name it in the prompt",
        )
