"""What a running job has to say to its chat: what it asks and that it runs long, told once, while it is true."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from attrs import evolve

from opencode_actors import (
    Announcement,
    Attendance,
    InputWanted,
    Job,
    JobLasted,
    JobStatus,
    Matter,
    Origin,
    System,
)
from opencode_actors.testing.fake_server import FakeBehaviour
from opencode_actors.testing.fake_webhook import FakeWebhook
from opencode_actors.testing.provider_demo import demo_script

from .killing import Cable
from .world import SETTINGS, World, open_world

BEHAVIOUR = FakeBehaviour(script=demo_script, start_up=1.0)
CHAT = Origin(session_key="agent:main:lab", agent_id="main")
ASK = "::ask Which colour? | Red | Blue"
# Neither a question nor silence ends a job here.
PATIENT = evolve(SETTINGS, question_timeout=0.0, idle_timeout=1e6, remind_after=0.0)


async def asking(system: System, prompt: str = ASK, *, origin: Origin | None = CHAT) -> tuple[Job, str]:
    job = await system.start(prompt, origin=origin)
    async for notice in system.follow(job.id):
        if isinstance(notice, InputWanted):
            return job, notice.request
    raise AssertionError("nothing was asked")


async def heard(attendance: Attendance, *, within: float = 100.0) -> Announcement | None:
    """The next one; None when there is none for so long."""
    with trio.move_on_after(within):
        async for announcement in attendance:
            return announcement
    return None


@asynccontextmanager
async def patient(world: World, **settings: object) -> AsyncGenerator[System]:
    async with world.system(evolve(PATIENT, **settings), notify=True) as system:  # type: ignore[arg-type]
        yield system


async def test_a_question_is_told_in_words_with_which_it_can_be_answered_C7(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, patient(world) as system, system.attend() as attendance:
        job, request = await asking(system)
        told = await heard(attendance)
        assert told is not None
        assert (told.matter, told.job.id) == (Matter.WAITING, job.id)
        assert told.text.startswith(f"OpenCode job {job.id} ({job.session}) in session {job.session} asks")
        assert "> Which colour?\nIts choices:\n> Red\n> Blue\n" in told.text
        assert f"job_id {job.id}, request_id {request}." in told.text
        await system.acknowledge(told.id)
        await job.answer(request, answers="Blue")
        end = await heard(attendance)
        assert end is not None
        assert (end.matter, end.id, end.job.status) == (Matter.COMPLETED, job.id, JobStatus.COMPLETED)


async def test_what_is_still_asked_is_told_to_a_gateway_that_comes_and_once_to_a_chat(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, patient(world) as system:
        job, request = await asking(system)
        async with system.attend() as gone:
            first = await heard(gone)  # and it goes before it has passed it on
            assert first is not None
        async with system.attend() as attendance:
            again = await heard(attendance)
            assert again == evolve(first, job=again.job if again else first.job)
            await system.acknowledge(first.id)
            assert await heard(attendance) is None
        async with system.attend() as attendance:
            assert await heard(attendance) is None
            await job.answer(request, answers="Red")
            end = await heard(attendance)
            assert end is not None
            assert end.matter is Matter.COMPLETED


async def test_what_is_not_asked_any_more_is_not_told(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(BEHAVIOUR) as world, patient(world) as system:
        answered, request = await asking(system, f"{ASK}\n::hang")
        cancelled, _ = await asking(system)
        await answered.answer(request, answers="Blue")
        await cancelled.cancel()
        async with system.attend() as attendance:
            (end,) = [await heard(attendance)]
            assert end is not None
            assert (end.matter, end.job.id) == (Matter.CANCELLED, cancelled.id)
            await system.acknowledge(end.id)
            assert await heard(attendance) is None
        statistics = system.statistics().attention
        assert statistics is not None
        assert statistics.words == 0


async def test_what_is_answered_while_it_is_on_its_way_is_not_told(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, patient(world) as system, system.attend() as attendance:
        job, request = await asking(system, f"{ASK}\n::hang")
        await job.answer(request, answers="Blue")  # before the attendant reads
        assert await heard(attendance) is None


async def test_what_no_chat_asked_for_is_no_chats_business(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(BEHAVIOUR) as world, patient(world) as system, system.attend() as attendance:
        await asking(system, origin=None)
        await asking(system, origin=Origin(agent_id="main"))
        assert await heard(attendance) is None


async def test_the_webhook_carries_ends_and_no_questions(autojump_clock: trio.testing.MockClock) -> None:
    webhook = FakeWebhook()
    async with open_world(BEHAVIOUR) as world, world.system(PATIENT, webhook=webhook) as system:
        job, request = await asking(system)
        await trio.sleep(1000)
        assert not webhook.requests
        await job.answer(request, answers="Blue")
        (told,) = await webhook.wait(1)
        assert told.key == job.id


async def test_a_job_that_runs_long_is_told_of_after_gaps_that_grow_C6(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, patient(world, remind_after=600.0) as system:
        async with system.attend() as attendance:
            job = await system.start("::say I begin.\n::bash sleep 9000", origin=CHAT)
            began, told = trio.current_time(), list[tuple[float, Announcement]]()
            while (one := await heard(attendance, within=5000.0)) is not None and len(told) < 3:
                told.append((trio.current_time() - began, one))
                await system.acknowledge(one.id)
            assert [round(at / 100) for at, _ in told] == [6, 18, 42]
            text = told[0][1].text
            assert told[0][1].matter is Matter.RUNNING
            assert text.startswith(
                f"OpenCode job {job.id} ({job.session}) in session {job.session} is still running, after 10 min"
            )
            assert "> I begin." in text
        await job.cancel()


async def test_a_gateway_that_was_away_hears_the_newest_reminder_alone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, patient(world, remind_after=60.0) as system:
        job = await system.start("::hang", origin=CHAT)
        lasted = [notice async for notice in _until(system, job, 3)]
        async with system.attend() as attendance:
            told = await heard(attendance, within=10.0)
            assert told is not None
            assert told.id == f"{job.id}:running-{lasted[-1].seq}"
            await system.acknowledge(told.id)
            assert await heard(attendance, within=10.0) is None


@asynccontextmanager
async def after_a_kill(
    world: World, prompt: str, **settings: float
) -> AsyncGenerator[tuple[System, Attendance]]:
    """The system of the next process, which goes on with a job that runs for 70 s already."""
    cable = Cable()

    async def live(task_status: trio.TaskStatus[None]) -> None:
        chosen = evolve(PATIENT, **settings)  # type: ignore[arg-type]
        async with world.system(chosen, notify=True, through=cable) as system:
            await system.start(prompt, session="demo", origin=CHAT, name="it")
            await trio.sleep(70)
            task_status.started()
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        await nursery.start(live)
        cable.cut = True
        async with patient(world, **settings) as system, system.attend() as attendance:
            yield system, attendance
        nursery.cancel_scope.cancel()


async def test_a_question_that_outlives_its_service_is_told_by_the_next(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, after_a_kill(world, ASK) as (system, attendance):
        told = await heard(attendance)
        assert told is not None
        assert (told.matter, told.job.name) == (Matter.WAITING, "it")
        await system.acknowledge(told.id)
        (asked,) = told.job.pending
        await trio.sleep(
            30
        )  # until its container is found again; before that the answer is to be given again
        await system.answer(told.job.id, asked.id, answers="Blue")
        end = await heard(attendance)
        assert end is not None
        assert (end.matter, end.job.status) == (Matter.COMPLETED, JobStatus.COMPLETED)


async def test_the_gaps_between_reminders_go_on_in_the_next_process(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with (
        open_world(BEHAVIOUR) as world,
        after_a_kill(world, "::hang", remind_after=60.0) as (system, attendance),
    ):
        told = await heard(attendance, within=1000.0)
        assert told is not None
        assert told.matter is Matter.RUNNING
        assert told.job.elapsed_seconds == pytest.approx(180, abs=5)  # 60 s is told already
        await system.cancel(told.job.id)


async def _until(system: System, job: Job, count: int) -> AsyncGenerator[JobLasted]:
    async for notice in system.follow(job.id):
        if isinstance(notice, JobLasted):
            yield notice
            count -= 1
            if not count:
                return
