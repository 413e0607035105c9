"""The port to what outlives the process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from attrs import frozen

from opencode_actors.machines.notices import Record
from opencode_actors.machines.server_events import ConversationId
from opencode_actors.machines.vocabulary import JobId, JobSnapshot, SessionKey


@frozen(kw_only=True)
class Remembered:
    """What an earlier process left. `unsettled` are jobs that nobody saw the end of."""

    owner: str
    conversations: Mapping[SessionKey, ConversationId]
    unsettled: tuple[JobId, ...]


@frozen(kw_only=True)
class OutputSlice:
    """`next_offset` is where to read on; `more` whether there is anything to read there now."""

    text: str
    next_offset: int
    more: bool


class Store(Protocol):
    async def load(self) -> Remembered: ...

    async def append(self, records: tuple[Record, ...]) -> None:
        """Returns when all of them are durable."""
        ...

    async def job(self, job: JobId) -> JobSnapshot | None:
        """The job as it was last recorded."""
        ...

    async def output(self, job: JobId, *, offset: int, limit: int) -> OutputSlice:
        """Up to `limit` bytes from `offset`, never splitting a character. A job without output reads empty."""
        ...

    async def aclose(self) -> None: ...
