"""What can be done to fake containers, their servers, their engine and the disk, and whether anybody felt it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import trio
from attrs import define, field

from opencode_actors.errors import ContainerMissing, EngineRefused
from opencode_actors.machines.names import directory_name, session_key
from opencode_actors.stress.plan import PlannedFault
from opencode_actors.stress.scenario import FaultKind
from opencode_actors.stress.weather import LIVES, LIVES_READY, OUTSIDE, Lasting, Outside
from opencode_actors.stress.windows import Hit
from opencode_actors.testing.fake_container import EngineTrouble, FakeContainer
from opencode_actors.testing.fake_engine import FakeEngine, Verb
from opencode_actors.testing.fake_opencode import FakeServers
from opencode_actors.testing.fake_server import FakeServer

_SLOW_CALLS = 2.0
_SLOW_WRITES = 0.5
_SLOW_ENGINE = 20.0
_HALF = 0.5
_EXIT_CODES = (1, 134, 139)
_LIES: Sequence[Literal["stop", "kill", "remove"]] = ("stop", "kill", "remove")
_REFUSALS: Sequence[Verb] = ("create", "start", "stop", "remove")


class Disk(Protocol):
    """What can be done to a store. It takes `slow` seconds until something is written, and `late` more until it
    says so; `felt` counts the writes that found it full or slow."""

    full: bool
    slow: float
    late: float
    felt: Counter[str]


@define(eq=False, kw_only=True)
class FakeFaults:
    """`loses_for` is how many seconds a call may wait for an answer that is lost."""

    engine: FakeEngine
    servers: FakeServers
    disk: Disk
    outside: Outside
    owner: str
    nursery: trio.Nursery
    largest_step: float
    loses_for: float
    _lasting: Lasting = field(factory=Lasting)
    _troubles: dict[int, list[EngineTrouble]] = field(factory=dict[int, list[EngineTrouble]])
    _counts: dict[int, Callable[[], int]] = field(factory=dict[int, Callable[[], int]])
    _looping: Counter[str] = field(factory=Counter[str])
    _lives: dict[str, float] = field(factory=dict[str, float])
    _stubborn: dict[str, list[FakeContainer]] = field(factory=dict[str, list[FakeContainer]])
    _doomed: Counter[str] = field(factory=Counter[str])

    # ---- its containers

    def on_start(self, container: FakeContainer) -> None:
        """For the engine."""
        self.servers.on_start(container)
        if container.name in self._stubborn:
            container.ignores_sigterm = True
            self._stubborn[container.name].append(container)
        if self._looping[container.name]:
            self._doomed[container.name] += 1  # also when the fault is over by then
            self.nursery.start_soon(self._die_soon, container)

    async def _die_soon(self, container: FakeContainer) -> None:
        run = container.run
        await trio.sleep(self._lives[container.name])
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

    def working(self, session: str) -> dict[str, int | None]:
        """What works in its container, and of which job that is known to be."""
        container, server = self._running(session), self._server(session)
        if container is None:
            return {}
        stays = {one.name: int(one.name.rpartition("job-")[2]) for one in container.daemons}
        return {**stays, **dict.fromkeys(() if server is None else server.works)}

    # ---- from its begin to its end

    async def inflict(self, fault: PlannedFault) -> Hit | None:
        """None when there was nothing to be hit."""
        await trio.lowlevel.checkpoint()
        hit = self._hit(fault)
        if hit is not None:
            self._lasting.begin(fault)
        return hit

    async def relent(self, fault: PlannedFault) -> bool:
        """Whether anybody had felt it."""
        await trio.lowlevel.checkpoint()
        count = self._counts.pop(fault.number, None)
        for trouble in self._troubles.pop(fault.number, ()):
            trouble.over = True
        if fault.kind in OUTSIDE:
            self.outside.relent(fault)
        elif fault.kind is FaultKind.JOURNAL_SLOW:
            self._slow_down(-_SLOW_WRITES)
        elif self._lasting.end(fault, of_session=fault.kind in _OF_SESSIONS):
            self._heal(fault)
        return count is None or count() > 0

    def _counted(self, fault: PlannedFault, count: Callable[[], int]) -> None:
        """What says, from now on, how often it is felt. What has no such count is felt in any case."""
        before = count()
        self._counts[fault.number] = lambda: count() - before

    # ---- begins

    def _hit(self, fault: PlannedFault) -> Hit | None:
        if fault.kind in OUTSIDE:
            self.outside.inflict(fault)
            self._counted(fault, lambda: self.outside.felt(fault.kind))
            return Hit.of_everybody(fault)
        if fault.kind in _OF_CONTAINERS:
            return self._hit_container(fault)
        if fault.kind in _OF_SERVERS:
            server = self._server(fault.session)
            return None if server is None else self._hit_server(fault, server)
        match fault.kind:
            case FaultKind.CLOCK_STEP:
                self.outside.weather.ahead += (2 * fault.roll - 1) * self.largest_step
            case FaultKind.DISK_FULL:
                self.disk.full = True
                self._counted(fault, lambda: self.disk.felt["full"])
            case FaultKind.JOURNAL_SLOW:
                self._slow_down(_SLOW_WRITES)
                self._counted(fault, lambda: self.disk.felt["slow"])
            case FaultKind.SERVICE_KILLED | FaultKind.SERVICE_ENDED:
                pass
            case FaultKind.ENGINE_AWAY:
                self.engine.go_away()
            case _:
                troubles = self._troubles[fault.number] = self._trouble_engine(fault)
                self._counted(fault, lambda: sum(trouble.met for trouble in troubles))
        return Hit.of_everybody(fault)

    def _slow_down(self, seconds: float) -> None:
        """Half of it after the writing, so that a service may be killed between that and the word that it is done."""
        self.disk.slow += seconds / 2
        self.disk.late += seconds / 2

    def _trouble_engine(self, fault: PlannedFault) -> list[EngineTrouble]:
        match fault.kind:
            case FaultKind.ENGINE_LIES:
                return [self.engine.lie(lie) for lie in _LIES[: 1 + int(fault.roll * len(_LIES))]]
            case FaultKind.ENGINE_REFUSES:
                verb = _REFUSALS[int(fault.roll * len(_REFUSALS))]
                error = EngineRefused("the engine is in a bad mood", status=500)
                return [self.engine.refuse(verb, error, times=2)]
            case FaultKind.ENGINE_SLOW:
                return [self.engine.delay("start", _SLOW_ENGINE)]
            case _:
                raise AssertionError(f"nobody inflicts {fault.kind.value}")

    def _hit_container(self, fault: PlannedFault) -> Hit | None:
        name, container = self._container_name(fault.session), self._running(fault.session)
        if fault.kind is FaultKind.CRASH_LOOP:
            self._looping[name] += 1
            # Half of them get ready each time, and work for a moment.
            self._lives[name] = LIVES if fault.roll < _HALF else LIVES_READY
            self._counted(fault, lambda: self._doomed[name])
            if container is None:
                return Hit.of_session(fault, exit_code=1)
            self._doomed[name] += 1
            self.engine.crash(container.id, exit_code=1)
            return Hit.of_session(fault, exit_code=1)
        if container is None:
            return None
        match fault.kind:
            case FaultKind.IGNORES_SIGTERM:
                stubborn = self._stubborn.setdefault(name, [])
                stubborn.append(container)
                container.ignores_sigterm = True
                self._counted(fault, lambda: sum(one.ignored for one in stubborn))
                return Hit.of_session(fault)
            case FaultKind.CONTAINER_REMOVED:
                self.engine.take_away(container.id)
                return Hit.of_session(fault, lasts=0.0)
            case FaultKind.CONTAINER_OOM:
                self.engine.crash(container.id, oom=True)
                return Hit.of_session(fault, lasts=0.0, exit_code=137)
            case _:
                code = _EXIT_CODES[int(fault.roll * len(_EXIT_CODES))]
                self.engine.crash(container.id, exit_code=code)
                return Hit.of_session(fault, lasts=0.0, exit_code=code)

    def _hit_server(self, fault: PlannedFault, server: FakeServer) -> Hit | None:
        match fault.kind:
            case FaultKind.SERVER_FROZEN:
                server.freeze()
                self.engine.freeze(self._container_name(fault.session))
            case FaultKind.SERVER_SLOW:
                server.answers_after = _SLOW_CALLS
                self._counted(fault, lambda: server.felt["slow"])
            case FaultKind.ANSWERS_LOST:
                # Half of them at once: the call breaks before anything else is heard of what it did.
                server.loses_answers = self.loses_for * max(0.0, 2 * fault.roll - 1)
                self._counted(fault, lambda: server.felt["lost"])
            case FaultKind.STREAM_DROPPED | FaultKind.STREAM_TRUNCATED:
                if not server.statistics()["streams"]:
                    return None
                dropped = fault.kind is FaultKind.STREAM_DROPPED
                server.drop_streams(for_seconds=fault.lasts if dropped else 0.0, losing=not dropped)
                return Hit.of_session(fault, lasts=None if dropped else 0.0)
            case FaultKind.EVENTS_DUPLICATED:
                server.garbles.twice = True
                self._counted(fault, lambda: server.garbles.felt["twice"])
            case _:
                server.garbles.late = True
                self._counted(fault, lambda: server.garbles.felt["late"])
        return Hit.of_session(fault)

    # ---- ends

    def _heal(self, fault: PlannedFault) -> None:
        name = self._container_name(fault.session)
        match fault.kind:
            case FaultKind.CRASH_LOOP:
                self._looping[name] = 0
            case FaultKind.IGNORES_SIGTERM:
                for container in self._stubborn.pop(name, ()):
                    container.ignores_sigterm = False
            case FaultKind.ENGINE_AWAY:
                self.engine.come_back()
            case FaultKind.DISK_FULL:
                self.disk.full = False
            case _:
                self._heal_server(fault)

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
            case FaultKind.ANSWERS_LOST:
                server.loses_answers = None
            case FaultKind.EVENTS_DUPLICATED:
                server.garbles.twice = False
            case FaultKind.EVENTS_REORDERED:
                server.garbles.late = False
            case _:
                pass


_OF_CONTAINERS = frozenset(
    {FaultKind.CONTAINER_CRASH, FaultKind.CONTAINER_OOM, FaultKind.CONTAINER_REMOVED, FaultKind.CRASH_LOOP,
     FaultKind.IGNORES_SIGTERM}
)  # fmt: skip
_OF_SERVERS = frozenset(
    {FaultKind.SERVER_FROZEN, FaultKind.SERVER_SLOW, FaultKind.ANSWERS_LOST, FaultKind.STREAM_DROPPED,
     FaultKind.STREAM_TRUNCATED, FaultKind.EVENTS_DUPLICATED, FaultKind.EVENTS_REORDERED}
)  # fmt: skip
_OF_SESSIONS = _OF_CONTAINERS | _OF_SERVERS
