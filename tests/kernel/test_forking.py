"""A session that goes on from where another one is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing
from attrs import evolve

from opencode_actors import Busy, JobStatus, SessionKey, StoreError, System, UsageError
from opencode_actors.containers import SessionPlace
from opencode_actors.kernel.cleanup import CleanedUp
from opencode_actors.testing.fake_directories import FakeDirectories
from opencode_actors.testing.fake_server import FakeBehaviour
from opencode_actors.testing.provider_demo import demo_script

from .test_talking import TALKS, until_it_has_said
from .world import SETTINGS, World, open_world

BEHAVIOUR = FakeBehaviour(script=demo_script, start_up=1.0)


def texts(world: World, system: System, session: str) -> list[str]:
    """What the user has said in the session's conversation, as its server has it."""
    place = system._place(SessionKey(session))
    disk = world.servers._disks[str(place.data)]
    conversation = world.store._conversations[SessionKey(session)]
    assert conversation is not None
    stored = disk.conversations[conversation]
    users = [message for message in stored.messages.values() if message.info.role == "user"]
    return ["".join(getattr(part, "text", "") for part in message.parts.values()) for message in users]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_a_fork_knows_the_conversation_and_has_its_own_files(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world:
        async with world.system() as system:
            first = await system.start("::say one", session="demo", name="it")
            await first.wait()
            workspace = system.workspace(first.session)
            (workspace / "made.txt").write_text("by the agent")
            before = files(workspace)
            forked, job = await system.fork("it", "::say other")
            assert job is not None
            assert (await job.wait()).status is JobStatus.COMPLETED
            assert (forked.session, forked.source, forked.left_out) == ("demo-fork", "demo", None)
            assert forked.copied is not None
            assert (forked.copied.repository, forked.copied.files) == (False, 1)
            (system.workspace(forked.session) / "made.txt").write_text("another way")
            await (await system.respond("demo", "::say two")).wait()
            assert files(workspace) == before
            assert texts(world, system, "demo-fork") == ["::say one", "::say other"]
            assert texts(world, system, "demo") == ["::say one", "::say two"]
            (container,) = {s.container for s in await system.sessions() if s.key == "demo-fork"}
            assert container not in {s.container for s in await system.sessions() if s.key == "demo"}
        async with world.system() as system:
            assert await system.find_session("demo-fork") == "demo-fork"
            known = await system.known_session(SessionKey("demo-fork"))
            assert known.source == "demo"
            assert (await (await system.resume("demo-fork", "::say on")).wait()).status is JobStatus.COMPLETED
            assert texts(world, system, "demo-fork") == ["::say one", "::say other", "::say on"]


async def test_what_is_at_work_is_left_out_of_the_branch_and_goes_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The branch is made when the new session has a server for it, also in a later process."""
    async with open_world(BEHAVIOUR) as world:
        async with world.system() as system:
            await (await system.start("::say one", session="demo")).wait()
            running = await system.start(TALKS, session="demo")
            await until_it_has_said(system, running, "half of it")
            forked, job = await system.fork("demo", session="branch")
            assert (forked.session, forked.left_out, job) == ("branch", running.id, None)
            assert (await running.status()).status is JobStatus.RUNNING
            known = await system.known_session(forked.session)
            assert known.heard_of
            await running.cancel()
        async with world.system() as system:
            assert (await (await system.respond("branch", "::say on")).wait()).status is JobStatus.COMPLETED
            assert texts(world, system, "branch") == ["::say one", "::say on"]
            assert (await (await system.respond("branch", "::say more")).wait()).status is JobStatus.COMPLETED
            assert texts(world, system, "branch") == ["::say one", "::say on", "::say more"]
            again, _ = await system.fork("branch")
            assert again.session == "branch-fork"


async def test_a_fork_has_a_name_that_nobody_has(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        await (await system.start("::say one", session="demo")).wait()
        names = [(await system.fork("demo"))[0].session for _ in range(3)]
        assert names == ["demo-fork", "demo-fork-2", "demo-fork-3"]
        for taken in ("demo", "demo-fork-2"):
            with pytest.raises(UsageError, match=f"there is a session {taken} already"):
                await system.fork("demo", session=taken)
        with pytest.raises(UsageError, match="cannot be a session key"):
            await system.fork("demo", session="../x")


async def test_where_there_is_nothing_to_branch_it_is_said(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        await (await system.start("::say one", session="demo")).wait()
        with pytest.raises(UsageError, match="the prompt is empty"):
            await system.fork("demo", "  ", session="never")
        await system.cleanup(delete_data=True)
        with pytest.raises(UsageError, match="no conversation that could be branched"):
            await system.fork("demo")
        assert not system.workspace(SessionKey("never")).exists()
        assert not system.workspace(SessionKey("demo-fork")).exists()


async def test_a_fork_that_fails_leaves_nothing_but_its_name(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        await (await system.start("::say one", session="demo")).wait()

        def fail(_source: Path, _target: Path) -> None:
            world.store.full = True

        copied, world.directories.copied = world.directories.copied, fail
        with pytest.raises(StoreError):
            await system.fork("demo", session="branch")
        world.store.full, world.directories.copied = False, copied
        place = system._place(SessionKey("branch"))
        assert not place.workspace.exists()
        assert not place.data.parent.exists()
        forked, _ = await system.fork("demo", session="branch")
        assert forked.session == "branch"


async def test_the_same_key_is_the_same_job_in_the_same_fork(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        for session in ("src", "other"):
            await (await system.start("::say one", session=session)).wait()
        forks: list[tuple[str, str, bool]] = []

        async def fork(session: str | None = None) -> None:
            forked, job = await system.fork("src", "::say two", session=session, key="k")
            assert job is not None
            forks.append((forked.session, job.id, forked.copied is None))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(fork)
        await fork("src-fork")
        assert len({(session, job) for session, job, _ in forks}) == 1
        assert [before for *_, before in forks] == [False, True, True, True]
        assert not system.workspace(SessionKey("src-fork-2")).exists()
        for source, message, target in (
            ("src", "::say three", None),
            ("src", "::say two", "mine"),
            ("other", "::say two", None),
        ):
            with pytest.raises(UsageError, match="the key 'k' stands for"):
                await system.fork(source, message, session=target, key="k")
        assert not system.workspace(SessionKey("mine")).exists()


async def test_a_fork_in_which_no_job_could_be_started_is_named(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system(evolve(SETTINGS, max_sessions=1)) as system:
        await (await system.start("::say one", session="src")).wait()
        running = await system.start("::hang", session="src")
        with pytest.raises(
            Busy, match=r"forked into src-fork, and no job was started there: all 1 sess"
        ) as caught:
            await system.fork("src", "::say two")
        assert "respond to src-fork" in caught.value.hint
        await running.cancel()
        assert (await (await system.respond("src-fork", "::say two")).wait()).status is JobStatus.COMPLETED


# ---- what others do meanwhile


async def fork_and_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch, system: System, do: Callable[[], Awaitable[None]]
) -> None:
    """A fork of `src` into `branch`, in the middle of which something is done, once."""
    copy = FakeDirectories.copy_conversation

    async def and_meanwhile(
        self: FakeDirectories, source: SessionPlace, target: SessionPlace, owner: tuple[int, int]
    ) -> None:
        patched.undo()
        await copy(self, source, target, owner)
        await do()

    with monkeypatch.context() as patched:
        patched.setattr(FakeDirectories, "copy_conversation", and_meanwhile)
        forked, _ = await system.fork("src", session="branch")
    place = system._place(forked.session)
    assert place.workspace.is_dir()
    assert place.data.is_dir()
    assert texts(world, system, "branch") == ["::say one"]


@pytest.mark.parametrize("is_open", [True, False])
async def test_a_clean_up_leaves_alone_what_is_just_being_forked(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch, *, is_open: bool
) -> None:
    done: list[CleanedUp] = []

    async def clean_up() -> None:
        done.append(await system.cleanup(delete_data=True, delete_workspaces=True))

    async with (
        open_world(BEHAVIOUR) as world,
        world.system(evolve(SETTINGS, keep_sessions_for=0.5)) as system,
    ):
        await (await system.start("::say one", session="src")).wait()
        if not is_open:
            await system.close_session("src")
        await trio.sleep(30.0)
        await fork_and_meanwhile(world, monkeypatch, system, clean_up)
        assert {one.session: one.why for one in done[0].kept} == {
            "src": "session src is just being forked, into branch",
            "branch": "session branch is just being made, by a fork of src",
        }
        assert (done[0].ended, done[0].removed, done[0].forgotten) == ((), (), ())
        assert set((await system.cleanup(delete_data=True)).ended) == ({"src"} if is_open else set())


async def test_nobody_works_in_a_session_that_is_just_being_made(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def begin_it() -> None:
        with pytest.raises(Busy, match="session branch is just being made, by a fork of src"):
            await system.start("::say mine", session="branch")
        with pytest.raises(UsageError, match="there is a session branch already"):
            await system.fork("src", session="branch")

    async with open_world(BEHAVIOUR) as world, world.system() as system:
        await (await system.start("::say one", session="src")).wait()
        await fork_and_meanwhile(world, monkeypatch, system, begin_it)
        job = await system.start("::say mine", session="branch")
        assert (await job.wait()).status is JobStatus.COMPLETED


async def test_a_session_is_not_ended_for_its_place_while_it_is_forked(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def need_its_place() -> None:
        with pytest.raises(Busy, match="all 1 sessions"):
            await system.start("::say x", session="other")

    async with open_world(BEHAVIOUR) as world, world.system(evolve(SETTINGS, max_sessions=1)) as system:
        await (await system.start("::say one", session="src")).wait()
        await fork_and_meanwhile(world, monkeypatch, system, need_its_place)
        job = await system.start("::say x", session="other")
        assert (await job.wait()).status is JobStatus.COMPLETED


async def test_forks_without_a_name_at_once_have_one_each(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        await (await system.start("::say one", session="demo")).wait()
        names: list[str] = []

        async def fork() -> None:
            names.append((await system.fork("demo"))[0].session)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(fork)
        assert sorted(names) == ["demo-fork", "demo-fork-2", "demo-fork-3"]
