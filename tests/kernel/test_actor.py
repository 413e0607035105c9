"""The shell's promises, shown with the smallest machine that has everything: it does as it is told."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

import pytest
import trio
import trio.testing
from attrs import define, evolve, field, frozen

from opencode_actors.errors import ActorGone, StoreError
from opencode_actors.kernel.actor import Actor, Post
from opencode_actors.kernel.mailbox import PLACES
from opencode_actors.machines.notices import JobQueued, Notice, Publish, Record, SessionRecorded, Step
from opencode_actors.machines.vocabulary import (
    NOBODY,
    AskId,
    Finish,
    Forget,
    JobId,
    Moment,
    Reply,
    Run,
    SessionKey,
    StartTimer,
    StopTimer,
)

from .schedules import schedules


class Bell(Enum):
    LOUD = "loud"
    LOW = "low"


@frozen
class Do:
    """A message that says itself what follows from it."""

    effects: tuple[Any, ...] = ()
    records: tuple[Record, ...] = ()
    answer: object = None
    ask: AskId = NOBODY
    bug: bool = False


@frozen
class Heard:
    what: object
    ask: AskId = NOBODY


@frozen
class Told:
    what: str


@frozen
class State:
    heard: tuple[tuple[object, float], ...] = ()


Work = Callable[[Post[Any]], Any]


@frozen(eq=False)
class Job:
    """An operation: it does `work`."""

    work: Work


@frozen(eq=False)
class OtherJob:
    work: Work


WALL = 1_760_000_000.0
RECORD = SessionRecorded(session=SessionKey("k"), conversation=None)
NOTICE = Publish(notice=JobQueued(job=JobId("j"), session=SessionKey("k"), ahead=0))


def handle(state: State, message: Do | Heard, moment: Moment) -> Step[State, Any]:
    match message:
        case Heard():
            return Step(state=evolve(state, heard=(*state.heard, (message.what, moment.now))))
        case Do(bug=True):
            raise KeyError("a bug")
        case Do():
            reply = () if message.answer is None else (Reply(ask=message.ask, value=message.answer),)
            return Step(state=state, effects=(*reply, *message.effects), records=message.records)


@define
class Surroundings:
    """Notes what reaches the world, and in which order. Recording takes as long as `disk` says."""

    disk: float = 0.0
    broken: bool = False
    log: list[str] = field(factory=list[str])

    async def perform(self, operation: Job | OtherJob, post: Post[Any]) -> Any:
        self.log.append("begun")
        return await operation.work(post)

    def fired(self, timer: Bell) -> Heard:
        return Heard(timer)

    def deliver(self, effect: Told) -> None:
        self.log.append(effect.what)

    async def record(self, records: tuple[Record, ...], notices: tuple[Notice, ...], at: float) -> None:
        assert records or notices
        assert at == WALL
        self.log.append("recording")
        await trio.sleep(self.disk)
        if self.broken:
            raise StoreError("the disk is full")
        self.log += [type(notice).__name__ for notice in notices]
        self.log.append("recorded")


TestActor = Actor[State, Any, Any]


def new_actor(surroundings: Surroundings | None = None) -> TestActor:
    def clock() -> Moment:
        return Moment(now=trio.current_time(), wall=WALL, roll=0.0)

    return Actor("the actor", State(), handle, surroundings or Surroundings(), clock)


async def _says(post: Post[Any], *, after: float, what: object = "done") -> Heard:
    await trio.sleep(after)
    return Heard(what)


def says(after: float, what: object = "done") -> Work:
    return lambda post: _says(post, after=after, what=what)


def end(actor: TestActor) -> None:
    actor.mailbox.put(Do((Finish(),)))


def heard(actor: TestActor) -> list[object]:
    return [what for what, _ in actor.state.heard]


# ---- stale tickets


@schedules(10)
async def test_an_operation_that_is_forgotten_is_never_heard_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    actor = new_actor()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(actor.run)
        actor.mailbox.put(Do((Run(operation=Job(says(5, "a"))), Run(operation=OtherJob(says(5, "b"))))))
        await trio.sleep(3)
        actor.mailbox.put(Do((Forget(kind=Job),)))
        await trio.sleep(10)
        end(actor)
    assert actor.state.heard == (("b", 5.0),)


@schedules(10)
async def test_not_even_when_its_word_lies_in_the_mailbox_already(
    autojump_clock: trio.testing.MockClock,
) -> None:
    actor = new_actor(surroundings := Surroundings(disk=10.0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(actor.run)
        actor.mailbox.put(Do((Run(operation=Job(says(5))), StartTimer(timer=Bell.LOUD, seconds=5))))
        await trio.sleep(1)
        # Busy with its records until 11; at 5 both have come, and then both are forgotten.
        actor.mailbox.put(Do((Forget(kind=Job), StopTimer(timer=Bell.LOUD)), records=(RECORD,)))
        await trio.sleep(20)
        assert actor.statistics().stale == 2
        end(actor)
    assert actor.state.heard == ()
    assert surroundings.log == ["begun", "recording", "recorded"]


@schedules(10)
async def test_nor_when_another_of_its_kind_has_been_started_meanwhile(
    autojump_clock: trio.testing.MockClock,
) -> None:
    actor = new_actor(Surroundings(disk=10.0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(actor.run)
        first = (Run(operation=Job(says(5, "old"))), StartTimer(timer=Bell.LOUD, seconds=5))
        second = (Run(operation=Job(says(5, "new"))), StartTimer(timer=Bell.LOUD, seconds=6))
        actor.mailbox.put(Do(first))
        await trio.sleep(1)
        actor.mailbox.put(Do(second, records=(RECORD,)))
        await trio.sleep(30)
        assert actor.statistics().stale == 2
        end(actor)
    assert actor.state.heard == (("new", 16.0), (Bell.LOUD, 17.0))


@schedules(10)
async def test_a_timer_that_is_set_anew_rings_once(autojump_clock: trio.testing.MockClock) -> None:
    actor = new_actor()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(actor.run)
        actor.mailbox.put(Do((StartTimer(timer=Bell.LOUD, seconds=5), StartTimer(timer=Bell.LOW, seconds=6))))
        await trio.sleep(4)
        actor.mailbox.put(Do((StartTimer(timer=Bell.LOUD, seconds=5), StopTimer(timer=Bell.LOW))))
        await trio.sleep(20)
        end(actor)
    assert actor.state.heard == ((Bell.LOUD, 9.0),)


@schedules(10)
async def test_what_is_forgotten_at_once_never_begins(autojump_clock: trio.testing.MockClock) -> None:
    actor = new_actor(surroundings := Surroundings())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(actor.run)
        actor.mailbox.put(Do((Run(operation=Job(says(0))), Forget(kind=Job))))
        await trio.sleep(1)
        end(actor)
    assert surroundings.log == []


async def test_it_remembers_only_what_may_still_be_heard(autojump_clock: trio.testing.MockClock) -> None:
    async def nothing(post: Post[Any]) -> None:
        await trio.sleep(1)

    actor = new_actor()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(actor.run)
        operations = (Run(operation=Job(says(1))), Run(operation=OtherJob(nothing)))
        actor.mailbox.put(Do((*operations, StartTimer(timer=Bell.LOW, seconds=2))))
        await trio.sleep(0.5)
        assert actor.statistics().running == ("Job", "OtherJob", "low")
        assert actor.statistics().tasks == 3
        await trio.sleep(1)
        assert actor.statistics().running == ("low",)
        await trio.sleep(1)
        assert actor.statistics().running == ()
        assert actor.statistics().tasks == 0
        end(actor)


# ---- operations that go on


async def test_an_operation_that_says_much_waits_for_its_reader(
    autojump_clock: trio.testing.MockClock,
) -> None:
    said = 0

    async def chatter(post: Post[Any]) -> None:
        nonlocal said
        while said < 5 * PLACES:
            await post(Heard(said))
            said += 1
            await trio.lowlevel.checkpoint()

    actor = new_actor(Surroundings(disk=5.0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(actor.run)
        actor.mailbox.put(Do((Run(operation=Job(chatter)),)))
        actor.mailbox.put(Do(records=(RECORD,)))
        await trio.sleep(4)
        assert said == PLACES
        assert actor.mailbox.statistics().waiting == PLACES
        await trio.sleep(2)  # it reads again
        assert heard(actor) == list(range(5 * PLACES))
        end(actor)


# ---- bugs


@schedules(5)
async def test_a_bug_ends_the_actor_and_all_that_it_started(autojump_clock: trio.testing.MockClock) -> None:
    async def never(post: Post[Any]) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    ended = trio.Event()
    actor = new_actor()
    actor.mailbox.put(Do((Run(operation=Job(never)),)))
    with pytest.RaisesGroup(KeyError, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(actor.run)
            await trio.sleep(1)
            actor.mailbox.put(Do(bug=True))
    assert ended.is_set()
    assert actor.mailbox.closed


# ---- records, state, effects


async def test_records_are_durable_before_the_state_and_the_state_before_the_effects(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Watching(Surroundings):
        def deliver(self, effect: Told) -> None:
            self.log.append(f"{effect.what}, and it is {type(actor.state).__name__}")

    class Other(State):
        pass

    def become_other(state: State, message: object, moment: Moment) -> Step[State, Any]:
        return Step(state=Other(), effects=(Told("told"), NOTICE, Finish()), records=(RECORD,))

    actor = new_actor(surroundings := Watching(disk=2.0))
    actor.handle = become_other
    actor.mailbox.put("go")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(actor.run)
        await trio.sleep(1)
        assert type(actor.state) is State
    assert trio.current_time() == 2.0
    assert surroundings.log == ["recording", "JobQueued", "recorded", "told, and it is Other"]


@pytest.mark.parametrize("what", [Do((Told("told"),), records=(RECORD,)), Do((Told("told"), NOTICE))])
async def test_what_cannot_be_recorded_did_not_happen(what: Do) -> None:
    actor = new_actor(surroundings := Surroundings(broken=True))
    actor.mailbox.put(what)
    with pytest.RaisesGroup(StoreError):
        await actor.run()
    assert surroundings.log == ["recording"]


# ---- asks


async def answer_of(actor: TestActor, **what: Any) -> object:
    return await actor.ask(lambda ask: Do(ask=ask, **what))


@schedules(5)
async def test_every_ask_has_its_own_answer(autojump_clock: trio.testing.MockClock) -> None:
    actor = new_actor()
    answers: dict[int, object] = {}

    async def ask(number: int) -> None:
        answers[number] = await answer_of(actor, answer=number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(actor.run)
        async with trio.open_nursery() as asking:
            for number in range(3 * PLACES):
                asking.start_soon(ask, number)
        end(actor)
    assert answers == {number: number for number in range(3 * PLACES)}
    assert actor.statistics().asks == 0


@schedules(20)
async def test_an_ask_behind_the_end_hears_that_it_has_ended(autojump_clock: trio.testing.MockClock) -> None:
    """Also when it still waits for a place, and at once, though something cleans up for long."""

    async def clean_up(post: Post[Any]) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
                await trio.sleep(7)

    actor = new_actor()
    gone = 0

    async def ask() -> None:
        nonlocal gone
        with pytest.raises(ActorGone, match="the actor has ended"):
            await answer_of(actor, answer="too late")
        gone += 1
        assert trio.current_time() == 1.0

    async with trio.open_nursery() as nursery:
        nursery.start_soon(actor.run)
        actor.mailbox.put(Do((Run(operation=Job(clean_up)),)))
        await trio.sleep(1)
        end(actor)
        for _ in range(2 * PLACES):
            nursery.start_soon(ask)
    assert gone == 2 * PLACES
    assert trio.current_time() == 8.0
    with pytest.raises(ActorGone):
        await answer_of(actor, answer="much too late")


@schedules(5)
async def test_an_ask_hears_of_a_bug_too(autojump_clock: trio.testing.MockClock) -> None:
    actor = new_actor()
    with pytest.RaisesGroup(KeyError, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(actor.run)
            with pytest.raises(ActorGone), trio.CancelScope(shield=True, relative_deadline=9):
                await answer_of(actor, bug=True)
    assert trio.current_time() == 0.0


async def test_an_asker_that_gives_up_leaves_nothing_behind(autojump_clock: trio.testing.MockClock) -> None:
    actor = new_actor()
    for number in range(PLACES):
        actor.mailbox.send_nowait(Heard(number))
    with trio.move_on_after(1):
        await answer_of(actor, answer="nobody reads")
    assert actor.statistics().asks == 0
    end(actor)
    await actor.run()
    assert heard(actor) == list(range(PLACES))


async def test_it_tells_its_state() -> None:
    actor = new_actor()
    assert repr(actor) == "<Actor the actor State>"
    end(actor)
    await actor.run()
    assert actor.statistics().decisions == 1
