"""Cancels on virtual time: at every instant of a job's life, by every rung, and two of them at once."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from opencode_actors import JobSnapshot, JobStatus, Rung
from opencode_actors.machines.notices import JobCancelling, JobEnded, Notice
from opencode_actors.testing.fake_container import FakeContainer
from opencode_actors.testing.fake_server import FakeBehaviour
from opencode_actors.testing.provider_demo import demo_script

from .schedules import schedules
from .world import SETTINGS, World, begun, open_world

BEHAVIOUR = FakeBehaviour(script=demo_script, start_up=1.0)


def container_of(world: World) -> FakeContainer:
    (one,) = world.engine.containers.values()
    return one


async def test_p6_a_daemon_of_a_command_takes_the_container_down_and_is_named(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        job = await begun(system)
        container = container_of(world)
        daemon = container.spawn("sleep")
        before = trio.current_time()
        cancelled = await job.cancel()

        assert cancelled.status is JobStatus.CANCELLED
        assert cancelled.climb is not None
        assert cancelled.climb.ended_by is Rung.STOP
        assert f"sleep (pid {daemon.pid}) outlived the abort" in cancelled.climb.why
        assert not container.is_alive
        assert trio.current_time() - before == pytest.approx(SETTINGS.abort_grace, abs=1)
        again = await (await system.start("::say again", session="demo")).wait()
        assert again.status is JobStatus.COMPLETED


async def test_p6_a_command_that_is_slow_to_die_is_waited_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        job = await begun(system)
        container = container_of(world)
        container.spawn("make")

        async def die() -> None:
            await trio.sleep(3)
            container.daemons.clear()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(die)
            cancelled = await job.cancel()
        assert cancelled.climb is not None
        assert cancelled.climb.ended_by is Rung.ABORT
        assert dict(cancelled.climb.seconds)[Rung.ABORT] == pytest.approx(3, abs=1)
        assert container.is_alive


async def test_what_a_completed_job_left_on_purpose_outlives_the_cancel_of_the_next(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        first = await begun(system, "::say begun\n::pause 5\n::say done")
        container = container_of(world)
        daemon = container.spawn("dev-server")
        assert (await first.wait()).status is JobStatus.COMPLETED
        cancelled = await (await begun(system)).cancel()
        assert cancelled.climb is not None
        assert cancelled.climb.ended_by is Rung.ABORT
        assert container.daemons == [daemon]


async def test_looking_is_for_cancelling_alone(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        job = await begun(system, "::words 200 rate=10")
        await trio.sleep(10)
        assert world.engine.statistics().calls["processes"] == 1
        container_of(world).spawn("sleep")
        await job.cancel()
        most = SETTINGS.abort_grace / 0.25 + 2
        assert 5 < world.engine.statistics().calls["processes"] <= most


# ---- whenever it comes


@schedules(3)
@pytest.mark.parametrize("prompt", ["::say one two", "::hang", "::bash sleep 1\n::say done"])
async def test_a_cancel_at_any_instant_settles_once_and_leaves_the_session_usable(
    autojump_clock: trio.testing.MockClock, prompt: str
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        for number in range(40):
            session, told = f"s{number}", list[Notice]()
            job = await system.start(prompt, session=session)
            following = system.follow(job.id)
            await trio.sleep(number * 0.07)
            ended = await job.cancel()
            told = [notice async for notice in following if isinstance(notice, JobEnded)]
            assert [getattr(notice, "snapshot", None) for notice in told] == [ended]
            assert ended.settled
            assert ended.failure is None
            again = await (await system.start("::say again", session=session)).wait()
            assert again.status is JobStatus.COMPLETED
            await system.close_session(session)
        assert not world.engine.containers


@schedules(3)
async def test_many_cancels_at_once_have_one_answer_and_climb_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        job = await begun(system)
        following = system.follow(job.id)
        container_of(world).spawn("sleep")
        answers: list[JobSnapshot] = []

        async def cancel(after: float) -> None:
            await trio.sleep(after)
            answers.append(await job.cancel())

        async with trio.open_nursery() as nursery:
            for after in (0.0, 0.0, 0.1, 9.9, 10.0):
                nursery.start_soon(cancel, after)
        assert answers == [answers[0]] * 5
        rungs = [notice.rung async for notice in following if isinstance(notice, JobCancelling)]
        assert rungs == [Rung.ABORT, Rung.STOP]


async def test_a_cancel_while_the_container_backs_off_has_nothing_to_stop(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        running = await begun(system)
        waiting = await system.start("::say next", session="demo")
        world.engine.crash(container_of(world).id, exit_code=1)
        assert (await running.wait()).status is JobStatus.FAILED
        cancelled = await waiting.cancel()
        assert cancelled.status is JobStatus.CANCELLED
        assert cancelled.climb is not None
        assert cancelled.climb.ended_by is None
