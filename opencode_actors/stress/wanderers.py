"""Followers that leave without a word, in the middle of a notice even, and come back for the rest of it."""

from __future__ import annotations

import random
from collections.abc import Iterator

import trio
from attrs import define, field

from opencode_actors.errors import NoService
from opencode_actors.kernel.hub import NoticesMissed
from opencode_actors.machines.notices import (
    InputAnswered,
    InputWanted,
    Notice,
    NotificationFailed,
    OutputAdded,
    SessionChanged,
)
from opencode_actors.machines.vocabulary import JobId
from opencode_actors.stress.worlds import Live

_STAYS = 3.0
_READS = 40
# For what is left at the end.
_WHOLE_WITHIN = 60.0


@define(eq=False)
class Record:
    """All that one follower was told after the number `last`. Words may come in other pieces the next time: they
    are kept as what they come to."""

    last: int = 0
    named: dict[int, str] = field(factory=dict[int, str])
    about: dict[int, JobId] = field(factory=dict[int, JobId])
    early: set[str] = field(factory=set[str])
    words: dict[JobId, bytearray] = field(factory=dict[JobId, bytearray])
    begins: dict[JobId, int] = field(factory=dict[JobId, int])

    def add(self, notice: Notice) -> str | None:
        """What is wrong with its being told now, if anything. What could not be recorded is told without a
        number to those who are there, and gets one, for the others, as soon as it can be."""
        if notice.seq == 0:
            self.early.add(_name(notice))
            return None
        if notice.seq <= self.last:
            return f"notice {notice.seq} ({type(notice).__name__}) was told after {self.last}"
        self.last = notice.seq
        if not isinstance(notice, OutputAdded):
            self.named[notice.seq] = _name(notice)
            if not isinstance(notice, SessionChanged | NotificationFailed):
                self.about[notice.seq] = notice.job
            return None
        begin = self.begins.setdefault(notice.job, notice.offset)
        said = self.words.setdefault(notice.job, bytearray())
        if notice.offset != begin + len(said):
            return f"words of {notice.job} were told at {notice.offset}, and {begin + len(said)} was next"
        said += notice.text.encode(errors="replace")
        return None

    def differs(self, whole: Record, since: int, upto: int, job: JobId | None = None) -> Iterator[str]:
        """What is not as `whole` has it, of what was told after `since`: of everything, or of one job."""
        for seq in sorted(whole.named.keys() ^ self.named.keys()):
            if job is not None and job not in (whole.about.get(seq), self.about.get(seq)):
                continue
            there, here = whole.named.get(seq), self.named.get(seq)
            if not since < seq <= upto or there in self.early or here in whole.early:
                continue
            yield (
                f"notice {seq} ({there}) was not told" if there else f"{seq} ({here}) was told to nobody else"
            )
        for job, said in self.words.items():
            at = self.begins[job] - whole.begins.get(job, 0)
            if whole.words.get(job, bytearray())[at : at + len(said)] != said:
                yield f"other words of {job} were told"


def _name(notice: Notice) -> str:
    match notice:
        case InputWanted() | InputAnswered():
            return f"{type(notice).__name__} of {notice.request}"
        case SessionChanged():
            return f"{notice.session} is {notice.status.value}"
        case NotificationFailed():
            return f"{type(notice).__name__} about {notice.about}"
        case _:
            return f"{type(notice).__name__} of {notice.job}"


@define(eq=False)
class Wanderer:
    """Wants all that comes after `since`."""

    since: int
    rng: random.Random
    visits: int = 0
    wrong: list[str] = field(factory=list[str])
    record: Record = field(init=False)
    reached: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.record, self.reached = Record(self.since), self.since

    async def visit(self, live: Live | None) -> None:
        """Reads some of it, and vanishes."""
        if live is not None:
            with trio.move_on_after(self.rng.uniform(0.0, _STAYS)):
                await self._read(live, upto=None, most=self.rng.randrange(_READS))

    async def finish(self, live: Live, whole: Record, upto: int) -> Iterator[str]:
        """Reads the rest; then what is wrong with all that it was told."""
        if self.reached < upto:
            with trio.move_on_after(_WHOLE_WITHIN) as scope:
                await self._read(live, upto=upto, most=None)
            if scope.cancelled_caught or self.reached < upto:
                self.wrong.append(f"after {self.visits} visits it was told up to {self.reached} of {upto}")
        self.wrong.extend(self.record.differs(whole, self.since, self.reached))
        return iter(self.wrong)

    async def _read(self, live: Live, *, upto: int | None, most: int | None) -> None:
        self.visits += 1
        count = 0
        try:
            async with live.follow(self.reached) as told:
                async for notice in told:
                    self._noticed(notice)
                    count += 1
                    if (upto is not None and self.reached >= upto) or (most is not None and count > most):
                        return
        except NoService:
            return  # it was killed

    def _noticed(self, notice: Notice | NoticesMissed) -> None:
        if isinstance(notice, NoticesMissed):
            self.wrong.append(f"{notice.count} notices were missed")
            return
        wrong = self.record.add(notice)
        if wrong is not None:
            self.wrong.append(wrong)
        self.reached = max(self.reached, notice.seq)
