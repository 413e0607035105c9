"""The outbox: the one actor that sees to it that the end of each job is told, by one way or the other.

Its rows are in the journal, so it may end at any moment and begin again; it disturbs no job.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Self

import trio
from attrs import define, field, frozen

from opencode_actors.errors import ActorGone
from opencode_actors.kernel.actor import Actor, Post
from opencode_actors.kernel.outbox_operations import OutboxOperations, words_of
from opencode_actors.kernel.surroundings import Surroundings
from opencode_actors.machines import outbox as machine
from opencode_actors.machines.attention import HOLDS_WORDS
from opencode_actors.machines.matters import Matter, Party, matter_of_end
from opencode_actors.machines.notices import Notice, NotificationFailed, NotificationRecorded, Record
from opencode_actors.machines.outbox import HOLDS, LONGEST_DELAY, OutboxPolicy, OutboxState
from opencode_actors.machines.outbox_messages import (
    AcknowledgeNotification,
    AttendantCame,
    AttendantId,
    AttendantLeft,
    EndOutbox,
    FlushOutbox,
    HangUp,
    NotificationQueued,
    OfferNotification,
    OutboxEffect,
    OutboxMessage,
    OutboxOperation,
    OutboxTimer,
    OutboxTimerFired,
)
from opencode_actors.machines.vocabulary import JobId, JobSnapshot, NotificationState
from opencode_actors.ports import Webhook

_log = logging.getLogger("opencode_actors")

# How long an attendant may take to pass a notification on; a plugin's call into its own gateway takes
# milliseconds.
CLAIM = 15.0

OutboxActor = Actor[OutboxState, OutboxMessage, OutboxEffect]


@frozen(kw_only=True)
class Announcement:
    """What a job's chat has to be told, the words for it, and who there is told. `id` is what is acknowledged."""

    id: str
    matter: Matter
    to: Party = Party.AGENT
    job: JobSnapshot
    text: str


# None: there is nothing to be said any more.
Say = Callable[[], Awaitable[Announcement | None]]


@frozen
class _Offer:
    say: Say
    until: float


@define(eq=False, repr=False)
class Attendance:
    """Iterating gives what is to be passed on, each within `CLAIM` seconds of being offered. What is not
    acknowledged (`System.acknowledge`) in time, or when this ends, goes another way."""

    id: AttendantId
    _send: trio.MemorySendChannel[_Offer]
    _receive: trio.MemoryReceiveChannel[_Offer]

    def __repr__(self) -> str:
        return f"<Attendance {self.id}, {self._send.statistics().current_buffer_used} offered>"

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Announcement:
        async for offer in self._receive:
            said = await offer.say()
            # Too late to be acknowledged in time: it is on another way already.
            if said is not None and trio.current_time() < offer.until:
                return said
        raise StopAsyncIteration

    def offer(self, say: Say) -> None:
        """For whoever has something to be told. With no room for it, it is not read in time."""
        try:
            self._send.send_nowait(_Offer(say, trio.current_time() + CLAIM))
        except (trio.WouldBlock, trio.BrokenResourceError):
            _log.warning("%r does not read what it is offered", self)

    def end(self) -> None:
        """For the outbox: nothing more is offered."""
        self._send.close()


@frozen(kw_only=True)
class OutboxStatistics:
    """`failures` of the webhook in a row; `sending` and `held` are on their way."""

    webhook: bool
    attendants: int
    held: int
    sending: int
    failures: int


@define(eq=False, repr=False)
class Outbox:
    """Use `run` in a nursery that outlives what is to be told."""

    surroundings: Surroundings
    _webhook: Webhook | None
    _attending: dict[AttendantId, Attendance] = field(factory=dict[AttendantId, Attendance], init=False)
    _serial: int = field(default=0, init=False)
    _actor: OutboxActor = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._actor = self._new_actor()

    def __repr__(self) -> str:
        way = "webhook" if self._webhook is not None else "no webhook"
        return f"<Outbox, {way}, {len(self._attending)} attending>"

    def wake(self) -> None:
        """A job has settled."""
        self._actor.mailbox.put(NotificationQueued())

    @asynccontextmanager
    async def attend(self) -> AsyncGenerator[Attendance]:
        """Takes over what the webhook would be sent, of jobs that a chat asked for, until it is left."""
        self._serial += 1
        send, receive = trio.open_memory_channel[_Offer](HOLDS + HOLDS_WORDS)
        attendance = Attendance(AttendantId(self._serial), send, receive)
        self._attending[attendance.id] = attendance
        self._actor.mailbox.put(AttendantCame(attendant=attendance.id))
        try:
            with send, receive:
                yield attendance
        finally:
            del self._attending[attendance.id]
            self._actor.mailbox.put(AttendantLeft(attendant=attendance.id))

    async def acknowledge(self, job: JobId) -> None:
        try:
            await self._actor.ask(lambda ask: AcknowledgeNotification(ask=ask, job=job))
        except ActorGone:
            done = NotificationRecorded(job=job, state=NotificationState.DONE)
            await self.surroundings.store.append((done,))

    async def flush(self, *, within: float) -> None:
        """So that what can be told now is, before the end; what cannot is told by the next process."""
        with trio.move_on_after(within), suppress(ActorGone):
            await self._actor.ask(lambda ask: FlushOutbox(ask=ask))

    async def end(self, *, within: float) -> None:
        """Nobody is told anything more; what was taken is on record, so that no other process tells it again."""
        with trio.move_on_after(within), suppress(ActorGone):
            await self._actor.ask(lambda ask: EndOutbox(ask=ask))

    async def run(self) -> None:
        """Until it is cancelled. After a bug, or a journal that failed, it begins again from its rows."""
        failures = 0
        while True:
            began = trio.current_time()
            self.wake()
            failure = await self.surroundings.supervisor.run(self._actor)
            lived = trio.current_time() - began
            failures = 1 if lived > LONGEST_DELAY else failures + 1
            wait = machine.delay(failures, self.surroundings.rng.random())
            _log.error("the outbox ended (%s) and begins again in %.0f s", failure, wait)
            await trio.sleep(wait)
            self._actor = self._new_actor()

    def close(self) -> None:
        """Nobody who attends is offered anything more."""
        for attendance in self._attending.values():
            attendance.end()

    def statistics(self) -> OutboxStatistics:
        state = self._actor.state
        return OutboxStatistics(
            webhook=state.webhook,
            attendants=len(self._attending),
            held=len(state.held),
            sending=len(state.sending),
            failures=state.failures,
        )

    def _new_actor(self) -> OutboxActor:
        here = self.surroundings
        state = OutboxState(
            policy=OutboxPolicy(give_up_after=here.settings.notify_give_up, claim=CLAIM),
            webhook=self._webhook is not None,
            attendants=tuple(self._attending),
        )
        operations = OutboxOperations(
            here.store, self._webhook, here.settings.notify_webhook_url, lambda: here.matrix
        )
        return Actor("outbox", state, machine.handle, _Shell(operations, self), here.moment)

    def offer(self, effect: OfferNotification) -> None:
        attendance = self._attending.get(effect.attendant)
        if attendance is not None:  # else it leaves at this moment, and says so
            attendance.offer(partial(self._end_of, effect.job))

    async def _end_of(self, job: JobId) -> Announcement | None:
        said = await words_of(self.surroundings.store, job)
        if said is None:
            return None
        return Announcement(id=job, matter=matter_of_end(said[0]), job=said[0], text=said[1])


@define(eq=False)
class _Shell:
    operations: OutboxOperations
    outbox: Outbox

    async def perform(self, operation: OutboxOperation, post: Post[OutboxMessage]) -> OutboxMessage:
        return await self.operations.perform(operation, post)

    def fired(self, timer: OutboxTimer) -> OutboxMessage:
        return OutboxTimerFired(timer=timer)

    def deliver(self, effect: OutboxEffect) -> None:
        if isinstance(effect, OfferNotification):
            self.outbox.offer(effect)
        elif isinstance(effect, HangUp):
            self.operations.hang_up()

    async def record(self, records: tuple[Record, ...], notices: tuple[Notice, ...], at: float) -> None:
        await self.outbox.surroundings.store.append(records, notices, at=at)
        for notice in notices:
            if isinstance(notice, NotificationFailed):
                _log.warning(
                    "OpenClaw was not told that %s has settled: %s (%s)",
                    notice.about,
                    notice.reason,
                    notice.hint,
                )
