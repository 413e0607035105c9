"""The hub: what a follower gets, and what becomes of one that is slow."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable

import pytest
import trio
import trio.testing
from attrs import define, evolve, field

from opencode_actors.errors import TooSlow
from opencode_actors.kernel.hub import BACKLOG, HEAVIEST, Allowance, Following, Hub, NoticesMissed
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
from opencode_actors.store.port import Page

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


def publish(hub: Hub, notice: Notice) -> None:
    """As the journal does: with the next number."""
    hub.publish(evolve(notice, seq=hub.position + 1))


def plain(notice: Notice | NoticesMissed) -> Notice | NoticesMissed:
    return notice if isinstance(notice, NoticesMissed) else evolve(notice, seq=0)


def changed(session: SessionKey) -> SessionChanged:
    return SessionChanged(session=session, status=SessionStatus.READY)


async def read(following: Following) -> list[Notice | NoticesMissed]:
    """All that waits, and no waiting for more."""
    notices: list[Notice | NoticesMissed] = []
    while following.statistics().waiting or following.statistics().missed:
        notices.append(plain(await anext(following)))
    return notices


async def read_all(following: Following) -> list[Notice | NoticesMissed]:
    """Until it ends."""
    return [plain(notice) async for notice in following]


@define
class Recorded:
    """A journal that has everything, but for what was `cut` off, and gives it in small pages. `while_read`
    is called in the middle of each reading."""

    everything: list[Notice] = field(factory=list[Notice])
    page: int = 3
    cut: int = 0
    while_read: Callable[[], None] = lambda: None

    def publish(self, hub: Hub, notice: Notice) -> None:
        stamped = evolve(notice, seq=hub.position + 1)
        self.everything.append(stamped)
        hub.publish(stamped)

    async def read(self, after: int, upto: int) -> Page:
        await trio.lowlevel.checkpoint()
        self.while_read()
        await trio.lowlevel.checkpoint()
        missed = max(0, self.cut - after)
        found = self.everything[after + missed : upto][: self.page]
        reached = upto if len(found) < self.page else found[-1].seq
        return Page(notices=tuple(found), reached=reached, missed=missed)


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
        publish(hub, notice)
    assert await read_all(following) == mine


async def test_a_follower_of_all_gets_all_until_the_hub_closes() -> None:
    hub = Hub()
    following = hub.follow()
    all_of_it: list[Notice] = [queued(), ended(), changed(ELSEWHERE), queued(OTHER)]
    for notice in all_of_it:
        publish(hub, notice)
    hub.close()
    publish(hub, ended(OTHER))
    assert await read_all(following) == all_of_it


async def test_who_comes_late_gets_what_is_remembered() -> None:
    hub = Hub()
    nothing = Recorded().read
    publish(hub, queued())
    publish(hub, output("hello"))
    following = hub.follow(JOB, SESSION, since=(0, nothing))
    publish(hub, ended())
    assert await read_all(following) == [queued(), output("hello"), ended()]
    again = hub.follow(JOB, SESSION, since=(0, nothing))
    assert again.over
    assert await read_all(again) == [queued(), output("hello"), ended()]
    assert await read_all(hub.follow(JOB, SESSION, since=(2, nothing))) == [ended()]


@pytest.mark.parametrize("since", [0, 1, 7, BACKLOG + 9, BACKLOG + 500])
async def test_who_comes_very_late_gets_what_is_recorded_and_then_what_is_new(since: int) -> None:
    hub, recorded = Hub(), Recorded()
    for number in range(2 * BACKLOG):
        recorded.publish(hub, tool(str(number)))
    following = hub.follow(since=(since, recorded.read))
    numbers = [(await told(following)).seq for _ in range(2 * BACKLOG - since)]
    for _ in range(3):
        recorded.publish(hub, queued())
        numbers.append((await told(following)).seq)
    assert numbers == list(range(since + 1, 2 * BACKLOG + 4))


async def told(following: Following) -> Notice:
    notice = await anext(following)
    assert not isinstance(notice, NoticesMissed)
    return notice


async def test_what_is_told_while_the_journal_is_read_is_told_once() -> None:
    hub = Hub()

    def more() -> None:
        if len(recorded.everything) < 3 * BACKLOG:
            recorded.publish(hub, tool("more"))

    recorded = Recorded(while_read=more)
    for number in range(BACKLOG + 20):
        recorded.publish(hub, tool(str(number)))
    following = hub.follow(since=(0, recorded.read))
    numbers: list[int] = []
    while not numbers or numbers[-1] < hub.position:
        numbers.append((await told(following)).seq)
    assert numbers == list(range(1, hub.position + 1))
    assert len(numbers) > BACKLOG + 20


async def test_what_is_not_kept_any_more_is_said() -> None:
    hub, recorded = Hub(), Recorded(cut=100)
    for number in range(2 * BACKLOG):
        recorded.publish(hub, tool(str(number)))
    following = hub.follow(since=(10, recorded.read))
    assert await anext(following) == NoticesMissed(count=90)
    assert (await told(following)).seq == 101


@schedules(10)
async def test_a_cancelled_reading_of_the_journal_loses_nothing(schedule: int) -> None:
    chance = random.Random(schedule)
    scopes = [trio.CancelScope()]

    def perhaps() -> None:
        if chance.random() < 0.5:
            scopes[-1].cancel()

    hub, recorded = Hub(), Recorded(while_read=perhaps)
    for number in range(BACKLOG + 50):
        recorded.publish(hub, tool(str(number)))
    following = hub.follow(since=(0, recorded.read))
    numbers: list[int] = []
    while len(numbers) < BACKLOG + 50:
        scopes.append(trio.CancelScope())
        with scopes[-1]:
            numbers.append((await told(following)).seq)
    assert numbers == list(range(1, BACKLOG + 51))


async def test_a_system_that_ends_ends_the_reading_too() -> None:
    hub, recorded = Hub(), Recorded()
    for number in range(2 * BACKLOG):
        recorded.publish(hub, tool(str(number)))
    following = hub.follow(since=(0, recorded.read))
    await anext(following)
    hub.close()
    assert len(await read_all(following)) == recorded.page - 1


async def test_what_could_not_be_recorded_is_told_and_moves_no_number() -> None:
    hub = Hub()
    following = hub.follow(JOB, SESSION)
    hub.publish(ended())
    assert await read_all(following) == [ended()]
    assert (hub.position, hub.statistics().remembered) == (0, 0)


async def test_a_session_is_followed_with_all_its_jobs() -> None:
    hub = Hub()
    following = hub.follow(session=SESSION)
    for notice in (queued(), changed(ELSEWHERE), changed(SESSION), ended(), queued(OTHER)):
        publish(hub, notice)
    assert await read(following) == [queued(), changed(SESSION), ended(), queued(OTHER)]


async def test_following_what_is_closed_ends_at_once(autojump_clock: trio.testing.MockClock) -> None:
    hub = Hub()
    hub.close()
    with trio.fail_after(1):
        assert await read_all(hub.follow()) == []


@schedules(10)
async def test_a_cancelled_wait_loses_nothing(autojump_clock: trio.testing.MockClock, schedule: int) -> None:
    """P19, in small: a reader with a time limit reads the same as one without."""
    chance = random.Random(schedule)
    hub = Hub()
    following = hub.follow(JOB, SESSION)
    sent = [tool(str(number)) for number in range(200)]
    got: list[object] = []

    async def publish_all() -> None:
        for notice in sent:
            publish(hub, notice)
            await trio.sleep(chance.choice((0, 0, 0.01)))
        publish(hub, ended())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(publish_all)
        over = False
        while not over:
            try:
                with trio.move_on_after(chance.choice((0, 0, 0.005))):
                    got.append(plain(await anext(following)))
            except StopAsyncIteration:
                over = True
    assert got == [*sent, ended()]


async def test_whoever_reads_a_long_backlog_lets_the_others_run() -> None:
    hub = Hub()
    following = hub.follow()
    for _ in range(2):
        publish(hub, queued())
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
        publish(hub, notice)
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
    publish(hub, queued())
    for number in range(2 * BACKLOG):
        publish(hub, tool(str(number)))
    publish(hub, ended())
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
        publish(hub, output(megabyte))
        publish(hub, tool(str(number)))
    held = [notice for notice in await read(following) if isinstance(notice, OutputAdded)]
    assert 0 < sum(len(notice.text) for notice in held) <= HEAVIEST
    assert hub.statistics().remembered < 20


async def test_one_heavy_notice_gets_through() -> None:
    hub = Hub()
    following = hub.follow()
    everything = output("x" * (2 * HEAVIEST))
    publish(hub, everything)
    assert await read(following) == [everything]


async def test_a_follower_without_room_for_what_counts_is_cut_off_and_told_so() -> None:
    """Others are not: they get all of it."""
    hub = Hub()
    stuck, good = hub.follow(), hub.follow()
    sent: list[Notice] = [queued(JobId(str(number))) for number in range(BACKLOG + 5)]
    got: list[object] = []
    for notice in sent:
        publish(hub, notice)
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
        publish(hub, ended(JobId(str(number)), prompt="x" * (4 << 20)))
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


# ---- many followings of one reader


def many(hub: Hub, count: int, allowance: Allowance) -> list[Following]:
    return [hub.follow(allowance=allowance) for _ in range(count)]


async def test_a_thousand_followings_of_one_reader_keep_no_more_than_one() -> None:
    hub, allowance = Hub(), Allowance()
    unread = many(hub, 1000, allowance)
    for number in range(600):
        publish(hub, output("x" * 30_000, offset=30_000 * number))
        assert allowance.held <= HEAVIEST
    kept = {id(n): len(n.text) for f in unread for n in f._waiting if isinstance(n, OutputAdded)}
    assert sum(kept.values()) <= HEAVIEST
    alone = hub.follow(allowance=Allowance())
    publish(hub, output("y"))
    assert await read(alone) == [output("y")]
    for following in unread:
        following.leave()
    assert allowance.held == 0


async def test_one_that_cannot_keep_an_end_for_its_reader_is_cut_off_and_others_are_not() -> None:
    hub, allowance = Hub(), Allowance()
    full, slow = hub.follow(JOB, allowance=allowance), hub.follow(OTHER, allowance=allowance)
    quick = hub.follow(OTHER)
    publish(hub, ended(prompt="x" * (HEAVIEST - 1000)))
    publish(hub, ended(OTHER, prompt="x" * 2000))
    assert len(await read(quick)) == 1
    assert len(await read(full)) == 1
    with pytest.raises(TooSlow):
        await anext(slow)


async def test_what_many_keep_of_one_notice_counts_once() -> None:
    hub, allowance = Hub(), Allowance()
    followings = many(hub, 50, allowance)
    large = ended(prompt="x" * (HEAVIEST // 2))
    publish(hub, large)
    for following in followings:
        assert await read(following) == [large]
    assert allowance.held > 0  # given out, and still somebody's
    publish(hub, tool("next"))
    for following in followings:
        assert await read(following) == [tool("next")]
    assert allowance.held < 1000


async def test_pages_for_many_followings_are_read_as_far_as_there_is_room() -> None:
    size, pages = 1 << 20, 0

    async def history(after: int, upto: int) -> Page:
        nonlocal pages
        await trio.lowlevel.checkpoint()
        pages += 1
        page = [evolve(output("x" * size), seq=seq) for seq in range(after + 1, min(after + 2, upto) + 1)]
        return Page(notices=tuple(page), reached=min(after + 2, upto))

    hub, allowance = Hub(), Allowance()
    hub.begin(4)
    followings = [hub.follow(since=(0, history), allowance=allowance) for _ in range(100)]
    read_so_far: dict[int, list[int]] = {number: [] for number in range(100)}
    may_read_on = trio.Event()

    async def follow(number: int) -> None:
        async for notice in followings[number]:
            assert allowance.held <= HEAVIEST
            assert not isinstance(notice, NoticesMissed)
            read_so_far[number].append(notice.seq)
            await may_read_on.wait()
            if notice.seq == 4:
                followings[number].leave()
                return

    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(follow, number)
        await trio.testing.wait_all_tasks_blocked()
        assert pages <= HEAVIEST // 2 // (2 * size) + 1
        may_read_on.set()
    assert all(seqs == [1, 2, 3, 4] for seqs in read_so_far.values())


async def test_what_was_told_before_it_could_be_recorded_is_told_to_others_alone_when_it_is() -> None:
    hub = Hub()
    there = hub.follow()
    hub.publish(ended())
    later = hub.follow()
    publish(hub, ended())
    publish(hub, queued(OTHER))
    assert await read(there) == [ended(), queued(OTHER)]
    assert await read(later) == [ended(), queued(OTHER)]
