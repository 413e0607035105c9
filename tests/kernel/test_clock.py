"""The clock is set back under a session: what is asked then is answered, by what is said then."""

from __future__ import annotations

import trio
import trio.testing
from attrs import define

from opencode_actors import Cause, InputWanted, JobStatus, SessionChanged, System
from opencode_actors.testing.fake_server import FakeBehaviour

from .world import open_world

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
