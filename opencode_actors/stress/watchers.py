"""Followers of one job: each of its notices once and in order, from where they asked, and no end but the job's."""

from __future__ import annotations

from collections.abc import Iterator

import trio
from attrs import define, field

from opencode_actors.kernel.hub import NoticesMissed
from opencode_actors.machines.notices import JobEnded, Notice, NotificationFailed, SessionChanged
from opencode_actors.machines.vocabulary import JobId
from opencode_actors.stress.wanderers import Record
from opencode_actors.stress.worlds import Live

# From what is told of a job's end until its follower has heard all.
_OVER_WITHIN = 60.0


@define(eq=False)
class Watcher:
    """Wants all that is told of `job` after the notice `since`; of its session it is told too."""

    job: JobId
    number: int
    since: int
    wrong: list[str] = field(factory=list[str])
    ended: bool = False
    record: Record = field(init=False)
    _over: trio.Event = field(factory=trio.Event)

    def __attrs_post_init__(self) -> None:
        self.record = Record(self.since)

    @property
    def over(self) -> bool:
        """Nobody has to follow again for it."""
        return self._over.is_set()

    async def follow(self, live: Live) -> None:
        """As long as it is told anything: over for good when the job's end was told."""
        async with live.follow(self.record.last, self.job) as told:
            async for notice in told:
                self._noticed(notice)
        if self.ended:
            self._over.set()

    def _noticed(self, notice: Notice | NoticesMissed) -> None:
        if isinstance(notice, NoticesMissed):
            self.wrong.append(f"{notice.count} notices were missed")
            return
        if self.ended:
            self.wrong.append(f"{type(notice).__name__} came after the end")
        if not isinstance(notice, SessionChanged | NotificationFailed) and notice.job != self.job:
            self.wrong.append(f"it was told of {notice.job}")
        wrong = self.record.add(notice)
        if wrong is not None:
            self.wrong.append(wrong)
        self.ended = self.ended or isinstance(notice, JobEnded)

    async def finish(self, whole: Record) -> Iterator[str]:
        """The job has ended: what is wrong with all that it was told, against what everybody was."""
        with trio.move_on_after(_OVER_WITHIN):
            await self._over.wait()
        if not self.over:
            self.wrong.append("its end was told, and no more comes" if self.ended else "its end was not told")
        self.wrong.extend(self.record.differs(whole, self.since, self.record.last, self.job))
        said, all_said = self.record.words.get(self.job), whole.words.get(self.job, bytearray())
        begin = self.record.begins.get(self.job, 0) - whole.begins.get(self.job, 0)
        if self.ended and said is not None and begin + len(said) != len(all_said):
            self.wrong.append(f"{begin + len(said)} bytes were told, of {len(all_said)}")
        if not self.since and begin:
            self.wrong.append(f"its words begin at {begin}")
        return iter(self.wrong)
