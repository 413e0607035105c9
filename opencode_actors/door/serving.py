"""The sockets: who is let in, how many, and how all of them are told that it ends.

Each connection is on its own: whatever a peer sends, or a library makes of it, ends that connection alone.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address
from pathlib import Path

import trio
from attrs import define, field, frozen
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, wrap_server_stream
from wsproto.utilities import ProtocolError

from opencode_actors.door.connection import Connection, Desk, House
from opencode_actors.door.faults import CloseCode
from opencode_actors.door.gate import TurnedAway, admit
from opencode_actors.door.limits import KIB, Limits
from opencode_actors.errors import SettingsError, UsageError

_READ_AT_ONCE = 64 * KIB
_DRAIN_WITHIN = 2.0
_LAST_WORD_WITHIN = 1.0
_NOT_UNDERSTOOD = (1002, 1007)  # a frame that breaks the protocol; a text that is not UTF-8

Listener = trio.SocketListener | trio.SSLListener[trio.SocketStream]


@frozen(kw_only=True)
class Address:
    """`certificate` and `key` are given together, or neither."""

    host: str
    port: int
    certificate: Path | None = None
    key: Path | None = None

    @property
    def is_loopback(self) -> bool:
        return ip_address(self.host).is_loopback


@define(eq=False)
class _Stream(trio.abc.Stream):
    """A peer's stream. The websocket's library waits for a request that will not come any more, and breaks
    off without a word when it cannot understand a frame: so this one says when it is closed, and why."""

    inner: trio.abc.Stream
    closed: trio.Event = field(factory=trio.Event, init=False)
    websocket: WebSocketConnection | None = field(default=None, init=False)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data: bytes | bytearray = b""
        try:
            data = await self.inner.receive_some(max_bytes)
        finally:
            if not data:
                self.closed.set()
        return data

    async def aclose(self) -> None:
        self.closed.set()
        reason = self.websocket.closed if self.websocket is not None else None
        if reason is not None and reason.code in _NOT_UNDERSTOOD:
            with trio.move_on_after(_LAST_WORD_WITHIN), suppress(trio.BrokenResourceError):
                await self.inner.send_all(bytes([0x88, 2]) + reason.code.to_bytes(2, "big"))
        await self.inner.aclose()


@frozen(kw_only=True)
class DoorStatistics:
    connections: int
    handshakes: int
    turned_away: int
    subscriptions: int
    calls: int


@define(eq=False, repr=False)
class Door:
    """Use `open_door`."""

    house: House
    token: str
    origins: Sequence[str]
    url: str
    _connections: set[Connection] = field(factory=set[Connection], init=False)
    _handshakes: int = field(default=0, init=False)
    _turned_away: int = field(default=0, init=False)
    _empty: trio.Event = field(factory=trio.Event, init=False)

    def __repr__(self) -> str:
        return f"<Door {self.url}, {len(self._connections)} connections>"

    def statistics(self) -> DoorStatistics:
        return DoorStatistics(
            connections=len(self._connections),
            handshakes=self._handshakes,
            turned_away=self._turned_away,
            subscriptions=self.house.subscriptions,
            calls=sum(connection.in_flight for connection in self._connections),
        )

    async def welcome(self, stream: trio.abc.Stream) -> None:
        """One connection, from its first byte to its last."""
        if self._handshakes >= self.house.limits.handshakes:
            self._turned_away += 1
            await trio.aclose_forcefully(stream)
            return
        await self.house.supervisor.watch("a connection", lambda: self._serve(_Stream(stream)))

    async def _serve(self, stream: _Stream) -> None:
        try:
            async with trio.open_nursery() as nursery:
                try:
                    request = await self._request(nursery, stream)
                    if request is not None:
                        await self._answer(request, stream)
                finally:
                    nursery.cancel_scope.cancel()
                    await trio.aclose_forcefully(stream)
        except* (ConnectionClosed, ProtocolError, trio.BrokenResourceError, trio.ClosedResourceError):
            self._turned_away += 1  # the peer went in the middle of something, or is no websocket

    async def _request(self, nursery: trio.Nursery, stream: _Stream) -> WebSocketRequest | None:
        limits, found = self.house.limits, list[WebSocketRequest]()

        async def wait_for_it(scope: trio.CancelScope) -> None:
            found.append(
                await wrap_server_stream(
                    nursery,
                    stream,
                    max_message_size=limits.message,
                    receive_buffer_size=_READ_AT_ONCE,
                )
            )
            scope.cancel()

        self._handshakes += 1
        try:
            with trio.move_on_after(limits.handshake_within):
                async with trio.open_nursery() as waiting:
                    waiting.start_soon(wait_for_it, waiting.cancel_scope)
                    await stream.closed.wait()
                    waiting.cancel_scope.cancel()
        finally:
            self._handshakes -= 1
        return found[0] if found else None

    async def _answer(self, request: WebSocketRequest, stream: _Stream) -> None:
        websocket = stream.websocket = await self._let_in(request)
        if websocket is None:
            return
        await self._converse(websocket)
        if websocket.closed is not None and websocket.closed.code == CloseCode.MESSAGE_TOO_BIG:
            await _drain(stream)

    async def _let_in(self, request: WebSocketRequest) -> WebSocketConnection | None:
        limits = self.house.limits
        verdict = admit(
            path=request.path,
            headers=request.headers,
            subprotocols=request.proposed_subprotocols,
            token=self.token,
            origins=self.origins,
        )
        with trio.move_on_after(limits.handshake_within):
            if isinstance(verdict, TurnedAway):
                self._turned_away += 1
                await request.reject(verdict.status, body=verdict.text.encode() + b"\n")
                return None
            websocket = await request.accept(subprotocol=verdict.subprotocol)
            if self.house.closing:
                await websocket.aclose(CloseCode.GOING_AWAY, "the service is shutting down")
                return None
            if len(self._connections) >= limits.connections:
                self._turned_away += 1
                reason = f"there are {limits.connections} connections already"
                await websocket.aclose(CloseCode.TOO_MANY_CONNECTIONS, reason)
                return None
            return websocket
        return None

    async def _converse(self, websocket: WebSocketConnection) -> None:
        connection = Connection(self.house, websocket)
        self._connections.add(connection)
        try:
            await connection.serve()
        finally:
            self._connections.discard(connection)
            if not self._connections:
                self._empty.set()

    async def close(self) -> None:
        """Every peer is told that it ends, and what waits for it is still written, within a bound."""
        self.house.closing = True
        for connection in tuple(self._connections):
            connection.close(CloseCode.GOING_AWAY, "the service is shutting down; connect again later")
        with trio.move_on_after(self.house.limits.close_within):
            await trio.lowlevel.checkpoint()
            while self._connections:
                self._empty = trio.Event()
                await self._empty.wait()


async def _drain(stream: trio.abc.Stream) -> None:
    """Reads away what a peer still sends: closing over unread bytes would reset the connection, and the
    peer would not see why."""
    with trio.move_on_after(_DRAIN_WITHIN):
        while await stream.receive_some(_READ_AT_ONCE):
            pass


@asynccontextmanager
async def open_door(
    address: Address,
    desk: Desk,
    *,
    token: str,
    report: Callable[[BaseException], str | None],
    origins: Sequence[str] = (),
    limits: Limits | None = None,
) -> AsyncGenerator[Door]:
    """A door that is open. Leaving it closes every connection. Raises `SettingsError` and `UsageError`."""
    listener, port = await _listen(address)
    async with trio.open_nursery() as nursery:
        door = Door(House(desk, limits or Limits(), nursery, report), token, origins, _url(address, port))
        nursery.start_soon(_accept, listener, door, nursery)
        try:
            yield door
        finally:
            with trio.CancelScope(shield=True) as scope:
                scope.deadline = trio.current_time() + 2 * door.house.limits.close_within
                await listener.aclose()
                await door.close()
            nursery.cancel_scope.cancel()


async def _accept(listener: Listener, door: Door, nursery: trio.Nursery) -> None:
    try:
        await trio.serve_listeners(door.welcome, [listener], handler_nursery=nursery)
    except* trio.ClosedResourceError:
        pass  # the door is being closed


async def _listen(address: Address) -> tuple[Listener, int]:
    context = _tls(address)
    try:
        (listener,) = await trio.open_tcp_listeners(address.port, host=address.host)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {address.host} port {address.port}: {error.strerror or error}",
            hint="end what uses the port, or choose another with --set doorPort=… (0: any free one)",
        ) from error
    port: int = listener.socket.getsockname()[1]
    if context is None:
        return listener, port
    return trio.SSLListener(listener, context, https_compatible=True), port


def _tls(address: Address) -> ssl.SSLContext | None:
    if address.certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(address.certificate, address.key)
    except OSError as error:  # what ssl raises is one too
        raise SettingsError(
            "doorTlsCertificate",
            f"the certificate {address.certificate} and its key cannot be used: {error}",
            hint="both are PEM files; the key belongs to the certificate and has no passphrase",
        ) from None
    return context


def _url(address: Address, port: int) -> str:
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{'ws' if address.certificate is None else 'wss'}://{host}:{port}/"
