"""Bugs in the adapters and in the journal that ship, which only real sockets and a real disk can show."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from attrs import evolve

from opencode_actors.adapters.openclaw_hooks import HttpWebhook
from opencode_actors.adapters.opencode import HttpOpenCode
from opencode_actors.door.backlog import Backlog
from opencode_actors.store.output_files import OutputFiles
from opencode_actors.stress.local import run_local
from opencode_actors.stress.plan import make_plan
from opencode_actors.stress.scenario import Scenario, Talk

from .planting import Bug, expect_found, planted

# Nothing troubles it: what is wrong is the bug's.
CALM = Scenario(
    name="calm",
    sessions=3,
    jobs=12,
    duration=2.0,
    pace=0.02,
    settle_within=20.0,
    prompts={Talk.SHORT: 2, Talk.STREAM: 1, Talk.BURST: 1, Talk.QUESTION: 3},
    settings={"questionTimeout": 1.0},
)


async def _posts_twice(right: Any, self: HttpWebhook, request: Any) -> Any:
    await right(self, request)
    return await right(self, request)


def _appends_twice(right: Any, self: OutputFiles, job: Any, data: bytes) -> Any:
    right(self, job, data)
    return right(self, job, data)


async def _always_yes(right: Any, self: HttpOpenCode, request: str, answers: Any) -> None:
    await right(self, request, (("yes",),))


_KEPT: list[HttpOpenCode] = []


async def _stays_open(right: Any, self: HttpOpenCode) -> None:
    """One that nobody holds any more is closed by Python."""
    _KEPT.append(self)
    await trio.lowlevel.checkpoint()


def _a_byte_too_far(right: Any, self: OutputFiles, job: Any, offset: int, limit: int) -> Any:
    return right(self, job, offset + (offset > 0), limit)


def _holds_all(right: Any, self: Backlog, size: int) -> None:
    self._bytes += size


BUGS = (
    Bug(
        "a webhook that posts twice",
        "one announcement for each job",
        "announced again",
        planted(HttpWebhook, "post", _posts_twice),
        seed=1,
    ),
    Bug(
        "output that is appended twice",
        "whole output",
        "are kept",
        planted(OutputFiles, "append", _appends_twice),
        seed=1,
    ),
    Bug(
        "an answer of its own",
        "a request takes one answer",
        "the model was told ['yes']",
        planted(HttpOpenCode, "answer_question", _always_yes),
        seed=1,
    ),
    Bug(
        "a client that is not closed",
        "nothing is left",
        "socket",
        planted(HttpOpenCode, "aclose", _stays_open),
        seed=2,  # with an odd one nothing is looked for before the system is closed
    ),
    Bug(
        "a page that begins a byte too far",
        "whole output",
        "are kept",
        planted(OutputFiles, "read", _a_byte_too_far),
        seed=1,
    ),
)


# Of what a planted bug has left open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_bug_that_is_planted_in_an_adapter_is_found(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    bug.plant(monkeypatch)
    expect_found(bug, run_local(make_plan(CALM, bug.seed)))


def test_a_door_that_holds_all_for_who_does_not_read_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its frames have 5 s to be ended."""
    planted(Backlog, "hold", _holds_all)(monkeypatch)
    report = run_local(make_plan(evolve(CALM, duration=20.0), 1))
    assert [violation.text for violation in report.violations if "is still let in" in violation.text]


def test_nothing_is_found_where_nothing_is_planted() -> None:
    assert not run_local(make_plan(CALM, 1)).violations
