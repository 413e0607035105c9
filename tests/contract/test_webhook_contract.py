"""What holds for every webhook, the one in memory and the one on a socket."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import trio
from attrs import frozen

from opencode_actors.adapters.openclaw_hooks import HttpWebhook
from opencode_actors.ports import HookAnswer, HookRequest, Webhook
from opencode_actors.testing.fake_webhook import TAKEN, FakeWebhook
from tests.receiver import answering, open_receiver, silent


@frozen
class Place:
    """A webhook that answers `answers`, one after the other, and what came there: keys and bodies."""

    webhook: Webhook
    url: str
    came: Callable[[], list[tuple[str, object]]]
    wait: Callable[[int], Awaitable[object]]


Open = Callable[[tuple[HookAnswer, ...]], AbstractAsyncContextManager[Place]]


@asynccontextmanager
async def in_memory(answers: tuple[HookAnswer, ...]) -> AsyncGenerator[Place]:
    fake = FakeWebhook(answers=list(answers), seconds=0.0 if answers else 3600.0)

    def came() -> list[tuple[str, object]]:
        return [(request.key, request.body) for request in fake.requests]

    yield Place(fake, "http://memory/hooks/wake", came, fake.wait)
    assert fake.in_flight == 0


@asynccontextmanager
async def on_a_socket(answers: tuple[HookAnswer, ...]) -> AsyncGenerator[Place]:
    behaviours = [answering(answer.status or 0, _words(answer)) for answer in answers] or [silent]
    async with open_receiver(*behaviours) as receiver:
        webhook = HttpWebhook(token="t-1", within=60.0, wall=lambda: 0.0)

        def came() -> list[tuple[str, object]]:
            return [(one.headers["idempotency-key"], one.body) for one in receiver.received]

        yield Place(webhook, f"{receiver.url}/wake", came, receiver.wait)
        await webhook.aclose()
        await receiver.wait_closed(receiver.connections)


def _words(answer: HookAnswer) -> bytes:
    return answer.said.partition(": ")[2].encode()


@pytest.fixture(params=[in_memory, on_a_socket])
def place(request: pytest.FixtureRequest) -> Open:
    opened: Open = request.param
    return opened


def request_to(place: Place, key: str = "job_1") -> HookRequest:
    return HookRequest(url=place.url, key=key, body={"text": key})


async def test_each_request_comes_with_its_key_and_has_its_answer(place: Open) -> None:
    refused = HookAnswer(status=400, said="HTTP 400: no such key")
    async with place((TAKEN, refused)) as there:
        assert await there.webhook.post(request_to(there)) == TAKEN
        assert await there.webhook.post(request_to(there, "job_2")) == refused
        assert there.came() == [("job_1", {"text": "job_1"}), ("job_2", {"text": "job_2"})]


async def test_an_attempt_that_is_cancelled_is_over(place: Open) -> None:
    async with place(()) as there, trio.open_nursery() as nursery:
        nursery.start_soon(there.webhook.post, request_to(there))
        await there.wait(1)
        nursery.cancel_scope.cancel()
