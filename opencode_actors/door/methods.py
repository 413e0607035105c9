"""What each command does to the system, and what is said of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import assert_never

import trio
from attrs import define, field

from opencode_actors.door import notices, results
from opencode_actors.door.attending import Attendants
from opencode_actors.door.commands import (
    Ack,
    Agents,
    Answer,
    Asker,
    Attach,
    Attend,
    Cancel,
    Cleanup,
    Close,
    Command,
    Conversations,
    Detach,
    Follow,
    Fork,
    Info,
    Models,
    Notify,
    Output,
    Ping,
    Present,
    Requests,
    Reset,
    Respond,
    Resume,
    Sessions,
    Start,
    Statistics,
    Status,
    Unfollow,
    Wishes,
)
from opencode_actors.door.connection import Guest
from opencode_actors.door.files import PROTOCOL
from opencode_actors.door.frames import encode
from opencode_actors.door.limits import Limits
from opencode_actors.door.results import About, Document, Explain
from opencode_actors.errors import StoreError, UnknownJob, UsageError
from opencode_actors.kernel.attachments import Attached
from opencode_actors.kernel.hub import Allowance, Following, NoticesMissed
from opencode_actors.kernel.system import Job, System
from opencode_actors.kernel.wishes import Asked
from opencode_actors.machines.matters import Party
from opencode_actors.machines.notices import JobEnded, Notice
from opencode_actors.machines.vocabulary import JobSnapshot, Origin, SessionKey, SessionSnapshot

# What changes something: half of it would be worse than all of it.
_LASTING = (Start, Respond, Resume, Fork, Cancel, Cleanup, Close, Reset, Answer, Notify, Ack, Attach, Detach)


@define(eq=False)
class SystemDesk:
    """Does what the door is asked for. `explain` says what happened, and what to do next."""

    system: System
    about: About
    limits: Limits
    explain: Explain
    nursery: trio.Nursery
    wall: Callable[[], float] = time.time
    _attendants: Attendants = field(init=False)
    _last: tuple[Notice | NoticesMissed, str] | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._attendants = Attendants(self.system, self.nursery)

    def lasts(self, command: Command) -> bool:
        return isinstance(command, _LASTING)

    def gone(self, guest: Guest) -> None:
        self._attendants.gone(guest)

    async def perform(self, command: Command, guest: Guest) -> Document:
        if isinstance(command, Wishes) and command.by == "person" and command.origin is not None:
            self.system.person_spoke(command.origin.session_key)
        match command:
            case Info():
                return await self._info()
            case Ping():
                await trio.lowlevel.checkpoint()
                return {"now": round(self.wall(), 3), "seq": self.system.position}
            case Start():
                asked = _asked(command)
                return await self._begun(
                    await self.system.start(command.prompt, session=command.session_id, **asked)
                )
            case Respond():
                where, interrupt = await self._where(command), command.interrupt
                return await self._begun(
                    await self.system.respond(where, command.message, interrupt=interrupt, **_asked(command))
                )
            case Resume():
                where, message = await self._where(command), command.message
                return await self._begun(await self.system.resume(where, message, **_asked(command)))
            case Fork():
                return await self._fork(command)
            case Status():
                return await self._status(await self._job(command))
            case Output():
                return await self._output(command)
            case Cancel():
                job = await self._job(command)
                return await self._status(await self.system.cancel(job.id))
            case Sessions():
                return await self._sessions(everything=command.all)
            case Attach():
                return results.attached(await self._attach(command))
            case Detach():
                session = await self.system.find_session(command.session_id)
                gone = await self.system.detach(session)
                return {"sessionKey": session, "server": gone.url, "detached": True}
            case Conversations():
                session = await self.system.find_session(command.session_id)
                return results.conversations(session, await self.system.conversations(session))
            case Agents():
                return results.agents(await self.system.offered(command.session_id))
            case Models():
                return results.models(
                    await self.system.offered(command.session_id), match=command.match or ""
                )
            case Answer():
                return await self._answer(command)
            case Requests():
                return results.requests(await self.system.requests())
            case Statistics():
                return results.totals(await self.system.totals(days=command.days), days=command.days)
            case Notify():
                return await self._notify(command)
            case Present():
                self.system.person_spoke(command.origin.session_key)
                await trio.lowlevel.checkpoint()
                return {}
            case Attend():
                return await self._attendants.attend(command.name, guest)
            case Ack():
                return await self._attendants.acknowledge(command.id, guest)
            case Cleanup():
                return results.cleaned_up(
                    await self.system.cleanup(
                        delete_data=command.delete_data,
                        delete_workspaces=command.delete_workspaces,
                        older_than=command.older_than,
                    )
                )
            case Close():
                key = await self.system.find_session(command.session_id)
                return results.closed(key, await self.system.close_session(key))
            case Reset():
                key = await self.system.find_session(command.session_id)
                return await self._session(await self.system.reset_session(key))
            case Follow() | Unfollow():
                raise TypeError(f"{command!r} is the connection's own")
            case _:
                assert_never(command)

    async def follow(self, command: Follow, allowance: Allowance) -> tuple[Following, int]:
        if command.job_id is not None and command.session_id is not None:
            raise UsageError("follow a job or a session, not both", hint="a session's jobs are in it")
        if command.job_id is None:
            await trio.lowlevel.checkpoint()
            begin = self.system.position if command.since is None else command.since
            session = command.session_id and await self.system.find_session(command.session_id)
            following = self.system.follow(session=session, since=begin, allowance=allowance)
            return following, begin
        job = await self._called(command.job_id)  # an unknown one is said at once
        return self.system.follow(job.id, since=command.since, allowance=allowance), command.since or 0

    async def words(self, notice: Notice | NoticesMissed) -> str:
        """All who follow are told the same notices, mostly at the same time."""
        last = self._last
        if last is not None and last[0] is notice:
            await trio.lowlevel.checkpoint()
            return last[1]
        ended = await self._status(notice.snapshot) if isinstance(notice, JobEnded) else None
        text = encode(notices.notice(notice, ended))
        self._last = notice, text
        return text

    # ---- itself

    async def _info(self) -> Document:
        await trio.lowlevel.checkpoint()
        system = self.system
        return results.info(
            self.about,
            self.limits,
            system.statistics(),
            protocol=PROTOCOL,
            image=system.settings.image,
            seq=system.position,
        )

    # ---- jobs

    async def _begun(self, job: Job) -> Document:
        now = await job.status()
        return {
            "jobId": job.id,
            "name": now.name or None,
            "sessionKey": job.session,
            "status": results.status_word(now.status),
            "ahead": await self._ahead(now),
        }

    async def _fork(self, command: Fork) -> Document:
        asked = _asked(command) | {"name": None}
        where, name = await self._where(command), command.name
        forked, job = await self.system.fork(where, command.message, session=name, **asked)
        workspace = str(self.system.workspace(forked.session))
        begun = None if job is None else await self._begun(job)
        return results.forked(forked, workspace=workspace, job=begun)

    async def _ahead(self, job: JobSnapshot) -> int:
        for session in await self.system.sessions():
            if session.key == job.session and job.id in session.queued:
                return session.queued.index(job.id) + (session.running is not None)
        return 0

    async def _where(self, command: Respond | Resume | Fork) -> str:
        if command.session_id is not None and command.job_id is None:
            await trio.lowlevel.checkpoint()
            return command.session_id
        if command.job_id is not None and command.session_id is None:
            return await self.system.find(command.job_id)
        raise UsageError("name either a job or a session to go on in")

    async def _called(self, word: str) -> JobSnapshot:
        """By its id or its name."""
        return await self.system.status(await self.system.find(word))

    async def _job(self, command: Status | Output | Cancel) -> JobSnapshot:
        job = await self._called(command.job_id)
        session = command.session_id
        if session is not None and await self.system.find_session(session) != job.session:
            raise UnknownJob(
                f"there is no job {job.id} in session {session}",
                hint=f"it is of session {job.session}",
            )
        return job

    async def _status(self, job: JobSnapshot) -> Document:
        begin = max(0, job.output_bytes - results.TAIL_BYTES)
        try:
            tail = (await self.system.output(job.id, offset=begin, limit=results.TAIL_BYTES)).text
        except StoreError as error:
            tail = f"({error.message})"
        return results.status(job, tail=tail, explain=self.explain, seq=self.system.position)

    async def _answer(self, command: Answer) -> Document:
        await self.system.answer(
            await self.system.find(command.job_id),
            command.request_id,
            answers=command.answers,
            reply=command.reply,
            reject=command.reject,
            message=command.message or "",
            by=Party(command.by),
        )
        return {"answered": True}

    async def _notify(self, command: Notify) -> Document:
        session = command.session_id and await self.system.find_session(command.session_id)
        if command.job_id is not None:
            if session is not None:
                raise UsageError("name either a job or its session")
            session = (await self._called(command.job_id)).session
        chosen = await self.system.notify(
            session=session, channel=command.channel, on=command.on, off=command.off, reset=command.reset
        )
        return results.chosen(chosen, session=session, channel=command.channel)

    async def _output(self, command: Output) -> Document:
        job = await self._job(command)
        limit = min(command.limit, self.limits.output)
        piece = await self.system.output(job.id, offset=command.offset, limit=limit)
        return results.output(job, piece, offset=command.offset)

    # ---- sessions

    async def _attach(self, command: Attach) -> Attached:
        return await self.system.attach(
            command.name,
            command.url,
            user=command.user or "",
            password_file=command.password_file or "",
            password_env=command.password_env or "",
            directory=command.directory or "",
            conversation=command.conversation,
        )

    def _workspace(self, key: SessionKey) -> str:
        """On this host, or on that of whoever runs its server."""
        attachment = self.system.attachment(key)
        return str(self.system.workspace(key)) if attachment is None else attachment.directory

    async def _session(self, one: SessionSnapshot) -> Document:
        known, workspace = await self.system.known_session(one.key), self._workspace(one.key)
        return results.session(one, known, workspace=workspace, now=self.wall())

    async def _sessions(self, *, everything: bool) -> Document:
        found, now = await self.system.sessions(), self.wall()
        listed = [await self._session(one) for one in found]
        if everything:
            for ended in await self.system.ended_sessions():
                workspace = self._workspace(ended.known.key)
                listed.append(results.ended_session(ended, workspace=workspace, now=now))
        return {"sessions": listed}


def _asked(wishes: Wishes) -> Asked:
    return {
        "name": wishes.name,
        "image": wishes.image,
        "model": wishes.model,
        "agent": wishes.agent,
        "system": wishes.system,
        "job_timeout": wishes.timeout,
        "max_cost_usd": wishes.max_cost_usd,
        "report_every": wishes.report_every,
        "key": wishes.key,
        "permission_mode": wishes.permission_mode,
        "permission_rules": wishes.permission_rules,
        "origin": _origin(wishes.origin),
    }


def _origin(asker: Asker | None) -> Origin | None:
    if asker is None:
        return None
    return Origin(session_key=asker.session_key, agent_id=asker.agent_id, channel=asker.channel)
