"""Rules of the harness that no planted bug of the system reaches."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import cast

import pytest
import trio
import trio.testing
from attrs import evolve
from trio.testing import MockClock

from opencode_actors.errors import OpenCodeError
from opencode_actors.machines.notices import (
    InputAnswered,
    InputEnd,
    InputWanted,
    JobCancelling,
    JobEnded,
    JobQueued,
    JobStarted,
    Notice,
    OutputAdded,
    OutputKind,
    SessionChanged,
)
from opencode_actors.machines.server_events import ConversationId
from opencode_actors.machines.vocabulary import (
    ActivityState,
    Cause,
    Failure,
    JobId,
    JobSnapshot,
    JobStatus,
    Leave,
    RequestKind,
    Rung,
    SessionKey,
    SessionStatus,
)
from opencode_actors.settings import Settings
from opencode_actors.stress.clients import Clients
from opencode_actors.stress.files import JobFile
from opencode_actors.stress.findings import Findings
from opencode_actors.stress.judge import Judge
from opencode_actors.stress.leaving import Ends
from opencode_actors.stress.memory import ALLOWANCE, Memory
from opencode_actors.stress.plan import PlannedFault, make_plan
from opencode_actors.stress.scenario import FaultKind, Talk, Value
from opencode_actors.stress.scenarios import DEFAULTS
from opencode_actors.stress.service import Service
from opencode_actors.stress.truth import Evidence
from opencode_actors.stress.virtual import run_virtual
from opencode_actors.stress.wanderers import Record
from opencode_actors.stress.windows import Hit, tolerance_of
from opencode_actors.stress.worlds import Face

JOB, OTHER, SESSION = JobId("job_1"), JobId("job_2"), SessionKey("demo")
STARTED = JobStarted(job=JOB, session=SESSION)
WANTED = InputWanted(
    job=JOB,
    session=SESSION,
    request="que_1",
    kind=RequestKind.QUESTION,
    text="Which?",
    conversation=ConversationId("ses_1"),
)
MIB = 1 << 20


def words(seq: int, offset: int, text: str) -> OutputAdded:
    return OutputAdded(seq=seq, job=JOB, session=SESSION, kind=OutputKind.TEXT, offset=offset, text=text)


def snapshot(status: JobStatus, cause: Cause | None = None) -> JobSnapshot:
    failure = None if cause is None else Failure(cause=cause, message="as it happens")
    return JobSnapshot(
        id=JOB, session=SESSION, prompt="", status=status, activity=ActivityState.IDLE, failure=failure
    )


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


def test_an_end_leaves_only_what_an_earlier_one_has_not_ended_unheard() -> None:
    """Two services end in a row, and nobody hears in between what the first one did."""
    ends, closed = Ends(), snapshot(JobStatus.FAILED, Cause.CLOSED)
    ends.ended(1.0, Leave.NOTHING, frozenset({JOB}))
    ends.ended(4.0, Leave.ALL, frozenset({JOB, OTHER}))
    left = ends.take()
    assert left.jobs == {OTHER}
    assert left.wrong(closed, ()) is not None
    assert ends.take().jobs == frozenset()


@pytest.mark.parametrize(("asked_at", "broken"), [(12.0, []), (26.0, ["in order"])])
def test_who_began_unheard_had_not_to_wait_for_whom_the_next_service_goes_on_with(
    asked_at: float, broken: list[str]
) -> None:
    """The first one ended on a full disk, and waits again with the next service: the second had its turn before."""
    findings = Findings()
    judge = Judge(Settings(model="scripted/demo"), findings, late=0.3)
    first, second = make_plan(DEFAULTS[0], 1).jobs[:2]
    first, second = evolve(first, session=SESSION), evolve(second, session=SESSION)
    judge.hit(Hit(kind=FaultKind.DISK_FULL, at=9.0, until=11.0), 9.0)
    judge.noticed(JobQueued(job=JOB, session=SESSION, seq=1, ahead=0), 5.0)
    judge.accepted(JOB, first, 5.0, 5.0)
    judge.noticed(JobEnded(job=JOB, session=SESSION, snapshot=snapshot(JobStatus.FAILED, Cause.STORE)), 10.0)
    judge.earshot.lost(14.0)
    judge.service_ended(16.0)
    judge.recalled(JOB, snapshot(JobStatus.PENDING), 20.0)
    judge.earshot.back(20.0)
    now = max(asked_at, 20.1) + 0.1
    judge.accepted(OTHER, second, now, asked_at)
    judge.noticed(JobStarted(job=OTHER, session=SESSION, seq=2), now)
    assert [violation.rule for violation in findings.violations] == broken


@pytest.mark.parametrize(
    ("kind", "broken"),
    [(FaultKind.SERVICE_KILLED, []), (FaultKind.SERVER_FROZEN, ["the ladder only climbs"])],
)
def test_whoever_goes_on_with_a_climb_begins_it_anew(kind: FaultKind, broken: list[str]) -> None:
    findings = Findings()
    judge = Judge(Settings(model="scripted/demo"), findings, late=0.3)
    judge.noticed(JobCancelling(job=JOB, session=SESSION, seq=1, rung=Rung.STOP), 5.0)
    judge.hit(Hit(kind=kind, at=6.0, until=6.0), 6.0)
    judge.noticed(JobCancelling(job=JOB, session=SESSION, seq=2, rung=Rung.STOP), 9.0)
    assert [violation.rule for violation in findings.violations] == broken


class _NeverSure:
    """A service that has just begun, and looks for the servers of the one that was killed."""

    async def call(self, name: str, make: Callable[[Face], Awaitable[object]]) -> object:
        await trio.lowlevel.checkpoint()
        assert make is not None
        raise OpenCodeError(f"nobody knows what became of the {name}")


class _Writes:
    """A service that is slow to write down what is started, and closes what is there."""

    generation = 1

    async def call(self, name: str, make: Callable[[Face], Awaitable[object]]) -> object:
        assert make is not None
        await trio.lowlevel.checkpoint()
        if name == "start":
            await trio.sleep_forever()
        return None


@pytest.mark.parametrize("wanted", [True, False])
async def test_a_session_that_is_just_being_opened_may_be_closed(
    autojump_clock: MockClock,
    wanted: bool,  # noqa: FBT001
) -> None:
    assert autojump_clock.autojump_threshold == 0
    judge = Judge(Settings(model="scripted/demo"), Findings(), late=0.3)
    plan = make_plan(DEFAULTS[0], 1)
    job = plan.jobs[0]
    storm = PlannedFault(
        number=0, kind=FaultKind.CLOSE_STORM, at=0.0, lasts=2.5, session=job.session, roll=0.5
    )
    async with trio.open_nursery() as nursery:
        clients = Clients(cast(Service, _Writes()), judge, random.Random(2), nursery, plan, look_every=1.0)
        if wanted:
            nursery.start_soon(clients.want, job)
            await trio.testing.wait_all_tasks_blocked()
        assert await clients.misbehave(storm) is wanted
        assert bool(judge.hits) is wanted
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("killed_ago", "broken"), [(3.0, []), (60.0, ["a request takes one answer"])])
async def test_an_answer_may_be_lost_with_a_service_that_was_killed_just_before(
    autojump_clock: MockClock, killed_ago: float, broken: list[str]
) -> None:
    assert autojump_clock.autojump_threshold == 0
    findings, rng = Findings(), random.Random(2)
    judge = Judge(Settings(model="scripted/demo"), findings, late=0.3)
    judge.noticed(WANTED, trio.current_time())
    async with trio.open_nursery() as nursery:
        clients = Clients(
            cast(Service, _NeverSure()), judge, rng, nursery, make_plan(DEFAULTS[0], 0), look_every=1.0
        )
        again = random.Random(2)
        assert again.random() > 0.3
        killed_at = trio.current_time() + again.uniform(0.0, 20.0) - killed_ago
        judge.hit(Hit(kind=FaultKind.SERVICE_KILLED, at=killed_at, until=killed_at), killed_at)
        clients.wanted(WANTED)
    assert [violation.rule for violation in findings.violations] == broken


@pytest.mark.parametrize(
    ("ended_at", "wrong"), [(10.0, ""), (2.0, "nobody had asked"), (16.0, "nobody had asked")]
)
def test_a_start_that_went_with_its_service_may_be_cancelled_in_its_turn(ended_at: float, wrong: str) -> None:
    """On a slow disk it is recorded, and at work, while whoever wanted it still waits to hear so."""
    hits = [Hit(kind=FaultKind.SERVICE_ENDED, at=ended_at, until=ended_at)]
    evidence = Evidence(Settings(model="scripted/demo"), tolerance_of(0.3), hits)
    file = JobFile(id=JOB, session=SESSION, planned=make_plan(DEFAULTS[0], 1).jobs[0])
    file.asked_at, file.queued_at, file.started_at, file.accepted_at = 5.0, 5.0, 6.0, 15.0
    file.end, file.ended_at = snapshot(JobStatus.CANCELLED), 15.5
    said = evidence.untrue(file)
    assert said is None if not wrong else wrong in (said or "")


def test_a_request_ends_once_though_a_full_disk_has_its_end_told_before_it_is_recorded() -> None:
    judge = Judge(Settings(), Findings())
    gone = InputAnswered(job=JOB, session=SESSION, request="que_1", end=InputEnd.GONE)
    notices: tuple[Notice, ...] = (evolve(WANTED, seq=1), gone, evolve(gone, seq=2))
    for seq, notice in enumerate(notices):
        judge.noticed(notice, float(seq))
    assert judge.findings.violations == []
    judge.noticed(evolve(gone, seq=3), 3.0)
    assert [violation.text for violation in judge.findings.violations] == ["que_1 ended, and did not wait"]


@pytest.mark.parametrize(("seq", "doubtful"), [(0, {JOB}), (7, set[JobId]())])
def test_an_end_that_was_on_its_way_when_its_service_was_killed_need_not_be_one(
    seq: int, doubtful: set[JobId]
) -> None:
    """The disk had no room for it, and the next service goes on with the job."""
    judge = Judge(Settings(model="scripted/demo"), Findings(), late=0.3)
    judge.hit(Hit(kind=FaultKind.DISK_FULL, at=9.0, until=11.0), 9.0)
    judge.accepted(JOB, evolve(make_plan(DEFAULTS[0], 1).jobs[0], session=SESSION), 5.0, 5.0)
    judge.earshot.lost(10.0)
    judge.service_ended(10.0)
    end = snapshot(JobStatus.FAILED, Cause.STORE)
    judge.noticed(JobEnded(job=JOB, session=SESSION, snapshot=end, seq=seq), 10.002)
    assert judge.doubtful == doubtful


def test_a_job_that_was_asked_for_before_its_turn_was_told_runs_no_more_when_that_is_told() -> None:
    """Whoever comes back asks how it has ended, and hears of its turn and its end only then."""
    findings = Findings()
    judge = Judge(Settings(model="scripted/demo"), findings, late=0.3)
    judge.hit(Hit(kind=FaultKind.DISK_FULL, at=9.0, until=11.0), 9.0)
    for job, planned in zip((JOB, OTHER), make_plan(DEFAULTS[0], 1).jobs, strict=False):
        judge.accepted(job, evolve(planned, session=SESSION), 5.0, 5.0)
    judge.noticed(JobEnded(job=JOB, session=SESSION, snapshot=snapshot(JobStatus.FAILED, Cause.STORE)), 10.0)
    judge.earshot.lost(12.0)
    judge.service_ended(12.0)
    judge.recalled(JOB, snapshot(JobStatus.COMPLETED), 20.0)
    judge.earshot.back(20.0)
    judge.noticed(JobStarted(job=JOB, session=SESSION, seq=1), 20.1)
    judge.noticed(JobEnded(job=JOB, session=SESSION, snapshot=snapshot(JobStatus.COMPLETED), seq=2), 20.1)
    judge.noticed(JobStarted(job=OTHER, session=SESSION, seq=3), 20.2)
    assert [violation.rule for violation in findings.violations] == []
    judge.noticed(JobStarted(job=JobId("job_3"), session=SESSION, seq=4), 20.3)
    assert [violation.rule for violation in findings.violations] == ["one at a time"]


@pytest.mark.parametrize(
    ("stepped_at", "broken"), [(9.5, []), (10.2, []), (5.0, ["whole output"]), (12.0, ["whole output"])]
)
def test_a_prompt_that_the_clock_is_set_back_before_may_not_be_the_one_that_is_answered(
    stepped_at: float, broken: list[str]
) -> None:
    judge = Judge(Settings(model="scripted/demo"), Findings(), late=0.3)
    file = judge.accepted(JOB, evolve(make_plan(DEFAULTS[0], 1).jobs[0], session=SESSION), 5.0, 5.0)
    judge.hit(Hit(kind=FaultKind.CLOCK_STEP, at=stepped_at, until=stepped_at), stepped_at)
    judge.noticed(STARTED, 10.0)
    judge.noticed(words(2, 0, "of another"), 11.0)
    end = snapshot(JobStatus.CANCELLED)
    judge.noticed(JobEnded(job=JOB, session=SESSION, snapshot=end, seq=3), 13.0)
    judge.check_end(file, end, "of another", 14.0)
    found = [violation.rule for violation in judge.findings.violations if violation.rule == "whole output"]
    assert found == broken


@pytest.mark.parametrize(("stepped_at", "broken"), [(9.5, []), (5.0, ["the true cause"])])
def test_a_prompt_that_the_clock_is_set_back_before_may_never_be_asked(
    stepped_at: float, broken: list[str]
) -> None:
    judge = Judge(Settings(model="scripted/demo"), Findings(), late=0.3)
    planned = next(job for job in make_plan(DEFAULTS[0], 1).jobs if job.talk is Talk.SHORT)
    file = judge.accepted(JOB, evolve(planned, session=SESSION), 5.0, 5.0)
    judge.hit(Hit(kind=FaultKind.CLOCK_STEP, at=stepped_at, until=stepped_at), stepped_at)
    judge.noticed(STARTED, 10.0)
    end = snapshot(JobStatus.FAILED, Cause.IDLE_TIMEOUT)
    judge.noticed(JobEnded(job=JOB, session=SESSION, snapshot=end, seq=3), 400.0)
    judge.check_end(file, end, "", 401.0)
    found = [violation.rule for violation in judge.findings.violations if violation.rule == "the true cause"]
    assert found == broken


@pytest.mark.parametrize(
    ("cause", "kind"),
    [(Cause.STORE, FaultKind.DISK_FULL), (Cause.CLOSED, FaultKind.CLOSE_STORM)],
)
@pytest.mark.parametrize(("heard_at", "wrong"), [(30.5, ""), (60.0, "cannot have felt")])
def test_what_ended_unheard_is_held_to_what_there_was_then(
    heard_at: float, wrong: str, cause: Cause, kind: FaultKind
) -> None:
    """It failed on a full disk, or was closed, while nobody listened, and was told with all the rest to whoever came
    back."""
    judge = Judge(Settings(model="scripted/demo"), Findings(), late=0.3)
    judge.hit(Hit(kind=kind, at=9.0, until=11.0), 9.0)
    file = judge.accepted(JOB, evolve(make_plan(DEFAULTS[0], 1).jobs[0], session=SESSION), 5.0, 5.0)
    judge.earshot.lost(12.0)
    judge.earshot.back(30.0)
    end = snapshot(JobStatus.FAILED, cause)
    judge.noticed(JobEnded(job=JOB, session=SESSION, snapshot=end, seq=3), heard_at)
    said = judge.evidence.untrue(file)
    assert said is None if not wrong else wrong in (said or "")


@pytest.mark.parametrize(("lasted", "broken"), [(2.0, ["settles once"]), (12.0, [])])
def test_a_fault_excuses_for_as_long_as_it_lasted_and_not_as_it_was_planned(
    lasted: float, broken: list[str]
) -> None:
    judge = Judge(Settings(model="scripted/demo"), Findings(), late=0.3)
    full = Hit(kind=FaultKind.DISK_FULL, at=9.0, until=11.0)
    judge.hit(full, 9.0)
    judge.over(full, 9.0 + lasted)
    for status in (JobStatus.FAILED, JobStatus.COMPLETED):
        judge.noticed(JobEnded(job=JOB, session=SESSION, snapshot=snapshot(status)), 20.0)
    assert [violation.rule for violation in judge.findings.violations] == broken


@pytest.mark.parametrize(("lost_at", "broken"), [(12.0, []), (25.0, ["settles once"])])
def test_an_end_that_was_heard_late_may_be_of_when_the_disk_was_full(
    lost_at: float, broken: list[str]
) -> None:
    judge = Judge(Settings(model="scripted/demo"), Findings(), late=0.3)
    judge.hit(Hit(kind=FaultKind.DISK_FULL, at=9.0, until=11.0), 9.0)
    judge.earshot.lost(lost_at)
    judge.earshot.back(30.0)
    for status in (JobStatus.FAILED, JobStatus.COMPLETED):
        judge.noticed(JobEnded(job=JOB, session=SESSION, snapshot=snapshot(status)), 30.1)
    assert [violation.rule for violation in judge.findings.violations] == broken


def test_a_restart_that_was_heard_late_is_not_said_to_have_come_too_soon() -> None:
    """On a host that does much else both are told in one moment."""
    judge = Judge(Settings(model="scripted/demo"), Findings(), late=0.3)
    for status in (SessionStatus.STOPPING, SessionStatus.BACKING_OFF, SessionStatus.CREATING):
        judge.noticed(SessionChanged(session=SESSION, status=status, detail=""), 50.0)
    assert judge.findings.violations == []
