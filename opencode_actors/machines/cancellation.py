"""The ladder of a cancel, as far as it is the same for everybody who climbs it."""

from __future__ import annotations

from attrs import evolve, frozen

from opencode_actors.machines.vocabulary import Climb, Rung

_WORDS = {
    Rung.ABORT: "asked OpenCode to abort",
    Rung.STOP: "stopping the container",
    Rung.KILL: "killing the container",
    Rung.REMOVE: "removing the container by force",
    Rung.QUARANTINE: "the container engine does not end the container",
}


def in_words(rung: Rung) -> str:
    return _WORDS[rung]


@frozen(kw_only=True)
class Graces:
    """How long each rung is waited for, in seconds."""

    abort: float
    stop: float
    kill: float
    remove: float

    def of(self, rung: Rung) -> float:
        match rung:
            case Rung.ABORT:
                return self.abort
            case Rung.STOP:
                return self.stop
            case Rung.KILL:
                return self.kill
            case Rung.REMOVE:
                return self.remove
            case Rung.QUARANTINE:
                return 0.0


@frozen(kw_only=True)
class Ladder:
    """Where a climb stands. It only ever goes up."""

    rung: Rung
    since: float
    behind: tuple[tuple[Rung, float], ...] = ()

    def up(self, now: float) -> Ladder:
        return self.to(Rung(self.rung + 1), now)

    def to(self, rung: Rung, now: float) -> Ladder:
        """Higher rungs only: asking for one that is already passed changes nothing."""
        if rung <= self.rung:
            return self
        return evolve(self, rung=rung, since=now, behind=self._spent(now))

    def ended(self, now: float) -> Climb:
        return Climb(ended_by=self.rung, seconds=self._spent(now))

    def _spent(self, now: float) -> tuple[tuple[Rung, float], ...]:
        return (*self.behind, (self.rung, now - self.since))
