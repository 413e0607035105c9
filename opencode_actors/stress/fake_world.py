"""A world of fakes: what a system finds in it, and how it begins, is cut off and leaves it."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from attrs import define, field

from opencode_actors.kernel.opening import open_system
from opencode_actors.kernel.system import System
from opencode_actors.machines.vocabulary import Leave
from opencode_actors.ports import Endpoint, OpenCodeServer, Webhook
from opencode_actors.settings import Settings
from opencode_actors.store.port import Store
from opencode_actors.stress.fake_faults import FakeFaults
from opencode_actors.stress.ledger import Ledger
from opencode_actors.stress.once import Reached
from opencode_actors.stress.plan import PlannedFault
from opencode_actors.stress.processes import resident
from opencode_actors.stress.receiver import Receiver
from opencode_actors.stress.scenario import FaultKind
from opencode_actors.stress.windows import Hit
from opencode_actors.stress.wire import Wire
from opencode_actors.stress.worlds import Live, embedded
from opencode_actors.testing.fake_container import Deed
from opencode_actors.workdirs import Directories

# Real servers end them with their parents, and would hide a system that does not ask for it. What begins at that moment
# nobody else could know of.
ENDS_CHILDREN = 1.0


@define(eq=False, kw_only=True)
class FakeWorld:
    """`open_store` gives each system its own access to what outlives it over the wire that it is given, and
    `webhook` its way to the receiver; `enter` lets clients in. `held_on` is what it did not let
    go of while it ran."""

    name: str
    settings: Settings
    faults: FakeFaults
    connect: Callable[[Endpoint], OpenCodeServer]
    open_store: Callable[[Wire], AbstractAsyncContextManager[Store]]
    directories: Directories | None
    webhook: Webhook
    rng: random.Random
    late: float = 0.001
    enter: Callable[[System], AbstractAsyncContextManager[Live]] | None = None
    unchecked: tuple[str, ...] = ()
    leave: Leave = Leave.ALL
    held_on: Sequence[str] = ()
    _wire: Wire = field(factory=Wire)
    _system: System | None = None

    @property
    def receiver(self) -> Receiver:
        return self.faults.outside.receiver

    @property
    def ledger(self) -> Ledger:
        return self.faults.outside.weather.ledger

    @property
    def reached(self) -> Reached:
        return self.faults.outside.weather.reached

    @property
    def asked(self) -> Sequence[Deed]:
        return self.faults.engine.asked

    @asynccontextmanager
    async def system(self) -> AsyncGenerator[Live]:
        wire = self._wire = Wire()
        # As `serve` ends with its two options; the first to be tried is chance.
        self.leave = self.rng.choice((Leave.NOTHING, Leave.ALL))
        async with (
            self.open_store(wire) as store,
            open_system(
                self.settings,
                engine=wire.over(self.faults.engine),
                connect=wire.connecting(self.connect),
                store=store,
                directories=self.directories,
                rng=random.Random(self.rng.getrandbits(64)),  # noqa: S311 - it has to be had again
                wall=self.faults.outside.weather.wall,
                notify=True,
                webhook=wire.over(self.webhook),
                leave=self.leave,
            ) as self._system,
        ):
            if self.enter is None:
                yield embedded(self._system)
                return
            async with self.enter(self._system) as live:
                yield live

    def kill(self) -> None:
        self._wire.cut(self._system)

    def can(self, kind: FaultKind) -> bool:  # noqa: ARG002 - all of them
        return True

    async def inflict(self, fault: PlannedFault) -> Hit | None:
        return await self.faults.inflict(fault)

    async def relent(self, fault: PlannedFault) -> bool:
        return await self.faults.relent(fault)

    def memory(self) -> int | None:
        return None if self.enter is None else resident(os.getpid())

    def working(self, session: str) -> Mapping[str, int | None]:
        return self.faults.working(session)

    async def at_rest(self, live: Live) -> tuple[str, ...]:  # noqa: ARG002 - as the protocol has it
        """This process is looked at when it is all over."""
        return ()

    async def left_over(self) -> tuple[str, ...]:
        engine, servers = self.faults.engine, self.faults.servers
        left = [f"container {found.name}" for found in engine.containers.values()]
        left += [f"the server at {server.url}" for server in servers.running()]
        if streams := engine.statistics().streams:
            left.append(f"{streams} streams of the engine's events")
        return (*left, *self.held_on)
