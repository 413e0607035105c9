"""Saying more to a session: behind what runs, instead of it, and after it has ended."""

from __future__ import annotations

from collections import Counter

import pytest
import trio
import trio.testing

from opencode_actors import Job, JobSnapshot, JobStatus, Leave, System, UnknownSession, UsageError
from opencode_actors.machines.notices import JobCancelling, JobEnded, JobStarted, OutputAdded
from opencode_actors.machines.vocabulary import Rung
from opencode_actors.testing.fake_server import FakeBehaviour
from opencode_actors.testing.provider_demo import demo_script

from .killing import Steps
from .world import World, open_world

BEHAVIOUR = FakeBehaviour(script=demo_script, start_up=1.0)
TALKS = "::say half of it\n::hang"


async def until_it_has_said(system: System, job: Job, words: str) -> None:
    async for notice in system.follow(job.id):
        if isinstance(notice, OutputAdded) and words in notice.text:
            return
    raise AssertionError(f"it never said {words!r}")


def order_of_turns(world: World) -> list[str]:
    return [notice.job for notice in world.store.told if isinstance(notice, JobStarted)]


def ends_of(world: World, job: Job) -> list[JobSnapshot]:
    return [n.snapshot for n in world.store.told if isinstance(n, JobEnded) and n.job == job.id]


async def test_an_interrupting_message_goes_first_and_the_queue_stays(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        running = await system.start(TALKS, session="demo", name="first")
        waiting = await system.start("::say later", session="demo")
        await until_it_has_said(system, running, "half of it")
        redirected = await system.respond("first", "::say instead", interrupt=True)
        assert redirected.session == "demo"
        ended = await running.wait()
        assert (ended.status, ended.failure) == (JobStatus.CANCELLED, None)
        assert ended.interrupted_by == redirected.id
        assert ended.climb is not None
        assert ended.climb.ended_by is Rung.ABORT
        assert "half of it" in (await running.output()).text
        assert (await redirected.wait()).status is JobStatus.COMPLETED
        assert "instead" in (await redirected.output()).text
        assert (await waiting.wait()).status is JobStatus.COMPLETED
        assert order_of_turns(world) == [running.id, redirected.id, waiting.id]
        assert len(ends_of(world, running)) == 1
        whys = [n.why for n in world.store.told if isinstance(n, JobCancelling)]
        assert whys == [f"job {redirected.id} goes first"]


async def test_without_an_interrupt_a_message_waits_its_turn(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        running = await system.start("::say one two", session="demo")
        queued = await system.respond(running.id, "::say three")
        assert (await running.wait()).status is JobStatus.COMPLETED
        assert (await running.wait()).interrupted_by is None
        assert (await queued.wait()).status is JobStatus.COMPLETED


async def test_of_two_interrupting_messages_the_later_one_goes_first(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        running = await system.start(TALKS, session="demo")
        await until_it_has_said(system, running, "half of it")
        earlier = await system.respond("demo", "::say earlier", interrupt=True)
        later = await system.respond("demo", "::say later", interrupt=True)
        assert (await running.wait()).interrupted_by == earlier.id  # it was being ended for that one already
        assert (await earlier.wait()).status is JobStatus.COMPLETED
        assert order_of_turns(world) == [running.id, later.id, earlier.id]


async def test_an_interrupting_message_under_the_same_key_interrupts_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        running = await system.start(TALKS, session="demo")
        await until_it_has_said(system, running, "half of it")
        jobs: list[str] = []

        async def respond() -> None:
            jobs.append((await system.respond("demo", TALKS, interrupt=True, key="k")).id)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(respond)
        await running.wait()
        await respond()
        (redirected,) = set(jobs)
        assert order_of_turns(world) == [running.id, redirected]
        with pytest.raises(UsageError, match="stands for another prompt"):
            await system.respond("demo", TALKS, key="k")


async def test_a_session_that_sleeps_takes_an_interrupting_message_as_any_other(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world:
        async with world.system() as system:
            await (await system.start("::say one", session="demo")).wait()
        async with world.system() as system:
            job = await system.respond("demo", "::say two", interrupt=True)
            assert (await job.wait()).status is JobStatus.COMPLETED


# So many of the steps in which a message interrupts a turn are each the last one of a process.
INSTANTS = 60


async def test_a_message_that_interrupts_goes_first_also_when_the_service_is_killed_at_any_instant_P18(
    autojump_clock: trio.testing.MockClock,
) -> None:
    whole = Steps()
    async with open_world(BEHAVIOUR) as world, world.system(through=whole.cable) as system:
        await interrupt(world, system, whole)
        await (await system.start("::say end", session="demo")).wait()
        trio.lowlevel.remove_instrument(whole)
    ends: Counter[str] = Counter()
    for at in range(1, whole.done, max(1, whole.done // INSTANTS)):
        ends[await interrupted_in_the_middle(Steps(at=at))] += 1
    assert ends["accepted"] > INSTANTS // 2
    assert ends["never heard of"] > 0


async def interrupt(world: World, system: System, steps: Steps) -> None:
    running = await system.start(TALKS, session="demo", name="running")
    await system.start("::say queued", session="demo", name="queued")
    await until_it_has_said(system, running, "half of it")
    await trio.sleep(1.0)  # ids of messages are in the order of their milliseconds
    trio.lowlevel.add_instrument(steps)
    await system.respond("demo", "::say instead", interrupt=True, name="instead")


async def interrupted_in_the_middle(steps: Steps) -> str:
    async with open_world(BEHAVIOUR) as world:

        async def live() -> None:
            async with world.system(through=steps.cable) as system:
                await interrupt(world, system, steps)
                await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(live)
            await steps.reached.wait()
            trio.lowlevel.remove_instrument(steps)
            async with world.system() as system:
                ids = {job.name: job.id for job in world.store.jobs()}
                if "instead" not in ids:
                    assert (await system.cancel(ids["running"])).interrupted_by is None
                    end = "never heard of"
                else:
                    end = "accepted"
                    done = await system.wait(ids["instead"])
                    assert done.status is JobStatus.COMPLETED, (done.failure, steps.at)
                    ended = await system.wait(ids["running"])
                    assert (ended.status, ended.interrupted_by) == (JobStatus.CANCELLED, ids["instead"])
                assert "half of it" in (await system.output(ids["running"])).text
                assert (await system.wait(ids["queued"])).status is JobStatus.COMPLETED
            began = list(dict.fromkeys(order_of_turns(world)))
            assert began == [ids[name] for name in ("running", "instead", "queued") if name in ids]
            nursery.cancel_scope.cancel()
        return end


async def test_a_later_interrupt_that_runs_is_not_ended_for_an_earlier_one_after_a_restart(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world:
        async with world.system(leave=Leave.ALL) as system:
            running = await system.start(TALKS, session="demo")
            await until_it_has_said(system, running, "half of it")
            earlier = await system.respond("demo", "::say earlier", interrupt=True)
            later = await system.respond("demo", "::say later\n::hang", interrupt=True)
            await until_it_has_said(system, later, "later")
        async with world.system() as system:
            await trio.sleep(30.0)
            assert (await system.status(later.id)).status is JobStatus.RUNNING
            assert (await system.cancel(later.id)).interrupted_by is None
            assert (await system.wait(earlier.id)).status is JobStatus.COMPLETED


async def test_two_interrupting_messages_go_in_their_order_when_the_service_is_killed_at_any_instant_P18(
    autojump_clock: trio.testing.MockClock,
) -> None:
    whole = Steps()
    async with open_world(BEHAVIOUR) as world, world.system(through=whole.cable) as system:
        await interrupt_twice(world, system, whole)
        await (await system.start("::say end", session="demo")).wait()
        trio.lowlevel.remove_instrument(whole)
    ends: Counter[int] = Counter()
    for at in range(1, whole.done, max(1, whole.done // INSTANTS)):
        ends[await interrupted_twice_in_the_middle(Steps(at=at))] += 1
    assert ends[2] > INSTANTS // 2
    assert ends[1] > 0


async def interrupt_twice(world: World, system: System, steps: Steps) -> None:
    await interrupt(world, system, steps)
    await system.respond("demo", "::say on top", interrupt=True, name="on top")


async def interrupted_twice_in_the_middle(steps: Steps) -> int:
    """How many of the two were heard of."""
    async with open_world(BEHAVIOUR) as world:

        async def live() -> None:
            async with world.system(through=steps.cable) as system:
                await interrupt_twice(world, system, steps)
                await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(live)
            await steps.reached.wait()
            trio.lowlevel.remove_instrument(steps)
            async with world.system() as system:
                ids = {job.name: job.id for job in world.store.jobs()}
                heard = [name for name in ("on top", "instead") if name in ids]
                if not heard:
                    await system.cancel(ids["running"])
                for name in (*heard, "queued"):
                    done = await system.wait(ids[name])
                    gave_way = name == "instead" and done.interrupted_by == ids.get("on top", "")
                    assert done.status is JobStatus.COMPLETED or gave_way, (name, done.failure, steps.at)
                assert (await system.wait(ids["running"])).status is JobStatus.CANCELLED
                ended = Counter(n.job for n in world.store.told if isinstance(n, JobEnded))
                assert set(ended.values()) == {1}, steps.at
            nursery.cancel_scope.cancel()
        return len(heard)


async def test_only_a_session_that_is_known_can_be_answered(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        await (await system.start("::say one", session="payments")).wait()
        for speak in (system.respond("paymnts", "::say x"), system.resume("paymnts")):
            with pytest.raises(UnknownSession) as caught:
                await speak
            assert "'payments'" in caught.value.hint


# ---- resuming


async def test_a_session_that_ended_is_gone_on_with_in_its_conversation(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world:
        async with world.system() as system:
            first = await system.start("::say one", session="demo", name="it")
            await first.wait()
            (before,) = [session.conversation for session in await system.sessions()]
            await system.cleanup()
            assert await system.sessions() == ()
        async with world.system() as system:
            await trio.sleep(21 * 86_400)
            job = await system.resume("it", "::say two")
            assert (await job.wait()).status is JobStatus.COMPLETED
            assert [session.conversation for session in await system.sessions()] == [before]
            again = await system.resume("demo")
            assert (await again.wait()).prompt.startswith("Go on where you left off")


async def test_a_session_at_work_is_not_resumed(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        job = await system.start("::hang", session="demo", name="it")
        with pytest.raises(UsageError, match=rf"job {job.id} \(it\) is under way") as caught:
            await system.resume("demo")
        assert "respond" in caught.value.hint


async def test_of_two_who_resume_at_once_one_is_told_of_the_other(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        await (await system.start("::say one", session="demo")).wait()
        jobs: list[Job] = []
        refused: list[str] = []

        async def resume() -> None:
            try:
                jobs.append(await system.resume("demo", "::hang"))
            except UsageError as error:
                refused.append(error.message)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(resume)
        (job,) = jobs
        assert [f"job {job.id}" in message for message in refused] == [True, True]


async def test_a_resume_under_the_same_key_is_the_same_job(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        await (await system.start("::say one", session="demo")).wait()
        first = await system.resume("demo", "::hang", key="k")
        assert (await system.resume("demo", "::hang", key="k")).id == first.id


async def test_a_conversation_that_is_gone_is_not_begun_anew_without_a_word(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        await (await system.start("::say one", session="demo")).wait()
        await system.cleanup(delete_data=True)
        with pytest.raises(UsageError, match="is not kept any more"):
            await system.resume("demo")
        job = await system.respond("demo", "::say two")
        assert (await job.wait()).status is JobStatus.COMPLETED
