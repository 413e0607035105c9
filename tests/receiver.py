"""A receiver of webhooks on a real socket, which does to each request what a test tells it to."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import h11
import trio
from attrs import define, field, frozen

Behaviour = Callable[[trio.SocketStream], Awaitable[None]]


@frozen
class Received:
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@define(eq=False)
class Receiver:
    """Each request gets the next of `behaviours`, and the last one for ever. `closed` counts the
    connections that the other side ended while nothing was sent any more."""

    behaviours: list[Behaviour]
    url: str = ""
    received: list[Received] = field(factory=list[Received])
    connections: int = 0
    closed: int = 0
    _news: trio.Event = field(factory=trio.Event)

    async def wait(self, count: int) -> list[Received]:
        with trio.fail_after(60):
            await trio.lowlevel.checkpoint()
            while len(self.received) < count:
                await self._news.wait()
        return self.received

    async def wait_closed(self, count: int) -> None:
        with trio.fail_after(60):
            await trio.lowlevel.checkpoint()
            while self.closed < count:
                await self._news.wait()

    async def serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        try:
            received = await _request(stream)
            behaviour = self.behaviours.pop(0) if len(self.behaviours) > 1 else self.behaviours[0]
            self.received.append(received)
            self._tell()
            await behaviour(stream)
        except trio.BrokenResourceError:
            pass  # the other side had enough
        finally:
            await trio.aclose_forcefully(stream)
            self.closed += 1
            self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()


@asynccontextmanager
async def open_receiver(*behaviours: Behaviour) -> AsyncGenerator[Receiver]:
    receiver = Receiver(list(behaviours))
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, receiver.serve, 0, host="127.0.0.1"))
        receiver.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/hooks"
        yield receiver
        nursery.cancel_scope.cancel()


async def _request(stream: trio.SocketStream) -> Received:
    http = h11.Connection(h11.SERVER)
    head, body = h11.Request(method="GET", target="/", headers=[("host", "none")]), b""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await stream.receive_some())
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
        else:
            break
    headers = {name.decode(): value.decode() for name, value in head.headers}
    return Received(head.target.decode(), headers, json.loads(body))


def answering(status: int, body: bytes = b"", *, headers: str = "") -> Behaviour:
    head = f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\n{headers}\r\n".encode()
    return saying(head + body)


def saying(data: bytes) -> Behaviour:
    """These very bytes, then the end of the connection."""

    async def behave(stream: trio.SocketStream) -> None:
        await stream.send_all(data)

    return behave


def repeating(beginning: bytes, piece: bytes) -> Behaviour:
    """Without end, until the other side closes the connection."""

    async def behave(stream: trio.SocketStream) -> None:
        await stream.send_all(beginning)
        while True:
            await stream.send_all(piece)
            await trio.lowlevel.checkpoint()

    return behave


def dripping(beginning: bytes, piece: bytes) -> Behaviour:
    """A little now and then: there is always something to read, and never an end."""

    async def behave(stream: trio.SocketStream) -> None:
        await stream.send_all(beginning)
        while True:
            await stream.send_all(piece)
            await trio.sleep(0.01)

    return behave


async def silent(stream: trio.SocketStream) -> None:
    """The request is taken; then nothing, until the other side closes the connection."""
    while await stream.receive_some():
        pass
