"""A service that is killed and comes back: every job is gone on with, nothing is lost, nothing is told twice."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import TypeVar

import pytest
import trio
import trio.testing
from attrs import evolve

from opencode_actors import Cause, JobId, JobStatus, Leave, SessionStatus, System
from opencode_actors.kernel.jobs import LOST
from opencode_actors.machines.notices import (
    InputAnswered,
    InputWanted,
    JobEnded,
    JobStarted,
    OutputAdded,
    SessionChanged,
    TodosChanged,
    ToolStarted,
)
from opencode_actors.machines.server_events import Todo
from opencode_actors.testing.fake_server import FakeBehaviour
from opencode_actors.testing.provider_demo import demo_script

from .killing import Cable, Steps
from .schedules import schedules
from .world import SETTINGS, World, open_world, until

NoticeT = TypeVar("NoticeT")

BEHAVIOUR = FakeBehaviour(script=demo_script, start_up=0.5)
# The second of a session waits for the first.
WORK = (
    ("a", "::words 9 rate=4"),
    ("a", "::say Let me look: \n::bash sleep 1\n::words 5 rate=4"),
    ("b", "::text 3000 chunk=100\n::bash sleep 2\n::bash sleep 1\n::say done, é漢🙂."),
    ("c", "::think hm\n::words 3 rate=1"),
)
INSTANTS = 160
INTERRUPTED = "[interrupted: "


async def settled_outputs(system: System, world: World) -> Mapping[JobId, str]:
    """Of all jobs, when all have settled."""
    for job in world.store.jobs():
        await system.wait(job.id)
    return {job.id: await whole_output(system, job.id) for job in world.store.jobs()}


async def first_of(system: System, job: JobId, kind: type[NoticeT]) -> NoticeT:
    async for notice in system.follow(job):
        if isinstance(notice, kind):
            return notice
    raise AssertionError(f"no {kind.__name__} came")


async def whole_output(system: System, job: JobId) -> str:
    text, offset, more = "", 0, True
    while more:
        piece = await system.output(job, offset=offset)
        text, offset, more = text + piece.text, piece.next_offset, piece.more
    return text


async def start_all(system: System) -> None:
    for session, prompt in WORK:
        await system.start(prompt, session=session)
        await trio.sleep(0.1)


async def uninterrupted() -> tuple[dict[str, str], int]:
    """What each prompt's output is, and how many steps it takes to make it."""
    steps = Steps()
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        trio.lowlevel.add_instrument(steps)
        await start_all(system)
        outputs = await settled_outputs(system, world)
        trio.lowlevel.remove_instrument(steps)
        prompts = {job.id: job.prompt for job in world.store.jobs()}
    return {prompts[id_]: text for id_, text in outputs.items()}, steps.done


@asynccontextmanager
async def killed(world: World, steps: Steps) -> AsyncGenerator[None]:
    """A process that starts all the work, and dies in the middle of it."""

    async def live() -> None:
        async with world.system(through=steps.cable) as system:
            trio.lowlevel.add_instrument(steps)
            await start_all(system)
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(live)
        await steps.reached.wait()
        trio.lowlevel.remove_instrument(steps)
        try:
            yield
        finally:
            nursery.cancel_scope.cancel()


def is_a_beginning(output: str, expected: str) -> bool:
    """But for the order in which commands that ran side by side are told."""
    *whole, last = output.splitlines() or [""]
    said = expected.splitlines()
    return not Counter(whole) - Counter(said) and any(line.startswith(last) for line in said)


def alike(output: str) -> list[str]:
    """Commands that run side by side are told in the order of their ends when they are heard, and in that of
    the conversation when they are read."""
    tools = [line for line in output.splitlines() if line.startswith("[bash]")]
    return [*output.splitlines()] if len(tools) < 2 else sorted(output.splitlines())


@schedules(8)
async def test_p18_p25_a_service_that_is_killed_at_any_instant_comes_back_and_loses_nothing(
    autojump_clock: trio.testing.MockClock, schedule: int
) -> None:
    expected, total = await uninterrupted()
    rng = random.Random(schedule)
    for _ in range(INSTANTS // 8):
        steps = Steps(at=rng.randrange(1, total))
        async with open_world(BEHAVIOUR) as world, killed(world, steps):
            await trio.sleep(rng.choice((0.0, 0.0, 0.3, 2.0, 60.0)))
            async with world.system() as system:
                outputs = await settled_outputs(system, world)
                for job in world.store.jobs():
                    assert job.status is JobStatus.COMPLETED, (steps.at, job)
                    assert alike(outputs[job.id]) == alike(expected[job.prompt]), steps.at
                    assert job.output_bytes == len(outputs[job.id].encode())
                    ends = [n for n in world.store.told if isinstance(n, JobEnded) and n.job == job.id]
                    assert len(ends) == 1, steps.at
                    begins = [n for n in world.store.told if isinstance(n, JobStarted) and n.job == job.id]
                    assert len(begins) == 1, steps.at
                names = {container.name for container in world.engine.containers.values()}
                assert names == {s.container for s in await system.sessions() if s.container is not None}
            assert not world.engine.containers


async def kill_some(world: World, rng: random.Random) -> set[str]:
    """Of the containers that run, while nobody looks."""
    running = [c for c in world.engine.containers.values() if c.run is not None]
    victims = rng.sample(running, k=rng.randint(0, len(running)))
    for victim in victims:
        await world.engine.kill(victim.id)
        if rng.random() < 0.5:
            await world.engine.remove(victim.id)
    return {victim.name for victim in victims}


async def test_what_is_asked_is_asked_once_and_answered_after_the_service_has_come_back(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with open_world(BEHAVIOUR) as world:
        async with world.system(leave=Leave.ALL) as system:
            job = await system.start("::ask Which colour? | Blue | Red\n::say thanks", session="demo")
            asked = await first_of(system, job.id, InputWanted)
        async with world.system() as system:
            assert "demo (1 job, at work)" in caplog.text
            await trio.sleep(20)
            (pending,) = (await system.status(job.id)).pending
            assert pending.id == asked.request
            await system.answer(job.id, pending.id, answers="Blue")
            ended = await system.wait(job.id)
            assert ended.status is JobStatus.COMPLETED
            assert (await system.output(job.id)).text.endswith("thanks")
        told = [type(n).__name__ for n in world.store.told if isinstance(n, InputWanted | InputAnswered)]
        assert told == ["InputWanted", "InputAnswered"]


@pytest.mark.parametrize("policy", ["fail", "resume"])
@schedules(8)
async def test_what_died_while_the_service_was_away_is_said_or_gone_on_with(
    autojump_clock: trio.testing.MockClock, schedule: int, policy: str
) -> None:
    expected, total = await uninterrupted()
    rng = random.Random(schedule)
    for _ in range(INSTANTS // 16):
        steps = Steps(at=rng.randrange(1, total))
        async with open_world(BEHAVIOUR) as world, killed(world, steps):
            await trio.sleep(rng.choice((0.0, 0.3, 2.0)))
            died = await kill_some(world, rng)
            async with world.system(evolve(SETTINGS, on_crash=policy)) as system:
                outputs = await settled_outputs(system, world)
                for job in world.store.jobs():
                    ends = [n for n in world.store.told if isinstance(n, JobEnded) and n.job == job.id]
                    assert len(ends) == 1, steps.at
                    output = outputs[job.id]
                    assert job.output_bytes == len(output.encode())
                    if job.status is JobStatus.COMPLETED:
                        assert alike(output) == alike(expected[job.prompt]) or INTERRUPTED in output
                        continue
                    assert policy == "fail"
                    assert died
                    assert job.failure is not None
                    assert job.failure.cause in (Cause.CRASH, Cause.LOST), job.failure
                    assert is_a_beginning(output, expected[job.prompt])
            assert not world.engine.containers


async def test_a_job_whose_end_found_no_room_on_the_disk_takes_no_later_answer_for_its_own(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cable = Cable()
    async with open_world(BEHAVIOUR) as world:
        async with trio.open_nursery() as nursery:
            running = trio.Event()

            async def live() -> None:
                async with world.system(through=cable) as system:
                    job = await system.start("::hang", session="demo")
                    await until(system, job, JobStarted)
                    # The session has written down that it works, and nothing but the job's end is refused.
                    await trio.testing.wait_all_tasks_blocked()
                    world.store.full = True
                    assert (await job.cancel()).failure is not None
                    world.store.full = False
                    second = "::say of the second\n::bash sleep 30\n::say the end"
                    await until(system, await system.start(second, session="demo"), ToolStarted)
                    cable.cut = True
                    running.set()
                    await trio.sleep_forever()

            nursery.start_soon(live)
            await running.wait()
            nursery.cancel_scope.cancel()
        async with world.system() as system:
            outputs = await settled_outputs(system, world)
        first, second = world.store.jobs()
    assert (first.failure and first.failure.cause) is Cause.LOST
    assert second.status is JobStatus.COMPLETED
    assert outputs[first.id] == ""
    assert outputs[second.id].endswith("the end")


@pytest.mark.parametrize("policy", ["fail", "resume"])
async def test_p18_a_new_container_is_not_taken_for_the_one_that_the_job_was_in(
    autojump_clock: trio.testing.MockClock, policy: str
) -> None:
    settings = evolve(SETTINGS, on_crash=policy)
    async with open_world(BEHAVIOUR) as world:
        async with world.system(settings, leave=Leave.ALL) as system:
            job = await system.start("::say begun\n::hang", session="a")
            await until(system, job, OutputAdded)
        (container,) = world.engine.containers.values()
        await world.engine.kill(container.id)
        # The next one dies, too, when it has just made a new container to look the answer up in.
        async with world.system(settings, leave=Leave.ALL) as system:
            made = 0
            async for notice in system.follow(session="a", since=0):
                made += isinstance(notice, SessionChanged) and notice.status is SessionStatus.STARTING
                if made == 2:
                    break
        assert len(world.engine.containers) == 1
        async with world.system(settings, leave=Leave.NOTHING) as system:
            ended = await system.wait(job.id)
            output = await whole_output(system, job.id)
    if policy == "fail":
        assert ended.failure == LOST
    else:
        assert ended.status is JobStatus.COMPLETED
        assert INTERRUPTED in output


async def test_p25_want_of_memory_while_the_service_was_away_is_said(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world:
        async with world.system(leave=Leave.ALL) as system:
            job = await system.start("::say begun\n::hang", session="a")
            await until(system, job, OutputAdded)
        (container,) = world.engine.containers.values()
        world.engine.crash(container.id, oom=True)
        async with world.system(leave=Leave.NOTHING) as system:
            ended = await system.wait(job.id)
    assert ended.failure is not None
    assert (ended.failure.cause, ended.failure.exit_code) == (Cause.OOM, 137)


@pytest.mark.parametrize("after", [n / 10 for n in range(15)])
async def test_p18_a_system_that_is_left_while_it_takes_over_leaves_its_jobs_as_they_are(
    autojump_clock: trio.testing.MockClock, after: float
) -> None:
    """What a job asks its server at that moment found the connection closed, which was taken for a bug."""
    behaviour = FakeBehaviour(script=demo_script, takes=lambda: 0.1)
    async with open_world(behaviour) as world:
        async with world.system(leave=Leave.ALL) as system:
            jobs = [await system.start("::say begun\n::hang", session=key) for key in "abcd"]
            for job in jobs:
                await until(system, job, OutputAdded)
        async with world.system(leave=Leave.ALL) as system:
            await trio.sleep(after)
        async with world.system(leave=Leave.NOTHING) as system:
            for job in jobs:
                assert not (await system.status(job.id)).settled


async def test_what_is_to_be_done_is_known_after_a_restart_and_read_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world:
        async with world.system(leave=Leave.ALL) as system:
            job = await system.start("::todo first; second\n::hang", session="a")
            await until(system, job, TodosChanged)
        (stored,) = [job for job in world.store.jobs() if not job.settled]
        assert [todo.content for todo in stored.todos] == ["first", "second"]
        (server,) = world.servers.running()
        (conversation,) = server.disk.conversations
        server.put_todos(
            conversation, (Todo(content="third", status="in_progress"),)
        )  # while nobody hears it
        async with world.system(leave=Leave.NOTHING) as system:
            async for notice in system.follow(job.id, since=len(world.store.told)):
                if isinstance(notice, TodosChanged):
                    break
            assert [todo.content for todo in (await system.status(job.id)).todos] == ["third"]
            await system.cancel(job.id)
