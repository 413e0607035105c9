"""The same rules over real sockets, with the real client and the real journal, in real time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from opencode_actors.stress.local import run_local
from opencode_actors.stress.plan import make_plan
from opencode_actors.stress.scenario import FaultKind, FaultPlan, Scenario, Talk
from opencode_actors.stress.scenarios import BRISK

from .test_virtual import shown


@pytest.mark.parametrize("fixed", [1, None], ids=["fixed", "fresh"])
def test_the_rules_hold_over_real_sockets(fixed: int | None, fresh_seed: Callable[[str, str], int]) -> None:
    seed = fresh_seed("local", BRISK.name) if fixed is None else fixed
    report = run_local(make_plan(BRISK, seed))
    assert report.passed, shown(report)
    assert report.accepted + sum(report.refused.values()) == BRISK.jobs


def test_a_service_that_finds_no_engine_is_tried_again() -> None:
    """The engine comes back only when the next service has begun in vain."""
    scenario = Scenario(
        name="no engine to begin with",
        sessions=1,
        jobs=4,
        duration=4.0,
        prompts={Talk.STREAM: 1},
        pace=0.1,
        settings={"idleTimeout": 10.0},
        faults=(
            FaultPlan(kind=FaultKind.ENGINE_AWAY, at=(2.0,), lasts=5.0),
            FaultPlan(kind=FaultKind.SERVICE_KILLED, at=(2.0,), lasts=0.0),
        ),
    )
    report = run_local(make_plan(scenario, 1))
    assert report.passed, shown(report)
    assert report.hits[FaultKind.ENGINE_AWAY.value] == 1
