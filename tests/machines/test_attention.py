"""Who is told what a running job asks and that it runs long: each word once to each, and to one at a time."""

from __future__ import annotations

import random

import pytest
from attrs import define, field

from opencode_actors.machines import attention
from opencode_actors.machines.attention import (
    HOLDS_WORDS,
    AttentionMessage,
    AttentionState,
    InputAwaited,
    JobSilent,
    ReminderDue,
    WordAcknowledged,
    WordOver,
    word_of,
)
from opencode_actors.machines.outbox_messages import AttendantCame, AttendantId, AttendantLeft
from opencode_actors.machines.vocabulary import JobId, Moment

CLAIM = 15.0
JOB, OTHER = JobId("job_1"), JobId("job_2")
FIRST, SECOND = AttendantId(1), AttendantId(2)
QUESTION = word_of(JOB, "que_1")


@define(eq=False)
class Table:
    """What is offered to whom is checked as it is said."""

    state: AttentionState = field(factory=lambda: AttentionState(claim=CLAIM))
    now: float = 0.0
    offers: list[tuple[AttendantId, str]] = field(factory=list[tuple[AttendantId, str]])
    over: set[str] = field(factory=set[str])

    def tell(self, message: AttentionMessage) -> list[tuple[AttendantId, str]]:
        step = attention.handle(self.state, message, Moment(now=self.now, wall=self.now, roll=0.5))
        self.state = step.state
        offered = [(offer.attendant, offer.word.id) for offer in step.effects]
        for attendant, word in offered:
            assert attendant in self.state.attendants, "offered to nobody"
            assert (attendant, word) not in self.offers, "offered twice to the same"
            assert word not in self.over, "what is over, or was passed on, is offered"
            assert self.state.words[word].held == attendant
        self.offers += offered
        for attendant in self.state.attendants:
            held = [word for word in self.state.words.values() if word.held == attendant]
            assert len(held) <= HOLDS_WORDS
        return offered

    def ask(self, job: JobId = JOB, request: str = "que_1") -> list[tuple[AttendantId, str]]:
        return self.tell(InputAwaited(job=job, request=request))

    def come(self, attendant: AttendantId = FIRST) -> list[tuple[AttendantId, str]]:
        return self.tell(AttendantCame(attendant=attendant))

    def leave(self, attendant: AttendantId = FIRST) -> list[tuple[AttendantId, str]]:
        return self.tell(AttendantLeft(attendant=attendant))

    def acknowledge(self, word: str = QUESTION) -> None:
        self.over.add(word)
        assert self.tell(WordAcknowledged(id=word)) == []


def test_a_question_is_offered_to_who_attends_and_once() -> None:
    table = Table()
    assert table.come() == []
    assert table.ask() == [(FIRST, QUESTION)]
    assert table.ask() == []
    table.acknowledge()
    assert table.ask() == []


def test_one_that_nobody_attended_to_waits_for_who_comes() -> None:
    table = Table()
    assert table.ask() == []
    assert table.come() == [(FIRST, QUESTION)]


def test_one_that_is_over_is_offered_to_nobody() -> None:
    table = Table()
    table.ask()
    table.tell(WordOver(id=QUESTION))
    table.ask(OTHER)
    table.tell(JobSilent(job=OTHER))
    assert table.come() == []
    assert not table.state.words


def test_what_was_not_acknowledged_when_a_connection_ended_goes_to_the_next() -> None:
    table = Table()
    table.come()
    table.ask()
    assert table.leave() == []
    assert table.come(SECOND) == [(SECOND, QUESTION)]


def test_what_was_passed_on_is_not_said_again_to_a_gateway_that_comes_back() -> None:
    table = Table()
    table.come()
    table.ask()
    table.acknowledge()
    table.leave()
    assert table.come(SECOND) == []
    assert table.ask() == []


def test_the_one_that_came_last_is_told_and_what_another_holds_is_left_to_it() -> None:
    table = Table()
    table.come(FIRST)
    table.ask()
    assert table.come(SECOND) == []
    assert table.ask(OTHER) == [(SECOND, word_of(OTHER, "que_1"))]


def test_who_does_not_acknowledge_in_time_is_not_waited_for() -> None:
    table = Table()
    table.come(FIRST)
    table.ask()
    table.now = CLAIM
    assert table.come(SECOND) == [(SECOND, QUESTION)]


def test_a_newer_reminder_stands_for_the_older_ones_and_no_question_goes_with_them() -> None:
    table = Table()
    table.ask()
    table.tell(ReminderDue(job=JOB, number=7))
    table.tell(ReminderDue(job=JOB, number=9))
    assert sorted(table.come()) == [(FIRST, QUESTION), (FIRST, word_of(JOB, "reminder-9"))]


def test_an_acknowledgement_of_what_is_over_is_no_news() -> None:
    table = Table()
    table.tell(WordAcknowledged(id=QUESTION))
    assert not table.state.words


def test_who_holds_many_is_offered_the_rest_when_it_has_acknowledged_some() -> None:
    table = Table()
    for number in range(HOLDS_WORDS + 2):
        table.ask(request=f"que_{number}")
    assert len(table.come()) == HOLDS_WORDS
    table.over.add(word_of(JOB, "que_0"))
    assert table.tell(WordAcknowledged(id=word_of(JOB, "que_0"))) == [
        (FIRST, word_of(JOB, f"que_{HOLDS_WORDS}"))
    ]


@pytest.mark.parametrize("seed", range(300))
def test_whatever_happens_each_open_word_gets_to_somebody_who_can_take_it(seed: int) -> None:
    dice = random.Random(seed)
    table, attendants, serial = Table(), list[AttendantId](), 0
    for _ in range(120):
        table.now += dice.choice([0.0, 0.0, 1.0, CLAIM])
        job, request = dice.choice([JOB, OTHER]), f"que_{dice.randint(0, 3)}"
        word = word_of(job, request)
        match dice.randint(0, 6):
            case 0 if word not in table.over:
                table.ask(job, request)
            case 1:
                table.over.add(word)
                table.tell(WordOver(id=word))
            case 2:
                serial += 1
                attendants.append(AttendantId(serial))
                table.come(AttendantId(serial))
            case 3 if attendants:
                table.leave(attendants.pop(dice.randrange(len(attendants))))
            case 4 if any(one.held for one in table.state.words.values()):
                held = [one.id for one in table.state.words.values() if one.held is not None]
                chosen = dice.choice(held)
                table.over.add(chosen)
                table.tell(WordAcknowledged(id=chosen))
            case 5:
                table.tell(ReminderDue(job=job, number=len(table.offers) + 1000 + seed))
            case _:
                pass
        for one in table.state.words.values():
            somebody = [a for a in table.state.attendants if a not in one.offered]
            assert one.passed_on or one.held is not None or not somebody, "nobody is offered it"
