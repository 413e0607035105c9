"""The three engines that are held to one contract: a fake, Podman and Docker.

`bench` runs a test on each of them, `real_bench` on those that have real containers. A missing engine is
a failure where `CI=true`, and a skip that says what to do elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping
from contextlib import asynccontextmanager
from enum import Enum
from functools import wraps
from typing import Any, NoReturn, ParamSpec
from uuid import uuid4

import pytest
import trio
from attrs import define, evolve, field, frozen

from opencode_actors.adapters.engine import DockerApiEngine, open_engine
from opencode_actors.adapters.engine_service import PodmanService
from opencode_actors.adapters.engine_sockets import runtime_folder
from opencode_actors.errors import EngineUnavailable
from opencode_actors.ports import Container, ContainerSpec, Engine, EngineInfo, EngineKind
from opencode_actors.testing.fake_container import FakeContainer
from opencode_actors.testing.fake_engine import FakeEngine

from .tiny_image import ensure_tiny_image

P = ParamSpec("P")

DOCKER_SOCKET = "OPENCODE_ACTORS_TEST_DOCKER_SOCKET"

# Containers get 64 MB; reading 200 MB at once does not fit.
_TAKE_TOO_MUCH = "dd if=/dev/zero of=/dev/null bs=200M count=1"


class Program(Enum):
    """What runs in a container: a script for real ones, a behaviour of the fake's world."""

    SLEEPS = "echo ready; exec sleep 1000"
    ENDS_WITH_7 = "echo one; echo two >&2; echo three; exit 7"
    IGNORES_SIGTERM = "trap '' TERM; echo ready; while :; do sleep 1; done"
    RUNS_OUT_OF_MEMORY = f"sleep 0.2; exec {_TAKE_TOO_MUCH}"
    # A tool of it does, and it goes on; it ends 3 s later for another reason, and with the same code.
    A_TOOL_RUNS_OUT_OF_MEMORY = f"({_TAKE_TOO_MUCH}); sleep 3; kill -9 $$"
    LEAVES_A_DAEMON = "setsid sleep 1000 & exec sleep 1000"
    BURNS_CPU = "while :; do :; done"
    SERVES = (
        "exec perl -e '"
        "socket(S, 2, 1, 0); setsockopt(S, 1, 2, 1); "
        'bind(S, pack("S n a4 x8", 2, 4096, "\\0\\0\\0\\0")) or die; listen(S, 5); '
        'while (accept(C, S)) { syswrite(C, "served"); close(C) }\''
    )

    @property
    def command(self) -> tuple[str, ...]:
        return "sh", "-c", self.value


@define
class FakeWorld:
    """Makes the fake's containers behave as the scripts do."""

    engine: FakeEngine = field(init=False)

    def started(self, container: FakeContainer) -> None:
        container.ignores_sigterm = container.spec.command == Program.IGNORES_SIGTERM.command
        if container.spec.command in (Program.SLEEPS.command, Program.IGNORES_SIGTERM.command):
            container.log = "ready\n"
        elif container.spec.command == Program.ENDS_WITH_7.command:
            container.log = "one\ntwo\nthree\n"
            self.engine.crash(container.id, exit_code=7)
        elif container.spec.command == Program.RUNS_OUT_OF_MEMORY.command:
            self.engine.crash(container.id, oom=True)
        elif container.spec.command == Program.A_TOOL_RUNS_OUT_OF_MEMORY.command:
            container.oom_kills += 1
            self.engine.crash(container.id, exit_code=137)
        elif container.spec.command == Program.BURNS_CPU.command:
            container.set_cpu_load(1.0)
        elif container.spec.command == Program.LEAVES_A_DAEMON.command:
            container.spawn("sleep")


@frozen(kw_only=True)
class Bench:
    """An engine, an image in it, and a label that only this test's containers carry."""

    engine: Engine
    kind: EngineKind
    image: str
    label: Mapping[str, str]

    def spec(self, program: Program = Program.SLEEPS, *, name: str = "a") -> ContainerSpec:
        return ContainerSpec(
            name=f"oa-test-{self.label['opencode-actors-test'][:12]}-{name}",
            image=self.image,
            labels={**self.label, "role": name},
            environment={"GREETING": "hello"},
            command=program.command,
            memory_bytes=64 << 20,
            tmpfs_bytes=16 << 20,
        )

    async def run(self, program: Program = Program.SLEEPS, *, name: str = "a") -> Container:
        return await self.run_spec(self.spec(program, name=name))

    async def wait_said(self, container: Container, word: str) -> None:
        """A container runs before its program has done anything."""
        while word not in await self.engine.log(container.id):  # noqa: ASYNC110 - no engine tells of a line
            await trio.sleep(0.02)

    async def run_spec(self, spec: ContainerSpec) -> Container:
        return await self.engine.start(await self.engine.create(spec))

    async def run_script(self, script: str, spec: ContainerSpec) -> Container:
        return await self.run_spec(evolve(spec, command=("sh", "-c", script)))

    async def clean_up(self) -> None:
        for left in await self.engine.list(self.label):
            await self.engine.remove(left.id)


@frozen(kw_only=True)
class RealBench(Bench):
    """A bench whose containers are real: there are processes, files and sockets to look at."""

    engine: DockerApiEngine


# For a test that hangs, and no measure of any: a busy machine takes ten times what a quiet one does.
PATIENCE = 150


def within(
    seconds: float = PATIENCE,
) -> Callable[[Callable[P, Coroutine[Any, Any, None]]], Callable[P, Coroutine[Any, Any, None]]]:
    """Every wait of the test is for a fact; this bounds them all."""

    def bound(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, Coroutine[Any, Any, None]]:
        @wraps(test)
        async def bounded(*args: P.args, **kwargs: P.kwargs) -> None:
            with trio.fail_after(seconds):
                await test(*args, **kwargs)

        return bounded

    return bound


def missing(what: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="session")
def podman_service() -> Generator[None]:
    """Keeps one Podman service for the whole run, instead of one for each test."""
    service = PodmanService(runtime_folder(os.environ, uid=os.geteuid()))
    try:
        trio.run(service.ensure)
    except EngineUnavailable as error:
        missing(f"{error.message}. {error.hint}")
    yield
    trio.run(service.release)


def own_label() -> Mapping[str, str]:
    return {"opencode-actors-test": uuid4().hex}


def docker_socket() -> str:
    return os.environ.get(DOCKER_SOCKET, "")


@asynccontextmanager
async def real_bench_on(runtime: str) -> AsyncGenerator[RealBench]:
    socket = docker_socket() if runtime == "docker" else ""
    async with open_engine(runtime=runtime, socket=socket) as engine:
        bench = RealBench(
            engine=engine, kind=engine.kind, image=await ensure_tiny_image(engine), label=own_label()
        )
        yield bench
        await bench.clean_up()


@asynccontextmanager
async def fake_bench() -> AsyncGenerator[Bench]:
    world = FakeWorld()
    world.engine = FakeEngine(on_start=world.started, images={"localhost/opencode-actors-test:fake"})
    yield Bench(
        engine=world.engine,
        kind=EngineKind.FAKE,
        image="localhost/opencode-actors-test:fake",
        label=own_label(),
    )
    await world.engine.aclose()


REAL = [pytest.param("podman", marks=pytest.mark.podman), pytest.param("docker", marks=pytest.mark.docker)]


def _present(runtime: str, request: pytest.FixtureRequest) -> str:
    if runtime == "podman":
        request.getfixturevalue("podman_service")
    if runtime == "docker" and not docker_socket():
        missing(f"set {DOCKER_SOCKET} to the socket of a Docker Engine that may be used for tests")
    return runtime


@pytest.fixture(params=REAL)
def real_runtime(request: pytest.FixtureRequest) -> str:
    return _present(request.param, request)


@pytest.fixture(params=["fake", *REAL])
def runtime(request: pytest.FixtureRequest) -> str:
    return _present(request.param, request)


def _need_limits(runtime: str) -> None:
    async def info() -> EngineInfo:
        async with real_bench_on(runtime) as bench:
            return await bench.engine.info()

    if runtime != "fake" and not trio.run(info).memory_enforced:
        missing("this engine can limit nothing (rootless on cgroup v1): run as root, or on cgroup v2")


@pytest.fixture
def limits(runtime: str) -> None:
    """For tests of what only a container with a cgroup of its own has."""
    _need_limits(runtime)


@pytest.fixture
def real_limits(real_runtime: str) -> None:
    _need_limits(real_runtime)


@pytest.fixture
async def real_bench(real_runtime: str) -> AsyncGenerator[RealBench]:
    async with real_bench_on(real_runtime) as bench:
        yield bench


@pytest.fixture
async def bench(runtime: str) -> AsyncGenerator[Bench]:
    async with fake_bench() if runtime == "fake" else real_bench_on(runtime) as bench:
        yield bench
