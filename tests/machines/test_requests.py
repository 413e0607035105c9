"""Questions and permissions: announced, answered by one reply, timed out, and never lost in a gap."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from opencode_actors.machines import job_messages as j
from opencode_actors.machines import server_events as e
from opencode_actors.machines.notices import InputAnswered, InputEnd, InputWanted, JobCancelling
from opencode_actors.machines.requests import NOBODY_ANSWERED, REPLIES
from opencode_actors.machines.vocabulary import (
    ActivityState,
    AskId,
    Cause,
    Forget,
    JobSnapshot,
    JobStatus,
    OnUnanswered,
    RequestKind,
    StopTimer,
)
from opencode_actors.ports import ConversationState, PermissionReply
from opencode_actors.testing import samples
from opencode_actors.testing.samples import CHILD, CONVERSATION

from .jobs import CHILD_BORN, DONE, IDLE, Book, cancel, message, read, result, running, says

QUESTION = e.QuestionAsked(
    conversation=CONVERSATION, request="que_1", text="Which colour?", options=("Red", "Blue")
)
PERMISSION = e.PermissionAsked(conversation=CHILD, request="per_1", permission="bash", text="rm -r build")
BLUE = j.QuestionAnswer(answers=(("Blue",),))
ONCE = j.PermissionAnswer(reply=PermissionReply.ONCE)
LISTED = samples.QUESTION


def asked(**policy: Any) -> Book:
    return says(running(**policy), QUESTION)


def give(book: Book, answer: j.Answer, *, request: str = "que_1", ask: int = 1) -> Book:
    return book.tell(j.AnswerRequest(ask=AskId(ask), request=request, answer=answer))


def ends(book: Book) -> list[tuple[str, InputEnd]]:
    return [(notice.request, notice.end) for notice in book.noticed(InputAnswered)]


def lists(*requests: Any, children: frozenset[e.ConversationId] = frozenset()) -> j.RequestsRead:
    return j.RequestsRead(children=children, busy=children | {CONVERSATION}, requests=requests)


def status(book: Book) -> JobSnapshot:
    book.tell(j.GetJob(ask=AskId(99)))
    found = book.replies[AskId(99)]
    assert isinstance(found, JobSnapshot)
    return found


def test_p2_a_question_is_announced_with_all_that_an_answer_needs_and_listed() -> None:
    book = asked(question_timeout=60.0)
    (wanted,) = book.noticed(InputWanted)
    assert (wanted.request, wanted.kind, wanted.text) == ("que_1", RequestKind.QUESTION, "Which colour?")
    assert (wanted.options, wanted.questions, wanted.conversation) == (("Red", "Blue"), 1, CONVERSATION)
    assert (wanted.sub_agent, wanted.timeout, wanted.on_unanswered) == (False, 60.0, OnUnanswered.REJECT)
    (listed,) = status(book).pending
    assert (listed.id, listed.text, listed.options) == ("que_1", "Which colour?", ("Red", "Blue"))
    assert status(book).activity is ActivityState.WAITING


def test_p1_p9_a_childs_permission_is_announced_as_that_and_given() -> None:
    book = says(running(), CHILD_BORN, PERMISSION)
    (wanted,) = book.noticed(InputWanted)
    assert (wanted.kind, wanted.sub_agent, wanted.conversation) == (RequestKind.PERMISSION, True, CHILD)
    assert (wanted.text, wanted.options) == ("bash: rm -r build", ("once", "always", "reject"))
    give(book, ONCE, request="per_1").expect(j.ReplyToRequest)
    book.answer(j.ReplyToRequest, j.ReplyTaken()).expect(j.Answered, InputAnswered, StopTimer)
    assert ends(book) == [("per_1", InputEnd.ANSWERED)]
    assert status(book).pending == ()


def test_an_answer_is_one_reply_and_told_once_whatever_the_server_says_first() -> None:
    book = give(asked(), BLUE).expect(j.ReplyToRequest)
    assert book.running(j.ReplyToRequest).answer == BLUE
    says(book, e.RequestAnswered(conversation=CONVERSATION, request="que_1")).expect(InputAnswered, StopTimer)
    assert AskId(1) not in book.replies
    book.answer(j.ReplyToRequest, j.ReplyTaken()).expect(j.Answered, StopTimer)
    assert ends(book) == [("que_1", InputEnd.ANSWERED)]


def test_who_gave_the_answer_that_was_heard_to_be_taken_is_told_so_when_the_job_ends_before_the_call() -> (
    None
):
    book = give(asked(), BLUE)
    says(book, e.RequestAnswered(conversation=CONVERSATION, request="que_1"))
    cancel(book, ask=2)
    assert isinstance(book.replies[AskId(1)], j.Answered)
    assert ends(book) == [("que_1", InputEnd.ANSWERED)]


def test_a_second_answer_finds_that_one_is_on_its_way() -> None:
    book = give(give(asked(), BLUE), BLUE, ask=2)
    refused = book.replies[AskId(2)]
    assert isinstance(refused, j.NotAnswered)
    assert refused.why is j.NoAnswer.GONE
    assert "already" in refused.reason


def test_answers_to_two_requests_go_one_after_another() -> None:
    book = says(running(), CHILD_BORN, QUESTION, PERMISSION)
    give(give(book, BLUE), ONCE, request="per_1", ask=2).expect_nothing()
    book.answer(j.ReplyToRequest, j.ReplyTaken())
    assert book.running(j.ReplyToRequest).request.id == "per_1"
    book.answer(j.ReplyToRequest, j.ReplyTaken())
    assert book.replies == {AskId(1): j.Answered(), AskId(2): j.Answered()}


@pytest.mark.parametrize(
    ("request_id", "answer", "why", "words"),
    [
        ("que_9", BLUE, j.NoAnswer.GONE, "nothing waits"),
        ("que_1", ONCE, j.NoAnswer.UNFIT, "is a question"),
        ("per_1", BLUE, j.NoAnswer.UNFIT, "is a permission"),
        ("que_1", j.QuestionAnswer(answers=(("a",), ("b",))), j.NoAnswer.UNFIT, "2 answers were given"),
    ],
)
def test_an_answer_that_cannot_be_is_refused_and_changes_nothing(
    request_id: str, answer: j.Answer, why: j.NoAnswer, words: str
) -> None:
    book = says(running(), CHILD_BORN, QUESTION, PERMISSION)
    before = book.state
    give(book, answer, request=request_id).expect(j.NotAnswered)
    refused = book.replies[AskId(1)]
    assert isinstance(refused, j.NotAnswered)
    assert refused.why is why
    assert words in refused.reason
    assert book.state == before


def test_a_request_that_the_server_does_not_know_any_more_is_gone() -> None:
    book = give(asked(), BLUE).answer(j.ReplyToRequest, j.ReplyFailed(gone=True, reason="HTTP 404"))
    refused = book.replies[AskId(1)]
    assert isinstance(refused, j.NotAnswered)
    assert refused.why is j.NoAnswer.GONE
    assert ends(book) == [("que_1", InputEnd.GONE)]


def test_an_answer_of_which_nobody_knows_leaves_the_request_open() -> None:
    book = give(asked(), BLUE).answer(j.ReplyToRequest, j.ReplyFailed(gone=False, reason="no answer came"))
    refused = book.replies[AskId(1)]
    assert isinstance(refused, j.NotAnswered)
    assert refused.why is j.NoAnswer.UNSURE
    assert [request.id for request in status(book).pending] == ["que_1"]
    give(book, BLUE, ask=2).expect(j.ReplyToRequest)


def test_p2_nobody_answers_and_the_model_is_told_so_and_goes_on() -> None:
    book = asked(question_timeout=60.0, idle_timeout=10.0).advance(59.9)
    assert j.ReplyToRequest not in book.operations
    book.advance(0.2).expect_some(j.ReplyToRequest)
    assert book.running(j.ReplyToRequest).answer == j.Rejection(message=NOBODY_ANSWERED)
    book.answer(j.ReplyToRequest, j.ReplyTaken())
    assert ends(book) == [("que_1", InputEnd.UNANSWERED)]
    assert not book.noticed(JobCancelling)
    assert result(says(book, DONE, IDLE)).status is JobStatus.COMPLETED


def test_p1_p2_nobody_answers_and_the_job_fails_where_that_is_wanted() -> None:
    book = asked(question_timeout=60.0, on_unanswered=OnUnanswered.FAIL).advance(60.0)
    book.expect_some(InputAnswered, JobCancelling, j.AbortConversation)
    book.answer(j.AbortConversation, j.AbortAnswered())
    aborted = message(samples.ABORTED)
    book.answer(j.ReadConversation, read(aborted)).answer(j.ReadConversation, read(aborted))
    book.answer(j.LookAtProcesses, j.ProcessesSeen(processes=samples.RESIDENTS))
    failure = result(book).failure
    assert failure is not None
    assert failure.cause is Cause.UNANSWERED
    assert "questionTimeout (60 s)" in failure.message
    assert "Which colour?" in failure.message


def test_a_question_without_a_bound_waits_for_ever_and_is_never_idle() -> None:
    book = asked(question_timeout=0.0, job_timeout=0.0, idle_timeout=10.0).advance(7 * 86_400.0)
    assert not book.noticed(JobCancelling)
    (waits,) = status(book).pending
    assert (waits.id, waits.waiting_seconds) == ("que_1", 7 * 86_400.0)


def test_each_question_has_its_own_time() -> None:
    book = says(running(question_timeout=60.0), CHILD_BORN, QUESTION).advance(30.0)
    says(book, PERMISSION).advance(31.0)
    assert book.running(j.ReplyToRequest).request.id == "que_1"
    book.answer(j.ReplyToRequest, j.ReplyTaken()).advance(28.9)
    assert j.ReplyToRequest not in book.operations
    book.advance(0.2)
    assert book.running(j.ReplyToRequest).request.id == "per_1"


def test_p9_a_server_that_takes_no_answer_does_not_hold_the_job_for_ever() -> None:
    book = asked(question_timeout=60.0, job_timeout=0.0).advance(60.0)
    for _ in range(REPLIES):
        book.answer(j.ReplyToRequest, j.ReplyFailed(gone=False, reason="HTTP 500")).advance(1.0)
    assert book.noticed(JobCancelling)
    book.tell(j.ServerLost(failure=samples.FAILURE))
    failure = result(book).failure
    assert failure is not None
    assert failure.cause is Cause.SERVER_HUNG
    assert "takes no answer" in failure.message


# ---- gaps, ghosts and ends


def test_p8_p9_what_was_asked_in_a_gap_by_a_child_that_was_born_in_it_is_found() -> None:
    book = running(idle_timeout=120.0).tell(j.StreamOpened()).expect(j.ReadConversation, j.ReadRequests)
    by_child = evolve(LISTED, conversation=CHILD, sub_agent=True)
    book.answer(j.ReadRequests, lists(by_child, children=frozenset((CHILD,))))
    assert [notice.request for notice in book.noticed(InputWanted)] == ["que_1"]
    says(book, e.RequestAnswered(conversation=CHILD, request="que_1"))
    assert ends(book) == [("que_1", InputEnd.GONE)]


def test_p8_p9_a_question_of_a_step_that_fell_into_a_gap_outlives_the_reading_of_that_step() -> None:
    """The list comes first, then the conversation with the step whose tool asks."""
    book = running().tell(j.StreamOpened()).answer(j.ReadRequests, lists(LISTED))
    book.answer(
        j.ReadConversation,
        read(message(samples.answer(id=e.MessageId("msg_zzz"))), state=ConversationState.BUSY),
    )
    assert [request.id for request in status(book).pending] == ["que_1"]
    assert ends(book) == []


def test_a_listed_question_outlives_the_late_word_of_its_own_step() -> None:
    book = running().tell(j.StreamOpened()).answer(j.ReadRequests, lists(LISTED))
    book.answer(j.ReadConversation, read(message(samples.answer()), state=ConversationState.BUSY))
    says(book, e.MessageUpdated(info=samples.answer(id=e.MessageId("msg_zzz"))))
    assert ends(book) == []
    says(book, e.RequestAnswered(conversation=CONVERSATION, request="que_1"))
    assert ends(book) == [("que_1", InputEnd.GONE)]


def test_what_is_on_the_list_and_was_heard_is_announced_once() -> None:
    book = asked().tell(j.StreamOpened()).answer(j.ReadRequests, lists(LISTED))
    assert len(book.noticed(InputWanted)) == 1
    assert ends(book) == []


def test_what_was_answered_in_a_gap_is_over() -> None:
    book = asked(idle_timeout=120.0).tell(j.StreamOpened()).answer(j.ReadRequests, lists())
    assert ends(book) == [("que_1", InputEnd.GONE)]
    book.advance(121.0)
    assert book.noticed(JobCancelling)


def test_a_list_that_is_older_than_what_was_heard_takes_nothing_away_and_brings_nothing_back() -> None:
    book = running().tell(j.StreamOpened())
    says(book, QUESTION).answer(j.ReadRequests, lists())
    assert [request.id for request in status(book).pending] == ["que_1"]
    book.tell(j.StreamOpened())
    says(book, e.RequestAnswered(conversation=CONVERSATION, request="que_1"))
    book.answer(j.ReadRequests, lists(LISTED))
    assert status(book).pending == ()


def test_lists_that_cannot_be_read_are_read_again() -> None:
    book = running().tell(j.StreamOpened())
    book.answer(j.ReadRequests, j.RequestsUnread(reason="no answer came")).expect(j.JobTimer.LOOK)
    book.advance(0.5).expect(j.ReadRequests)


def test_a_child_that_goes_idle_asks_nothing_any_more() -> None:
    book = says(running(), CHILD_BORN, PERMISSION, e.ConversationIdle(conversation=CHILD))
    assert status(book).pending == ()


def test_what_waits_when_the_job_is_cancelled_is_over_and_whoever_answers_is_told() -> None:
    book = cancel(give(asked(), BLUE, ask=7), ask=1)
    book.expect_some(j.NotAnswered, InputAnswered, Forget, JobCancelling)
    assert ends(book) == [("que_1", InputEnd.GONE)]
    give(book, BLUE, ask=8).expect(j.NotAnswered)
    book.tell(j.ServerLost(failure=samples.FAILURE))
    give(book, BLUE, ask=9).expect(j.NotAnswered)


def test_of_an_answer_that_is_on_its_way_when_the_job_ends_nobody_knows() -> None:
    """The model may have been told: "it waits for no answer" would say that it was not."""
    book = give(give(asked(), BLUE, ask=7), BLUE, ask=8)
    book.tell(j.ServerLost(failure=samples.FAILURE))
    first, second = (book.replies[AskId(ask)] for ask in (7, 8))
    assert isinstance(first, j.NotAnswered)
    assert isinstance(second, j.NotAnswered)
    assert (first.why, second.why) == (j.NoAnswer.UNSURE, j.NoAnswer.GONE)


def test_p7_what_waits_when_the_container_dies_is_over_before_the_job_is() -> None:
    book = give(asked(), BLUE).tell(j.ServerLost(failure=samples.FAILURE))
    assert ends(book) == [("que_1", InputEnd.GONE)]
    assert isinstance(book.replies[AskId(1)], j.NotAnswered)
    assert result(book).pending == ()
