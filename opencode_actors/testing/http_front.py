"""A fake OpenCode server on a real socket: its API in HTTP, its events as a stream, refusals as the real one's.

The socket is bound at once, so that its port is known, and listens when the server does: before, and after its
death, connections are refused by the kernel itself.
"""

from __future__ import annotations

import json
import socket
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import suppress
from urllib.parse import unquote, urlsplit

import h11
import trio
from attrs import define, field

from opencode_actors.errors import OpenCodeError, ServerRefused
from opencode_actors.machines.server_events import ConversationId, MessageId, PartId, ServerEvent
from opencode_actors.ports import ConversationState, Endpoint, PermissionReply, Prompt
from opencode_actors.testing import wire_json
from opencode_actors.testing.fake_events import take_events
from opencode_actors.testing.fake_opencode import FakeOpenCode, FakeServers
from opencode_actors.testing.provider_http import HttpConnection, HungUp


@define(eq=False)
class HttpFront:
    """`url` is free to use before `serve` runs, which ends with the fake server at that address. The port is any
    free one, unless one is wanted: a server that begins again is where it was."""

    servers: FakeServers
    wanted: int = 0
    url: str = field(init=False)
    port: int = field(init=False)
    _socket: socket.socket = field(init=False, repr=False)
    _words: set[trio.MemorySendChannel[str]] = field(factory=set[trio.MemorySendChannel[str]], repr=False)

    def __attrs_post_init__(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", self.wanted))
        self.port = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    async def serve(self) -> None:
        with self._socket:
            server = self.servers.server(self.url)
            if server is None:
                return
            await server.wait_listening()
            self._socket.listen()
            listener = trio.SocketListener(trio.socket.from_stdlib_socket(self._socket))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.serve_listeners, self._connected, [listener])
                await server.wait_dead()
                nursery.cancel_scope.cancel()

    async def _connected(self, stream: trio.SocketStream) -> None:
        connection = HttpConnection(stream)
        try:
            async with stream:
                while (asked := await connection.next_request()) is not None:
                    await self._answer(connection, *asked)
        except* (HungUp, OpenCodeError, h11.ProtocolError):
            pass  # a server that died, or a client that went: either way there is nobody to tell

    async def _answer(self, connection: HttpConnection, request: h11.Request, body: bytes) -> None:
        path = [unquote(piece) for piece in urlsplit(request.target.decode()).path.split("/")[1:]]
        given: wire_json.Json = json.loads(body or b"{}")
        directory = unquote(_header(request, b"x-opencode-directory"))
        user, password = _credentials(request)
        endpoint = Endpoint(url=self.url, user=user, password=password, directory=directory)
        opencode = self.servers.connect(endpoint)
        try:
            if path == ["global", "event"]:
                async with opencode.events() as events:
                    await self._stream(connection, events)
                return
            answer = await self._called(opencode, request.method.decode(), path, given)
        except ServerRefused as refused:
            await connection.send_json(
                refused.status, {"name": "Error", "data": {"message": refused.message}}
            )
            return
        if answer is None:
            await connection.send(h11.Response(status_code=204, headers=[]), h11.EndOfMessage())
        else:
            await connection.send_json(200, answer)

    async def _called(
        self, opencode: FakeOpenCode, method: str, path: list[str], given: wire_json.Json
    ) -> object:
        """The answer's JSON; None where there is none."""
        match method, *path:
            case "GET", "global", "health":
                return {"healthy": True, "version": (await opencode.health(within=30.0)).version}
            case "GET", "agent":
                return [{"name": a.name, "mode": a.mode, "hidden": a.hidden} for a in await opencode.agents()]
            case "GET", "file":
                if not await opencode.has_directory():
                    raise ServerRefused("Unexpected server error. Check server logs for details.", status=500)
                return []
            case "GET", "config", "providers":
                return wire_json.providers((await opencode.warm_up()).models)
            case "POST", "tui", "show-toast":
                await opencode.warm_up()
                for channel in self._words:
                    channel.send_nowait(given["message"])
                return True
            case "GET", "question":
                return [wire_json.question(asked) for asked in await opencode.questions()]
            case "GET", "permission":
                return [wire_json.permission(asked) for asked in await opencode.permissions()]
            case "POST", "permission", request, "reply":
                reply = PermissionReply(given["reply"])
                await opencode.answer_permission(request, reply, message=given.get("message"))
                return True
            case "POST", "question", request, "reply":
                answers = tuple(tuple(answer) for answer in given["answers"])
                await opencode.answer_question(request, answers)
                return True
            case "POST", "question", request, "reject":
                await opencode.reject_question(request)
                return True
            case "POST", "session":
                return wire_json.conversation(await opencode.create_conversation(title=given["title"]))
            case "GET", "session":
                return [wire_json.conversation(one) for one in await opencode.conversations()]
            case "GET", "session", "status":
                states = await opencode.status()
                return {
                    key: {"type": "retry" if s is ConversationState.RETRY else "busy"}
                    for key, s in states.items()
                }
            case "POST", "sync", "replay":
                server = self.servers.server(self.url)
                await opencode.warm_up()
                if server is not None:
                    take_events(server, given["events"])
                return {"sessionID": given["events"][0]["aggregateID"]}
            case _, "session", key, *rest:
                return await self._of_conversation(opencode, method, ConversationId(key), rest, given)
            case _:
                raise ServerRefused(f"there is no {method} /{'/'.join(path)} here", status=404)

    async def _of_conversation(
        self,
        opencode: FakeOpenCode,
        method: str,
        of: ConversationId,
        rest: list[str],
        given: wire_json.Json,
    ) -> object:
        match method, *rest:
            case ("GET",):
                about = await opencode.conversation(of)
                if about is None:
                    raise ServerRefused(f"Session not found: {of}", status=404)
                return wire_json.conversation(about)
            case ("PATCH",):
                await opencode.restrict(of, given["permission"])
                about = await opencode.conversation(of)
                return None if about is None else wire_json.conversation(about)
            case "GET", "children":
                return [wire_json.conversation(about) for about in await opencode.children(of)]
            case "GET", "todo":
                return [wire_json.todo(about) for about in await opencode.todos(of)]
            case "GET", "message":
                return [wire_json.message(about) for about in await opencode.messages(of)]
            case "POST", "prompt_async":
                await opencode.submit(of, _prompt(given))
                return None
            case "POST", "fork":
                before = given.get("messageID")
                made = await opencode.fork(of, before=None if before is None else MessageId(before))
                return wire_json.conversation(made)
            case "POST", "abort":
                await opencode.abort(of)
                return True
            case _:
                raise ServerRefused(f"there is no {method} …/{'/'.join(rest)} here", status=404)

    async def _stream(
        self, connection: HttpConnection, events: AsyncIterator[tuple[ServerEvent, ...]]
    ) -> None:
        headers = [("content-type", "text/event-stream")]
        await connection.send(h11.Response(status_code=200, headers=headers))
        told = _Told(connection)
        await told.tell({"payload": {"type": "server.connected", "properties": {}}})
        send, receive = trio.open_memory_channel[str](64)
        self._words.add(send)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(told.tell_words, receive)
                nursery.start_soon(_cancel_at_hang_up, connection, nursery.cancel_scope)
                async for batch in events:
                    await told.tell(*map(wire_json.event, batch))
        finally:
            self._words.discard(send)


async def _cancel_at_hang_up(connection: HttpConnection, scope: trio.CancelScope) -> None:
    with suppress(HungUp):
        await connection.wait_hang_up()
    scope.cancel()


@define(eq=False)
class _Told:
    """Two tell on one connection: what happens, and the words that somebody knocks with."""

    connection: HttpConnection
    _lock: trio.Lock = field(factory=trio.Lock)

    async def tell(self, *events: wire_json.Json) -> None:
        lines = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
        async with self._lock:
            await self.connection.send(h11.Data(data=lines.encode()))

    async def tell_words(self, words: trio.MemoryReceiveChannel[str]) -> None:
        async for word in words:
            await self.tell({"payload": {"type": "tui.toast.show", "properties": {"message": word}}})


def _credentials(request: h11.Request) -> tuple[str, str]:
    given = _header(request, b"authorization").removeprefix("Basic ")
    user, _, password = b64decode(given).decode().partition(":")
    return user, password


def _header(request: h11.Request, wanted: bytes) -> str:
    return next((value for name, value in request.headers if name == wanted), b"").decode()


def _prompt(given: wire_json.Json) -> Prompt:
    (said,) = given["parts"]
    model = given.get("model")
    return Prompt(
        text=said["text"],
        message_id=MessageId(given["messageID"]),
        part_id=PartId(said["id"]),
        model=None if model is None else f"{model['providerID']}/{model['modelID']}",
        agent=given.get("agent"),
        system=given.get("system"),
    )
