"""Probe results into live and ready, by the kubelet's rules.

A startup gate comes first: until it opens, nothing else is asked. Then the event stream's own heartbeat
is the sign of life, and a probe is sent only into silence. Thresholds count in a row.
"""

from __future__ import annotations

from enum import Enum

from attrs import evolve, frozen

from opencode_actors.machines.vocabulary import ROUNDING

# The server listens at 0.9 s and answers at 1.1 s after its start. A request that falls between is
# accepted and never answered, so each probe is short and the next one comes soon.
STARTUP_PROBE_WITHIN = 0.2
STARTUP_FIRST_DELAY = 0.05
STARTUP_DELAY_FACTOR = 1.5
STARTUP_DELAY_CAP = 0.25

# The server sends a heartbeat every 10 s.
SILENCE = 15.0
LIVENESS_PROBE_WITHIN = 2.0
LIVENESS_PROBE_DELAY = 2.0
FAILURES_TO_UNREADY = 1
FAILURES_TO_DEAD = 3
# A server that passes a burst of output on answers nothing meanwhile: 9 s alone on a machine, and more than 28 s
# beside two others on two cores. It works all the while; a frozen one has no load at all, an idle one 0.05.
BUSY_LOAD = 0.25
BUSY_AT_MOST = 90.0


def startup_delay(failures: int) -> float:
    """Before the next probe of a server that is starting, after so many failed ones."""
    return min(STARTUP_FIRST_DELAY * STARTUP_DELAY_FACTOR**failures, STARTUP_DELAY_CAP)


class Verdict(Enum):
    READY = "ready"
    UNREADY = "unready"
    DEAD = "dead"


@frozen(kw_only=True)
class Liveness:
    """`heard_at` is when the server last gave a sign of life by itself, `failed_at` when a probe last counted.

    Probes that fail side by side are one failure: a broken stream asks as well, and a refused connection is
    told within a millisecond, when the container's death may not be known yet. `busy_at` is when it was last
    seen to use much of a processor.
    """

    heard_at: float
    failures: int = 0
    failed_at: float | None = None
    busy_at: float | None = None

    def heard(self, now: float) -> Liveness:
        return Liveness(heard_at=now, busy_at=self.busy_at)

    def loaded(self, cpu_load: float, now: float) -> Liveness:
        return evolve(self, busy_at=now if cpu_load >= BUSY_LOAD else None)

    def probe_failed(self, now: float) -> Liveness:
        if self.failed_at is not None and now - self.failed_at < LIVENESS_PROBE_DELAY - ROUNDING:
            return self
        return evolve(self, failures=self.failures + 1, failed_at=now)

    def silent_for(self, now: float) -> float:
        return now - self.heard_at

    def may_be_busy(self, now: float) -> bool:
        """Whether it was at work lately, and is not silent for longer than work can explain."""
        lately = self.busy_at is not None and now - self.busy_at < SILENCE
        return lately and self.silent_for(now) < BUSY_AT_MOST

    @property
    def verdict(self) -> Verdict:
        if self.failures >= FAILURES_TO_DEAD:
            return Verdict.DEAD
        if self.failures >= FAILURES_TO_UNREADY:
            return Verdict.UNREADY
        return Verdict.READY
