"""What a system does not keep for ever, and what it says of it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import trio
import trio.testing
from attrs import evolve

from opencode_actors import JobId, JobStatus, SessionKey, System, UnknownJob, UnknownSession, UsageError
from opencode_actors.containers import SessionPlace
from opencode_actors.kernel.cleanup import CleanedUp
from opencode_actors.kernel.retention import EVERY, FIRST_AFTER
from opencode_actors.machines.matters import Matter
from opencode_actors.machines.notices import SessionChanged
from opencode_actors.testing.fake_directories import FakeDirectories
from opencode_actors.testing.fake_server import FakeBehaviour
from opencode_actors.testing.memory_store import MemoryStore
from opencode_actors.testing.provider_demo import demo_script

from .killing import Cable
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


@pytest.mark.parametrize("verb", ["respond", "resume"])
async def test_a_message_that_comes_while_its_session_is_forgotten_is_not_lost_P18(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """It came into the window between the data and the record, and was deleted as one of the old jobs."""
    async with open_world(BEHAVIOUR) as world:
        async with world.system() as system:
            await used(system, "first", "second")
        async with world.system(evolve(SETTINGS, keep_sessions=1)) as system:
            goes = trio.Event()
            set_aside, jobs_of = FakeDirectories.set_aside, MemoryStore.jobs_of

            async def and_it_is_seen(self: FakeDirectories, folder: Path) -> bool:
                goes.set()
                await trio.testing.wait_all_tasks_blocked()
                return await set_aside(self, folder)

            async def slowly(self: MemoryStore, session: SessionKey) -> tuple[JobId, ...] | None:
                await trio.testing.wait_all_tasks_blocked()  # whoever was let in is in by now
                return await jobs_of(self, session)

            monkeypatch.setattr(FakeDirectories, "set_aside", and_it_is_seen)
            monkeypatch.setattr(MemoryStore, "jobs_of", slowly)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(system.cleanup)
                await goes.wait()
                if verb == "respond":
                    job = await system.respond("first", "::say new")
                    await trio.sleep(0.5)  # its server is starting, and the clean-up is over
                    assert await world.store.job(job.id) is not None
                    assert (await job.wait()).status is JobStatus.COMPLETED
                else:
                    with pytest.raises(UsageError, match="never came to a conversation"):
                        await system.resume("first", "::say on")
            assert forgotten_aloud(world) == ["first"]
            assert (await system.known_session(SessionKey("first"))).jobs == (1 if verb == "respond" else 0)


async def test_a_session_that_is_just_resumed_is_not_forgotten(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_world(BEHAVIOUR) as world:
        async with world.system() as system:
            await used(system, "first", "second")
        async with world.system(evolve(SETTINGS, keep_sessions=1)) as system, trio.open_nursery() as nursery:
            has_conversation = FakeDirectories.has_conversation

            async def while_somebody_cleans_up(self: FakeDirectories, place: SessionPlace) -> bool:
                there = await has_conversation(self, place)
                nursery.start_soon(system.cleanup)
                await trio.testing.wait_all_tasks_blocked()
                return there

            monkeypatch.setattr(FakeDirectories, "has_conversation", while_somebody_cleans_up)
            before = (await world.store.recall(SessionKey("first"))).conversation
            job = await system.resume("first", "::say on")
            assert (await job.wait()).status is JobStatus.COMPLETED
            assert (await world.store.recall(SessionKey("first"))).conversation == before
            assert forgotten_aloud(world) == []


async def test_a_session_that_was_half_forgotten_when_the_service_was_killed_goes_the_next_time_P18(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, cable = evolve(SETTINGS, keep_sessions=1), Cable()
    async with open_world(BEHAVIOUR) as world, trio.open_nursery() as nursery:
        async with world.system() as system:
            await used(system, "first", "second")
        set_aside = FakeDirectories.set_aside

        async def and_then_never_again(self: FakeDirectories, folder: Path) -> bool:
            was_there = await set_aside(self, folder)
            cable.cut = True
            return was_there

        async def live() -> None:
            async with world.system(settings, through=cable) as system:
                await system.cleanup()

        with monkeypatch.context() as patched:
            patched.setattr(FakeDirectories, "set_aside", and_then_never_again)
            nursery.start_soon(live)
            await trio.testing.wait_all_tasks_blocked()
        async with world.system(settings) as system:
            with pytest.raises(UsageError, match="is not kept any more: its data was removed"):
                await system.resume("first")
            assert (await system.cleanup()).forgotten == ("first",)
            with pytest.raises(UnknownSession):
                await system.resume("first")
        nursery.cancel_scope.cancel()


async def test_two_clean_ups_at_once_forget_and_say_everything_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world:
        async with world.system() as system:
            await used(system, "first", "first", "second", "third")
        done: list[CleanedUp] = []
        async with world.system(evolve(SETTINGS, keep_sessions=1)) as system:

            async def clean_up() -> None:
                done.append(await system.cleanup())

            async with trio.open_nursery() as nursery:
                nursery.start_soon(clean_up)
                nursery.start_soon(clean_up)
        assert sorted(one.forgotten for one in done) == [(), ("first", "second")]
        assert forgotten_aloud(world) == ["first", "second"]


async def test_a_fork_that_nobody_spoke_to_is_forgotten_like_any_other(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system(evolve(SETTINGS, keep_sessions=2)) as system:
        await used(system, "src")
        for _ in range(3):
            await system.fork("src")
            await trio.sleep(1.0)
        await used(system, "src")
        assert (await system.cleanup()).forgotten == ("src-fork", "src-fork-2")
        assert await system.find_session("src-fork-3") == "src-fork-3"


async def test_what_was_chosen_for_a_session_goes_with_it(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(BEHAVIOUR) as world:
        async with world.system() as system:
            await used(system, "first", "second")
            await system.notify(session="first", on=["text"])
        async with world.system(evolve(SETTINGS, keep_sessions=1)) as system:
            assert (await system.cleanup()).forgotten == ("first",)
            told = {one.matter: one.on for one in await system.notify(session="first")}
            assert not told[Matter.TEXT]


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
