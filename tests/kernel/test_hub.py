"""The hub: what a follower gets, and what becomes of one that is slow."""

from __future__ import annotations

import gc
import random

import pytest
import trio
import trio.testing

from opencode_actors.errors import TooSlow
from opencode_actors.kernel.hub import BACKLOG, HEAVIEST, Following, Hub, NoticesMissed
from opencode_actors.machines.notices import (
    JobEnded,
    JobQueued,
    Notice,
    OutputAdded,
    OutputKind,
    SessionChanged,
    ToolStarted,
)
from opencode_actors.machines.vocabulary import (
    ActivityState,
    JobId,
    JobSnapshot,
    JobStatus,
    SessionKey,
    SessionStatus,
)

from .schedules import schedules

JOB, OTHER = JobId("job_1"), JobId("job_2")
SESSION, ELSEWHERE = SessionKey("demo"), SessionKey("elsewhere")


def queued(job: JobId = JOB) -> JobQueued:
    return JobQueued(job=job, session=SESSION, ahead=0)


def output(text: str, job: JobId = JOB, kind: OutputKind = OutputKind.TEXT, offset: int = 0) -> OutputAdded:
    return OutputAdded(job=job, session=SESSION, kind=kind, offset=offset, text=text)


def tool(title: str, job: JobId = JOB) -> ToolStarted:
    return ToolStarted(job=job, session=SESSION, tool="bash", title=title)


def ended(job: JobId = JOB, prompt: str = "") -> JobEnded:
    snapshot = JobSnapshot(
        id=job, session=SESSION, prompt=prompt, status=JobStatus.COMPLETED, activity=ActivityState.IDLE
    )
    return JobEnded(job=job, session=SESSION, snapshot=snapshot)


def changed(session: SessionKey) -> SessionChanged:
    return SessionChanged(session=session, status=SessionStatus.READY)


async def read(following: Following) -> list[Notice | NoticesMissed]:
    """All that waits, and no waiting for more."""
    notices: list[Notice | NoticesMissed] = []
    while following.statistics().waiting or following.statistics().missed:
        notices.append(await anext(following))
    return notices


# ---- what it gets


async def test_a_follower_of_a_job_gets_what_is_of_the_job_and_its_session_to_the_end() -> None:
    hub = Hub()
    following = hub.follow(JOB, SESSION)
    mine: list[Notice] = [queued(), changed(SESSION), tool("ls"), ended()]
    for notice in (
        queued(OTHER),
        *mine[:2],
        changed(ELSEWHERE),
        mine[2],
        ended(OTHER),
        mine[3],
        tool("late"),
    ):
        hub.publish(notice)
    assert [notice async for notice in following] == mine


async def test_a_follower_of_all_gets_all_until_the_hub_closes() -> None:
    hub = Hub()
    following = hub.follow()
    all_of_it: list[Notice] = [queued(), ended(), changed(ELSEWHERE), queued(OTHER)]
    for notice in all_of_it:
        hub.publish(notice)
    hub.close()
    hub.publish(ended(OTHER))
    assert [notice async for notice in following] == all_of_it


async def test_who_comes_late_gets_what_is_remembered() -> None:
    hub = Hub()
    since = hub.position
    hub.publish(queued())
    hub.publish(output("hello"))
    following = hub.follow(JOB, SESSION, since=since)
    hub.publish(ended())
    assert [notice async for notice in following] == [queued(), output("hello"), ended()]
    again = hub.follow(JOB, SESSION, since=since)
    assert again.over
    assert [notice async for notice in again] == [queued(), output("hello"), ended()]


async def test_who_comes_too_late_is_told_so() -> None:
    hub = Hub()
    hub.publish(queued())
    for number in range(BACKLOG + 9):
        hub.publish(tool(str(number), OTHER))
    following = hub.follow(JOB, SESSION, since=0)
    hub.publish(ended())
    assert [notice async for notice in following] == [NoticesMissed(count=10), ended()]


async def test_following_what_is_closed_ends_at_once(autojump_clock: trio.testing.MockClock) -> None:
    hub = Hub()
    hub.close()
    with trio.fail_after(1):
        assert [notice async for notice in hub.follow()] == []


@schedules(10)
async def test_a_cancelled_wait_loses_nothing(autojump_clock: trio.testing.MockClock, schedule: int) -> None:
    """P19, in small: a reader with a time limit reads the same as one without."""
    chance = random.Random(schedule)
    hub = Hub()
    following = hub.follow(JOB, SESSION)
    sent = [tool(str(number)) for number in range(200)]
    got: list[object] = []

    async def publish() -> None:
        for notice in sent:
            hub.publish(notice)
            await trio.sleep(chance.choice((0, 0, 0.01)))
        hub.publish(ended())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(publish)
        over = False
        while not over:
            try:
                with trio.move_on_after(chance.choice((0, 0, 0.005))):
                    got.append(await anext(following))
            except StopAsyncIteration:
                over = True
    assert got == [*sent, ended()]


async def test_whoever_reads_a_long_backlog_lets_the_others_run() -> None:
    hub = Hub()
    following = hub.follow()
    following.miss(1)
    hub.publish(queued())
    for _ in range(2):
        with trio.testing.assert_checkpoints():
            await anext(following)


# ---- when it is slow


async def test_output_that_waits_is_joined_but_never_across_what_lies_between() -> None:
    hub = Hub()
    following = hub.follow(JOB, SESSION)
    for notice in (
        output("a", offset=0),
        output("b", offset=1),
        output("!", kind=OutputKind.TOOL, offset=2),
        output("c", offset=3),
        tool("ls"),
        output("d", offset=4),
    ):
        hub.publish(notice)
    assert await read(following) == [
        output("ab", offset=0),
        output("!", kind=OutputKind.TOOL, offset=2),
        output("c", offset=3),
        tool("ls"),
        output("d", offset=4),
    ]


async def test_the_oldest_progress_goes_and_what_counts_never() -> None:
    hub = Hub()
    following = hub.follow()
    hub.publish(queued())
    for number in range(2 * BACKLOG):
        hub.publish(tool(str(number)))
    hub.publish(ended())
    notices = await read(following)
    assert notices[0] == NoticesMissed(count=BACKLOG + 2)
    assert notices[1] == queued()
    assert notices[2:-1] == [tool(str(number)) for number in range(BACKLOG + 2, 2 * BACKLOG)]
    assert notices[-1] == ended()


async def test_heavy_output_does_not_heap_up() -> None:
    hub = Hub()
    following = hub.follow()
    megabyte = "x" * (1 << 20)
    for number in range(100):
        hub.publish(output(megabyte))
        hub.publish(tool(str(number)))
    held = [notice for notice in await read(following) if isinstance(notice, OutputAdded)]
    assert 0 < sum(len(notice.text) for notice in held) <= HEAVIEST
    assert hub.statistics().remembered < 20
    late = await read(hub.follow(JOB, SESSION, since=0))
    assert isinstance(late[0], NoticesMissed)


async def test_one_heavy_notice_gets_through() -> None:
    hub = Hub()
    following = hub.follow()
    everything = output("x" * (2 * HEAVIEST))
    hub.publish(everything)
    assert await read(following) == [everything]


async def test_a_follower_without_room_for_what_counts_is_cut_off_and_told_so() -> None:
    """Others are not: they get all of it."""
    hub = Hub()
    stuck, good = hub.follow(), hub.follow()
    sent: list[Notice] = [queued(JobId(str(number))) for number in range(BACKLOG + 5)]
    got: list[object] = []
    for notice in sent:
        hub.publish(notice)
        got += await read(good)
    assert got == sent
    assert stuck.over
    assert await read(stuck) == sent[:BACKLOG]
    with pytest.raises(TooSlow):
        await anext(stuck)


def test_prompts_of_ended_jobs_count_as_what_they_hold() -> None:
    hub = Hub()
    hub.follow()
    for number in range(10):
        hub.publish(ended(JobId(str(number)), prompt="x" * (4 << 20)))
    assert hub.statistics().remembered <= 2


def test_a_follower_that_nobody_holds_is_forgotten() -> None:
    hub = Hub()
    following = hub.follow()
    assert hub.statistics().followers == 1
    assert repr(following) == "<Following everything, open, 0 waiting>"
    del following
    gc.collect()
    assert hub.statistics().followers == 0
    assert repr(hub) == "<Hub 0 notices, 0 followers>"
