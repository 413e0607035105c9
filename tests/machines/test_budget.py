"""What a job has cost, and what becomes of one that has cost more than it may."""

from __future__ import annotations

import pytest
from attrs import evolve

from opencode_actors.machines import job, spending
from opencode_actors.machines import job_messages as j
from opencode_actors.machines import server_events as e
from opencode_actors.machines.job_state import Running, snapshot
from opencode_actors.machines.notices import JobCancelling
from opencode_actors.machines.vocabulary import Cause, JobStatus, Rung
from opencode_actors.ports import ConversationState
from opencode_actors.testing import samples
from opencode_actors.testing.playbook import Playbook
from opencode_actors.testing.samples import CHILD
from tests.machines.jobs import CHILD_BORN, IDLE, TURN, Book, message, read, result, running, says, text

SECOND = e.MessageId("msg_z2")
TOKENS = e.Tokens(input=100, output=5)
ABORTED_SECOND = samples.answer(
    id=SECOND, completed_at=2.0, error=e.MessageError(name="MessageAbortedError", message="Aborted")
)


def step(cost: float, *, finish: str = "tool-calls") -> e.MessageUpdated:
    """The first message of the answer, complete."""
    return e.MessageUpdated(info=samples.answer(cost=cost, tokens=TOKENS, finish=finish, completed_at=1.0))


def of_a_sub_agent(cost: float) -> e.MessageUpdated:
    said = samples.answer(id=SECOND, conversation=CHILD, cost=cost, tokens=TOKENS, completed_at=1.0)
    return e.MessageUpdated(info=said)


def ended_by_abort(book: Book) -> Book:
    book.answer(j.AbortConversation, j.AbortAnswered())
    says(book, e.MessageUpdated(info=ABORTED_SECOND), IDLE)
    return book.answer(j.LookAtProcesses, j.ProcessesSeen(processes=samples.RESIDENTS))


def test_a_job_that_has_cost_too_much_is_aborted_and_keeps_what_it_did_P15() -> None:
    book = says(running(max_cost_usd=0.5), text("I have begun."), step(0.51))
    book.expect_some(JobCancelling, j.AbortConversation)
    final = result(ended_by_abort(book))
    assert final.status is JobStatus.FAILED
    assert final.failure is not None
    assert final.failure.cause is Cause.BUDGET
    assert final.failure.message == "the job has cost $0.5100, and may cost $0.5000 at most"
    assert final.climb is not None
    assert final.climb.ended_by is Rung.ABORT
    assert book.output == "I have begun."


def test_what_has_cost_all_of_the_bound_and_no_more_goes_on() -> None:
    book = says(running(max_cost_usd=0.5), step(0.5))
    assert isinstance(book.state.phase, Running)


def test_without_a_bound_a_job_may_cost_anything() -> None:
    book = says(running(max_cost_usd=0.0), step(900.0))
    assert isinstance(book.state.phase, Running)


def test_a_complete_answer_is_not_taken_away_for_what_it_has_cost() -> None:
    book = says(running(max_cost_usd=0.5), text("Done."), step(0.7, finish="stop"), IDLE)
    assert result(book).status is JobStatus.COMPLETED
    assert result(book).cost_usd == 0.7


def test_a_sub_agents_cost_is_the_jobs() -> None:
    book = says(running(max_cost_usd=0.5), CHILD_BORN, step(0.3), of_a_sub_agent(0.1))
    assert snapshot(book.state, book.now).cost_usd == pytest.approx(0.4)
    assert snapshot(book.state, book.now).tokens == e.Tokens(input=200, output=10)
    says(book, of_a_sub_agent(0.3)).expect_some(JobCancelling, j.AbortConversation)


def test_a_cost_that_fell_into_a_gap_is_found_when_the_conversation_is_read() -> None:
    book = running(max_cost_usd=0.5).tell(j.StreamOpened())
    book.answer(j.ReadConversation, read(message(step(0.51).info), state=ConversationState.BUSY))
    book.expect_some(JobCancelling, j.AbortConversation)


def after_a_restart(before: Book) -> Book:
    """By the next process, from what the one before it recorded last."""
    last = snapshot(before.state, before.now)
    total = spending.Spending(cost=last.cost_usd, tokens=last.tokens, known=last.cost_known)
    spent = spending.Recorded(total=total, aside=last.spent_aside)
    policy = evolve(samples.JOB_POLICY, max_cost_usd=last.max_cost_usd)
    book = Playbook(job.handle, samples.left_job(policy=policy, alive=True, spent=spent))
    return book.tell(TURN)


def main_says(book: Book, info: e.MessageInfo) -> Book:
    return book.answer(j.ReadConversation, read(message(info), state=ConversationState.BUSY))


def test_a_sub_agents_cost_is_known_after_a_restart_when_the_answer_goes_on() -> None:
    """It said $0.95 where $1.35 were spent: what was found again of the answer took the place of both."""
    before = says(running(max_cost_usd=1.0), CHILD_BORN, step(0.5), of_a_sub_agent(0.4))
    book = after_a_restart(before)
    assert snapshot(book.state, book.now).cost_usd == pytest.approx(0.9)  # nothing is read yet
    main_says(book, step(0.55).info)
    assert snapshot(book.state, book.now).cost_usd == pytest.approx(0.95)
    assert snapshot(book.state, book.now).tokens == e.Tokens(input=200, output=10)
    again = after_a_restart(book)  # and after another one
    main_says(again, step(0.95).info).expect_some(JobCancelling, j.AbortConversation)
    assert snapshot(again.state, again.now).cost_usd == pytest.approx(1.35)


def test_what_was_not_known_before_a_restart_is_not_known_after_it() -> None:
    before = says(running(), CHILD_BORN, step(0.5), of_a_sub_agent(0.0))
    assert not snapshot(before.state, before.now).cost_known
    book = main_says(after_a_restart(before), step(0.5).info)
    assert snapshot(book.state, book.now).cost_usd == 0.5
    assert not snapshot(book.state, book.now).cost_known


def test_what_an_earlier_version_recorded_is_the_least_that_was_spent() -> None:
    total = spending.Spending(cost=0.9, known=False)
    before = spending.Recorded(total=total)
    now = spending.in_all(before, spending.aside(before, ()), (step(0.5).info,))
    assert (now.cost, now.known) == (0.9, False)


@pytest.mark.parametrize(
    ("infos", "known"),
    [
        ((), True),
        ((samples.answer(),), True),  # it has begun, and nothing is counted yet
        ((samples.answer(cost=0.1, tokens=TOKENS),), True),
        ((samples.answer(tokens=TOKENS),), False),
        ((samples.answer(cost=0.1, tokens=TOKENS), samples.answer(tokens=TOKENS)), False),
    ],
)
def test_tokens_without_a_cost_are_of_a_model_without_a_price(
    infos: tuple[e.MessageInfo, ...], *, known: bool
) -> None:
    assert spending.spent(infos).known is known


@pytest.mark.parametrize(
    ("cost", "known", "most", "words"),
    [
        (0.0, True, 0.0, "no cost"),
        (0.0123, True, 0.5, "$0.0123"),
        (0.0, False, 0.0, "cost unknown (OpenCode has no price for the model)"),
        (
            0.0,
            False,
            0.5,
            "cost unknown (OpenCode has no price for the model, so its bound of $0.5000 does not hold)",
        ),
        (0.01, False, 0.0, "at least $0.0100 (OpenCode has no price for a model that was used)"),
    ],
)
def test_a_bound_that_cannot_hold_is_said(cost: float, *, known: bool, most: float, words: str) -> None:
    assert spending.in_words(cost, known=known, most=most) == words
