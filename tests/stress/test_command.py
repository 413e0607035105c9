"""`opencode-actors stress`: what it prints and writes, and how it ends; and the example of its documentation."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from attrs import evolve

from opencode_actors.cli.main import main
from opencode_actors.cli.stress import TerminalScreen
from opencode_actors.machines import failures
from opencode_actors.machines.vocabulary import Failure
from opencode_actors.ports import Death
from opencode_actors.stress import Report
from opencode_actors.stress.plan import Plan, make_plan
from opencode_actors.stress.report import Latency
from opencode_actors.stress.scenario import FaultKind
from opencode_actors.stress.scenarios import BRISK, DEFAULTS
from opencode_actors.stress.virtual import run_virtual
from opencode_actors.testing.fake_engine import FakeEngine

DOCS = Path(__file__).parents[2] / "docs" / "stress.md"
DIES = """
name = "dies"
jobs = 12
duration = 120
prompts = { stream = 1 }

[[faults]]
kind = "container_oom"
times = 10
"""


@pytest.fixture
def scenario(tmp_path: Path) -> str:
    path = tmp_path / "dies.toml"
    path.write_text(DIES)
    return str(path)


@pytest.fixture
def bug(monkeypatch: pytest.MonkeyPatch) -> None:
    right = failures.of_death

    def wrong(death: Death) -> Failure:
        return right(evolve(death, oom_killed=False))

    monkeypatch.setattr(failures, "of_death", wrong)


def test_a_run_is_one_line_and_the_same_document_for_the_same_seed(
    scenario: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["stress", scenario, "--seed", "7"]) == 0
    assert capsys.readouterr().out.startswith("ok     dies, virtual, seed 7: ")
    documents: list[str] = []
    for _ in range(2):
        assert main(["stress", scenario, "--replay", "7", "--json"]) == 0
        documents.append(capsys.readouterr().out)
    assert documents[0] == documents[1]
    assert json.loads(documents[0])["runs"][0]["faults"]["hit"]["container_oom"] > 0


@pytest.mark.usefixtures("bug")
def test_a_broken_rule_is_told_with_its_trace_and_cut_down(
    scenario: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "report.html"
    assert main(["stress", scenario, "--seed", "7", "--shrink", "--html", str(page)]) == 1
    said = capsys.readouterr().out
    assert said.startswith("BROKEN dies")
    assert "the true cause: it failed of crash" in said
    assert "FAULT container_oom, exit code 137" in said
    assert re.search(r"1 jobs, and faults container_oom at [\d.]+; to have it again:\n", said)
    command = shlex.split(said.splitlines()[-1])
    assert command[:2] == ["opencode-actors", "stress"]
    assert main([*command[1:], "--json"]) == 1
    (again,) = json.loads(capsys.readouterr().out)["runs"]
    assert (again["jobs"]["planned"], again["faults"]["hit"]) == (1, {"container_oom": 1})
    for violation in again["violations"]:
        assert all(line in said for line in violation["trace"])
    html = page.read_text(encoding="utf-8")
    assert "<svg" in html
    assert "the true cause" in html
    assert not re.search(r"(src|href)=|url\(|@import", html)


def test_a_fresh_seed_is_printed(scenario: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stress", scenario, "--runs", "2"]) == 0
    said = capsys.readouterr()
    first, second = re.findall(r"seed (\d+):", said.out)
    assert int(second) == int(first) + 1
    assert said.err == f"seed {first}\n"  # before anything that could break


@pytest.mark.parametrize("page", ["report.html", "/dev/full"])
def test_of_runs_that_are_broken_off_what_there_is_is_told(
    scenario: str,
    tmp_path: Path,
    page: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs = 0

    def once(plan: Plan, **more: Any) -> Report:
        nonlocal runs
        runs += 1
        if runs > 1:
            raise KeyboardInterrupt
        return run_virtual(plan, **more)

    monkeypatch.setattr("opencode_actors.cli.stress.run_virtual", once)
    html = tmp_path / page
    assert main(["stress", scenario, "--seed", "7", "--runs", "2", "--json", "--html", str(html)]) == 130
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert (told["whole"], told["passed"]) == (False, False)
    assert [run["seed"] for run in told["runs"]] == [7]
    if page == "report.html":
        assert told["runs"][0]["again"] in html.read_text(encoding="utf-8")
    else:
        assert "/dev/full cannot be written: No space left on device" in said.err


def test_a_page_is_not_begun_before_there_is_anything_in_it(scenario: str, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert main(["stress", scenario, "--seed", "x", "--html", str(page)]) == 2
    assert main(["stress", scenario, "--replay", "1", "--jobs", "99", "--html", str(page)]) == 2
    assert not page.exists()


def test_a_full_disk_behind_the_output_is_no_bug(scenario: str) -> None:
    command = [sys.executable, "-m", "opencode_actors.cli", "stress", scenario, "--seed", "7", "--json"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 3
    assert done.stderr.startswith("error: there is no room left for what it writes\nhint: ")


def test_a_share_is_the_value_that_so_many_do_not_exceed() -> None:
    ten = Latency(name="ten", values=tuple(float(number) for number in range(1, 11)))
    assert [ten.share(share) for share in (0.5, 0.9, 0.99, 1.0)] == [5.0, 9.0, 10.0, 10.0]
    assert Latency(name="two", values=(1.0, 9.0)).share(0.5) == 1.0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing.toml"], "there is no file nothing.toml"),
        (["fair weather", "--seed", "x"], "seeds and runs are whole numbers"),
        (["fair weather", "--seed", "1", "--replay", "2"], "both say which seed"),
        (["fair weather", "--runs", "0"], "0 runs show nothing"),
        (["fair weather", "--jobs", "1"], "parts of one run"),
        (["--replay", "1", "--faults", "1"], "parts of one run"),
        (["fair weather", "--replay", "1", "--jobs", "1,99"], "the plan has no 99"),
        (["fair weather", "--replay", "1", "--faults", "x"], "are no numbers"),
        (["fair weather", "--html", "/nowhere/report.html"], "cannot be written"),
        (["fair weather", "--set", "idleTimeout=3"], "--set is for --world real"),
        (["fair weather", "--world", "local", "--engine", "docker"], "--engine is for --world real"),
        (["fair weather", "--replay", "1", "--runs", "3"], "--replay is one run"),
    ],
)
def test_what_cannot_be_is_refused(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["stress", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_terminal_shows_where_a_run_is_and_what_took_how_long(capsys: pytest.CaptureFixture[str]) -> None:
    screen = TerminalScreen()
    plan = make_plan(DEFAULTS[0], 0)
    with screen:
        screen.begin(plan)
        report = run_virtual(plan, watch=screen.watch)
        screen.ran(report)
    screen.conclude([report])
    said = capsys.readouterr().out
    assert "ok     fair weather" in said
    assert "first text" in said


def test_the_documentation_names_every_fault_and_every_rule_has_its_place() -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert [kind.value for kind in FaultKind if f"`{kind.value}`" not in text] == []
    assert f'"{BRISK.name}"' in text


def test_the_example_of_the_documentation_runs(tmp_path: Path) -> None:
    report = the_example(tmp_path)
    assert report.passed, report.violations
    assert report.accepted == 20
    assert report.hits["service_killed"] == 2
    assert report.unchecked == (
        "one announcement for each job",
        "an end ends the work",
        "that each rung which is told is tried",
    )


def test_what_somebodys_own_system_leaves_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def keep(self: FakeEngine, container: str) -> None:
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(FakeEngine, "remove", keep)
    broken = {violation.rule for violation in the_example(tmp_path).violations}
    assert "nothing is left" in broken


def the_example(tmp_path: Path) -> Report:
    (code,) = re.findall(r"<!-- a test runs this -->\n```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - our own documentation
    stressed: Callable[[Path], Awaitable[Report]] = names["stressed"]
    return trio.run(stressed, tmp_path, clock=trio.testing.MockClock(autojump_threshold=0))
