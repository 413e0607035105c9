"""How often and how soon one session's container may be started again."""

from __future__ import annotations

from attrs import define, field

from opencode_actors.machines.vocabulary import SessionStatus
from opencode_actors.settings import Settings

_AWAY = (SessionStatus.ABSENT, SessionStatus.GIVEN_UP, SessionStatus.QUARANTINED)
_ABOUT = 2.0


@define(eq=False)
class Restarts:
    """`late` is by how much one notice may be heard later than another; `took` is how long the last change says that a
    restart took, from when the crash was found to a server that is ready."""

    settings: Settings
    late: float
    took: float | None = None
    _status: SessionStatus = SessionStatus.ABSENT
    _crashed: list[float] = field(factory=list[float])
    _stopping_at: float = 0.0
    _backed_off_at: float = 0.0
    _fruitless: int = 0
    _failed: int = 0  # starts in a row
    _lost_at: float | None = None

    def changed(self, status: SessionStatus, now: float, since: float) -> str | None:
        """What is wrong with this change, if anything; it came to pass `since` then at the earliest."""
        before, self._status, self.took = self._status, status, None
        if status is SessionStatus.STOPPING and before is not status:
            self._stopping_at = now
        elif status is SessionStatus.BACKING_OFF:
            self._lost_at = self._stopping_at if self._lost_at is None else self._lost_at
            self._backed_off_at = since
            self._failed += 1
            self._crashed.append(self._stopping_at)
            period = self.settings.restart_period
            recent = [at for at in self._crashed if self._stopping_at - at < period]
            if len(recent) > self.settings.max_restarts:
                return f"restart {len(recent)} within {period:g} s"
        elif status is SessionStatus.CREATING:
            self._fruitless += 1
            if self._fruitless > self.settings.max_restarts + 1:
                return f"start {self._fruitless} in a row without a server that got ready"
            waited, least = now - self._backed_off_at, self._least()
            if before is SessionStatus.BACKING_OFF and waited < least - self.late:
                return f"started again after {waited:.3f} s, and its delay is {least:g} s at least"
        elif status is SessionStatus.READY:
            self._fruitless = self._failed = 0
            if self._lost_at is not None:
                self.took, self._lost_at = now - self._lost_at, None
        elif status in _AWAY:
            # One that is closed looks the same as one that rests, and begins with another memory.
            self._fruitless, self._failed, self._lost_at = 0, 0, None
            self._crashed.clear()
        return None

    def _least(self) -> float:
        """The delay after so many crashes, without its jitter. One that is just leaving the period may have left."""
        settings, at = self.settings, self._stopping_at
        count = sum(at - crash < settings.restart_period - _ABOUT for crash in self._crashed)
        growth = settings.restart_factor ** (max(count, self._failed, 1) - 1)
        return min(settings.restart_delay * growth, settings.restart_delay_cap)
