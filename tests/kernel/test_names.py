"""What jobs and sessions are called, and whom a word means."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from attrs import evolve

from opencode_actors import Busy, SessionKey, UnknownJob, UnknownSession, UsageError
from opencode_actors.testing.fake_server import FakeBehaviour
from opencode_actors.testing.provider_demo import demo_script

from .world import SETTINGS, open_world

BEHAVIOUR = FakeBehaviour(script=demo_script, start_up=1.0)


async def test_a_job_and_its_session_are_called_by_the_prompts_key_words(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        first = await system.start("::hang please fix the failing login test, now")
        assert (first.session, (await first.status()).name) == ("hang-fix-failing-login",) * 2
        second = await system.start("::hang please fix the failing login test")
        assert (second.session, (await second.status()).name) == ("hang-fix-failing-login-2",) * 2
        inside = await system.start("::hang fix", session="hang-fix-failing-login")
        assert (await inside.status()).name == "hang-fix"
        for job in (first, second):
            assert await system.find(job.session) == job.id
            assert await system.find_session(job.id) == job.session
        assert await system.find("hang-fix") == inside.id
        assert await system.find_session("hang-fix") == first.session


async def test_a_name_that_was_given_once_is_not_made_again(autojump_clock: trio.testing.MockClock) -> None:
    """Also not after a restart, and not of what only a session, or only a job, was called."""
    async with open_world(BEHAVIOUR) as world:
        async with world.system() as system:
            await (await system.start("::say tests", session="say-tests-2", name="mine")).wait()
            await (await system.start("::say tests", session="here", name="say-tests")).wait()
        async with world.system() as system:
            job = await system.start("::say tests")
            assert (job.session, (await job.wait()).name) == ("say-tests-3",) * 2


async def test_many_who_ask_at_once_are_all_called_differently(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        names: list[str] = []

        async def start() -> None:
            job = await system.start("::say tests", session="demo")
            names.append((await job.status()).name)

        async with trio.open_nursery() as nursery:
            for _ in range(9):
                nursery.start_soon(start)
        assert sorted(names) == ["say-tests", *(f"say-tests-{number}" for number in range(2, 10))]


async def test_a_name_is_made_of_no_session_that_has_ended(autojump_clock: trio.testing.MockClock) -> None:
    """Of two who asked at once the second one got a number that nobody had looked for."""
    async with open_world(BEHAVIOUR) as world:
        async with world.system() as system:
            await (await system.start("::hang", session="say-tests-2", name="other")).cancel()
        async with world.system() as system:
            sessions: list[str] = []

            async def start(number: int) -> None:
                sessions.append((await system.start("::say tests", name=f"mine {number}")).session)

            async with trio.open_nursery() as nursery:
                for number in range(3):
                    nursery.start_soon(start, number)
            assert len({*sessions, "say-tests-2"}) == 4
            assert (await system.known_session(SessionKey("say-tests-2"))).jobs == 1


async def test_a_start_that_is_refused_takes_no_name_away(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(BEHAVIOUR) as world, world.system(evolve(SETTINGS, max_sessions=1)) as system:
        job = await system.start("::hang", session="demo")
        for _ in range(2):
            with pytest.raises(Busy):
                await system.start("::say tests")
        await job.cancel()
        assert (await system.start("::say tests")).session == "say-tests"


@pytest.mark.parametrize("prompt", ["日本語で", "!!!", "the and to"])
async def test_a_prompt_without_key_words_has_a_name_too(
    autojump_clock: trio.testing.MockClock, prompt: str
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        assert (await system.start(prompt)).session == "task"
        assert (await system.start(prompt)).session == "task-2"


async def test_a_sessions_name_means_what_runs_in_it_and_else_its_last_job(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world:
        async with world.system() as system:
            first = await system.start("::say one", session="demo", name="one")
            await first.wait()
            assert await system.find("demo") == first.id
            running = await system.start("::hang", session="demo", name="two")
            waiting = await system.start("::say three", session="demo", name="three")
            async for notice in system.follow(running.id):
                if type(notice).__name__ == "JobStarted":
                    break
            assert await system.find("demo") == running.id
            assert await system.find("three") == waiting.id
            await running.cancel()
            await waiting.wait()
        async with world.system() as system:
            assert await system.find("demo") == waiting.id
            assert await system.find_session("demo") == await system.find_session("one") == "demo"


async def test_a_word_that_means_two_jobs_under_way_lists_both(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        called = await system.start("::hang", session="elsewhere", name="login")
        inside = await system.start("::hang", session="login", name="other")
        with pytest.raises(UsageError) as caught:
            await system.find("login")
        assert inside.id in caught.value.message
        assert called.id in caught.value.message
        with pytest.raises(UsageError, match=rf"is a session, and what job {called.id} in session elsewhere"):
            await system.respond("login", "::say to whom")
        assert await system.find_session(inside.id) == "login"
        await called.cancel()
        assert await system.find("login") == inside.id


async def test_a_job_is_not_called_like_another_session(autojump_clock: trio.testing.MockClock) -> None:
    """`cancel login` would have ended a job of the one, and `respond login` spoken to the other."""
    async with open_world(BEHAVIOUR) as world:
        async with world.system() as system:
            await (await system.start("::say one", session="login")).wait()
        async with world.system() as system:
            for session in ("elsewhere", None):
                with pytest.raises(UsageError, match="'login' is the name of another session"):
                    await system.start("::say one", session=session, name="login")
            job = await system.start("::hang", session="login", name="login")
            assert await system.find("login") == job.id
            assert await system.find_session("login") == "login"


async def test_a_session_that_is_begun_under_a_jobs_name_is_told_from_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        ended = await system.start("::say one", session="elsewhere", name="login")
        await ended.wait()
        assert await system.find_session("login") == "elsewhere"
        begun = await system.start("::say one", session="login", name="first")
        await begun.wait()
        with pytest.raises(
            UsageError, match=rf"is a session, and what job {ended.id} in session elsewhere"
        ) as caught:
            await system.respond("login", "::say to whom")
        assert "by the id" in caught.value.hint
        assert (await system.respond(begun.id, "::say you")).session == "login"


async def test_a_jobs_name_in_several_sessions_does_not_mean_one_of_them(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        jobs = [await system.start("::say one", session="demo", name="it")]
        await jobs[0].wait()
        await (await system.start("::say one", session="demo", name="it")).wait()
        assert await system.find_session("it") == "demo"
        other = await system.start("::say one", session="other", name="it")
        assert await system.find_session("it") == "other"  # the one under way
        await other.wait()
        with pytest.raises(UsageError, match="several jobs were called 'it'"):
            await system.find_session("it")


async def test_an_unknown_word_is_told_the_nearest_ones(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(BEHAVIOUR) as world:
        async with world.system() as system:
            await (await system.start("::say x", session="fix-login-test", name="red")).wait()
        async with world.system() as system:
            await system.start("::hang", session="payments", name="pay-by-card")
            for word, meant in (("fix-logn-test", "fix-login-test"), ("pay", "pay-by-card")):
                with pytest.raises(UnknownJob) as job:
                    await system.find(word)
                assert f"'{meant}'" in job.value.hint
                with pytest.raises(UnknownSession) as session:
                    await system.find_session(word)
                assert f"'{meant}'" in session.value.hint
            with pytest.raises(UnknownJob) as nothing:
                await system.find("zzzz")
            assert "did you mean" not in nothing.value.hint
