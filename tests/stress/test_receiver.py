"""Who is told of ends, and what is known of whoever tells it."""

from __future__ import annotations

import pytest
import trio
from attrs import evolve
from trio.testing import MockClock

from opencode_actors.machines.vocabulary import JobId
from opencode_actors.ports import HookAnswer, HookRequest
from opencode_actors.settings import Settings
from opencode_actors.stress.announced import wrong_announcements
from opencode_actors.stress.files import JobFile
from opencode_actors.stress.local import run_local
from opencode_actors.stress.plan import make_plan
from opencode_actors.stress.receiver import Overheard, Receiver, Taken, Unheard
from opencode_actors.stress.scenario import FaultKind, FaultPlan, Scenario, Talk
from opencode_actors.stress.windows import Hit
from opencode_actors.testing.fake_webhook import TAKEN, FakeWebhook

from .test_virtual import shown

JOB = JobId("job_1")
REQUEST = HookRequest(url="http://127.0.0.1/hooks/agent", key=JOB, body={})
NOTHING = HookAnswer(status=None, said="no answer")


@pytest.mark.parametrize(
    ("answer", "takes", "patience", "unheard"),
    [
        (TAKEN, 1.0, 60.0, []),
        (NOTHING, 1.0, 60.0, []),  # it broke off by itself
        (NOTHING, 2.0, 60.0, [Unheard(JOB, 0.0, 2.0, broken_off=False)]),
        (TAKEN, 1.0, 0.5, [Unheard(JOB, 0.0, 0.5, broken_off=True)]),
    ],
    ids=["taken", "refused", "given up", "cut off"],
)
async def test_what_an_attempt_does_not_hear_the_end_of_is_known(
    autojump_clock: MockClock, answer: HookAnswer, takes: float, patience: float, unheard: list[Unheard]
) -> None:
    began, receiver = trio.current_time(), Receiver()
    overheard = Overheard(FakeWebhook(then=answer, seconds=takes), receiver, within=2.0)
    with trio.move_on_after(patience):
        assert await overheard.post(REQUEST) is answer
    assert [
        evolve(one, since=one.since - began, until=one.until - began) for one in receiver.unheard
    ] == unheard


@pytest.mark.parametrize(
    ("unheard", "ended_at", "excused"),
    [
        (Unheard(JOB, 9.0, 10.8, broken_off=False), 90.0, True),
        (Unheard(JOB, 5.0, 7.0, broken_off=False), 90.0, False),
        (Unheard("job_2", 9.0, 10.8, broken_off=False), 90.0, False),
        (Unheard(JOB, 9.0, 10.8, broken_off=True), 10.5, True),
        (Unheard(JOB, 9.0, 10.8, broken_off=True), 90.0, False),  # by nobody else than who asked
    ],
)
def test_it_is_told_again_who_took_what_nobody_waited_for_any_more(
    unheard: Unheard,
    ended_at: float,
    excused: bool,  # noqa: FBT001
) -> None:
    taken = [Taken(JOB, 11.0, came=10.0), Taken(JOB, 30.3, came=30.2)]
    receiver = Receiver(taken=taken, unheard=[unheard])
    files = {JOB: JobFile(id=JOB, session="demo")}
    hits = [Hit(kind=FaultKind.SERVICE_ENDED, at=ended_at, until=ended_at)]
    found = wrong_announcements(receiver, files, hits, Settings(model="scripted/demo"), 6.0)
    assert [one.text for one in found] == ([] if excused else ["its end was announced again 19.3 s later"])


@pytest.mark.parametrize(
    ("full_until", "wrong"),
    [(16.0, []), (1.0, ["its announcement waited for 1.1 s until another was taken"])],
)
def test_what_a_full_disk_had_no_room_for_waits_for_nobody(full_until: float, wrong: list[str]) -> None:
    """Its end is told at once, and has a row only when it is recorded."""
    files = {job: JobFile(id=job, session="demo") for job in map(JobId, ("job_0", "job_1", "job_2"))}
    for file in files.values():
        file.ended_at = file.ended_since = 15.0
    taken = [
        Taken("job_0", 16.1, came=16.1),
        Taken("job_1", 18.1, came=17.1),
        Taken("job_2", 18.2, came=18.2),
    ]
    hits = [Hit(kind=FaultKind.DISK_FULL, at=0.5, until=full_until)]
    found = wrong_announcements(Receiver(taken=taken), files, hits, Settings(model="scripted/demo"), 6.0)
    assert [one.text for one in found] == wrong


def test_a_receiver_that_takes_as_long_as_it_is_waited_for_breaks_no_rule() -> None:
    scenario = Scenario(
        name="no patience",
        sessions=3,
        jobs=12,
        duration=2.0,
        pace=0.02,
        settle_within=60.0,
        prompts={Talk.SHORT: 1},
        settings={"notifyTimeout": 1.0},
        faults=(FaultPlan(kind=FaultKind.RECEIVER_SLOW, at=(0.0,), lasts=4.0),),
    )
    report = run_local(make_plan(scenario, 1))
    assert report.passed, shown(report)
