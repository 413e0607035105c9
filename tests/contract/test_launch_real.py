"""What becomes of a launch when the container has ended before the engine's answer to its start."""

from __future__ import annotations

import pytest
import trio

from opencode_actors.adapters.engine import DockerApiEngine
from opencode_actors.kernel.servers import Servers
from opencode_actors.kernel.session_operations import SessionOperations
from opencode_actors.machines.session_messages import LaunchContainer, LaunchFailed, SessionMessage
from opencode_actors.machines.vocabulary import Cause
from opencode_actors.ports import Container, ContainerId, ContainerSpec, Endpoint, OpenCodeServer, Permissions

from .engines import Program, RealBench, within


async def _tidy() -> int:
    await trio.lowlevel.checkpoint()
    return 0


def _nobody(endpoint: Endpoint) -> OpenCodeServer:
    raise AssertionError(f"there is no server at {endpoint.url}")


async def _unheard(message: SessionMessage) -> None:
    await trio.lowlevel.checkpoint()
    raise AssertionError(message)


@within()
async def test_p25_a_container_that_ended_at_once_is_told_with_its_last_words_and_removed(
    real_bench: RealBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = DockerApiEngine.start

    async def start_slowly(engine: DockerApiEngine, container: ContainerId) -> Container:
        await engine.wait_exit(await start(engine, container))
        return await engine.inspect(container)

    monkeypatch.setattr(DockerApiEngine, "start", start_slowly)
    spec = real_bench.spec(Program.ENDS_WITH_7)

    async def prepare(password: str, _: Permissions | None) -> ContainerSpec:
        del password
        await trio.lowlevel.checkpoint()
        return spec

    operations = SessionOperations(real_bench.engine, Servers(_nobody), prepare, _tidy, lambda: "secret")
    answer = await operations.perform(LaunchContainer(name=spec.name), _unheard)
    assert isinstance(answer, LaunchFailed)
    assert not answer.retryable
    assert (answer.failure.cause, answer.failure.exit_code) == (Cause.CRASH, 7)
    assert "exit code 7" in answer.failure.message
    assert all(word in answer.failure.message for word in ("one", "two", "three"))
    assert await real_bench.engine.list(real_bench.label) == ()
