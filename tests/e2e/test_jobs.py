"""Jobs in real containers, on the real OpenCode; only the model is a script."""

from __future__ import annotations

import os
import signal

import pytest
import trio
from attrs import evolve

from opencode_actors import Cause, JobStatus, Rung
from opencode_actors.machines.notices import JobEnded, JobStarted, OutputAdded, ToolStarted
from opencode_actors.testing.provider import ScriptedProvider
from tests.contract.engines import within

from .rig import PLENTY, containers, eventually, open_rig, processes, the_container, until, whole_output


def _has_a_past(provider: ScriptedProvider) -> bool:
    """Whether the model was shown more than one prompt of the same conversation the last time."""
    first, last = provider.exchanges[0].request, provider.exchanges[-1].request
    return last.session == first.session and last.length > first.length


pytestmark = [pytest.mark.opencode, pytest.mark.image]


@pytest.mark.parametrize(
    "runtime",
    [pytest.param("podman", marks=pytest.mark.podman), pytest.param("docker", marks=pytest.mark.docker)],
)
@within(PLENTY)
async def test_a_first_job_streams_and_a_second_one_reuses_its_container(runtime: str) -> None:
    async with open_rig(runtime) as rig, rig.system() as system:
        job = await system.start("::say one two three", session="demo")
        following = system.follow(job.id)
        pieces = [n async for n in following if isinstance(n, OutputAdded)]
        first = await job.wait()
        container = await the_container(system)

        assert first.status is JobStatus.COMPLETED, first
        assert "".join(n.text for n in pieces).strip() == "one two three"
        assert (await whole_output(system, job.id)).strip() == "one two three"
        assert first.tokens.output > 0
        assert first.cost_usd > 0
        assert first.model == rig.settings.model

        second = await (await system.start("::say four", session="demo")).wait()
        assert second.status is JobStatus.COMPLETED, second
        assert (await the_container(system)).id == container.id

        # The second prompt was put to the model as a second turn of the same conversation.
        before, after = rig.provider.exchanges
        assert after.request.session == before.request.session
        assert after.request.length == before.request.length + 2


@pytest.mark.podman
@within(PLENTY)
async def test_jobs_of_one_session_run_in_order_and_sessions_side_by_side() -> None:
    async with open_rig("podman") as rig, rig.system() as system:
        a1 = await system.start("::say a1\n::pause 1\n::say end", session="a")
        a2 = await system.start("::say a2", session="a")
        b1 = await system.start("::say b1\n::pause 1\n::say end", session="b")
        order: list[str] = []
        names = {a1.id: "a1", a2.id: "a2", b1.id: "b1"}
        following = system.follow()
        with trio.fail_after(PLENTY):
            async for notice in following:
                if isinstance(notice, JobStarted):
                    order.append(f"{names[notice.job]} starts")
                elif isinstance(notice, JobEnded):
                    assert notice.snapshot.status is JobStatus.COMPLETED, notice.snapshot
                    order.append(f"{names[notice.job]} ends")
                    if len([line for line in order if line.endswith("ends")]) == len(names):
                        break
        assert order.index("a1 ends") < order.index("a2 starts")
        assert len(await containers(system)) == 2


@pytest.mark.podman
@within(PLENTY)
async def test_a_container_killed_by_hand_fails_its_job_at_once_with_the_true_cause() -> None:
    async with open_rig("podman") as rig, rig.system() as system:
        job = await system.start("::say begun\n::hang", session="demo")
        await until(system.follow(job.id), OutputAdded, "begun")
        container = await the_container(system)
        os.kill(container.pid, signal.SIGKILL)
        ended = await job.wait()

        assert ended.status is JobStatus.FAILED
        assert ended.failure is not None
        assert ended.failure.cause is Cause.CRASH
        assert ended.failure.exit_code == 137
        assert (await whole_output(system, job.id)).strip() == "begun"

        # P7: the next job has a new container and the old conversation.
        again = await (await system.start("::say and on", session="demo")).wait()
        assert again.status is JobStatus.COMPLETED, again
        assert (await the_container(system)).id != container.id
        assert _has_a_past(rig.provider)


@pytest.mark.podman
@within(PLENTY)
async def test_p25_a_server_that_runs_out_of_memory_is_said_to_have_done_so() -> None:
    async with open_rig("podman") as rig, rig.system(evolve(rig.settings, memory=320 << 20)) as system:
        job = await system.start("::text 3000000 chunk=64", session="demo")
        ended = await job.wait()
        assert ended.status is JobStatus.FAILED, ended
        assert ended.failure is not None
        # Whether it dies while it gets ready or at the first prompt is the machine's choice.
        assert ended.failure.cause is Cause.OOM, ended.failure


@pytest.mark.podman
@within(PLENTY)
async def test_a_cancelled_job_leaves_no_process_of_its_own() -> None:
    async with open_rig("podman") as rig, rig.system() as system:
        job = await system.start("::bash sleep 4711", session="demo")
        await until(system.follow(job.id), ToolStarted)
        container = await the_container(system)
        await eventually(lambda: any("sleep 4711" in line for line in processes(container)))

        cancelled = await job.cancel()
        assert cancelled.status is JobStatus.CANCELLED, cancelled
        assert cancelled.climb is not None
        assert cancelled.climb.ended_by is Rung.ABORT
        assert not any("sleep 4711" in line for line in processes(container))

        again = await (await system.start("::say still here", session="demo")).wait()
        assert again.status is JobStatus.COMPLETED, again
        assert (await the_container(system)).id == container.id


@pytest.mark.podman
@within(PLENTY)
async def test_a_conversation_outlives_its_container_and_its_process() -> None:
    async with open_rig("podman") as rig:
        async with rig.system() as system:
            await (await system.start("::say remember the number 4711", session="demo")).wait()
            assert len(await containers(system)) == 1
        async with rig.system() as system:
            assert not await containers(system)
            ended = await (await system.start("::say what was it", session="demo")).wait()
            assert ended.status is JobStatus.COMPLETED, ended
            assert _has_a_past(rig.provider)


@pytest.mark.podman
@within(PLENTY)
async def test_a_missing_image_is_said_at_once() -> None:
    async with open_rig("podman") as rig:
        async with rig.system(evolve(rig.settings, image="localhost/no-such-image:1")) as system:
            ended = await (await system.start("::say hello", session="demo")).wait()
        assert ended.failure is not None
        assert ended.failure.cause is Cause.IMAGE_MISSING
        assert "localhost/no-such-image:1" in ended.failure.message
