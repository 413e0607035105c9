"""Tables for what is called active, idle, ready, dead, and what a failure is called."""

from __future__ import annotations

import pytest
from attrs import evolve

from opencode_actors.machines import failures, health
from opencode_actors.machines.activity import ACTIVE_FOR, BUSY_LOAD, LOAD_HOLDS_FOR, Activity, Retrying
from opencode_actors.machines.cancellation import Ladder, in_words
from opencode_actors.machines.health import Liveness, Verdict
from opencode_actors.machines.server_events import MessageError, PartId
from opencode_actors.machines.vocabulary import ActivityState, Cause, Climb, Rung
from opencode_actors.ports import Death
from opencode_actors.testing.samples import GRACES

QUIET = Activity(sign_at=0.0)
TOOL = evolve(QUIET, tools=frozenset({PartId("prt_1")}))
CHILD = evolve(QUIET, children=1)
BUSY = evolve(QUIET, cpu_load=BUSY_LOAD, load_at=100.0)
ASKED = evolve(QUIET, waiting_for=frozenset({"que_1"}))


@pytest.mark.parametrize(
    ("activity", "now", "state", "idle"),
    [
        pytest.param(QUIET, 9.9, ActivityState.ACTIVE, 9.9, id="fresh output is activity"),
        pytest.param(QUIET, ACTIVE_FOR, ActivityState.IDLE, 10.0, id="silence is idle"),
        pytest.param(QUIET, 500.0, ActivityState.IDLE, 500.0, id="and stays so"),
        pytest.param(TOOL, 9.9, ActivityState.ACTIVE, 0.0, id="a fresh tool"),
        pytest.param(TOOL, 500.0, ActivityState.PROCESSING, 0.0, id="a tool that runs"),
        pytest.param(CHILD, 500.0, ActivityState.PROCESSING, 0.0, id="a child session at work"),
        pytest.param(BUSY, 110.0, ActivityState.PROCESSING, 110.0, id="a busy processor alone"),
        pytest.param(BUSY, 100.0 + LOAD_HOLDS_FOR, ActivityState.IDLE, 115.0, id="a load long measured"),
        pytest.param(evolve(BUSY, cpu_load=0.14), 110.0, ActivityState.IDLE, 110.0, id="a parked server"),
        pytest.param(ASKED, 500.0, ActivityState.WAITING, 0.0, id="somebody is asked"),
        pytest.param(ASKED, 1.0, ActivityState.WAITING, 0.0, id="just asked"),
    ],
)
def test_what_activity_is_called(activity: Activity, now: float, state: ActivityState, idle: float) -> None:
    assert activity.state(now) is state
    assert activity.idle_for(now) == idle


def test_progress_pushes_idleness_away_and_load_does_not_p4() -> None:
    assert QUIET.progressed(50.0).idle_for(60.0) == 10.0
    assert QUIET.loaded(1.0, 50.0).idle_for(60.0) == 60.0
    assert QUIET.retried(1, "429", 1.0).progressed(2.0).retrying is None


def test_how_long_a_provider_has_failed_counts_from_the_first_time() -> None:
    retrying = QUIET.retried(1, "429", 1.0).retried(2, "", 9.0).retrying
    assert retrying == Retrying(since=1.0, attempt=2, reason="it gives no reason")
    assert QUIET.retried(1, "429", 50.0).idle_for(60.0) == 60.0


@pytest.mark.parametrize(
    ("failed", "verdict"), [(0, Verdict.READY), (1, Verdict.UNREADY), (2, Verdict.UNREADY), (3, Verdict.DEAD)]
)
def test_failures_count_in_a_row(failed: int, verdict: Verdict) -> None:
    life = Liveness(heard_at=0.0)
    for number in range(failed):
        life = life.probe_failed(number * health.LIVENESS_PROBE_DELAY)
    assert life.verdict is verdict
    assert life.heard(5.0).verdict is Verdict.READY
    assert life.heard(5.0).silent_for(8.0) == 3.0


def test_p25_probes_that_fail_side_by_side_are_one_failure() -> None:
    life = Liveness(heard_at=0.0)
    for at in (1.0, 1.01, 1.3, 2.9):
        life = life.probe_failed(at)
    assert life.verdict is Verdict.UNREADY
    assert life.probe_failed(3.0).probe_failed(5.0).verdict is Verdict.DEAD


def test_probes_of_a_start_come_soon_and_then_steadily() -> None:
    delays = [health.startup_delay(n) for n in range(8)]
    assert delays[0] == 0.05
    assert delays == sorted(delays)
    assert delays[-1] == health.STARTUP_DELAY_CAP


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (MessageError(name="ProviderAuthError", message="no key"), Cause.AUTH),
        (MessageError(name="APIError", message="no", status_code=401), Cause.AUTH),
        (MessageError(name="APIError", message="no", status_code=403), Cause.AUTH),
        (MessageError(name="APIError", message="slow down", status_code=429), Cause.RATE_LIMIT),
        (MessageError(name="ContextOverflowError", message="long", status_code=400), Cause.CONTEXT),
        (MessageError(name="APIError", message="overloaded", status_code=500), Cause.PROVIDER),
        (MessageError(name="APIError", message="pay", status_code=402), Cause.PROVIDER),
        (MessageError(name="UnknownError", message="Agent not found: x"), Cause.REJECTED),
        (MessageError(name="ProviderModelNotFoundError", message=""), Cause.REJECTED),
        (MessageError(name="UnknownError", message="it broke"), Cause.PROVIDER),
    ],
)
def test_p25_what_an_error_is_called(error: MessageError, cause: Cause) -> None:
    failure = failures.of_error(error)
    assert failure.cause is cause
    assert failure.message


@pytest.mark.parametrize(
    ("death", "cause", "words"),
    [
        (Death(exit_code=137, oom_killed=True), Cause.OOM, "out of memory"),
        (Death(exit_code=137, oom_killed=False), Cause.CRASH, "SIGKILL"),
        (Death(exit_code=139, oom_killed=False), Cause.CRASH, "signal 11"),
        (Death(exit_code=1, oom_killed=False), Cause.CRASH, "exit code 1"),
        (Death(exit_code=None, oom_killed=False), Cause.CRASH, "unknown"),
        (Death(exit_code=None, oom_killed=False, removed=True), Cause.REMOVED, "removed"),
    ],
)
def test_p25_what_a_death_is_called(death: Death, cause: Cause, words: str) -> None:
    failure = failures.of_death(death)
    assert failure.cause is cause
    assert words in failure.message
    assert failure.exit_code == death.exit_code


def test_a_ladder_only_goes_up_and_keeps_the_time_of_each_rung() -> None:
    ladder = Ladder(rung=Rung.ABORT, since=0.0).up(10.0).up(25.0)
    assert ladder.to(Rung.STOP, 26.0) == ladder
    assert ladder.to(Rung.REMOVE, 27.0).ended(30.0) == Climb(
        ended_by=Rung.REMOVE,
        seconds=((Rung.ABORT, 10.0), (Rung.STOP, 15.0), (Rung.KILL, 2.0), (Rung.REMOVE, 3.0)),
    )


def test_every_rung_has_a_grace_and_words() -> None:
    assert [GRACES.of(rung) for rung in Rung] == [10.0, 15.0, 5.0, 10.0, 0.0]
    assert len({in_words(rung) for rung in Rung}) == len(Rung)
