"""The engine's event stream: one JSON object a line, mapped to what this project waits for.

It has a connection of its own, read as the socket brings it, because a pool's streams are generators in
generators, which nobody can close in the middle.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from time import time_ns
from urllib.parse import urlencode

import h11
import trio
from attrs import define, field

from opencode_actors.adapters.engine_dialect import carries, engine_event, event_filters
from opencode_actors.adapters.engine_http import ANSWER_WITHIN, EngineWire
from opencode_actors.errors import EngineUnavailable
from opencode_actors.ports import EngineEvent

_FOLLOWING = "follow its events"
_READ = 64 << 10
# An event is some hundred bytes and its container's labels.
_LINE_LIMIT = 1 << 20


@asynccontextmanager
async def open_events(
    wire: EngineWire, labels: Mapping[str, str]
) -> AsyncGenerator[AsyncIterator[EngineEvent]]:
    """See `Engine.events`. Entered when the engine has begun to answer."""
    since = time_ns()
    # From the second before on: Podman answers before its reader has begun to read.
    query = urlencode({"filters": event_filters(labels), "since": str(since // 10**9)})
    with wire.holding():
        async with await _connect(wire) as stream:
            events = _Events(wire, stream, labels, since)
            with trio.move_on_after(ANSWER_WITHIN) as scope:
                await events.begin(f"{wire.prefix}/events?{query}")
            if scope.cancelled_caught:
                raise wire.lost("it took the request and did not answer in time", _FOLLOWING)
            yield events


async def _connect(wire: EngineWire) -> trio.SocketStream:
    try:
        return await trio.open_unix_socket(wire.socket)
    except OSError:
        await wire.look_again()
    try:
        return await trio.open_unix_socket(wire.socket)
    except OSError as error:
        raise wire.lost(str(error), _FOLLOWING) from error


@define
class _Events:
    _wire: EngineWire = field(repr=False)
    _stream: trio.SocketStream = field(repr=False)
    _labels: Mapping[str, str]
    _since: int
    _http: h11.Connection = field(factory=lambda: h11.Connection(h11.CLIENT), repr=False)
    _unread: bytearray = field(factory=bytearray, repr=False)
    _seen: int = 0

    async def begin(self, target: str) -> None:
        request = h11.Request(
            method="GET", target=target, headers=[("host", "engine"), ("connection", "close")]
        )
        asked = (self._http.send(request) or b"") + (self._http.send(h11.EndOfMessage()) or b"")
        try:
            await self._stream.send_all(asked)
        except trio.BrokenResourceError as error:
            raise self._lost() from error
        answer = await self._next()
        if not isinstance(answer, h11.Response):
            raise self._lost()
        if answer.status_code >= 400:
            body = b""
            while isinstance(data := await self._next(), h11.Data):
                body += bytes(data.data)
            raise self._wire.refused(answer.status_code, body, _FOLLOWING)

    def __aiter__(self) -> AsyncIterator[EngineEvent]:
        return self

    async def __anext__(self) -> EngineEvent:
        while True:
            event = self._parse(await self._line())
            if event is not None:
                self._seen += 1
                return event

    async def _line(self) -> bytes:
        while (end := self._unread.find(b"\n")) < 0:
            data = await self._next()
            if not isinstance(data, h11.Data):
                raise self._lost()
            self._unread += data.data
            if len(self._unread) > _LINE_LIMIT:
                raise self._wire.lost(f"an event has more than {_LINE_LIMIT} bytes", _FOLLOWING)
        line = bytes(self._unread[:end])
        del self._unread[: end + 1]
        return line

    async def _next(self) -> object:
        """The next of h11's events, reading on as it needs."""
        await trio.lowlevel.checkpoint()
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                self._http.receive_data(await self._stream.receive_some(_READ))
        except (trio.BrokenResourceError, h11.RemoteProtocolError) as error:
            raise self._lost() from error
        return event

    def _parse(self, line: bytes) -> EngineEvent | None:
        if not line.strip():
            return None
        try:
            when_and_event = engine_event(json.loads(line))
        except ValueError as error:
            raise self._wire.lost(f"it sent what is no event: {line[:80]!r}", _FOLLOWING) from error
        if when_and_event is None:
            return None
        when, event = when_and_event
        if when < self._since or not carries(event.labels, self._labels):
            return None
        return event

    def _lost(self) -> EngineUnavailable:
        return self._wire.lost("the event stream ended", _FOLLOWING)
