"""Whether a session that could work does: it is ready, runs nothing, and somebody waits in it."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, field

from opencode_actors.stress.earshot import Earshot
from opencode_actors.stress.scenario import FaultKind
from opencode_actors.stress.windows import Excuse, Hit, excused, overlapping

# A service that has just begun looks first at what an earlier one left.
_AROUND = 10.0
# After the clock was set back a session tells its conversation anew before its next turn, or waits for the clock.
_CATCHES_UP = 15.0
_DISTURB = frozenset({FaultKind.SERVICE_KILLED, FaultKind.SERVICE_ENDED})


@define(eq=False)
class Starving:
    """Looked at whenever something was told of a session: a wait ends with a notice, or never."""

    earshot: Earshot
    hits: Sequence[Hit]
    _since: dict[str, float] = field(factory=dict[str, float])

    def looked(self, session: str, now: float, *, idle: bool) -> str | None:
        """What is wrong with how long it has been `idle`, where that is over."""
        if idle:
            self._since.setdefault(session, now)
            return None
        since = self._since.pop(session, now)
        waited, slack = now - since, self.earshot.tolerance.slack
        if any(hit.kind is FaultKind.CLOCK_STEP and hit.at <= now for hit in self.hits):
            slack += _CATCHES_UP
        if waited <= slack or now <= self.earshot.whole_at or since <= self.earshot.whole_at:
            return None
        if excused(Excuse.WRITTEN_LATE, self.hits, since, now):
            return None
        if overlapping(self.hits, _DISTURB, since - _AROUND, now):
            return None
        return f"the session was ready and ran nothing, and its jobs waited for {waited:.1f} s"
