"""A bug in one actor is seen, ends what depended on it, and leaves the others alone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from opencode_actors import (
    Cause,
    EngineUnavailable,
    JobSnapshot,
    JobStatus,
    SessionStatus,
    System,
)
from opencode_actors.kernel.supervisor import Supervisor
from opencode_actors.machines import job as job_machine
from opencode_actors.machines import session as session_machine
from opencode_actors.machines.job_messages import EventsSeen
from opencode_actors.machines.notices import JobEnded, SessionChanged
from opencode_actors.machines.session import ASK_AGAIN_AFTER
from opencode_actors.machines.session_messages import UsageSampled
from opencode_actors.testing.fake_server import FakeBehaviour
from opencode_actors.testing.provider_demo import demo_script

from .schedules import schedules
from .test_actor import Do, end, new_actor
from .world import SETTINGS, begun, open_world

BEHAVIOUR = FakeBehaviour(script=demo_script, start_up=1.0)
SOON = 10.0
BRIEFLY = "::say begun\n::pause 30\n::say done"


class Bug(Exception):
    pass


Handle = Callable[[Any, Any, Any], Any]


def break_on(handle: Handle, kind: type[object], session: str) -> Handle:
    """A machine with a bug: it falls over a kind of message, in one session."""

    def broken(state: Any, message: Any, moment: Any) -> Any:
        key = getattr(state, "session", None) or getattr(state, "key", None)
        if isinstance(message, kind) and key == session:
            raise Bug("it was bound to happen")
        return handle(state, message, moment)

    return broken


def check_failed(snapshot: JobSnapshot, cause: Cause) -> None:
    assert snapshot.status is JobStatus.FAILED
    assert snapshot.failure is not None
    assert snapshot.failure.cause is cause


# ---- the supervisor alone


async def test_an_actor_that_ends_by_itself_is_no_failure() -> None:
    actor = new_actor()
    end(actor)
    supervisor = Supervisor()
    assert await supervisor.run(actor) is None
    assert repr(supervisor) == "<Supervisor of 0 actors, 0 of 1 failed>"


async def test_a_bug_is_named_and_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    actor = new_actor()
    actor.mailbox.put(Do(bug=True))
    supervisor = Supervisor()
    failure = await supervisor.run(actor)
    assert failure is not None
    assert failure.cause is Cause.INTERNAL
    assert failure.message == "a bug in opencode-actors ended the actor: KeyError('a bug')"
    assert supervisor.statistics().failures == 1
    assert "in handle" in caplog.text


async def test_a_cancellation_is_no_failure_and_goes_on(autojump_clock: trio.testing.MockClock) -> None:
    supervisor = Supervisor()
    with trio.move_on_after(1) as scope:
        await supervisor.run(new_actor())
    assert scope.cancelled_caught
    assert supervisor.statistics().failures == 0
    assert supervisor.statistics().running == 0


# ---- a bug in a job


@schedules(5)
async def test_a_bug_in_a_job_fails_it_stops_its_work_and_nothing_else(
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        other = await begun(system, BRIEFLY, session="other")
        job = await begun(system, BRIEFLY, session="broken")
        following = system.follow(job.id)
        entry = system._jobs.entries.get(job.id)
        assert entry is not None
        entry.actor.handle = break_on(job_machine.handle, EventsSeen, "broken")
        (container,) = [c for c in world.engine.containers.values() if "broken" in c.name]
        with trio.fail_after(2 * SOON + 30):
            final = await job.wait()
        check_failed(final, Cause.INTERNAL)
        known = await world.store.job(job.id)
        assert known is not None
        assert await job.status() == final == known.snapshot
        assert [n.snapshot async for n in following if isinstance(n, JobEnded)] == [final]
        # Nobody follows its prompt any more: its container was ended, and the next job has a new one.
        with trio.fail_after(SOON):
            again = await (await system.start("::say on", session="broken")).wait()
        assert again.status is JobStatus.COMPLETED
        assert container.id not in world.engine.containers
        assert (await other.wait()).status is JobStatus.COMPLETED
        assert system.statistics().supervisor.failures == 1
    assert "a bug ended <Actor job" in caplog.text


async def test_a_bug_in_a_queued_job_leaves_the_running_one_alone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        running = await begun(system, BRIEFLY)
        queued = await system.start("::say never", session="demo")
        entry = system._jobs.entries.get(queued.id)
        assert entry is not None
        entry.actor.handle = break_on(job_machine.handle, object, "demo")
        with trio.fail_after(1):
            check_failed(await queued.status(), Cause.INTERNAL)
        assert (await running.wait()).status is JobStatus.COMPLETED
        (session,) = await system.sessions()
        assert (session.running, session.queued) == (None, ())
        with trio.fail_after(SOON):
            assert (await (await system.start("::say on", session="demo")).wait()).settled


# ---- a bug in a session


@schedules(5)
async def test_a_bug_in_a_session_fails_its_jobs_and_removes_its_container(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        everything = system.follow()
        other = await begun(system, BRIEFLY, session="other")
        running = await begun(system, BRIEFLY, session="broken")
        queued = await system.start("::say never", session="broken")
        break_session(system, "broken")
        with trio.fail_after(SOON):
            for job in (running, queued):
                check_failed(await job.wait(), Cause.INTERNAL)
        with trio.fail_after(SOON):
            again = await (await system.start("::say on", session="broken")).wait()
        assert again.status is JobStatus.COMPLETED
        assert len(world.engine.containers) == 2
        assert (await other.wait()).status is JobStatus.COMPLETED
        check_said(await told_so_far(everything), "it was bound to happen")
    assert not world.engine.containers


async def test_an_engine_that_is_away_then_is_no_reason_to_fall(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        other = await begun(system, BRIEFLY, session="other")
        job = await begun(system, BRIEFLY, session="broken")
        world.engine.refuse("remove", EngineUnavailable("no engine answers"), times=1)
        break_session(system, "broken")
        with trio.fail_after(SOON):
            check_failed(await job.wait(), Cause.INTERNAL)
        assert (await other.wait()).status is JobStatus.COMPLETED
        # What could not be removed is out of the way for the next one all the same.
        with trio.fail_after(SOON):
            again = await (await system.start("::say on", session="broken")).wait()
        assert again.status is JobStatus.COMPLETED
    assert "could not be removed: no engine answers" in caplog.text
    assert not world.engine.containers


async def test_an_engine_that_says_that_it_removed_the_container_then_is_not_believed(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        job = await begun(system, BRIEFLY, session="broken")
        lie = world.engine.lie("remove")
        break_session(system, "broken")
        with trio.fail_after(SOON):
            check_failed(await job.wait(), Cause.INTERNAL)
        await trio.sleep(2 * ASK_AGAIN_AFTER)
        assert lie.met > 1
        assert world.engine.containers
        lie.over = True
        await trio.sleep(2 * ASK_AGAIN_AFTER)
        assert not world.engine.containers
    assert "could not be removed: it is still there" in caplog.text


async def test_an_engine_that_hangs_then_holds_the_key_only_for_its_time(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        job = await begun(system, BRIEFLY, session="broken")
        world.engine.delay("remove", 10_000)
        break_session(system, "broken")
        await job.wait()
        broken_at = trio.current_time()
        starting = trio.Event()

        async def start() -> None:
            await system.start("::say on", session="broken")
            starting.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(start)
            await starting.wait()
            assert trio.current_time() - broken_at == SETTINGS.remove_grace
            world.engine.delay("remove", 0)
    assert "was not removed within" in caplog.text


async def test_a_session_that_cannot_record_is_no_bug_of_ours(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        job = await system.start("::say hello", session="demo")
        world.store.full = True
        with trio.fail_after(SOON):
            check_failed(await job.wait(), Cause.STORE)
        world.store.full = False
        again = await (await system.start("::say hello", session="demo")).wait()
        assert again.status is JobStatus.COMPLETED
    assert "Traceback" not in caplog.text
    assert caplog.record_tuples[0][:2] == ("opencode_actors", logging.ERROR)


async def test_a_container_is_not_left_behind_by_a_full_disk_while_the_engine_is_away(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        job = await begun(system, BRIEFLY)
        world.store.full = True
        world.engine.go_away()
        check_failed(await job.wait(), Cause.STORE)
        await trio.sleep(20)
        world.engine.come_back()
        world.store.full = False
        await trio.sleep(SOON)
        assert not world.engine.containers


def break_session(system: System, key: str) -> None:
    entry = next(entry for found, entry in system._sessions._entries.items() if found == key)
    entry.actor.handle = break_on(session_machine.handle, UsageSampled, key)


async def told_so_far(following: Any) -> list[object]:
    told: list[object] = []
    while following.statistics().waiting:
        told.append(await anext(following))
    return told


def check_said(notices: list[object], what: str) -> None:
    assert any(
        isinstance(notice, SessionChanged) and notice.status is SessionStatus.ABSENT and what in notice.detail
        for notice in notices
    )
