"""Which chats are told what of their jobs, who there is told, and how often: the matrix over a whole system."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

import pytest
import trio
import trio.testing
from attrs import evolve

from opencode_actors import (
    Announcement,
    Attendance,
    JobStatus,
    Matter,
    Origin,
    Party,
    SessionKey,
    Settings,
    SettingsError,
    System,
    UsageError,
)
from opencode_actors.testing.fake_webhook import FakeWebhook

from .test_attention import ASK, BEHAVIOUR, CHAT, PATIENT, asking, heard, patient
from .world import World, open_world

PHONE = Origin(session_key="agent:main:telegram:direct:42", agent_id="main", channel="telegram")


async def all_heard(attendance: Attendance, system: System, *, within: float = 50.0) -> list[Announcement]:
    """What is told until it is quiet, each acknowledged."""
    told: list[Announcement] = []
    while (one := await heard(attendance, within=within)) is not None:
        told.append(one)
        await system.acknowledge(one.id)
    return told


async def test_by_default_a_chat_hears_what_it_waits_for_and_is_not_flooded_C6(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, patient(world) as system, system.attend() as attendance:
        job = await system.start("::say one\n::bash true\n::say two", origin=CHAT)
        told = await all_heard(attendance, system)
        assert [(one.matter, one.to, one.id) for one in told] == [(Matter.COMPLETED, Party.AGENT, job.id)]


async def test_everything_that_is_switched_on_is_told_in_its_order_C6(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, patient(world) as system, system.attend() as attendance:
        await system.notify(session="demo", on=["all"])
        job = await system.start(
            f"::say I look.\n::bash true\n{ASK}\n::hang", session="demo", origin=CHAT, name="it"
        )
        told = await all_heard(attendance, system)
        matters = [one.matter for one in told]
        assert matters[0] is Matter.STARTED
        assert told[0].text.startswith(f"it ({job.id}) has started")
        assert {Matter.TEXT, Matter.WAITING} <= set(matters)
        (asked,) = (await job.status()).pending
        await job.answer(asked.id, answers="Blue", by=Party.AGENT)
        (answered,) = [one for one in await all_heard(attendance, system) if one.matter is Matter.ANSWERED]
        assert answered.to is Party.PERSON
        assert answered.text.splitlines() == [
            f"it ({job.id}) was answered by the agent, and goes on.",
            "> Which colour?",
            "The answer: Blue",
        ]
        await job.cancel()
        assert [one.matter for one in await all_heard(attendance, system)] == [Matter.CANCELLED]


async def test_what_is_switched_off_is_not_told_also_not_by_the_webhook_C6(
    autojump_clock: trio.testing.MockClock,
) -> None:
    webhook = FakeWebhook()
    async with open_world(BEHAVIOUR) as world, world.system(PATIENT, webhook=webhook) as system:
        await system.notify(channel="telegram", off=["completed", "waiting"])
        quiet = await system.start(f"::say x\n{ASK}", session="one", origin=PHONE)
        loud = await system.start("::say x", session="two", origin=CHAT)
        async with system.attend() as attendance:
            told = await all_heard(attendance, system)
            assert [one.id for one in told] == [loud.id]
            (asked,) = (await quiet.status()).pending
            await quiet.answer(asked.id, answers="Red")
            assert (await quiet.wait()).status is JobStatus.COMPLETED
            assert await all_heard(attendance, system, within=1000.0) == []
        assert webhook.requests == []


async def test_a_choice_outlives_its_service_and_a_sessions_wins_C6(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world:
        async with patient(world) as system:
            await system.notify(channel="telegram", off=["all"])
            await system.notify(session="demo", on=["completed"])
        async with patient(world) as system, system.attend() as attendance:
            await system.start("::say x", session="other", origin=PHONE)
            wanted = await system.start("::say x", session="demo", origin=PHONE)
            assert [one.id for one in await all_heard(attendance, system)] == [wanted.id]


async def test_what_is_said_comes_joined_and_one_message_at_a_time_C6(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with (
        open_world(BEHAVIOUR) as world,
        patient(world, notify_every=30.0, notify_kinds=("text", "tool")) as system,
        system.attend() as attendance,
    ):
        prompt = "\n".join(f"::say word{number}\n::bash sleep 5" for number in range(12))
        began = trio.current_time()
        job = await system.start(prompt, origin=CHAT)
        told = await all_heard(attendance, system)
        streamed = [one for one in told if one.matter is Matter.TEXT]
        ended = await job.status()
        assert 2 <= len(streamed) <= (trio.current_time() - began) / 30 + 1
        text = "\n".join(one.text for one in streamed)
        for number in range(6):
            assert text.count(f"word{number}\n") + text.endswith(f"word{number}") <= 1
        assert "> word0" in streamed[0].text
        assert "[bash]" in text
        assert ended.status is JobStatus.COMPLETED


# ---- an agent that answers, and no person


async def ask_and_answer(system: System, attendance: Attendance, by: Party) -> Announcement:
    job, request = await asking(system)
    told = await heard(attendance)
    assert told is not None
    await system.acknowledge(told.id)
    await job.answer(request, answers="Blue", by=by)
    end = await heard(attendance)
    assert end is not None
    await system.acknowledge(end.id)
    return told


async def test_an_agent_answers_only_so_often_and_then_the_person_is_asked_C13(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with (
        open_world(BEHAVIOUR) as world,
        patient(world, max_auto_answers=2) as system,
        system.attend() as attendance,
    ):
        told = [await ask_and_answer(system, attendance, Party.AGENT) for _ in range(3)]
        assert [one.to for one in told] == [Party.AGENT, Party.AGENT, Party.PERSON]
        assert "opencode_answer" in told[0].text
        assert "opencode_answer" not in told[2].text
        assert f"/opencode answer {told[2].job.name} ANSWER" in told[2].text
        assert "asked 2 times in a row" in told[2].text
        again = await ask_and_answer(system, attendance, Party.PERSON)
        assert again.to is Party.PERSON
        assert (await ask_and_answer(system, attendance, Party.AGENT)).to is Party.AGENT


async def test_whoever_writes_in_the_chat_is_a_person_who_is_there_C13(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with (
        open_world(BEHAVIOUR) as world,
        patient(world, max_auto_answers=1) as system,
        system.attend() as attendance,
    ):
        await ask_and_answer(system, attendance, Party.AGENT)
        system.person_spoke("agent:other:lab")
        assert (await ask_and_answer(system, attendance, Party.AGENT)).to is Party.PERSON
        system.person_spoke(CHAT.session_key)
        assert (await ask_and_answer(system, attendance, Party.AGENT)).to is Party.AGENT


# ---- how far it is


async def test_a_report_comes_as_often_as_the_job_asked_for_D3(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with (
        open_world(BEHAVIOUR) as world,
        patient(world, report_every=1000.0) as system,
        system.attend() as attendance,
    ):
        began = trio.current_time()
        job = await system.start("::say I begin.\n::hang", origin=CHAT, report_every=60.0)
        usual = await system.start("::hang", origin=CHAT, session="other")
        reports: list[tuple[int, Announcement]] = []
        while len(reports) < 4 and (one := await heard(attendance, within=2000.0)) is not None:
            await system.acknowledge(one.id)
            if one.job.id == job.id:
                reports.append((round((trio.current_time() - began) / 10), one))
        assert [at for at, _ in reports] == [6, 12, 18, 24]
        first = reports[0][1]
        assert (first.matter, first.to) == (Matter.REPORT, Party.PERSON)
        head, said = first.text.splitlines()
        assert head == f"{first.job.name} ({job.id}): 1 min {round(first.job.elapsed_seconds) - 60} s"
        assert said == "> I begin."
        await job.cancel()
        await usual.cancel()


async def test_reports_go_on_in_the_next_process_as_they_were_asked_for_D3(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, patient(world) as system:
        job = await system.start("::hang", origin=CHAT, report_every=60.0)
        accepted = world.store._accepted[job.id]
        assert accepted.report_every == 60.0
        await job.cancel()


async def test_a_final_report_has_the_whole_last_answer_and_no_tools_D4(
    autojump_clock: trio.testing.MockClock,
) -> None:
    words = " ".join(f"w{number}" for number in range(300))
    async with open_world(BEHAVIOUR) as world, patient(world) as system, system.attend() as attendance:
        await system.start(f"::say I look first.\n::bash true\n::say {words}", origin=CHAT)
        (end,) = await all_heard(attendance, system)
        assert f"> {words}" in end.text
        assert "> I look first" not in end.text
        assert "Its last answer, in OpenCode's own words:" in end.text
        assert "/opencode respond" in end.text


# ---- jobs that no chat asked for


async def test_a_job_of_nobodys_goes_to_the_chat_of_its_directory_C10(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world:
        async with patient(world) as system:
            place = str(system.workspace(_key("shop")))
        routes = (f"{place}=agent:blue:telegram:direct:7@telegram",)
        async with _routed(world, routes) as system, system.attend() as attendance:
            job = await system.start(ASK, session="shop")
            await system.start(ASK, session="elsewhere")
            (told,) = await all_heard(attendance, system)
            assert (told.job.id, told.matter) == (job.id, Matter.WAITING)
            assert told.job.origin == Origin(
                session_key="agent:blue:telegram:direct:7", agent_id="blue", channel="telegram"
            )
            own = await system.start("::say x", session="shop2", origin=CHAT)
            await own.wait()
            assert (await own.status()).origin == CHAT


def _key(text: str) -> SessionKey:
    return SessionKey(text)


def _routed(world: World, routes: tuple[str, ...]) -> AbstractAsyncContextManager[System]:
    return world.system(evolve(PATIENT, routes=routes), notify=True)


# ---- what can be asked for


@pytest.mark.parametrize("days", [0, -1, 100_000])
async def test_days_that_cannot_be_looked_at(autojump_clock: trio.testing.MockClock, days: int) -> None:
    async with open_world(BEHAVIOUR) as world, patient(world) as system:
        with pytest.raises(UsageError, match="days cannot be looked at"):
            await system.totals(days=days)


async def test_what_all_jobs_ask_is_listed(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(BEHAVIOUR) as world, patient(world) as system:
        assert await system.requests() == ()
        first, _ = await asking(system)
        second, request = await asking(system, origin=None)
        assert [job.id for job in await system.requests()] == [first.id, second.id]
        await second.answer(request, answers="Red")
        await second.wait()
        assert [job.id for job in await system.requests()] == [first.id]


@pytest.mark.parametrize("seconds", [0.001, 9.9, -1.0, float("nan"), float("inf")])
async def test_reports_have_time_between_them(seconds: float, autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(BEHAVIOUR) as world, patient(world) as system:
        with pytest.raises(UsageError, match="cannot lie between two reports"):
            await system.start("::say x", origin=CHAT, report_every=seconds)
        for fits in (0.0, 10.0):
            await system.start("::say x", origin=CHAT, report_every=fits)
    for knob in ("report_every", "remind_after"):
        with pytest.raises(SettingsError, match=r"must be at least 10, not .* \(or 0\)|finite"):
            Settings(**{knob: seconds})  # type: ignore[arg-type]
