"""What a running system does between two jobs of a session, on virtual time."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from opencode_actors import Busy, Cause, JobStatus, SessionChanged, SessionStatus, StoreError, System
from opencode_actors.testing.fake_server import FakeBehaviour
from opencode_actors.testing.provider_demo import demo_script

from .world import SETTINGS, World, open_world

BEHAVIOUR = FakeBehaviour(script=demo_script, start_up=1.0)
LIMIT = SETTINGS.max_session_disk


async def _run(system: System, prompt: str, session: str = "demo") -> None:
    ended = await (await system.start(prompt, session=session)).wait()
    assert ended.status is JobStatus.COMPLETED, ended


def _grow(world: World) -> str:
    (container,) = world.engine.containers.values()
    container.memory_bytes = int(0.9 * SETTINGS.memory)
    return container.id


async def test_p12_a_server_that_has_grown_is_renewed_between_jobs_with_its_conversation(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        first = await system.start("::pause 20\n::say one", session="demo")
        second = await system.start("::say two", session="demo")
        following = system.follow()
        await trio.sleep(5)
        (before,) = await system.sessions()
        grown = _grow(world)
        assert (await first.wait()).status is (await second.wait()).status is JobStatus.COMPLETED
        (after,) = await system.sessions()
        assert grown not in world.engine.containers
        assert after.conversation == before.conversation
        assert after.crashes == 0
        async for notice in following:
            if isinstance(notice, SessionChanged) and notice.status is SessionStatus.STOPPING:
                assert "the next job gets a new container" in notice.detail
                break


async def test_p12_one_that_grew_in_its_last_job_is_stopped_at_once_and_starts_with_the_next(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        job = await system.start("::pause 3\n::say one", session="demo")
        await trio.sleep(2.5)
        _grow(world)
        await job.wait()
        await trio.sleep(30)
        assert not world.engine.containers
        await _run(system, "::say two")


async def test_p13_a_session_whose_data_outgrows_its_bound_refuses_until_there_is_room(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        world.directories.sizes["demo"] = LIMIT + 1
        await _run(system, "::say one")
        await trio.sleep(1)
        with pytest.raises(Busy, match="maxSessionDisk is 2048 MiB") as raised:
            await system.start("::say two", session="demo")
        assert "clean this one up" in raised.value.hint
        (session,) = await system.sessions()
        assert session.disk_bytes == LIMIT + 1
        await _run(system, "::say two", session="other")
        world.directories.sizes["demo"] = 0
        with pytest.raises(Busy):  # what it knew; asking made it look again
            await system.start("::say two", session="demo")
        await trio.sleep(1)
        await _run(system, "::say two")


async def test_p13_a_container_does_not_start_on_data_beyond_its_bound(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        world.directories.sizes["demo"] = LIMIT + 1
        world.directories.bound = LIMIT
        ended = await (await system.start("::say one", session="demo")).wait()
        assert ended.failure is not None
        assert ended.failure.cause is Cause.STORE


async def test_p13_without_room_on_the_disk_no_job_is_taken(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        world.directories.full = True
        with pytest.raises(StoreError, match="only 0 B free"):
            await system.start("::say one", session="demo")
        assert not world.store.jobs()
        world.directories.full = False
        await _run(system, "::say one")


async def test_p11_logins_are_carried_back_after_a_job_and_after_a_container(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world:
        async with world.system() as system:
            await _run(system, "::say one")
            await trio.sleep(1)
            assert world.directories.tidied == ["demo"]
        assert world.directories.tidied == ["demo"] * 2
