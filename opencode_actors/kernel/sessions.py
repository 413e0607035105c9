"""All sessions of a system: each an actor, from the first job of its key until it is closed.

A key belongs to one actor at a time, and to the next one only when the container and the clean-up of the
one before are over.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import trio
from attrs import define, evolve, field

from opencode_actors.adapters.passwords import endpoint_of
from opencode_actors.containers import ModelAccess, SessionPlace
from opencode_actors.errors import ActorGone, Busy, StoreError, UnknownSession, UsageError
from opencode_actors.kernel.branches import Branches
from opencode_actors.kernel.mailbox import Mailbox
from opencode_actors.kernel.session_entry import SessionActor, SessionEntry, end_for_good, new_entry
from opencode_actors.kernel.surroundings import Surroundings
from opencode_actors.machines.job_messages import CancelJob, JobOver
from opencode_actors.machines.notices import Attachment, SessionChanged
from opencode_actors.machines.session_messages import (
    Accepted,
    AddJob,
    CloseSession,
    GetSession,
    Refused,
    ResetSession,
    RetireSession,
    SessionMessage,
    TakeOver,
    WakeSession,
)
from opencode_actors.machines.session_state import (
    Serving,
    Starting,
)
from opencode_actors.machines.vocabulary import (
    NOBODY,
    Cause,
    Climb,
    JobId,
    Leave,
    SessionKey,
    SessionSnapshot,
    SessionStatus,
)
from opencode_actors.ports import ContainerId, Endpoint, Permissions
from opencode_actors.store.port import Recalled
from opencode_actors.workdirs import Directories

_log = logging.getLogger("opencode_actors")

# Renewed logins are carried back when a session is over; a disk that hangs does not hold the next one.
_TIDY_WITHIN = 5.0


@define(eq=False, repr=False, kw_only=True)
class Sessions:
    surroundings: Surroundings
    access: ModelAccess
    directories: Directories
    place_of: Callable[[SessionKey], SessionPlace]
    _entries: dict[SessionKey, SessionEntry] = field(factory=dict[SessionKey, SessionEntry], init=False)
    attachments: dict[SessionKey, Attachment] = field(factory=dict[SessionKey, Attachment], init=False)
    branches: Branches = field(factory=Branches, init=False)
    _opening: trio.Lock = field(factory=trio.Lock, init=False)
    _closing: bool = field(default=False, init=False)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<Sessions {', '.join(self._entries) or 'none'}>"

    def __contains__(self, key: SessionKey) -> bool:
        return key in self._entries

    def open_keys(self) -> tuple[SessionKey, ...]:
        return tuple(self._entries)

    def is_given(self, key: SessionKey) -> bool:
        """Whether it is open, attached, or just being made."""
        return key in self._entries or key in self.attachments or key in self.branches

    def given_keys(self) -> tuple[SessionKey, ...]:
        """Those that are open, attached, or just being made."""
        return (*self._entries, *self.attachments, *self.branches.keys())

    def actors(self) -> tuple[SessionActor, ...]:
        return tuple(entry.actor for entry in self._entries.values())

    def mailbox(self, key: SessionKey) -> Mailbox[SessionMessage] | None:
        entry = self._entries.get(key)
        return entry.actor.mailbox if entry is not None else None

    async def add_job(
        self,
        key: SessionKey,
        job: JobId,
        *,
        image: str | None = None,
        first: bool = False,
        permissions: Permissions | None = None,
    ) -> int:
        """A place in the session, which is opened if need be, before all that wait if it is the `first`; how
        many jobs are ahead. Raises `Busy`, `UsageError` when it runs with another image, and `StoreError`
        when it cannot record anything."""
        while True:
            entry = await self._open(key)
            if image is not None:
                entry.use(image)
            answer: object = None
            with suppress(ActorGone):
                answer = await self._ask_for_place(entry, job, first=first, permissions=permissions)
            if answer is None:
                # It ended meanwhile. Its successor may begin when the last of it is gone.
                await entry.done.wait()
                if entry.failure is not None and entry.failure.cause is Cause.STORE:
                    raise StoreError(entry.failure.message, hint="make room on the disk, then try again")
                continue
            if isinstance(answer, Accepted):
                return answer.ahead
            if isinstance(answer, Refused):
                raise Busy(answer.reason, hint=answer.hint)
            raise Busy("the session does not answer", hint="use another session")

    async def snapshots(self) -> tuple[SessionSnapshot, ...]:
        snapshots: list[SessionSnapshot] = []
        for entry in tuple(self._entries.values()):
            try:
                answer = await entry.actor.ask(lambda ask: GetSession(ask=ask))
            except ActorGone:
                continue
            if isinstance(answer, SessionSnapshot):
                snapshots.append(answer)
        return tuple(snapshots)

    async def close(self, key: SessionKey) -> Climb:
        """Returns when its container is gone and another one may begin under its key."""
        entry = self._entries.get(key)
        if entry is None:
            raise UnknownSession(f"no session {key} is open")
        return await self._close(entry)

    async def reset(self, key: SessionKey) -> SessionSnapshot:
        """Forgets what it was given up or quarantined for. Raises `UnknownSession`."""
        entry = self._entries.get(key)
        answer: object = None
        if entry is not None:
            with suppress(ActorGone):
                answer = await entry.actor.ask(lambda ask: ResetSession(ask=ask))
        if not isinstance(answer, SessionSnapshot):
            raise UnknownSession(f"no session {key} is open")
        return answer

    async def keeps_conversation(self, key: SessionKey) -> bool:
        """Whether its data is still there; of a server elsewhere nobody but its owner knows."""
        if key in self.attachments:
            await trio.lowlevel.checkpoint()
            return True
        return await self.directories.has_conversation(self.place_of(key))

    def turns(self, key: SessionKey) -> object:
        """Equal as long as no job came or went."""
        entry = self._entries.get(key)
        return None if entry is None else (entry.actor.state.current, entry.actor.state.used_at)

    def at_work_in(self, key: SessionKey) -> JobId | None:
        """Who has the turn."""
        entry = self._entries.get(key)
        return entry.actor.state.current if entry is not None else None

    def image_of(self, key: SessionKey) -> str | None:
        """What its container is made from; None when it is not open."""
        entry = self._entries.get(key)
        return entry.image if entry is not None else None

    def running(self) -> dict[ContainerId, Mailbox[SessionMessage]]:
        """The containers that are believed to run, with whom to tell when they do not."""
        return {
            phase.container.id: entry.actor.mailbox
            for entry in self._entries.values()
            if entry.attachment is None and isinstance(phase := entry.actor.state.phase, Starting | Serving)
        }

    async def close_all(self, leave: Leave) -> frozenset[JobId]:
        """For good: none is opened any more. The jobs that are left; others in their sessions are cancelled."""
        self._closing = True
        left = frozenset(job for entry in self._entries.values() for job in entry.left(leave))
        async with trio.open_nursery() as nursery:
            for entry in tuple(self._entries.values()):
                if left.isdisjoint(entry.work):
                    nursery.start_soon(self._close, entry)
                    continue
                for job in entry.work - left:
                    if (mailbox := self.surroundings.job_mailbox(job)) is not None:
                        mailbox.put(CancelJob(ask=NOBODY))
        return left

    # ---- servers elsewhere

    async def attach(self, key: SessionKey, record: Callable[[], Awaitable[Attachment]]) -> None:
        """Opens it with what was recorded, unless somebody has opened it meanwhile."""
        async with self._opening:
            if self.is_given(key):
                raise UsageError(
                    f"session {key} is open already", hint="choose another name, or detach or clean up first"
                )
            self.attachments[key] = await record()
            self._begin(key, await self.recall(key))

    def found_attached(self, attachments: Mapping[SessionKey, Attachment]) -> None:
        """What an earlier process recorded."""
        self.attachments.update(attachments)

    async def open_attached(self) -> None:
        """Those that have no work are there all the same: nobody knows them otherwise."""
        for key in tuple(self.attachments):
            await self._open(key)

    async def detach(self, key: SessionKey, record: Callable[[], Awaitable[None]]) -> None:
        """Raises `UsageError` when it is not attached, and `Busy` when it has jobs."""
        if key not in self.attachments:
            raise UsageError(
                f"session {key} is not attached to a server", hint="`sessions` says which ones are"
            )
        entry = self._entries.get(key)
        if entry is not None:
            answer = await self.retire(entry, "detached") if not entry.asking else None
            if not isinstance(answer, Climb):
                raise Busy(f"session {key} has jobs", hint="wait for them, or cancel them first")
        async with self._opening:
            if key in self._entries:
                raise Busy(f"session {key} has a job again", hint="wait for it, or cancel it first")
            await record()
            self.attachments.pop(key, None)

    async def wake(self, key: SessionKey) -> tuple[SessionStatus, str]:
        """Returns when its server is ready, or does not get ready, and why. Raises `Busy`."""
        following = self.surroundings.hub.follow(session=key)
        try:
            entry = await self._open(key)
            answer = await entry.actor.ask(lambda ask: WakeSession(ask=ask))
            if isinstance(answer, Refused):
                raise Busy(answer.reason, hint=answer.hint)
            if self.is_up(key):
                return SessionStatus.READY, ""
            why = ""
            async for notice in following:
                if not isinstance(notice, SessionChanged):
                    continue
                if notice.status in (SessionStatus.READY, SessionStatus.GIVEN_UP, SessionStatus.QUARANTINED):
                    return notice.status, notice.detail
                if notice.status is SessionStatus.ABSENT:
                    return notice.status, why
                why = why or (notice.detail if notice.status is SessionStatus.STOPPING else "")
        finally:
            following.leave()
        return SessionStatus.ABSENT, "the system is closing"

    def is_up(self, key: SessionKey) -> bool:
        """Whether its server answers."""
        entry = self._entries.get(key)
        return entry is not None and isinstance(entry.actor.state.phase, Serving)

    def endpoint_if_up(self, key: SessionKey) -> Endpoint | None:
        entry = self._entries.get(key)
        phase = entry.actor.state.phase if entry is not None else None
        return phase.endpoint if isinstance(phase, Serving) else None

    async def endpoint(self, key: SessionKey) -> Endpoint:
        """Where its server can be asked now. Raises `UsageError`."""
        attachment, entry = self.attachments.get(key), self._entries.get(key)
        phase = entry.actor.state.phase if entry is not None else None
        if isinstance(phase, Serving | Starting):
            await trio.lowlevel.checkpoint()
            return phase.endpoint
        if attachment is None:
            await trio.lowlevel.checkpoint()
            raise UsageError(
                f"session {key} has no server at the moment",
                hint="its container starts with its next job; a running session, or none, can be asked",
            )
        return await endpoint_of(attachment, self.surroundings.settings)

    # ---- opening

    async def _open(self, key: SessionKey) -> SessionEntry:
        # One at a time, so that what is found out here still holds when the session begins.
        async with self._opening:
            entry = self._entries.get(key)
            if self._closing:
                raise Busy("the system is shutting down")
            if entry is not None:
                return entry
            if key in self.branches:
                raise Busy(self.branches.why_kept(key), hint="wait for it, or use another session")
            if key not in self.attachments:
                await self._make_room(key)
            recalled = await self.recall(key)
            if self._closing:
                raise Busy("the system is shutting down")
            return self._begin(key, recalled)

    async def recall(self, key: SessionKey) -> Recalled:
        """Raises `StoreError`."""
        known = await self.surroundings.store.recall(key)
        image = "" if key in self.attachments else known.image or self.surroundings.settings.image
        return evolve(known, image=image)

    def take_over(
        self, key: SessionKey, recalled: Recalled, left: TakeOver, *, announced: frozenset[JobId]
    ) -> None:
        """Opens it with what an earlier process left of it; `announced` are the jobs that a service accepted."""
        entry = self._begin(key, recalled)
        entry.taken, entry.found = frozenset(left.jobs), announced
        if left.endpoint is not None:
            entry.operations.connect(left.endpoint)
        entry.actor.mailbox.put(left)

    async def _make_room(self, key: SessionKey) -> None:
        """A session without jobs keeps its place, and its container, only until somebody else needs it: the
        one that has been idle for longest is ended first."""
        most = self.surroundings.settings.max_sessions
        why = f"idle, and session {key} needs its place"
        while len(contained := self._contained()) >= most:
            if await self._retire_one(why):
                continue
            # A notice is told a moment before the state that it tells of is taken over.
            await self.snapshots()
            if not await self._retire_one(why):
                raise Busy(
                    f"all {len(contained)} sessions that may be open have work (maxSessions is {most}): "
                    f"{', '.join(contained)}",
                    hint="wait for one of them, use one of them, or raise maxSessions",
                )

    def _contained(self) -> dict[SessionKey, SessionEntry]:
        """Those that have a container, or may have one again."""
        return {key: entry for key, entry in self._entries.items() if entry.attachment is None}

    async def _retire_one(self, why: str) -> bool:
        contained = self._contained().values()
        idle = sorted((entry for entry in contained if entry.idle), key=lambda entry: entry.idle_longest)
        for entry in idle:
            if isinstance(await self.retire(entry, why), Climb):
                return True
        return False

    def _begin(self, key: SessionKey, recalled: Recalled) -> SessionEntry:
        entry = self._entries[key] = new_entry(
            self.surroundings,
            self.access,
            self.directories,
            self.place_of(key),
            recalled,
            self.attachments.get(key),
        )
        self.surroundings.nursery.start_soon(self._run, key, entry)
        return entry

    async def _ask_for_place(
        self, entry: SessionEntry, job: JobId, *, first: bool, permissions: Permissions | None
    ) -> object:
        answer: object = None
        entry.asking += 1
        try:
            answer = await entry.actor.ask(
                lambda ask: AddJob(ask=ask, job=job, first=first, permissions=permissions)
            )
        finally:
            entry.asking -= 1
            if answer is None:
                # Given up while on its way: it may be there already, and would hold its place for ever.
                entry.actor.mailbox.put(JobOver(job=job))
        return answer

    # ---- running and ending

    async def _run(self, key: SessionKey, entry: SessionEntry) -> None:
        try:
            entry.failure = await self.surroundings.supervisor.run(entry.actor)
            if entry.failure is not None:
                await end_for_good(self.surroundings, entry, entry.failure)
            await entry.operations.disconnect()
            if entry.attachment is None:
                await self._tidy_up(entry)
        finally:
            del self._entries[key]
            entry.done.set()

    async def _tidy_up(self, entry: SessionEntry) -> None:
        try:
            with trio.move_on_after(_TIDY_WITHIN):
                await self.directories.tidy(entry.place)
        except StoreError as error:
            _log.warning("%s", error.message)

    async def retire(self, entry: SessionEntry, why: str) -> Climb | Refused:
        """Ends it unless it has work, or gets some before it is over; `why` is announced."""
        if kept := self.branches.why_kept(entry.place.key):
            return Refused(reason=kept)
        try:
            answer = await entry.actor.ask(lambda ask: RetireSession(ask=ask, why=why))
        except ActorGone:
            answer = Climb(ended_by=None)
        if isinstance(answer, Refused):
            return answer
        await entry.done.wait()
        return answer if isinstance(answer, Climb) else Climb(ended_by=None)

    async def retire_if_open(self, key: SessionKey, why: str) -> Climb | Refused | None:
        """None when it is not open. One that is attached takes no place and has nothing here to be ended."""
        attachment = self.attachments.get(key)
        if attachment is not None:
            return Refused(reason=f"it is attached to {attachment.url}; detach forgets it")
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.asking:
            return Refused(reason=f"session {key} has a job on its way")
        return await self.retire(entry, why)

    async def set_aside(self, key: SessionKey, folders: tuple[Path, ...]) -> tuple[Path, ...] | Refused:
        """Those that were there. Nothing is touched when somebody has opened the session, or a fork needs it."""
        async with self.kept_closed(key) as why_not:
            if why_not:
                return Refused(reason=why_not)
            return tuple([folder for folder in folders if await self.directories.set_aside(folder)])

    @asynccontextmanager
    async def kept_closed(self, key: SessionKey) -> AsyncGenerator[str]:
        """Nobody opens the session before this is left. Why what it has is needed; empty where it is not."""
        async with self._opening:
            yield f"session {key} has a job again" if key in self._entries else self.branches.why_kept(key)

    @asynccontextmanager
    async def branching(self, source: SessionKey, target: SessionKey) -> AsyncGenerator[None]:
        """Until this is left what either has on the disk stays, and nobody opens the `target`. Raises `UsageError`
        where there is one."""
        taken = UsageError(f"there is a session {target} already", hint="choose another name, or none")
        if self.is_given(target):
            raise taken
        with self.branches.make(source, target):
            async with self._opening:  # whoever was opening it, or setting it aside, is through with that
                known = await self.surroundings.store.session(target)
                if target in self._entries or known.heard_of:
                    raise taken
            yield

    async def _close(self, entry: SessionEntry) -> Climb:
        try:
            answer = await entry.actor.ask(lambda ask: CloseSession(ask=ask))
        except ActorGone:
            answer = None
        await entry.done.wait()
        return answer if isinstance(answer, Climb) else Climb(ended_by=None)
