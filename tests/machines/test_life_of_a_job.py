"""One prompt's life, as examples to read."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from opencode_actors.machines import job_messages as j
from opencode_actors.machines import server_events as e
from opencode_actors.machines.notices import (
    InputWanted,
    JobCancelling,
    JobEnded,
    JobLasted,
    JobRecorded,
    JobReported,
    JobStarted,
    OutputAdded,
    OutputFilled,
    OutputRecorded,
    ProviderRetrying,
    ToolStarted,
)
from opencode_actors.machines.vocabulary import (
    ActivityState,
    AskId,
    Cause,
    Climb,
    Failure,
    Finish,
    Forget,
    JobSnapshot,
    JobStatus,
    Run,
    Rung,
    StopTimer,
)
from opencode_actors.ports import ConversationState, Process
from opencode_actors.testing import samples
from opencode_actors.testing.playbook import EPOCH
from opencode_actors.testing.samples import CHILD, CONVERSATION
from tests.machines.jobs import (
    ABORT_ERROR,
    ABORTED,
    BEGUN,
    BUSY,
    CHILD_BORN,
    DONE,
    IDLE,
    TURN,
    Book,
    cancel,
    cancelling,
    delta,
    message,
    queued,
    read,
    result,
    retrying,
    running,
    says,
    text,
    tool,
)

DIED = Failure(cause=Cause.CRASH, message="the container ended: exit code 139", exit_code=139)
NOTHING_LEFT = j.ProcessesSeen(processes=samples.RESIDENTS)
STOPPED = Climb(ended_by=Rung.KILL, seconds=((Rung.STOP, 15.0), (Rung.KILL, 0.1)))


# ---- a good day


def test_a_prompt_is_sent_answered_and_settled() -> None:
    book = queued()
    book.tell(TURN).expect(JobStarted, j.SubmitPrompt, j.JobTimer.IDLE, j.JobTimer.TOTAL, j.JobTimer.REMIND)
    book.answer(j.SubmitPrompt, j.PromptTaken()).expect(j.JobTimer.START)
    says(book, BUSY, BEGUN).expect_nothing()
    says(book, text(""), delta("Hel"), delta("lo")).expect(OutputAdded)
    says(book, text("Hello"), DONE).expect(Forget(kind=j.ReadConversation), j.JobTimer.REREAD)
    says(book, BUSY, IDLE).expect(j.JobOver, JobEnded, Finish)
    assert result(book).status is JobStatus.COMPLETED
    assert book.output == "Hello"
    assert result(book).output_bytes == 5


def test_what_is_shown_is_recorded_first_and_the_end_last() -> None:
    book = says(running(), text(""), delta("Hello"), text("Hello"), DONE, IDLE)
    assert [type(record) for record in book.records] == [OutputRecorded, JobRecorded]


def test_a_tools_start_is_told_and_its_end_is_one_line_of_output() -> None:
    book = says(running(), tool(e.ToolState.PENDING)).expect_nothing()
    says(book, tool(e.ToolState.RUNNING)).expect(ToolStarted)
    says(book, tool(e.ToolState.RUNNING)).expect_nothing()
    says(book, tool(e.ToolState.COMPLETED, exit_code=0, started_at=10.0, ended_at=13.21))
    assert book.output == "[bash] make test (exit 0, 3.2 s)\n"


def test_a_tool_takes_no_negative_time_when_the_servers_clock_is_set_back() -> None:
    book = says(running(), tool(e.ToolState.COMPLETED, exit_code=0, started_at=10.0, ended_at=-3590.0))
    assert book.output == "[bash] make test (exit 0)\n"


def test_words_and_tools_stand_on_lines_of_their_own() -> None:
    book = says(running(), text("I look."), tool(e.ToolState.ERROR, error="no such file"))
    says(book, text("Done.", part=e.PartId("prt_z3")))
    assert book.output == "I look.\n[bash] make test (failed: no such file)\nDone."


def test_the_answer_goes_on_in_the_next_message_after_tools() -> None:
    second = samples.answer(id=e.MessageId("msg_z2"))
    book = says(running(), e.MessageUpdated(info=samples.answer(completed_at=1.0, finish="tool-calls")))
    says(book, BUSY, e.MessageUpdated(info=second), text("Done.", message=second.id))
    says(book, e.MessageUpdated(info=evolve(second, completed_at=2.0, finish="stop", cost=0.5)), IDLE)
    assert result(book).status is JobStatus.COMPLETED
    assert result(book).cost_usd == 0.5


def test_after_a_compaction_the_servers_own_prompt_is_answered_for_us_and_its_summary_is_not() -> None:
    summary = samples.answer(id=e.MessageId("msg_z3"), parent=e.MessageId("msg_z2"), summary=True)
    going_on = samples.answer(id=e.MessageId("msg_z5"), parent=e.MessageId("msg_z4"))
    book = says(running(), e.MessageUpdated(info=samples.answer(completed_at=1.0)))
    says(book, e.MessageUpdated(info=summary), text("A summary.", message=summary.id))
    says(book, e.MessageUpdated(info=going_on), text("Done.", message=going_on.id))
    says(book, e.MessageUpdated(info=evolve(going_on, completed_at=2.0, finish="stop")), IDLE)
    assert result(book).status is JobStatus.COMPLETED
    assert book.output == "Done."


def test_an_end_without_the_word_idle_is_looked_up() -> None:
    book = says(running(), text("Hello"), DONE)
    book.advance(2.0).expect(j.ReadConversation)
    book.answer(j.ReadConversation, read(message(samples.DONE)))
    assert result(book).status is JobStatus.COMPLETED


def test_what_the_prompt_before_leaves_behind_does_not_end_this_one() -> None:
    """After an error "idle" is said twice, and once it is heard by the next job."""
    book = queued().tell(TURN)
    says(book, IDLE).expect(j.ReadConversation)
    book.answer(j.ReadConversation, read()).expect_nothing()
    book.answer(j.SubmitPrompt, j.PromptTaken())
    says(book, ABORT_ERROR, IDLE, BEGUN, text("Hello"), DONE)
    assert not book.finished
    says(book, IDLE)
    assert result(book).status is JobStatus.COMPLETED


def test_words_to_an_earlier_prompt_are_not_this_jobs() -> None:
    earlier = samples.answer(id=e.MessageId("msg_y1"), parent=e.MessageId("msg_0"))
    book = says(running(), e.MessageUpdated(info=earlier), text("Old.", message=earlier.id))
    assert book.output == ""


def test_a_prompt_of_which_nobody_knows_is_sent_again_under_the_same_ids() -> None:
    book = queued().tell(TURN)
    first = book.running(j.SubmitPrompt)
    book.answer(j.SubmitPrompt, j.PromptUnsure(reason="the connection broke")).expect(j.JobTimer.SUBMIT)
    book.advance(0.5)
    assert book.running(j.SubmitPrompt) == first
    book.answer(j.SubmitPrompt, j.PromptUnsure(reason="the connection broke")).advance(0.5)
    book.answer(j.SubmitPrompt, j.PromptUnsure(reason="the connection broke"))
    book.expect(JobCancelling, *[StopTimer] * 7, Forget, j.AbortConversation, j.JobTimer.RUNG)


def test_a_prompt_is_not_sent_again_once_it_is_answered() -> None:
    book = says(queued().tell(TURN), BEGUN)
    book.answer(j.SubmitPrompt, j.PromptUnsure(reason="the connection broke")).expect_nothing()


def test_a_prompts_ids_carry_the_time_at_which_it_is_sent() -> None:
    early = queued().tell(TURN)
    late = queued().advance(100.0).tell(TURN)
    assert early.state.prompt.message_id < late.state.prompt.message_id


# ---- a bad day


def test_p25_a_crash_is_told_at_once_with_its_exit_code() -> None:
    book = says(running(), text(""), delta("Hel"))
    book.tell(j.ServerLost(failure=DIED)).expect(j.JobOver, JobEnded, Finish)
    assert result(book).status is JobStatus.FAILED
    assert result(book).failure == DIED
    assert book.output == "Hel", "what was said stays"


def test_p25_out_of_memory_is_called_that() -> None:
    oom = Failure(cause=Cause.OOM, message="the container ran out of memory", exit_code=137)
    failure = result(running().tell(j.ServerLost(failure=oom))).failure
    assert failure is not None
    assert failure.cause is Cause.OOM


def test_an_answer_that_was_complete_when_the_container_died_counts() -> None:
    book = says(running(), text("Hello"), DONE).tell(j.ServerLost(failure=DIED))
    assert result(book).status is JobStatus.COMPLETED


def test_a_job_that_waits_is_told_that_no_turn_will_come() -> None:
    book = queued().tell(j.SessionFailed(failure=samples.FAILURE))
    assert result(book).failure == samples.FAILURE


def test_a_refused_key_is_an_auth_failure() -> None:
    book = says(running(), e.MessageUpdated(info=samples.REFUSED), IDLE)
    failure = result(book).failure
    assert failure == Failure(cause=Cause.AUTH, message="no such key (HTTP 401)")


def test_an_unknown_agent_is_never_busy_and_never_idle_and_is_refused_within_seconds() -> None:
    book = queued().tell(TURN).answer(j.SubmitPrompt, j.PromptTaken())
    error = e.MessageError(name="UnknownError", message='Agent not found: "nobody"')
    says(book, e.ConversationFailed(conversation=None, error=error)).expect(j.ReadConversation)
    for _ in range(2):
        book.answer(j.ReadConversation, read()).expect(j.JobTimer.REREAD)
        book.advance(0.5)
    failure = result(book.answer(j.ReadConversation, read())).failure
    assert failure == Failure(cause=Cause.REJECTED, message='Agent not found: "nobody"')
    assert book.now == 1.0


def test_p4_a_prompt_that_is_taken_and_never_begun_is_refused() -> None:
    book = queued().tell(TURN).answer(j.SubmitPrompt, j.PromptTaken())
    book.advance(30.0).expect(j.ReadConversation)
    for _ in range(6):
        book.answer(j.ReadConversation, read()).advance(0.5)
    failure = result(book.answer(j.ReadConversation, read())).failure
    assert failure is not None
    assert failure.cause is Cause.REJECTED


def test_a_context_that_is_too_long_is_called_that_though_the_message_does_not_say_so() -> None:
    error = e.MessageError(name="ContextOverflowError", message="too long", status_code=400)
    book = says(running(), e.ConversationFailed(conversation=CONVERSATION, error=error))
    unsaid = samples.answer(completed_at=1.0)
    says(book, e.MessageUpdated(info=unsaid), IDLE)
    for _ in range(3):
        book.answer(j.ReadConversation, read(message(unsaid))).advance(0.5)
    failure = result(book).failure
    assert failure is not None
    assert failure.cause is Cause.CONTEXT


def test_an_error_that_was_heard_before_the_answer_began_is_not_this_prompts() -> None:
    error = e.MessageError(name="UnknownError", message="model not found")
    book = queued().tell(TURN).answer(j.SubmitPrompt, j.PromptTaken())
    says(book, e.ConversationFailed(conversation=None, error=error), BEGUN, IDLE)
    for _ in range(8):
        if not book.finished:
            book.answer(j.ReadConversation, read(message(samples.answer()))).advance(0.5)
    failure = result(book).failure
    assert failure == Failure(cause=Cause.LOST, message="OpenCode went idle in the middle of its answer")


def test_a_refused_prompt_fails_at_once() -> None:
    book = queued().tell(TURN).answer(j.SubmitPrompt, j.PromptRefused(failure=samples.FAILURE))
    assert result(book).failure == samples.FAILURE


def test_a_prompt_refused_at_its_second_sending_is_aborted_because_the_first_may_run() -> None:
    book = queued().tell(TURN).answer(j.SubmitPrompt, j.PromptUnsure(reason="no answer")).advance(0.5)
    book.answer(j.SubmitPrompt, j.PromptRefused(failure=samples.FAILURE)).expect_some(j.AbortConversation)


# ---- the provider


def test_p3_a_provider_that_fails_for_ever_ends_the_job_after_max_provider_retries() -> None:
    book = running(max_provider_retries=3)
    for attempt in (1, 2, 3):
        says(book, retrying(attempt)).expect(ProviderRetrying)
    says(book, retrying(4)).expect_some(ProviderRetrying, JobCancelling, j.AbortConversation)
    book.answer(j.AbortConversation, j.AbortAnswered())
    ended = message(samples.answer(completed_at=1.0))
    book.answer(j.ReadConversation, read(ended)).answer(j.ReadConversation, read(ended))
    book.answer(j.LookAtProcesses, NOTHING_LEFT)
    failure = result(book).failure
    assert failure is not None
    assert failure.cause is Cause.RATE_LIMIT
    assert "4 times" in failure.message


def test_p3_a_retry_after_beyond_patience_ends_the_job_at_once() -> None:
    book = says(running(idle_timeout=120.0), retrying(1, wait=3600.0))
    book.expect_some(ProviderRetrying, j.AbortConversation)
    assert book.noticed(ProviderRetrying)[0].seconds == 3600.0


def test_p3_p9_a_child_sessions_provider_is_bounded_too() -> None:
    book = says(running(), CHILD_BORN, e.ConversationBusy(conversation=CHILD))
    says(book, retrying(1, wait=3600.0, child=True)).expect_some(j.AbortConversation)


def test_p3_patience_that_runs_out_between_two_attempts_is_the_providers_fault() -> None:
    book = says(running(idle_timeout=60.0), retrying(1, wait=50.0)).advance(49.0)
    says(book, retrying(2, wait=50.0, now=49.0)).advance(12.0).expect_some(j.AbortConversation)
    book.tell(j.ServerLost(failure=DIED, climb=STOPPED))
    failure = result(book).failure
    assert failure is not None
    assert failure.cause is Cause.RATE_LIMIT


# ---- idle, or not


def test_p4_a_model_that_falls_silent_is_idle_after_the_idle_timeout_and_not_before() -> None:
    book = says(running(idle_timeout=120.0), text(""), delta("Let me")).advance(119.9)
    assert not book.noticed(JobCancelling)
    book.advance(0.2).expect_some(JobCancelling, j.AbortConversation)
    book.tell(j.ServerLost(failure=DIED, climb=STOPPED))
    failure = result(book).failure
    assert failure is not None
    assert failure.cause is Cause.IDLE_TIMEOUT
    assert "fell silent in the middle" in failure.message


def test_p4_a_first_word_that_never_comes_is_said_so() -> None:
    book = running(idle_timeout=120.0).advance(121.0).tell(j.ServerLost(failure=DIED))
    failure = result(book).failure
    assert failure is not None
    assert "first word never came" in failure.message


def test_p4_a_model_that_falls_silent_while_it_writes_a_tools_arguments_is_idle() -> None:
    book = says(running(idle_timeout=120.0), tool(e.ToolState.PENDING))
    book.advance(121.0).expect_some(j.AbortConversation)


def test_p5_a_tool_that_runs_for_hours_is_not_idle() -> None:
    book = says(running(idle_timeout=120.0, job_timeout=0.0), tool(e.ToolState.RUNNING)).advance(3 * 3600)
    assert not book.noticed(JobCancelling)
    says(book, tool(e.ToolState.COMPLETED)).advance(119.0)
    assert not book.noticed(JobCancelling)
    book.advance(2.0).expect_some(JobCancelling)


def test_p4_a_server_that_is_busy_with_itself_keeps_no_stalled_job_alive() -> None:
    book = running(idle_timeout=120.0)
    for _ in range(23):
        book.advance(5.0).tell(j.LoadSeen(cpu_load=0.9, memory_bytes=1))
    assert not book.noticed(JobCancelling)
    book.advance(5.1).expect_some(JobCancelling)


def delegated(*, runs: bool, ended_at: float | None = None) -> j.RequestsRead:
    return j.RequestsRead(
        children=frozenset((CHILD,)),
        busy=frozenset((CONVERSATION, CHILD)),
        requests=(),
        delegated=j.Delegated(runs=runs, ended_at=ended_at),
    )


def delegating() -> Book:
    return says(
        running(idle_timeout=120.0, job_timeout=0.0),
        e.PartUpdated(conversation=CONVERSATION, part=evolve(samples.BASH, tool="task")),
        CHILD_BORN,
        e.ConversationBusy(conversation=CHILD),
    )


def test_p9_a_child_session_at_work_is_work_and_its_end_is_not_the_jobs() -> None:
    book = delegating()
    for _ in range(9):
        book.advance(120.0).answer(j.ReadRequests, delegated(runs=True))
    assert not book.noticed(JobCancelling)
    says(book, e.ConversationIdle(conversation=CHILD), tool(e.ToolState.COMPLETED)).advance(119.0)
    assert not book.noticed(JobCancelling)
    book.advance(2.0).expect_some(JobCancelling)


def test_p4_p9_a_child_session_of_which_no_tool_runs_is_as_idle_as_it_is_silent() -> None:
    book = delegating().advance(120.0).expect_some(j.ReadRequests)
    book.answer(j.ReadRequests, delegated(runs=False)).expect_some(JobCancelling, j.AbortConversation)


def test_p9_a_child_session_is_idle_from_its_last_end_by_the_servers_word() -> None:
    """The word of it was lost in a stream that is dead, or is still on its way."""
    book = delegating().advance(120.0)
    ended_at = EPOCH + book.now - 100.0
    book.answer(j.ReadRequests, delegated(runs=False, ended_at=ended_at))
    assert not book.noticed(JobCancelling)
    book.advance(99.0)
    assert not book.noticed(JobCancelling)
    book.advance(1.5).answer(j.ReadRequests, delegated(runs=False, ended_at=ended_at))
    book.expect_some(JobCancelling)


def test_p9_an_end_that_is_still_to_come_was_told_by_another_clock() -> None:
    book = delegating().advance(120.0)
    book.answer(j.ReadRequests, delegated(runs=False, ended_at=EPOCH + book.now + 50.0))
    book.expect_some(JobCancelling)


def test_p9_a_stream_that_opens_anew_takes_no_look_at_what_is_delegated_back() -> None:
    book = delegating().advance(120.0).tell(j.StreamOpened())
    book.answer(j.ReadRequests, delegated(runs=False)).expect_some(JobCancelling)


def test_p9_a_child_session_that_speaks_while_it_is_looked_at_is_not_idle() -> None:
    book = says(delegating().advance(120.0), e.MessageUpdated(info=samples.answer(conversation=CHILD)))
    book.answer(j.ReadRequests, delegated(runs=False))
    assert not book.noticed(JobCancelling)
    book.advance(120.0).answer(j.ReadRequests, delegated(runs=False)).expect_some(JobCancelling)


def test_p9_a_child_session_of_an_earlier_job_that_is_asked_again_is_found_before_it_is_called_idle() -> None:
    asked_again = e.PartUpdated(conversation=CONVERSATION, part=evolve(samples.BASH, tool="task"))
    book = says(running(idle_timeout=120.0, job_timeout=0.0), asked_again).advance(120.0)
    book.answer(j.ReadRequests, delegated(runs=False))
    assert not book.noticed(JobCancelling)
    book.advance(120.0).answer(j.ReadRequests, delegated(runs=False)).expect_some(JobCancelling)


def test_p2_a_question_is_announced_and_waiting_is_not_idle() -> None:
    asked = e.QuestionAsked(conversation=CONVERSATION, request="que_1", text="Which colour?", options=())
    book = says(running(idle_timeout=120.0, job_timeout=0.0, question_timeout=0.0), asked)
    book.expect(InputWanted, StopTimer).advance(1000.0).tell(j.GetJob(ask=AskId(9)))
    snapshot = book.replies[AskId(9)]
    assert isinstance(snapshot, JobSnapshot)
    assert snapshot.activity is ActivityState.WAITING
    assert not book.noticed(JobCancelling)
    says(book, e.RequestAnswered(conversation=CONVERSATION, request="que_1")).advance(121.0)
    book.expect_some(JobCancelling)


def test_p9_a_childs_permission_blocks_the_parent_in_sight() -> None:
    asked = e.PermissionAsked(conversation=CHILD, request="per_1", permission="bash", text="rm -r build")
    says(running(), CHILD_BORN, asked).expect(InputWanted, j.JobTimer.UNANSWERED)


def test_p9_parts_that_say_running_for_ever_do_not_keep_a_job_alive() -> None:
    book = says(running(idle_timeout=120.0), tool(e.ToolState.RUNNING))
    says(book, e.MessageUpdated(info=samples.answer(completed_at=1.0, finish="tool-calls")))
    book.advance(121.0).expect_some(JobCancelling)


def test_a_question_whose_answer_fell_into_a_gap_is_over_with_the_next_step() -> None:
    asked = e.QuestionAsked(conversation=CONVERSATION, request="que_1", text="Which colour?", options=())
    book = says(running(idle_timeout=120.0), asked)
    says(book, e.MessageUpdated(info=samples.answer(id=e.MessageId("msg_z2")))).advance(121.0)
    book.expect_some(JobCancelling)


def test_p5_a_whole_job_has_its_own_bound_busy_or_not() -> None:
    book = says(running(job_timeout=300.0), tool(e.ToolState.RUNNING)).advance(300.0)
    book.expect_some(JobCancelling, j.AbortConversation)
    failure = result(book.tell(j.ServerLost(failure=DIED, climb=STOPPED))).failure
    assert failure is not None
    assert failure.cause is Cause.JOB_TIMEOUT


# ---- cancelling


def test_a_cancel_in_the_queue_has_nothing_to_stop() -> None:
    book = cancel(queued()).expect(j.JobOver, JobEnded, JobSnapshot, Finish)
    assert result(book).climb == Climb(ended_by=None)


def test_p6_a_cancel_by_abort_is_over_when_the_server_says_so_and_not_when_it_answers() -> None:
    book = cancelling().expect_some(JobCancelling, j.AbortConversation, j.JobTimer.RUNG)
    book.answer(j.AbortConversation, j.AbortAnswered()).expect(j.ReadConversation)
    assert book.owed == {AskId(1)}
    book.answer(j.ReadConversation, read(message(samples.answer()), state=ConversationState.BUSY))
    says(book, ABORT_ERROR, IDLE).expect(j.ReadConversation)
    book.answer(j.ReadConversation, read(message(samples.answer()))).expect(j.JobTimer.REREAD)
    book.advance(0.3)
    says(book, ABORTED, IDLE).expect_some(j.LookAtProcesses)
    assert not book.finished
    book.answer(j.LookAtProcesses, NOTHING_LEFT)
    assert result(book).status is JobStatus.CANCELLED
    climb = result(book).climb
    assert climb is not None
    assert climb.ended_by is Rung.ABORT
    assert book.replies[AskId(1)] == result(book)


def test_p6_an_abort_that_is_not_heard_takes_the_container_down() -> None:
    book = cancelling().answer(j.AbortConversation, j.AbortAnswered())
    book.answer(j.ReadConversation, read(message(samples.answer()), state=ConversationState.BUSY))
    book.advance(9.4)
    assert not book.told
    book.advance(0.7).expect_some(JobCancelling, j.StopForJob)
    assert not book.operations
    book.advance(17.1).tell(j.ServerLost(failure=DIED, climb=STOPPED))
    assert result(book).status is JobStatus.CANCELLED
    assert result(book).climb == Climb(
        ended_by=Rung.KILL,
        seconds=((Rung.ABORT, 10.0), (Rung.STOP, 15.0), (Rung.KILL, 0.1)),
        why="OpenCode did not end its answer within abortGrace (10 s)",
    )


def looks(book: Book, *more: Process) -> Book:
    if j.ReadConversation in book.operations:
        book.answer(j.ReadConversation, read(message(samples.ABORTED)))
    return book.answer(j.LookAtProcesses, j.ProcessesSeen(processes=(*samples.RESIDENTS, *more)))


def test_p6_a_cancel_is_not_over_while_a_command_of_the_job_lives() -> None:
    book = says(cancelling().answer(j.AbortConversation, j.AbortAnswered()), ABORTED, IDLE)
    looks(book, samples.DAEMON).expect(j.JobTimer.REREAD)
    book.advance(0.25)
    looks(book, samples.DAEMON)
    assert not book.finished
    book.advance(0.25)
    climb = result(looks(book)).climb
    assert climb is not None
    assert (climb.ended_by, climb.why) == (Rung.ABORT, "")


def test_p6_a_command_that_outlives_the_abort_takes_the_container_down_and_is_named() -> None:
    book = says(cancelling().answer(j.AbortConversation, j.AbortAnswered()), ABORTED, IDLE)
    while book.now < 9.6:
        looks(book, samples.DAEMON).advance(0.25)
    book.advance(1.0).expect_some(JobCancelling, j.StopForJob)
    assert not book.operations
    book.tell(j.ServerLost(failure=DIED, climb=STOPPED))
    climb = result(book).climb
    assert climb is not None
    assert climb.why == "sleep (pid 4250) outlived the abort by abortGrace (10 s)"
    assert book.noticed(JobCancelling)[-1].why == climb.why


def test_what_is_complete_may_leave_something_running_also_when_a_cancel_meets_it() -> None:
    book = cancel(says(running(), text("Hello"), DONE))
    book.answer(j.AbortConversation, j.AbortAnswered())
    book.answer(j.ReadConversation, read(message(samples.DONE)))
    assert result(book).status is JobStatus.COMPLETED
    assert j.LookAtProcesses not in book.operations


def test_p6_a_prompt_that_begins_while_its_leftovers_are_looked_for_is_aborted_first() -> None:
    book = cancel(queued().tell(TURN).answer(j.SubmitPrompt, j.PromptTaken()))
    book.answer(j.AbortConversation, j.AbortAnswered())
    while j.LookAtProcesses not in book.operations:
        book.answer(j.ReadConversation, read()).advance(0.5)
    says(book, BUSY, BEGUN).expect(Forget(kind=j.LookAtProcesses), j.AbortConversation)
    assert not book.finished


def test_a_second_sending_does_not_take_the_jobs_own_processes_for_residents() -> None:
    book = queued().tell(TURN).hear(j.SubmitPrompt, j.ResidentsSeen(processes=samples.RESIDENTS))
    book.answer(j.SubmitPrompt, j.PromptUnsure(reason="no answer came")).advance(0.5)
    book.hear(j.SubmitPrompt, j.ResidentsSeen(processes=(*samples.RESIDENTS, samples.DAEMON)))
    book.answer(j.SubmitPrompt, j.PromptTaken())
    says(cancel(says(book, BUSY, BEGUN)), ABORTED, IDLE).answer(j.AbortConversation, j.AbortAnswered())
    looks(book, samples.DAEMON)
    assert not book.finished


def test_an_abort_that_fails_takes_the_container_down_at_once() -> None:
    cancelling().answer(j.AbortConversation, j.AbortFailed(reason="refused")).expect_some(j.StopForJob)


def test_a_container_that_nobody_could_end_is_told_with_the_cancel() -> None:
    book = cancelling().advance(10.0)
    quarantine = Climb(ended_by=Rung.QUARANTINE, seconds=((Rung.STOP, 15.0),))
    book.tell(j.ServerLost(failure=DIED, climb=quarantine))
    climb = result(book).climb
    assert climb is not None
    assert climb.ended_by is Rung.QUARANTINE


def test_a_second_cancel_joins_the_first() -> None:
    book = cancel(cancelling(), ask=2).expect_nothing()
    book.tell(j.ServerLost(failure=DIED))
    assert book.replies == {AskId(1): result(book), AskId(2): result(book)}


def test_a_cancel_after_the_end_is_answered_at_once() -> None:
    book = cancel(says(running(), DONE, IDLE), ask=7)
    assert book.replies[AskId(7)] == result(book)


def test_a_cancel_that_meets_the_end_leaves_the_answer_complete() -> None:
    book = cancel(says(running(), text("Hello"), DONE))
    book.answer(j.AbortConversation, j.AbortAnswered())
    book.answer(j.ReadConversation, read(message(samples.DONE)))
    assert result(book).status is JobStatus.COMPLETED
    assert book.replies[AskId(1)] == result(book)


def test_p6_a_job_is_not_over_while_its_abort_is_on_its_way_to_hit_the_next_one() -> None:
    book = says(says(cancelling(), ABORTED), IDLE)
    assert set(book.operations) == {j.AbortConversation}, "a reading would decide nothing yet"
    assert not book.finished
    book.answer(j.AbortConversation, j.AbortAnswered())
    assert result(looks(book)).status is JobStatus.CANCELLED


def test_an_idle_that_is_younger_than_the_end_of_what_was_aborted_says_what_a_reading_would() -> None:
    book = cancelling().answer(j.AbortConversation, j.AbortAnswered())
    says(book, IDLE, ABORTED).expect_some(j.ReadConversation)  # one idle comes before the end, one after it
    says(book, IDLE).expect_some(j.LookAtProcesses)
    assert set(book.operations) == {j.LookAtProcesses}
    book.answer(j.LookAtProcesses, j.ProcessesSeen(processes=samples.RESIDENTS))
    assert result(book).status is JobStatus.CANCELLED


def test_p6_a_job_is_not_over_while_its_prompt_is_on_its_way_to_run_beside_the_next_one() -> None:
    book = cancel(queued().tell(TURN)).answer(j.AbortConversation, j.AbortAnswered())
    while book.now < 9.0:
        book.answer(j.ReadConversation, read()).advance(0.5)
    assert not book.finished
    book.advance(1.0).expect_some(j.StopForJob)


@pytest.mark.parametrize("answer", [j.PromptTaken(), j.PromptUnsure(reason="no answer came")])
def test_p6_a_prompt_that_arrives_after_the_abort_is_aborted_too(answer: j.JobMessage) -> None:
    book = cancel(queued().tell(TURN)).answer(j.AbortConversation, j.AbortAnswered())
    book.answer(j.SubmitPrompt, answer).expect_some(j.AbortConversation)


def test_p6_a_prompt_that_begins_after_the_abort_is_aborted_too() -> None:
    book = cancel(queued().tell(TURN).answer(j.SubmitPrompt, j.PromptTaken()))
    book.answer(j.AbortConversation, j.AbortAnswered()).answer(j.ReadConversation, read())
    says(book, BUSY, BEGUN).expect_some(
        Run(operation=j.AbortConversation(endpoint=samples.ENDPOINT, conversation=CONVERSATION))
    )


def test_a_cancelled_prompt_that_never_begins_is_over_after_three_seconds_of_looking() -> None:
    book = cancel(queued().tell(TURN).answer(j.SubmitPrompt, j.PromptTaken()))
    book.answer(j.AbortConversation, j.AbortAnswered())
    while j.LookAtProcesses not in book.operations:
        book.answer(j.ReadConversation, read()).advance(0.5)
    book.answer(j.LookAtProcesses, NOTHING_LEFT)
    assert result(book).status is JobStatus.CANCELLED
    assert book.now == pytest.approx(3.0, abs=0.6)


# ---- long ones


def test_a_job_that_runs_long_says_so_after_gaps_that_grow() -> None:
    book = running(remind_after=600.0, idle_timeout=1e6, job_timeout=0.0)
    reminded = list[float]()
    for _ in range(200):
        book.advance(60.0)
        reminded += [notice.seconds for notice in book.noticed(JobLasted)[len(reminded) :]]
    assert reminded == [600.0, 1800.0, 4200.0, 9000.0]
    assert all(notice.job == samples.JOB for notice in book.noticed(JobLasted))


def test_nobody_is_reminded_of_a_job_that_is_being_ended_or_when_never_is_wanted() -> None:
    never = running(remind_after=0.0, idle_timeout=1e6, job_timeout=0.0).advance(9e5)
    assert not never.noticed(JobLasted)
    ending = cancelling(remind_after=5.0).advance(9.0)
    assert j.JobTimer.REMIND not in ending.timers
    assert not ending.noticed(JobLasted)


def test_reports_are_due_at_equal_gaps_and_never_when_nobody_wants_them_D3() -> None:
    book = running(report_every=120.0, idle_timeout=1e6, job_timeout=0.0).advance(500.0)
    assert [notice.seconds for notice in book.noticed(JobReported)] == [120.0, 240.0, 360.0, 480.0]
    never = running(report_every=0.0, idle_timeout=1e6, job_timeout=0.0).advance(9e5)
    assert not never.noticed(JobReported)
    ending = cancelling(report_every=5.0).advance(9.0)
    assert j.JobTimer.REPORT not in ending.timers


# ---- the stream


def test_p8_what_fell_into_a_gap_is_read_and_stands_in_its_place() -> None:
    book = says(running(), text(""), delta("one "))
    book.tell(j.StreamOpened()).expect(j.ReadConversation, j.ReadRequests)
    last = e.PartId("prt_z3")
    says(book, text("", part=last), delta("three", part=last)).expect_nothing()
    says(book, text("three", part=last)).expect_nothing()
    stored = (
        evolve(samples.HELLO, text="one two\n"),
        evolve(samples.BASH, state=e.ToolState.COMPLETED),
        evolve(samples.HELLO, id=last, text="", finished=False),
    )
    busy = ConversationState.BUSY
    book.answer(j.ReadConversation, read(message(samples.answer(), *stored), state=busy))
    assert book.output == "one two\n[bash] make test\nthree"


def test_p8_a_part_that_was_open_in_the_gap_is_shown_when_it_ends() -> None:
    book = says(running(), text(""), delta("one "))
    book.tell(j.StreamOpened())
    still = evolve(samples.HELLO, text="", finished=False)
    busy = ConversationState.BUSY
    book.answer(j.ReadConversation, read(message(samples.answer(), still), state=busy))
    says(book, delta("three")).expect_nothing()
    says(book, text("one two three"))
    assert book.output == "one two three"


def test_p8_a_part_that_was_first_met_by_reading_is_not_continued_in_its_middle() -> None:
    book = queued().tell(TURN).answer(j.SubmitPrompt, j.PromptTaken()).tell(j.StreamOpened())
    still = evolve(samples.HELLO, text="", finished=False)
    busy = ConversationState.BUSY
    book.answer(j.ReadConversation, read(message(samples.answer(), still), state=busy))
    says(book, delta("two ")).expect_nothing()
    says(book, text("one two three"))
    assert book.output == "one two three"


def test_p8_what_was_heard_after_a_gap_is_kept_when_the_container_dies_before_the_reading() -> None:
    book = running().tell(j.StreamOpened())
    says(book, text("Hello")).expect_nothing()
    book.answer(j.ReadConversation, j.ReadFailed(reason="refused")).expect(j.JobTimer.REREAD)
    book.tell(j.ServerLost(failure=DIED))
    assert book.output == "Hello"


def test_a_reading_that_is_older_than_what_was_heard_does_not_end_the_job() -> None:
    """The state was read before the prompt began, the messages a step later."""
    book = queued().tell(TURN).tell(j.StreamOpened())
    says(book, BUSY, BEGUN)
    step = samples.answer(completed_at=1.0, finish="tool-calls")
    book.answer(j.ReadConversation, read(message(step))).expect(j.JobTimer.REREAD)
    book.advance(0.5)
    book.answer(j.ReadConversation, read(message(step), state=ConversationState.BUSY))
    assert not book.finished


def test_an_idle_that_is_older_than_the_answers_end_is_looked_up_again() -> None:
    """The next prompt would fall into the moment in which the server leaves this one."""
    book = running().tell(j.StreamOpened())
    book.answer(j.ReadConversation, read(message(samples.DONE, samples.HELLO))).expect(
        OutputAdded, j.ReadConversation
    )
    book.answer(j.ReadConversation, read(message(samples.DONE), state=ConversationState.BUSY))
    assert not book.finished
    says(book, IDLE)
    assert result(book).status is JobStatus.COMPLETED


def test_an_instance_that_was_thrown_away_is_looked_after() -> None:
    says(running(), e.InstanceDisposed()).expect(j.ReadConversation)


def test_output_at_its_bound_ends_between_two_characters_and_says_so() -> None:
    book = says(running(max_output_size=4), text("a漢字"))
    assert book.output == "a漢\n[output ends here: maxOutputSize is 4 bytes]\n"
    assert [notice.size for notice in book.noticed(OutputFilled)] == [len(book.output.encode())]
    says(book, text("more", part=e.PartId("prt_z9"))).expect_nothing()
    says(book, DONE, IDLE)
    assert result(book).output_truncated
    assert result(book).status is JobStatus.COMPLETED


def test_the_text_of_an_attempt_that_broke_off_is_not_shown_twice() -> None:
    second = e.PartId("prt_z2")
    book = says(running(), text(""), delta("tok0 "), delta("tok1 "), retrying(1))
    says(book, text("", part=second), delta("tok0 ", part=second), delta("tok1 tok2", part=second))
    says(book, text("tok0 tok1 tok2", part=second))
    assert book.output == "tok0 tok1 tok2"


def test_an_attempt_that_says_something_else_is_marked() -> None:
    second = e.PartId("prt_z2")
    book = says(running(), text(""), delta("one two"), retrying(1))
    says(book, text("", part=second), delta("one three", part=second))
    assert book.output == "one two\n[the answer broke off, and the model started it again]\none three"


def test_a_status_at_any_time_tells_what_goes_on() -> None:
    book = says(running(), text("Hello"), tool(e.ToolState.RUNNING))
    book.advance(15.0).tell(j.LoadSeen(cpu_load=0.7, memory_bytes=1 << 29)).tell(j.GetJob(ask=AskId(5)))
    snapshot = book.replies[AskId(5)]
    assert isinstance(snapshot, JobSnapshot)
    assert snapshot.status is JobStatus.RUNNING
    assert snapshot.activity is ActivityState.PROCESSING
    assert snapshot.elapsed_seconds == 15.0
    assert snapshot.last_output_seconds_ago == 15.0
    assert (snapshot.cpu_load, snapshot.memory_bytes) == (0.7, 1 << 29)
    assert snapshot.model == "m/one"


# ---- the clock


def _asked(at: float) -> Book:
    """The server has taken the prompt, by its clock `at` that time."""
    book = queued().tell(TURN)
    id_ = book.running(j.SubmitPrompt).prompt.message_id
    book.answer(j.SubmitPrompt, j.PromptTaken())
    user = e.MessageInfo(id=id_, conversation=CONVERSATION, role="user", created_at=at)
    return says(book, e.MessageUpdated(info=user))


def _made(at: float, id_: str, **info: Any) -> e.MessageUpdated:
    return e.MessageUpdated(info=samples.answer(id=e.MessageId(id_), created_at=at, **info))


def test_an_answer_that_stands_before_its_prompt_is_one_and_the_server_is_kept_from_asking_again() -> None:
    book = says(_asked(1000.0), _made(400.0, "msg_a1"), text("Hello", message=e.MessageId("msg_a1")))
    assert not book.finished
    says(book, _made(400.0, "msg_a1", completed_at=401.0, finish="stop"))
    book.expect_some(JobCancelling, j.AbortConversation)
    says(book, BUSY, _made(402.0, "msg_a2"), text("Hello again", message=e.MessageId("msg_a2")))
    book.answer(j.AbortConversation, j.AbortAnswered())
    says(book, IDLE).answer(j.ReadConversation, read())
    assert result(book).status is JobStatus.COMPLETED
    assert book.output == "Hello"


def test_a_job_whose_server_has_lost_its_place_fails_of_the_clock() -> None:
    book = says(_asked(1000.0), _made(400.0, "msg_a1", completed_at=401.0, finish="tool-calls"))
    assert not book.finished
    says(book, _made(402.0, "msg_a2"))
    book.answer(j.AbortConversation, j.AbortAnswered())
    says(book, _made(400.0, "msg_a1", error=samples.ABORTED.error, completed_at=403.0), IDLE)
    book.answer(j.LookAtProcesses, NOTHING_LEFT)
    failure = result(book).failure
    assert failure is not None
    assert failure.cause is Cause.LOST
    assert "the clock was set back" in failure.message


def test_a_clock_that_has_caught_up_is_no_trouble_and_neither_is_another_hosts() -> None:
    book = says(_asked(1000.0), _made(999.0, "msg_a1", completed_at=999.5, finish="tool-calls"))
    says(book, _made(1001.0, "msg_a2"), _made(1001.0, "msg_a2", completed_at=1002.0, finish="stop"), IDLE)
    assert result(book).status is JobStatus.COMPLETED
