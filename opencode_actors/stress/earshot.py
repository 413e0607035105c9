"""Since when what is heard may have been so: what came to pass while nobody could hear it is told all at once to
whoever comes back."""

from __future__ import annotations

import math

from attrs import define

from opencode_actors.stress.windows import Tolerance


@define(eq=False)
class Earshot:
    tolerance: Tolerance
    _lost_at: float = 0.0
    back_at: float = -math.inf

    def lost(self, now: float) -> None:
        """Nothing is heard any more, nor what was on its way."""
        self._lost_at, self.back_at = self.earliest(now) - self.tolerance.late, math.inf

    def back(self, now: float) -> None:
        """It is heard again, and what was missed comes at once."""
        if self.is_lost:
            self.back_at = now

    @property
    def is_lost(self) -> bool:
        return self.back_at == math.inf

    @property
    def whole_at(self) -> float:
        """From when on everything is heard as it comes."""
        return self.back_at + self.tolerance.slack

    def earliest(self, now: float) -> float:
        """When that which is heard now may have come to pass at the earliest."""
        return self._lost_at if now <= self.whole_at else now
