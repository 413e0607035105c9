"""The system's face: what embedders see of the sessions and jobs that run in it.

async with open_system(Settings()) as system:
    job = await system.start("fix the failing test", session="demo")
    async for notice in system.follow(job.id):
        ...
    result = await job.wait()
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Unpack

import trio
from attrs import define, evolve, field, frozen

from opencode_actors.containers import ModelAccess, SessionPlace
from opencode_actors.errors import StoreError, UsageError
from opencode_actors.kernel.actor import ActorStatistics
from opencode_actors.kernel.answers import answer_of, said_in
from opencode_actors.kernel.attachments import Attached, Attachments, KnownConversation
from opencode_actors.kernel.attention import Attention, AttentionStatistics
from opencode_actors.kernel.catalogs import Catalogs, Offered
from opencode_actors.kernel.choices import Chosen, choose
from opencode_actors.kernel.cleanup import CleanedUp, Cleanup
from opencode_actors.kernel.engine_watch import watch_engine
from opencode_actors.kernel.forking import Forked
from opencode_actors.kernel.hub import Allowance, Following, HubStatistics
from opencode_actors.kernel.jobs import Jobs
from opencode_actors.kernel.outbox import Attendance, Outbox, OutboxStatistics
from opencode_actors.kernel.recovery import recover
from opencode_actors.kernel.retention import Retention
from opencode_actors.kernel.sessions import Sessions
from opencode_actors.kernel.supervisor import SupervisorStatistics
from opencode_actors.kernel.surroundings import Surroundings
from opencode_actors.kernel.talking import Talking
from opencode_actors.kernel.wishes import Asked
from opencode_actors.machines.attention import is_word
from opencode_actors.machines.matters import Party
from opencode_actors.machines.names import directory_name, session_key
from opencode_actors.machines.notices import Attachment, JobEnded, Notice
from opencode_actors.machines.totals import Totals
from opencode_actors.machines.vocabulary import (
    Climb,
    JobId,
    JobSnapshot,
    Leave,
    SessionKey,
    SessionSnapshot,
)
from opencode_actors.ports import Engine, PermissionReply
from opencode_actors.settings import Settings
from opencode_actors.store.port import KnownSession, OutputSlice, Page, Remembered
from opencode_actors.store.total_rows import first_day
from opencode_actors.workdirs import Directories

LONGEST_LOOK_BACK = 3660  # days
# What ended with the system is announced at once, if OpenClaw takes it; the rest by the next process.
_FLUSH_WITHIN = 5.0
# A slow disk writes one after another what was taken.
_RECORDED_WITHIN = 5.0


@frozen
class Job:
    """One accepted prompt. Its methods are those of `System`, for this job."""

    id: JobId
    session: SessionKey
    _system: System = field(repr=False)

    async def wait(self) -> JobSnapshot:
        """Until it has settled."""
        return await self._system.wait(self.id)

    async def status(self) -> JobSnapshot:
        """As it is now."""
        return await self._system.status(self.id)

    async def cancel(self) -> JobSnapshot:
        """Returns when it has settled, by whatever rung of the ladder that took."""
        return await self._system.cancel(self.id)

    async def answer(
        self,
        request: str,
        *,
        answers: Sequence[Sequence[str]] | str | None = None,
        reply: PermissionReply | str | None = None,
        reject: bool = False,
        message: str = "",
        by: Party = Party.PERSON,
    ) -> None:
        """As `System.answer`."""
        await self._system.answer(
            self.id, request, answers=answers, reply=reply, reject=reject, message=message, by=by
        )

    async def output(self, *, offset: int = 0, limit: int = 64 << 10) -> OutputSlice:
        """As `System.output`."""
        return await self._system.output(self.id, offset=offset, limit=limit)


@frozen(kw_only=True)
class EndedSession:
    """What is recorded of a session that is not open, and whether its conversation is kept."""

    known: KnownSession
    resumable: bool


@frozen(kw_only=True)
class SystemStatistics:
    """`actors` has the figures of each session's and each unsettled job's actor, by name."""

    sessions: int
    jobs: int
    notices: HubStatistics
    supervisor: SupervisorStatistics
    outbox: OutboxStatistics | None
    attention: AttentionStatistics | None
    actors: dict[str, ActorStatistics]


@define(eq=False, repr=False, init=False)
class System:
    """Runs jobs in sessions. Use `open_system`."""

    engine: Engine
    owner: str
    settings: Settings
    _surroundings: Surroundings
    _sessions: Sessions
    _jobs: Jobs
    _retention: Retention
    _attachments: Attachments
    _catalogs: Catalogs
    _talking: Talking
    _outbox: Outbox | None
    _attention: Attention | None

    def __init__(
        self,
        surroundings: Surroundings,
        *,
        owner: str,
        access: ModelAccess,
        directories: Directories,
        outbox: Outbox | None = None,
    ) -> None:
        self.engine, self.settings, self.owner = surroundings.engine, surroundings.settings, owner
        self._surroundings = surroundings
        self._sessions = Sessions(
            surroundings=surroundings, access=access, directories=directories, place_of=self._place
        )
        self._jobs = Jobs(surroundings=surroundings, sessions=self._sessions)
        self._retention = Retention(surroundings=surroundings, sessions=self._sessions, jobs=self._jobs)
        self._attachments = Attachments(surroundings=surroundings, sessions=self._sessions)
        self._catalogs = Catalogs(surroundings=surroundings, sessions=self._sessions)
        self._talking = Talking(
            surroundings=surroundings, sessions=self._sessions, jobs=self._jobs, catalogs=self._catalogs
        )
        self._outbox = outbox
        self._attention = Attention(surroundings, self._jobs) if outbox is not None else None
        surroundings.store.listen(self._told)

    def __repr__(self) -> str:
        return f"<System {len(self._sessions)} sessions, {len(self._jobs)} jobs>"

    # ---- jobs

    async def start(self, prompt: str, *, session: str | None = None, **asked: Unpack[Asked]) -> Job:
        """Accepts a prompt: returns when it is recorded and has its place in its session.

        Without `session` it gets one of its own, called by the prompt's key words. `Asked` says what else can be
        asked for. Raises `UsageError` for what cannot be, `Busy` when a bound is reached, `StoreError` when it
        cannot be recorded. When it is cancelled, so is the job.
        """
        return Job(*await self._talking.start(prompt, session=session, **asked), self)

    async def respond(
        self, where: str, message: str, *, interrupt: bool = False, **asked: Unpack[Asked]
    ) -> Job:
        """A further message in the conversation of a session, or of a job's session: by a name or an id.

        It is accepted in any state of the session: one that sleeps or has ended gets a container again, and
        behind jobs that run or wait it is queued. With `interrupt` it goes before those that wait, and the turn
        that runs is aborted for it: that job settles as cancelled, with all that it had said, and
        `JobSnapshot.interrupted_by` names the new one. `asked` and the errors are those of `start` and `find`.
        """
        session = await self.find_session(where)
        return Job(*await self._talking.respond(session, message, interrupt=interrupt, **asked), self)

    async def resume(self, where: str, message: str | None = None, **asked: Unpack[Asked]) -> Job:
        """Goes on with a session that rests or has ended, in its conversation, however long ago that was;
        without a message the agent is asked to finish what it was at. Raises `UsageError` where a job is
        under way already, or the conversation is not kept any more, and otherwise as `respond` does."""
        return Job(*await self._talking.resume(await self.find_session(where), message, **asked), self)

    async def fork(
        self, where: str, message: str | None = None, *, session: str | None = None, **asked: Unpack[Asked]
    ) -> tuple[Forked, Job | None]:
        """Branches the conversation of a session, or of a job's session, into a new `session`, which has a
        container of its own and a copy of all files as they are now; the source is left as it is.

        What is at work in the source is left out of the conversation (`Forked.left_out`). With a `message`, a job
        begins there at once; the same `key` is the same job in the same fork then, and nothing is copied again. Raises
        `UsageError` for a name that is taken and where there is nothing to branch, `StoreError` when it cannot be
        copied, and otherwise what `find` and `start` do: also when it was forked, and says so.
        """
        source = await self.find_session(where)
        forked, job = await self._talking.fork(source, message, session=session, **asked)
        return forked, None if job is None else Job(*job, self)

    async def find(self, word: str) -> JobId:
        """The job of this id or this name, or of the session of this name: what is under way goes before what
        has settled. Raises `UsageError` with the candidates when there are several, and `UnknownJob` with the
        nearest names when there is none; an id is given back as it is."""
        return await self._jobs.names.find(word)

    async def find_session(self, word: str) -> SessionKey:
        """The session of this name, open or not, or of the job of this id or name. Raises as `find` does, also when
        there is a session of this name and a job of another one is called so, and `UnknownSession`."""
        return await self._jobs.names.find_session(word)

    async def wait(self, job: JobId) -> JobSnapshot:
        """Until the job has settled. Raises `UnknownJob`."""
        return await self._jobs.wait(job)

    async def status(self, job: JobId) -> JobSnapshot:
        """The job as it is now, also when it settled in an earlier process. Raises `UnknownJob`."""
        return await self._jobs.status(job)

    async def cancel(self, job: JobId) -> JobSnapshot:
        """Returns when it has settled, by whatever rung of the ladder that took. Raises `UnknownJob`."""
        return await self._jobs.cancel(job)

    async def answer(
        self,
        job: JobId,
        request: str,
        *,
        answers: Sequence[Sequence[str]] | str | None = None,
        reply: PermissionReply | str | None = None,
        reject: bool = False,
        message: str = "",
        by: Party = Party.PERSON,
    ) -> None:
        """Answers what the agent asks (`JobSnapshot.pending`, `InputWanted`); returns when OpenCode has it.

        A question takes `answers`, one sequence for each of its questions (a plain text where there is one),
        of its options or in free words. A permission takes `reply`: once, always or reject. Either can be
        rejected with `reject`, or that reply: with a `message` the agent is told it and goes on, without one it
        ends its answer there. `by` is who gives it. A chat's agent is asked at most `maxAutoAnswers` times in a
        row; what it answers unasked is taken all the same.

        Raises `UnknownJob`; `RequestGone` when nothing waits for it any more (each request takes one answer,
        and some time out); `UsageError` for what does not fit; `OpenCodeError` when nobody knows whether
        OpenCode has it.
        """
        answer = answer_of(answers=answers, reply=reply, reject=reject, message=message)
        if self._attention is not None:
            self._attention.answering(job, request, by, said_in(answer))
        await self._jobs.answer(job, request, answer)

    async def requests(self) -> tuple[JobSnapshot, ...]:
        """The jobs that ask something and wait for an answer, with what they ask (`JobSnapshot.pending`)."""
        await trio.lowlevel.checkpoint()
        return self._jobs.asking()

    async def totals(self, *, days: int = 7) -> Totals:
        """What the jobs came to that settled today and on the days before, in local time; also of those that are
        forgotten by now."""
        if not 1 <= days <= LONGEST_LOOK_BACK:
            raise UsageError(f"{days} days cannot be looked at", hint=f"give 1 to {LONGEST_LOOK_BACK}")
        return await self._surroundings.store.totals(first_day(self._surroundings.wall(), days))

    async def output(self, job: JobId, *, offset: int = 0, limit: int = 64 << 10) -> OutputSlice:
        """Readable while the job runs. `offset` and `limit` are bytes; a character is never split.

        Raises `UnknownJob`, and `StoreError` where less is left of a settled job's output than it had."""
        if offset < 0 or limit <= 0:
            raise UsageError("offset must not be negative, and limit must be above 0")
        had = 0 if job in self._jobs else (await self._jobs.settled(job)).output_bytes
        found = await self._surroundings.store.output(job, offset=offset, limit=limit)
        if not found.more and found.next_offset < had:
            raise StoreError(
                f"the output of job {job} is damaged: it ends after {found.next_offset} of {had} bytes",
                hint="what is left of it can be read up to there; its file is in `outputs` in sessionsDir",
            )
        return found

    @property
    def position(self) -> int:
        """The number of the last notice."""
        return self._surroundings.hub.position

    def follow(
        self,
        job: JobId | None = None,
        *,
        session: str | None = None,
        since: int | None = None,
        allowance: Allowance | None = None,
    ) -> Following:
        """The notices of one job, from when it was queued to its end, also when that was in an earlier
        process; or those of one session, or all, from now on.

        With `since` it begins after the notice with that number, without a gap and without telling anything
        twice; `NoticesMissed` says how many are not kept any more. Followings with the same `allowance` keep no more
        together than one alone. Reading raises `UnknownJob`.
        """
        if job is not None:
            return self._jobs.follow(job, since, allowance)
        key = None if session is None else session_key(session)
        if since is None:
            return self._surroundings.hub.follow(session=key, allowance=allowance)
        history = partial(self._history, key)
        return self._surroundings.hub.follow(session=key, since=(since, history), allowance=allowance)

    def _told(self, notice: Notice) -> None:
        """By the journal, when it is durable."""
        self._jobs.told(notice)
        if self._outbox is not None and isinstance(notice, JobEnded):
            self._outbox.wake()
        if self._attention is not None:
            self._attention.told(notice)

    async def _history(self, session: SessionKey | None, after: int, upto: int) -> Page:
        return await self._surroundings.store.notices(None, session, after=after, upto=upto)

    # ---- sessions

    async def sessions(self) -> tuple[SessionSnapshot, ...]:
        """The open ones as they are now."""
        return await self._sessions.snapshots()

    async def ended_sessions(self, *, limit: int = 200) -> tuple[EndedSession, ...]:
        """Those that are not open, the last ones first, and whether each can still be gone on with."""
        found: list[EndedSession] = []
        for known in await self._surroundings.store.known_sessions(limit=limit):
            if known.key not in self._sessions:
                resumable = known.talked and await self._sessions.keeps_conversation(known.key)
                found.append(EndedSession(known=self._with_image(known), resumable=resumable))
        return tuple(found)

    async def known_session(self, session: SessionKey) -> KnownSession:
        """What is recorded of it: since when it is, how many jobs it had. Its `image` is the one that its next
        container is made from."""
        return self._with_image(await self._surroundings.store.session(session))

    def _with_image(self, known: KnownSession) -> KnownSession:
        image = self._sessions.image_of(known.key) or known.image or self.settings.image
        return evolve(known, image=image)

    async def close_session(self, session: str) -> Climb:
        """Ends the session's container and fails its jobs. The conversation and the workspace stay."""
        return await self._sessions.close(session_key(session))

    async def cleanup(
        self, *, delete_data: bool = False, delete_workspaces: bool = False, older_than: float = 0.0
    ) -> CleanedUp:
        """Ends idle sessions and their containers; those with jobs, or used within `older_than` seconds, are
        kept. Conversations go with `delete_data`, and agents' files with `delete_workspaces`: of all
        sessions that are known and not kept, also of those that were closed long ago."""
        if not (math.isfinite(older_than) and older_than >= 0):
            raise UsageError(f"{older_than} seconds cannot be an age", hint="give 0 or more")
        cleanup = Cleanup(
            sessions=self._sessions,
            data=delete_data,
            workspaces=delete_workspaces,
            # Without an age nobody is spared: after the clock was set back all were used at a time that is to come.
            unused_since=self._surroundings.wall() - older_than if older_than else math.inf,
        )
        done = await cleanup.run(self._surroundings.store)
        forgotten = await self._retention.forget()
        return evolve(done, forgotten=forgotten.sessions, forgotten_jobs=forgotten.jobs)

    async def reset_session(self, session: str) -> SessionSnapshot:
        """Makes one that was given up, or is quarantined, usable again, once its cause is seen to.

        A new start does the same for one that was given up. Raises `UnknownSession`.
        """
        return await self._sessions.reset(session_key(session))

    def workspace(self, session: SessionKey) -> Path:
        """The session's working directory on this host."""
        return self._place(session).workspace

    # ---- servers that somebody else runs

    async def attach(
        self,
        name: str,
        url: str,
        *,
        user: str = "",
        password_file: str = "",
        password_env: str = "",
        directory: str = "",
        conversation: str | None = None,
    ) -> Attached:
        """A session whose OpenCode server somebody else runs, from now on and after restarts. Its jobs are as
        any other's, but that nothing there is ever stopped or removed: a cancel ends with OpenCode's own
        abort. The password is read from the file, or the environment variable, whenever it is needed; only
        where it is, is recorded. Without a `conversation` of theirs the first job begins one, in `directory`.
        Raises `UsageError`, `Busy`, and `OpenCodeError` when no server answers there."""
        return await self._attachments.attach(
            session_key(name),
            url=url,
            user=user,
            password_file=password_file,
            password_env=password_env,
            directory=directory,
            conversation=conversation,
        )

    async def detach(self, session: str) -> Attachment:
        """Forgets an attached session, and touches nothing there. Raises `UsageError`, `Busy` while it has jobs, and
        what `find_session` does."""
        return await self._attachments.detach(await self.find_session(session))

    def attachment(self, session: SessionKey) -> Attachment | None:
        """Where the session's server is, if somebody else runs it."""
        return self._sessions.attachments.get(session)

    async def conversations(self, session: str) -> tuple[KnownConversation, ...]:
        """Those of the session's server, the newest first. Raises `UsageError` when it has none at the moment,
        `OpenCodeError`, and what `find_session` does."""
        return await self._attachments.conversations(await self.find_session(session))

    async def offered(self, session: str | None = None) -> Offered:
        """Which agents and models the session's server has; without a session any container that runs, or one
        that is started for the question. Raises `UsageError`, `Busy`, `OpenCodeError`, and what `find_session` does:
        for a name that nobody has nothing is started."""
        return await self._catalogs.ask(None if session is None else await self.find_session(session))

    # ---- announcements

    def attend(self) -> AbstractAsyncContextManager[Attendance]:
        """While it is entered, whoever iterates it is given what chats have to be told of the jobs that they
        asked for: what one asks, that one runs long (`remindAfter`), and its end, which is not sent to the
        webhook then. Raises `UsageError` when this system announces nothing."""
        if self._outbox is None or self._attention is None:
            raise UsageError("this system announces nothing", hint="open it with notify=True")
        return _attend(self._outbox, self._attention)

    async def notify(
        self,
        *,
        session: str | None = None,
        channel: str | None = None,
        on: Sequence[str] = (),
        off: Sequence[str] = (),
        reset: Sequence[str] = (),
    ) -> tuple[Chosen, ...]:
        """Chooses what the chats are told of the jobs of this session, or all chats of this channel, by the names
        of `Matter`, until it is chosen otherwise; with `reset` the choice is taken back. A session's choice wins
        over a channel's, that over `notifyKinds`. Answers what is told now, and who says so. Raises
        `UsageError`, and `StoreError`."""
        return await choose(self._surroundings, session=session, channel=channel, on=on, off=off, reset=reset)

    def person_spoke(self, chat: str) -> None:
        """In the chat session of this key: its agent may be woken again by what jobs ask (`maxAutoAnswers`)."""
        if self._attention is not None:
            self._attention.person_spoke(chat)

    async def acknowledge(self, announcement: str) -> None:
        """What was offered to an attendant under this id was passed on, and nobody else will. Of an end it
        returns when that is durable. Raises `StoreError`."""
        if self._outbox is None or self._attention is None:
            raise UsageError("this system announces nothing", hint="open it with notify=True")
        if is_word(announcement):
            await trio.lowlevel.checkpoint()
            self._attention.acknowledge(announcement)
        else:
            await self._outbox.acknowledge(JobId(announcement))

    # ---- itself

    async def watch_engine(self) -> None:
        """For as long as it runs, no container's end is missed for long; `open_system` does it."""
        await watch_engine(self.engine, owner=self.owner, running=self._sessions.running)

    async def retain(self) -> None:
        """For as long as it runs, what is beyond the settings' bounds is forgotten (`keepJobs`, `keepSessions`
        and their like); `open_system` does it."""
        await self._retention.run()

    def statistics(self) -> SystemStatistics:
        """Figures for who watches the system."""
        return SystemStatistics(
            sessions=len(self._sessions),
            jobs=len(self._jobs),
            notices=self._surroundings.hub.statistics(),
            supervisor=self._surroundings.supervisor.statistics(),
            outbox=self._outbox.statistics() if self._outbox is not None else None,
            attention=self._attention.statistics() if self._attention is not None else None,
            actors={
                **{actor.name: actor.statistics() for actor in self._sessions.actors()},
                **{actor.name: actor.statistics() for actor in self._jobs.actors()},
            },
        )

    async def take_over(self, remembered: Remembered) -> None:
        """Goes on with what an earlier process left; `open_system` does it. Raises `EngineUnavailable` and
        `StoreError`."""
        self._sessions.found_attached(
            {one.session: one.attachment for one in remembered.attached if one.attachment is not None}
        )
        await recover(self._surroundings, self._sessions, self._jobs, remembered)
        await self._sessions.open_attached()

    async def aclose(self, *, leave: Leave) -> None:
        """Ends every container by the ladder, all at once, but for those that are left; `open_system` does
        it."""
        try:
            left = await self._sessions.close_all(leave)
            await self._jobs.wait_all(but=left)
            if self._outbox is not None:
                await self._outbox.flush(within=_FLUSH_WITHIN)
                await self._outbox.end(within=_RECORDED_WITHIN)
        finally:
            self._surroundings.hub.close()
            if self._outbox is not None:
                self._outbox.close()

    def _place(self, key: SessionKey) -> SessionPlace:
        name = directory_name(key)
        return SessionPlace(
            key=key,
            container_name=f"opencode-actors-{self.owner}-{name}",
            data=self.settings.sessions_dir.expanduser() / name / "data",
            workspace=self.settings.workspaces_dir.expanduser() / name,
            owner=self.owner,
        )


@asynccontextmanager
async def _attend(outbox: Outbox, attention: Attention) -> AsyncGenerator[Attendance]:
    async with outbox.attend() as attendance:
        with attention.attended_by(attendance):
            yield attendance
