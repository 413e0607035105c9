"""The same rules over real sockets, with the real client and the real journal, in real time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from opencode_actors.stress.local import run_local
from opencode_actors.stress.plan import make_plan
from opencode_actors.stress.scenario import FaultKind
from opencode_actors.stress.scenarios import BRISK

from .test_virtual import shown, without


@pytest.mark.parametrize("fixed", [1, None], ids=["fixed", "fresh"])
def test_the_rules_hold_over_real_sockets(fixed: int | None, fresh_seed: Callable[[str, str], int]) -> None:
    """A service that ends in order in the midst of other faults is left to the virtual world, where the same seed
    does the same again, and a clock that is set back, too."""
    scenario = without(BRISK, FaultKind.SERVICE_ENDED, FaultKind.CLOCK_STEP)
    seed = fresh_seed("local", BRISK.name) if fixed is None else fixed
    report = run_local(make_plan(scenario, seed))
    assert report.passed, shown(report)
    assert report.accepted + sum(report.refused.values()) == BRISK.jobs
