"""What agents ask in real containers: announced, answered, timed out; and never a session that hangs."""

from __future__ import annotations

import pytest
from attrs import evolve

from opencode_actors import (
    ActivityState,
    Cause,
    InputAnswered,
    InputEnd,
    InputWanted,
    JobSnapshot,
    JobStatus,
    PendingRequest,
    RequestGone,
    RequestKind,
    System,
    UsageError,
)
from opencode_actors.kernel.system import Job
from tests.contract.engines import within

from .rig import PLENTY, open_rig, until, whole_output

pytestmark = [pytest.mark.opencode, pytest.mark.image, pytest.mark.podman]

ASK = "::ask Which colour? | Red | Blue"


async def asked(system: System, prompt: str) -> tuple[Job, InputWanted]:
    job = await system.start(prompt, session="demo")
    wanted = await until(system.follow(job.id), InputWanted)
    assert isinstance(wanted, InputWanted)
    return job, wanted


async def the_end(system: System, job: Job) -> tuple[JobSnapshot, list[InputEnd]]:
    final = await job.wait()
    notices = [n async for n in system.follow(job.id)]
    return final, [n.end for n in notices if isinstance(n, InputAnswered)]


@within(PLENTY)
async def test_a_question_is_announced_listed_and_answered_and_the_model_hears_the_answer_P2() -> None:
    async with open_rig("podman") as rig, rig.system() as system:
        job, wanted = await asked(system, ASK)
        assert (wanted.kind, wanted.text, wanted.options) == (
            RequestKind.QUESTION,
            "Which colour?",
            ("Red", "Blue"),
        )
        status = await job.status()
        assert status.activity is ActivityState.WAITING
        (pending,) = status.pending
        assert isinstance(pending, PendingRequest)
        assert pending.id == wanted.request
        with pytest.raises(UsageError, match="is a question"):
            await job.answer(wanted.request, reply="once")

        await job.answer(wanted.request, answers=[["Blue"]])
        final, ends = await the_end(system, job)
        assert final.status is JobStatus.COMPLETED, final
        assert ends == [InputEnd.ANSWERED]
        assert "Blue" in await whole_output(system, job.id)
        with pytest.raises(RequestGone):
            await job.answer(wanted.request, answers="Red")


@within(PLENTY)
async def test_a_question_that_nobody_answers_does_not_end_the_job_P2() -> None:
    """The model is told so, and goes on."""
    async with open_rig("podman") as rig:
        settings = evolve(rig.settings, question_timeout=2.0, idle_timeout=60.0)
        async with rig.system(settings) as system:
            job, wanted = await asked(system, f"{ASK}\n::say I take red")
            final, ends = await the_end(system, job)
            assert wanted.timeout == 2.0
            assert final.status is JobStatus.COMPLETED, final
            assert ends == [InputEnd.UNANSWERED]
            assert (await whole_output(system, job.id)).rstrip().endswith("I take red")
            (told,) = rig.provider.exchanges[-1].request.results
            assert "Nobody was there to answer" in told


@within(PLENTY)
async def test_a_question_that_nobody_answers_fails_the_job_where_that_is_wanted_P2() -> None:
    async with open_rig("podman") as rig:
        settings = evolve(rig.settings, question_timeout=2.0, on_unanswered="fail")
        async with rig.system(settings) as system:
            job, _ = await asked(system, ASK)
            final, ends = await the_end(system, job)
            assert final.failure is not None
            assert final.failure.cause is Cause.UNANSWERED
            assert "Which colour?" in final.failure.message
            assert ends == [InputEnd.GONE]

            # The ghost that the abort leaves on the server's list is nobody's, and the next job runs.
            again = await (await system.start("::say still here", session="demo")).wait()
            assert again.status is JobStatus.COMPLETED
            assert again.pending == ()


@within(PLENTY)
async def test_a_permission_is_asked_given_and_refused_with_a_reason_P1() -> None:
    async with open_rig("podman") as rig:
        settings = evolve(rig.settings, permissions="ask", question_timeout=120.0)
        async with rig.system(settings) as system:
            job, wanted = await asked(system, "::bash echo permitted\n::say and on")
            assert (wanted.kind, wanted.text) == (RequestKind.PERMISSION, "bash: echo permitted")
            await job.answer(wanted.request, reply="once")
            final, ends = await the_end(system, job)
            assert final.status is JobStatus.COMPLETED, final
            assert ends == [InputEnd.ANSWERED]
            assert "permitted" in rig.provider.exchanges[-1].request.results[0]

            job, wanted = await asked(system, "::bash echo forbidden\n::say and on")
            await job.answer(wanted.request, reply="reject", message="not on a Friday")
            final, ends = await the_end(system, job)
            assert final.status is JobStatus.COMPLETED, final
            assert ends == [InputEnd.REJECTED]
            assert "not on a Friday" in rig.provider.exchanges[-1].request.results[0]


@within(PLENTY)
async def test_a_sub_agents_permission_blocks_the_parent_in_sight_and_is_answered_P9() -> None:
    async with open_rig("podman") as rig:
        settings = evolve(rig.settings, permissions="ask", question_timeout=120.0, idle_timeout=60.0)
        async with rig.system(settings) as system:
            job, wanted = await asked(system, "::task ::bash echo from-below\n::say and above")
            assert wanted.sub_agent
            assert (await job.status()).activity is ActivityState.WAITING
            await job.answer(wanted.request, reply="once")
            final, ends = await the_end(system, job)
            assert final.status is JobStatus.COMPLETED, final
            assert ends == [InputEnd.ANSWERED]
            assert (await whole_output(system, job.id)).rstrip().endswith("and above")


@within(PLENTY)
async def test_an_agent_without_the_tool_for_questions_asks_none_P2() -> None:
    async with open_rig("podman") as rig, rig.system(evolve(rig.settings, questions="deny")) as system:
        job = await system.start(f"{ASK}\n::say went on", session="demo")
        final, ends = await the_end(system, job)
        assert final.status is JobStatus.COMPLETED, final
        assert ends == []
        assert "question" not in rig.provider.exchanges[0].request.tools
