"""The server's one event stream, `/global/event`, on one held connection."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

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
# The first event comes within milliseconds. In a burst the server has been seen to answer a new
# connection after 8.6 s, and nothing is won by giving up on one that is merely busy.
_STANDS_WITHIN = 15.0


@asynccontextmanager
async def open_events(endpoint: Endpoint) -> AsyncGenerator[AsyncIterator[tuple[ServerEvent, ...]], None]:
    """See `OpenCodeServer.events`."""
    with trio.CancelScope(deadline=trio.current_time() + _STANDS_WITHIN) as scope:
        async with get(endpoint, PATH) as response:
            batches = await _standing(response, endpoint)
            scope.deadline = math.inf  # silence later on is judged by the age of the last heartbeat
            yield batches
    if scope.cancelled_caught:
        raise ServerSilent(f"{endpoint.url}{PATH}: no first event within {_STANDS_WITHIN:g} s")


async def _standing(response: Response, endpoint: Endpoint) -> _Batches:
    if response.status != 200:
        raise refused(response.status, b"", what=f"GET {PATH}")
    if not response.content_type.startswith("text/event-stream"):
        raise ServerUnintelligible(f"GET {PATH} is answered with {response.content_type!r}, not with events")
    batches = _Batches(response, endpoint)
    await batches.wait_first()
    return batches


@define
class _Batches:
    """Each item is what one read of the socket brought; reads that complete no event are no items."""

    _response: Response
    _endpoint: Endpoint
    _parser: EventParser = field(factory=EventParser)
    _first: tuple[ServerEvent, ...] = ()

    def __aiter__(self) -> _Batches:
        return self

    async def __anext__(self) -> tuple[ServerEvent, ...]:
        if self._first:
            await trio.lowlevel.checkpoint()
            first, self._first = self._first, ()
            return first
        while not (batch := decode_batch(await self._frames())):
            pass
        return batch

    async def wait_first(self) -> None:
        """The first event says that the stream stands; what came with it is the first batch."""
        while not (frames := await self._frames()):
            pass
        self._first = decode_batch(frames[1:])

    async def _frames(self) -> list[bytes]:
        received = await self._response.receive()
        if received is None:
            raise unreachable(self._endpoint.url, "the event stream ended")
        try:
            return self._parser.feed(received)
        except EventTooLarge as wrong:
            raise ServerUnintelligible(f"GET {PATH}: {wrong}") from wrong
