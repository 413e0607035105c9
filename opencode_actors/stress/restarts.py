"""How often and how soon one session's container may be started again."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, field

from opencode_actors.machines.vocabulary import SessionStatus
from opencode_actors.settings import Settings
from opencode_actors.stress.scenario import FaultKind
from opencode_actors.stress.windows import Excuse, Hit, Tolerance, excused, overlapping

_AWAY = (SessionStatus.ABSENT, SessionStatus.GIVEN_UP, SessionStatus.QUARANTINED)
_ABOUT = 2.0
_NO_ENGINE = frozenset({FaultKind.ENGINE_AWAY, FaultKind.ENGINE_SLOW})
_AWAY_FOR = 180.0  # it is waited for


@define(eq=False)
class Restarts:
    """`took` is how long the last change says that a restart took, from when the crash was found to a server that is
    ready."""

    settings: Settings
    tolerance: Tolerance
    hits: Sequence[Hit]
    took: float | None = None
    _status: SessionStatus = SessionStatus.ABSENT
    _crashed: list[float] = field(factory=list[float])
    _ever: list[float] = field(factory=list[float])  # also those before it rested or was closed
    _stopping_at: float = 0.0
    _backed_off_at: float = 0.0  # at the earliest
    _backed_off_by: float = 0.0
    _fruitless: int = 0
    _failed: int = 0  # starts in a row
    _failed_ever: int = 0  # likewise
    _lost_at: float | None = None

    def changed(self, status: SessionStatus, now: float, since: float) -> str | None:
        """What is wrong with this change, if anything; it came to pass `since` then at the earliest."""
        before, self._status, self.took = self._status, status, None
        if status is SessionStatus.STOPPING and before is not status:
            self._stopping_at = now
        elif status is SessionStatus.BACKING_OFF:
            self._lost_at = self._stopping_at if self._lost_at is None else self._lost_at
            self._backed_off_at, self._backed_off_by = since, now
            self._failed += 1
            self._failed_ever += 1
            self._crashed.append(self._stopping_at)
            self._ever.append(self._stopping_at)
            period = self.settings.restart_period
            recent = [at for at in self._crashed if self._stopping_at - at < period]
            if len(recent) > self.settings.max_restarts:
                return f"restart {len(recent)} within {period:g} s"
        elif status is SessionStatus.CREATING:
            self._fruitless += 1
            if self._fruitless > self.settings.max_restarts + 1:
                return f"start {self._fruitless} in a row without a server that got ready"
            waited, least = now - self._backed_off_at, self._least()
            if before is SessionStatus.BACKING_OFF and waited < least - self.tolerance.late:
                return f"started again after {waited:.3f} s, and its delay is {least:g} s at least"
            most = self._most()
            waited = now - self._backed_off_by
            late = before is SessionStatus.BACKING_OFF and waited > most + self.tolerance.slack
            if late and not excused(Excuse.WRITTEN_LATE, self.hits, self._backed_off_by, now):
                return f"started again after {waited:.3f} s, and its delay is {most:g} s at most"
        elif status is SessionStatus.READY:
            self._fruitless = self._failed = self._failed_ever = 0
            if self._lost_at is not None:
                self.took, self._lost_at = now - self._lost_at, None
        elif status in _AWAY:
            # One that is closed looks the same as one that rests, and begins with another memory.
            self._fruitless, self._failed, self._lost_at = 0, 0, None
            self._crashed.clear()
            return self._too_few(now) if status is SessionStatus.GIVEN_UP else None
        return None

    def _too_few(self, now: float) -> str | None:
        """An engine that is away is waited for, and given up without any crash."""
        period, at = self.settings.restart_period, self._stopping_at
        count = max(sum(at - crash < period + _ABOUT for crash in self._ever), self._failed_ever)
        if count >= self.settings.max_restarts or overlapping(self.hits, _NO_ENGINE, at - _AWAY_FOR, now):
            return None
        return f"given up after {count} restarts, and maxRestarts is {self.settings.max_restarts}"

    def _most(self) -> float:
        """The delay after so many crashes, with all of its jitter. One that has just left the period may still be in
        it."""
        settings, at = self.settings, self._stopping_at
        count = sum(at - crash < settings.restart_period + _ABOUT for crash in self._ever)
        growth = settings.restart_factor ** (max(count, self._failed, 1) - 1)
        return min(settings.restart_delay * growth, settings.restart_delay_cap) * (
            1 + settings.restart_jitter
        )

    def _least(self) -> float:
        """The delay after so many crashes, without its jitter. One that is just leaving the period may have left."""
        settings, at = self.settings, self._stopping_at
        count = sum(at - crash < settings.restart_period - _ABOUT for crash in self._crashed)
        growth = settings.restart_factor ** (max(count, self._failed, 1) - 1)
        return min(settings.restart_delay * growth, settings.restart_delay_cap)
