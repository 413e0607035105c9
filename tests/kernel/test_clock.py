"""The clock is set back under a session: what is asked then is answered, by what is said then."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from attrs import define, evolve

from opencode_actors import Cause, InputWanted, JobStatus, Leave, SessionChanged, System
from opencode_actors.errors import OpenCodeError, ServerRefused, ServerSilent
from opencode_actors.machines.server_events import ConversationId
from opencode_actors.machines.vocabulary import JobId
from opencode_actors.ports import Conversation
from opencode_actors.testing.fake_opencode import FakeOpenCode
from opencode_actors.testing.fake_server import FakeBehaviour

from .killing import Cable
from .world import SETTINGS, open_world

HOUR = 3600.0


@define
class Clock:
    """One for this host and all its containers."""

    ahead: float = 0.0

    def offset(self) -> float:
        return self.ahead

    def behaviour(self) -> FakeBehaviour:
        return FakeBehaviour(wall=lambda: 1_760_000_000.0 + self.ahead + trio.current_time())


async def _ask(system: System, prompt: str) -> tuple[JobStatus, str]:
    job = await system.start(prompt, session="demo")
    ended = await job.wait()
    return ended.status, (await system.output(job.id)).text


async def test_a_prompt_after_a_step_back_is_answered_behind_what_was_said_before(
    autojump_clock: trio.testing.MockClock,
) -> None:
    clock = Clock()
    async with open_world(clock.behaviour()) as world, world.system(ahead=clock.offset) as system:
        assert await _ask(system, "::say first") == (JobStatus.COMPLETED, "first")
        (before,) = await system.sessions()
        following = system.follow()
        clock.ahead = -HOUR
        assert await _ask(system, "::say second") == (JobStatus.COMPLETED, "second")
        assert await _ask(system, "::say third") == (JobStatus.COMPLETED, "third")
        (after,) = await system.sessions()
        assert before.conversation != after.conversation
        (server,) = world.servers.running()
        assert after.conversation is not None
        said = [stored.text for stored in server.stored(after.conversation).in_order()]
        assert said == ["::say first", "first", "::say second", "second", "::say third", "third"]
        async for notice in following:
            if isinstance(notice, SessionChanged) and "set back" in notice.detail:
                assert "by 3600 s" in notice.detail
                break


async def test_a_step_back_that_nobody_was_there_to_see_is_found(
    autojump_clock: trio.testing.MockClock,
) -> None:
    clock = Clock()
    async with open_world(clock.behaviour()) as world:
        async with world.system(ahead=clock.offset) as system:
            assert await _ask(system, "::say first") == (JobStatus.COMPLETED, "first")
        clock.ahead = -HOUR
        async with world.system(ahead=clock.offset) as system:
            assert await _ask(system, "::say second") == (JobStatus.COMPLETED, "second")


async def test_a_clock_that_is_corrected_by_a_second_changes_no_conversation(
    autojump_clock: trio.testing.MockClock,
) -> None:
    clock = Clock()
    async with open_world(clock.behaviour()) as world, world.system(ahead=clock.offset) as system:
        assert await _ask(system, "::say first") == (JobStatus.COMPLETED, "first")
        (before,) = await system.sessions()
        clock.ahead = -1.0
        assert await _ask(system, "::say second") == (JobStatus.COMPLETED, "second")
        (after,) = await system.sessions()
        assert before.conversation == after.conversation


async def test_an_answer_that_the_clock_is_set_back_under_is_kept_and_not_asked_for_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    clock = Clock()
    async with open_world(clock.behaviour()) as world, world.system(ahead=clock.offset) as system:
        assert await _ask(system, "::say first") == (JobStatus.COMPLETED, "first")
        job = await system.start("::bash sleep 20\n::say second", session="demo")
        await trio.sleep(10)
        clock.ahead = -HOUR
        ended = await job.wait()
        assert ended.status is JobStatus.COMPLETED, ended.failure
        assert (await system.output(job.id)).text.endswith("second")
        (server,) = world.servers.running()
        asked = sum(count for key, count in server.attempts.items() if "second" in key[1])
        assert asked == 2  # for the command, and for the answer
        assert await _ask(system, "::say third") == (JobStatus.COMPLETED, "third")
        (session,) = await system.sessions()
        assert session.conversation is not None
        said = [stored.text for stored in server.stored(session.conversation).in_order() if stored.text]
        assert said == [
            "::say first",
            "first",
            "::bash sleep 20\n::say second",
            "second",
            "::say third",
            "third",
        ]


async def test_of_two_answers_that_nobody_was_there_to_hear_the_one_that_ended_it_is_kept(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """OpenCode asked again, and its clock was ahead of the prompt by then: it came to an end."""
    clock = Clock()
    async with open_world(clock.behaviour()) as world:
        async with world.system(ahead=clock.offset, leave=Leave.ALL) as system:
            job = (await system.start("::bash sleep 20\n::say second", session="demo")).id
            await trio.sleep(10)
            clock.ahead = -21.0
        await trio.sleep(60)
        async with world.system(ahead=clock.offset) as system:
            ended = await system.wait(job)
            assert ended.status is JobStatus.COMPLETED, ended.failure
            (server,) = world.servers.running()
            asked = sum(count for key, count in server.attempts.items() if "second" in key[1])
            assert asked == 3  # for the command, for the answer, and for another one
            assert (await system.output(job)).text.count("second") == 1


async def test_work_that_the_clock_is_set_back_under_ends_and_says_why(
    autojump_clock: trio.testing.MockClock,
) -> None:
    clock = Clock()
    async with open_world(clock.behaviour()) as world, world.system(ahead=clock.offset) as system:
        assert await _ask(system, "::say first") == (JobStatus.COMPLETED, "first")
        job = await system.start("::bash sleep 20\n::say so\n::bash sleep 5\n::say second", session="demo")
        await trio.sleep(10)
        clock.ahead = -HOUR
        with trio.fail_after(300):
            ended = await job.wait()
        assert ended.status is JobStatus.FAILED
        assert ended.failure is not None
        assert ended.failure.cause is Cause.LOST
        assert "the clock was set back" in ended.failure.message
        assert await _ask(system, "::say third") == (JobStatus.COMPLETED, "third")


async def test_a_question_behind_a_step_back_is_no_ghost(autojump_clock: trio.testing.MockClock) -> None:
    clock = Clock()
    async with open_world(clock.behaviour()) as world, world.system(ahead=clock.offset) as system:
        job = await system.start("::bash sleep 20\n::say so\n::ask Which? | A | B", session="demo")
        following = system.follow(job.id)
        await trio.sleep(10)
        clock.ahead = -HOUR
        (server,) = world.servers.running()
        server.drop_streams(for_seconds=15)  # it is asked meanwhile
        with trio.fail_after(60):
            async for notice in following:
                if isinstance(notice, InputWanted):
                    break
        assert (await job.cancel()).status is JobStatus.CANCELLED


async def test_a_server_that_refuses_to_tell_costs_nobody_a_conversation(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuses(self: FakeOpenCode, conversation: ConversationId) -> float | None:
        await trio.lowlevel.checkpoint()
        raise ServerRefused("GET /session/x/message: database is locked", status=500)

    async with open_world() as world:
        async with world.system() as system:
            assert await _ask(system, "::say first") == (JobStatus.COMPLETED, "first")
            (before,) = await system.sessions()
        monkeypatch.setattr(FakeOpenCode, "newest", refuses)
        async with world.system() as system:
            assert await _ask(system, "::say second") == (JobStatus.COMPLETED, "second")
            (after,) = await system.sessions()
            assert before.conversation == after.conversation


@pytest.mark.parametrize(
    "error",
    [
        ServerSilent("POST /sync/replay: did not answer in 10 s"),
        ServerRefused("POST /sync/replay: SQLITE_FULL: database or disk is full", status=500),
    ],
    ids=["silent", "full"],
)
async def test_a_server_that_takes_no_copy_fails_the_job_and_not_the_session(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch, error: OpenCodeError
) -> None:
    """A copy that is tried for ever is half a conversation more on the disk each time, and nobody sees the job wait."""
    tries = 0

    async def fails(self: FakeOpenCode, conversation: ConversationId, *, earlier: float) -> Conversation:
        nonlocal tries
        tries += 1
        await trio.sleep(10)
        raise error

    clock = Clock()
    settings = evolve(SETTINGS, max_restarts=1, restart_period=600.0)
    async with open_world(clock.behaviour()) as world, world.system(settings, ahead=clock.offset) as system:
        assert await _ask(system, "::say first") == (JobStatus.COMPLETED, "first")
        (before,) = await system.sessions()
        monkeypatch.setattr(FakeOpenCode, "retell", fails)
        clock.ahead = -HOUR
        ended = await (await system.start("::say second", session="demo")).wait()
        assert ended.failure is not None
        assert ended.failure.cause is not Cause.INTERNAL
        assert "no older copy" in ended.failure.message
        assert tries <= 6
        monkeypatch.undo()
        await system.reset_session("demo")
        assert await _ask(system, "::say third") == (JobStatus.COMPLETED, "third")
        (after,) = await system.sessions()
        assert before.conversation != after.conversation


async def test_a_second_step_back_is_seen_while_the_first_is_waited_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    clock = Clock()
    async with open_world(clock.behaviour()) as world, world.system(ahead=clock.offset) as system:
        assert await _ask(system, "::say first") == (JobStatus.COMPLETED, "first")
        clock.ahead = -4.0
        job = await system.start("::say second", session="demo")
        await trio.sleep(1)
        clock.ahead = -HOUR
        assert (await job.wait()).status is JobStatus.COMPLETED
        assert (await system.output(job.id)).text == "second"


@pytest.mark.parametrize("back", [0.0, HOUR])
async def test_what_was_answered_while_nobody_was_there_is_taken_wherever_the_clock_is(
    autojump_clock: trio.testing.MockClock, back: float
) -> None:
    clock, cable = Clock(), Cable()
    jobs: list[JobId] = []
    async with open_world(clock.behaviour()) as world, trio.open_nursery() as nursery:

        async def live() -> None:
            async with world.system(through=cable, ahead=clock.offset) as system:
                assert await _ask(system, "::say first") == (JobStatus.COMPLETED, "first")
                jobs.append((await system.start("::bash sleep 5\n::say precious", session="demo")).id)
                await trio.sleep(2)
                cable.cut = True
                await trio.sleep_forever()

        nursery.start_soon(live)
        await trio.sleep(60)  # it is answered meanwhile, and then its container ends
        for container in tuple(world.engine.containers.values()):
            await world.engine.kill(container.id)
        clock.ahead = -back
        async with world.system(ahead=clock.offset) as system:
            ended = await system.wait(jobs[0])
            assert ended.status is JobStatus.COMPLETED, ended.failure
            assert (await system.output(jobs[0])).text.endswith("precious")
            assert await _ask(system, "::say next") == (JobStatus.COMPLETED, "next")
        nursery.cancel_scope.cancel()
