"""Podman and Docker behind the `Engine` port: one client of the Docker Engine API over a unix socket.

    async with open_engine(runtime="podman") as engine:
        container = await engine.start(await engine.create(spec))
        death = await engine.wait_exit(container)

Who owns what a container writes: `engine.directory_owner` says which uid and gid a mounted directory
must have on this host. A service that runs as root gives its containers the image's user (1000) and must
chown the directories it mounts; everybody else's containers write as the service's own user.

A call that is cancelled, or whose connection breaks, may still have its effect: what was being created is
found again by its name and labels (`inspect(name)`, `list(labels)`), and `remove(name)` is never wrong.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path

import httpx
import trio
from attrs import define, field

from opencode_actors.adapters import engine_dialect as dialect
from opencode_actors.adapters import engine_exit
from opencode_actors.adapters.cgroup import Cgroups, NotRunning
from opencode_actors.adapters.engine_events import open_events
from opencode_actors.adapters.engine_http import (
    ANSWER_WITHIN,
    EngineStatistics,
    EngineWire,
    engine_http_client,
)
from opencode_actors.adapters.engine_ports import FreePorts
from opencode_actors.adapters.engine_service import Found, PodmanService, find_docker, find_podman
from opencode_actors.errors import ContainerMissing, EngineRefused, EngineUnavailable, ImageMissing
from opencode_actors.ports import (
    Container,
    ContainerId,
    ContainerPhase,
    ContainerSpec,
    Death,
    EngineEvent,
    EngineInfo,
    EngineKind,
    ImageInfo,
    ListedContainer,
    Process,
    Usage,
)

__all__ = ["DockerApiEngine", "connect_engine", "engine_http_client", "open_engine"]

# The first container of a rootless Podman with a new user mapping copies the image's ids: 4 s for
# 466 MB, minutes for a big image on a slow disk. The caller's own deadline is the shorter one.
CREATE_WITHIN = 600.0
START_WITHIN = 120.0
REMOVE_WITHIN = 60.0
# Podman's stop and kill return when its clean-up is done, some 0.3 s after the death.
STOP_SLACK = ANSWER_WITHIN
CLOSE_WITHIN = 5.0


@define(repr=False)
class DockerApiEngine:
    """An `Engine`. Made by `connect_engine`."""

    _wire: EngineWire
    _info: EngineInfo
    _service: PodmanService | None = None
    _cgroups: Cgroups = field(factory=Cgroups)
    _ports: FreePorts = field(factory=FreePorts)
    # What we have asked to end, by its id or its name, until it is removed or started again.
    _ending: set[ContainerId | str] = field(factory=set[ContainerId | str])

    def __repr__(self) -> str:
        said = self.statistics()
        own = ", a service of our own" if self._service is not None else ""
        return (
            f"<{self._wire.name} {self._info.version} at {self.socket}{own}: {said.requests} requests,"
            f" {said.errors} errors, {said.in_flight} in flight, {said.held} streams>"
        )

    @property
    def socket(self) -> Path:
        """Where the engine answers; `engine_http_client(engine.socket)` talks to it directly."""
        return self._wire.socket

    @property
    def kind(self) -> EngineKind:
        return self._info.kind

    def directory_owner(self) -> tuple[int, int]:
        """The uid and gid on this host that a container's processes write mounted directories as."""
        return dialect.directory_owner(rootless=self._info.rootless, uid=os.geteuid(), gid=os.getegid())

    def statistics(self) -> EngineStatistics:
        return self._wire.statistics()

    # ---- the engine and its images

    async def info(self) -> EngineInfo:
        self._info = await _read_info(self._wire)
        return self._info

    async def image(self, reference: str) -> ImageInfo:
        try:
            response = await self._wire.call(
                "GET", f"/images/{reference}/json", doing=f"look at image {reference}"
            )
        except EngineRefused as refusal:
            if refusal.status == 404:
                raise _image_missing(reference, self._wire.name) from refusal
            raise
        return dialect.image_info(reference, response.json())

    # ---- a container's life

    async def create(self, spec: ContainerSpec) -> ContainerId:
        body = dialect.create_body(
            spec, self._info, uid=os.geteuid(), gid=os.getegid(), take_port=self._ports.take
        )
        try:
            response = await self._wire.call(
                "POST",
                "/containers/create",
                doing=f"create container {spec.name}",
                params={"name": spec.name},
                body=body,
                answer_within=CREATE_WITHIN,
                repeatable=False,
            )
        except EngineRefused as refusal:
            if refusal.status == 404:
                raise _image_missing(spec.image, self._wire.name) from refusal
            if dialect.name_in_use(refusal):
                raise EngineRefused(
                    f"a container named {spec.name} exists already",
                    status=409,
                    hint=f"`{self._info.kind.value} rm -f {spec.name}` removes it.",
                ) from refusal
            raise
        return ContainerId(str(response.json()["Id"]))

    async def start(self, container: ContainerId) -> Container:
        """A container that ended at once is returned as what it is: exited, with its exit code."""
        self._ending.discard(container)
        try:
            await self._of(container, "POST", "/start", doing="start", answer_within=START_WITHIN)
        except EngineRefused as refusal:
            if dialect.port_taken(refusal):
                raise EngineRefused(
                    refusal.message,
                    status=409,
                    hint="Its port was taken since it was created: remove it and create it again.",
                ) from refusal
            raise
        started = await self.inspect(container)
        self._ending.discard(started.name)
        return started

    async def stop(self, container: ContainerId, *, grace: float) -> None:
        self._ending.add(container)
        seconds = math.ceil(grace)
        if (await self.inspect(container)).phase is ContainerPhase.PAUSED:
            # A frozen process gets no signal; Podman refuses to stop it, Docker waits for the SIGKILL.
            await self.unpause(container)
        params = {"t": str(seconds)}
        await self._of(
            container, "POST", "/stop", doing="stop", params=params, answer_within=seconds + STOP_SLACK
        )

    async def kill(self, container: ContainerId, *, signal: str = "SIGKILL") -> None:
        self._ending.add(container)
        try:
            await self._of(container, "POST", "/kill", doing="kill", params={"signal": signal})
        except EngineRefused as refusal:
            if not dialect.not_running(refusal):
                raise

    async def pause(self, container: ContainerId) -> None:
        await self._of(container, "POST", "/pause", doing="pause")

    async def unpause(self, container: ContainerId) -> None:
        await self._of(container, "POST", "/unpause", doing="unpause")

    async def remove(self, container: ContainerId | str) -> None:
        self._ending.add(container)
        params = {"force": "true", "v": "true"}
        with suppress(ContainerMissing):
            await self._of(
                container, "DELETE", "", doing="remove", params=params, answer_within=REMOVE_WITHIN
            )
        self._ending.discard(container)

    async def _of(
        self,
        container: ContainerId | str,
        method: str,
        path: str,
        *,
        doing: str,
        params: Mapping[str, str] | None = None,
        answer_within: float = ANSWER_WITHIN,
    ) -> httpx.Response:
        """A call that may be repeated, about one container. Raises `ContainerMissing`."""
        try:
            return await self._wire.call(
                method,
                f"/containers/{container}{path}",
                doing=f"{doing} container {container}",
                params=params,
                answer_within=answer_within,
            )
        except EngineRefused as refusal:
            if dialect.container_missing(refusal):
                raise ContainerMissing(f"{self._wire.name} knows no container {container}") from refusal
            raise

    # ---- looking

    async def inspect(self, container: ContainerId | str) -> Container:
        return (await self._inspect(container)).container

    async def _inspect(self, container: ContainerId | str) -> dialect.Inspected:
        return dialect.inspected((await self._of(container, "GET", "/json", doing="look at")).json())

    async def list(self, labels: Mapping[str, str]) -> tuple[ListedContainer, ...]:
        filters = json.dumps({"label": [f"{name}={value}" for name, value in labels.items()]})
        response = await self._wire.call(
            "GET", "/containers/json", doing="list containers", params={"all": "true", "filters": filters}
        )
        return tuple(dialect.listed(entry) for entry in response.json())

    def events(self, labels: Mapping[str, str]) -> AbstractAsyncContextManager[AsyncIterator[EngineEvent]]:
        return open_events(self._wire, labels)

    async def usage(self, container: Container) -> Usage:
        await trio.lowlevel.checkpoint()
        try:
            return self._cgroups.usage(container.pid, container.id)
        except NotRunning:
            raise ContainerMissing(f"container {container.name} does not run") from None

    async def processes(self, container: Container) -> tuple[Process, ...]:
        await trio.lowlevel.checkpoint()
        try:
            return self._cgroups.processes(container.pid, container.id)
        except NotRunning:
            raise ContainerMissing(f"container {container.name} does not run") from None

    async def log(self, container: ContainerId | str, *, lines: int = 20) -> str:
        # Podman counts the pieces in which a line was written as lines.
        params = {"stdout": "true", "stderr": "true", "tail": str(lines * 10)}
        response = await self._of(container, "GET", "/logs", doing="read the log of", params=params)
        return "".join(dialect.log_text(response.content).splitlines(keepends=True)[-lines:])

    async def wait_exit(self, container: Container) -> Death:
        return await engine_exit.wait_exit(
            container,
            inspect=self._inspect,
            cgroups=self._cgroups,
            by_us=lambda: not self._ending.isdisjoint((container.id, container.name)),
            says_stopping=self.kind is EngineKind.PODMAN,
        )

    async def aclose(self) -> None:
        """Ends a Podman service of our own when nobody else uses it. Containers live on."""
        with trio.move_on_after(CLOSE_WITHIN, shield=True):
            await _close(self._wire, self._service)


# ---- connecting


async def connect_engine(*, runtime: str, socket: str = "") -> DockerApiEngine:
    """The engine that answers on `socket`, or where `runtime` ("podman", "docker") has its sockets.

    Without any socket a Podman service is started. Raises `EngineUnavailable` with what to install or do.
    """
    if runtime == "podman":
        found = await find_podman(socket, os.environ, uid=os.geteuid())
    elif runtime == "docker":
        found = await find_docker(socket, os.environ)
    else:
        raise EngineUnavailable(
            f"there is no container runtime {runtime!r}", hint='runtime is "podman" or "docker".'
        )
    return await engine_of(found)


async def engine_of(found: Found) -> DockerApiEngine:
    headers = found.answer.headers
    wire = EngineWire(
        found.answer.socket,
        name=dialect.display_name(dialect.kind_of(headers)),
        prefix=dialect.api_prefix(headers),
        headers=headers,
    )
    if found.service is not None:
        wire.revive = found.service.ensure
    connected = False
    try:
        info = await _read_info(wire)
        connected = True
    finally:
        if not connected:
            with trio.move_on_after(CLOSE_WITHIN, shield=True):
                await _close(wire, found.service)
    return DockerApiEngine(wire, info, found.service)


async def _close(wire: EngineWire, service: PodmanService | None) -> None:
    await wire.aclose()
    if service is not None:
        await service.release()


@asynccontextmanager
async def open_engine(*, runtime: str, socket: str = "") -> AsyncGenerator[DockerApiEngine]:
    """`connect_engine`, closed at the end of the block."""
    engine = await connect_engine(runtime=runtime, socket=socket)
    try:
        yield engine
    finally:
        await engine.aclose()


async def _read_info(wire: EngineWire) -> EngineInfo:
    """One call: each of Podman's takes 0.15-0.3 s, because it asks its helpers for their versions."""
    if dialect.kind_of(wire.headers) is EngineKind.PODMAN:
        libpod = (await wire.call("GET", "/libpod/info", doing="say what it is")).json()
        if trap := dialect.runroot_trap(libpod):
            raise EngineUnavailable(trap, hint=dialect.RUNROOT_HINT)
        return dialect.podman_info(wire.headers, libpod)
    info = await wire.call("GET", "/info", doing="say what it is")
    return dialect.docker_info(wire.headers, info.json())


def _image_missing(reference: str, engine: str) -> ImageMissing:
    return ImageMissing(
        f"{engine} has no image {reference}",
        hint="`opencode-actors image build` builds it; `image` in the settings names another one.",
    )
