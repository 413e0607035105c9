"""What is done for a session and its jobs: nothing half-made, nothing left behind, failures as facts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing
from attrs import define, field

from opencode_actors.errors import (
    EngineError,
    EngineRefused,
    EngineUnavailable,
    ImageMissing,
    ServerUnreachable,
    StoreError,
)
from opencode_actors.kernel.job_operations import JobOperations
from opencode_actors.kernel.make_whole import make_whole
from opencode_actors.kernel.servers import Servers
from opencode_actors.kernel.session_operations import SessionOperations
from opencode_actors.machines import job_messages as j
from opencode_actors.machines import session_messages as m
from opencode_actors.machines.server_events import ConversationId, MessageId
from opencode_actors.machines.vocabulary import Cause, Rung
from opencode_actors.ports import ContainerSpec, Endpoint, Permissions
from opencode_actors.testing.fake_opencode import FakeServers, open_fake_servers

from .schedules import schedules
from .world import SETTINGS, SlowEngine

NAME = "opencode-actors-test-demo"


# ---- making something whole


@define
class Workshop:
    """Makes a thing in 5 s and takes one apart in 2 s, if nothing is in the way."""

    stands: list[str] = field(factory=list[str])
    log: list[tuple[float, str]] = field(factory=list[tuple[float, str]])
    refusal: EngineError | None = None
    making_takes: float = 5.0

    async def make(self) -> str:
        self.log.append((trio.current_time(), "make"))
        await trio.sleep(self.making_takes)
        if self.refusal is not None:
            raise self.refusal
        self.stands.append("thing")
        return "thing"

    async def undo(self, thing: str) -> None:
        self.log.append((trio.current_time(), "undo"))
        await trio.sleep(2)
        self.stands.remove(thing)

    async def made(self) -> str:
        return await make_whole(self.make, undo=self.undo, within=4.0)


@schedules(5)
async def test_what_nobody_cancels_is_made(autojump_clock: trio.testing.MockClock) -> None:
    shop = Workshop()
    assert await shop.made() == "thing"
    assert shop.stands == ["thing"]
    assert shop.log == [(0.0, "make")]


@schedules(5)
async def test_what_is_cancelled_is_let_finish_and_then_undone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    shop = Workshop()
    with trio.move_on_after(3) as scope:
        await shop.made()
    assert scope.cancelled_caught
    assert shop.stands == []
    assert shop.log == [(0.0, "make"), (5.0, "undo")]
    assert trio.current_time() == 7.0


@schedules(5)
async def test_also_when_it_is_cancelled_in_the_moment_in_which_it_is_done(
    autojump_clock: trio.testing.MockClock,
) -> None:
    shop = Workshop()
    made: list[str] = []
    with trio.move_on_after(5):
        made.append(await shop.made())
    assert made == shop.stands


async def _tidy() -> int:
    await trio.lowlevel.checkpoint()
    return 0


async def test_what_takes_too_long_then_is_cut_off(autojump_clock: trio.testing.MockClock) -> None:
    shop = Workshop(making_takes=100.0)
    with trio.move_on_after(3):
        await shop.made()
    assert trio.current_time() == 3 + 4
    assert shop.stands == []


async def test_what_is_cancelled_already_is_not_begun(autojump_clock: trio.testing.MockClock) -> None:
    shop = Workshop()
    with trio.move_on_after(0):
        await trio.lowlevel.cancel_shielded_checkpoint()
        await shop.made()
    assert shop.log == []


async def test_a_refusal_comes_alone(autojump_clock: trio.testing.MockClock) -> None:
    refusal = EngineRefused("no space left", status=500)
    shop = Workshop(refusal=refusal)
    with pytest.raises(EngineRefused) as raised:
        await shop.made()
    assert raised.value is refusal
    with trio.move_on_after(3) as scope:
        await shop.made()
    assert scope.cancelled_caught


# ---- launching a container


async def _says_nothing(message: m.SessionMessage) -> None:
    await trio.lowlevel.checkpoint()
    raise AssertionError(f"nothing is said before the end, and not {message}")


def operations(
    engine: SlowEngine, servers: FakeServers, *, broken: StoreError | None = None
) -> SessionOperations:
    async def prepare(password: str, _: Permissions | None) -> ContainerSpec:
        await trio.lowlevel.checkpoint()
        if broken is not None:
            raise broken
        environment = {"OPENCODE_SERVER_PASSWORD": password}
        return ContainerSpec(name=NAME, image=SETTINGS.image, labels={}, environment=environment)

    return SessionOperations(engine, Servers(servers.connect), prepare, _tidy, lambda: "secret")


async def launch(done: SessionOperations) -> m.SessionMessage | None:
    return await done.perform(m.LaunchContainer(name=NAME), _says_nothing)


@pytest.mark.parametrize("after", [0.0, 0.5, 1.0, 1.5, 2.0, 2.5])
@schedules(3)
async def test_a_launch_that_is_given_up_leaves_no_container(
    autojump_clock: trio.testing.MockClock, after: float
) -> None:
    async with open_fake_servers() as servers:
        engine = SlowEngine(creating_takes=1.0)
        engine.delay("start", 1.0)
        launched: list[object] = []
        with trio.move_on_after(after):
            launched.append(await launch(operations(engine, servers)))
        assert len(engine.containers) == len(launched)


async def test_a_removal_waits_for_what_is_being_made(autojump_clock: trio.testing.MockClock) -> None:
    """Podman is left with a container that it can neither list nor make again, if one does not."""
    async with open_fake_servers() as servers:
        engine = SlowEngine(creating_takes=1.0)
        engine.delay("start", 1.0)
        done = operations(engine, servers)
        scope = trio.CancelScope()

        async def launched() -> None:
            with scope:
                await launch(done)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(launched)
            await trio.sleep(0.5)
            scope.cancel()
            request = m.EndContainer(name=NAME, rung=Rung.REMOVE, grace=10.0)
            assert await done.perform(request, _says_nothing) == m.ContainerRemoved()
            assert trio.current_time() == 1.0
        assert [verb for verb, _ in engine.calls] == ["create", "remove", "remove", "inspect"]


async def test_what_was_left_under_its_name_goes_first(autojump_clock: trio.testing.MockClock) -> None:
    async with open_fake_servers() as servers:
        engine = SlowEngine()
        assert isinstance(await launch(operations(engine, servers)), m.ContainerLaunched)
        (before,) = engine.containers
        assert isinstance(await launch(operations(engine, servers)), m.ContainerLaunched)
        (after,) = engine.containers
        assert before != after


@pytest.mark.parametrize(
    ("error", "cause", "retryable"),
    [
        (ImageMissing("no image"), Cause.IMAGE_MISSING, False),
        (EngineUnavailable("no engine"), Cause.ENGINE_UNAVAILABLE, True),
        (EngineRefused("no such flag", status=400), Cause.ENGINE_REFUSED, False),
    ],
)
@pytest.mark.parametrize("verb", ["create", "start"])
async def test_what_the_engine_refuses_is_said_as_what_it_is(
    autojump_clock: trio.testing.MockClock, error: EngineError, cause: Cause, verb: str, *, retryable: bool
) -> None:
    async with open_fake_servers() as servers:
        engine = SlowEngine()
        if verb == "create":
            engine.refuse("create", error)
        else:
            engine.refuse("start", error)
        failed = await launch(operations(engine, servers))
        assert isinstance(failed, m.LaunchFailed)
        assert (failed.failure.cause, failed.failure.message) == (cause, error.message)
        assert failed.retryable is retryable
        assert not engine.containers


async def test_a_container_that_somebody_removes_while_it_is_started_is_no_fault_of_its_image(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_fake_servers() as servers:
        engine = SlowEngine(start_delay=20.0)
        outcomes: list[object] = []

        async def launching() -> None:
            outcomes.append(await launch(operations(engine, servers)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(launching)
            await trio.sleep(5)
            (container,) = engine.containers
            engine.take_away(container)
        (failed,) = outcomes
        assert isinstance(failed, m.LaunchFailed)
        assert (failed.failure.cause, failed.retryable) == (Cause.REMOVED, True)
        assert "somebody removed the container" in failed.failure.message


async def test_directories_that_cannot_be_made_are_not_the_engines_fault(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_fake_servers() as servers:
        failed = await launch(operations(SlowEngine(), servers, broken=StoreError("the disk is full")))
        assert isinstance(failed, m.LaunchFailed)
        assert (failed.failure.cause, failed.failure.message) == (Cause.STORE, "the disk is full")


async def test_an_engine_that_is_away_does_not_end_a_container(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Its death is asked for until somebody can say."""
    async with open_fake_servers() as servers:
        engine = SlowEngine()
        done = operations(engine, servers)
        launched = await launch(done)
        assert isinstance(launched, m.ContainerLaunched)
        engine.refuse("wait_exit", EngineUnavailable("no engine"), times=3)
        died: list[tuple[float, object]] = []

        async def watch() -> None:
            seen = await done.perform(m.WatchExit(container=launched.container), _says_nothing)
            died.append((trio.current_time(), seen))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await trio.sleep(5)
            assert not died
            engine.crash(launched.container.id, exit_code=3)
        ((at, seen),) = died
        assert at == 5.0
        assert isinstance(seen, m.ContainerExited)
        assert seen.death.exit_code == 3


# ---- connections


async def test_each_server_has_one_connection_until_it_is_forgotten() -> None:
    opened: list[str] = []

    @define
    class Connection:
        url: str
        closed: bool = False

        async def aclose(self) -> None:
            await trio.lowlevel.checkpoint()
            self.closed = True

    def connect(endpoint: Endpoint) -> Connection:
        opened.append(endpoint.url)
        return Connection(endpoint.url)

    servers = Servers(connect)  # type: ignore[arg-type]
    here, there = (Endpoint(url=f"http://127.0.0.1:{port}", password="") for port in (1, 2))
    servers.add(here)
    servers.add(there)
    first = servers.at(here)
    assert servers.at(here) is first
    assert repr(servers) == "<Servers http://127.0.0.1:1, http://127.0.0.1:2>"
    await servers.forget(here)
    assert first.closed  # type: ignore[attr-defined]
    with pytest.raises(ServerUnreachable, match="not connected any more"):
        servers.at(here)
    await servers.aclose()
    await servers.aclose()
    assert opened == [here.url, there.url]
    assert repr(servers) == "<Servers none>"


AWAY = Endpoint(url="http://127.0.0.1:9", password="")
CONVERSATION = ConversationId("ses_1")


async def _unheard(message: j.JobMessage) -> None:
    await trio.lowlevel.checkpoint()
    raise AssertionError(message)


@pytest.mark.parametrize(
    ("operation", "answer"),
    [
        (j.ReadConversation(endpoint=AWAY, conversation=CONVERSATION, since=MessageId("m")), j.ReadFailed),
        (j.AbortConversation(endpoint=AWAY, conversation=CONVERSATION), j.AbortFailed),
    ],
)
async def test_a_job_that_is_late_hears_that_its_server_is_gone(
    operation: j.JobOperation, answer: Callable[..., object]
) -> None:
    async with open_fake_servers() as servers:
        done = JobOperations(SlowEngine(), Servers(servers.connect))
        assert await done.perform(operation, _unheard) == answer(
            reason=f"OpenCode's server at {AWAY.url} is not connected any more"
        )


def test_a_password_is_not_shown(tmp_path: Path) -> None:
    assert "secret" not in repr(Endpoint(url="http://127.0.0.1:1", password="secret"))
