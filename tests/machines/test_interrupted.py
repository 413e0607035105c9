"""A job whose server is out of sight, as examples to read: crashed, or left by an earlier process."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from opencode_actors.machines import job
from opencode_actors.machines import job_messages as j
from opencode_actors.machines import server_events as e
from opencode_actors.machines.job import BEGIN_WITHIN, REREAD_DELAY
from opencode_actors.machines.job_state import Stopping, snapshot
from opencode_actors.machines.notices import (
    InputAnswered,
    InputEnd,
    InputWanted,
    JobCancelling,
    JobRecorded,
    JobStarted,
    OutputKind,
    OutputRecorded,
    TodosChanged,
    ToolStarted,
)
from opencode_actors.machines.output import OutputMeter, admit, going_on
from opencode_actors.machines.told import taken_up
from opencode_actors.machines.transcript import Piece, conversation_read
from opencode_actors.machines.vocabulary import (
    ActivityState,
    AskId,
    Cause,
    Climb,
    Failure,
    JobStatus,
    OnCrash,
    Rung,
)
from opencode_actors.ports import ConversationState
from opencode_actors.testing import samples
from opencode_actors.testing.playbook import Playbook
from opencode_actors.testing.samples import ANSWER, CONVERSATION, HELLO, TEXT, TOOL, USER, answer, left_job
from tests.machines.jobs import (
    BEGUN,
    BUSY,
    DONE,
    IDLE,
    TURN,
    Book,
    cancel,
    delta,
    message,
    read,
    result,
    running,
    says,
    text,
)

CRASHED = Failure(cause=Cause.CRASH, message="the container ended: exit code 139", exit_code=139)
LOST = j.ServerLost(failure=CRASHED, again=True)
ASKED = message(evolve(answer(), id=USER, role="user", parent=None))
BROKEN_OFF = message(answer(), evolve(HELLO, text="", finished=False))


def left(told: str = "", **more: Any) -> Book:
    """By an earlier process."""
    pieces = (Piece(kind=OutputKind.TEXT, text=told, part=TEXT),) if told else ()
    policy = evolve(samples.JOB_POLICY, **{k: more.pop(k) for k in ("on_crash", "job_timeout") if k in more})
    return Playbook(job.handle, left_job(told=pieces, policy=policy, **more))


def new_output(book: Book) -> str:
    return "".join(record.text for record in book.recorded if isinstance(record, OutputRecorded))


# ---- the service was away, and the container was not


def test_p18_an_answer_that_ended_meanwhile_is_completed_with_all_its_text() -> None:
    book = left("hel", alive=True)
    book.tell(TURN)
    book.expect(
        j.ReadConversation,
        j.ReadRequests,
        j.JobTimer.START,
        j.JobTimer.IDLE,
        j.JobTimer.TOTAL,
        j.JobTimer.REMIND,
    )
    said = message(samples.DONE, HELLO)
    book.answer(j.ReadConversation, read(ASKED, said)).answer(j.ReadConversation, read(ASKED, said))
    assert result(book).status is JobStatus.COMPLETED
    assert new_output(book) == "lo"
    assert result(book).output_bytes == 5


def test_p18_an_answer_that_goes_on_is_followed_on() -> None:
    book = left("Hel", alive=True).tell(TURN)
    says(book, BUSY)
    book.answer(j.ReadConversation, read(ASKED, BROKEN_OFF, state=ConversationState.BUSY))
    assert j.SubmitPrompt not in book.operations
    says(book, delta("lo, "), text("Hello, world"))
    says(book, DONE, IDLE)
    assert result(book).status is JobStatus.COMPLETED
    assert new_output(book) == "lo, world"


def test_what_the_file_has_leads_and_the_rest_comes_when_the_part_ends() -> None:
    book = left("hel", alive=True).tell(TURN)
    book.answer(j.ReadConversation, read(ASKED, BROKEN_OFF, state=ConversationState.BUSY))
    says(book, delta("o"))
    assert not new_output(book)  # the l between them was missed
    says(book, text("hello"), DONE, IDLE)
    assert new_output(book) == "lo"


def test_p20_a_prompt_that_never_arrived_is_sent_under_its_old_ids() -> None:
    book = left(alive=True).tell(TURN).answer(j.ReadConversation, read())
    assert book.running(j.SubmitPrompt).prompt.message_id == USER
    assert [r.begun.container for r in book.records if isinstance(r, JobRecorded) and r.begun] == [
        samples.CONTAINER.id
    ]
    book.answer(j.SubmitPrompt, j.PromptTaken())
    says(book, BUSY, BEGUN, text("Hello"), DONE, IDLE)
    assert result(book).status is JobStatus.COMPLETED


def test_p20_a_prompt_that_arrives_while_it_is_looked_for_is_not_sent_again() -> None:
    book = left(alive=True).tell(TURN)
    says(book, BUSY, BEGUN)
    book.answer(j.ReadConversation, read(state=ConversationState.BUSY))
    assert j.SubmitPrompt not in book.operations


def test_its_time_goes_on_while_nobody_looks() -> None:
    book = left(alive=True, job_timeout=10.5).tell(TURN).advance(1.0)
    book.expect_some(j.AbortConversation)
    assert isinstance(book.state.phase, Stopping)
    assert book.state.phase.verdict is not None
    assert book.state.phase.verdict.cause is Cause.JOB_TIMEOUT


def test_a_cancel_goes_on_where_it_was() -> None:
    book = left(alive=True, stopping=True)
    assert snapshot(book.state, 0.0).status is JobStatus.CANCELLING
    book.tell(TURN).expect_some(j.AbortConversation)


def test_a_cancel_before_the_server_is_found_waits_for_it_and_is_recorded() -> None:
    book = cancel(left(alive=True))
    assert isinstance(book.records[-1], JobRecorded)
    assert snapshot(book.state, 0.0).status is JobStatus.CANCELLING
    book.tell(TURN).expect_some(j.AbortConversation)


def test_p6_a_cancel_does_not_wait_for_a_server_that_does_not_get_ready() -> None:
    book = cancel(left(alive=True)).advance(samples.GRACES.abort)
    book.expect(JobCancelling, j.StopForJob)
    climb = Climb(ended_by=Rung.KILL, seconds=((Rung.STOP, 17.0), (Rung.KILL, 0.1)))
    book.tell(TURN).expect_nothing()
    book.tell(j.ServerLost(failure=CRASHED, climb=climb))
    ended = result(book)
    assert ended.status is JobStatus.CANCELLED
    assert ended.climb == Climb(ended_by=Rung.KILL, seconds=((Rung.ABORT, 10.0), *climb.seconds))


def test_a_cancel_that_an_earlier_process_began_has_its_deadline_again() -> None:
    book = left(alive=True, stopping=True).tell(j.TakenOver()).advance(samples.GRACES.abort)
    book.expect(JobCancelling, j.StopForJob)


def test_a_job_whose_time_runs_out_while_its_server_is_looked_for_is_stopped() -> None:
    book = left(alive=True, job_timeout=15.0).tell(j.TakenOver()).advance(5.0)
    assert snapshot(book.state, book.now).status is JobStatus.CANCELLING
    book.tell(LOST)
    assert (failure := result(book).failure) is not None
    assert failure.cause is Cause.JOB_TIMEOUT


def test_a_cancel_is_over_when_the_server_is_found_dead() -> None:
    book = cancel(left(alive=True)).tell(LOST)
    assert result(book).status is JobStatus.CANCELLED


def test_a_prompt_that_was_taken_and_is_never_answered_fails_as_that() -> None:
    """An unknown model: the server said so once, and nobody listened."""
    book = left(alive=True).tell(TURN).answer(j.ReadConversation, read(ASKED))
    book.advance(BEGIN_WITHIN)
    while not book.finished:
        book.answer(j.ReadConversation, read(ASKED)).advance(REREAD_DELAY)
    assert book.now < 2 * BEGIN_WITHIN
    assert result(book).failure == Failure(
        cause=Cause.REJECTED, message="OpenCode took the prompt and never began to answer it"
    )


@pytest.mark.parametrize("stopping", [False, True])
def test_a_job_whose_conversation_is_gone_is_over(*, stopping: bool) -> None:
    book = left(stopping=stopping).tell(evolve(TURN, conversation=e.ConversationId("ses_another")))
    if stopping:
        assert result(book).status is JobStatus.CANCELLED
    else:
        failure = result(book).failure
        assert failure is not None
        assert failure.cause is Cause.LOST
        assert "does not know the job's conversation" in failure.message


# ---- questions


def test_what_waited_for_an_answer_still_does_and_is_not_announced_again() -> None:
    book = left(alive=True, wanted=(samples.QUESTION,))
    assert snapshot(book.state, 0.0).pending == (samples.QUESTION,)
    book.tell(TURN).expect_some(j.JobTimer.UNANSWERED)
    busy = frozenset((CONVERSATION,))
    listed = j.RequestsRead(children=frozenset(), busy=busy, requests=(samples.QUESTION,))
    asking = message(answer(), samples.BASH)
    book.answer(j.ReadConversation, read(ASKED, asking, state=ConversationState.BUSY))
    book.answer(j.ReadRequests, listed)
    assert snapshot(book.state, book.now).activity is ActivityState.WAITING
    assert not [word for word in book.notices if isinstance(word, ToolStarted)]
    assert not [word for word in book.notices if isinstance(word, InputWanted)]
    book.tell(j.AnswerRequest(ask=AskId(7), request="que_1", answer=j.QuestionAnswer(answers=(("Blue",),))))
    assert book.running(j.ReplyToRequest).request == samples.QUESTION


def test_what_was_answered_meanwhile_waits_no_more() -> None:
    book = left(alive=True, wanted=(samples.QUESTION,)).tell(TURN)
    book.answer(
        j.ReadRequests,
        j.RequestsRead(children=frozenset(), busy=frozenset((CONVERSATION,)), requests=()),
    )
    ended = [word for word in book.notices if isinstance(word, InputAnswered)]
    assert [(word.request, word.end) for word in ended] == [("que_1", InputEnd.GONE)]


def test_an_answer_before_the_server_is_found_is_said_to_be_unsure() -> None:
    book = left(alive=True, wanted=(samples.QUESTION,))
    book.tell(j.AnswerRequest(ask=AskId(7), request="que_1", answer=j.Rejection()))
    reply = book.replies[AskId(7)]
    assert isinstance(reply, j.NotAnswered)
    assert reply.why is j.NoAnswer.UNSURE


def test_an_answer_to_a_server_that_has_ended_finds_nobody_who_waits() -> None:
    book = left(wanted=(samples.QUESTION,))
    book.tell(j.AnswerRequest(ask=AskId(7), request="que_1", answer=j.Rejection()))
    reply = book.replies[AskId(7)]
    assert isinstance(reply, j.NotAnswered)
    assert reply.why is j.NoAnswer.GONE


# ---- nobody was there any more


def test_an_answer_that_was_complete_when_its_server_ended_is_completed() -> None:
    book = left("Hello").tell(TURN)
    said = message(samples.DONE, evolve(HELLO, text="Hello"))
    book.answer(j.ReadConversation, read(ASKED, said)).answer(j.ReadConversation, read(ASKED, said))
    assert result(book).status is JobStatus.COMPLETED
    assert not new_output(book)


def test_an_answer_that_broke_off_fails_as_what_ended_it() -> None:
    book = left("Hel").tell(TURN).answer(j.ReadConversation, read(ASKED, BROKEN_OFF))
    assert result(book).failure == samples.LOST


def test_a_prompt_that_never_arrived_is_sent_to_the_new_server() -> None:
    book = left().tell(TURN).answer(j.ReadConversation, read())
    assert book.running(j.SubmitPrompt).prompt.message_id == USER


# ---- onCrash


@pytest.mark.parametrize("policy", OnCrash)
def test_a_crash_in_mid_answer(policy: OnCrash) -> None:
    book = says(running(on_crash=policy), text(""), delta("Hel"))
    first = book.advance(1.0).state.prompt
    book.tell(LOST)
    if policy is OnCrash.FAIL:
        assert result(book).failure == CRASHED
        return
    assert snapshot(book.state, book.now).status is JobStatus.RUNNING
    book.tell(TURN).answer(j.ReadConversation, read(ASKED, BROKEN_OFF))
    sent = book.running(j.SubmitPrompt).prompt
    assert sent.message_id > first.message_id
    assert (sent.model, sent.agent, sent.system) == (first.model, first.agent, first.system)
    assert "exit code 139" in sent.text
    assert book.output.startswith("Hel\n[interrupted: the container ended: exit code 139")
    begun = [r.begun for r in book.recorded if isinstance(r, JobRecorded) and r.begun is not None][-1]
    assert (begun.continues, begun.message) == (True, sent.message_id)
    book.advance(1.0).answer(j.SubmitPrompt, j.PromptTaken())
    second = evolve(answer(), id=e.MessageId("msg_z5"), parent=sent.message_id)
    more = e.TextPart(id=e.PartId("prt_z5"), message=second.id, text="lo again", finished=True)
    says(
        book,
        BUSY,
        e.MessageUpdated(info=second),
        e.PartUpdated(conversation=CONVERSATION, part=more),
        e.MessageUpdated(info=evolve(second, completed_at=1.0, finish="stop")),
        IDLE,
    )
    assert result(book).status is JobStatus.COMPLETED
    assert book.output.endswith("]\nlo again")
    assert book.output.count("Hel") == 1


def test_a_job_that_crashes_its_server_again_and_again_is_not_gone_on_with_for_ever() -> None:
    book = running(on_crash=OnCrash.RESUME)
    for _ in range(job.CONTINUATIONS):
        book.advance(1.0).tell(LOST).tell(TURN).answer(j.ReadConversation, read(asked_in(book)))
        book.answer(j.SubmitPrompt, j.PromptTaken())
    book.tell(LOST).tell(TURN).answer(j.ReadConversation, read(asked_in(book)))
    assert result(book).failure == CRASHED
    assert book.output.count("[interrupted: ") == job.CONTINUATIONS


def asked_in(book: Book) -> e.Message:
    """The prompt that was sent last, as the conversation has it."""
    sent = book.state.continuation or book.state.prompt
    return message(evolve(answer(), id=sent.message_id, role="user", parent=None))


def test_an_answer_that_was_complete_when_the_server_crashed_is_not_gone_on_with() -> None:
    book = says(running(on_crash=OnCrash.RESUME), text(""), delta("Hel")).tell(LOST).tell(TURN)
    said = message(samples.DONE, evolve(HELLO, text="Hello"))
    book.answer(j.ReadConversation, read(ASKED, said)).answer(j.ReadConversation, read(ASKED, said))
    assert result(book).status is JobStatus.COMPLETED
    assert book.output == "Hello"


def test_p19_what_was_heard_behind_a_gap_when_the_server_crashed_waits_for_what_fell_into_it() -> None:
    book = says(running(on_crash=OnCrash.RESUME), text(""), delta("Hel")).tell(j.StreamOpened())
    says(book, text(" and more", part=e.PartId("prt_z4"))).tell(LOST).tell(TURN)
    said = message(samples.DONE, evolve(HELLO, text="Hello"), part(" and more", 4))
    book.answer(j.ReadConversation, read(ASKED, said)).answer(j.ReadConversation, read(ASKED, said))
    assert result(book).status is JobStatus.COMPLETED
    assert book.output == "Hello\n and more"


def test_a_crash_while_it_waits_for_its_server_changes_only_what_it_may_fail_of() -> None:
    book = says(running(on_crash=OnCrash.RESUME), text(""), delta("Hel")).tell(LOST)
    again = Failure(cause=Cause.OOM, message="the container ran out of memory")
    book.tell(j.ServerLost(failure=again, again=True)).tell(TURN)
    book.answer(j.ReadConversation, read(ASKED, BROKEN_OFF))
    assert "ran out of memory" in book.output


def test_a_session_that_gives_up_ends_the_wait() -> None:
    book = running(on_crash=OnCrash.RESUME).tell(LOST)
    book.tell(j.SessionFailed(failure=evolve(CRASHED, message="given up")))
    assert result(book).failure == evolve(CRASHED, message="given up")


def test_a_cancel_while_it_waits_for_a_new_server_settles_at_once() -> None:
    book = cancel(running(on_crash=OnCrash.RESUME).tell(LOST))
    assert result(book).status is JobStatus.CANCELLED
    assert result(book).climb == Climb(ended_by=None)


def test_a_session_that_is_closed_gives_no_next_turn() -> None:
    climb = Climb(ended_by=Rung.STOP)
    book = running(on_crash=OnCrash.RESUME).tell(j.ServerLost(failure=CRASHED, climb=climb))
    assert result(book).failure == CRASHED


def test_a_question_dies_with_its_server() -> None:
    asked = e.QuestionAsked(conversation=CONVERSATION, request="que_1", text="Which colour?", options=())
    book = says(running(on_crash=OnCrash.RESUME), asked).tell(LOST)
    assert snapshot(book.state, book.now).pending == ()
    assert [word.end for word in book.notices if isinstance(word, InputAnswered)] == [InputEnd.GONE]


# ---- what is told already


def told_again(pieces: tuple[Piece, ...], *messages: e.Message) -> str:
    """What is added to the file when the conversation is read after a restart."""
    _, placed = admit(OutputMeter(limit=0), pieces)
    transcript = taken_up(CONVERSATION, USER, tuple(p.piece for p in placed))
    _, more = conversation_read(transcript, messages)
    return "".join(piece.text for piece in more)


def part(words: str, n: int, *, finished: bool = True) -> e.TextPart:
    return e.TextPart(id=e.PartId(f"prt_z{n}"), message=ANSWER, text=words, finished=finished)


def piece(words: str, n: int, at: int = 0, kind: OutputKind = OutputKind.TEXT) -> Piece:
    return Piece(kind=kind, text=words, part=e.PartId(f"prt_z{n}"), at=at)


TOOL_DONE = evolve(samples.BASH, state=e.ToolState.COMPLETED)


def test_tool_lines_that_stand_there_in_another_order_are_not_told_again() -> None:
    other = evolve(TOOL_DONE, id=e.PartId("prt_z3"), title="make lint")
    told = (piece("[bash] make lint\n", 3, kind=OutputKind.TOOL),)
    assert told_again(told, message(answer(), TOOL_DONE, other)) == "[bash] make test\n"
    assert TOOL_DONE.id == TOOL


def test_a_line_break_of_ours_is_not_taken_for_the_models() -> None:
    told = (piece("one", 1), piece("\ntwo", 4))
    assert told_again(told, message(answer(), part("one", 1), part("two and more", 4))) == " and more"
    told = (piece("one\n", 1), piece("\ntwo", 4))
    assert told_again(told, message(answer(), part("one\n", 1), part("\ntwo.", 4))) == "."


def test_an_attempt_that_took_over_from_an_abandoned_one_is_told_on_where_it_was() -> None:
    told = (piece("Hello", 1), piece(", wor", 4, at=5))
    said = message(answer(), part("", 1, finished=False), part("Hello, world", 4))
    assert told_again(told, said) == "ld"
    assert told_again(told[:1], said) == ", world"


def test_an_answer_that_was_begun_afresh_is_told_on_from_there() -> None:
    remark = Piece(kind=OutputKind.REMARK, text="\n[started again]\n")
    told = (piece("Hello", 1), remark, piece("Hallo", 1))
    assert told_again(told, message(answer(), part("Hallo Welt", 1))) == " Welt"


def test_a_truncated_output_stays_truncated() -> None:
    meter, placed = admit(OutputMeter(limit=4), (piece("too long", 1),))
    again = going_on(4, meter.size, tuple(p.piece for p in placed))
    assert again.truncated
    assert admit(again, (piece("more", 1, at=8),))[1] == ()


def test_an_interrupted_job_is_neither_idle_nor_gone() -> None:
    seen = snapshot(left("Hel", alive=True).state, 0.0)
    assert (seen.status, seen.activity) == (JobStatus.RUNNING, ActivityState.IDLE)
    assert seen.output_bytes == 3
    assert seen.elapsed_seconds == pytest.approx(10.0)
    assert not [word for word in left("Hel").tell(TURN).notices if isinstance(word, JobStarted)]


# ---- what is to be done

FIRST, SECOND = (e.Todo(content=word, status="pending") for word in ("first", "second"))


def todo_lists(*todos: e.Todo) -> j.RequestsRead:
    return j.RequestsRead(children=frozenset(), busy=frozenset((CONVERSATION,)), requests=(), todos=todos)


def test_what_is_to_be_done_is_recorded_when_it_changes() -> None:
    book = says(running(), e.TodosUpdated(conversation=CONVERSATION, todos=(FIRST,)))
    (*_, recorded) = [record for record in book.recorded if isinstance(record, JobRecorded)]
    assert recorded.snapshot.todos == (FIRST,)


def test_a_job_that_is_taken_over_reads_again_what_is_to_be_done() -> None:
    book = left(alive=True, todos=(FIRST,)).tell(TURN)
    assert snapshot(book.state, book.now).todos == (FIRST,)
    book.answer(j.ReadRequests, todo_lists(SECOND))
    assert snapshot(book.state, book.now).todos == (SECOND,)
    assert [word.todos for word in book.notices if isinstance(word, TodosChanged)] == [(SECOND,)]


def test_a_list_that_was_read_before_a_newer_one_was_heard_is_not_taken() -> None:
    book = left(alive=True, todos=(FIRST,)).tell(TURN)
    says(book, e.TodosUpdated(conversation=CONVERSATION, todos=(FIRST, SECOND)))
    book.answer(j.ReadRequests, todo_lists(FIRST))
    assert snapshot(book.state, book.now).todos == (FIRST, SECOND)


def test_what_an_earlier_job_of_the_conversation_was_to_do_is_not_this_ones() -> None:
    book = left(alive=True).tell(TURN)
    book.answer(j.ReadRequests, todo_lists(SECOND))
    assert snapshot(book.state, book.now).todos == ()


# ---- the clock


def test_a_prompt_that_never_arrived_is_not_sent_when_the_clock_was_set_back() -> None:
    book = left().tell(TURN)
    book.ahead = -3600.0
    book.answer(j.ReadConversation, read())
    failure = result(book).failure
    assert failure is not None
    assert "the clock was set back" in failure.message


def test_a_broken_answer_is_not_gone_on_with_when_the_clock_was_set_back() -> None:
    book = says(running(on_crash=OnCrash.RESUME), text(""), delta("Hel"))
    book.tell(LOST).tell(TURN)
    book.ahead = -3600.0
    book.answer(j.ReadConversation, read(ASKED, BROKEN_OFF))
    failure = result(book).failure
    assert failure is not None
    assert failure.cause is Cause.CRASH
    assert "the clock was set back" in failure.message
