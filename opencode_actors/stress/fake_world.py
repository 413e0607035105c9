"""A world of fakes, and all that can be done to it."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Literal, Protocol

import trio
from attrs import define, field

from opencode_actors.errors import ContainerMissing, EngineRefused
from opencode_actors.kernel.opening import open_system
from opencode_actors.kernel.system import System
from opencode_actors.machines.names import directory_name, session_key
from opencode_actors.ports import Endpoint, OpenCodeServer, Webhook
from opencode_actors.settings import Settings
from opencode_actors.store.port import Store
from opencode_actors.stress.ledger import Ledger
from opencode_actors.stress.plan import PlannedFault
from opencode_actors.stress.processes import resident
from opencode_actors.stress.receiver import MOODS, Receiver
from opencode_actors.stress.scenario import FaultKind
from opencode_actors.stress.windows import Hit
from opencode_actors.stress.wire import Wire
from opencode_actors.stress.worlds import Live, embedded
from opencode_actors.testing.fake_container import FakeContainer
from opencode_actors.testing.fake_engine import FakeEngine, Verb
from opencode_actors.testing.fake_opencode import FakeServers
from opencode_actors.testing.fake_server import FakeServer
from opencode_actors.testing.provider_demo import demo_script
from opencode_actors.testing.provider_script import ChatRequest, Hang, Pause, Refuse, Step
from opencode_actors.workdirs import Directories

_EPOCH = 1_760_000_000.0
_SLOW_CALLS = 2.0
_SLOW_WRITES = 0.5
_SLOW_ENGINE = 20.0
_LIVES = 0.5  # in a crash loop
_EXIT_CODES = (1, 134, 139)
_LIES: Sequence[Literal["stop", "kill", "remove"]] = ("stop", "kill", "remove")
_REFUSALS: Sequence[Verb] = ("create", "start", "stop", "remove")
_STATUS = {FaultKind.PROVIDER_401: 401, FaultKind.PROVIDER_429: 429, FaultKind.PROVIDER_500: 500}


@define
class Weather:
    """What holds for all servers: the time of day, and how the model's provider is, which waits `slow` seconds
    when it is slow. `wall` is one clock for this host and all containers, as it is in truth."""

    ahead: float = 0.0
    slow: float = 20.0
    provider: list[FaultKind] = field(factory=list[FaultKind])
    ledger: Ledger = field(factory=Ledger)

    def wall(self) -> float:
        return _EPOCH + self.ahead + trio.current_time()

    def script(self, request: ChatRequest) -> Sequence[Step]:
        kind = self.provider[-1] if self.provider else None
        self.ledger.note(request, kind)
        if kind is None:
            return demo_script(request)
        if kind is FaultKind.PROVIDER_SLOW:
            return (Pause(seconds=self.slow), *demo_script(request))
        return (Hang(),) if kind is FaultKind.PROVIDER_SILENT else (Refuse(status=_STATUS[kind]),)


class Disk(Protocol):
    """What can be done to a store."""

    full: bool
    slow: float


@define(eq=False, kw_only=True)
class FakeWorld:
    """`open_store` gives each system its own access to what outlives it, which `disk` is the switches of, and
    `webhook` its way to the `receiver`; `enter` lets clients in."""

    name: str
    settings: Settings
    owner: str
    weather: Weather
    engine: FakeEngine
    servers: FakeServers
    connect: Callable[[Endpoint], OpenCodeServer]
    open_store: Callable[[], AbstractAsyncContextManager[Store]]
    disk: Disk
    directories: Directories | None
    receiver: Receiver
    webhook: Webhook
    rng: random.Random
    nursery: trio.Nursery
    largest_step: float = 3600.0
    late: float = 0.001
    enter: Callable[[System], AbstractAsyncContextManager[Live]] | None = None
    _wire: Wire = field(factory=Wire)
    _system: System | None = None
    _looping: set[str] = field(factory=set[str])
    _stubborn: set[str] = field(factory=set[str])

    @asynccontextmanager
    async def system(self) -> AsyncGenerator[Live]:
        wire = self._wire = Wire()
        async with (
            self.open_store() as store,
            open_system(
                self.settings,
                engine=wire.over(self.engine),
                connect=wire.connecting(self.connect),
                store=wire.over(store),
                directories=self.directories,
                rng=random.Random(self.rng.getrandbits(64)),  # noqa: S311 - it has to be had again
                wall=self.weather.wall,
                notify=True,
                webhook=wire.over(self.webhook),
            ) as self._system,
        ):
            if self.enter is None:
                yield embedded(self._system)
                return
            async with self.enter(self._system) as live:
                yield live

    @property
    def ledger(self) -> Ledger | None:
        return self.weather.ledger

    def kill(self) -> None:
        self._wire.cut(self._system)

    def can(self, kind: FaultKind) -> bool:  # noqa: ARG002 - all of them
        return True

    def memory(self) -> int | None:
        return None if self.enter is None else resident(os.getpid())

    async def at_rest(self, live: Live) -> tuple[str, ...]:  # noqa: ARG002 - as the protocol has it
        """This process is looked at when it is all over."""
        return ()

    async def left_over(self) -> tuple[str, ...]:
        statistics = self.engine.statistics()
        left = [f"container {found.name}" for found in self.engine.containers.values()]
        left += [f"the server at {server.url}" for server in self.servers.running()]
        if statistics.streams:
            left.append(f"{statistics.streams} streams of the engine's events")
        return tuple(left)

    # ---- its containers

    def on_start(self, container: FakeContainer) -> None:
        """For the engine."""
        self.servers.on_start(container)
        container.ignores_sigterm = container.name in self._stubborn
        if container.name in self._looping:
            self.nursery.start_soon(self._die_soon, container)

    async def _die_soon(self, container: FakeContainer) -> None:
        """Not at once: that would be a container that cannot work, and is not tried again."""
        run = container.run
        await trio.sleep(_LIVES)
        if container.run is run and container.is_alive:
            self.engine.crash(container.id, exit_code=1)

    def _container_name(self, session: str) -> str:
        return f"opencode-actors-{self.owner}-{directory_name(session_key(session))}"

    def _running(self, session: str) -> FakeContainer | None:
        try:
            found = self.engine.find(self._container_name(session))
        except ContainerMissing:
            return None
        return found if found.is_alive else None

    def _server(self, session: str) -> FakeServer | None:
        found = self._running(session)
        return None if found is None else self.servers.server(f"http://127.0.0.1:{found.port}")

    # ---- faults

    async def inflict(self, fault: PlannedFault) -> Hit | None:
        match fault.kind:
            case (
                FaultKind.CONTAINER_CRASH
                | FaultKind.CONTAINER_OOM
                | FaultKind.CONTAINER_REMOVED
                | FaultKind.CRASH_LOOP
                | FaultKind.IGNORES_SIGTERM
            ):
                return await self._hit_container(fault)
            case (
                FaultKind.SERVER_FROZEN
                | FaultKind.SERVER_SLOW
                | FaultKind.STREAM_DROPPED
                | FaultKind.STREAM_TRUNCATED
                | FaultKind.EVENTS_DUPLICATED
                | FaultKind.EVENTS_REORDERED
            ):
                server = self._server(fault.session)
                return None if server is None else self._hit_server(fault, server)
            case (
                FaultKind.PROVIDER_401
                | FaultKind.PROVIDER_429
                | FaultKind.PROVIDER_500
                | FaultKind.PROVIDER_SILENT
                | FaultKind.PROVIDER_SLOW
            ):
                self.weather.provider.append(fault.kind)
            case FaultKind.RECEIVER_REFUSES | FaultKind.RECEIVER_HANGS | FaultKind.RECEIVER_AWAY:
                self.receiver.moods.append(MOODS[fault.kind])
            case FaultKind.CLOCK_STEP:
                self.weather.ahead += (2 * fault.roll - 1) * self.largest_step
            case FaultKind.DISK_FULL:
                self.disk.full = True
            case FaultKind.JOURNAL_SLOW:
                self.disk.slow += _SLOW_WRITES
            case FaultKind.SERVICE_KILLED:
                pass
            case _:
                self._hit_engine(fault)
        return Hit.of_everybody(fault)

    async def relent(self, fault: PlannedFault) -> None:
        name = self._container_name(fault.session)
        match fault.kind:
            case FaultKind.CRASH_LOOP:
                self._looping.discard(name)
            case FaultKind.IGNORES_SIGTERM:
                self._stubborn.discard(name)
                if (found := self._running(fault.session)) is not None:
                    found.ignores_sigterm = False
            case FaultKind.ENGINE_AWAY:
                self.engine.come_back()
            case FaultKind.ENGINE_LIES | FaultKind.ENGINE_REFUSES | FaultKind.ENGINE_SLOW:
                self.engine.be_honest()
            case FaultKind.DISK_FULL:
                self.disk.full = False
            case FaultKind.JOURNAL_SLOW:
                self.disk.slow -= _SLOW_WRITES
            case _ if fault.kind in MOODS:
                self.receiver.moods.remove(MOODS[fault.kind])
            case _ if fault.kind in self.weather.provider:
                self.weather.provider.remove(fault.kind)
            case _:
                self._heal_server(fault)

    async def _hit_container(self, fault: PlannedFault) -> Hit | None:
        name, container = self._container_name(fault.session), self._running(fault.session)
        if fault.kind is FaultKind.CRASH_LOOP:
            self._looping.add(name)
        if container is None:
            return Hit.of_session(fault, exit_code=1) if fault.kind is FaultKind.CRASH_LOOP else None
        code = 1
        match fault.kind:
            case FaultKind.IGNORES_SIGTERM:
                self._stubborn.add(name)
                container.ignores_sigterm = True
                return Hit.of_session(fault)
            case FaultKind.CONTAINER_OOM:
                code = 137
                self.engine.crash(container.id, oom=True)
            case FaultKind.CONTAINER_REMOVED:
                self.engine.take_away(container.id)
                return Hit.of_session(fault, lasts=0.0)
            case _:
                if fault.kind is FaultKind.CONTAINER_CRASH:
                    code = _EXIT_CODES[int(fault.roll * len(_EXIT_CODES))]
                self.engine.crash(container.id, exit_code=code)
        lasts = fault.lasts if fault.kind is FaultKind.CRASH_LOOP else 0.0
        return Hit.of_session(fault, lasts=lasts, exit_code=code)

    def _hit_server(self, fault: PlannedFault, server: FakeServer) -> Hit:
        match fault.kind:
            case FaultKind.SERVER_FROZEN:
                server.freeze()
                self.engine.freeze(self._container_name(fault.session))
            case FaultKind.SERVER_SLOW:
                server.answers_after = _SLOW_CALLS
            case FaultKind.STREAM_DROPPED:
                server.drop_streams(for_seconds=fault.lasts)
            case FaultKind.STREAM_TRUNCATED:
                server.drop_streams(losing=True)
                return Hit.of_session(fault, lasts=0.0)
            case FaultKind.EVENTS_DUPLICATED:
                server.garbles.twice = True
            case _:
                server.garbles.late = True
        return Hit.of_session(fault)

    def _heal_server(self, fault: PlannedFault) -> None:
        server = self._server(fault.session)
        if server is None:
            return
        match fault.kind:
            case FaultKind.SERVER_FROZEN:
                server.thaw()
                self.engine.thaw(self._container_name(fault.session))
            case FaultKind.SERVER_SLOW:
                server.answers_after = 0.0
            case FaultKind.EVENTS_DUPLICATED:
                server.garbles.twice = False
            case FaultKind.EVENTS_REORDERED:
                server.garbles.late = False
            case _:
                pass

    def _hit_engine(self, fault: PlannedFault) -> None:
        match fault.kind:
            case FaultKind.ENGINE_AWAY:
                self.engine.go_away()
            case FaultKind.ENGINE_LIES:
                for lie in _LIES[: 1 + int(fault.roll * len(_LIES))]:
                    self.engine.lie(lie)
            case FaultKind.ENGINE_REFUSES:
                verb = _REFUSALS[int(fault.roll * len(_REFUSALS))]
                self.engine.refuse(verb, EngineRefused("the engine is in a bad mood", status=500), times=2)
            case FaultKind.ENGINE_SLOW:
                self.engine.delay("start", _SLOW_ENGINE)
            case _:
                raise AssertionError(f"nobody inflicts {fault.kind.value}")
