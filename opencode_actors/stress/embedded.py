"""The world of a caller's own systems: what is theirs is not known but for what the caller tells."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager

import trio
from attrs import define, field

from opencode_actors.kernel.system import System
from opencode_actors.machines.vocabulary import Leave
from opencode_actors.settings import Settings
from opencode_actors.stress.ledger import Ledger
from opencode_actors.stress.once import Reached
from opencode_actors.stress.plan import PlannedFault
from opencode_actors.stress.receiver import Receiver
from opencode_actors.stress.scenario import FaultKind
from opencode_actors.stress.weather import PROVIDER, Weather
from opencode_actors.stress.windows import Hit
from opencode_actors.stress.wire import Wire
from opencode_actors.stress.worlds import BY_CLIENTS, Live, SystemFactory, embedded

LeftOver = Callable[[], Awaitable[Iterable[str]]]


@define(eq=False, kw_only=True)
class EmbeddedWorld:
    """Its clients can be bad; it can be killed if it reaches whatever it works with over the wire that it is given;
    and the provider can be bad if `weather` is what its model's script comes from."""

    settings: Settings
    factory: SystemFactory
    weather: Weather | None = None
    look_left_over: LeftOver | None = None
    name: str = "embedded"
    receiver: Receiver | None = None
    late: float = 0.3
    leave: Leave | None = None
    asked: None = None
    _felt_before: dict[int, int] = field(factory=dict[int, int], init=False)
    _wire: Wire = field(factory=Wire, init=False)
    _system: System | None = field(default=None, init=False)

    @property
    def ledger(self) -> Ledger | None:
        return None if self.weather is None else self.weather.ledger

    @property
    def reached(self) -> Reached | None:
        return None if self.weather is None else self.weather.reached

    @property
    def unchecked(self) -> tuple[str, ...]:
        rules = [
            "one announcement for each job",
            "an end ends the work",
            "that each rung which is told is tried",
        ]
        if self.weather is None:
            rules += ["each prompt reaches the model once", "the true cause, where it is the provider"]
        if self.look_left_over is None:
            rules.append("nothing is left, but for what the system itself knows of")
        return tuple(rules)

    @asynccontextmanager
    async def system(self) -> AsyncGenerator[Live]:
        wire = self._wire = Wire()
        async with self.factory(wire) as self._system:
            yield embedded(self._system)

    def kill(self) -> None:
        self._wire.cut(self._system)

    def can(self, kind: FaultKind) -> bool:
        if kind in (FaultKind.SERVICE_KILLED, FaultKind.SERVICE_ENDED):
            return self._wire.is_in_use
        return kind in BY_CLIENTS or (kind in PROVIDER and self.weather is not None)

    async def inflict(self, fault: PlannedFault) -> Hit | None:
        await trio.lowlevel.checkpoint()
        if fault.kind in PROVIDER and self.weather is not None:
            self._felt_before[fault.number] = self.weather.felt[fault.kind]
            self.weather.provider.append(fault.kind)
        return Hit.of_everybody(fault)

    async def relent(self, fault: PlannedFault) -> bool:
        """A service that was killed or ended is begun again by the run."""
        await trio.lowlevel.checkpoint()
        if fault.kind not in PROVIDER or self.weather is None:
            return True
        self.weather.provider.remove(fault.kind)
        return self.weather.felt[fault.kind] > self._felt_before.pop(fault.number)

    def memory(self) -> int | None:
        return None

    def working(self, session: str) -> Mapping[str, int | None]:  # noqa: ARG002 - as the protocol has it
        return {}

    async def at_rest(self, live: Live) -> tuple[str, ...]:  # noqa: ARG002 - as the protocol has it
        return ()

    async def left_over(self) -> tuple[str, ...]:
        return () if self.look_left_over is None else tuple(await self.look_left_over())
