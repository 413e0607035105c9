"""The event stream as such: what a lost one costs, and that none leaves anything behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from opencode_actors.machines.server_events import ConversationCreated, Heartbeat, PartUpdated, TextPart
from tests.e2e.rig import eventually

from .engines import within
from .servers import RealProcess, ServerBench, real_server_bench


@within()
async def test_two_hundred_streams_leave_nothing_behind(server_bench: ServerBench) -> None:
    async def open_and_cancel() -> None:
        async with server_bench.listening():
            await trio.lowlevel.checkpoint()

    await open_and_cancel()
    tasks, files = trio.lowlevel.current_statistics().tasks_living, _open_files()
    for _ in range(200):
        await open_and_cancel()
    # A server in this process hears of a client's end a moment later, of the first one's perhaps when it was counted.
    await eventually(lambda: trio.lowlevel.current_statistics().tasks_living <= tasks)
    await eventually(lambda: _open_files() <= files)
    assert (await server_bench.opencode.health(within=10)).version


@within()
async def test_what_is_caused_once_the_stream_stands_is_told_P8(server_bench: ServerBench) -> None:
    """The real server calls itself connected before it is: every second of these would be lost."""
    for _ in range(20):
        async with server_bench.listening():
            server_bench.forget()
            await server_bench.converse()
            await server_bench.wait_for(ConversationCreated)


@within()
async def test_after_a_lost_stream_reading_again_leaves_no_gap_P8(server_bench: ServerBench) -> None:
    """The stream has no replay: text that was told meanwhile comes with the end of its part."""
    bench = server_bench
    async with bench.listening():
        conversation, prompt = await bench.say("::words 60 rate=20\n::bash echo two; sleep 0.3\n::words 3")
        await bench.wait_until(lambda: "word2" in bench.told(conversation))
    missed_from = bench.told(conversation)
    await trio.sleep(0.15)  # some words go by that nobody hears; how many does not matter
    async with bench.listening():
        again = await bench.opencode.messages(conversation, since=prompt.message_id)
        assert again[0].info.id == prompt.message_id
        await bench.wait_idle(conversation)
    words = "".join(f"word{index} " for index in range(60))
    assert words.startswith(missed_from)
    finished = [
        event.part.text
        for event in bench.of(PartUpdated)
        if isinstance(event.part, TextPart)
        and event.part.finished
        and event.part.message != prompt.message_id
    ]
    assert finished == [words, "word0 word1 word2 "]
    read = await bench.opencode.messages(conversation, since=prompt.message_id)
    texts = [part.text for message in read[1:] for part in message.parts if isinstance(part, TextPart)]
    assert texts == finished


@within()
async def test_what_ended_while_nobody_listened_is_read_P8(server_bench: ServerBench) -> None:
    bench = server_bench
    conversation, prompt = await bench.say("::words 3\n::bash echo two\n::say the end")

    async def is_answered() -> bool:
        return (await bench.opencode.messages(conversation))[-1].info.finish == "stop"

    with trio.fail_after(20):
        while not await is_answered():  # noqa: ASYNC110 - there is no stream to wait on: that is the point
            await trio.sleep(0.05)
    assert conversation not in await bench.opencode.status()
    read = await bench.opencode.messages(conversation, since=prompt.message_id)
    assert [message.info.finish for message in read] == [None, "tool-calls", "stop"]


@pytest.mark.opencode
@within()
async def test_an_idle_server_is_heard_every_ten_seconds(real_opencode: RealProcess) -> None:
    async with real_server_bench(real_opencode) as bench, bench.listening():
        with trio.fail_after(11):
            await bench.wait_for(Heartbeat)


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
