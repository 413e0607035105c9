"""Sessions whose server somebody else runs: jobs, the ladder's one rung, servers that go and come, restarts."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from attrs import evolve

from opencode_actors import (
    Busy,
    Cause,
    JobStatus,
    Leave,
    OutputAdded,
    Rung,
    SessionStatus,
    System,
    UsageError,
)
from opencode_actors.errors import ServerUnreachable
from opencode_actors.machines.prompt_ids import stamped
from opencode_actors.machines.vocabulary import Moment
from opencode_actors.ports import Prompt
from opencode_actors.testing.fake_server import FakeServer

from .world import SETTINGS, World, open_world, until

URL = "http://127.0.0.1:4096"
SECRET = "a secret of theirs"
VARIABLE = "THEIR_PASSWORD"
LOST_AFTER = 60.0


@pytest.fixture(autouse=True)
def password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, SECRET)


def theirs(world: World) -> FakeServer:
    return world.servers.start(URL, password=SECRET)


async def attach(system: System, name: str = "far", **more: str) -> None:
    await system.attach(name, URL, password_env=VARIABLE, **more)


async def test_a_job_runs_on_their_server_and_no_container_is_made(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world() as world:
        server = theirs(world)
        async with world.system() as system:
            attached = await system.attach("far", URL, password_env=VARIABLE)
            assert (attached.version, attached.conversation) == ("1.18.33", None)
            first = await (await system.start("::say hello from afar", session="far")).wait()
            assert first.status is JobStatus.COMPLETED
            assert "hello from afar" in (await system.output(first.id)).text
            await (await system.start("::say again", session="far")).wait()
            (session,) = await system.sessions()
            assert (session.server, session.container) == (URL, None)
            assert len(server.disk.conversations) == 1  # both in one conversation
            assert not world.engine.containers
        assert server.alive
    assert not world.engine.containers


async def test_what_is_recorded_and_shown_has_no_password(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world() as world:
        theirs(world)
        async with world.system() as system:
            await attach(system)
            await (await system.start("::say one", session="far")).wait()
            shown = repr(
                (world.store.records, world.store.told, await system.sessions(), system.statistics())
            )
            assert SECRET not in shown
            assert VARIABLE in repr(world.store.records)


async def test_an_abort_is_the_only_rung_and_a_turn_that_goes_on_is_said_to(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world() as world:
        server = theirs(world)
        async with world.system() as system:
            await attach(system)
            ended = await system.start("::words 1000 rate=10", session="far")
            await until(system, ended, OutputAdded)
            stopped = await ended.cancel()
            assert (stopped.status, stopped.climb and stopped.climb.ended_by) == (
                JobStatus.CANCELLED,
                Rung.ABORT,
            )
            stubborn = await system.start("::words 1000 rate=10", session="far")
            await until(system, stubborn, OutputAdded)
            server.ignores_aborts = True
            left = await stubborn.cancel()
            assert left.status is JobStatus.FAILED
            assert left.failure is not None
            assert left.failure.cause is Cause.NOT_ENDED
            assert URL in left.failure.message
            assert "may still be running there" in left.failure.message
            assert left.climb is not None
            assert left.climb.ended_by is None
            assert [rung for rung, _ in left.climb.seconds] == [Rung.ABORT]
            # The next prompt would be merged with the one that runs on, so it is not sent.
            refused = await (await system.start("::say next", session="far")).wait()
            assert refused.failure is not None
            assert refused.failure.cause is Cause.SERVER_REFUSED
            assert "nothing was sent" in refused.failure.message
            assert server.alive


async def test_a_server_that_comes_back_in_time_costs_its_jobs_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world() as world:
        server = theirs(world)
        async with world.system() as system:
            await attach(system)
            job = await system.start("::words 600 rate=10", session="far")
            await until(system, job, OutputAdded)
            server.freeze()
            await trio.sleep(LOST_AFTER - 20)
            (session,) = await system.sessions()
            assert session.status is SessionStatus.UNREADY
            server.thaw()
            done = await job.wait()
            assert done.status is JobStatus.COMPLETED
            text = (await system.output(job.id, limit=1 << 20)).text
            assert text.split() == [f"word{n}" for n in range(600)]  # no gap, nothing twice


async def test_a_server_that_stays_away_is_lost_and_its_address_is_named(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world() as world:
        server = theirs(world)
        async with world.system() as system:
            await attach(system)
            job = await system.start("::words 600 rate=10", session="far")
            waiting = await system.start("::say later", session="far")
            await until(system, job, OutputAdded)
            server.crash()
            for one in (await job.wait(), await waiting.wait()):
                assert one.status is JobStatus.FAILED
                assert one.failure is not None
                assert one.failure.cause is Cause.SERVER_LOST
                assert URL in one.failure.message
            (session,) = await system.sessions()
            assert session.status is SessionStatus.GIVEN_UP
            theirs(world)
            again = await (await system.start("::say back", session="far")).wait()
            assert again.status is JobStatus.COMPLETED


async def test_a_server_that_is_not_there_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world() as world:
        server = theirs(world)
        async with world.system() as system:
            await attach(system)
            server.crash()
            began = trio.current_time()
            lost = await (await system.start("::say one", session="far")).wait()
            assert lost.failure is not None
            assert lost.failure.cause is Cause.SERVER_LOST
            assert LOST_AFTER <= trio.current_time() - began < 2 * LOST_AFTER


async def test_another_password_is_said_at_once(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_world() as world:
        theirs(world)
        async with world.system() as system:
            await attach(system)
            monkeypatch.setenv(VARIABLE, "another secret")
            refused = await (await system.start("::say one", session="far")).wait()
            assert refused.failure is not None
            assert refused.failure.cause is Cause.SERVER_REFUSED
            assert "password" in refused.failure.message
            monkeypatch.delenv(VARIABLE)
            gone = await (await system.start("::say one", session="far")).wait()
            assert gone.failure is not None
            assert gone.failure.cause is Cause.SERVER_REFUSED
            assert VARIABLE in gone.failure.message
            assert "another secret" not in repr((refused, gone))


async def test_the_next_system_follows_a_job_on_and_knows_the_session(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world() as world:
        server = theirs(world)
        async with world.system(leave=Leave.ALL) as system:
            await attach(system)
            job = await system.start("::words 100 rate=10", session="far")
            await until(system, job, OutputAdded)
        assert len(server.works) == 1  # it runs on
        async with world.system() as system:
            assert system.attachment(job.session) is not None
            done = await system.wait(job.id)
            assert done.status is JobStatus.COMPLETED
            text = (await system.output(job.id, limit=1 << 20)).text
            assert text.split() == [f"word{n}" for n in range(100)]
        async with world.system() as system:
            (session,) = await system.sessions()  # without any work
            assert session.server == URL
        assert not world.engine.containers


async def test_closing_ends_the_turn_and_nothing_else(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world() as world:
        server = theirs(world)
        async with world.system() as system:
            await attach(system)
            job = await system.start("::words 1000 rate=10", session="far")
            await until(system, job, OutputAdded)
            climb = await system.close_session("far")
            assert climb.ended_by is None
            assert (await job.status()).status is JobStatus.CANCELLED
            assert not server.works
            assert server.alive
            assert (
                await (await system.start("::say on", session="far")).wait()
            ).status is JobStatus.COMPLETED


async def test_detaching_forgets_and_touches_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world() as world:
        server = theirs(world)
        async with world.system() as system:
            await attach(system)
            job = await system.start("::words 1000 rate=10", session="far")
            with pytest.raises(Busy, match="has jobs"):
                await system.detach("far")
            await until(system, job, OutputAdded)
            await job.cancel()
            assert (await system.detach("far")).url == URL
            assert await system.sessions() == ()
            with pytest.raises(UsageError, match="not attached"):
                await system.detach("far")
            assert len(server.disk.conversations) == 1
            assert server.alive
        async with world.system() as system:
            assert await system.sessions() == ()


async def test_a_conversation_of_theirs_is_joined_where_it_is(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world() as world:
        server = theirs(world)
        their_own = server.create("what they work on", directory="/srv/theirs")
        busy = server.create("busy")
        moment = Moment(now=0.0, wall=1_760_000_000.0, roll=0.5)
        server.submit(busy.id, stamped(Prompt(text="::hang"), moment))
        async with world.system() as system:
            await attach(system)
            listed = await system.conversations("far")
            assert {(one.about.id, one.state.value, one.ours) for one in listed} == {
                (their_own.id, "idle", False),
                (busy.id, "busy", False),
            }
            await system.detach("far")
            joined = await system.attach("far", URL, password_env=VARIABLE, conversation=their_own.id)
            assert joined.attachment.directory == "/srv/theirs"
            assert (
                await (await system.start("::say hi", session="far")).wait()
            ).status is JobStatus.COMPLETED
            assert len(server.disk.conversations) == 2
            assert [one.about.id for one in await system.conversations("far") if one.ours] == [their_own.id]
            # and one in which somebody works takes no second prompt
            await attach(system, "second", conversation=busy.id)
            refused = await (await system.start("::say hi", session="second")).wait()
            assert refused.failure is not None
            assert "another prompt" in refused.failure.message


async def test_a_conversation_that_they_deleted_is_not_replaced_in_silence(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world() as world:
        server = theirs(world)
        their_own = server.create("what they work on")
        async with world.system() as system:
            await attach(system, conversation=their_own.id)
            del server.disk.conversations[their_own.id]
            gone = await (await system.start("::say hi", session="far")).wait()
            assert gone.failure is not None
            assert "does not know conversation" in gone.failure.message
            assert not server.disk.conversations


async def test_an_attached_session_takes_nobodys_place_and_is_no_clean_ups(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world() as world:
        theirs(world)
        async with world.system(evolve(SETTINGS, max_sessions=1)) as system:
            await attach(system)
            here = await (await system.start("::say here", session="near")).wait()
            far = await (await system.start("::say there", session="far")).wait()
            assert here.status is far.status is JobStatus.COMPLETED
            cleaned = await system.cleanup()
            assert list(cleaned.ended) == ["near"]
            assert [(one.session, "detach" in one.why) for one in cleaned.kept] == [("far", True)]
            with pytest.raises(UsageError, match="has no container"):
                await system.start("::say x", session="far", image="localhost/other:1")


async def test_what_cannot_be_attached_is_said(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_world() as world:
        theirs(world)
        async with world.system() as system:
            with pytest.raises(ServerUnreachable, match="4097"):
                await system.attach("far", "http://127.0.0.1:4097", password_env=VARIABLE)
            monkeypatch.setenv("WRONG_PASSWORD", "not it")
            with pytest.raises(UsageError, match="does not take this password"):
                await system.attach("far", URL, password_env="WRONG_PASSWORD")
            with pytest.raises(UsageError, match="cannot look into /nowhere"):
                await attach(system, directory="/nowhere")
            with pytest.raises(UsageError, match="has no conversation ses_nobody"):
                await attach(system, conversation="ses_nobody")
            with pytest.raises(UsageError, match="UNSET_PASSWORD"):
                await system.attach("far", URL, password_env="UNSET_PASSWORD")
            assert await system.sessions() == ()
            await (await system.start("::say here", session="near")).wait()
            with pytest.raises(UsageError, match="with a container"):
                await attach(system, "near")
            await attach(system)
            await attach(system)  # asking again is safe
            with pytest.raises(UsageError, match=r"attached to .* already"):
                await attach(system, directory="/elsewhere")
            assert sorted(one.key for one in await system.sessions()) == ["far", "near"]


async def test_two_sessions_of_one_server_do_not_close_each_others_connection(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world() as world:
        theirs(world)
        async with world.system() as system:
            await attach(system, "one")
            await attach(system, "two")
            long = await system.start("::words 50 rate=10", session="one")
            await (await system.start("::say short", session="two")).wait()
            await system.detach("two")
            assert (await long.wait()).status is JobStatus.COMPLETED
