"""Opening, leaving, and being cancelled at any instant of either: nothing is ever left behind."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

import pytest
import trio
import trio.testing
from attrs import define, evolve

from opencode_actors import (
    Busy,
    Cause,
    EngineUnavailable,
    Job,
    JobStatus,
    Leave,
    SessionKey,
    SessionStatus,
    StoreError,
    System,
    UnknownSession,
)
from opencode_actors.containers import SESSION_LABEL
from opencode_actors.errors import EngineRefused
from opencode_actors.kernel.hub import Following, NoticesMissed
from opencode_actors.machines.notices import ContainerForgotten, JobEnded, JobQueued, Notice, SessionChanged
from opencode_actors.testing.fake_server import FakeBehaviour
from opencode_actors.testing.provider_demo import demo_script

from .schedules import schedules
from .world import SETTINGS, World, open_world

ENDING: tuple[Literal["stop", "kill", "remove"], ...] = ("stop", "kill", "remove")
BEHAVIOUR = FakeBehaviour(script=demo_script, start_up=1.0)

# Stop, kill and remove, and the margin for what was just being made; then what undoes itself.
BUDGET = SETTINGS.stop_grace + SETTINGS.kill_grace + SETTINGS.remove_grace + 15 + 8


async def much_at_once(system: System) -> None:
    """All that a body may be in the middle of."""

    async def cancelled(session: str) -> None:
        job = await system.start("::say begun\n::hang", session=session)
        await trio.sleep(4)
        await job.cancel()

    async def followed(session: str) -> None:
        job = await system.start("::say one\n::pause 3\n::say two", session=session)
        async for _ in system.follow(job.id):
            pass

    async def closed(session: str) -> None:
        await system.start("::hang", session=session)
        await trio.sleep(5)
        await system.close_session(session)
        await (await system.start("::say anew", session=session)).wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(cancelled, "a")
        nursery.start_soon(followed, "a")
        nursery.start_soon(followed, "b")
        nursery.start_soon(closed, "c")


async def in_a_slow_world(body: Callable[[System], Awaitable[None]], scope: trio.CancelScope) -> float:
    """Runs `body` in a system until `scope` is cancelled; says how long leaving took after that."""
    async with open_world(BEHAVIOUR) as world:
        world.engine.creating_takes = 0.75
        world.engine.delay("start", 0.5)
        world.engine.delay("list", 0.25)
        world.store.slow = 0.01
        cancelled_at = [0.0]

        async def watch() -> None:
            try:
                await trio.sleep_forever()
            finally:
                cancelled_at[0] = trio.current_time()

        with scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch)
                async with world.system() as system:
                    await body(system)
                nursery.cancel_scope.cancel()
        world.check_nothing_is_left()
        return trio.current_time() - cancelled_at[0]


def run_cancelled(body: Callable[[System], Awaitable[None]], *, at: float) -> float:
    async def main() -> float:
        return await in_a_slow_world(body, trio.CancelScope(relative_deadline=at))

    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@define(eq=False)
class Steps(trio.abc.Instrument):
    """Cancels before one certain step of any task: between two lines of somebody's code."""

    scope: trio.CancelScope
    cancel_before: int
    taken: int = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        del task
        self.taken += 1
        if self.taken == self.cancel_before:
            self.scope.cancel()


def run_cancelled_at_step(body: Callable[[System], Awaitable[None]], number: int) -> int:
    scope = trio.CancelScope()
    steps = Steps(scope, number)

    async def main() -> None:
        assert await in_a_slow_world(body, scope) <= BUDGET

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0), instruments=[steps])
    return steps.taken


# ---- cancelled at any instant


@schedules(4)
def test_p18_a_body_that_is_cancelled_at_any_time_leaves_nothing_behind(schedule: int) -> None:
    for tenth in range(schedule, 140, 4):
        took = run_cancelled(much_at_once, at=tenth / 10)
        assert took <= BUDGET


@schedules(6)
def test_p18_nor_when_it_is_cancelled_between_any_two_steps(schedule: int) -> None:
    never = 1_000_000
    every = run_cancelled_at_step(much_at_once, never)
    for number in range(1 + 2 * schedule, every, 29):
        run_cancelled_at_step(much_at_once, number)


async def nothing(system: System) -> None:
    await trio.lowlevel.checkpoint()


def test_entering_and_leaving_are_cancelled_at_each_of_their_steps() -> None:
    """Between the last wait of entering and the body, a shield that nobody could end was once opened."""
    every = run_cancelled_at_step(nothing, 1_000_000)
    for number in range(1, every):
        run_cancelled_at_step(nothing, number)


async def one_start(system: System) -> None:
    await (await system.start("::say hello", session="demo")).wait()


def test_accepting_a_job_is_cancelled_at_each_of_its_steps() -> None:
    every = run_cancelled_at_step(one_start, 1_000_000)
    for number in range(1, every, 3):
        run_cancelled_at_step(one_start, number)


# ---- one start that is given up, in a system that goes on


@schedules(10)
async def test_a_start_that_is_given_up_leaves_its_session_free(
    autojump_clock: trio.testing.MockClock, schedule: int
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        await (await system.start("::say first", session="demo")).wait()
        world.store.slow = 0.01
        for steps in range(schedule, 40, 3):
            scope = trio.CancelScope()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_after, scope, steps)
                with scope:
                    await system.start("::hang", session="demo")
        for job in [job for job in world.store.jobs() if not job.settled]:
            await system.cancel(job.id)
        with trio.fail_after(30):
            last = await (await system.start("::say last", session="demo")).wait()
        assert last.status is JobStatus.COMPLETED
        (session,) = await system.sessions()
        assert (session.running, session.queued) == (None, ())


async def _cancel_after(scope: trio.CancelScope, steps: int) -> None:
    for _ in range(steps):
        await trio.lowlevel.cancel_shielded_checkpoint()
    scope.cancel()


async def test_a_start_that_is_cancelled_while_it_is_recorded_cancels_its_job(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        await (await system.start("::say first", session="demo")).wait()
        everything = system.follow()
        world.store.slow = 1.0
        with trio.move_on_after(0.5):
            await system.start("::hang", session="demo")
        ended = (await _until(everything, JobEnded))[-1]
        assert isinstance(ended, JobEnded)
        assert ended.snapshot.status is JobStatus.CANCELLED
        assert (await system.status(ended.job)).settled


async def _until(following: Following, kind: type[Notice]) -> list[Notice | NoticesMissed]:
    read = [await anext(following)]
    while not isinstance(read[-1], kind):
        read.append(await anext(following))
    return read


async def test_a_job_that_cannot_be_recorded_is_refused_and_leaves_no_trace(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        everything = system.follow()
        world.store.full = True
        with pytest.raises(StoreError, match="no space left"):
            await system.start("::say hello", session="demo")
        world.store.full = False
        assert system.statistics().jobs == 0
        ended = await (await system.start("::say hello", session="demo")).wait()
        assert ended.status is JobStatus.COMPLETED
        told = await _until(everything, JobEnded)
        assert len([notice for notice in told if isinstance(notice, JobQueued)]) == 1


async def test_a_refused_job_leaves_no_trace(autojump_clock: trio.testing.MockClock) -> None:
    settings = evolve(SETTINGS, max_queued_jobs=1)
    async with open_world(BEHAVIOUR) as world, world.system(settings) as system:
        for _ in range(2):
            await system.start("::hang", session="demo")
            await trio.sleep(10)
        with pytest.raises(Busy):
            await system.start("::hang", session="demo")
        assert len(world.store.jobs()) == 2
        assert system.statistics().jobs == 2


# ---- closing and starting at the same time


@schedules(30)
async def test_a_start_beside_a_close_is_refused_or_runs_in_the_next_container(
    autojump_clock: trio.testing.MockClock, schedule: int
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        await (await system.start("::say first", session="demo")).wait()
        outcomes: list[str] = []

        async def close() -> None:
            await system.close_session("demo")

        async def start() -> None:
            await trio.sleep(0.01 * (schedule % 3))
            for _ in range(schedule):
                await trio.lowlevel.checkpoint()
            try:
                job = await system.start("::say second", session="demo")
            except Busy as busy:
                outcomes.append(busy.message)
                return
            ended = await job.wait()
            outcomes.append(ended.failure.cause.value if ended.failure else ended.status.value)

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(close)
                nursery.start_soon(start)
        assert outcomes[0] in ("session demo is being closed", "completed", "closed")
        with trio.fail_after(60):
            ended = await (await system.start("::say third", session="demo")).wait()
        assert ended.status is JobStatus.COMPLETED
        assert len(world.engine.containers) == 1


async def test_a_session_begins_under_a_key_when_the_last_of_the_one_before_is_gone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """While a container is being made that nobody wants any more, the key is not free."""
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        world.engine.creating_takes = 3.0
        doomed = await system.start("::say never", session="demo")
        await trio.sleep(1)
        climb = await system.close_session("demo")
        assert trio.current_time() == 3.0
        assert climb.ended_by is not None
        failed = await doomed.wait()
        assert failed.failure is not None
        assert failed.failure.cause is Cause.CLOSED
        with pytest.raises(UnknownSession):
            await system.close_session("demo")
        ended = await (await system.start("::say hello", session="demo")).wait()
        assert ended.status is JobStatus.COMPLETED


# ---- places


async def test_the_session_that_is_idle_for_longest_makes_room_and_says_why(
    autojump_clock: trio.testing.MockClock,
) -> None:
    settings = evolve(SETTINGS, max_sessions=3)
    async with open_world(BEHAVIOUR) as world, world.system(settings) as system:
        busy = await system.start("::hang", session="busy")
        for key in ("a", "b", "a"):
            await (await system.start("::say one", session=key)).wait()
            await trio.sleep(1)
        following = system.follow()
        assert (await (await system.start("::say one", session="c")).wait()).status is JobStatus.COMPLETED
        stopping = [await anext(following)]
        while not (
            isinstance(stopping[-1], SessionChanged) and stopping[-1].status is SessionStatus.STOPPING
        ):
            stopping.append(await anext(following))
        assert isinstance(stopping[-1], SessionChanged)
        assert stopping[-1].session == "b"
        assert stopping[-1].detail == "idle, and session c needs its place"
        assert {session.key for session in await system.sessions()} == {"busy", "a", "c"}
        assert (await busy.status()).status is JobStatus.RUNNING
        assert len(world.engine.containers) == 3


async def test_sessions_that_all_have_work_make_no_room(autojump_clock: trio.testing.MockClock) -> None:
    settings = evolve(SETTINGS, max_sessions=2)
    async with open_world(BEHAVIOUR) as world, world.system(settings) as system:
        for key in ("a", "b"):
            await system.start("::hang", session=key)
        with pytest.raises(Busy, match=r"have work \(maxSessions is 2\): a, b") as raised:
            await system.start("::say one", session="c")
        assert "raise maxSessions" in raised.value.hint


@schedules(20)
async def test_many_starts_at_once_never_open_more_sessions_than_may_be(
    autojump_clock: trio.testing.MockClock,
) -> None:
    settings = evolve(SETTINGS, max_sessions=3)
    async with open_world(BEHAVIOUR) as world, world.system(settings) as system:
        for key in ("a", "b", "c"):
            await (await system.start("::say one", session=key)).wait()
        outcomes: list[str] = []

        async def start(key: str) -> None:
            try:
                job = await system.start("::say two", session=key)
            except Busy:
                outcomes.append("busy")
            else:
                outcomes.append((await job.wait()).status.value)
            assert len(world.engine.containers) <= 3

        async with trio.open_nursery() as nursery:
            for key in ("a", "d", "e", "f", "g", "h"):
                nursery.start_soon(start, key)
        assert set(outcomes) <= {"busy", "completed"}
        assert outcomes.count("completed") >= 3


async def test_a_session_at_rest_makes_room_for_another(autojump_clock: trio.testing.MockClock) -> None:
    settings = evolve(SETTINGS, max_sessions=2, session_idle_timeout=60.0)
    async with open_world(BEHAVIOUR) as world, world.system(settings) as system:
        for key in ("a", "b"):
            await (await system.start("::say one", session=key)).wait()
        await trio.sleep(61)
        assert not world.engine.containers
        before = {session.key: session.conversation for session in await system.sessions()}
        for key in ("c", "d", "a"):
            assert (await (await system.start("::say two", session=key)).wait()).status is JobStatus.COMPLETED
            await trio.sleep(61)
        after = {session.key: session.conversation for session in await system.sessions()}
        assert len(after) == 2
        assert before[SessionKey("a")] == after[SessionKey("a")]


@schedules(20)
async def test_a_session_is_not_put_out_while_somebody_is_on_the_way_to_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    settings = evolve(SETTINGS, max_sessions=1, session_idle_timeout=10.0)
    async with open_world(BEHAVIOUR) as world, world.system(settings) as system:
        await (await system.start("::say one", session="a")).wait()
        await trio.sleep(11)
        outcomes: list[str] = []

        async def start(key: str) -> None:
            try:
                job = await system.start("::say two", session=key)
            except Busy:
                outcomes.append("busy")
            else:
                outcomes.append((await job.wait()).status.value)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(start, "a")
            nursery.start_soon(start, "b")
        assert sorted(outcomes) == ["busy", "completed"]


# ---- leaving


async def test_leaving_takes_its_budget_and_no_more_when_the_engine_hangs(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world:
        async with trio.open_nursery() as outsiders:
            async with world.system() as system:
                jobs = [await system.start("::hang", session=f"s{n}") for n in range(3)]
                await trio.sleep(10)
                for verb in ENDING:
                    world.engine.delay(verb, 100_000)
                finals: list[JobStatus] = []
                for job in jobs:
                    outsiders.start_soon(_note, job, finals)
                outsiders.start_soon(_close, jobs[0])
                await trio.testing.wait_all_tasks_blocked()
                left_at = trio.current_time()
            assert trio.current_time() - left_at <= BUDGET
        # Whoever still waited for a job or for a session has heard of its end.
        assert finals == [JobStatus.FAILED] * 3
        for verb in ENDING:
            world.engine.delay(verb, 0)
        async with world.system():
            world.check_nothing_is_left()


async def test_nor_when_the_disk_hangs(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(BEHAVIOUR) as world:
        async with trio.open_nursery() as outsiders:
            async with world.system() as system:
                job = await system.start("::hang", session="demo")
                world.store.slow = 100_000
                await trio.sleep(10)  # the session would record its conversation now
                finals: list[JobStatus] = []
                outsiders.start_soon(_note, job, finals)
                outsiders.start_soon(_close, job)
                await trio.testing.wait_all_tasks_blocked()
                left_at = trio.current_time()
            assert trio.current_time() - left_at <= BUDGET
        assert finals == [JobStatus.FAILED]


async def _close(job: Job) -> None:
    await job._system.close_session(job.session)


async def _note(job: Job, finals: list[JobStatus]) -> None:
    finals.append((await job.wait()).status)


async def test_a_system_that_is_left_takes_nothing_and_holds_nobody(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world:
        async with world.system() as system:
            job = await system.start("::say hello", session="demo")
            await job.wait()
        with trio.fail_after(1):
            with pytest.raises(Busy, match="shutting down"):
                await system.start("::say more", session="demo")
            assert (await job.status()).status is JobStatus.COMPLETED
            assert [type(n) async for n in system.follow()] == []
            assert (await system.cancel(job.id)).status is JobStatus.COMPLETED
            assert await system.sessions() == ()


# ---- errors


class OfTheCaller(Exception):
    pass


async def _raise_in(world: World, error: Exception) -> None:
    async with world.system() as system:
        await system.start("::hang", session="demo")
        raise error


async def test_what_the_body_raises_arrives_as_it_was_raised(autojump_clock: trio.testing.MockClock) -> None:
    plain = OfTheCaller("plain")
    plain.__context__ = before = OfTheCaller("before")
    group = ExceptionGroup("of the caller", [OfTheCaller("in a group")])
    for error in (plain, group):
        async with open_world(BEHAVIOUR) as world:
            with pytest.raises((OfTheCaller, ExceptionGroup)) as raised:
                await _raise_in(world, error)
            assert raised.value is error
            world.check_nothing_is_left()
    assert plain.__context__ is before


async def test_a_cancellation_stays_one(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(BEHAVIOUR) as world:
        with trio.move_on_after(1) as scope:
            async with world.system():
                await trio.sleep_forever()
        assert scope.cancelled_caught


async def test_an_engine_that_is_away_is_said_before_anything_is_started(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world:
        world.engine.refuse("list", EngineUnavailable("no engine answers"), times=1)
        with pytest.raises(EngineUnavailable):
            async with world.system():
                raise AssertionError("it opened")


# ---- what an earlier process left


async def abandoned(world: World) -> Job:
    """A process that dies in the middle of a job: its container runs on, its journal says "running"."""
    kept: list[Job] = []

    async def live_and_die() -> None:
        async with world.system() as system:
            kept.append(await system.start("::say begun\n::pause 100\n::say and done", session="demo"))
            await trio.sleep(10)
            world.store.full = True
            for verb in ENDING:
                world.engine.lie(verb)

    await live_and_die()
    world.store.full = False
    world.engine.be_honest()
    assert len(world.engine.containers) == 1
    return kept[0]


async def test_p18_a_container_at_work_is_found_and_its_job_followed_to_its_end(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_world(BEHAVIOUR) as world:
        job = await abandoned(world)
        (container,) = world.engine.containers
        async with world.system() as system:
            assert set(world.engine.containers) == {container}
            ended = await system.wait(job.id)
            assert ended.status is JobStatus.COMPLETED
            assert (await system.output(job.id)).text == "begunand done"
            again = await (await system.start("::say on", session="demo")).wait()
            assert again.status is JobStatus.COMPLETED
        world.check_nothing_is_left()


async def test_p18_a_container_that_no_session_remembers_is_removed(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_world(BEHAVIOUR) as world:
        job = await abandoned(world)
        await world.store.append((ContainerForgotten(session=SessionKey("demo")),))
        async with world.system() as system:
            assert not world.engine.containers
            lost = await system.wait(job.id)
            assert lost.failure is not None
            assert lost.failure.cause is Cause.LOST
            assert (await system.output(job.id)).text.strip() == "begun"
        world.check_nothing_is_left()


async def test_a_stray_that_cannot_be_removed_is_no_reason_not_to_open(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_world(BEHAVIOUR) as world:
        await abandoned(world)
        await world.store.append((ContainerForgotten(session=SessionKey("demo")),))
        world.engine.refuse("remove", EngineRefused("device or resource busy", status=500), times=1)
        async with world.system() as system:
            assert "device or resource busy" in caplog.text
            ended = await (await system.start("::say on", session="demo")).wait()
            assert ended.status is JobStatus.COMPLETED
        world.check_nothing_is_left()


async def test_left_running_jobs_go_on_and_idle_containers_do_not(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world:
        async with world.system(leave=Leave.ALL) as system:
            busy = await system.start("::words 40 rate=2", session="busy")
            waiting = await system.start("::say next", session="busy")
            await (await system.start("::say quick", session="idle")).wait()
            await trio.sleep(3)
        assert {c.spec.labels[SESSION_LABEL] for c in world.engine.containers.values()} == {"busy"}
        await trio.sleep(60)
        async with world.system() as system:
            assert (await system.wait(busy.id)).status is JobStatus.COMPLETED
            assert (await system.wait(waiting.id)).status is JobStatus.COMPLETED
            words = "".join(f"word{n} " for n in range(40))
            assert (await system.output(busy.id)).text == words
        world.check_nothing_is_left()


async def test_who_comes_in_between_ends_what_it_began_and_leaves_what_a_service_accepted(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world:
        async with world.system(leave=Leave.ALL, notify=True) as service:
            busy = await service.start("::words 40 rate=2", session="busy")
            await trio.sleep(3)
        async with world.system() as between:
            behind = await between.start("::say never", session="busy")
            quick = await between.start("::hang", session="quick")
            await trio.sleep(3)
        assert {c.spec.labels[SESSION_LABEL] for c in world.engine.containers.values()} == {"busy"}
        async with world.system(leave=Leave.NOTHING) as last:
            assert (await last.status(quick.id)).status is JobStatus.FAILED
            assert (await last.status(behind.id)).status is JobStatus.CANCELLED
            assert (await last.status(busy.id)).status is JobStatus.RUNNING
        world.check_nothing_is_left()


async def test_p18_what_nobody_would_ever_hear_of_does_not_go_on_unwatched(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """One that was killed left its job at work; the next one follows it, and ends it with itself."""
    async with open_world(BEHAVIOUR) as world:
        async with world.system(leave=Leave.ALL) as killed:
            job = await killed.start("::hang", session="demo")
            await trio.sleep(3)
        async with world.system() as following:
            assert (await following.status(job.id)).status is JobStatus.RUNNING
        world.check_nothing_is_left()


async def test_p18_an_engine_that_refuses_to_answer_for_a_moment_costs_no_job(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_world(BEHAVIOUR) as world:
        job = await abandoned(world)
        world.engine.refuse("inspect", EngineRefused("try again", status=500), times=2)
        async with world.system() as system:
            assert (await system.wait(job.id)).status is JobStatus.COMPLETED


async def test_p18_an_engine_that_refuses_to_answer_is_said_and_nothing_is_touched(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_world(BEHAVIOUR) as world:
        await abandoned(world)
        world.engine.refuse("inspect", EngineRefused("no", status=500), times=5)
        with pytest.raises(EngineUnavailable, match="session demo"):
            async with world.system():
                raise AssertionError("it opened")
        assert len(world.engine.containers) == 1


async def test_a_container_that_dies_while_it_is_taken_over_fails_its_job_as_that(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_world(BEHAVIOUR) as world:
        job = await abandoned(world)
        (container,) = world.engine.containers
        async with world.system() as system:
            world.engine.crash(container, exit_code=139)
            ended = await system.wait(job.id)
            assert ended.failure is not None
            assert (ended.failure.cause, ended.failure.exit_code) == (Cause.CRASH, 139)
        world.check_nothing_is_left()


async def test_p18_a_job_whose_end_found_no_room_takes_no_later_answer_for_its_own(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Killed before there was time to record the end, and after another job of the session came and went."""
    async with open_world(BEHAVIOUR) as world:
        kept: list[Job] = []

        async def live_and_die() -> None:
            async with world.system() as system:
                first = await system.start("::say begun\n::pause 60\n::say and done", session="demo")
                await trio.sleep(10)
                world.store.full = True
                ended = await first.wait()
                assert ended.failure is not None
                assert ended.failure.cause is Cause.STORE
                world.store.full = False
                await trio.sleep(0.5)  # the session ends, for want of room
                second = await system.start("::say other words", session="demo")
                assert (await second.wait()).status is JobStatus.COMPLETED
                kept.append(first)
                world.store.full = True
                for verb in ENDING:
                    world.engine.lie(verb)

        await live_and_die()
        world.store.full = False
        world.engine.be_honest()
        async with world.system() as system:
            ended = await system.wait(kept[0].id)
            assert ended.failure is not None
            assert ended.failure.cause is Cause.LOST
            assert (await system.output(kept[0].id)).text == "begun"
