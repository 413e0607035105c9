"""What surrounds a job's and a session's actor: operations, peers, notices, the journal."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field

from opencode_actors.kernel.actor import Post
from opencode_actors.kernel.elsewhere import RemoteOperations
from opencode_actors.kernel.job_operations import JobOperations
from opencode_actors.kernel.mailbox import Mailbox
from opencode_actors.kernel.session_operations import SessionOperations
from opencode_actors.machines.job_messages import (
    EventsSeen,
    JobEffect,
    JobMessage,
    JobOperation,
    JobTimer,
    JobTimerFired,
    TellSession,
)
from opencode_actors.machines.notices import Notice, Record
from opencode_actors.machines.session_messages import (
    SessionEffect,
    SessionMessage,
    SessionOperation,
    SessionTimer,
    SessionTimerFired,
    TellJob,
)
from opencode_actors.machines.vocabulary import JobId, SessionKey
from opencode_actors.store.port import Store


@define(eq=False)
class JobShell:
    operations: JobOperations
    store: Store
    session_mailbox: Callable[[SessionKey], Mailbox[SessionMessage] | None]

    async def perform(self, operation: JobOperation, post: Post[JobMessage]) -> JobMessage:
        return await self.operations.perform(operation, post)

    def fired(self, timer: JobTimer) -> JobMessage:
        return JobTimerFired(timer=timer)

    def deliver(self, effect: JobEffect) -> None:
        if isinstance(effect, TellSession):
            mailbox = self.session_mailbox(effect.session)
            if mailbox is not None:
                mailbox.put(effect.message)

    async def record(self, records: tuple[Record, ...], notices: tuple[Notice, ...], at: float) -> None:
        await self.store.append(records, notices, at=at)


@define(eq=False)
class SessionShell:
    """`reader` is the mailbox that the server's events went to last: the stream waits for it."""

    operations: SessionOperations | RemoteOperations
    store: Store
    job_mailbox: Callable[[JobId], Mailbox[JobMessage] | None]
    reader: Mailbox[JobMessage] | None = field(default=None, init=False)

    async def perform(self, operation: SessionOperation, post: Post[SessionMessage]) -> SessionMessage | None:
        async def post_and_wait(message: SessionMessage) -> None:
            await post(message)
            if self.reader is not None:
                await self.reader.wait_room()

        return await self.operations.perform(operation, post_and_wait)

    def fired(self, timer: SessionTimer) -> SessionMessage:
        return SessionTimerFired(timer=timer)

    def deliver(self, effect: SessionEffect) -> None:
        if isinstance(effect, TellJob):
            mailbox = self.job_mailbox(effect.job)
            if mailbox is not None:
                mailbox.put(effect.message)
                if isinstance(effect.message, EventsSeen):
                    self.reader = mailbox

    async def record(self, records: tuple[Record, ...], notices: tuple[Notice, ...], at: float) -> None:
        await self.store.append(records, notices, at=at)
