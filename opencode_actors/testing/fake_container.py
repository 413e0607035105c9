"""What stands in the fake engine: containers, as a test's world sees and changes them, and its other values."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import trio
from attrs import define, field, frozen

from opencode_actors.errors import EngineError, EngineUnavailable
from opencode_actors.ports import (
    Container,
    ContainerId,
    ContainerPhase,
    ContainerSpec,
    Death,
    EngineEvent,
    EngineInfo,
    EngineKind,
    Process,
)

FAKE_INFO = EngineInfo(
    kind=EngineKind.FAKE,
    version="1",
    api_version="1.41",
    rootless=False,
    cgroup_version=2,
    runtime="none",
    storage_driver="none",
    selinux=False,
    apparmor=False,
    memory_enforced=True,
    cpu_enforced=True,
    pids_enforced=True,
)


@frozen(kw_only=True)
class FakeEngineStatistics:
    containers: int
    running: int
    streams: int
    calls: Mapping[str, int]


@define(eq=False)
class EngineTrouble:
    """Something that is wrong with an engine, until it is `over`; `met` counts the calls that it was done to."""

    error: EngineError | None = None
    times: int = 0
    seconds: float = 0.0
    lies: bool = False
    met: int = 0
    over: bool = False


@frozen(kw_only=True)
class Deed:
    """How the engine was asked to end whom, and for how long that one had been running; None when it was not."""

    at: float
    verb: str
    whom: str
    ran: float | None = None


@define(eq=False)
class FakeRun:
    """One run of a container, from a start to its death."""

    pid: int
    port: int | None
    since: float = field(factory=trio.current_time)
    death: Death | None = None
    ended: trio.Event = field(factory=trio.Event, repr=False)


@define(eq=False)
class FakeContainer:
    """What stands in the fake engine. A world's hooks may set what says "settable"."""

    id: ContainerId
    spec: ContainerSpec
    phase: ContainerPhase = ContainerPhase.CREATED
    run: FakeRun | None = None
    frozen: bool = False  # settable: it runs and does nothing, SIGTERM included; the engine cannot tell
    ignores_sigterm: bool = False  # settable
    ignored: int = 0  # how often it did
    sigterm_exit_code: int = 143  # settable
    sigterm_takes: float = 0.0  # settable: seconds from SIGTERM to its end
    memory_bytes: int = 250 << 20  # settable
    pids: int = 9  # settable
    oom_kills: int = 0  # settable
    log: str = ""  # settable: what it wrote to stdout and stderr
    daemons: list[Process] = field(factory=list[Process])  # settable; see `spawn`
    _cpu_load: float = 0.0
    _cpu_seconds: float = 0.0
    _cpu_since: float = 0.0

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def port(self) -> int | None:
        return self.run.port if self.run is not None and self.is_alive else None

    @property
    def is_alive(self) -> bool:
        return self.phase in (ContainerPhase.RUNNING, ContainerPhase.PAUSED)

    def set_cpu_load(self, load: float) -> None:
        """From now on it uses `load` CPUs; to be called inside trio, whose clock it reads."""
        self._cpu_seconds = self.cpu_seconds()
        self._cpu_since = trio.current_time()
        self._cpu_load = load

    def settle_cpu(self) -> None:
        """Before anything that changes whether it burns CPU."""
        self.set_cpu_load(self._cpu_load)

    def cpu_seconds(self) -> float:
        busy = self.phase is ContainerPhase.RUNNING and not self.frozen and self._cpu_load > 0
        return self._cpu_seconds + (self._cpu_load * (trio.current_time() - self._cpu_since) if busy else 0.0)

    def spawn(self, name: str) -> Process:
        """Something that lives in it beside its server, in a process session of its own."""
        pid = 200_000 + len(self.daemons)
        daemon = Process(pid=pid, started=pid, session=pid, name=name)
        self.daemons.append(daemon)
        return daemon

    def processes(self) -> tuple[Process, ...]:
        """Its init and its server, which have one session, and what was spawned."""
        if self.run is None or not self.is_alive:
            return ()
        first = self.run.pid
        init = Process(pid=first, started=first, session=first, name="init")
        server = Process(pid=first + 1, started=first, session=first, name="opencode")
        return (init, server, *self.daemons)

    def carries(self, labels: Mapping[str, str]) -> bool:
        return all(self.spec.labels.get(name) == value for name, value in labels.items())

    def snapshot(self) -> Container:
        return Container(
            id=self.id,
            name=self.name,
            image=self.spec.image,
            labels=dict(self.spec.labels),
            phase=self.phase,
            pid=self.run.pid if self.run is not None and self.is_alive else 0,
            port=self.port,
            exit_code=self._exit_code(),
        )

    def _exit_code(self) -> int | None:
        if self.phase is not ContainerPhase.EXITED or self.run is None or self.run.death is None:
            return None
        return self.run.death.exit_code


@define
class FakeEventStream:
    _receive: trio.MemoryReceiveChannel[EngineEvent]

    def __aiter__(self) -> AsyncIterator[EngineEvent]:
        return self

    async def __anext__(self) -> EngineEvent:
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            raise EngineUnavailable("The fake engine ended the event stream") from None
