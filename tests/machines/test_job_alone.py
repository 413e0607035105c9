"""A job whose session is honest and whose server says anything at all, at any moment."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from opencode_actors.machines import job
from opencode_actors.machines import job_messages as j
from opencode_actors.machines.job_state import JobState, Queued, Running, Settled, Stopping, pending
from opencode_actors.machines.notices import (
    InputAnswered,
    InputWanted,
    JobCancelling,
    JobEnded,
    OutputAdded,
)
from opencode_actors.machines.vocabulary import AskId, Climb, JobSnapshot, OnUnanswered, Rung
from opencode_actors.ports import PermissionReply
from opencode_actors.testing import samples
from opencode_actors.testing.playbook import Playbook
from tests.machines.jobs import TURN

ANSWERS: dict[type[Any], tuple[type[Any], ...]] = {
    j.SubmitPrompt: (j.PromptTaken, j.PromptUnsure, j.PromptRefused),
    j.ReadConversation: (j.ConversationRead, j.ReadFailed),
    j.ReadRequests: (j.RequestsRead, j.RequestsUnread),
    j.ReplyToRequest: (j.ReplyTaken, j.ReplyFailed),
    j.AbortConversation: (j.AbortAnswered, j.AbortFailed),
    j.LookAtProcesses: (j.ProcessesSeen, j.LookFailed),
}
GIVEN: tuple[j.Answer, ...] = (
    j.QuestionAnswer(answers=(("Blue",),)),
    j.QuestionAnswer(answers=()),
    j.PermissionAnswer(reply=PermissionReply.ONCE),
    j.Rejection(),
    j.Rejection(message="no"),
)
GRACES = samples.GRACES
LADDER = GRACES.stop + 2 + GRACES.kill + GRACES.remove


class JobAlone(RuleBasedStateMachine):
    book: Playbook[JobState, j.JobMessage, j.JobEffect]

    @initialize(
        limit=st.sampled_from([0, 16]),
        idle=st.sampled_from([3.0, 120.0]),
        question=st.sampled_from([0.0, 9.0, 300.0]),
        unanswered=st.sampled_from(OnUnanswered),
    )
    def begin(self, limit: int, idle: float, question: float, unanswered: OnUnanswered) -> None:
        policy = evolve(
            samples.JOB_POLICY,
            max_output_size=limit,
            idle_timeout=idle,
            question_timeout=question,
            on_unanswered=unanswered,
        )
        self.book = Playbook(job.handle, samples.first_job(policy=policy))
        self.asks = 0
        self.settled: JobSnapshot | None = None

    @property
    def phase(self) -> Any:
        return self.book.state.phase

    @precondition(lambda self: isinstance(self.phase, Queued))
    @rule()
    def the_turn_is_granted(self) -> None:
        self.book.tell(TURN)

    @precondition(lambda self: self.book.operations)
    @rule(data=st.data())
    def an_operation_ends(self, data: st.DataObject) -> None:
        kind = data.draw(st.sampled_from(sorted(self.book.operations, key=str)))
        messages = [message for message in samples.JOB_MESSAGES if isinstance(message, ANSWERS[kind])]
        self.book.answer(kind, data.draw(st.sampled_from(messages)))

    @precondition(lambda self: not isinstance(self.phase, Queued))
    @rule(events=st.lists(st.sampled_from(samples.EVENTS), min_size=1, max_size=4))
    def the_server_speaks(self, events: list[Any]) -> None:
        self.book.tell(j.EventsSeen(events=tuple(events)))

    @rule(message=st.sampled_from([j.StreamOpened(), j.LoadSeen(cpu_load=0.9, memory_bytes=1)]))
    def the_session_tells(self, message: j.JobMessage) -> None:
        self.book.tell(message)

    @rule(seconds=st.sampled_from([0.0, 0.5, 2.0, 9.0, 31.0, 119.0]))
    def time_passes(self, seconds: float) -> None:
        self.book.advance(seconds)

    @rule()
    def somebody_cancels(self) -> None:
        self.asks += 1
        self.book.tell(j.CancelJob(ask=AskId(self.asks)))

    @rule(request=st.sampled_from(["que_1", "per_1"]), answer=st.sampled_from(GIVEN))
    def somebody_answers(self, request: str, answer: j.Answer) -> None:
        self.asks += 1
        self.book.tell(j.AnswerRequest(ask=AskId(self.asks), request=request, answer=answer))

    @precondition(lambda self: not isinstance(self.phase, Queued))
    @rule()
    def the_container_dies(self) -> None:
        self.book.tell(j.ServerLost(failure=samples.FAILURE))

    @invariant()
    def it_settles_once_and_for_all(self) -> None:
        if not hasattr(self, "book"):
            return
        ended = self.book.noticed(JobEnded)
        assert len(ended) == int(isinstance(self.phase, Settled)) == int(self.book.finished)
        if ended:
            self.settled = self.settled or ended[0].snapshot
            assert self.phase.snapshot == self.settled
            assert not self.book.owed

    @invariant()
    def its_output_is_one_row_of_bytes(self) -> None:
        if not hasattr(self, "book"):
            return
        added = self.book.noticed(OutputAdded)
        assert "".join(notice.text for notice in added) == self.book.output
        size = 0
        for notice in added:
            assert notice.offset == size
            size += len(notice.text.encode())
        limit = self.book.state.policy.max_output_size
        assert not limit or size <= limit + 60

    @invariant()
    def the_ladder_only_climbs(self) -> None:
        if hasattr(self, "book"):
            rungs = [notice.rung for notice in self.book.noticed(JobCancelling)]
            assert rungs == sorted(set(rungs))

    @invariant()
    def what_it_says_that_it_waits_for_is_what_was_announced(self) -> None:
        if not hasattr(self, "book"):
            return
        wanted = [notice.request for notice in self.book.noticed(InputWanted)]
        ended = [notice.request for notice in self.book.noticed(InputAnswered)]
        waiting = [request.id for request in pending(self.book.state)]
        assert len(wanted) == len(set(wanted))
        assert len(ended) == len(set(ended))
        assert sorted(wanted) == sorted([*ended, *waiting])
        if waiting and self.book.state.policy.question_timeout:
            replied = j.ReplyToRequest in self.book.operations
            assert replied or j.JobTimer.UNANSWERED in self.book.timers

    @invariant()
    def it_never_waits_for_nothing(self) -> None:
        """In each phase something is on its way that will move it, whatever the server does."""
        if not hasattr(self, "book"):
            return
        if isinstance(self.phase, Running):
            assert j.JobTimer.IDLE in self.book.timers
        if isinstance(self.phase, Stopping) and self.phase.ladder.rung is Rung.ABORT:
            assert j.JobTimer.RUNG in self.book.timers
        if isinstance(self.phase, Stopping) and self.phase.ladder.rung is not Rung.ABORT:
            assert any(isinstance(told.message, j.StopForJob) for told in self.book.told)
            assert not self.book.operations

    def teardown(self) -> None:
        """A cancel ends it within the graces, though the server may never say a word again."""
        if not hasattr(self, "book"):
            return
        self.somebody_cancels()
        self.book.advance(GRACES.abort)
        if not self.book.finished:
            self.book.expect_some(j.StopForJob) if self.book.effects else None
            self.book.advance(LADDER)
            climb = Climb(ended_by=Rung.REMOVE, seconds=((Rung.STOP, LADDER),))
            self.book.tell(j.ServerLost(failure=samples.FAILURE, climb=climb))
        assert self.book.finished
        assert set(self.book.replies) == {AskId(n + 1) for n in range(self.asks)}
        assert not self.book.timers
        assert not self.book.operations


TestJobAlone = JobAlone.TestCase
TestJobAlone.settings = settings(max_examples=150, stateful_step_count=40, deadline=None, derandomize=True)
