"""Whether a process takes more and more: what it took when it was warm, and what it takes when all is over.

What it may have taken more is what it was given: a journal's pages and a job's remembered end are bounded, so
there is an allowance for the interpreter's own arenas, and a little for each job and for what it said.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import define

# Measured in `local`, where the fakes and the whole record of the run live in the same process.
ALLOWANCE = 48 << 20
FOR_EACH_JOB = 64 << 10
FOR_EACH_BYTE = 8  # of output: it is told, kept and compared


@define(eq=False)
class Memory:
    """Of one service at a time: a new process begins anew. `warm_after` is how long it takes to be warm."""

    warm_after: float
    warm: int | None = None
    last: int | None = None
    most: int = 0
    _generation: int = 0
    _began: float = 0.0

    def look(self, taken: int | None, generation: int, now: float) -> None:
        if taken is None:
            return
        if generation != self._generation:
            self._generation, self._began, self.warm = generation, now, None
        if self.warm is None and now - self._began >= self.warm_after:
            self.warm = taken
        self.last, self.most = taken, max(self.most, taken)

    def figures(self) -> Mapping[str, int]:
        if self.warm is None or self.last is None:
            return {}
        return {"warm": self.warm, "at the end": self.last, "at most": self.most}

    def grown_too_far(self, *, jobs: int, output: int) -> str | None:
        """With so many jobs, and so many bytes that they said."""
        if self.warm is None or self.last is None:
            return None
        bound = ALLOWANCE + jobs * FOR_EACH_JOB + output * FOR_EACH_BYTE
        if self.last - self.warm <= bound:
            return None
        return (
            f"the process grew from {self.warm >> 20} MiB, once it was warm, to {self.last >> 20} MiB; "
            f"{jobs} jobs with {output} bytes of output may take {bound >> 20} MiB more"
        )
