"""What is a sign of life and what is none, with the real server: stalls end and say why, work does not end."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
from attrs import evolve

from opencode_actors import (
    Cause,
    Failure,
    JobSnapshot,
    JobStatus,
    OutputAdded,
    ProviderRetrying,
    ToolStarted,
)
from opencode_actors.machines.notices import OutputKind
from tests.contract.engines import within

from .rig import PLENTY, Rig, open_rig, the_container, until, whole_output

# What a loaded machine may take between two signs of life; each test waits for longer than it.
BUSY_MACHINE = 15.0

pytestmark = [pytest.mark.opencode, pytest.mark.image, pytest.mark.podman]


async def ended(rig: Rig, prompt: str, **settings: Any) -> tuple[JobSnapshot, list[ProviderRetrying]]:
    async with rig.system(evolve(rig.settings, **settings)) as system:
        job = await system.start(prompt, session="demo")
        following = system.follow(job.id)
        final = await job.wait()
        return final, [n async for n in following if isinstance(n, ProviderRetrying)]


def failure_of(final: JobSnapshot) -> Failure:
    assert final.status is JobStatus.FAILED, final.failure
    assert final.failure is not None
    return final.failure


# ---- stalls


@within(PLENTY)
async def test_a_first_word_that_never_comes_ends_the_job_and_is_said_P4() -> None:
    async with open_rig("podman") as rig:
        failure = failure_of((await ended(rig, "::hang", idle_timeout=4.0))[0])
        assert failure.cause is Cause.IDLE_TIMEOUT
        assert "first word never came" in failure.message
        assert "idleTimeout is 4 s" in failure.message


@within(PLENTY)
async def test_a_model_that_falls_silent_in_mid_answer_ends_the_job_and_is_said_P4() -> None:
    async with open_rig("podman") as rig:
        failure = failure_of((await ended(rig, "::say begun\n::hang", idle_timeout=BUSY_MACHINE))[0])
        assert failure.cause is Cause.IDLE_TIMEOUT
        assert "fell silent in the middle" in failure.message


@within(PLENTY)
async def test_a_model_that_says_nothing_after_its_tool_ends_the_job_and_is_said_P4() -> None:
    async with open_rig("podman") as rig:
        failure = failure_of((await ended(rig, "::bash true\n::hang", idle_timeout=BUSY_MACHINE))[0])
        assert failure.cause is Cause.IDLE_TIMEOUT
        assert "since its last tool call ended" in failure.message


@within(PLENTY)
async def test_a_tool_that_sleeps_for_longer_than_idle_timeout_is_not_idle_P5() -> None:
    async with (
        open_rig("podman") as rig,
        rig.system(evolve(rig.settings, idle_timeout=BUSY_MACHINE)) as system,
    ):
        job = await system.start("::bash sleep 25\n::say awake", session="demo")
        await until(system.follow(job.id), ToolStarted)
        final = await job.wait()
        assert final.status is JobStatus.COMPLETED, final.failure
        assert final.elapsed_seconds > 25.0
        assert "awake" in await whole_output(system, job.id)


@within(PLENTY)
async def test_a_sub_agent_that_works_for_longer_than_idle_timeout_is_not_idle_P5_P9() -> None:
    async with open_rig("podman") as rig:
        final, _ = await ended(rig, "::task ::bash sleep 25\n::say and above", idle_timeout=BUSY_MACHINE)
        assert final.status is JobStatus.COMPLETED, final.failure


@within(PLENTY)
async def test_the_whole_job_has_a_bound_busy_or_not_P5() -> None:
    async with open_rig("podman") as rig:
        failure = failure_of((await ended(rig, "::bash sleep 600", job_timeout=8.0))[0])
        assert failure.cause is Cause.JOB_TIMEOUT


# ---- the provider


@within(PLENTY)
async def test_a_provider_that_wants_an_hour_of_patience_ends_the_job_at_once_P3() -> None:
    async with open_rig("podman") as rig:
        final, retries = await ended(rig, "::status 429 retry-after=3600")
        failure = failure_of(final)
        assert failure.cause is Cause.RATE_LIMIT
        assert "s of patience" in failure.message
        assert retries[0].seconds > 3000


@within(PLENTY)
async def test_a_provider_that_fails_for_ever_is_asked_so_often_and_no_more_P3() -> None:
    async with open_rig("podman") as rig:
        final, retries = await ended(rig, "::status 500", max_provider_retries=1)
        failure = failure_of(final)
        assert failure.cause is Cause.PROVIDER
        assert "2 times in a row" in failure.message
        assert [retry.attempt for retry in retries] == [1, 2]


@within(PLENTY)
async def test_a_provider_that_is_silent_is_given_up_by_its_own_deadline_P3_P10() -> None:
    async with open_rig("podman") as rig:
        final, retries = await ended(rig, "::hang", header_timeout=2.0, max_provider_retries=0)
        assert failure_of(final).cause is Cause.PROVIDER
        assert len(retries) == 1


# ---- output


@within(PLENTY)
async def test_what_a_burst_brought_before_the_container_was_killed_is_kept_in_order_P19() -> None:
    """Whoever followed saw no more than the file has, and nothing of it stands in another place."""
    async with open_rig("podman") as rig, rig.system() as system:
        job = await system.start("::words 20000\n::hang", session="demo")
        following = system.follow(job.id)
        seen = ""
        async for notice in following:
            if isinstance(notice, OutputAdded) and notice.kind is OutputKind.TEXT:
                seen += notice.text
                if len(seen) > 20_000:
                    break
        os.kill((await the_container(system)).pid, signal.SIGKILL)
        final = await job.wait()
        assert final.status is JobStatus.FAILED
        kept = await whole_output(system, job.id)
        assert kept.startswith(seen)
        whole = "".join(f"word{index} " for index in range(20_000))
        assert whole.startswith(kept)
        assert final.output_bytes == len(kept.encode())


@within(PLENTY)
async def test_a_burst_that_ends_is_whole_and_in_order_P19() -> None:
    async with open_rig("podman") as rig, rig.system() as system:
        job = await system.start("::words 20000", session="demo")
        final = await job.wait()
        assert final.status is JobStatus.COMPLETED, final.failure
        assert await whole_output(system, job.id) == "".join(f"word{index} " for index in range(20_000))


@within(PLENTY)
async def test_output_beyond_its_bound_is_cut_and_said_P19() -> None:
    async with open_rig("podman") as rig, rig.system(evolve(rig.settings, max_output_size=1024)) as system:
        job = await system.start("::words 2000", session="demo")
        final = await job.wait()
        assert final.output_truncated
        kept = await whole_output(system, job.id)
        assert kept.endswith("[output ends here: maxOutputSize is 1024 bytes]\n")
        assert len(kept.encode()) < 1200


@within(PLENTY)
async def test_each_tool_call_is_one_line_whatever_stands_in_it() -> None:
    async with open_rig("podman") as rig, rig.system() as system:
        prompt = (
            "::bash printf '\\033[2Jhidden\\n'\n"
            '::tool bash {"command": "echo one\\necho \\u001b[31mtwo", "description": "x\\r\\u0007y"}\n'
            "::bash exit 3\n::write note.txt hello\n::todo first; second\n::tool nonsense {}\n::say end"
        )
        job = await system.start(prompt, session="demo")
        final = await job.wait()
        assert final.status is JobStatus.COMPLETED, final.failure
        text = await whole_output(system, job.id)
        lines = [line for line in text.splitlines() if line.startswith("[")]
        # Calls of one step run side by side, and each has its line when it ends.
        tools = sorted(line[1 : line.index("]")] for line in lines)
        assert tools == ["bash", "bash", "bash", "invalid", "todowrite", "write"]
        assert any("exit 3" in line for line in lines)
        assert all(line.isprintable() for line in lines)
        assert all(" s)" in line for line in lines)
