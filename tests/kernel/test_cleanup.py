"""Cleaning up: idle sessions end, whoever has work does not, and files go only when that is asked for."""

from __future__ import annotations

from functools import partial

import pytest
import trio
import trio.testing

from opencode_actors import JobStatus, System
from opencode_actors.testing.fake_server import FakeBehaviour
from opencode_actors.testing.provider_demo import demo_script

from .schedules import schedules
from .world import open_world

BEHAVIOUR = FakeBehaviour(script=demo_script, start_up=1.0)


async def _used(system: System, *keys: str) -> None:
    for key in keys:
        assert (await (await system.start("::say one", session=key)).wait()).status is JobStatus.COMPLETED
    await trio.sleep(1)


async def test_idle_sessions_end_and_those_with_jobs_never_do(autojump_clock: trio.testing.MockClock) -> None:
    """Upstream's clean-up deletes sessions that run."""
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        await _used(system, "idle")
        running = await system.start("::hang", session="running")
        await trio.sleep(5)
        queued = await system.start("::say later", session="running")
        result = await system.cleanup(delete_data=True, delete_workspaces=True)
        assert result.ended == ("idle",)
        assert [(kept.session, kept.why) for kept in result.kept] == [("running", "session running has work")]
        assert (await running.status()).status is JobStatus.RUNNING
        assert (await queued.status()).status is JobStatus.PENDING
        assert len(world.engine.containers) == 1
        assert len(result.removed) == 2
        assert not any(path.exists() for path in result.removed)


async def test_what_was_used_before_the_clock_was_set_back_is_cleaned_up_all_the_same(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ahead = [0.0]
    async with open_world(BEHAVIOUR) as world, world.system(ahead=lambda: ahead[0]) as system:
        await _used(system, "demo")
        ahead[0] = -3600.0
        assert [kept.why for kept in (await system.cleanup(older_than=60)).kept] == ["it was used lately"]
        assert (await system.cleanup()).ended == ("demo",)
        assert not world.engine.containers


async def test_nothing_on_the_disk_goes_unless_it_is_asked_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world:
        async with world.system() as system:
            await _used(system, "demo")
            (before,) = await system.sessions()
            workspace = system.workspace(before.key)
            result = await system.cleanup()
            assert (result.ended, result.removed, result.kept) == (("demo",), (), ())
            assert workspace.is_dir()
            await _used(system, "demo")
            (after,) = await system.sessions()
            assert after.conversation == before.conversation
        async with world.system() as system:  # known to the journal alone
            result = await system.cleanup(delete_workspaces=True)
            assert (result.ended, result.removed) == ((), (workspace,))


async def test_what_was_cleaned_up_once_is_not_looked_at_again_until_it_has_a_job(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        await _used(system, "one", "two")
        listed = partial(world.store.on_disk, after="")
        assert len(await listed(data=True, workspaces=True)) == 2
        await system.cleanup(delete_workspaces=True)
        assert await listed(data=False, workspaces=True) == ()
        assert len(await listed(data=True, workspaces=False)) == 2
        await system.cleanup(delete_data=True)
        assert await listed(data=True, workspaces=True) == ()
        assert (await system.cleanup(delete_data=True, delete_workspaces=True)).removed == ()
        await _used(system, "two")
        assert [session.key for session in await listed(data=True, workspaces=True)] == ["two"]


async def test_a_full_disk_can_be_cleaned_up(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_world(BEHAVIOUR) as world:
        async with world.system() as system:
            await _used(system, "demo")
        async with world.system() as system:
            world.store.full = True
            result = await system.cleanup(delete_data=True, delete_workspaces=True)
            assert len(result.removed) == 2
            world.store.full = False
            (said,) = [record.getMessage() for record in caplog.records]
            assert "the next clean-up looks for them again" in said


async def test_what_was_used_lately_is_kept(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        await _used(system, "old")
        await trio.sleep(100)
        await _used(system, "new")
        result = await system.cleanup(older_than=50)
        assert result.ended == ("old",)
        assert [kept.session for kept in result.kept] == ["new"]


@schedules(20)
async def test_a_session_that_gets_a_job_meanwhile_is_left_alone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        await _used(system, "demo")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_used, system, "demo")
            result = await system.cleanup(delete_data=True, delete_workspaces=True)
        (session,) = await system.sessions()
        assert system.workspace(session.key).is_dir()
        assert bool(result.kept) != bool(result.removed)
