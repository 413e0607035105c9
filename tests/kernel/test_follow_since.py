"""Following from a number on, across restarts; and starting twice under one key."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from opencode_actors import Job, JobStatus, Origin, UsageError
from opencode_actors.kernel.hub import Following, NoticesMissed
from opencode_actors.kernel.jobs import KEY_LASTS
from opencode_actors.machines.notices import JobEnded, JobQueued, Notice, OutputAdded
from opencode_actors.testing.fake_server import FakeBehaviour
from opencode_actors.testing.provider_demo import demo_script

from .schedules import schedules
from .world import open_world

BEHAVIOUR = FakeBehaviour(script=demo_script, start_up=1.0)


async def read(following: Following, count: int) -> list[Notice | NoticesMissed]:
    return [await anext(following) for _ in range(count)]


def numbers(notices: list[Notice | NoticesMissed]) -> list[int]:
    return [notice.seq for notice in notices if not isinstance(notice, NoticesMissed)]


async def test_e4_who_comes_back_with_a_number_misses_nothing_and_gets_nothing_twice(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        everything = system.follow(since=0)
        job = await system.start("::words 2000 rate=400", session="demo")
        got: list[Notice] = []
        while not (got and isinstance(got[-1], JobEnded)):
            following = system.follow(since=got[-1].seq if got else 0)
            for _ in range(7):  # and then the connection drops
                notice = await anext(following)
                assert not isinstance(notice, NoticesMissed)
                got.append(notice)
                if isinstance(notice, JobEnded):
                    break
        text = "".join(notice.text for notice in got if isinstance(notice, OutputAdded))
        assert text == (await job.output(limit=1 << 20)).text
        assert [n.seq for n in got] == sorted({n.seq for n in got})
        assert all(n.at >= 1_760_000_000 for n in got)
        del everything


async def test_a_job_of_an_earlier_process_is_told_of_from_its_beginning(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world:
        async with world.system() as system:
            job = await system.start("::words 700 rate=0", session="demo")
            during = [notice async for notice in system.follow(job.id)]
            await system.start("::say more", session="demo")
        async with world.system() as system:
            after = [notice async for notice in system.follow(job.id)]
            assert after[0] == during[0]
            assert after[-1] == during[-1]
            assert _text(after) == _text(during)
            last = numbers(during)[-1]
            assert [n async for n in system.follow(job.id, since=last)] == []
            half = numbers(during)[len(during) // 2]
            rest = [n async for n in system.follow(job.id, since=half)]
            assert numbers(rest)[0] > half
            assert rest[-1] == during[-1]


def _text(notices: list[Notice | NoticesMissed]) -> str:
    return "".join(notice.text for notice in notices if isinstance(notice, OutputAdded))


async def test_numbers_go_on_in_the_next_process(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(BEHAVIOUR) as world:
        async with world.system() as system:
            await (await system.start("::say one", session="demo")).wait()
        before = [notice.seq for notice in world.store.told]
        async with world.system() as system:
            following = system.follow(since=0)
            live = system.follow()
            await (await system.start("::say two", session="demo")).wait()
            everything = await read(following, len(world.store.told))
            assert numbers(everything) == list(range(1, len(world.store.told) + 1))
            first = await anext(live)
            assert not isinstance(first, NoticesMissed)
            assert first.seq == before[-1] + 1
            # from a number that was never given: from now on
            assert (await system.start("::say three", session="demo")).id
            queued = await anext(system.follow(since=first.seq))
            assert not isinstance(queued, NoticesMissed)


async def test_a_session_is_followed_from_a_number(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        await (await system.start("::words 600 rate=0", session="a")).wait()
        await (await system.start("::say b", session="b")).wait()
        mine = [notice for notice in world.store.told if notice.session == "a"]
        assert await read(system.follow(session="a", since=0), len(mine)) == mine
        with pytest.raises(UsageError):
            system.follow(session="../up")


# ---- keys


async def test_p20_the_same_key_is_the_same_job_also_in_the_next_process(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world:
        async with world.system() as system:
            first = await system.start("::say one", key="k-1")
            again = await system.start("::say one", key="k-1")
            assert (again.id, again.session) == (first.id, first.session)
            await first.wait()
            assert (await system.start("::say one", key="k-1")).id == first.id
        async with world.system() as system:
            again = await system.start("::say one", key="k-1")
            assert (again.id, again.session) == (first.id, first.session)
            assert (await again.wait()).status is JobStatus.COMPLETED
            assert (await system.start("::say one", key="k-2")).id != first.id
        assert sum(isinstance(n, JobQueued) for n in world.store.told) == 2


@schedules(10)
async def test_p20_two_starts_that_race_under_one_key_are_one_job(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        world.store.slow = 0.25
        jobs: list[Job] = []

        async def start() -> None:
            jobs.append(await system.start("::say one", session="demo", key="k"))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(start)
        assert len({job.id for job in jobs}) == 1
        assert system._jobs._keys == {}
        assert sum(isinstance(n, JobQueued) for n in world.store.told) == 1


async def test_a_key_is_free_again_when_its_start_was_refused_or_given_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        world.store.full = True
        with pytest.raises(Exception, match="no space left"):
            await system.start("::say one", session="demo", key="k")
        world.store.full = False
        ended = await (await system.start("::say one", session="demo", key="k")).wait()
        assert ended.status is JobStatus.COMPLETED


async def test_something_else_under_a_key_is_refused_and_after_a_day_it_is_free(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        job = await system.start("::say one", session="demo", key="k")
        for prompt, session in (("::say two", "demo"), ("::say one", "other"), ("::say one", None)):
            with pytest.raises(UsageError, match=f"stands for another prompt already .job {job.id}."):
                await system.start(prompt, session=session, key="k")
        await trio.sleep(KEY_LASTS)
        assert (await system.start("::say two", session="demo", key="k")).id != job.id
        for key in ("", "x" * 201, "a\nb"):
            with pytest.raises(UsageError, match="cannot be a key"):
                await system.start("::say one", key=key)


async def test_who_asked_is_kept_with_the_job(autojump_clock: trio.testing.MockClock) -> None:
    origin = Origin(session_key="agent:main", agent_id="main", channel="telegram")
    async with open_world(BEHAVIOUR) as world:
        async with world.system() as system:
            job = await system.start("::say one", origin=origin)
            assert (await job.status()).origin == origin
            assert (await job.wait()).origin == origin
        async with world.system() as system:
            assert (await system.status(job.id)).origin == origin
