"""The engine's service dies under a running system: a Podman service of the test's own, ended by its pid."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio

from opencode_actors import Cause, JobStatus
from opencode_actors.adapters.engine import DockerApiEngine, engine_of
from opencode_actors.adapters.engine_service import Found, PodmanService
from opencode_actors.adapters.engine_sockets import listener
from opencode_actors.machines.notices import OutputAdded, SessionChanged
from tests.contract.engines import within

from .rig import PLENTY, Rig, container_of, eventually, open_rig, the_container, until

pytestmark = [pytest.mark.opencode, pytest.mark.image, pytest.mark.podman]


@asynccontextmanager
async def _engine_on(service: PodmanService, *, ours: bool) -> AsyncGenerator[DockerApiEngine]:
    """`ours` is started again by the adapter; another's only by whoever runs it."""
    answer = await service.ensure()
    engine = await engine_of(Found(answer=answer, service=service if ours else None))
    try:
        yield engine
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 30):
            await engine.aclose()
            await service.release()


def _kill(service: PodmanService) -> None:
    process = listener(service.socket)
    assert process is not None
    os.kill(process, signal.SIGKILL)


def _service(rig: Rig) -> PodmanService:
    return PodmanService(rig.base / "engine")


@within(PLENTY)
async def test_p18_jobs_go_on_without_the_engines_service_which_is_started_again() -> None:
    async with open_rig("podman") as rig:
        service = _service(rig)
        async with _engine_on(service, ours=True) as engine, rig.system(engine=engine) as system:
            job = await system.start("::say begun\n::pause 3\n::say and done", session="a")
            await until(system.follow(job.id), OutputAdded, "begun")
            _kill(service)
            assert (await job.wait()).status is JobStatus.COMPLETED
            # The events are followed again, which took a new service.
            await eventually(lambda: service.starts == 2 and engine.statistics().held == 1)

            # A container that ends while there is no service is known at once, and its code soon.
            job = await system.start("::say begun\n::hang", session="a")
            await until(system.follow(job.id), OutputAdded, "begun")
            container = await the_container(system)
            _kill(service)
            os.kill(container.pid, signal.SIGKILL)
            ended = await job.wait()
            assert ended.failure is not None
            assert (ended.failure.cause, ended.failure.exit_code) == (Cause.CRASH, 137)
            again = await (await system.start("::say again", session="a")).wait()
            assert again.status is JobStatus.COMPLETED, again


@within(PLENTY)
async def test_p18_a_launch_waits_for_an_engine_that_somebody_else_has_to_start() -> None:
    async with open_rig("podman") as rig:
        service = _service(rig)
        async with _engine_on(service, ours=False) as engine, rig.system(engine=engine) as system:
            running = await system.start("::say begun\n::pause 8\n::say done", session="a")
            await until(system.follow(running.id), OutputAdded, "begun")
            _kill(service)
            waiting = await system.start("::say late", session="b")
            await until(system.follow(waiting.id), SessionChanged, "waiting for the engine")
            assert (await running.wait()).status is JobStatus.COMPLETED
            assert (await waiting.status()).status is JobStatus.PENDING
            await service.ensure()
            assert (await waiting.wait()).status is JobStatus.COMPLETED
            assert (await container_of(system, "a")).pid
