"""What the harness itself withstands, and that its worlds make what they say."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path

import trio
import trio.testing

from opencode_actors import Settings, System
from opencode_actors.errors import EngineUnavailable
from opencode_actors.stress import Report, Scenario, Wire, run_stress


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
