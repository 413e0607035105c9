"""Which agents and models there are, and wrong names that never reach a server."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from attrs import evolve

from opencode_actors import Cause, JobStatus, UnknownSession, UsageError
from opencode_actors.testing.fake_server import FakeBehaviour

from .world import SETTINGS, World, open_world

BEHAVIOUR = FakeBehaviour(start_up=1.0, models=frozenset(("scripted/demo", "scripted/free")))


def prompts(world: World) -> int:
    """How many came to any server."""
    return sum(
        message.info.role == "user"
        for server in world.servers.running()
        for stored in server.disk.conversations.values()
        for message in stored.messages.values()
    )


async def test_a_sessions_server_is_asked_or_one_that_runs_or_one_is_started(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        asked = await system.offered()
        assert (asked.session, asked.started) == ("catalog", True)
        assert [model.name for model in asked.catalog.models] == ["scripted/demo", "scripted/free"]
        assert "build" in {agent.name for agent in asked.catalog.agents}
        await trio.sleep(5)
        assert await system.sessions() == ()  # what was started for the question is gone
        await (await system.start("::say one", session="demo")).wait()
        asked = await system.offered()
        assert (asked.session, asked.started) == ("demo", False)
        job = await system.start("::say one", session="other", name="it")
        await job.wait()
        await system.close_session("other")
        asked = await system.offered("it")
        assert (asked.session, asked.started) == ("other", True)


async def test_for_a_session_that_is_not_known_nothing_is_started(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        await (await system.start("::say one", session="payments")).wait()
        for ask in (system.offered, system.conversations, system.detach):
            with pytest.raises(UnknownSession) as caught:
                await ask("paymnts")
            assert "'payments'" in caught.value.hint
        assert [session.key for session in await system.sessions()] == ["payments"]
        assert len(world.engine.containers) == 1


async def test_where_nothing_can_be_started_it_is_said_why(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(BEHAVIOUR) as world:
        world.engine.images.clear()
        async with world.system() as system:
            with pytest.raises(UsageError, match=r"no server could be started to be asked: .*image"):
                await system.offered()


@pytest.mark.parametrize(
    ("model", "agent", "nearest"),
    [("scripted/dmeo", None, "scripted/demo"), (None, "biuld", "build")],
    ids=["model", "agent"],
)
async def test_a_wrong_name_is_refused_before_anything_is_sent(
    model: str | None, agent: str | None, nearest: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system(evolve(SETTINGS, model="")) as system:
        # Of a container that does not run yet nobody knows: it is found out before the prompt is sent.
        job = await (await system.start("::say one", session="demo", model=model, agent=agent)).wait()
        assert job.status is JobStatus.FAILED
        assert job.failure is not None
        assert job.failure.cause is Cause.REJECTED
        assert f"nearest: {nearest}" in job.failure.message
        assert prompts(world) == 0
        with pytest.raises(UsageError, match=f"nearest: {nearest}"):
            await system.start("::say one", session="demo", model=model, agent=agent)
        assert prompts(world) == 0
        assert (await (await system.start("::say one", session="demo")).wait()).status is JobStatus.COMPLETED


async def test_what_is_there_since_it_was_listed_is_not_refused(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        await (await system.start("::say one", session="demo")).wait()
        (server,) = world.servers.running()
        server.behaviour = evolve(server.behaviour, models=frozenset(("scripted/demo", "scripted/new")))
        job = await system.start("::say one", session="demo", model="scripted/new")
        assert (await job.wait()).status is JobStatus.COMPLETED
