"""How long the outbox waits and what it forgets, one decision at a time: what a whole run levels out."""

from __future__ import annotations

import pytest
from attrs import evolve

from opencode_actors.machines import outbox_messages as m
from opencode_actors.machines.notices import NotificationRecorded
from opencode_actors.machines.outbox import (
    CLOCKS_DIFFER,
    FIRST_DELAY,
    JITTER,
    Meaning,
    OutboxState,
    OutboxStep,
    delay,
    handle,
    meaning,
)
from opencode_actors.machines.outbox_messages import AttendantId, Notification
from opencode_actors.machines.vocabulary import JobId, Moment, NotificationState, Run
from opencode_actors.ports import HookAnswer

from .outbox_world import POLICY, SESSION

NOW = Moment(now=1000.0, wall=5000.0, roll=0.0)
ONE = Notification(
    job=JobId("one"), session=SESSION, aimed=True, since=4990.0, attempts=2, last_offer=AttendantId(5)
)


def sending(*, failures: int = 0, opens_at: float = 0.0) -> OutboxState:
    return OutboxState(
        policy=POLICY, webhook=True, busy=True, sending=(ONE,), failures=failures, opens_at=opens_at
    )


def answered(state: OutboxState, status: int | None, retry_after: float | None = None) -> OutboxStep:
    answer = HookAnswer(status=status, retry_after=retry_after)
    return handle(state, m.NotificationAnswered(job=ONE.job, answer=answer), NOW)


def record_of(step: OutboxStep) -> NotificationRecorded:
    (record,) = step.records
    assert isinstance(record, NotificationRecorded)
    return record


@pytest.mark.parametrize("status", [None, 429, 502, 503, 504])
def test_what_is_wrong_with_the_address_is_told_from_what_is_wrong_with_one(status: int | None) -> None:
    assert meaning(HookAnswer(status=status)) is Meaning.DOWN
    assert all(meaning(HookAnswer(status=one)) is Meaning.AGAIN for one in (408, 409, 425, 500))


def test_delays_are_spread() -> None:
    assert delay(1, 0.0) == FIRST_DELAY
    assert delay(1, 0.5) == pytest.approx(FIRST_DELAY * (1 + JITTER / 2))


@pytest.mark.parametrize("status", [200, 404, 500])
def test_a_gateway_that_answers_is_not_away_any_more(status: int) -> None:
    assert answered(sending(failures=3), status).state.failures == 0


def test_a_second_failure_of_a_batch_opens_it_no_earlier() -> None:
    step = answered(sending(failures=1, opens_at=NOW.now + 100.0), 503)
    assert step.state.opens_at == NOW.now + 100.0
    assert record_of(step).due == NOW.wall + 100.0


@pytest.mark.parametrize("status", [500, 503])
def test_what_one_answer_asks_for_is_waited_for_that_one(status: int) -> None:
    assert record_of(answered(sending(), status, retry_after=40.0)).due == NOW.wall + 40.0


@pytest.mark.parametrize("status", [500, 503])
def test_after_an_attempt_everybody_may_be_offered_it_again(status: int) -> None:
    record = record_of(answered(sending(), status))
    assert record.state is NotificationState.PENDING
    assert (record.attempts, record.last_offer) == (3, 0)


def found(state: OutboxState) -> NotificationRecorded:
    step = handle(
        evolve(state, looking=True, busy=False, sending=()),
        m.NotificationsFound(found=(ONE,), next_due=None),
        NOW,
    )
    return record_of(step)


def test_while_the_gateway_is_away_nothing_counts_as_tried() -> None:
    record = found(sending(failures=1, opens_at=NOW.now + 60.0))
    assert record.due == NOW.wall + 60.0
    assert (record.attempts, record.last_offer) == (ONE.attempts, ONE.last_offer)


def test_without_a_webhook_it_is_offered_to_everybody_again_later() -> None:
    record = found(evolve(sending(), webhook=False))
    assert record.due == NOW.wall + delay(ONE.attempts + 1, NOW.roll)
    assert (record.attempts, record.last_offer) == (3, 0)


def look(state: OutboxState, moment: Moment) -> m.LookForNotifications:
    step = handle(state, m.OutboxTimerFired(timer=m.OutboxTimer.LOOK), moment)
    (operation,) = (effect.operation for effect in step.effects if isinstance(effect, Run))
    assert isinstance(operation, m.LookForNotifications)
    return operation


def test_what_another_process_put_off_for_longer_than_this_one_did_is_due() -> None:
    """It may have been another clock, set back by less than the longest wait there is."""
    assert look(OutboxState(policy=POLICY, webhook=True), NOW).latest == NOW.wall + CLOCKS_DIFFER


@pytest.mark.parametrize("set_back", [0.0, 1800.0])
def test_nothing_waits_for_longer_than_it_was_put_off_though_the_clock_is_set_back(set_back: float) -> None:
    step = answered(sending(), 500, retry_after=40.0)
    state = handle(step.state, m.SendingOver(), NOW).state
    state = evolve(state, busy=False, looking=False)
    later = evolve(NOW, now=NOW.now + 30.0, wall=NOW.wall + 30.0 - set_back)
    is_due = record_of(step).due > look(state, later).latest
    assert is_due is (set_back > 0)
