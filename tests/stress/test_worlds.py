"""What the harness itself withstands, and that its worlds make what they say."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from attrs import evolve

from opencode_actors import Settings, System
from opencode_actors.errors import EngineUnavailable
from opencode_actors.kernel.servers import Servers
from opencode_actors.kernel.sessions import Sessions
from opencode_actors.machines import job
from opencode_actors.machines.job_messages import JobTimer
from opencode_actors.machines.prompt_ids import stamped
from opencode_actors.machines.vocabulary import JobId, Leave, Moment
from opencode_actors.ports import Endpoint
from opencode_actors.store.journal import open_journal
from opencode_actors.store.port import Store
from opencode_actors.stress import FaultKind, FaultPlan, Report, Scenario, Talk, Wire, local, run_stress
from opencode_actors.stress.local import run_local
from opencode_actors.stress.plan import PlannedFault, make_plan
from opencode_actors.stress.scenarios import DEFAULTS
from opencode_actors.stress.virtual import run_virtual
from opencode_actors.stress.weather import Lasting

from .test_virtual import shown


class NoEngine(AbstractAsyncContextManager[System]):
    """A system that does not open."""

    async def __aenter__(self) -> System:
        await trio.lowlevel.checkpoint()
        raise EngineUnavailable("no engine answers")

    async def __aexit__(self, *_: object) -> None:
        """There was none."""


def test_a_service_that_never_begins_ends_the_run_and_is_told(tmp_path: Path) -> None:
    def never(wire: Wire) -> NoEngine:
        return NoEngine()

    async def run() -> Report:
        scenario = Scenario(jobs=5, duration=5.0, settle_within=60.0)
        settings = Settings(model="scripted/demo", sessions_dir=tmp_path / "s", workspaces_dir=tmp_path / "w")
        return await run_stress(scenario, never, settings=settings, seed=1)

    report = trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))
    broken = {violation.rule: violation.text for violation in report.violations}
    assert "no engine answers" in broken["the service begins"]
    assert "every planned job is accepted or refused" in broken
    assert report.accepted == 0


# ---- what only these faults and counts show


def of(name: str) -> Scenario:
    (found,) = (scenario for scenario in DEFAULTS if scenario.name == name)
    return found


def rules(name: str, seed: int) -> dict[str, str]:
    """What was said of each rule that was broken."""
    report = run_virtual(make_plan(of(name), seed))
    said: dict[str, str] = {}
    for violation in report.violations:
        said[violation.rule] = f"{said.get(violation.rule, '')}{violation.text}\n"
    return said


def test_a_prompt_that_is_sent_again_as_another_one_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = job._running_timer

    def wrong(state: Any, running: Any, timer: JobTimer, now: float) -> Any:
        if timer is JobTimer.SUBMIT:
            moment = Moment(now=now, wall=state.created_at, roll=0.123)
            state = evolve(state, prompt=stamped(state.prompt, moment))
        return right(state, running, timer, now)

    monkeypatch.setattr(job, "_running_timer", wrong)
    assert "2 times" in rules("answers are lost", 0)["each prompt reaches the model once"]


def test_a_client_of_a_server_that_is_never_closed_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def forget(self: Servers, endpoint: Endpoint) -> None:
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(Servers, "forget", forget)
    assert "clients of servers" in rules("fair weather", 0)["nothing is left"]


def test_what_a_closed_system_leaves_behind_when_nobody_cleaned_up_before_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def close_all(self: Sessions, leave: Leave) -> frozenset[JobId]:
        await trio.lowlevel.checkpoint()
        return frozenset()

    monkeypatch.setattr(Sessions, "close_all", close_all)
    assert "container" in rules("fair weather", 1)["nothing is left"]


def test_an_end_that_closes_what_it_should_leave_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Sessions.close_all

    async def close_all(self: Sessions, leave: Leave) -> frozenset[JobId]:
        return await right(self, Leave.NOTHING)

    monkeypatch.setattr(Sessions, "close_all", close_all)
    found = [rules("ended while it works", seed) for seed in range(3)]
    assert any("an end leaves what it should" in broken for broken in found)


# ---- faults


FAULT = PlannedFault(number=0, at=0.0, kind=FaultKind.ENGINE_REFUSES, lasts=5.0, session="s0", roll=0.0)


def test_of_two_faults_that_do_the_same_the_last_one_s_end_is_the_end() -> None:
    lasting = Lasting()
    other, elsewhere = evolve(FAULT, number=1), evolve(FAULT, number=2, session="s1")
    for fault in (FAULT, other, elsewhere):
        lasting.begin(fault)
    assert not lasting.end(FAULT, of_session=True)
    assert lasting.end(other, of_session=True)
    assert lasting.end(elsewhere, of_session=False)


def test_a_fault_that_nobody_felt_hit_nothing() -> None:
    scenario = Scenario(
        jobs=1,
        duration=5.0,
        faults=(
            FaultPlan(kind=FaultKind.ENGINE_LIES, at=(400.0,), lasts=5.0),
            FaultPlan(kind=FaultKind.PROVIDER_500, at=(400.0,), lasts=5.0),
            FaultPlan(kind=FaultKind.RECEIVER_AWAY, at=(400.0,), lasts=5.0),
        ),
    )
    report = run_virtual(make_plan(scenario, 1))
    assert report.passed
    assert report.hits == {}
    assert report.missed == {"engine_lies": 1, "provider_500": 1, "receiver_away": 1}


def test_the_journal_of_the_local_world_is_opened_by_each_service(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []

    def counted(folder: Path) -> AbstractAsyncContextManager[Store]:
        opened.append(folder)
        return open_journal(folder)

    monkeypatch.setattr(local, "open_journal", counted)
    scenario = Scenario(
        jobs=6,
        duration=2.0,
        pace=0.02,
        settle_within=20.0,
        prompts={Talk.STREAM: 1},
        faults=(
            FaultPlan(kind=FaultKind.SERVICE_KILLED, at=(0.5,), lasts=0.1),
            FaultPlan(kind=FaultKind.SERVICE_ENDED, at=(1.2,), lasts=0.1),
        ),
    )
    report = run_local(make_plan(scenario, 1))
    assert report.passed, shown(report)
    # To know whose it is, and for each of three services: one that comes before the killed one has let go tries again.
    assert len(opened) >= 4


def test_clients_that_find_nobody_to_trouble_have_hit_nobody() -> None:
    storms = (FaultKind.CANCEL_STORM, FaultKind.CLOSE_STORM, FaultKind.CLEANUP_STORM)
    scenario = Scenario(
        jobs=1,
        duration=5.0,
        faults=tuple(FaultPlan(kind=kind, at=(400.0,)) for kind in storms),
        settings={"sessionIdleTimeout": 60.0},
    )
    report = run_virtual(make_plan(scenario, 1))
    assert report.passed, shown(report)
    assert report.hits == {}
    assert set(report.missed) == {kind.value for kind in storms}
