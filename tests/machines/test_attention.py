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
    OfferWord,
    PauseOver,
    PersonSpoke,
    StartPause,
    Streamed,
    Word,
    WordAcknowledged,
    WordDue,
    WordOver,
    word_of,
)
from opencode_actors.machines.matters import Matter, Party
from opencode_actors.machines.outbox_messages import AttendantCame, AttendantId, AttendantLeft
from opencode_actors.machines.vocabulary import JobId, Moment

CLAIM = 15.0
JOB, OTHER = JobId("job_1"), JobId("job_2")
FIRST, SECOND = AttendantId(1), AttendantId(2)
QUESTION = word_of(JOB, "que_1")
CHAT = "agent:main:main"


@define(eq=False)
class Table:
    """What is offered to whom is checked as it is said."""

    state: AttentionState = field(factory=lambda: AttentionState(claim=CLAIM))
    now: float = 0.0
    offers: list[tuple[AttendantId, str]] = field(factory=list[tuple[AttendantId, str]])
    over: set[str] = field(factory=set[str])
    said: list[Word] = field(factory=list[Word])
    pauses: list[StartPause] = field(factory=list[StartPause])

    def tell(self, message: AttentionMessage) -> list[tuple[AttendantId, str]]:
        step = attention.handle(self.state, message, Moment(now=self.now, wall=self.now, roll=0.5))
        self.state = step.state
        self.pauses += [effect for effect in step.effects if isinstance(effect, StartPause)]
        offers = [effect for effect in step.effects if isinstance(effect, OfferWord)]
        self.said += [offer.word for offer in offers]
        offered = [(offer.attendant, offer.word.id) for offer in offers]
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

    def ask(
        self, job: JobId = JOB, request: str = "que_1", chat: str = CHAT
    ) -> list[tuple[AttendantId, str]]:
        return self.tell(InputAwaited(job=job, request=request, chat=chat))

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
    table.tell(WordDue(job=JOB, matter=Matter.RUNNING, number=7))
    table.tell(WordDue(job=JOB, matter=Matter.RUNNING, number=9))
    assert sorted(table.come()) == [(FIRST, QUESTION), (FIRST, word_of(JOB, "running-9"))]


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
        match dice.randint(0, 10):
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
                due = dice.choice([Matter.RUNNING, Matter.REPORT, Matter.STARTED, Matter.ANSWERED])
                table.tell(WordDue(job=job, matter=due, number=len(table.offers) + 1000 + seed))
            case 7:
                table.tell(Streamed(job=job, number=len(table.offers) + 1000 + seed))
            case 8:
                table.tell(PauseOver(job=job))
            case 9:
                table.tell(PersonSpoke(chat=CHAT))
            case 10:
                table.tell(JobSilent(job=job))
                table.over.update(one.id for one in table.said if one.job == job)
            case _:
                pass
        for one in table.state.words.values():
            somebody = [a for a in table.state.attendants if a not in one.offered]
            assert one.passed_on or one.held is not None or not somebody, "nobody is offered it"


# ---- the agent or the person


def test_an_agent_is_woken_only_so_often_in_a_row_and_then_the_person_is_told_C13() -> None:
    table = Table(state=AttentionState(claim=CLAIM, max_woken=2))
    table.come()
    for number in range(4):
        table.ask(request=f"que_{number}")
    assert [word.to for word in table.said] == [Party.AGENT, Party.AGENT, Party.PERSON, Party.PERSON]
    table.tell(PersonSpoke(chat="agent:other:main"))
    table.ask(request="que_5")
    table.tell(PersonSpoke(chat=CHAT))
    table.ask(request="que_6")
    assert [word.to for word in table.said[4:]] == [Party.PERSON, Party.AGENT]


def test_each_chat_has_its_own_count_and_a_question_counts_once() -> None:
    table = Table(state=AttentionState(claim=CLAIM, max_woken=1))
    table.come()
    table.ask(chat="one")
    for attendant in (FIRST, SECOND):
        table.leave(FIRST) if attendant is SECOND else None
        table.come(SECOND) if attendant is SECOND else None
    table.ask(OTHER, chat="two")
    assert [word.to for word in table.said] == [Party.AGENT] * 3


def test_with_none_at_all_it_is_always_the_person() -> None:
    table = Table(state=AttentionState(claim=CLAIM, max_woken=0))
    table.come()
    table.ask()
    assert table.said[0].to is Party.PERSON


def test_the_chats_that_are_remembered_are_bounded() -> None:
    table = Table()
    for number in range(attention.CHATS_REMEMBERED + 50):
        table.ask(request=f"que_{number}", chat=f"chat-{number}")
    assert len(table.state.woken) == attention.CHATS_REMEMBERED


@pytest.mark.parametrize(
    "matter", [Matter.REPORT, Matter.STARTED, Matter.ANSWERED, Matter.RUNNING, Matter.LIMIT]
)
def test_what_an_agent_need_not_act_on_is_for_the_person(matter: Matter) -> None:
    table = Table()
    table.come()
    table.tell(WordDue(job=JOB, matter=matter, number=7))
    wakes = matter in (Matter.RUNNING, Matter.LIMIT)
    assert [word.to for word in table.said] == [Party.AGENT if wakes else Party.PERSON]


# ---- what is streamed


def test_what_is_streamed_is_joined_and_a_channel_is_not_flooded_C6() -> None:
    table = Table(state=AttentionState(claim=CLAIM, pause=15.0))
    table.come()
    for number in range(1, 6):
        table.tell(Streamed(job=JOB, number=number))
    assert [(word.after, word.upto) for word in table.said] == [(0, 1)]
    assert table.pauses == [StartPause(job=JOB, seconds=15.0)]
    table.tell(WordAcknowledged(id=table.said[0].id))
    table.tell(PauseOver(job=JOB))
    assert [(word.after, word.upto) for word in table.said[1:]] == [(1, 5)]
    table.tell(WordAcknowledged(id=table.said[1].id))
    table.tell(PauseOver(job=JOB))
    assert len(table.said) == 2
    assert len(table.pauses) == 2
    table.tell(Streamed(job=JOB, number=9))
    assert [(word.after, word.upto) for word in table.said[2:]] == [(5, 9)]


def test_what_nobody_has_passed_on_is_in_the_next_word_again() -> None:
    table = Table()
    table.tell(Streamed(job=JOB, number=1))
    table.tell(Streamed(job=JOB, number=4))
    table.tell(PauseOver(job=JOB))
    table.come()
    assert [(word.after, word.upto) for word in table.said] == [(0, 4)]


def test_of_a_job_that_has_ended_nothing_more_is_streamed() -> None:
    table = Table()
    table.come()
    table.tell(Streamed(job=JOB, number=1))
    table.tell(Streamed(job=JOB, number=2))
    table.tell(JobSilent(job=JOB))
    table.tell(PauseOver(job=JOB))
    assert len(table.said) == 1
    assert not table.state.words
    assert not table.state.pausing
