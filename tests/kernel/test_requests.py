"""What agents ask, on virtual time: through the whole system, gaps and ghosts included."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from attrs import evolve

from opencode_actors import (
    ActivityState,
    Cause,
    InputAnswered,
    InputEnd,
    InputWanted,
    JobStatus,
    OutputAdded,
    PermissionReply,
    RequestGone,
    UnknownJob,
    UsageError,
)
from opencode_actors.kernel.answers import LONGEST_ANSWER
from opencode_actors.kernel.hub import Following
from opencode_actors.kernel.system import Job
from opencode_actors.machines.vocabulary import JobId
from opencode_actors.testing.fake_server import FakeServer

from .world import SETTINGS, World, open_world

ASK = "::ask Which colour? | Red | Blue\n::say and on"


ASKING = evolve(SETTINGS, permission_rules=("bash:*=ask",))


async def wanted_by(following: Following) -> InputWanted:
    async for notice in following:
        if isinstance(notice, InputWanted):
            return notice
    raise AssertionError("nothing was asked")


async def ends_of(job: Job, following: Following) -> list[InputEnd]:
    await job.wait()
    return [notice.end async for notice in following if isinstance(notice, InputAnswered)]


def server_of(world: World) -> FakeServer:
    (container,) = world.engine.containers.values()
    assert container.run is not None
    server = world.servers.server(f"http://127.0.0.1:{container.run.port}")
    assert server is not None
    return server


async def test_p2_an_answer_reaches_the_model_and_comes_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world() as world, world.system() as system:
        job = await system.start(ASK, session="demo")
        following = system.follow(job.id)
        wanted = await wanted_by(following)
        assert [pending.id for pending in (await job.status()).pending] == [wanted.request]
        outcomes: list[str] = []

        async def answer(text: str) -> None:
            try:
                await job.answer(wanted.request, answers=text)
            except RequestGone:
                outcomes.append("gone")
            else:
                outcomes.append("answered")

        async with trio.open_nursery() as nursery:
            for colour in ("Red", "Blue", "Green"):
                nursery.start_soon(answer, colour)
        assert sorted(outcomes) == ["answered", "gone", "gone"]
        assert await ends_of(job, following) == [InputEnd.ANSWERED]
        assert (await job.wait()).status is JobStatus.COMPLETED


@pytest.mark.parametrize("answered_after", [0.0, 1000.0])
async def test_p2_a_question_is_not_idle_however_long_and_its_time_is_its_own(
    autojump_clock: trio.testing.MockClock, answered_after: float
) -> None:
    settings = evolve(SETTINGS, idle_timeout=20.0, question_timeout=0.0)
    async with open_world() as world, world.system(settings) as system:
        job = await system.start(ASK, session="demo")
        wanted = await wanted_by(system.follow(job.id))
        await trio.sleep(answered_after)
        assert (await job.status()).activity is ActivityState.WAITING
        await job.answer(wanted.request, reply="reject")
        final = await job.wait()
        # said no to without a word, the agent ends its answer there
        assert final.status is JobStatus.COMPLETED
        assert "and on" not in (await job.output()).text


async def test_p2_nobody_answers_and_the_job_goes_on_exactly_then(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world() as world, world.system(evolve(SETTINGS, question_timeout=45.0)) as system:
        job = await system.start(ASK, session="demo")
        following = system.follow(job.id)
        await wanted_by(following)
        before = trio.current_time()
        assert await ends_of(job, following) == [InputEnd.UNANSWERED]
        assert trio.current_time() - before == pytest.approx(45.0, abs=1.0)
        assert "and on" in (await job.output()).text


async def test_p1_nobody_answers_and_the_job_fails(autojump_clock: trio.testing.MockClock) -> None:
    settings = evolve(ASKING, question_timeout=45.0, on_unanswered="fail")
    async with open_world() as world, world.system(settings) as system:
        final = await (await system.start("::bash true", session="demo")).wait()
        assert final.failure is not None
        assert final.failure.cause is Cause.UNANSWERED
        assert "bash: true" in final.failure.message


async def test_p8_p9_what_a_sub_agent_asks_while_nobody_hears_is_found_when_the_stream_is_back(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world() as world, world.system(ASKING) as system:
        job = await system.start("::say begun\n::task ::pause 1\\n::bash true\n::say end", session="demo")
        following = system.follow(job.id)
        async for notice in following:
            if isinstance(notice, OutputAdded):
                break
        # The child is born, and asks a second later: all of it while there is no stream.
        server_of(world).drop_streams(for_seconds=5.0)
        wanted = await wanted_by(following)
        assert wanted.sub_agent
        await job.answer(wanted.request, reply=PermissionReply.ONCE)
        assert await ends_of(job, following) == [InputEnd.ANSWERED]
        assert (await job.wait()).status is JobStatus.COMPLETED


async def test_p4_p9_a_silent_sub_agent_of_a_patient_server_ends_its_job_and_one_with_a_tool_does_not(
    autojump_clock: trio.testing.MockClock,
) -> None:
    settings = evolve(SETTINGS, idle_timeout=60.0, header_timeout=1e6, chunk_timeout=1e6)
    async with open_world() as world, world.system(settings) as system:
        builds = await system.start("::task ::bash sleep 900\\n::say built", session="builds")
        silent = await system.start("::task ::say so far\\n::hang\n::say end", session="silent")
        before = trio.current_time()
        failure = (await silent.wait()).failure
        assert failure is not None
        assert failure.cause is Cause.IDLE_TIMEOUT
        assert trio.current_time() - before == pytest.approx(60.0, abs=5.0)
        assert (await builds.wait()).status is JobStatus.COMPLETED


async def test_a_ghost_of_an_aborted_job_is_not_the_next_ones_question(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world() as world, world.system() as system:
        first = await system.start(ASK, session="demo")
        wanted = await wanted_by(system.follow(first.id))
        await first.cancel()
        server = server_of(world)
        assert wanted.request in server.requests
        second = await system.start("::say begun\n::pause 30\n::say end", session="demo")
        following = system.follow(second.id)
        async for notice in following:
            if isinstance(notice, OutputAdded):
                break
        server.drop_streams()
        await trio.sleep(10)
        assert (await second.status()).pending == ()
        with pytest.raises(RequestGone):
            await second.answer(wanted.request, answers="Red")
        with pytest.raises(RequestGone, match="has ended"):
            await first.answer(wanted.request, answers="Red")
        assert (await second.wait()).status is JobStatus.COMPLETED


async def test_what_is_no_answer_is_refused_in_words(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world() as world, world.system() as system:
        job = await system.start(ASK, session="demo")
        wanted = await wanted_by(system.follow(job.id))
        for words, given in {
            "give one of": {},
            "no reply": {"reply": "perhaps"},
            "rejection only": {"reply": "once", "message": "well"},
            "a message goes": {"answers": "Red", "message": "well"},
            "is a question": {"reply": "always"},
            "2 answers were given": {"answers": [["Red"], ["Blue"]]},
            "at most": {"answers": "x" * (LONGEST_ANSWER + 1)},
        }.items():
            with pytest.raises(UsageError, match=words):
                await job.answer(wanted.request, **given)  # type: ignore[arg-type]
        with pytest.raises(UnknownJob):
            await system.answer(JobId("job_0"), wanted.request, answers="Red")
        await job.answer(wanted.request, answers=[["Blue"]])
        await job.wait()


async def test_p2_a_question_ends_with_a_job_that_cannot_be_recorded_any_more(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world() as world, world.system() as system:
        job = await system.start(ASK, session="demo")
        following = system.follow(job.id)
        await wanted_by(following)
        world.store.full = True
        ended = await job.cancel()
        assert ended.failure is not None
        assert ended.failure.cause is Cause.STORE
        assert ended.pending == ()
        assert await ends_of(job, following) == [InputEnd.GONE]
        world.store.full = False
