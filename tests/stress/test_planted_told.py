"""Bugs in what is told and kept, and in when: planted, and found as those in machines and kernel are."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from opencode_actors.kernel import outbox_operations
from opencode_actors.kernel.jobs import Jobs
from opencode_actors.machines import job, outbox, requests, session
from opencode_actors.machines.notices import InputEnd, JobStarted, Publish, Step
from opencode_actors.machines.session_messages import SessionTimer
from opencode_actors.machines.vocabulary import StartTimer
from opencode_actors.stress.plan import make_plan
from opencode_actors.stress.scenario import FaultKind, FaultPlan, Scenario
from opencode_actors.stress.virtual import run_virtual
from opencode_actors.testing.fake_engine import FakeEngine
from opencode_actors.testing.memory_store import MemoryStore

from .planting import Bug, expect_found, found_by, planted


async def _without_its_reason(right: Any, self: Jobs, job: Any) -> Any:
    """Of one that has ended."""
    return evolve(await right(self, job), failure=None)


async def _nothing_waits(right: Any, self: Jobs, job: Any) -> Any:
    return evolve(await right(self, job), pending=())


def _started_twice(right: Any, *arguments: Any) -> Any:
    step = right(*arguments)
    starts = [e for e in step.effects if isinstance(e, Publish) and isinstance(e.notice, JobStarted)]
    return evolve(step, effects=(*starts, *step.effects))


def _each_tool_twice(right: Any, state: Any, heard: Any, now: float) -> Any:
    return right(state, evolve(heard, tools=(*heard.tools, *heard.tools)), now)


def _told_as(end: InputEnd) -> Any:
    def wrong(right: Any, state: Any, request: str) -> Any:
        return end

    return wrong


def _complains(right: Any, state: Any, message: Any, moment: Any) -> Any:
    """Of what was taken, too."""
    step = right(state, message, moment)
    sent = [one for one in state.sending if one.job == message.job]
    failed = tuple(outbox._failed(one, reason="who knows", hint="") for one in sent)
    return evolve(step, effects=(*step.effects, *failed))


def _quotes_nothing(right: Any, snapshot: Any, said: str) -> Any:
    return right(snapshot, "")


async def _a_byte_too_far(right: Any, self: MemoryStore, job: Any, *, offset: int, limit: int) -> Any:
    return await right(self, job, offset=offset + (offset > 0), limit=limit)


def _wakes_up_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn that is free is given to the next one a minute later."""
    over, timer = session._job_over, session._serving_timer

    def job_over(state: Any, message: Any, moment: Any) -> Any:
        if message.job != state.current or not state.queue:
            return over(state, message, moment)
        wait = StartTimer(timer=SessionTimer.BACKOFF, seconds=60.0)
        return Step(state=evolve(state, current=None), effects=(wait,))

    def serving_timer(state: Any, serving: Any, name: Any, moment: Any) -> Any:
        if name is SessionTimer.BACKOFF:
            return session._grant(state, serving, moment)
        return timer(state, serving, name, moment)

    monkeypatch.setattr(session, "_job_over", job_over)
    monkeypatch.setattr(session, "_serving_timer", serving_timer)


async def _kills(right: Any, self: FakeEngine, container: Any, *, grace: float) -> None:
    """As if it were the kill that the system had called."""
    del right, grace
    await self.kill(container)


def _waits_long(right: Any, failures: int, roll: float) -> Any:
    return 100 * right(failures, roll)


_ENDS = "requests end as they were answered"
_ANNOUNCED = "one announcement for each job"

BUGS = (
    Bug(
        "a stop that kills",
        "the ladder only climbs",
        "was not asked to stop",
        planted(FakeEngine, "stop", _kills),
        "crowds",
        7,
    ),
    Bug(
        "an end without its reason",
        "what is kept was told",
        "failure",
        planted(Jobs, "settled", _without_its_reason),
    ),
    Bug(
        "a status in which nothing waits",
        "what is told is so",
        "requests are said",
        planted(Jobs, "status", _nothing_waits),
    ),
    Bug("a start told twice", "told once", "started 2 times", planted(job, "_begin", _started_twice)),
    Bug("a tool told twice", "told once", "tools were told of", planted(job, "given_out", _each_tool_twice)),
    Bug(
        "an answer told as gone", _ENDS, "told to be gone", planted(requests, "_how", _told_as(InputEnd.GONE))
    ),
    Bug(
        "an answer told as none",
        _ENDS,
        "told to be unanswered",
        planted(requests, "_how", _told_as(InputEnd.UNANSWERED)),
    ),
    Bug(
        "a complaint of what was taken", _ANNOUNCED, "and was taken", planted(outbox, "_answered", _complains)
    ),
    Bug(
        "an announcement without an answer",
        _ANNOUNCED,
        "does not quote",
        planted(outbox_operations, "in_words", _quotes_nothing),
    ),
    Bug(
        "a page that begins a byte too far",
        "whole output",
        "are kept",
        planted(MemoryStore, "output", _a_byte_too_far),
    ),
    Bug("a late wake-up", "nothing starves", "waited for 60.0 s", _wakes_up_late),
)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    bug.plant(monkeypatch)
    expect_found(bug, found_by(bug))


def test_an_outbox_that_waits_long_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in the usual scenarios: there it has so many reasons to wait that it may."""
    planted(outbox, "delay", _waits_long)(monkeypatch)
    refuses = FaultPlan(kind=FaultKind.RECEIVER_REFUSES, at=(50.0,), lasts=20.0)
    scenario = Scenario(jobs=60, duration=300.0, faults=(refuses,))
    violations = run_virtual(make_plan(scenario, 0)).violations
    assert {violation.rule for violation in violations} == {_ANNOUNCED}
    assert all("s late" in violation.text for violation in violations)
