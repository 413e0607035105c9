"""Everything real but the model: a system on a real engine, and the scripted provider it talks to."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path

import pytest
import trio
from attrs import frozen

from opencode_actors import JobId, ModelAccess, Settings, System, open_system
from opencode_actors.containers import OWNER_LABEL, PROVIDER_URL_INSIDE
from opencode_actors.kernel.hub import Following
from opencode_actors.machines.notices import Notice
from opencode_actors.ports import Container, Engine, ListedContainer
from opencode_actors.testing.provider import MODEL, ScriptedProvider, open_provider, provider_config

PLENTY = 240  # seconds; a loaded machine with two cores starts four servers at once


@frozen(kw_only=True)
class Rig:
    base: Path
    settings: Settings
    access: ModelAccess
    provider: ScriptedProvider

    def system(
        self, settings: Settings | None = None, *, engine: Engine | None = None
    ) -> AbstractAsyncContextManager[System]:
        return open_system(settings or self.settings, access=self.access, engine=engine)


@contextmanager
def short_folder() -> Generator[Path]:
    """A unix socket's path has 107 bytes at most, and pytest's own folders are long."""
    base = Path(tempfile.mkdtemp(prefix="oa-e2e-"))
    base.chmod(0o755)  # a container's user has to get to the provider's socket
    try:
        yield base
    finally:
        shutil.rmtree(base)


@asynccontextmanager
async def open_rig(runtime: str) -> AsyncGenerator[Rig]:
    with short_folder() as base:
        socket = base / "provider" / "provider.sock"
        socket.parent.mkdir(mode=0o755)
        async with open_provider(unix_socket=socket) as provider:
            yield Rig(
                base=base,
                settings=Settings(
                    runtime=runtime,
                    engine_socket=_docker_socket() if runtime == "docker" else "",
                    sessions_dir=base / "sessions",
                    workspaces_dir=base / "workspaces",
                    model=MODEL,
                ),
                access=ModelAccess(
                    provider_socket=socket,
                    config={"provider": provider_config(PROVIDER_URL_INSIDE)},
                ),
                provider=provider,
            )


def _docker_socket() -> str:
    name = "OPENCODE_ACTORS_TEST_DOCKER_SOCKET"
    socket = os.environ.get(name, "")
    if not socket:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{name} does not name the socket of a Docker daemon")
        pytest.skip(f"set {name} to the socket of a Docker daemon")
    return socket


def owner_in(sessions_dir: Path) -> str:
    """Whose containers those are that a service of this directory made."""
    with closing(sqlite3.connect(sessions_dir / "journal.sqlite")) as database:
        (owner,) = database.execute("SELECT value FROM about WHERE name = 'owner'").fetchone()
    return str(owner)


async def containers(system: System) -> tuple[ListedContainer, ...]:
    return await system.engine.list({OWNER_LABEL: system.owner})


async def the_container(system: System) -> Container:
    (one,) = await containers(system)
    return await system.engine.inspect(one.id)


async def container_of(system: System, session: str) -> Container:
    """The one that a session has now."""
    (name,) = (found.container for found in await system.sessions() if found.key == session)
    assert name is not None
    return await system.engine.inspect(name)


async def until(following: Following, kind: type[Notice], containing: str = "") -> Notice:
    """The next notice of a kind; all before it are read away."""
    text = ""
    async for notice in following:
        if isinstance(notice, kind):
            text += str(getattr(notice, "text", ""))
            if containing in (text or str(notice)):
                return notice
    raise AssertionError(f"no {kind.__name__} with {containing!r} came; the text was {text!r}")


async def eventually(fact: Callable[[], bool]) -> None:
    """For what the world does not announce; the test's own deadline bounds it."""
    while not fact():  # noqa: ASYNC110 - nothing tells us
        await trio.sleep(0.02)


async def whole_output(system: System, job: JobId) -> str:
    text, offset, more = "", 0, True
    while more:
        piece = await system.output(job, offset=offset)
        text, offset, more = text + piece.text, piece.next_offset, piece.more
    return text


def processes(container: Container) -> list[str]:
    """The command lines of the processes in a container, read from the host."""
    own = _pid_namespace(container.pid)
    found: list[str] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if _pid_namespace(int(entry.name)) == own:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found.append(line.strip())
        except OSError:
            continue  # it ended while we looked
    return found


def living(marker: str) -> list[str]:
    """The command lines with `marker` in them, of all processes of this host, containers included."""
    found: list[str] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it ended while we looked
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if marker in line:
                    found.append(line.strip())
    return found


async def server_of(engine: Engine, container: Container) -> int:
    """The pid of the OpenCode server in a container, on this host."""
    (server,) = [found.pid for found in await engine.processes(container) if found.name == "opencode"]
    return server


def _pid_namespace(pid: int) -> str:
    return str(Path(f"/proc/{pid}/ns/pid").readlink())
