"""What can really be done to containers, engine, provider and service of the real world."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import trio
from attrs import define, field

from opencode_actors.adapters.cgroup import cgroup_mounts, cgroup_paths
from opencode_actors.adapters.engine_service import PodmanService
from opencode_actors.adapters.engine_sockets import listener
from opencode_actors.containers import OWNER_LABEL, SESSION_LABEL
from opencode_actors.errors import EngineError
from opencode_actors.ports import Container, ContainerPhase, Engine, EngineInfo
from opencode_actors.stress.plan import PlannedFault
from opencode_actors.stress.scenario import FaultKind
from opencode_actors.stress.weather import LIVES, OUTSIDE, Lasting, Outside
from opencode_actors.stress.windows import Hit
from opencode_actors.stress.worlds import BY_CLIENTS

_KILLED = 137
# Bun takes SIGSEGV itself, writes down what it was doing, and dies of SIGILL.
_SEGMENTATION_FAULT = 132
_LOOK_EVERY = 0.3
_STOPPED, _RUNS = 0.7, 0.3  # of each second of a slow server
_EATS_WITHIN = 20.0

_ALWAYS = (
    OUTSIDE
    | BY_CLIENTS
    | {
        FaultKind.CONTAINER_CRASH,
        FaultKind.CONTAINER_REMOVED,
        FaultKind.CRASH_LOOP,
        FaultKind.SERVER_FROZEN,
        FaultKind.SERVER_SLOW,
        FaultKind.DISK_FULL,
        FaultKind.SERVICE_KILLED,
        FaultKind.SERVICE_ENDED,
    }
)
_ENGINE = frozenset({FaultKind.ENGINE_AWAY, FaultKind.ENGINE_SLOW})

# Takes memory where the server lives, and is the last one that the kernel would kill for it.
_EATER = """
import sys
open('/proc/self/oom_score_adj', 'w').write('-1000')
open(sys.argv[1], 'w').write('0')
eaten = []
while True:
    eaten.append(bytearray(b'x') * (16 << 20))
"""


@define(eq=False)
class RealFaults:
    """`owner` and `service` are known once a service runs; `own_engine` is the one that may be killed."""

    engine: Engine
    info: EngineInfo
    outside: Outside
    own_engine: PodmanService | None
    nursery: trio.Nursery
    owner: str = ""
    service: int = 0
    engine_killed: bool = False
    _lasting: Lasting = field(factory=Lasting)
    _felt_before: dict[int, int] = field(factory=dict[int, int])
    _stopped: dict[int, int] = field(factory=dict[int, int])
    _going_on: dict[int, trio.CancelScope] = field(factory=dict[int, trio.CancelScope])

    def can(self, kind: FaultKind) -> bool:
        if kind in _ENGINE:
            return self.own_engine is not None
        if kind is FaultKind.CONTAINER_OOM:
            return self.info.memory_enforced and os.geteuid() == 0
        return kind in _ALWAYS

    async def inflict(self, fault: PlannedFault) -> Hit | None:
        """Raises `EngineError`, and `OSError` for a process that has gone."""
        hit = await self._hit(fault)
        if hit is not None:
            self._lasting.begin(fault)
        return hit

    async def _hit(self, fault: PlannedFault) -> Hit | None:
        match fault.kind:
            case _ if fault.kind in OUTSIDE:
                self._felt_before[fault.number] = self.outside.felt(fault.kind)
                self.outside.inflict(fault)
            case FaultKind.ENGINE_AWAY | FaultKind.ENGINE_SLOW:
                if not self._hit_engine(fault):
                    return None
            case FaultKind.DISK_FULL:
                self._room(0)
            case FaultKind.SERVICE_KILLED | FaultKind.SERVICE_ENDED:
                pass
            case FaultKind.CRASH_LOOP:
                self._keep_on(fault, partial(self._loop, fault.session))
                return Hit.of_session(fault, exit_code=_KILLED)
            case _:
                container = await self._container(fault.session)
                return None if container is None else await self._hit_container(fault, container)
        return Hit.of_everybody(fault)

    async def relent(self, fault: PlannedFault) -> bool:
        """False when nobody had felt it, where that can be told."""
        over = self._lasting.end(fault, of_session=False)
        if (going_on := self._going_on.pop(fault.number, None)) is not None:
            going_on.cancel()
        if fault.kind in OUTSIDE:
            self.outside.relent(fault)
            return self.outside.felt(fault.kind) > self._felt_before.pop(fault.number)
        if fault.kind is FaultKind.DISK_FULL and over:
            self._room(resource.RLIM_INFINITY)
        elif fault.kind is FaultKind.ENGINE_AWAY and over and self.own_engine is not None:
            await self.own_engine.ensure()
        elif (stopped := self._stopped.pop(fault.number, None)) is not None:
            _go_on(stopped)
        return True

    def relent_all(self) -> None:
        """Nothing stays stopped, and nothing is killed again: who ends the world needs what was hit."""
        for going_on in self._going_on.values():
            going_on.cancel()
        while self._stopped:
            _go_on(self._stopped.popitem()[1])
        if self.service:
            self._room(resource.RLIM_INFINITY)

    # ---- containers

    async def _container(self, session: str) -> Container | None:
        """The one that runs."""
        for listed in await self.engine.list({OWNER_LABEL: self.owner, SESSION_LABEL: session}):
            found = await self.engine.inspect(listed.id)
            if found.phase is ContainerPhase.RUNNING:
                return found
        return None

    async def _hit_container(self, fault: PlannedFault, container: Container) -> Hit | None:
        match fault.kind:
            case FaultKind.CONTAINER_REMOVED:
                await self.engine.remove(container.id)
                return Hit.of_session(fault, lasts=0.0)
            case FaultKind.CONTAINER_CRASH if fault.roll < 0.5:
                await self.engine.kill(container.id)
                return Hit.of_session(fault, lasts=0.0, exit_code=_KILLED)
            case FaultKind.CONTAINER_OOM:
                return await self._starve(fault, container)
            case _:
                pass
        server = await self._server(container)
        if server is None:
            return None
        match fault.kind:
            case FaultKind.CONTAINER_CRASH:
                os.kill(server, signal.SIGSEGV)
                return Hit.of_session(fault, lasts=0.0, exit_code=_SEGMENTATION_FAULT)
            case FaultKind.SERVER_FROZEN:
                os.kill(server, signal.SIGSTOP)
                self._stopped[fault.number] = server
            case _:
                self._keep_on(fault, partial(self._slow, server))
        return Hit.of_session(fault)

    async def _server(self, container: Container) -> int | None:
        """The OpenCode server in it, as this host sees it."""
        found = await self.engine.processes(container)
        return next((process.pid for process in found if process.name == "opencode"), None)

    async def _starve(self, fault: PlannedFault, container: Container) -> Hit | None:
        """Until the kernel kills the server: nothing else in there has so much."""
        procs = _memory_group(container.pid)
        command = [sys.executable, "-c", _EATER, str(procs)]
        died = False
        pidfd = os.pidfd_open(container.pid)
        process = await trio.lowlevel.open_process(command, stderr=subprocess.DEVNULL)
        try:
            with trio.move_on_after(_EATS_WITHIN):
                await trio.lowlevel.wait_readable(pidfd)
                died = True
        finally:
            os.close(pidfd)
            process.kill()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 5.0):
                await process.wait()
        return Hit.of_session(fault, lasts=0.0, exit_code=_KILLED) if died else None

    async def _slow(self, server: int) -> None:
        try:
            while True:
                os.kill(server, signal.SIGSTOP)
                await trio.sleep(_STOPPED)
                os.kill(server, signal.SIGCONT)
                await trio.sleep(_RUNS)
        except ProcessLookupError:
            return
        finally:
            _go_on(server)

    async def _loop(self, session: str) -> None:
        """Kills whatever runs there, a moment after it began."""
        while True:
            with suppress(EngineError):
                container = await self._container(session)
                if container is not None:
                    await trio.sleep(LIVES)
                    await self.engine.kill(container.id)
            await trio.sleep(_LOOK_EVERY)

    # ---- the others

    def _keep_on(self, fault: PlannedFault, work: Callable[[], Awaitable[None]]) -> None:
        scope = self._going_on[fault.number] = trio.CancelScope()

        async def run() -> None:
            with scope:
                await work()

        self.nursery.start_soon(run)

    def _hit_engine(self, fault: PlannedFault) -> bool:
        pid = None if self.own_engine is None else listener(self.own_engine.socket)
        if pid is None:
            return False
        if fault.kind is FaultKind.ENGINE_AWAY:
            os.kill(pid, signal.SIGKILL)
            self.engine_killed = True
        else:
            os.kill(pid, signal.SIGSTOP)
            self._stopped[fault.number] = pid
        return True

    def _room(self, most: int) -> None:
        """How large a file the service may write: to its journal, a full disk."""
        with suppress(ProcessLookupError):
            resource.prlimit(self.service, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))


def _go_on(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def _memory_group(pid: int) -> Path:
    """Where a process is let into the group that its memory is counted in. Raises `OSError`."""
    paths = cgroup_paths(Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii"))
    for mount in cgroup_mounts(Path("/proc/self/mountinfo").read_text(encoding="utf-8")):
        name = "memory" if "memory" in mount.controllers else ""
        if (name or not mount.controllers) and name in paths:
            procs = mount.folder(paths[name]) / "cgroup.procs"
            if procs.exists() and (name or "memory" not in paths):
                return procs
    raise FileNotFoundError(f"process {pid} has no group of its own")
