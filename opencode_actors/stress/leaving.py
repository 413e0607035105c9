"""What an orderly end may have done to the jobs that were under way: all of them, or nothing."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import define, field, frozen

from opencode_actors.machines.vocabulary import Cause, JobId, JobSnapshot, Leave
from opencode_actors.stress.scenario import FaultKind
from opencode_actors.stress.windows import Hit

# Of what somebody else closes in these seconds nobody can tell who did.
_AROUND = 10.0
_CLOSES = frozenset({FaultKind.CLOSE_STORM, FaultKind.CLEANUP_STORM})


@frozen(kw_only=True)
class Left:
    """The jobs that were under way when the service was told to end."""

    at: float
    leave: Leave | None = None
    jobs: frozenset[JobId] = frozenset()

    def wrong(self, status: JobSnapshot, hits: Iterable[Hit]) -> str | None:
        """What is wrong with what the next service says of one of them."""
        around = {hit.kind for hit in hits if hit.at - _AROUND <= self.at and hit.until + _AROUND >= self.at}
        if self.leave is Leave.NOTHING and not status.settled and FaultKind.DISK_FULL not in around:
            return f"the service ended with all its jobs, and this one is {status.status.value}"
        closed = status.failure is not None and status.failure.cause is Cause.CLOSED
        if self.leave is Leave.ALL and closed and not around & _CLOSES:
            return "the service left all its jobs to the next one, and this one was closed"
        return None


@define(eq=False)
class Ends:
    """Those of a run's services that ended in order."""

    _last: Left = field(factory=lambda: Left(at=0.0))
    _ended: set[JobId] = field(factory=set[JobId])

    def ended(self, at: float, leave: Leave | None, jobs: frozenset[JobId]) -> None:
        """A service is told to, with all these jobs under way as far as anybody has heard. What an earlier one has
        ended may not have been told yet: nobody listened between the two."""
        if leave is Leave.NOTHING:
            self._ended |= jobs
        else:
            jobs -= self._ended
        self._last = Left(at=at, leave=leave, jobs=jobs)

    def take(self) -> Left:
        """The last one, to be looked at once."""
        last, self._last = self._last, Left(at=0.0)
        return last
