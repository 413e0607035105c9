"""The whole system in the virtual world: the usual scenarios under fixed seeds, and one that nobody chose."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from opencode_actors.stress.plan import make_plan
from opencode_actors.stress.report import Report
from opencode_actors.stress.scenario import Scenario
from opencode_actors.stress.scenarios import DEFAULTS
from opencode_actors.stress.virtual import run_virtual

SEEDS = range(2)


def shown(report: Report) -> str:
    lines = [f"{report.plan.scenario.name}, seed {report.plan.seed}"]
    for violation in report.violations:
        lines += [f"{violation.rule}: {violation.text}", *violation.trace]
    return "\n".join(lines)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("scenario", DEFAULTS, ids=lambda scenario: scenario.name)
def test_the_rules_hold(scenario: Scenario, seed: int) -> None:
    report = run_virtual(make_plan(scenario, seed))
    assert report.passed, shown(report)
    assert report.accepted + sum(report.refused.values()) == scenario.jobs
    assert sum(report.ends.values()) == report.accepted


@pytest.mark.parametrize("scenario", DEFAULTS, ids=lambda scenario: scenario.name)
def test_the_rules_hold_with_a_seed_that_nobody_chose(
    scenario: Scenario, fresh_seed: Callable[[str, str], int]
) -> None:
    report = run_virtual(make_plan(scenario, fresh_seed("virtual", scenario.name)))
    assert report.passed, shown(report)


def test_every_fault_hits_something() -> None:
    """Otherwise the rules would hold in fair weather only. What nobody felt is no hit."""
    hit: set[str] = set()
    for scenario in DEFAULTS:
        if scenario.name in ("everything at once", "the engine fails", "servers misbehave"):
            for seed in range(4):
                hit |= set(run_virtual(make_plan(scenario, seed)).hits)
    assert {fault.kind.value for fault in DEFAULTS[-1].faults} - hit == set()


def test_every_latency_is_measured() -> None:
    """A cancel by each rung that ended one, too: what an abort and a stop cannot end is killed or removed."""
    names: set[str] = set()
    for name in ("containers die", "cancels have it hard"):
        (scenario,) = (one for one in DEFAULTS if one.name == name)
        for seed in range(3):
            names |= {latency.name for latency in run_virtual(make_plan(scenario, seed)).latencies}
    assert names >= {"start", "first text", "status", "sessions", "crash found", "restart", "cancel (abort)"}
    assert names & {"cancel (stop)", "cancel (kill)", "cancel (remove)"}


_RUN = """
import json
from opencode_actors.stress.plan import make_plan
from opencode_actors.stress.scenarios import DEFAULTS
from opencode_actors.stress.virtual import run_virtual
print(json.dumps([run_virtual(make_plan(s, 11)).document() for s in DEFAULTS[2::3]]))
"""


def test_a_seed_is_the_same_report_bit_for_bit() -> None:
    """In other processes, where sets and dicts of words have other orders."""
    reports = [
        subprocess.run(
            [sys.executable, "-c", _RUN],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            timeout=240,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert reports[0] == reports[1]
    assert len(json.loads(reports[0])) == len(DEFAULTS[2::3])
