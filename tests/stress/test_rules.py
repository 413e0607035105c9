"""Rules of the harness that no planted bug of the system reaches."""

from __future__ import annotations

import pytest
from attrs import evolve

from opencode_actors import Settings
from opencode_actors.machines.notices import (
    InputAnswered,
    InputEnd,
    InputWanted,
    JobStarted,
    Notice,
    OutputAdded,
    OutputKind,
)
from opencode_actors.machines.server_events import ConversationId
from opencode_actors.machines.vocabulary import JobId, RequestKind, SessionKey
from opencode_actors.stress.findings import Findings
from opencode_actors.stress.judge import Judge
from opencode_actors.stress.memory import ALLOWANCE, Memory
from opencode_actors.stress.plan import make_plan
from opencode_actors.stress.scenario import Talk, Value
from opencode_actors.stress.scenarios import DEFAULTS
from opencode_actors.stress.virtual import run_virtual
from opencode_actors.stress.wanderers import Record

JOB, SESSION = JobId("job_1"), SessionKey("demo")
STARTED = JobStarted(job=JOB, session=SESSION)
MIB = 1 << 20


def words(seq: int, offset: int, text: str) -> OutputAdded:
    return OutputAdded(seq=seq, job=JOB, session=SESSION, kind=OutputKind.TEXT, offset=offset, text=text)


def told(*notices: Notice) -> Record:
    record = Record()
    for notice in notices:
        assert record.add(notice) is None
    return record


def test_a_process_may_take_what_it_was_given_and_no_more() -> None:
    memory = Memory(warm_after=10.0)
    memory.look(50 * MIB, 1, 0.0)
    memory.look(100 * MIB, 1, 10.0)
    memory.look(100 * MIB + ALLOWANCE, 1, 20.0)
    assert memory.grown_too_far(jobs=0, output=0) is None
    memory.look(110 * MIB + ALLOWANCE, 1, 30.0)
    assert "grew from 100 MiB" in (memory.grown_too_far(jobs=0, output=0) or "")
    assert memory.grown_too_far(jobs=160, output=0) is None
    assert memory.grown_too_far(jobs=0, output=2 * MIB) is None


def test_a_service_that_begins_again_is_warm_later() -> None:
    memory = Memory(warm_after=10.0)
    memory.look(10 * MIB, 1, 10.0)
    memory.look(900 * MIB, 2, 20.0)
    assert memory.grown_too_far(jobs=0, output=0) is None
    assert memory.figures() == {}


def test_words_may_come_in_other_pieces_and_nothing_may_be_missing() -> None:
    whole = told(evolve(STARTED, seq=1), words(2, 0, "one "), words(3, 4, "two"))
    assert list(told(words(3, 0, "one two")).differs(whole, 1, 3)) == []
    assert list(told(words(3, 4, "two")).differs(whole, 2, 3)) == []
    assert list(told(words(3, 4, "twi")).differs(whole, 2, 3)) == [f"other words of {JOB} were told"]
    assert list(told(words(2, 0, "one ")).differs(whole, 0, 2)) == [
        f"notice 1 (JobStarted of {JOB}) was not told"
    ]


@pytest.mark.parametrize("again", [evolve(STARTED, seq=1), words(3, 9, "and more")])
def test_nothing_is_told_twice_or_with_a_gap(again: Notice) -> None:
    record = told(evolve(STARTED, seq=1), words(2, 0, "one"))
    assert record.add(again) is not None


@pytest.mark.parametrize(
    ("setting", "ends"),
    [
        ({"maxOutputSize": "100k"}, "completed"),
        ({"jobTimeout": 130.0}, "failed (job_timeout)"),
        ({"onUnanswered": "fail"}, "failed (unanswered)"),
        ({"maxSessions": 2}, "completed"),
        ({"sessionIdleTimeout": 60.0}, "completed"),
    ],
)
def test_a_bound_that_is_reached_is_no_broken_rule(setting: dict[str, Value], ends: str) -> None:
    report = run_virtual(make_plan(evolve(DEFAULTS[0], settings=setting), 1))
    assert [violation.text for violation in report.violations] == []
    assert ends in report.ends


@pytest.mark.parametrize(("least", "broken"), [(0.2, ["refused for a reason"]), (0.0, [])])
def test_a_system_that_refuses_nearly_everything_breaks_a_rule(least: float, broken: list[str]) -> None:
    """Each refusal has its reason: one job may wait."""
    flood = evolve(
        DEFAULTS[0], sessions=1, duration=1.0, prompts={Talk.HANG: 1}, least_accepted=least, cancelled=0.0
    )
    report = run_virtual(make_plan(evolve(flood, settings={"maxQueuedJobs": 1}), 2))
    assert [violation.rule for violation in report.violations] == broken
    assert report.accepted < 8


def test_what_concerns_nobody_in_particular_is_kept_each_time_with_what_led_to_it() -> None:
    findings = Findings()
    findings.saw(1.0, "creating", session="s0")
    findings.broke("nothing is left", 2.0, "container one")
    findings.broke("nothing is left", 2.0, "container two")
    findings.broke("settles once", 2.0, "twice", session="s0", job=1)
    findings.broke("settles once", 3.0, "three times", session="s0", job=1)
    assert [violation.text for violation in findings.violations] == [
        "container one",
        "container two",
        "twice",
    ]
    assert "creating" in findings.violations[0].trace[0]


def test_what_was_told_before_it_had_a_number_is_told_to_the_others_when_it_has() -> None:
    there, later = told(STARTED), told(evolve(STARTED, seq=1))
    assert list(later.differs(there, 0, 1)) == []
    assert list(there.differs(later, 0, 1)) == []


def test_a_request_ends_once_though_a_full_disk_has_its_end_told_before_it_is_recorded() -> None:
    judge = Judge(Settings(), Findings())
    asked = InputWanted(
        job=JOB,
        session=SESSION,
        request="que_1",
        kind=RequestKind.QUESTION,
        text="Which?",
        conversation=ConversationId("ses_1"),
    )
    gone = InputAnswered(job=JOB, session=SESSION, request="que_1", end=InputEnd.GONE)
    notices: tuple[Notice, ...] = (evolve(asked, seq=1), gone, evolve(gone, seq=2))
    for seq, notice in enumerate(notices):
        judge.noticed(notice, float(seq))
    assert judge.findings.violations == []
    judge.noticed(evolve(gone, seq=3), 3.0)
    assert [violation.text for violation in judge.findings.violations] == ["que_1 ended, and did not wait"]
