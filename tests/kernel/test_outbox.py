"""The end of each job is told once, by one way or the other, on virtual time (P16, P17)."""

from __future__ import annotations

import logging
from functools import partial

import pytest
import trio
import trio.testing
from attrs import define, evolve

from opencode_actors import (
    ActivityState,
    JobId,
    JobSnapshot,
    JobStatus,
    Leave,
    NotificationFailed,
    Origin,
    SessionKey,
    System,
    UsageError,
)
from opencode_actors.kernel.outbox import CLAIM
from opencode_actors.machines.notices import JobRecorded
from opencode_actors.machines.outbox import BATCH
from opencode_actors.machines.vocabulary import Cause, NotificationState
from opencode_actors.ports import HookAnswer, HookRequest
from opencode_actors.testing.fake_server import FakeBehaviour
from opencode_actors.testing.fake_webhook import FakeWebhook
from opencode_actors.testing.provider_demo import demo_script

from .world import SETTINGS, World, open_world

BEHAVIOUR = FakeBehaviour(script=demo_script, start_up=1.0)
CHAT = Origin(session_key="agent:main:lab", agent_id="main")
GONE = HookAnswer(status=None, said="it cannot be reached")
REFUSED = HookAnswer(status=401, said="HTTP 401: Unauthorized")
DONE = NotificationState.DONE


def states(world: World) -> list[NotificationState]:
    return [row.state for row in world.store.outbox.values()]


def told_of(webhook: FakeWebhook) -> list[str]:
    return [request.key for request in webhook.requests]


async def finished(system: System, prompt: str = "::say hello", origin: Origin | None = None) -> JobId:
    job = await system.start(prompt, origin=origin)
    await job.wait()
    return job.id


async def test_P17_every_end_is_announced_once(autojump_clock: trio.testing.MockClock) -> None:
    webhook = FakeWebhook()
    async with open_world(BEHAVIOUR) as world, world.system(webhook=webhook) as system:
        completed = await finished(system, "::say hello")
        failed = await finished(system, "::error 401")
        job = await system.start("::hang")
        await trio.sleep(5)
        await job.cancel()
        await webhook.wait(3)
        await trio.sleep(80_000)
        assert told_of(webhook) == [completed, failed, job.id]
        first, second, third = (str(request.body["message"]) for request in webhook.requests)
        assert "is completed" in first
        assert "> hello" in first
        assert "has failed" in second
        assert "(provider)" in second
        assert "was cancelled" in third
        assert states(world) == [DONE] * 3
        statistics = system.statistics().outbox
        assert statistics is not None
        assert (statistics.sending, statistics.failures) == (0, 0)


async def test_jobs_that_end_at_once_are_announced_beside_each_other_and_each_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    webhook = FakeWebhook(seconds=1.0)
    settings = evolve(SETTINGS, max_sessions=8)
    async with open_world(BEHAVIOUR) as world, world.system(settings, webhook=webhook) as system:
        jobs = [await system.start("::say hello") for _ in range(8)]
        for job in jobs:
            await job.wait()
        await webhook.wait(8)
        assert sorted(told_of(webhook)) == sorted(job.id for job in jobs)
        assert webhook.most_in_flight <= BATCH


async def test_P17_what_could_not_be_told_before_the_end_is_told_after_the_next_beginning_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    away, back, later = FakeWebhook(then=GONE), FakeWebhook(), FakeWebhook()
    async with open_world(BEHAVIOUR) as world:
        async with world.system(webhook=away) as system:
            job = await finished(system)
        assert states(world) == [NotificationState.PENDING]
        async with world.system(webhook=back):
            await trio.sleep(1000)
        async with world.system(webhook=later):
            await trio.sleep(1000)
        assert told_of(back) == [job]
        assert later.requests == []
        assert back.requests == away.requests[:1]  # word for word, under the same key


async def test_P17_a_job_that_was_lost_with_its_process_is_announced_by_the_next(
    autojump_clock: trio.testing.MockClock,
) -> None:
    webhook = FakeWebhook()
    async with open_world(BEHAVIOUR) as world:
        lost = JobSnapshot(
            id=JobId("job_lost"),
            session=SessionKey("demo"),
            prompt="build it",
            status=JobStatus.RUNNING,
            activity=ActivityState.ACTIVE,
            notify=True,
        )
        of_run = evolve(lost, id=JobId("job_of_run"), notify=False)
        await world.store.append((JobRecorded(snapshot=lost), JobRecorded(snapshot=of_run)))
        async with world.system(webhook=webhook):
            (request,) = await webhook.wait(1)
            await trio.sleep(1000)
        assert told_of(webhook) == ["job_lost"]
        assert "(lost)" in str(request.body["message"])


async def test_a_system_that_announces_nothing_owes_nothing_and_forgets_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    webhook = FakeWebhook()
    async with open_world(BEHAVIOUR) as world:
        async with world.system(webhook=FakeWebhook(then=GONE)) as system:
            owed = await finished(system)
        async with world.system() as system:
            await finished(system)
            assert system.statistics().outbox is None
            with pytest.raises(UsageError, match="announces nothing"):
                system.attend()
        async with world.system(webhook=webhook):
            await trio.sleep(1000)
        assert told_of(webhook) == [owed]


async def test_P16_a_key_that_openclaw_does_not_allow_is_left_out(
    autojump_clock: trio.testing.MockClock,
) -> None:
    webhook = FakeWebhook(answers=[HookAnswer(status=400, said="HTTP 400: sessionKey is not allowed")])
    async with open_world(BEHAVIOUR) as world, world.system(webhook=webhook) as system:
        job = await finished(system, origin=CHAT)
        aimed, plain = await webhook.wait(2)
        assert aimed.url.endswith("/hooks/wake")
        assert aimed.body["sessionKey"] == "agent:main:lab"
        assert plain.url.endswith("/hooks/agent")
        assert "sessionKey" not in plain.body
        assert aimed.key == plain.key == job
        await trio.sleep(1000)
        assert len(webhook.requests) == 2
        assert states(world) == [DONE]


async def test_P16_a_refusal_for_good_is_told_once_and_disturbs_nobody(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    webhook = FakeWebhook(answers=[REFUSED])
    caplog.set_level(logging.WARNING, "opencode_actors")
    async with open_world(BEHAVIOUR) as world, world.system(webhook=webhook) as system:
        everything = system.follow()
        refused = await finished(system)
        taken = await finished(system)
        await webhook.wait(2)
        await trio.sleep(80_000)
        assert told_of(webhook) == [refused, taken]
        assert states(world) == [NotificationState.REFUSED, DONE]
        [line] = [record.getMessage() for record in caplog.records if "was not told" in record.getMessage()]
        assert refused in line
        assert "hooks.token" in line
    told = [notice async for notice in everything if isinstance(notice, NotificationFailed)]
    assert [(notice.about, notice.reason) for notice in told] == [(refused, "HTTP 401: Unauthorized")]
    assert told[0].seq > 0


# ---- those who attend


async def test_what_is_acknowledged_is_not_sent(autojump_clock: trio.testing.MockClock) -> None:
    webhook = FakeWebhook()
    async with open_world(BEHAVIOUR) as world, world.system(webhook=webhook) as system:
        async with system.attend() as attendance:
            job = await finished(system, "::say the answer", CHAT)
            unasked = await finished(system)
            announcement = await anext(attendance)
            assert announcement.job.id == job
            assert "> the answer" in announcement.text
            assert states(world)[0] is NotificationState.CLAIMED
            await system.acknowledge(job)
            assert states(world)[0] is DONE
            await trio.sleep(1000)
        await trio.sleep(1000)
        assert told_of(webhook) == [unasked]


async def test_what_is_not_acknowledged_in_time_is_sent_and_not_offered_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    webhook = FakeWebhook()
    async with open_world(BEHAVIOUR) as world, world.system(webhook=webhook) as system:
        async with system.attend() as attendance:
            job = await finished(system, origin=CHAT)
            await anext(attendance)
            await trio.sleep(CLAIM - 1)
            assert webhook.requests == []
            await webhook.wait(1)
            with trio.move_on_after(1000):
                await anext(attendance)
                raise AssertionError("it is offered twice")
        assert told_of(webhook) == [job]
        assert states(world) == [DONE]


async def test_what_waits_too_long_to_be_read_is_not_given_out_any_more(
    autojump_clock: trio.testing.MockClock,
) -> None:
    webhook = FakeWebhook()
    async with open_world(BEHAVIOUR) as world, world.system(webhook=webhook) as system:
        async with system.attend() as attendance:
            late = await finished(system, origin=CHAT)
            await webhook.wait(1)
            fresh = await finished(system, origin=CHAT)
            assert (await anext(attendance)).job.id == fresh
            await system.acknowledge(fresh)
        assert told_of(webhook) == [late]


async def test_what_a_client_leaves_behind_goes_another_way_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    webhook = FakeWebhook()
    async with open_world(BEHAVIOUR) as world, world.system(webhook=webhook) as system:
        async with system.attend() as older:
            async with system.attend() as newer:
                job = await finished(system, origin=CHAT)
                await anext(newer)
            assert (await anext(older)).job.id == job
            assert webhook.requests == []
        await webhook.wait(1)
        assert told_of(webhook) == [job]


async def test_an_acknowledgement_counts_also_for_who_was_offered_it_by_an_earlier_process(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The process ends while a client passes it on: the client says so to the next one."""
    webhook = FakeWebhook()
    async with open_world(BEHAVIOUR) as world:
        async with world.system(notify=True) as system, system.attend() as attendance:
            job = await finished(system, origin=CHAT)
            await anext(attendance)
            row = world.store.outbox[job]  # as it stands when the process is killed now
        world.store.outbox[job] = evolve(row, due=row.due + 1000)
        async with world.system(webhook=webhook) as system, system.attend() as attendance:
            await system.acknowledge(job)
            await trio.sleep(5000)
        assert webhook.requests == []
        assert states(world) == [DONE]


async def test_without_a_webhook_it_waits_for_somebody_to_attend(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system(notify=True) as system:
        job = await finished(system, origin=CHAT)
        await trio.sleep(1000)
        async with system.attend() as attendance:
            assert (await anext(attendance)).job.id == job
            await system.acknowledge(job)
        assert states(world) == [DONE]


async def test_whoever_attends_hears_when_the_system_ends(autojump_clock: trio.testing.MockClock) -> None:
    async with (
        open_world(BEHAVIOUR) as world,
        world.system(notify=True) as system,
        system.attend() as attendance,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(partial(system.aclose, leave=Leave.NOTHING))
        with pytest.raises(StopAsyncIteration):
            await anext(attendance)


# ---- when something is wrong, and at the end


async def test_a_disk_that_is_full_for_a_while_loses_no_announcement(
    autojump_clock: trio.testing.MockClock,
) -> None:
    webhook = FakeWebhook(seconds=2.0)
    async with open_world(BEHAVIOUR) as world, world.system(webhook=webhook) as system:
        await finished(system)
        await webhook.wait(1)
        world.store.full = True
        await trio.sleep(10)
        world.store.full = False
        await trio.sleep(1000)
        assert states(world) == [DONE]
        # Told again, because it could not be written that it was: under the same key, word for word.
        assert len({request.key for request in webhook.requests}) == 1
        assert webhook.requests[0] == webhook.requests[-1]
        assert system.statistics().supervisor.failures > 0


@define(eq=False)
class BrokenWebhook(FakeWebhook):
    broken: bool = True

    async def post(self, request: HookRequest) -> HookAnswer:
        answer = await super().post(request)
        if self.broken:
            raise RuntimeError("a mistake")
        return answer


async def test_a_bug_in_the_outbox_ends_no_job_and_is_got_over(
    autojump_clock: trio.testing.MockClock,
) -> None:
    webhook = BrokenWebhook()
    async with open_world(BEHAVIOUR) as world, world.system(webhook=webhook) as system:
        first = await finished(system)
        second = await finished(system)
        assert (await system.status(second)).status is JobStatus.COMPLETED
        assert states(world) == [NotificationState.PENDING] * 2
        webhook.broken = False
        await trio.sleep(1000)
        assert states(world) == [DONE] * 2
        assert {first, second} == set(told_of(webhook))


async def test_P17_what_the_end_of_the_service_ends_is_announced_before_it_is_over(
    autojump_clock: trio.testing.MockClock,
) -> None:
    webhook = FakeWebhook(seconds=0.5)
    async with open_world(BEHAVIOUR) as world:
        async with world.system(webhook=webhook) as system:
            job = await system.start("::hang")
            await trio.sleep(10)
        (request,) = webhook.requests
        assert request.key == job.id
        assert "(closed)" in str(request.body["message"])
        assert states(world) == [DONE]


async def test_P17_what_was_taken_before_the_end_is_on_record_though_the_disk_is_slow_and_not_told_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Four answers come at once, near the end of what a flush may take, and each is written after the other."""
    webhook, later = FakeWebhook(seconds=4.0), FakeWebhook()
    settings = evolve(SETTINGS, max_sessions=BATCH)
    async with open_world(BEHAVIOUR) as world:
        async with world.system(settings, webhook=webhook) as system:
            jobs = [await system.start("::say hello\n::pause 5", session=f"s{n}") for n in range(BATCH)]
            for job in jobs:
                await job.wait()
            await webhook.wait(BATCH)
            world.store.slow = 0.9
        assert states(world) == [DONE] * BATCH
        world.store.slow = 0.0
        async with world.system(settings, webhook=later):
            await trio.sleep(1000)
        assert later.requests == []


async def test_a_gateway_that_hangs_does_not_hold_the_end(autojump_clock: trio.testing.MockClock) -> None:
    webhook = FakeWebhook(seconds=1e6)
    async with open_world(BEHAVIOUR) as world:
        async with world.system(webhook=webhook) as system:
            await finished(system)
            await webhook.wait(1)
            before = trio.current_time()
        assert trio.current_time() - before < 60
        assert states(world) == [NotificationState.PENDING]
        assert webhook.in_flight == 0


async def test_P17_an_end_that_the_disk_had_no_room_for_is_announced_when_it_has(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """And who follows is told of it once, who comes later as well."""
    webhook, heard = FakeWebhook(), list[str]()
    async with open_world(BEHAVIOUR) as world, world.system(webhook=webhook) as system:

        async def follow() -> None:
            async for notice in system.follow():
                heard.append(type(notice).__name__)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            job = await system.start("::say begun\n::pause 20\n::say and done", session="demo")
            await trio.sleep(8)
            before = system.position
            world.store.full = True
            ended = await system.wait(job.id)
            assert ended.failure is not None
            assert ended.failure.cause is Cause.STORE
            assert webhook.requests == []
            world.store.full = False
            assert [request.key for request in await webhook.wait(1)] == [job.id]
            await trio.testing.wait_all_tasks_blocked()
            assert heard.count("JobEnded") == 1
            nursery.cancel_scope.cancel()
        kinds = list[str]()
        with trio.move_on_after(5):
            async for notice in system.follow(since=before):
                kinds.append(type(notice).__name__)
        assert kinds.count("JobEnded") == 1
