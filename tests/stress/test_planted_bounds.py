"""Bugs in the ladder's graces and in the bounds of settings: a bound that is not kept, and one that is kept to too
well."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

import pytest
import trio
from attrs import evolve

from opencode_actors.kernel.job_operations import JobOperations
from opencode_actors.kernel.sessions import Sessions
from opencode_actors.machines import job, output, session, verdicts
from opencode_actors.machines.cancellation import Ladder
from opencode_actors.machines.job_messages import AbortAnswered, JobTimer
from opencode_actors.machines.notices import Step
from opencode_actors.machines.restart import RestartAfter
from opencode_actors.machines.session_messages import SessionTimer
from opencode_actors.machines.vocabulary import Rung

from .planting import Bug, expect_found, expect_nothing, found_by, planted


def _timed(timer: Enum, times: float) -> Callable[..., Any]:
    """A timer that takes so many times as long."""

    def wrong(right: Any, *arguments: Any, **named: Any) -> Any:
        step = right(*arguments, **named)
        return evolve(step, effects=tuple(longer(one) for one in step.effects))

    def longer(effect: Any) -> Any:
        found = getattr(effect, "timer", None) is timer and hasattr(effect, "seconds")
        return evolve(effect, seconds=effect.seconds * times) if found else effect

    return wrong


async def _asks_nobody(right: Any, self: JobOperations, operation: Any) -> Any:
    del right, self, operation
    await trio.lowlevel.checkpoint()
    return AbortAnswered()


def _no_time(right: Any, self: Ladder, now: float) -> Any:
    return (*self.behind, (self.rung, 0.0))


def _no_deadlines(right: Any, *arguments: Any) -> Any:
    return ()


def _gives_up_soon(right: Any, policy: Any, history: Any, moment: Any) -> Any:
    return right(evolve(policy, max_restarts=1), history, moment)


def _waits_long(right: Any, policy: Any, history: Any, moment: Any) -> Any:
    decision = right(policy, history, moment)
    longer = isinstance(decision, RestartAfter)
    return evolve(decision, seconds=20 * decision.seconds) if longer else decision


def _a_tenth(right: Any, meter: Any, text: str) -> Any:
    return right(evolve(meter, limit=meter.limit // 10), text)


async def _room_for_all(right: Any, self: Sessions, key: Any) -> None:
    del right, self, key
    await trio.lowlevel.checkpoint()


def _never_too_much(right: Any, *arguments: Any) -> Any:
    return None


def _each_for_the_first_time(right: Any, state: Any, serving: Any, *rest: Any) -> Any:
    alive = evolve(serving.liveness, failures=0, failed_at=None)
    return right(state, evolve(serving, liveness=alive), *rest)


def _torn_at_once(right: Any, state: Any, failure: Any, rung: Any, moment: Any) -> Any:
    return right(state, failure, Rung.REMOVE if rung is Rung.KILL else rung, moment)


def _never_idle(right: Any, state: Any, serving: Any, timer: Any, moment: Any) -> Any:
    return Step(state=state) if timer is SessionTimer.IDLE else right(state, serving, timer, moment)


_LADDER, _RESTARTS, _BOUND = "the ladder is bounded", "restart intensity", "a bound is kept"
_REACHED, _TIGHT, _DIE = "bounds are reached", "bounds are tight", "containers die"

BUGS = (
    Bug(
        "an abort that nobody is asked for",
        _LADDER,
        "an abort would have",
        planted(JobOperations, "_abort", _asks_nobody),
    ),
    Bug(
        "an abort without its grace",
        _LADDER,
        "ABORT had 0.0 s",
        planted(job, "_stop", _timed(JobTimer.RUNG, 0.001)),
    ),
    Bug("rungs without time", _LADDER, "ABORT had 0.0 s", planted(Ladder, "_spent", _no_time)),
    Bug(
        "a frozen server's container that is removed at once",
        "the ladder only climbs",
        "nobody had tried to kill it",
        planted(session, "_crashed", _torn_at_once),
        "servers misbehave",
    ),
    Bug(
        "a jobTimeout that is late",
        _BOUND,
        "jobTimeout is 130 s",
        planted(job, "_begin", _timed(JobTimer.TOTAL, 3.0)),
        _REACHED,
        1,
    ),
    Bug(
        "a jobTimeout that a kill ends",
        _BOUND,
        "jobTimeout is 130 s",
        planted(job, "_deadlines", _no_deadlines),
        _REACHED,
    ),
    Bug(
        "an output full at a tenth",
        _BOUND,
        "10240 bytes and is full",
        planted(output, "_fit", _a_tenth),
        _REACHED,
        1,
    ),
    Bug(
        "a session given up at once",
        _RESTARTS,
        "given up after 1 restarts",
        planted(session, "after_crash", _gives_up_soon),
        _DIE,
    ),
    Bug(
        "a restart that waits long",
        _RESTARTS,
        "its delay is 0.75 s at most",
        planted(session, "after_crash", _waits_long),
        _DIE,
    ),
    Bug(
        "any number of sessions",
        _BOUND,
        "3 sessions have containers",
        planted(Sessions, "_make_room", _room_for_all),
        _TIGHT,
    ),
    Bug(
        "any number of retries",
        _BOUND,
        "maxProviderRetries is 1",
        planted(verdicts, "too_much", _never_too_much),
        _TIGHT,
        2,
    ),
    Bug(
        "a frozen server that nobody finds",
        _BOUND,
        "nobody found that",
        planted(session, "_probe_failed", _each_for_the_first_time),
        _TIGHT,
    ),
    Bug(
        "an idle session that stays",
        _BOUND,
        "sessionIdleTimeout is 20 s",
        planted(session, "_serving_timer", _never_idle),
        _TIGHT,
    ),
    Bug(
        "a server that is waited for long",
        _BOUND,
        "serverReadyTimeout is 10 s",
        planted(session, "_run_in", _timed(SessionTimer.READY, 10.0)),
        _TIGHT,
    ),
)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    bug.plant(monkeypatch)
    expect_found(bug, found_by(bug))


@pytest.mark.parametrize("shown_by", sorted({bug.shown_by for bug in BUGS}))
def test_without_them_the_same_runs_pass(shown_by: str) -> None:
    expect_nothing(BUGS, shown_by)
