"""A client of the front door: calls with one answer each, and the notices of what is followed."""

from __future__ import annotations

import itertools
import json
import math
import ssl
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import trio
from attrs import define, field
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    HandshakeError,
    WebSocketConnection,
    wrap_client_stream,
)

from opencode_actors.door.faults import CloseCode
from opencode_actors.door.files import Whereabouts, door_file, find_door, read_token
from opencode_actors.door.frames import encode
from opencode_actors.door.limits import MIB
from opencode_actors.error_groups import leaves
from opencode_actors.errors import CallRefused, NoService, OpencodeActorsError

Document = dict[str, Any]
Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]

_CONNECT_WITHIN = 10.0
# A frame of the door's is at most one batch of answers.
_LARGEST_FRAME = 64 * MIB
_UNAUTHORIZED = 401

START_ONE = "start one with `opencode-actors serve`, or install it with `opencode-actors service install`"


@define(eq=False)
class _Waiting:
    answered: trio.Event = field(factory=trio.Event, init=False)
    answer: Document = field(factory=dict[str, Any], init=False)


@define(eq=False, repr=False)
class Client:
    """Use `open_client`."""

    websocket: WebSocketConnection
    _calls: dict[int, _Waiting] = field(factory=dict[int, _Waiting], init=False)
    _numbers: Iterator[int] = field(factory=lambda: itertools.count(1), init=False)
    _told: tuple[trio.MemorySendChannel[Document], trio.MemoryReceiveChannel[Document]] = field(
        factory=lambda: trio.open_memory_channel[Document](64), init=False
    )
    _lost: NoService | None = field(default=None, init=False)

    async def call(self, method: str, **params: object) -> Document:
        """Params that are None are not sent. Raises `CallRefused`, and `NoService` when the connection ends
        first; whether the call was heard is not known then."""
        number, waiting = next(self._numbers), _Waiting()
        self._calls[number] = waiting
        given = {name: value for name, value in params.items() if value is not None}
        try:
            await self.websocket.send_message(
                encode({"jsonrpc": "2.0", "id": number, "method": method, "params": given})
            )
            await waiting.answered.wait()
        except ConnectionClosed as closed:
            raise _gone(closed) from None
        finally:
            del self._calls[number]
        if not waiting.answer:
            raise self._lost or NoService("the connection has ended", hint=START_ONE)
        if "error" in waiting.answer:
            raise _refused(waiting.answer["error"])
        return cast(Document, waiting.answer["result"])

    async def told(self) -> Document:
        """The next notification, as it came. Raises `NoService` when the connection has ended."""
        try:
            return await self._told[1].receive()
        except trio.EndOfChannel:
            raise self._lost or NoService("the connection has ended", hint=START_ONE) from None

    async def read(self) -> None:
        """What comes, to whom it belongs. Waits while notices are not read."""
        try:
            async with self._told[0]:
                while True:
                    await self._take(json.loads(await self.websocket.get_message()))
        except ConnectionClosed as closed:
            self._lost = _gone(closed)
        finally:
            for waiting in self._calls.values():
                waiting.answered.set()

    async def _take(self, message: Document) -> None:
        if "method" in message:
            await self._told[0].send(message)
            return
        waiting = self._calls.get(message["id"])
        if waiting is not None:
            waiting.answer = message
            waiting.answered.set()


@asynccontextmanager
async def open_client(sessions_dir: Path) -> AsyncGenerator[Client]:
    """A connection to the service of this directory. Raises `NoService` and `StoreError`."""
    where = find_door(door_file(sessions_dir))
    if where is None:
        raise NoService(f"no service runs for {sessions_dir}", hint=START_ONE)
    try:
        token = read_token(where.token_file)
    except OSError as error:
        raise NoService(
            f"the service's token {where.token_file} cannot be read: {error.strerror}",
            hint="run this as the user who runs the service",
        ) from error
    async with connect(where, token) as client:
        yield client


@asynccontextmanager
async def connect(where: Whereabouts, token: str) -> AsyncGenerator[Client]:
    """Raises `NoService`."""
    rejected: list[HandshakeError] = []
    failed: OpencodeActorsError | None = None
    with trio.CancelScope(deadline=trio.current_time() + _CONNECT_WITHIN) as opening:
        try:
            async with await _stream(where) as stream, trio.open_nursery() as nursery:
                websocket = await _handshake(nursery, stream, where, token)
                opening.deadline = math.inf
                client = Client(websocket)
                nursery.start_soon(client.read)
                try:
                    yield client
                except OpencodeActorsError as error:
                    failed = error  # raised below, as it is: the nursery is nobody's business
                finally:
                    # Without the closing handshake: the library fails on a ping that comes in its middle.
                    nursery.cancel_scope.cancel()
        except* HandshakeError as group:
            # The library's reader raises it into the nursery.
            rejected.extend(error for error in leaves(group) if isinstance(error, HandshakeError))
    if failed is not None:
        raise failed
    if rejected:
        raise _not_let_in(rejected[0], where)
    if opening.cancelled_caught:
        raise NoService(
            f"the service at {where.url} (process {where.pid}) does not answer",
            hint="look at its log; `systemctl --user restart opencode-actors` starts it anew",
        )


async def _stream(where: Whereabouts) -> Stream:
    parts = urlsplit(where.url)
    host, port = parts.hostname or "", parts.port or 0
    try:
        stream = await trio.open_tcp_stream(host, port)
    except OSError as error:
        raise NoService(
            f"nobody listens at {where.url}: the service that was there (process {where.pid}) has ended",
            hint=START_ONE,
        ) from error
    if parts.scheme != "wss":
        return stream
    # The service and this client are on one host, so its very certificate is what is trusted.
    context = ssl.create_default_context(cafile=where.certificate)
    context.check_hostname = where.certificate is None
    return trio.SSLStream(stream, context, server_hostname=host, https_compatible=True)


async def _handshake(
    nursery: trio.Nursery, stream: Stream, where: Whereabouts, token: str
) -> WebSocketConnection:
    parts = urlsplit(where.url)
    try:
        return await wrap_client_stream(
            nursery,
            stream,
            parts.netloc,
            parts.path or "/",
            extra_headers=[(b"Authorization", f"Bearer {token}".encode())],
            message_queue_size=16,
            max_message_size=_LARGEST_FRAME,
        )
    except (OSError, trio.BrokenResourceError) as error:
        raise _not_let_in(error, where) from None


def _not_let_in(error: Exception, where: Whereabouts) -> NoService:
    said = f"the service at {where.url} does not let this client in"
    if isinstance(error, ConnectionRejected) and error.status_code == _UNAUTHORIZED:
        return NoService(
            f"{said}: the token is not its own",
            hint=f"the service may be another user's, or {where.token_file} was changed since it started",
        )
    return NoService(f"{said}: {error!r}", hint=START_ONE)


def _gone(closed: ConnectionClosed) -> NoService:
    reason = closed.reason
    if reason is None or not reason.reason:
        return NoService("the service has closed the connection", hint=START_ONE)
    again = "follow again" if reason.code == CloseCode.TOO_SLOW else START_ONE
    return NoService(f"the service has closed the connection: {reason.reason}", hint=again)


def _refused(error: Document) -> CallRefused:
    data: Document = error.get("data") or {}
    return CallRefused(
        str(error["message"]),
        code=int(error["code"]),
        cause=str(data.get("cause", "")),
        hint=str(data.get("hint", "")),
    )
