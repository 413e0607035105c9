"""How a bug is put into the system, and the run that is known to show it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from attrs import evolve, frozen

from opencode_actors.stress.plan import make_plan
from opencode_actors.stress.report import Report
from opencode_actors.stress.scenarios import DEFAULTS
from opencode_actors.stress.virtual import run_virtual

Plant = Callable[[pytest.MonkeyPatch], None]


@frozen
class Bug:
    """`rule` is what it breaks, `says` stands in what is said of it, and `shown_by` is the usual scenario that shows
    it, with that `seed`."""

    name: str
    rule: str
    says: str
    plant: Plant
    shown_by: str = "fair weather"
    seed: int = 0


def planted(target: object, name: str, wrong: Callable[..., Any]) -> Plant:
    """`wrong` is called with what stood there, and the arguments."""

    def plant(monkeypatch: pytest.MonkeyPatch) -> None:
        right = getattr(target, name)

        def instead(*arguments: Any, **named: Any) -> Any:
            return wrong(right, *arguments, **named)

        monkeypatch.setattr(target, name, instead)

    return plant


def found_by(bug: Bug) -> Report:
    """The run that is known to show it."""
    (scenario,) = (scenario for scenario in DEFAULTS if scenario.name == bug.shown_by)
    return run_virtual(make_plan(scenario, bug.seed))


def expect_found(bug: Bug, report: Report) -> None:
    said = [f"{violation.rule}: {violation.text}" for violation in report.violations]
    found = (violation for violation in report.violations if violation.rule == bug.rule)
    assert any(bug.says in violation.text for violation in found), said


def expect_nothing(bugs: Sequence[Bug], shown_by: str) -> None:
    """In the runs of that scenario that show them."""
    for seed in {bug.seed for bug in bugs if bug.shown_by == shown_by}:
        assert not found_by(evolve(bugs[0], shown_by=shown_by, seed=seed)).violations
