"""What the outbox has done for it: its rows read, a batch of them sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

import trio
from attrs import define, field

from opencode_actors.kernel.actor import Post
from opencode_actors.machines.chat_words import room_for
from opencode_actors.machines.matters import Matrix, matter_of_end
from opencode_actors.machines.notices import NotificationRecorded
from opencode_actors.machines.notification import TAIL, in_words, requests_for
from opencode_actors.machines.outbox_messages import (
    LookForNotifications,
    Notification,
    NotificationAnswered,
    NotificationsFound,
    OutboxMessage,
    OutboxOperation,
    SendingOver,
    SendNotifications,
)
from opencode_actors.machines.vocabulary import JobId, JobSnapshot, NotificationState
from opencode_actors.ports import HookAnswer, Webhook
from opencode_actors.store.port import Store

_BAD_REQUEST = 400
_LONGEST_CHARACTER = 4

FORGOTTEN = HookAnswer(status=410, said="the journal does not have the job any more")


@define(eq=False)
class OutboxOperations:
    """Without a `webhook` nothing is sent; the machine knows it too."""

    store: Store
    webhook: Webhook | None
    url: str
    matrix: Callable[[], Matrix]
    _attempts: set[trio.CancelScope] = field(factory=set[trio.CancelScope], init=False)
    _hung_up: bool = field(default=False, init=False)

    async def perform(self, operation: OutboxOperation, post: Post[OutboxMessage]) -> OutboxMessage:
        match operation:
            case LookForNotifications():
                return await self._look(operation)
            case SendNotifications():
                async with trio.open_nursery() as nursery:
                    for one in operation.batch:
                        nursery.start_soon(self._send, one, post)
                return SendingOver()
            case _:
                assert_never(operation)

    async def _look(self, operation: LookForNotifications) -> NotificationsFound:
        """Without those that nobody wants to hear of: they are done."""
        while True:
            found = await self.store.notifications(operation)
            unwanted = [one for one in found.found if not await self._is_wanted(one)]
            if not unwanted:
                return found
            done = (NotificationRecorded(job=one.job, state=NotificationState.DONE) for one in unwanted)
            await self.store.append(tuple(done))

    async def _is_wanted(self, one: Notification) -> bool:
        known = await self.store.job(one.job)
        if known is None:
            return True  # whoever says it finds that out
        job = known.snapshot
        channel = job.origin.channel if job.origin is not None else ""
        return self.matrix().tells(matter_of_end(job), session=job.session, channel=channel)

    async def _send(self, one: Notification, post: Post[OutboxMessage]) -> None:
        if self._hung_up:
            return
        answer = None
        with trio.CancelScope() as attempt:
            self._attempts.add(attempt)
            try:
                answer = await self._answer(one.job)
            finally:
                self._attempts.remove(attempt)
        if answer is not None:
            await post(NotificationAnswered(job=one.job, answer=answer))

    def hang_up(self) -> None:
        """What is under way ends without an answer: whoever took it may be told it again. What is about to begin does
        not."""
        self._hung_up = True
        for attempt in self._attempts:
            attempt.cancel()

    async def _answer(self, job: JobId) -> HookAnswer:
        said = await words_of(self.store, job)
        if said is None or self.webhook is None:
            return FORGOTTEN
        answer = FORGOTTEN
        for request in requests_for(*said, self.url):
            answer = await self.webhook.post(request)
            if answer.status != _BAD_REQUEST:
                break
        return answer


async def words_of(store: Store, job: JobId) -> tuple[JobSnapshot, str] | None:
    """The job, and what is said of it. None when the journal does not have it."""
    known = await store.job(job)
    if known is None:
        return None
    return known.snapshot, in_words(known.snapshot, await answer_of(store, known.snapshot))


async def answer_of(store: Store, job: JobSnapshot) -> str:
    """Its last answer, from its end a little more than is quoted; the end of its output when a tool was the last
    of it."""
    limit = _LONGEST_CHARACTER * (room_for(job.origin.channel if job.origin is not None else "") + 2)
    begin = max(job.answer_at, job.output_bytes - limit)
    said = (await store.output(job.id, offset=begin, limit=limit)).text.lstrip("\ufffd")
    return said if said.strip() else await tail_of(store, job)


async def tail_of(store: Store, job: JobSnapshot) -> str:
    """The end of its output, a little more than is quoted."""
    limit = _LONGEST_CHARACTER * (TAIL + 2)
    tail = await store.output(job.id, offset=max(0, job.output_bytes - limit), limit=limit)
    # The first character may be the end of one that was split.
    return tail.text.lstrip("\ufffd")
