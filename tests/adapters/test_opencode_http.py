"""The HTTP side of the adapter, against servers that answer what a test tells them to."""

from __future__ import annotations

import json
import logging
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import h11
import pytest
import trio
from attrs import define, field

from opencode_actors.adapters import opencode as opencode_adapter
from opencode_actors.adapters import opencode_stream
from opencode_actors.adapters.opencode import HttpOpenCode
from opencode_actors.errors import (
    OpenCodeError,
    ServerRefused,
    ServerSilent,
    ServerUnintelligible,
    ServerUnreachable,
    UsageError,
)
from opencode_actors.machines.server_events import (
    ConversationId,
    Heartbeat,
    InstanceDisposed,
    MessageId,
    PartId,
    ServerEvent,
)
from opencode_actors.ports import Endpoint, Prompt

TALK = ConversationId("ses_1")
Answers = Callable[[str], bytes]  # from "GET /path?query" to the bytes of an answer


@asynccontextmanager
async def serving(answers: Answers) -> AsyncGenerator[HttpOpenCode, None]:
    """A server that gives one answer for each connection, then closes it."""

    async def serve(stream: trio.SocketStream) -> None:
        method, target, _ = (await receive_request(stream)).split(b" ", 2)
        await stream.send_all(answers(f"{method.decode()} {target.decode()}"))
        await stream.aclose()

    async with listening(serve) as opencode:
        yield opencode


@asynccontextmanager
async def listening(
    serve: Callable[[trio.SocketStream], Awaitable[None]],
) -> AsyncGenerator[HttpOpenCode, None]:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        opencode = HttpOpenCode(Endpoint(url=f"http://127.0.0.1:{port}", password="secret"))
        yield opencode
        await opencode.aclose()
        nursery.cancel_scope.cancel()


def reply(body: object, *, status: int = 200, kind: str = "application/json", more: str = "") -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(data)}\r\n{more}"
    return head.encode() + b"connection: close\r\n\r\n" + data


def always(answer: bytes) -> Answers:
    return lambda _: answer


# ---- pages of messages


class History:
    """120 messages, given out in pages from the newest back, as the real server does."""

    def __init__(self) -> None:
        self.ids = [f"msg_{index:03}" for index in range(120)]
        self.asked: list[str] = []

    def __call__(self, target: str) -> bytes:
        self.asked.append(target)
        query = dict(pair.split("=") for pair in target.partition("?")[2].split("&") if pair)
        end = self.ids.index(query["before"]) if "before" in query else len(self.ids)
        start = max(0, end - int(query.get("limit", "1000")))
        infos = [
            {"id": key, "sessionID": TALK, "role": "user", "time": {"created": 1}}
            for key in self.ids[start:end]
        ]
        page: list[dict[str, object]] = [{"info": info, "parts": []} for info in infos]
        more = f"x-next-cursor: {self.ids[start]}\r\n" if start else ""
        return reply(page, more=more)


@pytest.mark.parametrize(
    ("since", "first", "requests"),
    [
        ("msg_110", "msg_110", 1),
        ("msg_070", "msg_070", 1),
        ("msg_069", "msg_069", 2),
        ("msg_000", "msg_000", 3),
        ("msg_080x", "msg_081", 1),  # not there: what is younger, and no further back than needed
        ("msg_999", None, 1),
    ],
)
async def test_messages_are_read_back_only_as_far_as_asked(
    since: str, first: str | None, requests: int
) -> None:
    history = History()
    async with serving(history) as opencode:
        found = [message.info.id for message in await opencode.messages(TALK, since=MessageId(since))]
    assert found == ([] if first is None else history.ids[history.ids.index(first) :])
    assert len(history.asked) == requests


def a_page() -> bytes:
    info = {"id": "msg_9", "sessionID": TALK, "role": "user", "time": {"created": 1}}
    return json.dumps([{"info": info, "parts": ()}]).encode()


async def test_without_a_beginning_all_messages_are_read_at_once() -> None:
    history = History()
    async with serving(history) as opencode:
        assert len(await opencode.messages(TALK)) == 120
    assert history.asked == [f"GET /session/{TALK}/message"]


@pytest.mark.parametrize(
    ("cursors", "says"),
    [(["a", "b", "a"], "the same again"), ([str(n) for n in range(300)], "200 pages, and more")],
)
async def test_pages_without_end_are_no_answer(cursors: list[str], says: str) -> None:
    coming = iter(cursors)

    def answers(_: str) -> bytes:
        return reply(a_page(), more=f"x-next-cursor: {next(coming)}\r\n")

    async with serving(answers) as opencode:
        with pytest.raises(ServerUnintelligible, match=says):
            await opencode.messages(TALK, since=MessageId("msg_1"))


async def endless(stream: trio.SocketStream) -> None:
    await receive_request(stream)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n"
    try:
        await stream.send_all(head)
        while True:
            await stream.send_all(b"x" * (64 << 10))
    except trio.BrokenResourceError:
        pass


async def test_an_answer_without_end_is_read_no_further_than_its_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each was read until the deadline: 292 MB in a second for a probe alone."""
    monkeypatch.setattr(opencode_adapter, "_LARGEST_ANSWER", 1 << 20)
    async with listening(endless) as opencode:
        with pytest.raises(ServerUnintelligible, match="larger than 64 KiB"):
            await opencode.health(within=60)
        for call in (
            opencode.agents,
            partial(opencode.messages, TALK),
            partial(opencode.messages, TALK, since=MessageId("msg_1")),
        ):
            with pytest.raises(ServerUnintelligible, match="larger than 1 MiB"):
                await call()


async def test_the_pages_of_one_reading_have_one_bound_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opencode_adapter, "_LARGEST_ANSWER", 100 << 10)
    asked: list[str] = []

    def answers(target: str) -> bytes:
        asked.append(target)
        return reply(a_page().ljust(40 << 10), more=f"x-next-cursor: {len(asked)}\r\n")

    async with serving(answers) as opencode:
        with pytest.raises(ServerUnintelligible, match="larger than"):
            await opencode.messages(TALK, since=MessageId("msg_1"))
    assert len(asked) == 3


# ---- answers that are none


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (reply(b"<html>", kind="text/html"), ServerUnintelligible, "does not know|text/html"),
        (reply(b"{", kind="application/json"), ServerUnintelligible, "GET /agent is not JSON"),
        (reply({"name": "build"}), ServerUnintelligible, "GET /agent has another shape"),
        (reply([{"name": 5, "mode": "primary"}]), ServerUnintelligible, "name"),
        (reply(b"", status=401), ServerRefused, "password"),
        (
            reply({"name": "NotFoundError", "data": {"message": "no such"}}, status=404),
            ServerRefused,
            "no such",
        ),
        (reply({"_tag": "BadRequest"}, status=400), ServerRefused, "400: BadRequest"),
        (reply([1], status=500), ServerRefused, r"500: \[1\]"),
        (reply(b"", status=502), ServerRefused, "no reason given"),
        (b"", ServerUnreachable, "cannot be reached"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf", ServerUnreachable, "cannot be reached"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", ServerUnreachable, "cannot be reached"),
    ],
)
async def test_what_is_no_answer_is_an_error_that_says_why(
    answer: bytes, error: type[OpenCodeError], says: str
) -> None:
    async with serving(always(answer)) as opencode:
        with pytest.raises(error, match=says):
            await opencode.agents()


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (reply({"healthy": False, "version": "1"}), ServerUnintelligible, "not healthy"),
        (reply(b"<html>", kind="text/html"), ServerUnintelligible, "text/html"),
        (reply({"healthy": True}), ServerUnintelligible, "version"),
        (reply(b"", status=401), ServerRefused, "password"),
        (b"", ServerUnreachable, "cannot be reached"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf", ServerUnreachable, "in the middle"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", ServerUnintelligible, "does not speak HTTP"),
    ],
)
async def test_a_probe_that_fails_says_why(answer: bytes, error: type[OpenCodeError], says: str) -> None:
    async with serving(always(answer)) as opencode:
        with pytest.raises(error, match=says):
            await opencode.health(within=5)


async def test_an_address_that_is_none_cannot_be_reached() -> None:
    opencode = HttpOpenCode(Endpoint(url="unix:///run/x", password="secret"))
    with pytest.raises(ServerUnreachable, match="no http"):
        await opencode.health(within=1)
    await opencode.aclose()


async def test_a_web_page_is_no_accepted_prompt() -> None:
    prompt = Prompt(message_id=MessageId("msg_1"), part_id=PartId("prt_1"), text="x")
    async with serving(always(reply(b"<html>", kind="text/html"))) as opencode:
        with pytest.raises(ServerUnintelligible, match="prompt_async"):
            await opencode.submit(TALK, prompt)


@pytest.mark.parametrize("model", ["demo", "/demo", "scripted/"])
async def test_a_model_without_a_provider_is_refused_before_it_is_sent(model: str) -> None:
    prompt = Prompt(message_id=MessageId("msg_1"), part_id=PartId("prt_1"), text="x", model=model)
    async with serving(always(b"")) as opencode:
        with pytest.raises(UsageError, match="provider/model"):
            await opencode.submit(TALK, prompt)


async def test_ids_cannot_leave_their_place_in_a_path() -> None:
    asked: list[str] = []

    def answers(target: str) -> bytes:
        asked.append(target)
        return reply(True)  # noqa: FBT003 - the body

    async with serving(answers) as opencode:
        await opencode.abort(ConversationId("../config?x=1#"))
    assert asked == ["POST /session/..%2Fconfig%3Fx%3D1%23/abort"]


async def test_neither_password_nor_key_is_written_anywhere_P14(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving(always(reply({"provider": {"key": "sk-very-secret"}}))) as opencode:
        with pytest.raises(ServerUnintelligible) as odd:
            await opencode.warm_up()
        with pytest.raises(ServerUnintelligible) as wrong:
            await opencode.health(within=5)
        assert "secret" not in repr(opencode)
    assert "very-secret" not in caplog.text + str(odd.value) + str(wrong.value)


async def test_of_the_providers_only_names_are_kept_P14() -> None:
    offered = {
        "id": "a",
        "key": "sk-very-secret",
        "options": {"apiKey": "sk-very-secret"},
        "models": {"one": {"name": "One", "cost": {"input": 1, "output": 4}}, "two": {"name": "Two"}},
    }

    def answers(target: str) -> bytes:
        if target == "GET /agent":
            # As OpenCode 1.18.33 writes one that the config says little of.
            old = {"name": "old", "mode": "primary", "description": None, "hidden": None}
            return reply([{"name": "build", "mode": "primary"}, old])
        return reply({"providers": [offered], "default": {}})

    async with serving(answers) as opencode:
        catalog = await opencode.warm_up()
    assert [(model.name, model.priced) for model in catalog.models] == [("a/one", True), ("a/two", False)]
    assert [(agent.name, agent.hidden) for agent in catalog.agents] == [("build", False), ("old", False)]
    assert "very-secret" not in repr(catalog)


# ---- the event stream


def event(kind: str, **properties: object) -> object:
    return {"payload": {"type": kind, "properties": properties}}


CONNECTED, BEAT, DISPOSED = map(event, ("server.connected", "server.heartbeat", "server.instance.disposed"))


def chunks(*events: object) -> bytes:
    """Each event is an HTTP chunk of its own, as the real server's."""
    frames = (f"data: {json.dumps(event)}\n\n".encode() for event in events)
    return b"".join(b"%x\r\n%s\r\n" % (len(frame), frame) for frame in frames)


def stream_of(*events: object, kind: str = "text/event-stream") -> bytes:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n"
    return head.encode() + chunks(*events)


@define
class StreamServer:
    """Says that it is connected, and hears a knock only after `deaf` of them; then it tells `later`."""

    early: Sequence[object] = ()
    later: Sequence[object] = ()
    deaf: int = 0
    knocks: int = 0
    _stream: trio.SocketStream | None = None
    _told: trio.Event = field(factory=trio.Event)

    async def serve(self, stream: trio.SocketStream) -> None:
        asked = await receive_request(stream)
        if asked.startswith(b"GET /global/event "):
            self._stream = stream
            await stream.send_all(stream_of(CONNECTED, *self.early))
            await self._told.wait()
        else:
            self.knocks += 1
            await stream.send_all(reply(True))  # noqa: FBT003 - the body
            if self.knocks > self.deaf and self._stream is not None and not self._told.is_set():
                message = json.loads(asked.partition(b"\r\n\r\n")[2])["message"]
                await self._stream.send_all(chunks(event("tui.toast.show", message=message), *self.later))
                self._told.set()
        await stream.aclose()


async def receive_request(stream: trio.SocketStream) -> bytes:
    http, request = h11.Connection(h11.SERVER), b""
    while not isinstance(event := http.next_event(), h11.EndOfMessage | h11.ConnectionClosed):
        if event is h11.NEED_DATA:
            received = await stream.receive_some()
            request += received
            http.receive_data(received)
    return request


async def read_all(opencode: HttpOpenCode) -> Sequence[tuple[ServerEvent, ...]]:
    """Every batch until the stream breaks, which it has to do as promised."""
    batches: list[tuple[ServerEvent, ...]] = []
    async with opencode.events() as stream:
        with pytest.raises(ServerUnreachable):
            await note(stream, batches)
    return batches


async def note(
    stream: AsyncIterator[tuple[ServerEvent, ...]], batches: list[tuple[ServerEvent, ...]]
) -> None:
    async for batch in stream:
        batches.append(batch)  # noqa: PERF401 - it ends with an error, and what came before counts


async def test_what_came_while_the_stream_was_opened_is_the_first_batch() -> None:
    server = StreamServer(early=[DISPOSED], later=[BEAT, BEAT])
    async with listening(server.serve) as opencode:
        assert await read_all(opencode) == [(InstanceDisposed(), Heartbeat())]


@pytest.mark.parametrize("deaf", [0, 1, 3])
async def test_a_stream_is_believed_when_something_came_through_it_P8(deaf: int) -> None:
    server = StreamServer(later=[DISPOSED], deaf=deaf)
    async with listening(server.serve) as opencode:
        assert await read_all(opencode) == [(InstanceDisposed(),)]
    assert server.knocks == deaf + 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (stream_of(), ServerUnreachable),
        (b"", ServerUnreachable),
        (reply(b"", status=401), ServerRefused),
        (reply(b"<html>", kind="text/html"), ServerUnintelligible),
    ],
)
async def test_a_stream_that_does_not_stand_is_an_error(answer: bytes, error: type[OpenCodeError]) -> None:
    async with serving(always(answer)) as opencode:
        with pytest.raises(error):
            async with opencode.events():
                raise AssertionError("the stream must not stand")


async def test_nonsense_in_the_stream_ends_it() -> None:
    server = StreamServer(later=["nonsense"])
    async with listening(server.serve) as opencode, opencode.events() as stream:
        with pytest.raises(ServerUnintelligible):
            await anext(stream)


@asynccontextmanager
async def mute_server() -> AsyncGenerator[HttpOpenCode, None]:
    """Takes connections and never answers, as a frozen server does."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        port = listener.socket.getsockname()[1]
        opencode = HttpOpenCode(Endpoint(url=f"http://127.0.0.1:{port}", password="secret"))
        yield opencode
        await opencode.aclose()


async def test_silence_is_told_from_absence_P12(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opencode_stream, "_STANDS_WITHIN", 0.05)
    async with mute_server() as opencode:
        with pytest.raises(ServerSilent, match=r"did not answer in 0\.05 s"):
            await opencode.health(within=0.05)
        with pytest.raises(ServerSilent, match="does not stand"):
            async with opencode.events():
                raise AssertionError("the stream must not stand")
    with pytest.raises(ServerUnreachable):
        await opencode.health(within=5)


async def test_many_servers_cost_one_list_of_authorities(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each client's own took 20 ms and 750 KB."""
    read: list[object] = []
    made = ssl.create_default_context

    def make(purpose: ssl.Purpose = ssl.Purpose.SERVER_AUTH, *, cafile: str | None = None) -> ssl.SSLContext:
        read.append(cafile)
        return made(purpose, cafile=cafile)

    monkeypatch.setattr(ssl, "create_default_context", make)
    for port in range(1, 4):
        await HttpOpenCode(Endpoint(url=f"http://127.0.0.1:{port}", password="secret")).aclose()
    assert len(read) <= 1
