"""What goes wrong outside of containers, servers and engine: the same in every world whose model is scripted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import trio
from attrs import define, field

from opencode_actors.stress.ledger import Ledger
from opencode_actors.stress.once import Reached
from opencode_actors.stress.plan import PlannedFault
from opencode_actors.stress.receiver import MOODS, Receiver
from opencode_actors.stress.scenario import FaultKind
from opencode_actors.testing.provider_demo import demo_script
from opencode_actors.testing.provider_script import ChatRequest, Hang, Pause, Refuse, Step

# How long a container lives in a crash loop. Not less: it would be one that cannot work, and is not tried again.
LIVES = 0.5
LIVES_READY = 2.0

_EPOCH = 1_760_000_000.0
_STATUS = {FaultKind.PROVIDER_401: 401, FaultKind.PROVIDER_429: 429, FaultKind.PROVIDER_500: 500}
PROVIDER = frozenset({*_STATUS, FaultKind.PROVIDER_SILENT, FaultKind.PROVIDER_SLOW})
OUTSIDE = PROVIDER | MOODS.keys()


@define
class Weather:
    """What holds for all servers: the time of day, and how the model's provider is, which waits `slow` seconds
    when it is slow. `wall` is one clock for this host and all containers, as it is in truth; `felt` counts the
    requests that each trouble of the provider met."""

    ahead: float = 0.0
    slow: float = 20.0
    provider: list[FaultKind] = field(factory=list[FaultKind])
    felt: Counter[FaultKind] = field(factory=Counter[FaultKind])
    reached: Reached = field(factory=Reached)
    ledger: Ledger = field(factory=Ledger)

    def wall(self) -> float:
        return _EPOCH + self.ahead + trio.current_time()

    def script(self, request: ChatRequest) -> Sequence[Step]:
        kind = self.provider[-1] if self.provider else None
        self.ledger.note(request, kind)
        if kind is not None:
            self.felt[kind] += 1
        if kind is FaultKind.PROVIDER_SILENT:
            return (Hang(),)
        if kind in _STATUS:
            return (Refuse(status=_STATUS[kind]),)
        self.reached.note(request)
        answer = demo_script(request)
        return answer if kind is None else (Pause(seconds=self.slow), *answer)


@define(eq=False)
class Outside:
    """The model's provider, and who is told of ends: `OUTSIDE` is what can be done to them."""

    weather: Weather
    receiver: Receiver

    def inflict(self, fault: PlannedFault) -> None:
        if fault.kind in PROVIDER:
            self.weather.provider.append(fault.kind)
        else:
            self.receiver.moods.append(MOODS[fault.kind])

    def relent(self, fault: PlannedFault) -> None:
        if fault.kind in PROVIDER:
            self.weather.provider.remove(fault.kind)
        else:
            self.receiver.moods.remove(MOODS[fault.kind])

    def felt(self, kind: FaultKind) -> int:
        """How often anybody felt it so far."""
        return self.weather.felt[kind] if kind in PROVIDER else self.receiver.troubled


@define(eq=False)
class Lasting:
    """The faults that are on. Of several that do the same to the same, only the last one's end is an end."""

    _on: dict[int, PlannedFault] = field(factory=dict[int, PlannedFault])

    def begin(self, fault: PlannedFault) -> None:
        self._on[fault.number] = fault

    def end(self, fault: PlannedFault, *, of_session: bool) -> bool:
        """Whether it is over now, for its session or for everybody."""
        self._on.pop(fault.number, None)
        return not any(
            other.kind is fault.kind and (not of_session or other.session == fault.session)
            for other in self._on.values()
        )
