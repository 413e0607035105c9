"""Which of the tasks that could run runs first is chance in trio; here it is a seed, so that it can be had
again. `@schedules(20)` runs a test under twenty of them."""

from __future__ import annotations

import pytest
import trio._core._run as trio_run


@pytest.fixture(autouse=True)
def schedule(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    seed = int(getattr(request, "param", 0))
    # What trio's own plugin for hypothesis does: tasks are shuffled by this generator alone.
    monkeypatch.setattr(trio_run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
    trio_run._r.seed(seed)
    return seed
