"""A container that dies again and again, for real: bounded work, said loudly, and usable again afterwards."""

from __future__ import annotations

import os
import signal

import pytest
import trio
from attrs import evolve

from opencode_actors import Cause, JobStatus, SessionStatus, System
from opencode_actors.containers import OWNER_LABEL
from opencode_actors.machines.notices import SessionChanged
from opencode_actors.ports import ContainerId, EngineEventKind
from tests.contract.engines import within

from .rig import PLENTY, containers, open_rig

pytestmark = [pytest.mark.opencode, pytest.mark.image, pytest.mark.podman]


async def kill_whatever_starts(
    system: System, started: list[ContainerId], task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    async with system.engine.events({OWNER_LABEL: system.owner}) as events:
        task_status.started()
        async for event in events:
            if event.kind is EngineEventKind.STARTED:
                started.append(event.container)
                container = await system.engine.inspect(event.container)
                os.kill(container.pid, signal.SIGKILL)


@within(PLENTY)
async def test_a_crash_loop_costs_bounded_work_is_given_up_aloud_and_reset() -> None:
    async with open_rig("podman") as rig:
        settings = evolve(rig.settings, max_restarts=2, restart_delay=0.1)
        async with rig.system(settings) as system:
            started: list[ContainerId] = []
            following = system.follow()
            async with trio.open_nursery() as nursery:
                await nursery.start(kill_whatever_starts, system, started)
                ended = await (await system.start("::say hello", session="demo")).wait()
                nursery.cancel_scope.cancel()
            assert ended.status is JobStatus.FAILED
            assert ended.failure is not None
            assert (ended.failure.cause, ended.failure.exit_code) == (Cause.CRASH, 137)
            assert "given up after 3 failed starts" in ended.failure.message
            assert len(set(started)) == 3
            assert not await containers(system)
            async for notice in following:
                if isinstance(notice, SessionChanged) and notice.status is SessionStatus.GIVEN_UP:
                    assert notice.detail == ended.failure.message
                    break

            after = await system.reset_session("demo")
            assert (after.status, after.crashes) == (SessionStatus.ABSENT, 0)
            again = await (await system.start("::say hello", session="demo")).wait()
            assert again.status is JobStatus.COMPLETED, again
