"""One HTTP connection of the scripted provider, and the two shapes of an answer on it.

h11 speaks the protocol; this file only moves bytes between it and the stream.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import h11
import trio
from attrs import define, field

_READ = 64 << 10
_LARGEST_BODY = 64 << 20  # a long conversation with tool output is some MB; this only stops a runaway
_PIECES_A_SEND = 64  # pieces without a rate go out in bunches: 65,536 single sends take seconds


class HungUp(Exception):
    """The client closed the connection in the middle of something."""


@define
class HttpConnection:
    """The server's side of one connection, one request after the other."""

    _stream: trio.SocketStream
    _http: h11.Connection = field(factory=lambda: h11.Connection(h11.SERVER))
    _ahead: bytes = b""

    async def next_request(self) -> tuple[h11.Request, bytes] | None:
        """The next request with its body; None when the client is done."""
        if self._http.our_state is h11.MUST_CLOSE:
            return None
        if self._http.our_state is h11.DONE:
            self._http.start_next_cycle()
        request: h11.Request | None = None
        body = bytearray()
        while True:
            event = await self._next_event()
            match event:
                case h11.Request():
                    request = event
                case h11.Data():
                    body += event.data
                    if len(body) > _LARGEST_BODY:
                        raise HungUp
                case h11.EndOfMessage():
                    return (request, bytes(body)) if request is not None else None
                case _:
                    return None

    async def _next_event(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue:
                await self.send(h11.InformationalResponse(status_code=100, headers=[]))
            self._http.receive_data(self._ahead or await self._receive())
            self._ahead = b""
        return event

    async def _receive(self) -> bytes:
        try:
            return bytes(await self._stream.receive_some(_READ))
        except trio.BrokenResourceError as broken:
            raise HungUp from broken

    async def wait_hang_up(self) -> None:
        """Returns when the client closed. To be awaited while an answer is written."""
        while True:
            received = await self._receive()
            if not received:
                return
            self._ahead += received

    async def send(self, *events: h11.Event) -> None:
        data = b"".join(self._http.send(event) or b"" for event in events)
        try:
            await self._stream.send_all(data)
        except trio.BrokenResourceError as broken:
            raise HungUp from broken

    async def send_json(self, status: int, body: object, headers: Mapping[str, str] | None = None) -> None:
        await self.send_whole(status, json.dumps(body).encode(), headers)

    async def send_whole(self, status: int, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        await self.send(
            h11.Response(
                status_code=status,
                headers=[
                    ("content-type", "application/json"),
                    ("content-length", str(len(data))),
                    *(headers or {}).items(),
                ],
            ),
            h11.Data(data=data),
            h11.EndOfMessage(),
        )


# ---- chat completions


class Answer(Protocol):
    """Where the steps of a script are written to."""

    async def begin(self) -> None: ...
    async def text(self, pieces: Sequence[str], *, reasoning: bool) -> None: ...
    async def tool_call(self, index: int, name: str, arguments: str) -> None: ...
    async def raw(self, line: str) -> None: ...
    async def end(self, finish: str, usage: Mapping[str, int]) -> None: ...


@define
class StreamedAnswer:
    """Server-sent events, as `"stream": true` asks for."""

    _connection: HttpConnection
    _model: str
    _begun: bool = False
    _head: str = ""

    async def begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        about = {
            "id": "chatcmpl-scripted",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": self._model,
        }
        self._head = json.dumps(about)[:-1]
        # `chunked` is what h11 makes of a response without a length
        headers = [("content-type", "text/event-stream"), ("cache-control", "no-cache")]
        await self._connection.send(h11.Response(status_code=200, headers=headers))

    async def text(self, pieces: Sequence[str], *, reasoning: bool) -> None:
        name = "reasoning_content" if reasoning else "content"
        for at in range(0, len(pieces), _PIECES_A_SEND):
            await self._choices({name: piece} for piece in pieces[at : at + _PIECES_A_SEND])

    async def tool_call(self, index: int, name: str, arguments: str) -> None:
        await self._choices([{"tool_calls": [_tool_call(index, name, arguments)]}])

    async def raw(self, line: str) -> None:
        await self.begin()
        await self._send(f"data: {line}\n\n")

    async def end(self, finish: str, usage: Mapping[str, int]) -> None:
        await self.begin()
        last = f'data: {self._head}, "choices": [], "usage": {json.dumps(usage)}}}\n\ndata: [DONE]\n\n'
        # in one go: clients hang up at the last line, and that is no hanging up in the middle
        data = (self._line({}, finish) + last).encode()
        await self._connection.send(h11.Data(data=data), h11.EndOfMessage())

    async def _choices(self, deltas: Iterable[Mapping[str, object]]) -> None:
        await self.begin()
        await self._send("".join(self._line(delta) for delta in deltas))

    def _line(self, delta: Mapping[str, object], finish: str | None = None) -> str:
        choice = f'{{"index": 0, "delta": {json.dumps(delta)}, "finish_reason": {json.dumps(finish)}}}'
        return f'data: {self._head}, "choices": [{choice}]}}\n\n'

    async def _send(self, text: str) -> None:
        await self._connection.send(h11.Data(data=text.encode()))


@define
class WholeAnswer:
    """One JSON object, for requests that do not stream."""

    _connection: HttpConnection
    _model: str
    _content: list[str] = field(factory=list[str])
    _reasoning: list[str] = field(factory=list[str])
    _tool_calls: list[Mapping[str, object]] = field(factory=list[Mapping[str, object]])
    _spoilt: list[str] = field(factory=list[str])

    async def begin(self) -> None:
        """Nothing is sent before the end is known."""

    async def text(self, pieces: Sequence[str], *, reasoning: bool) -> None:
        (self._reasoning if reasoning else self._content).extend(pieces)

    async def tool_call(self, index: int, name: str, arguments: str) -> None:
        self._tool_calls.append(_tool_call(index, name, arguments))

    async def raw(self, line: str) -> None:
        self._spoilt.append(line)

    async def end(self, finish: str, usage: Mapping[str, int]) -> None:
        if self._spoilt:
            await self._connection.send_whole(200, "\n".join(self._spoilt).encode())
            return
        message: dict[str, object] = {"role": "assistant", "content": "".join(self._content)}
        if self._reasoning:
            message["reasoning_content"] = "".join(self._reasoning)
        if self._tool_calls:
            message["tool_calls"] = self._tool_calls
        body = {
            "id": "chatcmpl-scripted",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": self._model,
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
            "usage": usage,
        }
        await self._connection.send_json(200, body)


def _tool_call(index: int, name: str, arguments: str) -> Mapping[str, object]:
    return {
        "index": index,
        "id": f"call_{time.monotonic_ns():x}_{index}",
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }
