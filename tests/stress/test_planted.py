"""Bugs that are put into machines, kernel and adapters on purpose: the usual scenarios find each of them, by the
rule that it breaks, and the same seed finds it again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from attrs import evolve, frozen

from opencode_actors.kernel import recovery
from opencode_actors.kernel.actor import Actor
from opencode_actors.kernel.hub import Hub
from opencode_actors.kernel.jobs import Jobs
from opencode_actors.kernel.session_operations import SessionOperations
from opencode_actors.machines import failures, job, requests, restart, session, transcript
from opencode_actors.machines import session_messages as s
from opencode_actors.machines.cancellation import Ladder
from opencode_actors.machines.notices import JobEnded, OutputRecorded, Publish, Step
from opencode_actors.machines.vocabulary import NotificationState, Rung
from opencode_actors.store.port import OutputSlice
from opencode_actors.stress.local import run_local
from opencode_actors.stress.plan import make_plan
from opencode_actors.stress.report import Report
from opencode_actors.stress.scenario import FaultKind, FaultPlan, Scenario, Talk
from opencode_actors.stress.scenarios import DEFAULTS
from opencode_actors.stress.shrink import shrink
from opencode_actors.stress.virtual import run_virtual
from opencode_actors.testing.memory_store import MemoryStore

Plant = Callable[[pytest.MonkeyPatch], None]
SEEDS = range(5)


@frozen
class Bug:
    """`rule` is what it breaks, and `shown_by` the usual scenario that shows it soonest, with that `seed`."""

    name: str
    rule: str
    plant: Plant
    shown_by: str = "fair weather"
    seed: int = 0


def _in(target: object, name: str, wrong: Callable[..., Any]) -> Plant:
    """`wrong` is called with what stood there, and the arguments."""

    def plant(monkeypatch: pytest.MonkeyPatch) -> None:
        right = getattr(target, name)

        def instead(*arguments: Any, **named: Any) -> Any:
            return wrong(right, *arguments, **named)

        monkeypatch.setattr(target, name, instead)

    return plant


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
    return restart.RestartAfter(seconds=policy.delay, history=restart.CrashHistory())


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


BUGS = (
    Bug("a lost wake-up", "every job settles", _in(session, "_job_over", _no_wake_up)),
    Bug("a doubled settle", "settles once", _in(job, "_settle", _settled_twice)),
    Bug("a rung skipped", "the ladder only climbs", _in(Ladder, "up", _over_a_rung), "cancels have it hard"),
    Bug(
        "an unanswered ask",
        "every ask is answered",
        _in(Actor, "_close", _nobody_answers),
        "the host fails",
        2,
    ),
    Bug(
        "a leaked container",
        "nothing is left",
        _in(SessionOperations, "_end", _leaves_it_there),
        "containers die",
    ),
    Bug("an unbounded queue", "bounded", _in(session, "_refusal", _any_number), "crowds", 1),
    Bug("output told twice", "whole output", _in(transcript, "_part_said", _says_it_again)),
    Bug("output written twice", "whole output", _in(MemoryStore, "append", _writes_it_twice)),
    Bug("output cut short", "whole output", _in(MemoryStore, "output", _short_of_an_end)),
    Bug("a wrong cause", "the true cause", _in(failures, "of_death", _no_memory), "containers die"),
    Bug(
        "restarts without end", "restart intensity", _in(session, "after_crash", _for_ever), "containers die"
    ),
    Bug("two jobs at once", "one at a time", _in(session, "_grant", _everybody_at_once)),
    Bug("a question without an end", "requests end once", _in(requests, "given_up", _leaves_questions)),
    Bug("a forgotten key", "one job for each prompt", _in(Jobs, "start", _forgets_keys)),
    Bug(
        "a notice dropped at a resume",
        "every notice is told",
        _in(Hub, "follow", _one_too_late),
        "clients misbehave",
    ),
    Bug(
        "an end announced again after a kill",
        "one announcement for each job",
        _in(MemoryStore, "load", _announces_again),
        "the host fails",
    ),
    Bug(
        "a container leaked at a kill",
        "nothing is left",
        _in(recovery, "_remove", _leaves_strays),
        "killed while it writes",
    ),
)


def found_by(bug: Bug) -> Report | None:
    """The run that is known to show it, or the first other one that does."""
    known = [(bug.seed, scenario) for scenario in DEFAULTS if scenario.name == bug.shown_by]
    for seed, scenario in (*known, *((seed, scenario) for seed in SEEDS for scenario in DEFAULTS)):
        report = run_virtual(make_plan(scenario, seed))
        if any(violation.rule == bug.rule for violation in report.violations):
            return report
    return None


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    bug.plant(monkeypatch)
    report = found_by(bug)
    assert report is not None
    assert all(violation.trace for violation in report.violations)


def test_what_was_found_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    bug = BUGS[1]
    bug.plant(monkeypatch)
    report = found_by(bug)
    assert report is not None
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
    report = run_virtual(make_plan(scenario, 7))
    assert [violation.rule for violation in report.violations]
    small = shrink(report, run_virtual)
    assert len(small.plan.jobs) <= 2
    assert len(small.plan.faults) == 1
    assert small.violations[0].rule == "the true cause"
    assert len(small.violations[0].trace) < len(report.violations[0].trace)


def test_what_holds_is_not_cut_down() -> None:
    report = run_virtual(make_plan(DEFAULTS[0], 0))
    assert shrink(report, run_virtual) is report
