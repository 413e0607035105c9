"""An engine that goes, comes back, stays away or loses a death, on virtual time."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing

from opencode_actors import Cause, JobStatus, SessionStatus, UnknownSession
from opencode_actors.kernel.engine_watch import LIST_EVERY, PATIENCE
from opencode_actors.machines.session import ENGINE_BACK_WITHIN
from opencode_actors.ports import Death
from opencode_actors.testing.fake_container import FakeContainer
from opencode_actors.testing.fake_server import FakeBehaviour
from opencode_actors.testing.provider_demo import demo_script

from .world import SETTINGS, World, begun, open_world

BEHAVIOUR = FakeBehaviour(script=demo_script, start_up=1.0)


def _unnoticed(container: FakeContainer, death: Death) -> None:
    """The fake server goes on answering."""


def nobody_sees(world: World) -> None:
    """The next death: neither who watches the process, nor who is connected to the server."""
    world.engine.delay("wait_exit", math.inf)
    world.engine.on_exit = _unnoticed


def crash(world: World, exit_code: int = 139) -> None:
    (container,) = world.engine.containers
    world.engine.crash(container, exit_code=exit_code)


async def test_a_job_goes_on_while_the_engine_is_away(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        job = await begun(system, "::say begun\n::pause 90\n::say done")
        world.engine.go_away()
        assert (await job.wait()).status is JobStatus.COMPLETED
        again = await (await system.start("::say again", session="demo")).wait()
        assert again.status is JobStatus.COMPLETED
        world.engine.come_back()


async def test_a_launch_waits_for_an_engine_that_comes_back(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        world.engine.go_away()
        job = await system.start("::say hello", session="demo")
        await trio.sleep(ENGINE_BACK_WITHIN / 2)
        assert (await job.status()).status is JobStatus.PENDING
        world.engine.come_back()
        assert (await job.wait()).status is JobStatus.COMPLETED


async def test_an_engine_that_stays_away_is_the_cause_and_the_next_start_tries_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        world.engine.go_away()
        before = trio.current_time()
        ended = await (await system.start("::say hello", session="demo")).wait()
        assert ended.failure is not None
        assert ended.failure.cause is Cause.ENGINE_UNAVAILABLE
        assert trio.current_time() - before == pytest.approx(ENGINE_BACK_WITHIN, abs=3)
        (session,) = await system.sessions()
        assert session.status is SessionStatus.GIVEN_UP
        world.engine.come_back()
        again = await (await system.start("::say again", session="demo")).wait()
        assert again.status is JobStatus.COMPLETED


async def test_a_death_while_the_engine_is_away_costs_seconds(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        job = await begun(system)
        world.engine.go_away()
        crash(world)
        before = trio.current_time()
        ended = await job.wait()
        assert ended.failure is not None
        assert ended.failure.cause is Cause.CRASH
        assert trio.current_time() - before < 10
        world.engine.come_back()
        again = await (await system.start("::say again", session="demo")).wait()
        assert again.status is JobStatus.COMPLETED
        assert len(world.engine.containers) == 1


async def test_a_session_that_is_closed_without_an_engine_holds_nobody(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        await begun(system)
        world.engine.go_away()
        before = trio.current_time()
        await system.close_session("demo")
        graces = SETTINGS.stop_grace + SETTINGS.kill_grace + SETTINGS.remove_grace
        assert trio.current_time() - before <= graces + 5
        world.engine.come_back()


# ---- a death that nobody saw


async def test_a_missed_death_is_told_by_the_engines_event(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        nobody_sees(world)
        job = await begun(system)
        before = trio.current_time()
        crash(world)
        ended = await job.wait()
        assert ended.failure is not None
        assert (ended.failure.cause, ended.failure.exit_code) == (Cause.CRASH, 139)
        assert trio.current_time() - before == pytest.approx(PATIENCE, abs=0.1)
        world.engine.be_honest()


@pytest.mark.parametrize("removed", [False, True])
async def test_a_death_of_which_no_event_told_is_found_in_the_list(
    autojump_clock: trio.testing.MockClock, *, removed: bool
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        nobody_sees(world)
        world.engine.swallow_events()
        job = await begun(system)
        before = trio.current_time()
        if removed:
            await world.engine.remove(next(iter(world.engine.containers)))
        else:
            crash(world)
        ended = await job.wait()
        assert ended.failure is not None
        assert ended.failure.cause is (Cause.REMOVED if removed else Cause.CRASH)
        assert trio.current_time() - before <= LIST_EVERY + PATIENCE + 0.1
        world.engine.be_honest()


async def test_what_happened_while_the_stream_was_broken_is_looked_up_when_it_stands_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        nobody_sees(world)
        job = await begun(system)
        world.engine.break_streams()
        crash(world)
        before = trio.current_time()
        assert (await job.wait()).status is JobStatus.FAILED
        assert trio.current_time() - before < PATIENCE + 2
        world.engine.be_honest()


async def test_an_idle_system_asks_the_engine_for_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(BEHAVIOUR) as world, world.system():
        before = world.engine.statistics().calls.get("list", 0)
        await trio.sleep(3600)
        assert world.engine.statistics().calls.get("list", 0) == before


# ---- given up, and afresh


async def test_a_session_that_was_given_up_is_made_usable_by_a_reset(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        started = world.engine.on_start
        world.engine.on_start = lambda container: world.engine.crash(container.id, exit_code=3)
        world.engine.delay("start", 0.1)
        ended = await (await system.start("::say hello", session="demo")).wait()
        assert ended.status is JobStatus.FAILED
        world.engine.on_start = started
        after = await system.reset_session("demo")
        assert (after.status, after.crashes) == (SessionStatus.ABSENT, 0)
        again = await (await system.start("::say again", session="demo")).wait()
        assert again.status is JobStatus.COMPLETED
        with pytest.raises(UnknownSession):
            await system.reset_session("never-seen")


async def test_a_quarantined_session_is_made_usable_by_a_reset_when_the_engine_ends_it_at_last(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        job = await begun(system)
        for verb in ("stop", "kill", "remove"):
            world.engine.lie(verb)
        next(iter(world.engine.containers.values())).spawn("sleep")
        await job.cancel()
        (session,) = await system.sessions()
        assert session.status is SessionStatus.QUARANTINED
        world.engine.be_honest()
        await system.reset_session("demo")
        again = await (await system.start("::say again", session="demo")).wait()
        assert again.status is JobStatus.COMPLETED
        assert len(world.engine.containers) == 1
