"""Who is told that a job has settled, and what an answer means (P16, P17)."""

from __future__ import annotations

from typing import get_args

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from opencode_actors.machines import outbox
from opencode_actors.machines import outbox_messages as m
from opencode_actors.machines.notices import Step
from opencode_actors.machines.outbox import (
    BATCH,
    HOLDS,
    JITTER,
    LONGEST_DELAY,
    LONGEST_RETRY_AFTER,
    LOOK_AT,
    Held,
    Meaning,
    OutboxState,
    meaning,
)
from opencode_actors.machines.outbox_messages import AttendantId, Notification
from opencode_actors.machines.vocabulary import AskId, JobId, Moment, NotificationState
from opencode_actors.ports import HookAnswer
from opencode_actors.testing.playbook import EPOCH

from .outbox_world import POLICY, SESSION, World

DONE, PENDING = NotificationState.DONE, NotificationState.PENDING
CLAIMED, REFUSED = NotificationState.CLAIMED, NotificationState.REFUSED


def state_of(world: World, job: str) -> NotificationState:
    return world.rows[JobId(job)].state


# ---- the webhook


def test_P17_the_end_of_a_job_is_sent_once() -> None:
    world = World()
    world.settle("one")
    world.settle_down(200)
    world.advance(100_000.0)
    world.settle_down(200)
    assert world.sent == ["one"]
    assert state_of(world, "one") is DONE


def test_a_thousand_jobs_go_out_a_few_at_a_time_and_each_once() -> None:
    world = World()
    for number in range(1000):
        world.settle(f"job-{number}")
    world.settle_down(200)
    assert len(world.sent) == len(set(world.sent)) == 1000


@pytest.mark.parametrize("status", [200, 202, 204])
def test_P16_a_2xx_is_acceptance(status: int) -> None:
    assert meaning(HookAnswer(status=status)) is Meaning.ACCEPTED


@pytest.mark.parametrize("status", [301, 307, 400, 401, 403, 404, 405, 413, 422, 451])
def test_P16_a_refusal_for_good_is_told_once_with_what_to_set(status: int) -> None:
    world = World()
    world.settle("one")
    world.land()
    world.answer(status)
    world.over()
    world.settle_down()
    world.advance(1e6)
    world.settle_down()
    assert world.sent == ["one"]
    assert state_of(world, "one") is REFUSED
    (told,) = world.failed
    assert (told.about, told.reason) == ("one", f"HTTP {status}")
    assert told.hint


@pytest.mark.parametrize("status", [None, 100, 408, 409, 425, 429, 500, 502, 503, 504, 599])
def test_what_may_be_right_later_is_tried_again(status: int | None) -> None:
    world = World()
    world.settle("one")
    world.settle_down(status)
    assert state_of(world, "one") is PENDING
    world.advance(2 * (1 + JITTER))
    world.settle_down(200)
    assert world.sent == ["one", "one"]
    assert state_of(world, "one") is DONE


def test_one_that_the_gateway_stumbles_over_holds_up_no_other() -> None:
    world = World()
    world.settle("bad")
    world.settle_down(500)
    world.settle("good")
    world.settle_down(200)
    assert world.sent == ["bad", "good"]


def test_a_gateway_that_is_away_is_tried_with_one_and_then_all_go() -> None:
    world = World()
    for number in range(20):
        world.settle(f"job-{number}")
    world.settle_down(None)
    first = len(world.sent)
    assert first == BATCH
    assert world.timer is not None
    assert world.timer - world.now <= 1 + JITTER  # that they fail together is one failure
    for _ in range(5):
        world.advance(LONGEST_DELAY * 2)
        world.settle_down(None)
    assert len(world.sent) == first + 5
    world.advance(LONGEST_DELAY * 2)
    world.settle_down(200)
    world.advance(LONGEST_DELAY * 2)
    world.settle_down(200)
    assert all(row.state is DONE for row in world.rows.values())


def test_the_tries_grow_apart_up_to_a_cap() -> None:
    world = World(roll=0.0)
    world.settle("one")
    waits: list[float] = []
    for _ in range(12):
        world.settle_down(None)
        assert world.timer is not None
        waits.append(world.timer - world.now)
        world.advance(waits[-1])
    assert waits == pytest.approx([1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300])


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(("asked", "waited"), [(120.0, 120.0), (1e9, LONGEST_RETRY_AFTER), (0.0, 1.0)])
def test_P16_what_a_busy_gateway_asks_for_is_waited_and_not_for_ever(
    status: int, asked: float, waited: float
) -> None:
    world = World(roll=0.0)
    world.settle("one")
    world.land()
    world.answer(status, retry_after=asked)
    world.over()
    world.settle("two")
    world.settle_down()
    assert world.sent == ["one"]
    world.advance(waited - 0.1)
    world.settle_down()
    assert world.sent == ["one"]
    world.advance(0.2)
    world.settle_down()
    assert sorted(world.sent) == ["one", "one", "two"]


def test_P17_one_that_cannot_be_delivered_for_a_day_is_given_up_and_told() -> None:
    world = World()
    world.settle("one")
    for _ in range(1000):
        world.settle_down(None)
        if not world.rows[JobId("one")].open:
            break
        assert world.timer is not None
        world.advance(world.timer - world.now)
    assert POLICY.give_up_after - 2 * LONGEST_DELAY < world.now < POLICY.give_up_after
    (told,) = world.failed
    assert "within 86400 s; at last: HTTP None" in told.reason


def test_one_that_nobody_could_be_told_of_for_a_day_is_given_up_when_it_is_found() -> None:
    world = World(webhook=False)
    world.settle("one", aimed=True)
    world.advance(POLICY.give_up_after + 1)
    world.attend(1)
    world.settle_down()
    assert state_of(world, "one") is NotificationState.EXPIRED
    assert len(world.failed) == 1


# ---- those who attend


def test_what_a_chat_asked_for_is_offered_to_who_attends_and_not_sent() -> None:
    world = World()
    world.attend(1)
    world.settle_down()
    world.settle("asked", aimed=True)
    world.settle("unasked")
    world.settle_down()
    assert world.sent == ["unasked"]
    assert world.offered.keys() == {"asked"}
    assert state_of(world, "asked") is CLAIMED
    world.acknowledge(JobId("asked"))
    world.advance(1e5)
    world.settle_down()
    assert world.sent == ["unasked"]
    assert state_of(world, "asked") is DONE


def test_what_is_not_acknowledged_in_time_is_sent() -> None:
    world = World()
    world.attend(1)
    world.settle("one", aimed=True)
    world.settle_down()
    world.advance(POLICY.claim - 0.1)
    world.settle_down()
    assert world.sent == []
    world.advance(0.2)
    world.settle_down()
    assert world.sent == ["one"]


def test_what_one_lets_fall_the_next_is_offered_and_then_it_is_sent() -> None:
    world = World()
    first, second = world.attend(1), world.attend(2)
    world.settle("one", aimed=True)
    world.settle_down()
    assert world.offered[JobId("one")][0] == second
    world.leave(second)
    world.settle_down()
    assert world.offered[JobId("one")][0] == first
    world.leave(first)
    world.settle_down()
    assert world.sent == ["one"]


def test_two_who_do_not_answer_are_asked_one_after_the_other() -> None:
    world = World()
    first, second = world.attend(1), world.attend(2)
    world.settle("one", aimed=True)
    world.settle_down()
    assert world.offered[JobId("one")][0] == second
    world.advance(POLICY.claim + 0.1)
    world.settle_down()
    assert world.offered[JobId("one")][0] == first
    world.advance(POLICY.claim + 0.1)
    world.settle_down()
    assert world.sent == ["one"]


def test_a_late_word_still_keeps_it_from_being_tried_again() -> None:
    world = World()
    world.attend(1)
    world.settle("one", aimed=True)
    world.settle_down()
    world.advance(POLICY.claim + 0.1)
    world.land()
    world.acknowledge(JobId("one"))
    world.settle_down(None)
    world.advance(1e5)
    world.settle_down()
    assert world.sent == ["one"]
    assert state_of(world, "one") is DONE


def test_what_was_acknowledged_while_the_rows_were_read_is_not_told_again() -> None:
    world = World()
    world.attend(1)
    world.settle("one", aimed=True)
    world.settle_down()
    world.advance(POLICY.claim + 0.1)
    world.read()
    world.acknowledge(JobId("one"))
    world.settle_down()
    assert world.sent == []


def test_what_was_taken_while_the_rows_were_read_is_not_offered() -> None:
    world = World()
    world.settle("one", aimed=True)
    world.land()
    world.attend(1)
    world.read()
    world.answer(200)
    world.settle_down()
    assert world.offered == {}
    assert state_of(world, "one") is DONE


def test_who_takes_no_more_is_not_given_more() -> None:
    world = World()
    world.attend(1)
    for number in range(HOLDS + 3):
        world.settle(f"job-{number}", aimed=True)
    world.settle_down()
    assert len(world.offered) == HOLDS
    assert len(world.sent) == 3


def test_without_a_webhook_it_is_offered_until_somebody_takes_it() -> None:
    world = World(webhook=False)
    world.settle("one", aimed=True)
    world.settle("unasked")
    world.settle_down()
    assert world.looks == 0
    first = world.attend(1)
    for _ in range(3):
        world.settle_down()
        world.advance(POLICY.claim + 0.1)
    world.leave(first)
    world.attend(2)
    for _ in range(3):
        world.settle_down()
        if JobId("one") in world.offered:
            break
        world.advance(LONGEST_DELAY * 2)
    world.acknowledge(JobId("one"))
    assert state_of(world, "one") is DONE
    assert state_of(world, "unasked") is PENDING


def test_while_the_gateway_is_away_those_who_attend_are_told_all_the_same() -> None:
    world = World()
    world.settle("unasked")
    world.settle_down(None)
    world.attend(1)
    for number in range(LOOK_AT):
        world.settle(f"unasked-{number}")
    world.settle("asked", aimed=True)
    world.settle_down(None)
    assert world.offered.keys() == {"asked"}


def test_while_the_gateway_takes_its_time_those_who_attend_are_told_all_the_same() -> None:
    world = World()
    for number in range(2 * LOOK_AT):
        world.settle(f"unasked-{number}")
    world.land()
    world.attend(1)
    world.settle("asked", aimed=True)
    while world.look is not None:
        world.land()
    assert world.batch
    assert world.offered.keys() == {"asked"}


def test_a_flush_waits_for_who_was_offered_something() -> None:
    world = World()
    world.attend(1)
    world.settle("one", aimed=True)
    world.settle_down()
    world.tell(m.FlushOutbox(ask=AskId(7)))
    world.settle_down()
    assert world.replies == []
    world.acknowledge(JobId("one"))
    assert world.replies == [1, 7]


def test_a_flush_is_answered_when_nothing_more_can_be_done_now() -> None:
    world = World()
    world.settle("one")
    world.tell(m.FlushOutbox(ask=AskId(7)))
    assert world.replies == []
    world.land()
    world.answer(None)
    assert world.replies == []
    world.over()
    world.settle_down()
    assert world.replies == [7]
    nowhere = World(webhook=False)
    nowhere.tell(m.FlushOutbox(ask=AskId(8)))
    assert nowhere.replies == [8]


def test_an_end_hangs_up_begins_nothing_and_is_answered_when_what_was_taken_is_on_record() -> None:
    world = World()
    taken, cut = world.settle("taken"), world.settle("cut")
    world.land()
    world.answer(200, job=taken)
    world.tell(m.EndOutbox(ask=AskId(7)))
    assert (world.replies, world.batch) == ([], [])
    world.over()
    world.advance(1000)
    assert world.replies == [7]
    assert world.sent == [taken, cut]
    assert [world.rows[job].state for job in (taken, cut)] == [
        NotificationState.DONE,
        NotificationState.PENDING,
    ]


def test_an_end_waits_neither_for_who_was_offered_something_nor_for_rows_that_are_read() -> None:
    world = World()
    world.attend(1)
    world.settle("one", aimed=True)
    world.settle_down()
    world.settle("two")
    assert world.look is not None
    world.tell(m.EndOutbox(ask=AskId(7)))
    assert world.replies == [7]
    assert world.sent == []


# ---- every message, whatever happened before

ONE = Notification(job=JobId("one"), session=SESSION, aimed=True, since=EPOCH)
MESSAGES: tuple[m.OutboxMessage, ...] = (
    m.NotificationQueued(),
    m.AttendantCame(attendant=AttendantId(2)),
    m.AttendantLeft(attendant=AttendantId(1)),
    m.AcknowledgeNotification(ask=AskId(1), job=ONE.job),
    m.FlushOutbox(ask=AskId(2)),
    m.EndOutbox(ask=AskId(3)),
    m.NotificationsFound(found=(ONE,), next_due=EPOCH + 5),
    m.NotificationsFound(found=(), next_due=None),
    *(
        m.NotificationAnswered(job=ONE.job, answer=HookAnswer(status=status, said="said"))
        for status in (None, 200, 400, 500)
    ),
    m.SendingOver(),
    m.OutboxTimerFired(timer=m.OutboxTimer.LOOK),
)


def test_every_message_has_a_sample() -> None:
    assert {type(message) for message in MESSAGES} == set(get_args(m.OutboxMessage))


def test_every_message_is_decided_in_every_state() -> None:
    held = Held(notification=ONE, attendant=AttendantId(1))
    for webhook in (True, False):
        idle = OutboxState(policy=POLICY, webhook=webhook)
        states = [
            idle,
            evolve(idle, attendants=(AttendantId(1),), held=(held,)),
            evolve(idle, looking=True, touched=frozenset({ONE.job}), again=True),
            evolve(idle, busy=True, sending=(ONE,)),
            evolve(idle, ending=True, busy=True, sending=(ONE,), flushing=(AskId(9),)),
            evolve(idle, failures=3, opens_at=100.0, flushing=(AskId(9),)),
            evolve(idle, looking=True, busy=True, sending=(ONE,), attendants=(AttendantId(1),)),
        ]
        for state in states:
            for message in MESSAGES:
                step = outbox.handle(state, message, Moment(now=50.0, wall=EPOCH + 50.0, roll=0.5))
                assert step.__class__ is Step


@given(failures=st.integers(1, 10**6), roll=st.floats(0.0, 1.0, exclude_max=True))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_a_delay_is_bounded_from_both_sides(failures: int, roll: float) -> None:
    assert 1.0 <= outbox.delay(failures, roll) <= LONGEST_DELAY * (1 + JITTER)


@given(status=st.none() | st.integers(-5, 1000))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_every_status_means_something_and_only_a_2xx_is_acceptance(status: int | None) -> None:
    accepted = meaning(HookAnswer(status=status)) is Meaning.ACCEPTED
    assert accepted == (status is not None and 200 <= status < 300)


# ---- whatever happens in whatever order


class Outboxes(RuleBasedStateMachine):
    world: World
    serial: int = 0

    @initialize(webhook=st.booleans(), roll=st.floats(0.0, 0.99))
    def begin(self, webhook: bool, roll: float) -> None:  # noqa: FBT001 - hypothesis calls it
        self.world = World(webhook=webhook, roll=roll)

    @rule(aimed=st.booleans())
    def settle(self, aimed: bool) -> None:  # noqa: FBT001
        self.serial += 1
        self.world.settle(f"job-{self.serial}", aimed=aimed)

    @precondition(lambda self: len(self.world.attendants) < 3)
    @rule()
    def attend(self) -> None:
        self.serial += 1
        self.world.attend(self.serial)

    @precondition(lambda self: self.world.attendants)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self.world.leave(data.draw(st.sampled_from(self.world.attendants)))

    @precondition(lambda self: self.world.offered)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        self.world.acknowledge(data.draw(st.sampled_from(sorted(self.world.offered))))

    @precondition(lambda self: self.world.look is not None)
    @rule()
    def read(self) -> None:
        self.world.read()

    @precondition(lambda self: self.world.look is not None)
    @rule()
    def land(self) -> None:
        self.world.land()

    @precondition(lambda self: self.world.batch)
    @rule(
        data=st.data(),
        status=st.sampled_from([None, 200, 200, 200, 400, 429, 500]),
        retry_after=st.none() | st.floats(0.0, 1e5),
    )
    def answer(self, data: st.DataObject, status: int | None, retry_after: float | None) -> None:
        assert self.world.batch
        job = data.draw(st.sampled_from([one.job for one in self.world.batch]))
        self.world.answer(status, retry_after=retry_after, job=job)

    @precondition(lambda self: self.world.batch == [])
    @rule()
    def over(self) -> None:
        self.world.over()

    @rule()
    def end(self) -> None:
        """And the next process begins."""
        self.world.end()

    @rule(seconds=st.sampled_from([0.0, 0.5, 5.0, 15.0, 16.0, 400.0, 90_000.0]))
    def advance(self, seconds: float) -> None:
        self.world.advance(seconds)

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        for _ in range(200):
            world.settle_down(200)
            left = [row for row in world.rows.values() if row.open]
            if world.webhook and not left:
                break
            if world.timer is None:
                break
            world.advance(world.timer - world.now + 0.01)
        if world.webhook:
            assert all(not row.open for row in world.rows.values()), "somebody was forgotten"
        assert world.looks < 1000, "it looks without end"


TestOutboxes = Outboxes.TestCase
TestOutboxes.settings = settings(max_examples=150, stateful_step_count=30, deadline=None, derandomize=True)
