"""How often and how soon one session's container may be started again."""

from __future__ import annotations

from attrs import define, field

from opencode_actors.machines.vocabulary import SessionStatus
from opencode_actors.settings import Settings

_AWAY = (SessionStatus.ABSENT, SessionStatus.GIVEN_UP, SessionStatus.QUARANTINED)


@define(eq=False)
class Restarts:
    """`late` is by how much one notice may be heard later than another; `took` is how long the last change says that a restart took, from the crash to a server that is ready."""

    settings: Settings
    late: float
    took: float | None = None
    _status: SessionStatus = SessionStatus.ABSENT
    _crashed: list[float] = field(factory=list[float])
    _stopping_at: float = 0.0
    _backed_off_at: float = 0.0
    _fruitless: int = 0
    _lost_at: float | None = None

    def changed(self, status: SessionStatus, now: float) -> str | None:
        """What is wrong with this change, if anything."""
        before, self._status, self.took = self._status, status, None
        if status is SessionStatus.STOPPING and before is not status:
            self._stopping_at = now
        elif status is SessionStatus.BACKING_OFF:
            self._lost_at = now if self._lost_at is None else self._lost_at
            self._backed_off_at = now
            self._crashed.append(self._stopping_at)
            period = self.settings.restart_period
            recent = [at for at in self._crashed if self._stopping_at - at < period]
            if len(recent) > self.settings.max_restarts:
                return f"restart {len(recent)} within {period:g} s"
        elif status is SessionStatus.CREATING:
            self._fruitless += 1
            if self._fruitless > self.settings.max_restarts + 1:
                return f"start {self._fruitless} in a row without a server that got ready"
            waited = now - self._backed_off_at
            if before is SessionStatus.BACKING_OFF and waited < self.settings.restart_delay - self.late:
                return f"started again after {waited:g} s"
        elif status is SessionStatus.READY:
            self._fruitless = 0
            if self._lost_at is not None:
                self.took, self._lost_at = now - self._lost_at, None
        elif status in _AWAY:
            # One that is closed looks the same as one that rests, and begins with another memory.
            self._fruitless, self._lost_at = 0, None
            self._crashed.clear()
        return None
