"""The server's one event stream, `/global/event`, on one held connection."""

from __future__ import annotations

import math
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import chain, repeat

import trio
from attrs import define, field

from opencode_actors.adapters.opencode_connection import Response, get, unreachable
from opencode_actors.adapters.opencode_events import decode_batch
from opencode_actors.adapters.opencode_replies import refused
from opencode_actors.adapters.sse import EventParser, EventTooLarge
from opencode_actors.errors import ServerSilent, ServerUnintelligible
from opencode_actors.machines.server_events import ServerEvent
from opencode_actors.ports import Endpoint

PATH = "/global/event"  # `/event` shows one directory only, and is closed when its instance goes
# It stands within 15 ms, or 0.2 s when its instance has to be loaded first. In a burst the server has been seen to answer a new
# connection after 8.6 s, and nothing is won by giving up on one that is merely busy.
_STANDS_WITHIN = 15.0


# A knock that came too early is never heard. The next ones come after these times, the last one repeated:
# one or two knocks are enough on a quiet server, and the answers of a busy one may come late.
_KNOCK_AGAIN_AFTER = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)

# Makes the server publish an event that carries this word.
Knock = Callable[[str], Awaitable[None]]


@asynccontextmanager
async def open_events(
    endpoint: Endpoint, knock: Knock
) -> AsyncGenerator[AsyncIterator[tuple[ServerEvent, ...]], None]:
    """See `OpenCodeServer.events`.

    The server says `server.connected` first and subscribes to its own events after that: of events that
    were caused at once, two of three were never told. So the stream is believed only when something that
    was published for its sake has come through it.
    """
    with trio.CancelScope(deadline=trio.current_time() + _STANDS_WITHIN) as scope:
        async with get(endpoint, PATH) as response:
            _check(response)
            batches = _Batches(response, endpoint)
            await batches.wait_standing(knock)
            scope.deadline = math.inf  # silence later on is judged by the age of the last heartbeat
            yield batches
    if scope.cancelled_caught:
        raise ServerSilent(
            f"{endpoint.url}{PATH}: the event stream does not stand after {_STANDS_WITHIN:g} s"
        )


def _check(response: Response) -> None:
    if response.status != 200:
        raise refused(response.status, b"", what=f"GET {PATH}")
    if not response.content_type.startswith("text/event-stream"):
        raise ServerUnintelligible(f"GET {PATH} is answered with {response.content_type!r}, not with events")


@define
class _Batches:
    """Each item is what one read of the socket brought; reads that complete no event are no items."""

    _response: Response
    _endpoint: Endpoint
    _parser: EventParser = field(factory=EventParser)
    _first: list[bytes] = field(factory=list[bytes])  # came before the stream was known to stand

    def __aiter__(self) -> _Batches:
        return self

    async def __anext__(self) -> tuple[ServerEvent, ...]:
        if self._first:
            await trio.lowlevel.checkpoint()
            first, self._first = self._first, []
            return decode_batch(first)
        while not (batch := decode_batch(await self._frames())):
            pass
        return batch

    async def wait_standing(self, knock: Knock) -> None:
        word = secrets.token_hex(8)
        while not (frames := await self._frames()):
            pass
        self._first = frames[1:]  # the first of all says only that it is the first
        for wait in chain(_KNOCK_AGAIN_AFTER, repeat(_KNOCK_AGAIN_AFTER[-1])):
            await knock(word)
            with trio.move_on_after(wait) as scope:
                await self._wait_heard(word.encode())
            if not scope.cancelled_caught:
                return

    async def _wait_heard(self, word: bytes) -> None:
        heard = any(word in frame for frame in self._first)
        while not heard:
            frames = await self._frames()
            self._first += frames
            heard = any(word in frame for frame in frames)

    async def _frames(self) -> list[bytes]:
        received = await self._response.receive()
        if received is None:
            raise unreachable(self._endpoint.url, "the event stream ended")
        try:
            return self._parser.feed(received)
        except EventTooLarge as wrong:
            raise ServerUnintelligible(f"GET {PATH}: {wrong}") from wrong
