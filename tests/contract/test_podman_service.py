"""A Podman service of our own: found again, started again, shared, and gone when nobody needs it."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from opencode_actors.adapters.engine import engine_of
from opencode_actors.adapters.engine_service import Found, PodmanService
from opencode_actors.adapters.engine_sockets import listener
from opencode_actors.errors import EngineUnavailable
from opencode_actors.ports import ContainerPhase, Death, EngineEventKind, EngineKind

from .engines import Program, RealBench, missing, own_label, within
from .tiny_image import ensure_tiny_image

pytestmark = pytest.mark.podman


@pytest.fixture
def folder() -> Generator[Path]:
    """Short, as a socket's path must be, which the usual temporary folder is not."""
    if shutil.which("podman") is None:
        missing("Podman is not installed (`apt-get install podman`)")
    path = Path(tempfile.mkdtemp(prefix="oa-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@asynccontextmanager
async def _bench_on(service: PodmanService) -> AsyncGenerator[RealBench]:
    engine = await engine_of(Found(answer=await service.ensure(), service=service))
    bench = RealBench(
        engine=engine, kind=EngineKind.PODMAN, image=await ensure_tiny_image(engine), label=own_label()
    )
    try:
        yield bench
    finally:
        with trio.move_on_after(60, shield=True):
            await bench.clean_up()
            await engine.aclose()


async def _ended(process: int) -> None:
    try:
        pidfd = os.pidfd_open(process)
    except ProcessLookupError:
        return
    try:
        await trio.lowlevel.wait_readable(pidfd)
    finally:
        os.close(pidfd)


@within()
async def test_p18_containers_and_their_supervisor_outlive_a_killed_service(folder: Path) -> None:
    service = PodmanService(folder)
    async with _bench_on(service) as bench:
        engine = bench.engine
        container = await bench.run()
        deaths: list[Death] = []

        async def wait() -> None:
            deaths.append(await engine.wait_exit(container))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            async with engine.events(bench.label) as events:
                first = listener(service.socket)
                assert first is not None
                os.kill(first, signal.SIGKILL)
                with pytest.raises(EngineUnavailable, match="Podman could not follow its events"):
                    await anext(events)
            assert (await engine.inspect(container.id)).pid == container.pid
            assert listener(service.socket) not in (None, first)
            assert service.starts == 2
            assert engine.statistics().revivals >= 1
            async with engine.events(bench.label) as events:
                os.kill(container.pid, signal.SIGKILL)
                event = await anext(events)
                assert (event.kind, event.exit_code) == (EngineEventKind.DIED, 137)
        assert deaths == [Death(exit_code=137, oom_killed=False)]


@within()
async def test_a_death_while_the_service_was_gone_is_known(folder: Path) -> None:
    service = PodmanService(folder)
    async with _bench_on(service) as bench:
        engine = bench.engine
        container = await bench.run()
        killed = listener(service.socket)
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        await _ended(killed)
        os.kill(container.pid, signal.SIGKILL)
        assert await engine.wait_exit(container) == Death(exit_code=137, oom_killed=False)
        assert (await engine.inspect(container.id)).phase is ContainerPhase.EXITED


@within()
async def test_two_that_start_at_once_share_one_service_and_the_last_ends_it(folder: Path) -> None:
    services = [PodmanService(folder) for _ in range(3)]
    async with trio.open_nursery() as nursery:
        for service in services:
            nursery.start_soon(service.ensure)
    assert sum(service.starts for service in services) == 1
    process = listener(services[0].socket)
    assert process is not None
    for service in services[:-1]:
        await service.release()
        assert listener(services[0].socket) == process
    await services[-1].release()
    await _ended(process)
    assert sorted(os.listdir(folder)) == ["starting.lock", "users.lock"]  # noqa: PTH208


@within()
async def test_p18_a_service_that_nobody_ended_ends_by_itself_but_not_under_an_open_stream(
    folder: Path,
) -> None:
    service = PodmanService(folder, idle_seconds=1)
    async with _bench_on(service) as bench:
        engine = bench.engine
        process = listener(service.socket)
        assert process is not None
        async with engine.events(bench.label) as events:
            container = await bench.run(Program.A_TOOL_RUNS_OUT_OF_MEMORY)  # ends after 3 s
            assert (await anext(events)).kind is EngineEventKind.STARTED
            assert (await anext(events)).kind is EngineEventKind.DIED
            assert listener(service.socket) == process
        await _ended(process)
        assert (await engine.inspect(container.id)).phase is ContainerPhase.EXITED
        assert service.starts == 2


@within()
async def test_a_service_is_nobodys_client_and_takes_nobodys_sockets(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTAINER_HOST", f"unix://{folder}/elsewhere.sock")
    monkeypatch.setenv("LISTEN_FDS", "1")
    service = PodmanService(folder)
    async with _bench_on(service) as bench:
        assert (await bench.engine.info()).kind is EngineKind.PODMAN
        assert repr(bench.engine).startswith(f"<Podman {(await bench.engine.info()).version} at {folder}")


@within()
async def test_a_service_outlives_the_temporary_folder_of_whoever_started_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    its_own = tmp_path / "its own"
    its_own.mkdir()
    monkeypatch.setenv("TMPDIR", str(its_own))
    async with _bench_on(PodmanService(folder)) as bench:
        shutil.rmtree(its_own)
        assert (await bench.run()).phase is ContainerPhase.RUNNING


@within()
async def test_a_service_finds_what_sets_up_networks_whoever_started_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/local/bin:/usr/bin:/bin")
    async with _bench_on(PodmanService(folder)) as bench:
        assert (await bench.run()).phase is ContainerPhase.RUNNING


@within()
async def test_a_service_that_cannot_start_says_why(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "bin").mkdir()
    broken = folder / "bin/podman"
    broken.write_text("#!/bin/sh\necho 'cannot find newuidmap' >&2\nexit 125\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
    with pytest.raises(
        EngineUnavailable, match="ended as soon as it was started: cannot find newuidmap"
    ) as gone:
        await PodmanService(folder).ensure()
    assert "--add-subuids" in gone.value.hint


@within()
async def test_a_machine_without_podman_is_told_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(EngineUnavailable, match="Podman is not installed") as gone:
        await PodmanService(folder).ensure()
    assert "apt-get install podman" in gone.value.hint


@within()
async def test_a_folder_of_somebody_else_is_refused(folder: Path) -> None:
    open_to_all = folder / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o755)
    with pytest.raises(EngineUnavailable, match="not a private directory"):
        await PodmanService(open_to_all).ensure()
