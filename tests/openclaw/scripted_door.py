"""A service's front door that does what a test tells it: the plugin is tried against it without a service."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import trio
from attrs import Factory, define, field
from trio_websocket import (
    ConnectionClosed,
    WebSocketConnection,
    WebSocketRequest,
    serve_websocket,
)

TOKEN = "the-doors-own-token"

Answer = Callable[[dict[str, Any]], Any]


class Refusal(Exception):
    """A JSON-RPC error."""

    def __init__(self, code: int, message: str, **data: object) -> None:
        super().__init__(message)
        self.document = {"code": code, "message": message, "data": data}


class HangUp(Exception):
    """The connection is dropped instead of an answer."""


@define(eq=False)
class Visitor:
    """One connection: what it asked, in order."""

    connection: WebSocketConnection
    asked: list[dict[str, Any]] = Factory(list[dict[str, Any]])
    attends: str = ""


@define(eq=False)
class ScriptedDoor:
    """`answers` is by method; one without gives an empty object, and one that is `held` waits for its event."""

    sessions_dir: Path
    answers: dict[str, Answer] = Factory(dict[str, Answer])
    held: dict[str, trio.Event] = Factory(dict[str, trio.Event])
    visitors: list[Visitor] = Factory(list[Visitor])
    refused: int = 0
    acknowledged: list[str] = Factory(list[str])
    _changed: trio.Event = field(factory=trio.Event)

    def asked(self, method: str) -> list[dict[str, Any]]:
        return [
            call["params"] for visitor in self.visitors for call in visitor.asked if call["method"] == method
        ]

    def open_visitors(self) -> list[Visitor]:
        return [visitor for visitor in self.visitors if visitor.connection.closed is None]

    async def until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            await self._changed.wait()

    async def until_attended(self) -> Visitor:
        await self.until(lambda: any(visitor.attends for visitor in self.open_visitors()))
        return next(visitor for visitor in self.open_visitors() if visitor.attends)

    async def deliver(self, **params: object) -> None:
        visitor = await self.until_attended()
        await visitor.connection.send_message(
            json.dumps({"jsonrpc": "2.0", "method": "deliver", "params": params})
        )

    async def drop_all(self) -> None:
        for visitor in self.open_visitors():
            await visitor.connection.aclose(code=1001, reason="told to")

    @asynccontextmanager
    async def listening(self) -> AsyncGenerator[None]:
        """It listens, and says so in door.json, until the block ends."""
        self.sessions_dir.mkdir(parents=True, exist_ok=True)
        token_file = self.sessions_dir / "door.token"
        token_file.write_text(TOKEN)
        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve_websocket, self._greet, "127.0.0.1", 0, None)
            door = {
                "url": f"ws://127.0.0.1:{server.port}/",
                "tokenFile": str(token_file),
                "pid": os.getpid(),
                "version": "0",
                "protocol": 1,
            }
            file = self.sessions_dir / "door.json"
            file.write_text(json.dumps(door))
            try:
                yield
            finally:
                file.unlink()
                nursery.cancel_scope.cancel()

    async def _greet(self, request: WebSocketRequest) -> None:
        headers = {name.lower(): value for name, value in request.headers}
        if headers.get(b"authorization") != f"Bearer {TOKEN}".encode():
            self.refused += 1
            self._tell()
            await request.reject(401)
            return
        visitor = Visitor(await request.accept())
        self.visitors.append(visitor)
        self._tell()
        with suppress(ConnectionClosed):
            async with trio.open_nursery() as nursery:
                try:
                    while True:
                        message = json.loads(await visitor.connection.get_message())
                        nursery.start_soon(self._hear, visitor, message)
                except ConnectionClosed:
                    nursery.cancel_scope.cancel()
        self._tell()

    async def _hear(self, visitor: Visitor, message: dict[str, Any]) -> None:
        visitor.asked.append(message)
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": message["id"]}
        self._tell()
        try:
            if message["method"] in self.held:
                await self.held[message["method"]].wait()
            answer["result"] = self._answer(visitor, message["method"], message["params"])
        except Refusal as refusal:
            answer["error"] = refusal.document
        except HangUp:
            await visitor.connection.aclose(code=1011, reason="dropped")
            return
        with suppress(ConnectionClosed):
            await visitor.connection.send_message(json.dumps(answer))
        self._tell()

    def _answer(self, visitor: Visitor, method: str, params: dict[str, Any]) -> Any:
        if method == "attend":
            visitor.attends = params["name"]
        if method == "ack":
            self.acknowledged.append(params["id"])
        return self.answers[method](params) if method in self.answers else {}

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
