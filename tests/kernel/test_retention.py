"""What a system does not keep for ever, and what it says of it."""

from __future__ import annotations

import logging

import pytest
import trio
import trio.testing
from attrs import evolve

from opencode_actors import JobId, JobStatus, SessionKey, System, UnknownJob, UnknownSession, UsageError
from opencode_actors.kernel.retention import EVERY, FIRST_AFTER
from opencode_actors.machines.notices import SessionChanged
from opencode_actors.testing.fake_server import FakeBehaviour
from opencode_actors.testing.provider_demo import demo_script

from .world import SETTINGS, World, open_world

BEHAVIOUR = FakeBehaviour(script=demo_script, start_up=1.0)
DAY = 86_400.0


async def used(system: System, *sessions: str) -> list[JobId]:
    jobs = [await system.start("::say one", session=session) for session in sessions]
    for job in jobs:
        assert (await job.wait()).status is JobStatus.COMPLETED
    return [job.id for job in jobs]


def forgotten_aloud(world: World) -> list[str]:
    said = (notice for notice in world.store.told if isinstance(notice, SessionChanged))
    return [notice.session for notice in said if notice.detail.startswith("forgotten")]


async def test_jobs_beyond_the_settings_go_by_themselves_and_it_is_said(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "opencode_actors")
    async with open_world(BEHAVIOUR) as world, world.system(evolve(SETTINGS, keep_jobs=2)) as system:
        jobs = await used(system, *["demo"] * 5)
        running = await system.start("::hang", session="other")
        await trio.sleep(FIRST_AFTER)
        assert [job.id for job in world.store.jobs()] == [*jobs[-2:], running.id]
        with pytest.raises(UnknownJob):
            await system.status(await system.find(jobs[0]))
        assert (await system.output(jobs[-1])).text
        assert "3 ended jobs are forgotten, with their output (keepJobs is 2" in caplog.text
        more = await used(system, "demo")
        await trio.sleep(EVERY)
        assert [job.id for job in world.store.jobs()] == [running.id, *more]  # it has gone idle meanwhile
        assert forgotten_aloud(world) == []


async def test_jobs_go_by_their_age_but_never_the_last_one_of_a_session(
    autojump_clock: trio.testing.MockClock,
) -> None:
    settings = evolve(SETTINGS, keep_jobs_for=2 * DAY)
    async with open_world(BEHAVIOUR) as world, world.system(settings) as system:
        await used(system, "demo", "demo", "other")
        await trio.sleep(3 * DAY)
        assert len(world.store.jobs()) == 2
        assert (await (await system.resume("demo")).wait()).status is JobStatus.COMPLETED


async def test_a_session_that_nobody_came_back_to_goes_with_a_word_and_its_files_stay(
    autojump_clock: trio.testing.MockClock,
) -> None:
    settings = evolve(SETTINGS, keep_sessions=2, session_idle_timeout=10.0)
    async with open_world(BEHAVIOUR) as world:
        async with world.system() as system:
            await used(system, "first", "second", "third")
            workspace = system.workspace(SessionKey("first"))
            (workspace / "made.txt").write_text("by the agent")
            data = system._place(SessionKey("first")).data
            assert data.is_dir()
        async with world.system(settings) as system:
            done = await system.cleanup()
            assert (done.forgotten, done.forgotten_jobs) == (("first",), 0)
            assert forgotten_aloud(world) == ["first"]
            assert not data.exists()
            assert (workspace / "made.txt").exists()
            with pytest.raises(UnknownSession):
                await system.resume("first")
            for kept in ("second", "third"):
                assert (await (await system.resume(kept)).wait()).status is JobStatus.COMPLETED
            assert (await system.cleanup()).forgotten == ()


async def test_an_open_session_and_one_with_work_are_not_forgotten(
    autojump_clock: trio.testing.MockClock,
) -> None:
    settings = evolve(SETTINGS, keep_sessions=1, keep_sessions_for=60.0)
    async with open_world(BEHAVIOUR) as world, world.system(settings) as system:
        await system.start("::hang", session="busy")
        await used(system, "open", "last")
        await trio.sleep(FIRST_AFTER + 1)
        assert forgotten_aloud(world) == []
        assert {session.key for session in await system.sessions()} == {"busy", "open", "last"}


async def test_ended_sessions_are_listed_with_whether_they_can_be_resumed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world:
        async with world.system() as system:
            await used(system, "lost", "kept")
            await system.fork("kept", session="branch")
        world.directories.sizes.clear()
        async with world.system() as system:
            await system.start("::hang", session="open")
            lost = system._place(SessionKey("lost")).data
            lost.rename(lost.with_name("elsewhere"))
            found = await system.ended_sessions()
            assert [(one.known.key, one.resumable) for one in found] == [
                ("kept", True),
                ("lost", False),
                ("branch", True),
            ]
            assert found[2].known.source == "kept"
            with pytest.raises(UsageError, match="not kept any more"):
                await system.resume("lost")
