"""Signs of life of a running job into active, processing, waiting or idle.

Silence alone is not idleness: a tool that runs for ten minutes is work, and so is a child session for as long as the
server says that a tool of it runs; a question that nobody has answered is a wait for somebody else. A busy processor is
called processing, and is no proof of work: the server's garbage collector keeps it busy while the model has long fallen
silent.
"""

from __future__ import annotations

from attrs import evolve, frozen

from opencode_actors.machines.server_events import PartId
from opencode_actors.machines.vocabulary import ActivityState

# Output this fresh still counts as going on.
ACTIVE_FOR = 10.0
# Measured: 1.3 % of a core parked, 4.4 % with an instance and an event stream, 33 % and more at work; but
# also 44 to 95 %, for minutes, in a server that only waits for a provider that hangs.
BUSY_LOAD = 0.15
# A load that has not been measured again for this long says nothing any more.
LOAD_HOLDS_FOR = 15.0


@frozen(kw_only=True)
class Retrying:
    """The provider has failed since a time, so many times, for the last time of this."""

    since: float
    attempt: int
    reason: str


@frozen(kw_only=True)
class Activity:
    sign_at: float  # when output or progress was last seen
    cpu_load: float = 0.0
    load_at: float = 0.0
    tools: frozenset[PartId] = frozenset()
    delegating: frozenset[PartId] = frozenset()  # those of the tools that only wait for a child session
    waiting_for: frozenset[str] = frozenset()
    children: int = 0
    retrying: Retrying | None = None

    def progressed(self, now: float) -> Activity:
        return evolve(self, sign_at=now, retrying=None)

    def retried(self, attempt: int, reason: str, now: float) -> Activity:
        """No sign of life: a provider that fails for ever keeps no job alive."""
        since = now if self.retrying is None else self.retrying.since
        reason = reason or "it gives no reason"
        return evolve(self, retrying=Retrying(since=since, attempt=attempt, reason=reason))

    def loaded(self, cpu_load: float, now: float) -> Activity:
        """No sign of life."""
        return evolve(self, cpu_load=cpu_load, load_at=now)

    def state(self, now: float) -> ActivityState:
        if self.waiting_for:
            return ActivityState.WAITING
        if now - self.sign_at < ACTIVE_FOR:
            return ActivityState.ACTIVE
        busy = self.cpu_load >= BUSY_LOAD and now - self.load_at < LOAD_HOLDS_FOR
        return ActivityState.PROCESSING if busy or self._engaged else ActivityState.IDLE

    def idle_for(self, now: float) -> float:
        """How long there has been no work at all; 0 while there is some, or somebody is waited for."""
        return 0.0 if self.waiting_for or self._engaged else now - self.sign_at

    def delegated_for(self, now: float) -> float:
        """How long nothing was heard while nobody but child sessions is at work, if that; 0 otherwise. What they do
        only the server knows: the start of a tool may have been lost."""
        if self.waiting_for or self.tools - self.delegating or not self._engaged:
            return 0.0
        return now - self.sign_at

    @property
    def _engaged(self) -> bool:
        return bool(self.tools) or self.children > 0
