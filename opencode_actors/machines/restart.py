"""How often a container is started again: OTP's restart intensity, with a growing, jittered delay."""

from __future__ import annotations

from attrs import evolve, frozen

from opencode_actors.machines.vocabulary import Moment


@frozen(kw_only=True)
class RestartPolicy:
    """More than `max_restarts` crashes within `period` seconds, and it is given up.

    So is one that fails as often in a row without ever having been ready, however long each time takes.
    """

    max_restarts: int
    period: float
    delay: float
    factor: float
    delay_cap: float
    jitter: float

    def longest_delays(self) -> float:
        """The sum of the delays before all restarts that are allowed, at their longest."""
        return sum(
            min(self.delay * self.factor**n, self.delay_cap) * (1 + self.jitter)
            for n in range(self.max_restarts)
        )

    def can_give_up(self, *, slowest_crash: float) -> bool:
        """Whether a container that always takes `slowest_crash` seconds to crash exhausts the intensity.

        When it does not, the oldest crash leaves the window before the last one enters it, and a
        container that can never work is started for ever.
        """
        return self.longest_delays() + self.max_restarts * slowest_crash < self.period


@frozen(kw_only=True)
class CrashHistory:
    """The crashes that still count, oldest first, and how many there were since it was ready last."""

    at: tuple[float, ...] = ()
    failed_starts: int = 0

    def ready(self) -> CrashHistory:
        return evolve(self, failed_starts=0)

    @property
    def count(self) -> int:
        return max(len(self.at), self.failed_starts)


@frozen(kw_only=True)
class RestartAfter:
    seconds: float
    history: CrashHistory


@frozen(kw_only=True)
class GiveUp:
    history: CrashHistory


def after_crash(policy: RestartPolicy, history: CrashHistory, moment: Moment) -> RestartAfter | GiveUp:
    recent = tuple(at for at in history.at if moment.now - at < policy.period)
    history = CrashHistory(at=(*recent, moment.now), failed_starts=history.failed_starts + 1)
    if history.count > policy.max_restarts:
        return GiveUp(history=history)
    plain = min(policy.delay * policy.factor ** (history.count - 1), policy.delay_cap)
    return RestartAfter(seconds=plain * (1 + policy.jitter * moment.roll), history=history)


def after_health(policy: RestartPolicy, history: CrashHistory, moment: Moment) -> CrashHistory:
    """Forgets the crashes that are older than the period, so that a long healthy life starts afresh."""
    return evolve(history, at=tuple(at for at in history.at if moment.now - at < policy.period))
