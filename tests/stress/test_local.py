"""The same rules over real sockets, with the real client and the real journal, in real time."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from opencode_actors.stress.local import run_local
from opencode_actors.stress.plan import make_plan
from opencode_actors.stress.scenarios import BRISK

from .test_virtual import shown


@pytest.mark.parametrize("seed", [1, random.SystemRandom().randrange(1 << 32)], ids=["fixed", "fresh"])
def test_the_rules_hold_over_real_sockets(seed: int, record_property: Callable[[str, object], None]) -> None:
    record_property("seed", seed)
    report = run_local(make_plan(BRISK, seed))
    assert report.passed, shown(report)
    assert report.accepted + sum(report.refused.values()) == BRISK.jobs
