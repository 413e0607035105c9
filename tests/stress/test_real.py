"""The same rules with real containers, the real OpenCode and a service that is killed: one short scenario."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from opencode_actors.cli.main import main
from opencode_actors.settings import Settings
from opencode_actors.stress.plan import make_plan
from opencode_actors.stress.real import run_real
from opencode_actors.stress.scenarios import BRIEF

from .test_virtual import shown


@pytest.mark.podman
@pytest.mark.image
@pytest.mark.parametrize("fixed", [1, 12, None], ids=["1", "12", "fresh"])
def test_the_rules_hold_with_real_containers(
    fixed: int | None, fresh_seed: Callable[[str, str], int]
) -> None:
    seed = fresh_seed("real", BRIEF.name) if fixed is None else fixed
    report = run_real(make_plan(BRIEF, seed), settings=Settings())
    assert report.passed, shown(report)
    assert report.accepted + sum(report.refused.values()) == BRIEF.jobs
    if fixed is not None:
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
