"""Every state that can be reached, with every message there is: nothing is unhandled, nothing is doubled."""

from __future__ import annotations

from functools import cache
from typing import Any, get_args

import pytest

from opencode_actors.machines import job_messages as j
from opencode_actors.machines import session_messages as s
from opencode_actors.machines.job_state import Running, Settled
from opencode_actors.machines.notices import JobEnded, JobRecorded, Publish, Step
from opencode_actors.machines.server_events import ServerEvent
from opencode_actors.machines.session_state import Closed
from opencode_actors.machines.vocabulary import (
    Finish,
    Forget,
    JobSnapshot,
    Reply,
    Run,
    SessionSnapshot,
    StartTimer,
    StopTimer,
)
from opencode_actors.testing import samples
from opencode_actors.testing.samples import Decision


@cache
def job_decisions() -> tuple[Decision[Any, Any, Any], ...]:
    return tuple(samples.job_decisions())


@cache
def session_decisions() -> tuple[Decision[Any, Any, Any], ...]:
    return tuple(samples.session_decisions())


def replies(step: Step[Any, Any]) -> list[Reply]:
    return [effect for effect in step.effects if isinstance(effect, Reply)]


@pytest.mark.parametrize(
    ("union", "given"),
    [
        pytest.param(j.JobMessage, samples.JOB_MESSAGES, id="what a job is told"),
        pytest.param(s.SessionMessage, samples.SESSION_MESSAGES, id="what a session is told"),
        pytest.param(ServerEvent, samples.EVENTS, id="what a server says"),
    ],
)
def test_every_message_has_a_sample(union: Any, given: tuple[object, ...]) -> None:
    assert {type(sample) for sample in given} == set(get_args(union))


def test_every_timer_has_a_sample() -> None:
    fired = {sample.timer for sample in samples.JOB_MESSAGES if isinstance(sample, j.JobTimerFired)}
    assert fired == set(j.JobTimer)
    rung = {sample.timer for sample in samples.SESSION_MESSAGES if isinstance(sample, s.SessionTimerFired)}
    assert rung == set(s.SessionTimer)


def test_every_phase_of_a_job_is_reached() -> None:
    assert {type(decision.before.phase).__name__ for decision in job_decisions()} == {
        "Queued",
        "Interrupted",
        "Running",
        "Stopping",
        "Settled",
    }


def test_every_phase_of_a_session_is_reached() -> None:
    assert {type(decision.before.phase).__name__ for decision in session_decisions()} == {
        "Absent",
        "Creating",
        "Starting",
        "Serving",
        "Stopping",
        "BackingOff",
        "GivenUp",
        "Quarantined",
        "Closed",
    }


@pytest.mark.parametrize("decisions", [job_decisions, session_decisions])
def test_every_answer_is_a_step_of_known_effects(decisions: Any) -> None:
    for decision in decisions():
        assert decision.step.__class__ is Step
        for effect in decision.step.effects:
            assert isinstance(
                effect,
                Run | Forget | StartTimer | StopTimer | Reply | Publish | Finish | j.TellSession | s.TellJob,
            )
            if isinstance(effect, StartTimer):
                assert effect.seconds >= 0, decision


@pytest.mark.parametrize("decisions", [job_decisions, session_decisions])
def test_a_query_has_one_answer_and_changes_nothing(decisions: Any) -> None:
    for decision in decisions():
        if isinstance(decision.message, j.GetJob | s.GetSession):
            assert decision.step.state == decision.before
            assert decision.step.records == ()
            (reply,) = decision.step.effects
            assert isinstance(reply, Reply)
            assert reply.ask == decision.message.ask
            assert isinstance(reply.value, JobSnapshot | SessionSnapshot)


def test_a_cancel_is_answered_with_the_settled_job_or_remembered() -> None:
    for decision in job_decisions():
        answered = [r for r in replies(decision.step) if isinstance(r.value, JobSnapshot)]
        if isinstance(decision.message, j.CancelJob):
            remembered = decision.step.state.waiting.count(decision.message.ask)
            before = decision.before.waiting.count(decision.message.ask)
            assert len(answered) + remembered == before + 1, decision
            settled = isinstance(decision.step.state.phase, Settled)
            assert bool(answered) == settled


def test_an_answer_to_a_request_has_one_answer_or_is_on_its_way() -> None:
    for decision in job_decisions():
        before = [owed.ask for owed in decision.before.replies if owed.ask is not None]
        after = [owed.ask for owed in decision.step.state.replies if owed.ask is not None]
        answered = [r for r in replies(decision.step) if isinstance(r.value, j.Answered | j.NotAnswered)]
        given = int(isinstance(decision.message, j.AnswerRequest))
        assert len(answered) + len(after) == len(before) + given, decision
        if not isinstance(decision.step.state.phase, Running):
            assert not decision.step.state.replies


def test_a_new_job_has_one_answer_at_once() -> None:
    for decision in session_decisions():
        if isinstance(decision.message, s.AddJob):
            (reply,) = [reply for reply in replies(decision.step) if reply.ask == decision.message.ask]
            assert isinstance(reply.value, s.Accepted | s.Refused)
            taken = decision.message.job in (*decision.step.state.queue, decision.step.state.current)
            if isinstance(reply.value, s.Accepted):
                assert taken


def test_a_close_is_answered_when_the_session_ends_and_not_before() -> None:
    for decision in session_decisions():
        finished = Finish() in decision.step.effects
        if isinstance(decision.message, s.CloseSession):
            remembered = decision.step.state.closing.count(decision.message.ask)
            before = decision.before.closing.count(decision.message.ask)
            assert len(replies(decision.step)) + remembered == before + 1
        before, after = decision.before.phase, decision.step.state.phase
        assert finished == (isinstance(after, Closed) and not isinstance(before, Closed))
        if finished:
            assert decision.step.state.closing == ()
            assert decision.step.state.queue == ()
            assert decision.step.state.current is None


def test_whoever_has_work_is_not_retired_and_whoever_asked_for_it_is_told() -> None:
    for decision in session_decisions():
        state = decision.step.state
        if state.retiring:
            assert state.current is None
            assert not state.queue
        answered = {reply.ask for reply in replies(decision.step)}
        assert set(decision.before.retiring) <= answered | set(state.retiring), decision
        if isinstance(decision.message, s.RetireSession):
            assert (decision.message.ask in answered) != (decision.message.ask in state.retiring)


def test_a_job_settles_with_one_record_one_notice_one_word_to_its_session_and_one_finish() -> None:
    for decision in job_decisions():
        step = decision.step
        settles = not isinstance(decision.before.phase, Settled) and isinstance(step.state.phase, Settled)
        finishes = [effect for effect in step.effects if isinstance(effect, Finish)]
        ended = [e.notice for e in step.effects if isinstance(e, Publish) and isinstance(e.notice, JobEnded)]
        over = [e for e in step.effects if isinstance(e, j.TellSession) and isinstance(e.message, j.JobOver)]
        recorded = [r for r in step.records if isinstance(r, JobRecorded) and r.snapshot.settled]
        assert len(finishes) == len(ended) == len(over) == len(recorded) == int(settles), decision
        if settles:
            assert step.effects[-1] == Finish()
            assert ended[0].snapshot == recorded[0].snapshot == step.state.phase.snapshot
            assert ended[0].snapshot.settled


def test_a_settled_job_changes_no_more_and_says_no_more() -> None:
    for decision in job_decisions():
        if isinstance(decision.before.phase, Settled):
            assert decision.step.state == decision.before
            assert decision.step.records == ()
            assert all(isinstance(effect, Reply) for effect in decision.step.effects)
            for reply in replies(decision.step):
                assert isinstance(reply.value, j.NotAnswered) or reply.value == decision.before.phase.snapshot


def test_nobody_is_granted_a_turn_while_another_has_it() -> None:
    for decision in session_decisions():
        granted = [
            effect.job
            for effect in decision.step.effects
            if isinstance(effect, s.TellJob) and isinstance(effect.message, j.TurnGranted)
        ]
        assert len(granted) <= 1
        if granted:
            has_it_again = decision.before.current == granted[0]
            assert decision.before.current is None or has_it_again or isinstance(decision.message, j.JobOver)
            assert decision.step.state.current == granted[0]
            assert granted[0] not in decision.step.state.queue


def test_whoever_has_the_turn_keeps_it_or_is_told_that_it_is_lost() -> None:
    for decision in session_decisions():
        job = decision.before.current
        if job is None or decision.step.state.current == job or decision.message == j.JobOver(job=job):
            continue
        told = [
            effect.message
            for effect in decision.step.effects
            if isinstance(effect, s.TellJob) and effect.job == job
        ]
        assert any(isinstance(message, j.ServerLost) for message in told), decision


def test_whoever_waits_is_kept_granted_or_told_that_it_waits_in_vain() -> None:
    for decision in session_decisions():
        state = decision.step.state
        for job in set(decision.before.queue) - set(state.queue) - {state.current}:
            told = [e.message for e in decision.step.effects if isinstance(e, s.TellJob) and e.job == job]
            given_up = any(isinstance(message, j.SessionFailed) for message in told)
            assert given_up or decision.message == j.JobOver(job=job), decision
