"""The same rules with real containers, the real OpenCode and a service that is killed: one short scenario."""

from __future__ import annotations

import pytest

from opencode_actors.cli.main import main
from opencode_actors.settings import Settings
from opencode_actors.stress.plan import make_plan
from opencode_actors.stress.real import run_real
from opencode_actors.stress.scenarios import BRIEF

from .test_virtual import shown

SEED = 1


@pytest.mark.podman
@pytest.mark.image
def test_the_rules_hold_with_real_containers() -> None:
    report = run_real(make_plan(BRIEF, SEED), settings=Settings())
    assert report.passed, shown(report)
    assert report.accepted + sum(report.refused.values()) == BRIEF.jobs
    assert report.hits["service_killed"] == 1


def test_without_an_engine_the_real_world_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--world", "real", "--set", "engineSocket=/nonexistent/engine.sock"]
    assert main(["stress", *arguments]) == 3
    said = capsys.readouterr().err
    assert "no engine answers where engineSocket says" in said
    assert "hint: " in said


@pytest.mark.podman
def test_without_its_image_the_real_world_says_how_to_get_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stress", "--world", "real", "--image", "localhost/no-such-image:none"]) == 3
    assert "opencode-actors image build" in capsys.readouterr().err
