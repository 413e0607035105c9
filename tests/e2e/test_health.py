"""Servers that hang and containers that die, for real: found, told apart, and called what they are."""

from __future__ import annotations

import os
import signal
from functools import partial

import pytest
import trio

from opencode_actors import Cause, JobSnapshot, JobStatus
from opencode_actors.machines.notices import OutputAdded, SessionChanged
from tests.contract.engines import within

from .rig import PLENTY, container_of, open_rig, server_of, until, whole_output

pytestmark = [pytest.mark.opencode, pytest.mark.image, pytest.mark.podman]

HANGS = "::say begun\n::hang"
WORDS = 100


def cause_of(ended: JobSnapshot) -> Cause:
    assert ended.status is JobStatus.FAILED, ended
    assert ended.failure is not None
    return ended.failure.cause


@within(PLENTY)
async def test_p12_a_hung_server_is_found_and_replaced() -> None:
    """Two at once, because finding one takes some 20 s of silence and probes."""
    async with open_rig("podman") as rig, rig.system() as system:
        found: dict[str, JobSnapshot] = {}

        async def run(session: str, prompt: str) -> None:
            job = await system.start(prompt, session=session)
            await until(system.follow(job.id), OutputAdded, "begun")
            container = await container_of(system, session)
            if session == "paused":
                await system.engine.pause(container.id)
            else:
                os.kill(await server_of(system.engine, container), signal.SIGSTOP)
            found[session] = await job.wait()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, "paused", HANGS)
            nursery.start_soon(run, "stopped", HANGS)
        for session in ("paused", "stopped"):
            assert cause_of(found[session]) is Cause.SERVER_HUNG
            assert found[session].climb is not None
        again = await (await system.start("::say again", session="paused")).wait()
        assert again.status is JobStatus.COMPLETED, again


@within(PLENTY)
async def test_p12_a_slow_server_is_told_from_a_hung_one() -> None:
    """Two whose servers stop in mid-answer. One goes on as soon as it is seen that it does not answer: it is
    asked again, and keeps its container, its job and all of its words."""
    async with open_rig("podman") as rig, rig.system() as system:
        found: dict[str, JobSnapshot] = {}

        async def run(session: str, *, goes_on: bool) -> None:
            job = await system.start(f"::words {WORDS} rate=10", session=session)
            await until(system.follow(job.id), OutputAdded)
            container = await container_of(system, session)
            server = await server_of(system.engine, container)
            changes = system.follow(session=session)
            os.kill(server, signal.SIGSTOP)
            if goes_on:
                await until(changes, SessionChanged, "UNREADY")
                os.kill(server, signal.SIGCONT)
                await until(changes, SessionChanged, "READY")
            found[session] = await job.wait()
            if goes_on:
                assert (await container_of(system, session)).id == container.id
                assert (await whole_output(system, job.id)).split() == [f"word{n}" for n in range(WORDS)]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(run, "slow", goes_on=True))
            nursery.start_soon(partial(run, "hung", goes_on=False))
        assert found["slow"].status is JobStatus.COMPLETED, found["slow"]
        assert cause_of(found["hung"]) is Cause.SERVER_HUNG


@within(PLENTY)
async def test_p25_a_container_that_somebody_removes_is_no_success_and_is_replaced() -> None:
    async with open_rig("podman") as rig, rig.system() as system:
        job = await system.start(HANGS, session="demo")
        await until(system.follow(job.id), OutputAdded, "begun")
        container = await container_of(system, "demo")
        await trio.run_process(
            ["podman", "rm", "--force", "--time", "0", container.name], capture_stdout=True
        )
        # Podman kills it first, and forgets it only 0.2-0.4 s after its end.
        assert cause_of(await job.wait()) is Cause.REMOVED
        again = await (await system.start("::say again", session="demo")).wait()
        assert again.status is JobStatus.COMPLETED, again
