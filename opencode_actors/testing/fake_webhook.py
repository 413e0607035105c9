"""A webhook in memory, for tests on virtual time: it answers what it is told to."""

from __future__ import annotations

import trio
from attrs import define, field

from opencode_actors.ports import HookAnswer, HookRequest

TAKEN = HookAnswer(status=200, said="HTTP 200")


@define(eq=False)
class FakeWebhook:
    """The next of `answers` for each request, and `then` when there are no more. Each takes `seconds`."""

    answers: list[HookAnswer] = field(factory=list[HookAnswer])
    then: HookAnswer = TAKEN
    seconds: float = 0.0
    requests: list[HookRequest] = field(factory=list[HookRequest])
    in_flight: int = 0
    most_in_flight: int = 0
    _news: trio.Event = field(factory=trio.Event)

    async def post(self, request: HookRequest) -> HookAnswer:
        self.requests.append(request)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self._news.set()
        self._news = trio.Event()
        try:
            await trio.sleep(self.seconds)
        finally:
            self.in_flight -= 1
        return self.answers.pop(0) if self.answers else self.then

    async def wait(self, count: int) -> list[HookRequest]:
        """Until there have been so many requests."""
        while len(self.requests) < count:
            await self._news.wait()
        return self.requests
