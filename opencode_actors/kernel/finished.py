"""The jobs that ended last, which are asked for most: from memory, as long as there is room."""

from __future__ import annotations

from collections import OrderedDict

from attrs import define, field

from opencode_actors.kernel.hub import HEAVIEST, weight_of
from opencode_actors.machines.notices import JobEnded
from opencode_actors.machines.vocabulary import JobId

_MOST = 256


@define(eq=False, repr=False)
class Finished:
    _ended: OrderedDict[JobId, JobEnded] = field(factory=OrderedDict[JobId, JobEnded], init=False)
    _weight: int = field(default=0, init=False)

    def __len__(self) -> int:
        return len(self._ended)

    def get(self, job: JobId) -> JobEnded | None:
        return self._ended.get(job)

    def remember(self, job: JobId, ended: JobEnded) -> None:
        """The oldest give way to it."""
        self._ended[job] = ended
        self._weight += weight_of(ended)
        while len(self._ended) > _MOST or self._weight > HEAVIEST:
            self.forget(next(iter(self._ended)))

    def forget(self, job: JobId) -> None:
        ended = self._ended.pop(job, None)
        self._weight -= weight_of(ended) if ended is not None else 0
