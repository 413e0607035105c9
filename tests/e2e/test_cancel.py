"""Cancels in real containers: each rung ends what the one before could not, and no process is left.

The processes are looked for on the host, by a number in their command line that no other test uses.
"""

from __future__ import annotations

import os
import signal

import pytest
import trio
from attrs import evolve

from opencode_actors import Climb, JobSnapshot, JobStatus, Rung, System
from opencode_actors.adapters.engine import open_engine
from opencode_actors.machines.notices import JobCancelling, JobStarted, OutputAdded, ToolStarted
from tests.contract.engines import within

from .gentle import GentleEngine
from .rig import PLENTY, eventually, living, open_rig, server_of, the_container, until

pytestmark = [pytest.mark.opencode, pytest.mark.image, pytest.mark.podman]

IGNORES_SIGTERM = "trap '' TERM; sleep 471101 & while :; do sleep 1; done"
FORKS_A_DAEMON = "(setsid sh -c 'sleep 471102 & exec sleep 471103' >/dev/null 2>&1 &); sleep 471104"


def climb_of(ended: JobSnapshot) -> Climb:
    assert ended.status is JobStatus.CANCELLED, ended
    assert ended.climb is not None
    return ended.climb


async def eventually_living(marker: str) -> None:
    await eventually(lambda: bool(living(marker)))


async def _cancelled(system: System, prompt: str, *markers: str) -> Climb:
    """Of a job that has begun: with these processes, or with words when there are none."""
    job = await system.start(prompt, session="demo")
    await until(system.follow(job.id), ToolStarted if markers else OutputAdded)
    for marker in markers:
        await eventually_living(marker)
    return climb_of(await job.cancel())


@within(PLENTY)
async def test_p6_an_abort_ends_what_it_can_and_a_daemon_takes_the_container_with_it() -> None:
    async with open_rig("podman") as rig, rig.system(evolve(rig.settings, abort_grace=8.0)) as system:
        # A completed job may leave something on purpose, and it outlives the cancels of later ones.
        left = "::bash setsid sleep 471100 >/dev/null 2>&1 &"
        assert (await (await system.start(left, session="demo")).wait()).status is JobStatus.COMPLETED
        await eventually_living("sleep 471100")
        container = await the_container(system)

        assert (await _cancelled(system, "::words 5000 rate=20")).ended_by is Rung.ABORT
        hung = await system.start("::hang", session="demo")
        await until(system.follow(hung.id), JobStarted)
        await eventually(lambda: len(rig.provider.exchanges) >= 4)
        assert climb_of(await hung.cancel()).ended_by is Rung.ABORT

        climb = await _cancelled(system, f"::bash {IGNORES_SIGTERM}", "sleep 471101")
        assert climb.ended_by is Rung.ABORT
        assert not living("sleep 471101")
        assert living("sleep 471100")
        assert (await the_container(system)).id == container.id

        job = await system.start(f"::bash {FORKS_A_DAEMON}", session="demo")
        following = system.follow(job.id)
        for marker in ("sleep 471102", "sleep 471103", "sleep 471104"):
            await eventually_living(marker)
        answers: list[JobSnapshot] = []

        async def cancel() -> None:
            answers.append(await job.cancel())

        async with trio.open_nursery() as nursery:  # the second one joins the first
            nursery.start_soon(cancel)
            nursery.start_soon(cancel)
        assert answers[0] == answers[1]
        climb = climb_of(answers[0])
        assert climb.ended_by is Rung.STOP
        assert climb.why.count("sleep (pid") == 2
        assert [rung for rung, _ in climb.seconds] == [Rung.ABORT, Rung.STOP]
        rungs = [notice.rung async for notice in following if isinstance(notice, JobCancelling)]
        assert rungs == [Rung.ABORT, Rung.STOP]
        assert not living("sleep 47110")

        again = await (await system.start("::say still here", session="demo")).wait()
        assert again.status is JobStatus.COMPLETED, again
        first, last = rig.provider.exchanges[0].request, rig.provider.exchanges[-1].request
        assert last.session == first.session


async def _cancelled_while_frozen(system: System) -> Climb:
    job = await system.start("::bash sleep 471105", session="demo")
    await eventually_living("sleep 471105")
    server = await server_of(system.engine, await the_container(system))
    os.kill(server, signal.SIGSTOP)
    climb = climb_of(await job.cancel())
    with pytest.raises(ProcessLookupError):
        os.kill(server, 0)
    assert not living("sleep 471105")
    return climb


@within(PLENTY)
async def test_p6_a_server_that_hears_nothing_is_killed_whatever_the_engine_does_by_itself() -> None:
    async with open_rig("podman") as rig, open_engine(runtime="podman") as engine:
        settings = evolve(rig.settings, abort_grace=2.0, stop_grace=1.0)
        async with rig.system(settings, engine=engine) as system:
            climb = await _cancelled_while_frozen(system)
        assert climb.ended_by is Rung.KILL
        assert [rung for rung, _ in climb.seconds] == [Rung.ABORT, Rung.STOP, Rung.KILL]
        assert "OpenCode did not" in climb.why
        gentle = GentleEngine.of(engine)
        async with rig.system(settings, engine=gentle) as system:
            climb = await _cancelled_while_frozen(system)
        assert climb.ended_by is Rung.KILL
        assert [rung for rung, _ in climb.seconds] == [Rung.ABORT, Rung.STOP, Rung.KILL]
