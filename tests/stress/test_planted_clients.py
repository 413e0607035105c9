"""Bugs that only some clients meet: who follows one job, asks again late, is asked for permission."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from opencode_actors.kernel import jobs
from opencode_actors.kernel.finished import Finished
from opencode_actors.kernel.hub import Following, Hub
from opencode_actors.kernel.jobs import Jobs
from opencode_actors.machines import job
from opencode_actors.ports import PermissionReply
from opencode_actors.testing.fake_calls import ToolRun
from opencode_actors.testing.fake_opencode import FakeOpenCode

from .planting import Bug, expect_found, expect_nothing, found_by, planted

_TOLD, _ONE = "every notice is told", "one job for each prompt"
_ANSWER = "a request takes one answer"


def _after(more: int) -> Any:
    """Of those who follow one job that has not ended."""

    def wrong(right: Any, self: Hub, job: Any = None, *rest: Any, **named: Any) -> Any:
        if job is not None and not named.get("ended"):
            since, history = named["since"]
            named["since"] = max(0, since + more), history
        return right(self, job, *rest, **named)

    return wrong


def _goes_on(right: Any, self: Following, notice: Any) -> bool:
    return False


def _of_all(right: Any, self: Following, notice: Any) -> bool:
    return True


def _lasts_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "KEY_LASTS", 20.0)


async def _of_this_life(right: Any, self: Jobs, key: Any) -> Any:
    """Not one of a job that had ended before this service began."""
    known = await right(self, key)
    here = known is not None and (known.job in self.entries or self._finished.get(known.job) is not None)
    return known if here else None


async def _permitted(right: Any, self: FakeOpenCode, request: str, reply: Any, **named: Any) -> None:
    del reply, named
    await right(self, request, PermissionReply.ONCE)


async def _without_a_word(right: Any, self: FakeOpenCode, request: str, reply: Any, **named: Any) -> None:
    del named
    await right(self, request, reply)


def _nothing_is_asked_for(right: Any, self: ToolRun) -> str:
    return "allow"


def _for_ever(right: Any, self: Finished, job: Any, ended: Any) -> None:
    self._ended[job] = ended


def _all_notices(right: Any, self: Hub, notice: Any) -> None:
    self.position = notice.seq
    self._recent.append(notice)


def _any_number(right: Any, places: int) -> Any:
    return right(10**9)


_LEFT: list[object] = []


def _leaves_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the machine is, as if it were its own."""
    monkeypatch.setattr(job, "_LEFT", _LEFT, raising=False)
    _LEFT.clear()

    def settled(right: Any, state: Any, *rest: Any, **named: Any) -> Any:
        _LEFT.append(state.id)
        return right(state, *rest, **named)

    planted(job, "_settle_stopped", settled)(monkeypatch)


BUGS = (
    Bug("a follower of one job who misses one", _TOLD, "was not told", planted(Hub, "follow", _after(1))),
    Bug(
        "a follower of one job who is told again", _TOLD, "was told after", planted(Hub, "follow", _after(-9))
    ),
    Bug(
        "a follower of one job who never ends",
        _TOLD,
        "no more comes",
        planted(Following, "_is_the_end", _goes_on),
    ),
    Bug(
        "a follower of one job who hears all", _TOLD, "it was told of", planted(Following, "_wants", _of_all)
    ),
    Bug("a key that lasts for a moment", _ONE, "asked for twice under one key", _lasts_for_a_moment),
    Bug(
        "a key that dies with its service",
        _ONE,
        "asked for twice under one key",
        planted(Jobs, "keyed", _of_this_life),
        "killed while it writes",
    ),
    Bug(
        "ends remembered for ever",
        "bounded",
        "ends of",
        planted(Finished, "remember", _for_ever),
        "a long day",
    ),
    Bug(
        "notices remembered for ever",
        "bounded",
        "notices of",
        planted(Hub, "_remember", _all_notices),
        "a long day",
    ),
    Bug("something left of each job that was stopped", "bounded", "things more than before", _leaves_one),
    Bug(
        "any number of letters",
        "bounded",
        "messages wait for",
        planted(trio, "Semaphore", _any_number),
    ),
    Bug(
        "a permission that is always given",
        _ANSWER,
        "told ['yes'], and what was taken is ['no']",
        planted(FakeOpenCode, "answer_permission", _permitted),
    ),
    Bug(
        "a refusal without its word",
        _ANSWER,
        "['no'] was taken, and the model was told []",
        planted(FakeOpenCode, "answer_permission", _without_a_word),
        seed=3,
    ),
    Bug(
        "a permission that nobody is asked for",
        _ANSWER,
        "told ['yes'], and what was taken is []",
        planted(ToolRun, "_action", _nothing_is_asked_for),
    ),
)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    bug.plant(monkeypatch)
    expect_found(bug, found_by(bug))


@pytest.mark.parametrize("shown_by", sorted({bug.shown_by for bug in BUGS}))
def test_without_them_the_same_runs_pass(shown_by: str) -> None:
    expect_nothing(BUGS, shown_by)
