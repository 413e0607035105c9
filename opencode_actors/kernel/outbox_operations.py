"""What the outbox has done for it: its rows read, a batch of them sent."""

from __future__ import annotations

from typing import assert_never

import trio
from attrs import define

from opencode_actors.kernel.actor import Post
from opencode_actors.machines.notification import TAIL, in_words, requests_for
from opencode_actors.machines.outbox_messages import (
    LookForNotifications,
    Notification,
    NotificationAnswered,
    OutboxMessage,
    OutboxOperation,
    SendingOver,
    SendNotifications,
)
from opencode_actors.machines.vocabulary import JobId, JobSnapshot
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

    async def perform(self, operation: OutboxOperation, post: Post[OutboxMessage]) -> OutboxMessage:
        match operation:
            case LookForNotifications():
                return await self.store.notifications(operation)
            case SendNotifications():
                async with trio.open_nursery() as nursery:
                    for one in operation.batch:
                        nursery.start_soon(self._send, one, post)
                return SendingOver()
            case _:
                assert_never(operation)

    async def _send(self, one: Notification, post: Post[OutboxMessage]) -> None:
        await post(NotificationAnswered(job=one.job, answer=await self._answer(one.job)))

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
    return known.snapshot, in_words(known.snapshot, await tail_of(store, known.snapshot))


async def tail_of(store: Store, job: JobSnapshot) -> str:
    """The end of its output, a little more than is quoted."""
    limit = _LONGEST_CHARACTER * (TAIL + 2)
    tail = await store.output(job.id, offset=max(0, job.output_bytes - limit), limit=limit)
    # The first character may be the end of one that was split.
    return tail.text.lstrip("\ufffd")
