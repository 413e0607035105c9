"""Peers of every kind on real sockets: each is told what is wrong, and everybody else is served."""

from __future__ import annotations

import json
import resource
import tracemalloc
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio

from opencode_actors.door.commands import Start
from opencode_actors.door.faults import CloseCode, Code
from opencode_actors.door.serving import Door
from tests.door.room import (
    BINARY,
    PING,
    TOKEN,
    FakeDesk,
    a_door,
    a_peer,
    a_raw_peer,
    frame,
    raw_stream,
    read_close_code,
    upgrade_status,
)

MIB = 1 << 20


async def is_served(door: Door) -> None:
    async with a_peer(door) as peer:
        assert await peer.call("ping") == {"did": "ping"}


async def until_empty(door: Door) -> None:
    while door.statistics().connections:  # noqa: ASYNC110 - nothing tells us
        await trio.sleep(0.005)


# ---- who is let in


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("", 401),
        ("Authorization: Bearer wrong\r\n", 401),
        (f"Authorization: Bearer {TOKEN}\r\nOrigin: https://evil.example\r\n", 403),
        (f"Authorization: Bearer {TOKEN}\r\n", 101),
        (f"Sec-WebSocket-Protocol: opencode-actors.v1, opencode-actors.token.{TOKEN}\r\n", 101),
    ],
)
async def test_who_may_not_come_in_is_refused_in_the_upgrade(headers: str, status: int) -> None:
    async with a_door() as door:
        assert await upgrade_status(door, headers) == status
        await is_served(door)


async def test_what_is_no_websocket_is_let_go() -> None:
    async with a_door() as door:
        for request in (
            b"GET / HTTP/1.1\r\nHost: door\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: door\r\nContent-Length: 3\r\n\r\nabc",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
            b"nonsense\r\n\r\n",
            bytes(100_000),
        ):
            async with await raw_stream(door) as stream:
                try:
                    await stream.send_all(request)
                    answer = b"".join([piece async for piece in stream])
                except trio.BrokenResourceError:
                    continue  # reset, which is an answer too
                assert not answer or answer.startswith(b"HTTP/1.1 4"), answer
        await is_served(door)


async def test_who_says_nothing_does_not_keep_others_out() -> None:
    async with a_door(handshakes=3, handshake_within=0.2) as door:
        silent = [await raw_stream(door) for _ in range(6)]
        for stream in silent:
            async with stream:
                assert not await read_close_code(stream)
        await is_served(door)


async def test_more_connections_than_there_is_room_for_are_told_so() -> None:
    async with a_door(connections=2) as door, a_peer(door) as one, a_peer(door):
        async with a_peer(door) as third:
            assert await third.close_code() == CloseCode.TOO_MANY_CONNECTIONS
        assert await one.call("ping") == {"did": "ping"}


async def test_a_hundred_clients_are_served_side_by_side() -> None:
    desk = FakeDesk()

    async def client(number: int) -> None:
        async with a_peer(door) as peer:
            await peer.call("follow")
            ready.append(number)
            for _ in range(20):
                assert await peer.call("ping") == {"did": "ping"}
            assert (await peer.notice())["params"]["text"] == "hello, all of you"
            heard.append(number)

    ready: list[int] = []
    heard: list[int] = []
    async with a_door(desk) as door:
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(client, number)
            while len(ready) < 100:  # noqa: ASYNC110 - nothing tells us
                await trio.sleep(0.005)
            desk.say("hello, all of you")
        assert sorted(heard) == list(range(100))
        await until_empty(door)
        assert desk.gone_guests == 100


# ---- what they send


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ("nonsense", Code.PARSE_ERROR),
        ("[" * 100_000, Code.PARSE_ERROR),
        ('{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":NaN}}', Code.PARSE_ERROR),
        ('{"x":' + "9" * 1_000_000 + "}", Code.PARSE_ERROR),
        (b"\x00\xff", Code.INVALID_REQUEST),
        ("{}", Code.INVALID_REQUEST),
        ('{"jsonrpc":"2.0","id":null,"method":"explode"}', Code.UNKNOWN_METHOD),
        ('{"jsonrpc":"2.0","id":null,"method":"status","params":{"job_id":7}}', Code.INVALID_PARAMS),
        ('{"jsonrpc":"2.0","id":null,"method":"sessions"}', Code.INTERNAL),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_what_is_wrong_is_answered_and_the_connection_lives_on(sent: str | bytes, code: Code) -> None:
    async with a_door() as door, a_peer(door) as peer:
        await peer.send(sent)
        answer = await peer.receive()
        assert answer["id"] is None
        assert answer["error"]["code"] == code
        assert answer["error"]["message"]
        assert "Traceback" not in json.dumps(answer)
        assert await peer.call("ping") == {"did": "ping"}


async def test_a_bug_is_told_with_the_place_of_its_details(caplog: pytest.LogCaptureFixture) -> None:
    async with a_door() as door, a_peer(door) as peer:
        answer = await peer.call("sessions")
        assert answer["data"]["crashFile"] == "crash.txt"
        await is_served(door)
    assert "a call of sessions" in caplog.text


async def test_a_reply_and_a_notification_are_not_answered() -> None:
    async with a_door() as door, a_peer(door) as peer:
        await peer.send({"jsonrpc": "2.0", "id": 7, "result": {}})
        await peer.send({"jsonrpc": "2.0", "method": "explode"})
        await peer.send({"jsonrpc": "2.0", "method": "start", "params": {"prompt": "quietly"}})
        await peer.send([{"jsonrpc": "2.0", "method": "ping"}])
        assert await peer.call("ping") == {"did": "ping"}


async def test_a_batch_has_one_answer_with_all_answers() -> None:
    async with a_door() as door, a_peer(door) as peer:
        batch: list[Any] = [{"jsonrpc": "2.0", "id": number, "method": "ping"} for number in range(62)]
        await peer.send([*batch, {"jsonrpc": "2.0", "method": "ping"}, 5])
        answers = await peer.receive()
        assert sorted(answer["id"] for answer in answers if "result" in answer) == list(range(62))
        assert [answer["error"]["code"] for answer in answers if "error" in answer] == [Code.INVALID_REQUEST]


async def test_invalid_utf8_ends_that_connection_alone() -> None:
    async with a_door() as door, a_raw_peer(door) as stream:
        await stream.send_all(frame(b'{"a":"\xff\xfe"}'))
        assert await read_close_code(stream) == 1007
        await is_served(door)


@pytest.mark.parametrize(
    "sent",
    [
        b"\xff" * 1000,
        frame(b"{}", opcode=3),
        frame(b"x" * 200, opcode=PING),
        b"\x81\x02{}",  # not masked
        frame(b"{}", length=1 << 63),
        frame(b"{}", opcode=0),
    ],
    ids=["noise", "unknown opcode", "long ping", "unmasked", "endless", "nothing to go on with"],
)
async def test_a_broken_frame_ends_that_connection_alone(sent: bytes) -> None:
    async with a_door() as door, a_raw_peer(door) as stream:
        await stream.send_all(sent)
        await stream.send_eof()
        assert await read_close_code(stream) in (0, 1002, 1006)
        await is_served(door)


@pytest.mark.parametrize("opcode", [1, BINARY])
async def test_a_frame_of_64_mb_is_too_big_and_is_not_kept(opcode: int) -> None:
    async with a_door() as door, a_raw_peer(door) as stream:
        piece = b"x" * MIB
        tracemalloc.start()
        try:
            await stream.send_all(frame(b"", opcode, length=64 * MIB))
            for _ in range(64):
                try:
                    await stream.send_all(piece)
                except trio.BrokenResourceError:
                    break  # it has stopped listening
            assert await read_close_code(stream) in (CloseCode.MESSAGE_TOO_BIG, 0)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 40 * MIB
        await is_served(door)


async def test_who_sends_too_much_in_many_frames_is_told_why_it_was_closed() -> None:
    async with a_door(message=10_000) as door, a_raw_peer(door) as stream:
        await stream.send_all(frame(b'"', last=False))
        for _ in range(20):
            await stream.send_all(frame(b"x" * 1000, opcode=0, last=False))
        assert await read_close_code(stream) == CloseCode.MESSAGE_TOO_BIG
        await is_served(door)


# ---- how much


async def test_more_calls_than_a_connection_may_have_are_busy_at_once() -> None:
    desk = FakeDesk()
    async with a_door(desk, in_flight=5) as door, a_peer(door) as peer:
        for number in range(8):
            await peer.send({"jsonrpc": "2.0", "id": number, "method": "cancel", "params": {"job_id": "j"}})
        refused = [await peer.receive() for _ in range(3)]
        assert [answer["id"] for answer in refused] == [5, 6, 7]
        assert {answer["error"]["code"] for answer in refused} == {Code.BUSY}
        await is_served(door)
        desk.settled.set()
        assert sorted([(await peer.receive())["id"] for _ in range(5)]) == [0, 1, 2, 3, 4]


async def test_a_thousand_subscriptions_and_not_one_more() -> None:
    desk = FakeDesk()
    async with a_door(desk) as door, a_peer(door) as peer:
        names = {(await peer.call("follow"))["subscription"] for _ in range(1024)}
        assert len(names) == 1024
        assert (await peer.call("follow"))["code"] == Code.BUSY
        desk.say("one word")
        told = {(await peer.notice())["params"]["subscription"] for _ in range(1024)}
        assert told == names
        assert await peer.call("unfollow", subscription=min(names)) == {}
        assert (await peer.call("unfollow", subscription=min(names)))["code"] == Code.USAGE
        assert (await peer.call("follow"))["subscription"] not in names
    assert door.house.subscriptions == 0


async def test_a_subscription_begins_after_the_answer_that_names_it() -> None:
    desk = FakeDesk()
    async with a_door(desk) as door, a_peer(door) as peer:
        follow = {"jsonrpc": "2.0", "id": 1, "method": "follow"}
        cancel = {"jsonrpc": "2.0", "id": 2, "method": "cancel", "params": {"job_id": "j"}}
        await peer.send([follow, cancel])
        while not door.house.subscriptions:  # noqa: ASYNC110 - nothing tells us
            await trio.sleep(0.005)
        desk.say("early")
        assert await peer.call("ping") == {"did": "ping"}
        assert peer.notices == []
        desk.settled.set()
        answers = await peer.receive()
        assert len(answers) == 2
        assert (await peer.notice())["params"]["text"] == "early"


def resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


async def test_a_client_that_never_reads_is_let_go_and_costs_little() -> None:
    desk = FakeDesk()
    follow = frame(b'{"jsonrpc":"2.0","id":1,"method":"follow"}')
    call = frame(b'{"jsonrpc":"2.0","id":"' + b"i" * 200 + b'","method":"ping"}')

    async def send(stream: trio.SocketStream) -> None:
        await stream.send_all(follow * 20)
        try:
            while True:
                await stream.send_all(call * 500)
        except trio.BrokenResourceError:
            gone.set()

    gone = trio.Event()
    async with a_door(desk, backlog=MIB) as door, a_raw_peer(door) as deaf, trio.open_nursery() as nursery:
        (connection,) = door._connections
        before = resident()
        nursery.start_soon(send, deaf)
        async with a_peer(door) as other:
            while not gone.is_set():
                desk.say("word " * 200)
                assert await other.call("ping") == {"did": "ping"}
        assert connection._closing is not None
        assert connection._closing.code is CloseCode.TOO_SLOW
        assert resident() - before < 200 * MIB
        assert door.house.subscriptions == 0
        await is_served(door)


async def test_a_client_with_hundreds_of_subscriptions_that_never_reads_costs_little_too() -> None:
    desk = FakeDesk()
    async with a_door(desk) as door, a_raw_peer(door) as deaf:
        await deaf.send_all(frame(b'{"jsonrpc":"2.0","id":1,"method":"follow"}') * 300)
        while door.house.subscriptions < 300:  # noqa: ASYNC110 - nothing tells us
            await trio.sleep(0.005)
        (connection,) = door._connections
        tracemalloc.start()
        async with a_peer(door) as other:
            for number in range(400):
                desk.say(f"{number:4}" * 1024)
                assert await other.call("ping") == {"did": "ping"}
            _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        # Each of them alone would keep all of it: 300 times 1.6 MB.
        assert connection.allowance.held < 9 * MIB  # one that is given out is beside the bound
        assert most < 40 * MIB
        assert connection._closing is None
        await is_served(door)


async def test_a_client_that_floods_and_does_not_read_is_told_why_once_it_reads() -> None:
    call = frame(b'{"jsonrpc":"2.0","id":"' + b"i" * 250 + b'","method":"explode"}')

    async def send(stream: trio.SocketStream) -> None:
        while not door._connections or next(iter(door._connections))._closing is None:
            await stream.send_all(call * 100)

    async with a_door(backlog=200_000, close_within=20.0) as door, a_raw_peer(door) as flood:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, flood)
            await is_served(door)
        assert await read_close_code(flood) == CloseCode.TOO_SLOW
        await is_served(door)


async def test_a_slow_reader_gets_every_byte_of_large_answers() -> None:
    async with a_door(backlog=MIB) as door, a_peer(door) as peer:
        for number in range(30):
            params = {"job_id": "j", "limit": MIB}
            await peer.send({"jsonrpc": "2.0", "id": number, "method": "output", "params": params})
        await is_served(door)
        answers = [await peer.receive() for _ in range(30)]
        assert {len(answer["result"]["text"]) for answer in answers} == {MIB}


async def test_a_half_open_connection_is_found() -> None:
    async with a_door(ping_every=0.05, pong_within=0.2) as door, a_raw_peer(door) as stream:
        assert await read_close_code(stream) == CloseCode.NO_PONG
        await is_served(door)


async def test_a_peer_that_answers_pings_stays() -> None:
    async with a_door(ping_every=0.01, pong_within=30) as door, a_peer(door) as peer:
        for _ in range(20):
            assert await peer.call("ping") == {"did": "ping"}
            await trio.sleep(0.005)
        assert door.statistics().connections == 1


# ---- ends


async def test_a_start_goes_on_when_its_connection_has_gone() -> None:
    """Half of it is worse than all of it: the client asks again with the same key."""
    at_work, go_on = trio.Event(), trio.Event()

    async def slowly(_: Start) -> None:
        at_work.set()
        await go_on.wait()

    desk = FakeDesk(on_start=slowly)
    async with a_door(desk) as door:
        async with a_peer(door) as peer:
            await peer.send({"jsonrpc": "2.0", "id": 1, "method": "start", "params": {"prompt": "x"}})
            await at_work.wait()
        await until_empty(door)
        go_on.set()
        while not desk.started:  # noqa: ASYNC110 - nothing tells us
            await trio.sleep(0.005)


async def test_a_peer_that_vanishes_leaves_nothing() -> None:
    desk = FakeDesk()
    async with a_door(desk) as door:
        async with a_raw_peer(door) as stream:
            await stream.send_all(frame(b'{"jsonrpc":"2.0","id":1,"method":"follow"}'))
            await stream.send_all(
                frame(b'{"jsonrpc":"2.0","id":2,"method":"cancel","params":{"job_id":"j"}}')
            )
            await desk.asked.wait()
        await until_empty(door)
        assert door.house.subscriptions == 0
        await is_served(door)


async def test_at_the_end_every_peer_is_told() -> None:
    codes: list[int] = []

    async def client(door: Door, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with a_peer(door) as peer:
            task_status.started()
            codes.append(await peer.close_code())

    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        door = await stack.enter_async_context(a_door())
        for _ in range(5):
            await nursery.start(client, door)
    assert door.statistics().connections == 0
    assert codes == [CloseCode.GOING_AWAY] * 5
