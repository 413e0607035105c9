"""The port to what outlives the process."""

from __future__ import annotations

from typing import Protocol

from attrs import frozen

from opencode_actors.machines.notices import Record
from opencode_actors.machines.server_events import ConversationId
from opencode_actors.machines.vocabulary import JobId, JobSnapshot, SessionKey


@frozen(kw_only=True)
class Remembered:
    """What an earlier process left. `unsettled` are jobs that nobody saw the end of."""

    owner: str
    unsettled: tuple[JobId, ...]


@frozen(kw_only=True)
class OutputSlice:
    """A part of a job's output. `next_offset` is where to read on, in bytes; `more` is whether there is
    anything to read there now."""

    text: str
    next_offset: int
    more: bool


class Store(Protocol):
    """Every method raises `StoreError`, and nothing else."""

    async def load(self) -> Remembered: ...

    async def append(self, records: tuple[Record, ...]) -> None:
        """Returns when all of them are durable; a job's output is so with the record of its end, and
        until then outlives the process, not the machine."""
        ...

    async def conversation(self, session: SessionKey) -> ConversationId | None:
        """The one that the session had last."""
        ...

    async def job(self, job: JobId) -> JobSnapshot | None:
        """The job as it was last recorded."""
        ...

    async def output(self, job: JobId, *, offset: int, limit: int) -> OutputSlice:
        """Up to `limit` bytes from `offset`, never splitting a character: one that alone is longer than
        `limit` is given whole. A job without output reads empty."""
        ...

    async def aclose(self) -> None: ...
