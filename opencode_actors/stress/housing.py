"""What sessions may have of containers: so many at one time, each for so long without work, and with a server that gets
ready within its time and is found when it is frozen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attrs import define, field

from opencode_actors.machines.vocabulary import SessionStatus
from opencode_actors.settings import Settings
from opencode_actors.stress.earshot import Earshot
from opencode_actors.stress.scenario import FaultKind
from opencode_actors.stress.truth import Word
from opencode_actors.stress.windows import SERVICE_GOES, Excuse, Hit, excused, overlapping

_HOUSED = frozenset(
    {
        SessionStatus.CREATING,
        SessionStatus.STARTING,
        SessionStatus.READY,
        SessionStatus.UNREADY,
        SessionStatus.STOPPING,
    }
)
_SERVES = frozenset({SessionStatus.READY, SessionStatus.UNREADY})
# A stream that brings nothing for 15 s is opened anew, and three probes of 2 s, with as much between them, find that
# nobody answers.
_FROZEN_FOR = 30.0
_HINDERS = frozenset({FaultKind.ENGINE_AWAY, FaultKind.ENGINE_SLOW, FaultKind.SERVER_FROZEN, *SERVICE_GOES})


@define(eq=False)
class Housing:
    """A service that begins knows nothing of what was told by the one before it: `begun_anew`."""

    settings: Settings
    earshot: Earshot
    hits: Sequence[Hit]
    _status: dict[str, SessionStatus] = field(factory=dict[str, SessionStatus])
    _since: dict[str, float] = field(factory=dict[str, float])
    _unused: dict[str, float] = field(factory=dict[str, float])

    def begun_anew(self) -> None:
        for known in (self._status, self._since, self._unused):
            known.clear()

    def changed(self, session: str, status: SessionStatus, now: float) -> str | None:
        """What is wrong with this change, if anything."""
        before, since = self._status.get(session), self._since.get(session, now)
        self._status[session] = status
        if status is not before:
            self._since[session] = now
        housed = sum(one in _HOUSED for one in self._status.values())
        if housed > self.settings.max_sessions:
            return f"{housed} sessions have containers, and maxSessions is {self.settings.max_sessions}"
        took, bound = now - since, self.settings.server_ready_timeout
        late = before is SessionStatus.STARTING and took > bound + self.earshot.tolerance.slack
        if not late or excused(Excuse.WRITTEN_LATE, self.hits, since, now):
            return None
        return f"its server was waited for for {took:.1f} s, and serverReadyTimeout is {bound:g} s"

    def looked(self, session: str, now: float, *, used: bool) -> str | None:
        """Whenever something was told of the session, after that: what is wrong with how long nobody has `used` it."""
        if not used and self._status.get(session) in _SERVES:
            self._unused.setdefault(session, now)
            return None
        since, bound = self._unused.pop(session, now), self.settings.session_idle_timeout
        if now - since <= bound + self.earshot.tolerance.slack or since <= self.earshot.whole_at:
            return None
        if excused(Excuse.WRITTEN_LATE, self.hits, since + bound, now):
            return None
        return f"nobody used it for {now - since:.1f} s, and sessionIdleTimeout is {bound:g} s"

    def never_found(self, words: Sequence[Word], session: str) -> Iterator[str]:
        """Servers that were frozen for longer than it takes to find that."""
        within = _FROZEN_FOR + self.earshot.tolerance.slack
        for hit in self.hits:
            until = hit.at + within
            if hit.kind is not FaultKind.SERVER_FROZEN or hit.session != session or hit.until < until:
                continue
            others = [
                one for one in overlapping(self.hits, _HINDERS, hit.at - within, until) if one is not hit
            ]
            before = [word.status for word in words if word.at <= hit.at]
            if others or not before or before[-1] not in _SERVES:
                continue
            if all(word.status in _SERVES for word in words if hit.at < word.at <= until):
                yield f"its server was frozen for {hit.until - hit.at:.1f} s, and nobody found that"
