"""What a launch makes of what the engine does to it."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from opencode_actors.errors import EngineError, EngineRefused
from opencode_actors.kernel.servers import Servers
from opencode_actors.kernel.session_operations import SessionOperations
from opencode_actors.machines.session_messages import (
    ContainerLaunched,
    LaunchContainer,
    LaunchFailed,
    SessionMessage,
)
from opencode_actors.machines.vocabulary import Cause, JobStatus
from opencode_actors.ports import ContainerSpec, Death, Permissions
from opencode_actors.testing.fake_container import FakeContainer
from opencode_actors.testing.fake_engine import FakeEngine
from opencode_actors.testing.fake_opencode import open_fake_servers

from .world import open_world

NAME = "oa-demo"
CANNOT_RUN = Death(exit_code=127, oom_killed=False)


async def _unheard(message: SessionMessage) -> None:
    await trio.lowlevel.checkpoint()
    raise AssertionError(message)


async def _prepare(password: str, _: Permissions | None) -> ContainerSpec:
    del password
    await trio.lowlevel.checkpoint()
    return ContainerSpec(name="", image="localhost/opencode-actors:latest", labels={}, environment={})


async def _tidy() -> int:
    await trio.lowlevel.checkpoint()
    return 0


async def _launch(engine: FakeEngine) -> SessionMessage | None:
    async with open_fake_servers() as servers:
        before = engine.on_start

        def started(container: FakeContainer) -> None:
            servers.on_start(container)
            before(container)

        engine.on_start, engine.on_exit = started, servers.on_exit
        open_servers = Servers(servers.connect)
        try:
            operations = SessionOperations(engine, open_servers, _prepare, _tidy, lambda: "secret")
            return await operations.perform(LaunchContainer(name=NAME), _unheard)
        finally:
            await open_servers.aclose()


def _ends(engine: FakeEngine, log: str, death: Death = CANNOT_RUN) -> None:
    def end(container: FakeContainer) -> None:
        container.log = log
        engine.end(container, death)

    engine.on_start = end


async def test_p25_a_container_that_ended_at_once_is_told_with_its_last_words_and_removed() -> None:
    engine = FakeEngine()
    _ends(engine, "long ago\n" + "looking\n" * 2 + "exec: opencode:\tnot found\n")
    answer = await _launch(engine)
    assert isinstance(answer, LaunchFailed)
    assert not answer.retryable
    assert (answer.failure.cause, answer.failure.exit_code) == (Cause.CRASH, 127)
    assert answer.failure.message.startswith(
        "the container ended at once with exit code 127: looking looking exec: opencode: not found ("
    )
    assert not engine.containers


async def test_p25_memory_that_ended_a_container_before_its_start_was_answered_is_named() -> None:
    engine = FakeEngine()
    _ends(engine, "", Death(exit_code=137, oom_killed=True))
    answer = await _launch(engine)
    assert isinstance(answer, LaunchFailed)
    assert (answer.failure.cause, answer.failure.exit_code) == (Cause.OOM, 137)
    assert not engine.containers


@pytest.mark.parametrize("log", ["", "x" * 10_000])
async def test_the_last_words_are_bounded_and_may_be_none(log: str) -> None:
    engine = FakeEngine()
    _ends(engine, log)
    answer = await _launch(engine)
    assert isinstance(answer, LaunchFailed)
    assert len(answer.failure.message) < 500
    assert ("it wrote nothing" in answer.failure.message) is (log == "")


async def test_last_words_that_cannot_be_read_are_no_other_failure() -> None:
    engine = FakeEngine()
    _ends(engine, "unheard")
    engine.refuse("log", EngineRefused("no log", status=500))
    answer = await _launch(engine)
    assert isinstance(answer, LaunchFailed)
    assert answer.failure.cause is Cause.CRASH
    assert not engine.containers


@pytest.mark.parametrize(
    ("error", "times", "launched"),
    [
        (EngineRefused("address already in use", status=409), 1, True),
        (EngineRefused("address already in use", status=409), 2, False),
        (EngineRefused("no space left", status=500), 1, False),
    ],
)
async def test_p23_a_port_that_was_taken_meanwhile_is_given_up_for_another_once(
    error: EngineError, times: int, *, launched: bool
) -> None:
    engine = FakeEngine()
    engine.refuse("start", error, times=times)
    answer = await _launch(engine)
    if launched:
        assert isinstance(answer, ContainerLaunched)
        assert [found.id for found in engine.containers.values()] == [answer.container.id]
    else:
        assert isinstance(answer, LaunchFailed)
        assert answer.failure.cause is Cause.ENGINE_REFUSED
        assert not engine.containers


async def test_p25_a_job_in_a_container_that_ends_at_once_fails_with_the_reason(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world() as world:
        _ends(world.engine, "sh: opencode: not found\n")
        async with world.system() as system:
            ended = await (await system.start("hello", session="demo")).wait()
        assert ended.status is JobStatus.FAILED
        assert ended.failure is not None
        assert ended.failure.cause is Cause.CRASH
        assert "opencode: not found" in ended.failure.message
        world.check_nothing_is_left()
