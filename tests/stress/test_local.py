"""The same rules over real sockets, with the real client and the real journal, in real time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from opencode_actors.stress.local import run_local
from opencode_actors.stress.plan import make_plan
from opencode_actors.stress.scenarios import BRISK

from .test_virtual import shown


@pytest.mark.parametrize("fixed", [1, None], ids=["fixed", "fresh"])
def test_the_rules_hold_over_real_sockets(fixed: int | None, fresh_seed: Callable[[str, str], int]) -> None:
    seed = fresh_seed("local", BRISK.name) if fixed is None else fixed
    report = run_local(make_plan(BRISK, seed))
    assert report.passed, shown(report)
    assert report.accepted + sum(report.refused.values()) == BRISK.jobs
