"""A real door on a real socket, with a desk behind it that does what a test wants; and peers of every kind."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
from attrs import define, evolve, field
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from opencode_actors.door.commands import Command, Follow, Output, Start
from opencode_actors.door.connection import Guest
from opencode_actors.door.frames import encode
from opencode_actors.door.limits import Limits
from opencode_actors.door.results import Document
from opencode_actors.door.serving import Address, Door, open_door
from opencode_actors.kernel.hub import Allowance, Following, Hub, NoticesMissed
from opencode_actors.machines.notices import Notice, OutputAdded, OutputKind
from opencode_actors.machines.vocabulary import JobId, SessionKey

TOKEN = "a-token-for-tests-only"
PLENTY = 60  # seconds; nothing here waits for time
JOB, SESSION = JobId("job_1"), SessionKey("demo")


@define
class FakeDesk:
    """Answers at once, but for `cancel`, which waits for `settled`."""

    hub: Hub = field(factory=Hub)
    started: list[Start] = field(factory=list[Start])
    gone_guests: int = 0
    settled: trio.Event = field(factory=trio.Event)
    asked: trio.Event = field(factory=trio.Event)
    on_start: Callable[[Start], Awaitable[None]] | None = None

    async def perform(self, command: Command, _: Guest) -> Document:
        self.asked.set()
        match command:
            case Output():
                return {"text": "x" * command.limit}
            case Start():
                if self.on_start is not None:
                    await self.on_start(command)
                self.started.append(command)
                return {"jobId": f"job_{len(self.started)}"}
            case _:
                name = type(command).__name__.lower()
                if name == "cancel":
                    await self.settled.wait()
                if name == "sessions":
                    raise RuntimeError("a bug, for tests")
                await trio.lowlevel.checkpoint()
                return {"did": name}

    async def follow(self, _: Follow, allowance: Allowance) -> tuple[Following, int]:
        await trio.lowlevel.checkpoint()
        return self.hub.follow(allowance=allowance), self.hub.position

    async def words(self, notice: Notice | NoticesMissed) -> str:
        await trio.lowlevel.checkpoint()
        if isinstance(notice, NoticesMissed):
            return encode({"kind": "missed", "count": notice.count})
        return encode({"kind": "output", "text": getattr(notice, "text", "")})

    def lasts(self, command: Command) -> bool:
        return isinstance(command, Start)

    def gone(self, _: Guest) -> None:
        self.gone_guests += 1

    def say(self, text: str) -> None:
        self.hub.publish(OutputAdded(job=JOB, session=SESSION, kind=OutputKind.TEXT, offset=0, text=text))


@asynccontextmanager
async def a_door(desk: FakeDesk | None = None, **limits: Any) -> AsyncGenerator[Door]:
    with trio.fail_after(PLENTY):
        async with open_door(
            Address(host="127.0.0.1", port=0),
            desk or FakeDesk(),
            token=TOKEN,
            report=lambda _: "crash.txt",
            limits=evolve(Limits(ping_every=1000, close_within=1.0), **limits),
        ) as door:
            yield door


@asynccontextmanager
async def a_peer(door: Door, *, token: str = TOKEN, most: int = 64 << 20) -> AsyncGenerator[Peer]:
    headers = [(b"Authorization", f"Bearer {token}".encode())]
    # By hand: the library's own way in leaves the socket open when it is refused.
    async with await raw_stream(door) as stream, trio.open_nursery() as nursery:
        try:
            websocket = await wrap_client_stream(
                nursery, stream, "door", "/", extra_headers=headers, max_message_size=most
            )
            yield Peer(websocket)
        finally:
            nursery.cancel_scope.cancel()


@define
class Peer:
    websocket: WebSocketConnection
    _serial: int = 0
    notices: list[Document] = field(factory=list[Document])

    async def send(self, value: object) -> None:
        await self.websocket.send_message(value if isinstance(value, str | bytes) else json.dumps(value))

    async def receive(self) -> Any:
        return json.loads(await self.websocket.get_message())

    async def call(self, method: str, **params: object) -> Any:
        """The answer to it; notices that come before are kept."""
        self._serial += 1
        await self.send({"jsonrpc": "2.0", "id": self._serial, "method": method, "params": params})
        while True:
            message: Document = await self.receive()
            if "method" in message:
                self.notices.append(message)
                continue
            assert message["id"] == self._serial
            return message.get("result", message.get("error"))

    async def notice(self) -> Document:
        if self.notices:
            return self.notices.pop(0)
        message: Document = await self.receive()
        assert "method" in message
        return message

    async def close_code(self) -> int:
        """Reads until the door closes."""
        try:
            while True:
                await self.websocket.get_message()
        except ConnectionClosed as closed:
            return int(closed.reason.code) if closed.reason is not None else 0


@asynccontextmanager
async def a_raw_peer(
    door: Door, *, headers: str = f"Authorization: Bearer {TOKEN}\r\n"
) -> AsyncGenerator[trio.SocketStream]:
    """A websocket by hand, for what a good library does not do. It is open when this is entered."""
    async with await raw_stream(door) as stream:
        await stream.send_all(
            f"GET / HTTP/1.1\r\nHost: door\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{headers}"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += await stream.receive_some(1)
        assert answer.startswith(b"HTTP/1.1 101"), answer
        yield stream


async def upgrade_status(door: Door, headers: str) -> int:
    """What the door says to a request to come in."""
    async with await raw_stream(door) as stream:
        await stream.send_all(
            f"GET / HTTP/1.1\r\nHost: door\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{headers}"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        answer = b""
        while b"\r\n" not in answer:
            answer += await stream.receive_some(1)
        return int(answer.split()[1])


async def raw_stream(door: Door) -> trio.SocketStream:
    return await trio.open_tcp_stream("127.0.0.1", int(door.url.rsplit(":", 1)[1].strip("/")))


TEXT, BINARY, CLOSE, PING = 1, 2, 8, 9


def frame(payload: bytes, opcode: int = TEXT, *, length: int | None = None, last: bool = True) -> bytes:
    """A client's frame, masked with zeros; `length` is what it says it has."""
    size = len(payload) if length is None else length
    head = bytes([(0x80 if last else 0) | opcode])
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 1 << 16:
        head += bytes([0x80 | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([0x80 | 127]) + size.to_bytes(8, "big")
    return head + bytes(4) + payload


async def read_close_code(stream: trio.SocketStream) -> int:
    """Reads the door's frames until it says that it closes; 0 when the connection just ends."""
    data = b""

    async def more(size: int) -> bytes:
        nonlocal data
        while len(data) < size:
            piece = await stream.receive_some(1 << 16)
            if not piece:
                raise trio.BrokenResourceError
            data += piece
        taken, data = data[:size], data[size:]
        return taken

    try:
        while True:
            opcode, size = await more(2)
            if size == 126:
                size = int.from_bytes(await more(2), "big")
            elif size == 127:
                size = int.from_bytes(await more(8), "big")
            payload = await more(size)
            if opcode & 15 == CLOSE:
                return int.from_bytes(payload[:2], "big")
    except trio.BrokenResourceError:
        return 0
