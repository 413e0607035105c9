"""The whole system on virtual time: what it does, and exactly when."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing
from attrs import evolve

from opencode_actors import (
    Busy,
    Cause,
    EngineUnavailable,
    Job,
    JobId,
    JobStatus,
    Rung,
    SessionStatus,
    StoreError,
    UnknownJob,
    UnknownSession,
    UsageError,
)
from opencode_actors.kernel.mailbox import PLACES
from opencode_actors.kernel.surroundings import RECORD_AGAIN
from opencode_actors.machines.notices import (
    JobEnded,
    JobQueued,
    JobStarted,
    OutputAdded,
    SessionChanged,
    ToolStarted,
)
from opencode_actors.testing.fake_server import FakeBehaviour, FakeServer
from opencode_actors.testing.provider_demo import demo_script

from .world import SETTINGS, World, begun, open_world

BEHAVIOUR = FakeBehaviour(script=demo_script, start_up=1.0)


async def test_a_job_runs_in_a_container_that_the_next_one_reuses(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        first = await (await system.start("::say one two", session="demo")).wait()
        (container,) = world.engine.containers
        second = await (await system.start("::say three", session="demo")).wait()

        assert first.status is second.status is JobStatus.COMPLETED
        assert list(world.engine.containers) == [container]
        assert (await system.output(first.id)).text.strip() == "one two"
        assert (await system.output(second.id)).text.strip() == "three"
    assert not world.engine.containers


async def test_what_is_announced_of_a_job_is_its_whole_life(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        job = await system.start("::say hello\n::bash true\n::say done", session="demo")
        notices = [notice async for notice in system.follow(job.id)]
        kinds = [type(notice) for notice in notices]

        statuses = [n.status for n in notices if isinstance(n, SessionChanged)]
        assert statuses == [SessionStatus.CREATING, SessionStatus.STARTING, SessionStatus.READY]
        assert kinds.count(JobStarted) == kinds.count(JobEnded) == kinds.count(ToolStarted) == 1
        assert kinds[-1] is JobEnded
        told = "".join(n.text for n in notices if isinstance(n, OutputAdded))
        assert told == (await system.output(job.id)).text


async def test_a_job_that_ended_before_anybody_followed_it_is_told_of_from_its_beginning(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        job = await system.start("::say hello", session="demo")
        during = [notice async for notice in system.follow(job.id)]
        await job.wait()
        assert [notice async for notice in system.follow(job.id)] == during


async def test_jobs_that_ended_long_ago_are_told_of_by_the_store_alone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        heavy = "::say hello\n" + "# " * (1 << 20)
        first, *_, last = [await system.start(heavy, session="demo") for _ in range(6)]
        final = await last.wait()
        for job in (first, last):
            kinds = [type(notice) async for notice in system.follow(job.id)]
            assert (kinds[-1], kinds.count(JobQueued), kinds.count(JobEnded)) == (JobEnded, 1, 1)
        with pytest.raises(UnknownJob):
            await anext(system.follow(_unknown_job()))
        assert (await first.status()).status is final.status is JobStatus.COMPLETED
        assert (await first.output()).text.strip() == "hello"


async def test_p19_output_that_is_not_all_there_any_more_is_said_and_not_taken_for_its_end(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        job = await system.start("::say hello again", session="demo")
        had = (await job.wait()).output_bytes
        world.store._outputs[job.id] = world.store._outputs[job.id][:7]
        # what is there can be read
        piece = await job.output(limit=4)
        assert (piece.text, piece.more) == ("hell", True)
        for offset in (4, 7):
            with pytest.raises(StoreError, match=f"job {job.id} is damaged: it ends after 7 of {had} bytes"):
                await job.output(offset=offset)
        assert (await job.status()).output_bytes == had


async def test_a_slow_disk_slows_the_stream_down_and_loses_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The server keeps what the job has no time for, not we."""
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        job = await system.start("::words 3000 rate=100", session="demo")
        await trio.sleep(5)
        world.store.slow = 0.5
        held: list[int] = []
        for _ in range(20):
            await trio.sleep(1)
            held += [actor.mailbox.waiting for actor in system.statistics().actors.values()]
        world.store.slow = 0.0
        ended = await job.wait()
        assert max(held) <= 2 * PLACES
        assert ended.status is JobStatus.COMPLETED
        output = await job.output(limit=1 << 20)
        assert len(output.text.split()) == 3000
        assert len(output.text.encode()) == ended.output_bytes


async def test_jobs_of_one_session_wait_for_each_other_and_other_sessions_do_not(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        a1 = await system.start("::pause 100\n::say a1", session="a")
        a2 = await system.start("::pause 100\n::say a2", session="a")
        b1 = await system.start("::pause 150\n::say b1", session="b")
        for job in (a1, a2, b1):
            await job.wait()
        states = [await system.status(job.id) for job in (a1, b1, a2)]
        assert [state.elapsed_seconds for state in states] == sorted(
            state.elapsed_seconds for state in states
        )
        assert states[0].elapsed_seconds < 110
        assert states[1].elapsed_seconds < 160
        assert 200 < states[2].elapsed_seconds < 215


async def test_a_container_that_dies_fails_its_job_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        job = await begun(system)
        (container,) = world.engine.containers
        before = trio.current_time()
        world.engine.crash(container, exit_code=139)
        ended = await job.wait()

        assert trio.current_time() == before
        assert ended.failure is not None
        assert (ended.failure.cause, ended.failure.exit_code) == (Cause.CRASH, 139)
        again = await (await system.start("::say on", session="demo")).wait()
        assert again.status is JobStatus.COMPLETED


async def test_cancelling_climbs_no_further_than_it_must(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        job = await begun(system)
        cancelled = await job.cancel()
        assert cancelled.status is JobStatus.CANCELLED
        assert cancelled.climb is not None
        assert cancelled.climb.ended_by is Rung.ABORT
        assert await job.cancel() == cancelled


async def test_a_server_that_does_not_answer_is_stopped_to_cancel_its_job(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        job = await begun(system)
        _server_of(world).freeze()
        before = trio.current_time()
        cancelled = await job.cancel()

        assert cancelled.status is JobStatus.CANCELLED
        assert cancelled.climb is not None
        assert cancelled.climb.ended_by is Rung.STOP
        assert trio.current_time() - before == pytest.approx(SETTINGS.abort_grace, abs=1)


async def test_leaving_while_jobs_run_ends_every_container(
    autojump_clock: trio.testing.MockClock,
) -> None:
    jobs: list[Job] = []
    async with open_world(BEHAVIOUR) as world:
        with trio.CancelScope() as scope:
            async with world.system() as system:
                jobs = [await system.start("::hang", session=f"s{n}") for n in range(4)]
                await trio.sleep(30)
                assert len(world.engine.containers) == 4
                scope.cancel()
                await trio.sleep_forever()
        assert not world.engine.containers
        for job in jobs:
            final = await world.store.job(job.id)
            assert final is not None
            assert final.snapshot.settled


async def test_leaving_while_a_container_is_made_leaves_none_behind(
    autojump_clock: trio.testing.MockClock,
) -> None:
    for seconds in (0.0, 0.5, 1.5):
        async with open_world(BEHAVIOUR) as world:
            world.engine.delay("create", 1.0)
            world.engine.delay("start", 1.0)
            with trio.move_on_after(seconds):
                async with world.system() as system:
                    await system.start("::say never", session="demo")
                    await trio.sleep_forever()
            assert not world.engine.containers


async def test_bounds_are_said(autojump_clock: trio.testing.MockClock) -> None:
    settings = evolve(SETTINGS, max_sessions=1, max_queued_jobs=1)
    async with open_world(BEHAVIOUR) as world, world.system(settings) as system:
        await system.start("::hang", session="a")
        await trio.sleep(10)
        await system.start("::hang", session="a")
        with pytest.raises(Busy, match="maxQueuedJobs is 1"):
            await system.start("::hang", session="a")
        with pytest.raises(Busy, match="maxSessions is 1"):
            await system.start("::hang", session="b")


async def test_what_cannot_be_is_refused_in_words(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        with pytest.raises(UsageError, match="empty"):
            await system.start("  \n")
        for key in ("", "../up", "a/b", ".hidden", "x" * 65, "ü", "a\n"):
            with pytest.raises(UsageError):
                await system.start("hello", session=key)
        for seconds in (-1.0, math.nan, math.inf):
            with pytest.raises(UsageError, match="cannot have"):
                await system.start("hello", session="demo", job_timeout=seconds)
        for dollars in (0.0, -1.0, math.nan, math.inf):
            with pytest.raises(UsageError, match="cannot be a bound"):
                await system.start("hello", session="demo", max_cost_usd=dollars)
        with pytest.raises(UsageError, match="cannot be a model"):
            await system.start("hello", session="demo", model="no-provider")
        with pytest.raises(UsageError, match="not valid text"):
            await system.start("hello", session="demo", agent="\ud800")
        with pytest.raises(UsageError, match="more than"):
            await system.start("hello", session="demo", system="x" * (5 << 20))
        with pytest.raises(UnknownJob):
            await system.status(_unknown_job())
        with pytest.raises(UnknownSession):
            await system.close_session("never-seen")
        assert not world.engine.containers


async def test_an_engine_that_is_away_is_named_and_nothing_hangs(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        world.engine.refuse("create", EngineUnavailable("no engine answers"), times=1000)
        ended = await (await system.start("::say hello", session="demo")).wait()
        assert ended.failure is not None
        assert ended.failure.cause is Cause.ENGINE_UNAVAILABLE
        assert "no engine answers" in ended.failure.message
        world.engine.refuse("create", EngineUnavailable("no engine answers"), times=0)


async def test_an_engine_that_lies_about_the_end_is_named_as_the_fault(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        job = await begun(system)
        for verb in ("stop", "kill", "remove"):
            world.engine.lie(verb)
        _server_of(world).freeze()
        before = trio.current_time()
        cancelled = await job.cancel()
        spent = trio.current_time() - before

        assert cancelled.climb is not None
        assert cancelled.climb.ended_by is Rung.QUARANTINE
        assert spent < math.fsum(
            (SETTINGS.abort_grace, SETTINGS.stop_grace, SETTINGS.kill_grace, SETTINGS.remove_grace, 5)
        )
        (session,) = await system.sessions()
        assert session.status is SessionStatus.QUARANTINED
        with pytest.raises(Busy):
            await system.start("::say more", session="demo")
        world.engine.be_honest()


async def test_a_conversation_goes_on_in_the_next_process(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world:
        async with world.system() as system:
            await (await system.start("::say one", session="demo")).wait()
            (before,) = await system.sessions()
        async with world.system() as system:
            await (await system.start("::say two", session="demo")).wait()
            (after,) = await system.sessions()
        assert before.conversation == after.conversation


async def test_an_idle_container_is_stopped_and_the_next_job_starts_it_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    settings = evolve(SETTINGS, session_idle_timeout=60.0)
    async with open_world(BEHAVIOUR) as world, world.system(settings) as system:
        await (await system.start("::say one", session="demo")).wait()
        (before,) = await system.sessions()
        await trio.sleep(61)
        assert not world.engine.containers
        ended = await (await system.start("::say two", session="demo")).wait()
        (after,) = await system.sessions()
        assert ended.status is JobStatus.COMPLETED
        assert before.conversation == after.conversation


async def test_a_disk_that_is_full_fails_the_job_and_says_so(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        job = await begun(system, "::say begun\n::pause 30\n::say more")
        world.store.full = True
        ended = await job.wait()
        world.store.full = False
        assert ended.failure is not None
        assert ended.failure.cause is Cause.STORE
        await trio.sleep(RECORD_AGAIN + 1)
        # Otherwise the next process would go on with it.
        assert [job.status for job in world.store.jobs()] == [JobStatus.FAILED]


def _server_of(world: World) -> FakeServer:
    (container,) = world.engine.containers.values()
    assert container.run is not None
    server = world.servers.server(f"http://127.0.0.1:{container.run.port}")
    assert server is not None
    return server


def _unknown_job() -> JobId:
    return JobId("job_000000000000")


async def test_a_job_that_was_not_written_down_when_its_system_ended_was_not_accepted(
    autojump_clock: trio.testing.MockClock,
) -> None:
    refused: list[StoreError] = []

    async with open_world(BEHAVIOUR) as world, trio.open_nursery() as nursery:
        async with world.system() as system:

            async def start() -> None:
                with pytest.raises(StoreError, match="ended before it had written") as error:
                    await system.start("::say hello", session="demo")
                refused.append(error.value)

            first = await system.start("::say first", session="demo")
            await first.wait()
            world.store.slow = math.inf
            nursery.start_soon(start)
            await trio.sleep(1)
        assert [job.id for job in world.store.jobs()] == [first.id]
    assert refused
