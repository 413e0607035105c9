"""A store in memory, for tests on virtual time: a real one has a thread, and that takes real time."""

from __future__ import annotations

import trio
from attrs import define, field

from opencode_actors.errors import StoreError
from opencode_actors.machines.notices import JobRecorded, OutputRecorded, Record, SessionRecorded
from opencode_actors.machines.server_events import ConversationId
from opencode_actors.machines.vocabulary import JobId, JobSnapshot, SessionKey
from opencode_actors.store.output_files import output_slice
from opencode_actors.store.port import OutputSlice, Remembered


@define(eq=False)
class MemoryStore:
    """Outlives a system, as a disk does: give the same one to the next. `full` makes it refuse records,
    `slow` is how many seconds it takes for them."""

    owner: str = "fake"
    full: bool = False
    slow: float = 0.0
    records: list[Record] = field(factory=list[Record])
    _jobs: dict[JobId, JobSnapshot] = field(factory=dict[JobId, JobSnapshot])
    _conversations: dict[SessionKey, ConversationId | None] = field(
        factory=dict[SessionKey, ConversationId | None]
    )
    _outputs: dict[JobId, bytes] = field(factory=dict[JobId, bytes])

    def jobs(self) -> tuple[JobSnapshot, ...]:
        """All of them, as they were last recorded."""
        return tuple(self._jobs.values())

    async def load(self) -> Remembered:
        await trio.lowlevel.checkpoint()
        return Remembered(
            owner=self.owner,
            unsettled=tuple(id_ for id_, job in self._jobs.items() if not job.settled),
        )

    async def append(self, records: tuple[Record, ...]) -> None:
        await trio.sleep(self.slow)
        if self.full:
            raise StoreError("writing to memory failed: no space left")
        for record in records:
            self.records.append(record)
            match record:
                case JobRecorded():
                    self._jobs[record.snapshot.id] = record.snapshot
                case SessionRecorded():
                    self._conversations[record.session] = record.conversation
                case OutputRecorded():
                    text = record.text.encode(errors="replace")
                    self._outputs[record.job] = self._outputs.get(record.job, b"") + text

    async def conversation(self, session: SessionKey) -> ConversationId | None:
        await trio.lowlevel.checkpoint()
        return self._conversations.get(session)

    async def job(self, job: JobId) -> JobSnapshot | None:
        await trio.lowlevel.checkpoint()
        return self._jobs.get(job)

    async def output(self, job: JobId, *, offset: int, limit: int) -> OutputSlice:
        await trio.lowlevel.checkpoint()
        written = self._outputs.get(job, b"")
        return output_slice(written[offset:], offset=offset, limit=limit, size=len(written))

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
