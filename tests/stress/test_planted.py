"""Bugs that are put into machines, kernel and adapters on purpose: the usual scenarios find each of them, by the
rule that it breaks, and the same seed finds it again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
from attrs import evolve

from opencode_actors.errors import OpenCodeError, RequestGone, UsageError
from opencode_actors.kernel import jobs, outbox_operations, recovery, system
from opencode_actors.kernel.actor import Actor
from opencode_actors.kernel.hub import Hub
from opencode_actors.kernel.job_operations import JobOperations
from opencode_actors.kernel.jobs import Jobs
from opencode_actors.kernel.outbox_operations import OutboxOperations
from opencode_actors.kernel.session_operations import SessionOperations
from opencode_actors.kernel.sessions import Sessions
from opencode_actors.kernel.system import System
from opencode_actors.machines import failures, job, leftovers, requests, restart, session, transcript
from opencode_actors.machines import session_messages as s
from opencode_actors.machines.cancellation import Graces, Ladder
from opencode_actors.machines.job_messages import (
    AbortAnswered,
    AbortFailed,
    JobTimer,
    QuestionAnswer,
    SessionFailed,
)
from opencode_actors.machines.notices import JobEnded, OutputRecorded, Publish, Step
from opencode_actors.machines.outbox_messages import SendingOver, SendNotifications
from opencode_actors.machines.session_state import Serving
from opencode_actors.machines.vocabulary import JobStatus, NotificationState, Rung
from opencode_actors.store.port import OutputSlice
from opencode_actors.stress.local import run_local
from opencode_actors.stress.plan import make_plan
from opencode_actors.stress.scenario import FaultKind, FaultPlan, Scenario, Talk
from opencode_actors.stress.scenarios import DEFAULTS
from opencode_actors.stress.shrink import shrink
from opencode_actors.stress.virtual import run_virtual
from opencode_actors.testing.memory_store import MemoryStore

from .planting import Bug, expect_found, found_by
from .planting import planted as _in


def _no_wake_up(right: Any, state: Any, message: Any, moment: Any) -> Any:
    """The turn of a job that has ended is given to nobody."""
    if message.job != state.current or not state.queue:
        return right(state, message, moment)
    return Step(state=evolve(state, current=None))


def _settled_twice(right: Any, *arguments: Any, **named: Any) -> Any:
    step = right(*arguments, **named)
    ends = [e for e in step.effects if isinstance(e, Publish) and isinstance(e.notice, JobEnded)]
    return evolve(step, effects=(*ends, *step.effects))


def _over_a_rung(right: Any, ladder: Ladder, now: float) -> Any:
    return ladder.to(Rung.REMOVE, now) if ladder.rung is Rung.STOP else right(ladder, now)


def _nobody_answers(right: Any, actor: Actor[Any, Any, Any]) -> None:
    actor.mailbox.close()


async def _leaves_it_there(right: Any, self: SessionOperations, operation: s.EndContainer) -> Any:
    """A container that has ended is as good as removed."""
    return s.ContainerRemoved() if operation.rung is Rung.REMOVE else await right(self, operation)


def _any_number(right: Any, state: Any) -> Any:
    policy = evolve(state.policy, max_queued_jobs=1_000)
    return right(evolve(state, policy=policy))


def _says_it_again(right: Any, said: Any, part: Any, *, live: bool) -> Any:
    return right(evolve(said, ended_parts=frozenset()), part, live=live)


def _no_memory(right: Any, death: Any) -> Any:
    return right(evolve(death, oom_killed=False))


def _for_ever(right: Any, policy: Any, history: Any, moment: Any) -> Any:
    decision = right(policy, history, moment)
    if isinstance(decision, restart.RestartAfter):
        return decision
    return restart.RestartAfter(seconds=policy.delay_cap, history=decision.history)


def _everybody_at_once(right: Any, state: Any, serving: Any, moment: Any) -> Any:
    return right(evolve(state, current=None), serving, moment)


def _leaves_questions(right: Any, state: Any, why: str) -> Any:
    return evolve(state, replies=()), []


async def _forgets_keys(right: Any, self: Jobs, where: Any, wish: Any) -> Any:
    return await right(self, where, evolve(wish, key=None))


async def _short_of_an_end(right: Any, self: MemoryStore, job: Any, *, offset: int, limit: int) -> Any:
    piece: OutputSlice = await right(self, job, offset=offset, limit=limit)
    return evolve(piece, text=piece.text[:-1]) if not piece.more else piece


async def _writes_it_twice(right: Any, self: MemoryStore, records: Any, *rest: Any, **named: Any) -> Any:
    twice = [r for record in records for r in [record] * (1 + isinstance(record, OutputRecorded))]
    return await right(self, tuple(twice), *rest, **named)


def _one_too_late(right: Any, self: Hub, *arguments: Any, since: Any = None, **named: Any) -> Any:
    """Whoever comes back has the next one already, it thinks."""
    later = None if since is None else (since[0] + 1, since[1])
    return right(self, *arguments, since=later, **named)


async def _announces_again(right: Any, self: MemoryStore) -> Any:
    """What an earlier process announced is not done for the next one."""
    for key, row in self.outbox.items():
        self.outbox[key] = evolve(row, state=NotificationState.PENDING)
    return await right(self)


async def _leaves_strays(right: Any, engine: Any, stray: Any) -> None:
    """Whatever an earlier process left there, somebody will need it."""


async def _gives_up_what_began(right: Any, *there: Any) -> None:
    """Whatever was at work is lost."""
    *others, remembered = there
    unsettled = tuple(
        evolve(job, accepted=None) if job.begun is not None else job for job in remembered.unsettled
    )
    await right(*others, evolve(remembered, unsettled=unsettled))


async def _gives_up_what_waits(right: Any, *there: Any) -> None:
    *others, remembered = there
    unsettled = tuple(
        job if job.begun is not None else evolve(job, accepted=None) for job in remembered.unsettled
    )
    await right(*others, evolve(remembered, unsettled=unsettled))


def _fails_who_waits(most: int) -> Callable[..., Any]:
    """A crash is also that of jobs which had no turn yet."""

    def wrong(right: Any, state: Any, failure: Any, rung: Any, moment: Any) -> Any:
        failed = tuple(
            s.TellJob(job=job, message=SessionFailed(failure=failure)) for job in state.queue[:most]
        )
        step = right(evolve(state, queue=state.queue[most:]), failure, rung, moment)
        return evolve(step, effects=(*failed, *step.effects))

    return wrong


def _patient(right: Any, graces: Graces, rung: Rung) -> Any:
    return right(graces, rung) * (8 if rung in (Rung.STOP, Rung.KILL) else 1)


def _refuses_early(right: Any, state: Any) -> Any:
    return right(evolve(state, policy=evolve(state.policy, max_queued_jobs=1)))


async def _always_pending(right: Any, self: Jobs, job: Any) -> Any:
    said = await right(self, job)
    return said if said.settled else evolve(said, status=JobStatus.PENDING)


async def _no_bytes(right: Any, self: Jobs, job: Any) -> Any:
    return evolve(await right(self, job), output_bytes=0)


async def _nobody_there(right: Any, self: Sessions) -> Any:
    await right(self)
    return ()


def _another_answer(right: Any, **given: Any) -> Any:
    return QuestionAnswer(answers=(("something else",),))


async def _takes_no_answer(right: Any, self: Jobs, job: Any, request: Any, answer: Any) -> Any:
    await trio.lowlevel.checkpoint()
    raise RequestGone(f"{request} waits for no answer")


async def _cannot_clean_up(right: Any, self: System, **what: Any) -> Any:
    await trio.lowlevel.checkpoint()
    raise UsageError("there is nothing to clean up")


def _all_is_well(right: Any, snapshot: Any, said: str) -> Any:
    return right(evolve(snapshot, status=JobStatus.COMPLETED, failure=None), said)


def _as_soon_each_time(right: Any, policy: Any, history: Any, moment: Any) -> Any:
    decision = right(policy, history, moment)
    again = isinstance(decision, restart.RestartAfter)
    return evolve(decision, seconds=policy.delay) if again else decision


def _thrice_as_patient(right: Any, state: Any, running: Any, timer: Any, now: float) -> Any:
    if timer is not JobTimer.IDLE:
        return right(state, running, timer, now)
    policy = evolve(state.policy, idle_timeout=3 * state.policy.idle_timeout)
    step = right(evolve(state, policy=policy), running, timer, now)
    return evolve(step, state=evolve(step.state, policy=state.policy))


def _waits_on(right: Any, *asked: Any, **named: Any) -> Any:
    policy = right(*asked, **named)
    return evolve(policy, question_timeout=4 * policy.question_timeout)


def _forgets_nothing(right: Any, self: Actor[Any, Any, Any], name: object) -> None:
    """Whatever was begun goes on; only nothing of it is heard."""
    self._started.pop(name, None)


def _waits_for_an_abort(right: Any, state: Any, stopping: Any, now: float) -> Any:
    waits = stopping.ladder.rung is Rung.ABORT and "abortGrace" in stopping.why
    return Step(state=state) if waits else right(state, stopping, now)


def _stops_again(right: Any, state: Any, stopping: Any, moment: Any) -> Any:
    if stopping.ladder.rung is not Rung.STOP:
        return right(state, stopping, moment)
    return Step(state=state, effects=session._request(state, stopping.ladder))


def _sees_no_processes(right: Any, *living: Any, **named: Any) -> Any:
    return ()


async def _spares_children(right: Any, self: JobOperations, operation: Any) -> Any:
    try:
        await self.servers.at(operation.endpoint).abort(operation.conversation)
    except OpenCodeError as error:
        return AbortFailed(reason=error.message)
    return AbortAnswered()


def _keeps_followers(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[object] = []
    right = Hub.follow

    def follow(self: Hub, *arguments: Any, **named: Any) -> Any:
        kept.append(right(self, *arguments, **named))
        return kept[-1]

    monkeypatch.setattr(Hub, "follow", follow)


def _well_again_at_once(right: Any, state: Any, phase: Any, *rest: Any) -> Any:
    """A server that answers was never one that crashes."""
    step = right(state, phase, *rest)
    if not isinstance(phase, Serving):
        return step
    return evolve(step, state=evolve(step.state, crashes=type(step.state.crashes)()))


def _keeps_a_word_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_KEPT", kept := [], raising=False)
    right = Jobs._let_go

    def let_go(self: Jobs, entry: Any) -> None:
        kept.append(str(entry.id))
        right(self, entry)

    monkeypatch.setattr(Jobs, "_let_go", let_go)


async def _one_after_another(right: Any, self: OutboxOperations, operation: Any, post: Any) -> Any:
    if not isinstance(operation, SendNotifications):
        return await right(self, operation, post)
    for one in operation.batch:
        await self._send(one, post)
    return SendingOver()


async def _never_hears_of_exits(right: Any, self: SessionOperations, operation: Any, *post: Any) -> Any:
    watches = isinstance(operation, s.WatchExit)
    return await trio.sleep_forever() if watches else await right(self, operation, *post)


BUGS = (
    Bug("a lost wake-up", "every job settles", "never did", _in(session, "_job_over", _no_wake_up)),
    Bug("a doubled settle", "settles once", "and then", _in(job, "_settle", _settled_twice)),
    Bug(
        "a rung skipped",
        "the ladder only climbs",
        "STOP, REMOVE",
        _in(Ladder, "up", _over_a_rung),
        "cancels have it hard",
        1,
    ),
    Bug(
        "an unanswered ask",
        "every ask is answered",
        "had no answer",
        _in(Actor, "_close", _nobody_answers),
        "the host fails",
        2,
    ),
    Bug(
        "a leaked container",
        "nothing is left",
        "container opencode-actors",
        _in(SessionOperations, "_end", _leaves_it_there),
        "containers die",
    ),
    Bug(
        "an unbounded queue",
        "bounded",
        "jobs wait in session",
        _in(session, "_refusal", _any_number),
        "crowds",
        1,
    ),
    Bug("output told twice", "whole output", "was said", _in(transcript, "_part_said", _says_it_again)),
    Bug("output written twice", "whole output", "are kept", _in(MemoryStore, "append", _writes_it_twice)),
    Bug("output cut short", "whole output", "are kept", _in(MemoryStore, "output", _short_of_an_end)),
    Bug(
        "a wrong cause",
        "the true cause",
        "it failed of crash",
        _in(failures, "of_death", _no_memory),
        "containers die",
    ),
    Bug(
        "restarts without end",
        "restart intensity",
        "restart 6 within",
        _in(session, "after_crash", _for_ever),
        "containers die",
        1,
    ),
    Bug("two jobs at once", "one at a time", "it started while", _in(session, "_grant", _everybody_at_once)),
    Bug(
        "a question without an end",
        "requests end once",
        "it ended, and que_",
        _in(requests, "given_up", _leaves_questions),
        seed=4,
    ),
    Bug(
        "a forgotten key",
        "one job for each prompt",
        "asked for twice under one key",
        _in(Jobs, "start", _forgets_keys),
    ),
    Bug(
        "a notice dropped at a resume",
        "every notice is told",
        "was not told",
        _in(Hub, "follow", _one_too_late),
        "clients misbehave",
        1,
    ),
    Bug(
        "an end announced again after a kill",
        "one announcement for each job",
        "announced again",
        _in(MemoryStore, "load", _announces_again),
        "the host fails",
    ),
    Bug(
        "a container leaked at a kill",
        "nothing is left",
        "container opencode-actors",
        _in(recovery, "_remove", _leaves_strays),
        "killed while it writes",
    ),
    Bug(
        "a recovery that gives up what runs",
        "the true cause",
        "of lost",
        _in(system, "recover", _gives_up_what_began),
        "killed while it writes",
    ),
    Bug(
        "a recovery that gives up what waits",
        "the true cause",
        "never had its turn",
        _in(system, "recover", _gives_up_what_waits),
        "killed while it writes",
    ),
    Bug(
        "a crash that fails the whole queue",
        "the true cause",
        "never had its turn",
        _in(session, "_crashed", _fails_who_waits(1_000)),
        "containers die",
    ),
    Bug(
        "a crash that fails the next job",
        "the true cause",
        "never had its turn",
        _in(session, "_crashed", _fails_who_waits(1)),
        "containers die",
    ),
    Bug(
        "a patient ladder",
        "the ladder is bounded",
        "STOP took",
        _in(Graces, "of", _patient),
        "cancels have it hard",
    ),
    Bug("a queue of one", "refused for a reason", "and 16 may", _in(session, "_refusal", _refuses_early)),
    Bug(
        "a status that stands still",
        "what is told is so",
        "to be pending",
        _in(Jobs, "status", _always_pending),
    ),
    Bug("a status without bytes", "what is told is so", "0 bytes", _in(Jobs, "status", _no_bytes)),
    Bug(
        "no sessions",
        "what is told is so",
        "not among the sessions",
        _in(Sessions, "snapshots", _nobody_there),
    ),
    Bug(
        "another answer",
        "a request takes one answer",
        "the model was told []",
        _in(system, "answer_of", _another_answer),
    ),
    Bug(
        "no answer is taken",
        "a request takes one answer",
        "none of two answers",
        _in(Jobs, "answer", _takes_no_answer),
    ),
    Bug(
        "no clean-up",
        "every ask is answered",
        "nothing to clean up",
        _in(System, "cleanup", _cannot_clean_up),
        "clients misbehave",
    ),
    Bug(
        "good news only",
        "one announcement for each job",
        "does not say",
        _in(outbox_operations, "in_words", _all_is_well),
    ),
    Bug(
        "a delay that never grows",
        "restart intensity",
        "its delay is",
        _in(session, "after_crash", _as_soon_each_time),
        "containers die",
        1,
    ),
    Bug(
        "a patient silence",
        "a silence ends",
        "idleTimeout is",
        _in(job, "_running_timer", _thrice_as_patient),
    ),
    Bug(
        "a patient question",
        "a silence ends",
        "questionTimeout is",
        _in(jobs, "job_policy", _waits_on),
    ),
    Bug(
        "timers that go on",
        "bounded",
        "go on, and it knows of",
        _in(Actor, "_forget", _forgets_nothing),
    ),
    Bug(
        "an abort that never escalates",
        "the ladder is bounded",
        "ABORT took",
        _in(job, "_escalate", _waits_for_an_abort),
        "cancels have it hard",
    ),
    Bug(
        "a ladder that ends at its second rung",
        "the ladder is bounded",
        "STOP took",
        _in(session, "_climb", _stops_again),
        "cancels have it hard",
    ),
    Bug(
        "a process that outlives an abort",
        "an end ends the work",
        "job-",
        _in(leftovers, "of_the_job", _sees_no_processes),
    ),
    Bug(
        "a sub-agent that goes on",
        "an end ends the work",
        "ses_",
        _in(JobOperations, "_abort", _spares_children),
        "cancels have it hard",
    ),
    Bug(
        "announcements one after another",
        "one announcement for each job",
        "until another was taken",
        _in(OutboxOperations, "perform", _one_after_another),
        "nobody wants to hear",
        10,
    ),
    Bug("a follower that is kept", "nothing is left", "followers", _keeps_followers, "clients misbehave"),
    Bug("a word of each job that is kept", "bounded", "things more than before", _keeps_a_word_of_each),
    Bug(
        "a server that forgets its crashes",
        "restart intensity",
        "its delay is",
        _in(session, "_enter", _well_again_at_once),
        "containers die",
    ),
    Bug(
        "an exit that nobody watches",
        "a death is found",
        "its container ended",
        _in(SessionOperations, "perform", _never_hears_of_exits),
        "containers die",
    ),
)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    bug.plant(monkeypatch)
    report = found_by(bug)
    expect_found(bug, report)
    assert all(violation.trace for violation in report.violations)


def test_what_was_found_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    bug = BUGS[1]
    bug.plant(monkeypatch)
    report = found_by(bug)
    assert report.violations
    again = run_virtual(make_plan(report.plan.scenario, report.plan.seed))
    assert again.document() == report.document()


def test_a_notice_dropped_at_a_resume_is_found_over_real_websockets(monkeypatch: pytest.MonkeyPatch) -> None:
    _in(Hub, "follow", _one_too_late)(monkeypatch)
    scenario = Scenario(
        jobs=12,
        duration=2.0,
        pace=0.02,
        settle_within=20.0,
        prompts={Talk.SHORT: 1, Talk.STREAM: 1},
        faults=(FaultPlan(kind=FaultKind.VANISHING_FOLLOWERS, lasts=1.5, at=(0.3,)),),
    )
    report = run_local(make_plan(scenario, 3))
    assert {violation.rule for violation in report.violations} == {"every notice is told"}


def test_a_failing_plan_is_cut_down_to_what_shows_the_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    _in(failures, "of_death", _no_memory)(monkeypatch)
    scenario = Scenario(
        jobs=12,
        duration=120.0,
        prompts={Talk.STREAM: 1},
        faults=(FaultPlan(kind=FaultKind.CONTAINER_OOM, times=10),),
    )
    report = run_virtual(make_plan(scenario, 11))
    assert [violation.rule for violation in report.violations]
    small = shrink(report, run_virtual)
    assert len(small.plan.jobs) <= 2
    assert len(small.plan.faults) == 1
    assert small.violations[0].rule == "the true cause"
    assert len(small.violations[0].trace) < len(report.violations[0].trace)


def test_what_holds_is_not_cut_down() -> None:
    report = run_virtual(make_plan(DEFAULTS[0], 0))
    assert shrink(report, run_virtual) is report
