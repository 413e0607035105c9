"""The real world: containers of a real engine, the real OpenCode in the project's image, a service in a process of
its own that is killed with SIGKILL. Only the model is scripted.

Podman's service is one of this run's own, so that it can die without anybody else's containers noticing. What
the world has no real means for, such as a lying engine or doubled events, it cannot make, and says so.
"""

from __future__ import annotations

import itertools
import shutil
import sqlite3
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from pathlib import Path

import trio
from attrs import define, evolve, field

from opencode_actors.adapters.engine import open_engine
from opencode_actors.adapters.engine_service import PodmanService
from opencode_actors.containers import OWNER_LABEL
from opencode_actors.errors import EngineError
from opencode_actors.machines.vocabulary import Leave
from opencode_actors.ports import Engine
from opencode_actors.settings import Settings
from opencode_actors.stress.ledger import Ledger
from opencode_actors.stress.once import Reached
from opencode_actors.stress.plan import Plan, PlannedFault
from opencode_actors.stress.processes import end_monitors, living, resident
from opencode_actors.stress.real_faults import RealFaults
from opencode_actors.stress.receiver import Receiver, serve_receiver
from opencode_actors.stress.report import Progress, Report
from opencode_actors.stress.run import run_plan
from opencode_actors.stress.scenario import FaultKind
from opencode_actors.stress.served_process import Home, ServedProcess, open_process
from opencode_actors.stress.weather import Outside, Weather
from opencode_actors.stress.windows import Hit
from opencode_actors.stress.worlds import Live
from opencode_actors.testing.provider import MODEL, open_provider

_SLOW_PROVIDER = 3.0
_TOKEN = "no-secret-of-anybody"  # noqa: S105 - for a receiver on loopback
_LETS_GO_WITHIN = 20.0
_REMOVED_WITHIN = 60.0
_LOOK_EVERY = 0.25
# As `serve` ends with its two options.
_LEAVES = (Leave.NOTHING, Leave.ALL)
# Beside one socket for each client: those that the service keeps to its engine.
_TO_THE_ENGINE = 8


def run_real(plan: Plan, *, settings: Settings, watch: Callable[[Progress], None] = lambda _: None) -> Report:
    """`settings` say which engine and image. Raises `EngineError` when one of them is not there."""
    return trio.run(_run, plan, settings, watch)


async def _run(plan: Plan, settings: Settings, watch: Callable[[Progress], None]) -> Report:
    async with _open_world(plan, settings) as world:
        return await run_plan(world, plan, watch=watch)


@asynccontextmanager
async def _open_world(plan: Plan, given: Settings) -> AsyncGenerator[RealWorld]:
    weather, receiver = Weather(slow=_SLOW_PROVIDER), Receiver(_TOKEN)
    # A unix socket's path has 107 bytes at most, and a container's user has to get to the provider's.
    base = Path(tempfile.mkdtemp(prefix="oa-stress-", dir="/tmp"))
    await trio.Path(base).chmod(0o755)
    try:
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            own_engine = None
            if given.runtime == "podman" and not given.engine_socket:
                own_engine = await enter(_own_podman(base / "engine"))
                given = evolve(given, engine_socket=str(own_engine.socket))
            engine = await enter(open_engine(runtime=given.runtime, socket=given.engine_socket))
            await engine.image(given.image)
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            provider = base / "provider" / "provider.sock"
            provider.parent.mkdir(mode=0o755)
            await enter(open_provider(unix_socket=provider, script=weather.script))
            nursery = await enter(trio.open_nursery())
            nursery.start_soon(serve_receiver, receiver, listener)
            settings = evolve(
                given,
                model=MODEL,
                agent="",
                sessions_dir=base / "sessions",
                workspaces_dir=base / "workspaces",
                door_host="127.0.0.1",
                door_port=0,
                notify_webhook_url=f"http://127.0.0.1:{listener.socket.getsockname()[1]}/hooks/agent",
                hooks_token=_TOKEN,
                notify_timeout=5.0,
            )
            home = Home(base=base, settings=plan.scenario.settings_over(settings), provider=provider)
            home.prepare()
            info = await engine.info()
            faults = RealFaults(engine, info, Outside(weather, receiver), own_engine, nursery)
            world = RealWorld(home, engine, faults, itertools.cycle(_LEAVES[plan.seed % 2 :] + _LEAVES))
            try:
                yield world
            finally:
                nursery.cancel_scope.cancel()
                with trio.CancelScope(shield=True, deadline=trio.current_time() + _REMOVED_WITHIN):
                    await world.remove_containers()
    finally:
        shutil.rmtree(base, ignore_errors=True)


@asynccontextmanager
async def _own_podman(folder: Path) -> AsyncGenerator[PodmanService]:
    service = PodmanService(folder, idle_seconds=0)
    await service.ensure()
    try:
        yield service
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _LETS_GO_WITHIN):
            await service.release()


@define(eq=False)
class RealWorld:
    home: Home
    engine: Engine
    faults: RealFaults
    leaves: Iterator[Leave]
    name: str = "real"
    late: float = 0.3
    asked: None = None
    unchecked: tuple[str, ...] = ("that each rung which is told is tried",)
    leave: Leave = Leave.ALL
    _served: ServedProcess | None = None
    _ended_badly: list[str] = field(factory=list[str])

    @property
    def ledger(self) -> Ledger:
        return self.faults.outside.weather.ledger

    @property
    def settings(self) -> Settings:
        return self.home.settings

    @property
    def receiver(self) -> Receiver:
        return self.faults.outside.receiver

    @property
    def reached(self) -> Reached:
        return self.faults.outside.weather.reached

    @asynccontextmanager
    async def system(self) -> AsyncGenerator[Live]:
        self.leave = next(self.leaves)
        async with open_process(self.home, self.leave, self._ended_badly) as (self._served, live):
            self.faults.owner = _owner(self.settings.sessions_dir)
            self.faults.service = self._served.pid
            try:
                yield live
            finally:
                if not self._served.killed:  # or it would wait for an engine that is stopped
                    self.faults.relent_all()

    def kill(self) -> None:
        if self._served is not None:
            self._served.kill()

    def can(self, kind: FaultKind) -> bool:
        return self.faults.can(kind)

    async def inflict(self, fault: PlannedFault) -> Hit | None:
        try:
            return await self.faults.inflict(fault)
        except (EngineError, OSError):
            return None  # the engine is away, or what was to be hit has just gone by itself

    async def relent(self, fault: PlannedFault) -> bool:
        return await self.faults.relent(fault)

    async def remove_containers(self) -> None:
        """A run may be broken off at any moment, also when its service is down and its containers are not."""
        self.faults.relent_all()
        if not self.faults.owner:
            return  # no service of this run has listened, so none has made a container
        with suppress(EngineError):
            if self.faults.own_engine is not None:
                await self.faults.own_engine.ensure()
            for left in await self.engine.list({OWNER_LABEL: self.faults.owner}):
                await self.engine.remove(left.id)

    def memory(self) -> int | None:
        try:
            return None if self._served is None else resident(self._served.pid)
        except OSError:
            return None

    def working(self, session: str) -> Mapping[str, int | None]:  # noqa: ARG002 - as the protocol has it
        return {}

    async def at_rest(self, live: Live) -> tuple[str, ...]:
        """Its sessions have ended, so that it has let go of all that they needed."""
        served, more = self._served, ""
        if served is None:
            return ()
        with trio.move_on_after(_LETS_GO_WITHIN):
            await trio.lowlevel.checkpoint()
            while more := served.holds_more(live.connections() + _TO_THE_ENGINE):  # noqa: ASYNC110 - nothing tells
                await trio.sleep(_LOOK_EVERY)
        return (f"the service still holds {more}",) if more else ()

    async def left_over(self) -> tuple[str, ...]:
        left = list(self._ended_badly)
        owner = self.faults.owner
        found = await self.engine.list({OWNER_LABEL: owner})
        left += [f"container {one.name}" for one in found]
        await self._until_they_have_ended(owner)
        if self.faults.engine_killed and not found:
            end_monitors(f"opencode-actors-{owner}")
            await self._until_they_have_ended(owner)
        left += [f"process {line}" for line in self._processes(owner)]
        left += [f"file {path}" for path in self.home.temporary.iterdir()]
        if (self.settings.sessions_dir / "door.json").exists():
            left.append("file door.json, of a door that is closed")
        if self.home.crashes.is_dir():
            left += [f"a bug: {path.read_text()[-2000:]}" for path in self.home.crashes.iterdir()]
        return tuple(left)

    async def _until_they_have_ended(self, owner: str) -> None:
        with trio.move_on_after(_LETS_GO_WITHIN):
            await trio.lowlevel.checkpoint()
            while self._processes(owner):  # noqa: ASYNC110 - conmon ends a moment after its container
                await trio.sleep(_LOOK_EVERY)

    def _processes(self, owner: str) -> tuple[str, ...]:
        """Of its containers, and with its folder in their command lines; the engine's own service is ours."""
        of_containers = living(f"opencode-actors-{owner}")
        others = (line for line in living(str(self.home.base)) if "system service" not in line)
        return (*of_containers, *others)


def _owner(sessions_dir: Path) -> str:
    with closing(sqlite3.connect(f"file:{sessions_dir / 'journal.sqlite'}?mode=ro", uri=True)) as database:
        found: tuple[str] = database.execute("SELECT value FROM about WHERE name = 'owner'").fetchone()
    return found[0]
