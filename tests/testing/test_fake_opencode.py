"""What the fake servers do over time, on a clock of the tests' own: no real second passes."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock

from opencode_actors.errors import ServerRefused, ServerSilent, ServerUnreachable
from opencode_actors.machines.prompt_ids import stamped
from opencode_actors.machines.server_events import (
    ConversationFailed,
    ConversationId,
    ConversationIdle,
    ConversationRetrying,
    Heartbeat,
    InstanceDisposed,
    MessageId,
    MessageUpdated,
    PartDelta,
    PartId,
    PartUpdated,
    ServerEvent,
    TextPart,
)
from opencode_actors.machines.vocabulary import Moment
from opencode_actors.ports import ContainerSpec, Endpoint, Prompt
from opencode_actors.testing.fake_engine import FakeEngine
from opencode_actors.testing.fake_opencode import FakeOpenCode, FakeServers, open_fake_servers
from opencode_actors.testing.fake_server import FakeBehaviour

URL = "http://127.0.0.1:4096"
RNG = random.Random(1)


def connect(servers: FakeServers) -> FakeOpenCode:
    return servers.connect(Endpoint(url=URL, password="secret"))


def prompt(text: str) -> Prompt:
    return stamped(Prompt(text=text), Moment(now=0.0, wall=1_760_000_000.0, roll=RNG.random()))


async def start(opencode: FakeOpenCode, text: str) -> ConversationId:
    conversation = (await opencode.create_conversation(title="t")).id
    await opencode.submit(conversation, prompt(text))
    return conversation


async def read_until(
    stream: AsyncIterator[tuple[ServerEvent, ...]], kind: type[ServerEvent]
) -> list[ServerEvent]:
    events: list[ServerEvent] = []
    async for batch in stream:
        events += batch
        if any(isinstance(event, kind) for event in batch):
            return events
    raise AssertionError("a stream has no end")


async def test_a_server_starts_deaf_and_late(autojump_clock: MockClock) -> None:
    behaviour = FakeBehaviour(start_up=1.0, deaf=0.3)
    async with open_fake_servers(behaviour) as servers:
        opencode = connect(servers)
        with pytest.raises(ServerUnreachable):
            await opencode.health(within=0.2)
        servers.start(URL, password="secret")
        await trio.sleep(0.9)
        with pytest.raises(ServerUnreachable):
            await opencode.health(within=0.2)
        await trio.sleep(0.15)
        began = trio.current_time()
        with pytest.raises(ServerSilent):
            await opencode.agents()  # never answered, also when the server has long been ready
        assert trio.current_time() - began == pytest.approx(30)
        await opencode.health(within=0.2)


@pytest.mark.parametrize(("after", "error"), [(0.0, ServerUnreachable), (45.0, ServerSilent)])
async def test_what_was_asked_for_happens_once_though_its_answer_is_lost(
    autojump_clock: MockClock, after: float, error: type[Exception]
) -> None:
    async with open_fake_servers() as servers:
        server = servers.start(URL, password="secret")
        await trio.testing.wait_all_tasks_blocked()
        opencode = connect(servers)
        conversation = (await opencode.create_conversation(title="t")).id
        said = prompt("::say once")
        server.loses_answers = after
        with pytest.raises(error):
            await opencode.submit(conversation, said)
        assert server.felt["lost"] == 1
        server.loses_answers = None
        await opencode.submit(conversation, said)
        await trio.sleep(1)
        asked, answered = await opencode.messages(conversation)
        assert (asked.info.role, answered.info.role) == ("user", "assistant")


async def test_a_server_that_dies_before_it_answers_has_done_it(autojump_clock: MockClock) -> None:
    async with open_fake_servers(FakeBehaviour(answers=lambda: 5.0)) as servers:
        server = servers.start(URL, password="secret")
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_create_in_vain, connect(servers))
            await trio.sleep(1)
            server.crash()
        servers.start(URL, password="secret")
        await trio.testing.wait_all_tasks_blocked()
        assert len(await connect(servers).conversations()) == 1


async def _create_in_vain(opencode: FakeOpenCode) -> None:
    with pytest.raises(ServerUnreachable):
        await opencode.create_conversation(title="t")


async def test_a_heartbeat_comes_every_ten_seconds_of_silence(autojump_clock: MockClock) -> None:
    async with open_fake_servers() as servers:
        server = servers.start(URL, password="secret")
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        async with connect(servers).events() as stream:
            for beat in (10, 20, 30):
                assert await anext(stream) == (Heartbeat(),)
                assert trio.current_time() - began == pytest.approx(beat)
            server.freeze()
            with trio.move_on_after(1000) as scope:
                await anext(stream)
            assert scope.cancelled_caught
            server.thaw()
            assert await anext(stream) == (Heartbeat(),)


async def test_a_failing_provider_is_tried_for_a_minute_P3(autojump_clock: MockClock) -> None:
    async with open_fake_servers() as servers:
        servers.start(URL, password="secret")
        await trio.testing.wait_all_tasks_blocked()
        opencode = connect(servers)
        began = trio.current_time()
        async with opencode.events() as stream:
            await start(opencode, "::status 500")
            events = await read_until(stream, ConversationFailed)
    retries = [event for event in events if isinstance(event, ConversationRetrying)]
    assert [retry.attempt for retry in retries] == [1, 2, 3, 4, 5]
    assert trio.current_time() - began == pytest.approx(2 + 4 + 8 + 16 + 30)


async def test_an_hour_is_waited_when_a_provider_says_so_P3(autojump_clock: MockClock) -> None:
    async with open_fake_servers() as servers:
        servers.start(URL, password="secret")
        await trio.testing.wait_all_tasks_blocked()
        opencode = connect(servers)
        async with opencode.events() as stream:
            await start(opencode, "::status 429 times=1 retry-after=3600\n::say hello")
            began = trio.current_time()
            await read_until(stream, ConversationIdle)
    assert trio.current_time() - began == pytest.approx(3600)


async def test_a_full_context_is_summed_up_and_gone_on_with(autojump_clock: MockClock) -> None:
    """The failure is told first, the summary is no answer, and the answer is to a message of nobody's."""
    script = "::status 400 code=context_length_exceeded"
    async with open_fake_servers() as servers:
        servers.start(URL, password="secret")
        await trio.testing.wait_all_tasks_blocked()
        opencode = connect(servers)
        async with opencode.events() as stream:
            conversation = await start(opencode, script)
            events = await read_until(stream, ConversationIdle)
        messages = await opencode.messages(conversation)
    assert [event.error.name for event in events if isinstance(event, ConversationFailed)] == [
        "ContextOverflowError"
    ]
    assert [message.info.summary for message in messages if message.info.role == "assistant"] == [
        False, True, False, False,
    ]  # fmt: skip
    synthetic = [
        message.info.id
        for message in messages
        if any(isinstance(part, TextPart) and part.synthetic for part in message.parts)
    ]
    assert [messages[-1].info.parent] == synthetic


async def test_a_message_of_a_batch_shows_its_last_state(autojump_clock: MockClock) -> None:
    """As the real server's, whose events are made into text after their objects have moved on."""
    async with open_fake_servers() as servers:
        servers.start(URL, password="secret")
        await trio.testing.wait_all_tasks_blocked()
        opencode = connect(servers)
        async with opencode.events() as stream:
            await start(opencode, "::say hello")
            await trio.testing.wait_all_tasks_blocked()
            events = await read_until(stream, ConversationIdle)
    done = [
        at
        for at, event in enumerate(events)
        if isinstance(event, MessageUpdated) and event.info.finish == "stop"
    ]
    text = [
        at
        for at, event in enumerate(events)
        if isinstance(event, PartUpdated) and isinstance(event.part, TextPart) and event.part.text == "hello"
    ]
    assert min(done) < min(text)


async def test_a_second_prompt_waits_for_nothing_of_the_first_servers(autojump_clock: MockClock) -> None:
    """A crash in a tool: the tool stays running for ever, and the conversation goes on."""
    async with open_fake_servers() as servers:
        server = servers.start(URL, password="secret", disk="data")
        await trio.testing.wait_all_tasks_blocked()
        opencode = connect(servers)
        conversation = await start(opencode, "::bash sleep 1000")
        await trio.testing.wait_all_tasks_blocked()
        server.crash()
        with pytest.raises(ServerUnreachable):
            await opencode.messages(conversation)
        servers.start(URL, password="secret", disk="data")
        await trio.testing.wait_all_tasks_blocked()
        async with opencode.events() as stream:
            await opencode.submit(conversation, prompt("::say hello"))
            await read_until(stream, ConversationIdle)
        states = [
            (message.info.finish, message.info.completed_at is None)
            for message in await opencode.messages(conversation)
            if message.info.role == "assistant"
        ]
    assert states == [(None, True), ("stop", False)]


async def test_a_thrown_away_instance_aborts_what_ran(autojump_clock: MockClock) -> None:
    async with open_fake_servers() as servers:
        server = servers.start(URL, password="secret")
        await trio.testing.wait_all_tasks_blocked()
        opencode = connect(servers)
        async with opencode.events() as stream:
            conversation = await start(opencode, "::hang")
            await trio.testing.wait_all_tasks_blocked()
            server.dispose()
            await read_until(stream, InstanceDisposed)
        assert conversation not in await opencode.status()


async def test_a_fake_engines_containers_are_its_servers() -> None:
    async with open_fake_servers() as servers:
        engine = FakeEngine(on_start=servers.on_start, on_exit=servers.on_exit)
        spec = ContainerSpec(
            name="a",
            image="localhost/opencode-actors:latest",
            labels={},
            environment={"OPENCODE_SERVER_PASSWORD": "of this container"},
        )
        container = await engine.start(await engine.create(spec))
        await trio.testing.wait_all_tasks_blocked()
        url = f"http://127.0.0.1:{container.port}"
        opencode = servers.connect(Endpoint(url=url, password="of this container"))
        conversation = await opencode.create_conversation(title="kept")
        with pytest.raises(ServerRefused):
            await servers.connect(Endpoint(url=url, password="")).agents()
        await engine.kill(container.id)
        with pytest.raises(ServerUnreachable):
            await opencode.agents()
        again = await engine.start(container.id)
        await trio.testing.wait_all_tasks_blocked()
        endpoint = Endpoint(url=f"http://127.0.0.1:{again.port}", password="of this container")
        assert await servers.connect(endpoint).conversation(conversation.id) == conversation
        await engine.aclose()


async def test_ids_of_another_form_are_taken_too() -> None:
    async with open_fake_servers() as servers:
        servers.start(URL, password="secret")
        await trio.testing.wait_all_tasks_blocked()
        opencode = connect(servers)
        conversation = (await opencode.create_conversation(title="t")).id
        odd = Prompt(message_id=MessageId("mine"), part_id=PartId("own"), text="::say hello")
        async with opencode.events() as stream:
            await opencode.submit(conversation, odd)
            await read_until(stream, ConversationIdle)
        assert len(await opencode.messages(conversation, since=MessageId("mine"))) == 2


async def test_what_is_told_twice_or_late_and_what_never_is() -> None:
    async with open_fake_servers() as servers:
        server = servers.start(URL, password="secret")
        await trio.testing.wait_all_tasks_blocked()
        opencode = connect(servers)
        server.garbles.twice = server.garbles.late = True
        async with opencode.events() as stream:
            await start(opencode, "::say hello")
            await trio.testing.wait_all_tasks_blocked()
            server.publish(Heartbeat())
            events = await anext(aiter(stream))
    assert sum(isinstance(event, PartDelta) for event in events) == 1
    assert sum(isinstance(event, ConversationIdle) for event in events) == 2
    assert isinstance(events[-1], ConversationIdle)  # the heartbeat came after it


async def test_a_stream_may_lose_what_it_told(autojump_clock: MockClock) -> None:
    async with open_fake_servers() as servers:
        server = servers.start(URL, password="secret")
        await trio.testing.wait_all_tasks_blocked()
        opencode = connect(servers)
        async with opencode.events() as stream:
            await start(opencode, "::say hello")
            await trio.testing.wait_all_tasks_blocked()
            server.drop_streams(losing=True)
            with pytest.raises(ServerUnreachable):
                await anext(aiter(stream))


async def test_a_slow_server_answers_in_its_time(autojump_clock: MockClock) -> None:
    async with open_fake_servers() as servers:
        server = servers.start(URL, password="secret")
        await trio.testing.wait_all_tasks_blocked()
        opencode = connect(servers)
        server.answers_after = 2.0
        began = trio.current_time()
        await opencode.agents()
        assert trio.current_time() == began + 2.0
        with pytest.raises(ServerSilent):
            await opencode.health(within=1.0)
