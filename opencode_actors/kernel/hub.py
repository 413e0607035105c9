"""Notices to whoever follows: each follower at its own pace, none of them in anybody's way.

Who asks for what was told before gets it from the journal, page by page, until the hub itself remembers the
rest; from there on it is told as all others are.

A follower that is slow keeps a bounded backlog. Output that waits is joined piece to piece; when that is
not enough, the oldest progress goes, and the follower is told how much. What begins, asks and ends is
never left out: when there is no room even for that, the follower is cut off, and told so. Followers that are read by
one and the same share one bound.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Self
from weakref import WeakSet

import trio
from attrs import define, evolve, field, frozen

from opencode_actors.errors import TooSlow
from opencode_actors.machines.notices import (
    PROGRESS,
    JobEnded,
    Notice,
    NotificationFailed,
    OutputAdded,
    SessionChanged,
)
from opencode_actors.machines.vocabulary import JobId, SessionKey
from opencode_actors.store.port import Page

# Of a follower's backlog and of what is remembered, each: a count, and the size of the texts in it. Most
# notices are a few hundred bytes, but the end of a job carries its prompt, which may have megabytes.
BACKLOG = 512
HEAVIEST = 8 << 20
_JOINED_AT_MOST = 64 << 10
_PLAIN_WEIGHT = 256

# What of a follower's wish is recorded after one number and up to another.
History = Callable[[int, int], Awaitable[Page]]


@frozen(kw_only=True)
class NoticesMissed:
    """The follower was too slow, or came too late. Nothing is lost but the telling: status and output can
    be asked for. `count` is at most how many there were."""

    count: int


@define(eq=False, repr=False)
class Allowance:
    """What several followings may keep together, as much as one alone: they are one reader's. One that is not
    read any more has to `leave`, or it holds what it has for ever."""

    _kept: dict[int, list[Notice]] = field(factory=dict[int, list[Notice]], init=False)
    _held: int = field(default=0, init=False)
    _turn: trio.Lock = field(factory=trio.Lock, init=False)
    _freed: trio.Event = field(factory=trio.Event, init=False)

    def __repr__(self) -> str:
        return f"<Allowance, {self._held} of {HEAVIEST} bytes held>"

    @property
    def held(self) -> int:
        """Bytes, about. A notice that many keep is there once."""
        return self._held

    def has_room(self, notice: Notice, *, besides: Notice | None = None) -> bool:
        """What is given out to whoever asks is `besides`. One that is larger than all that may be kept is kept
        alone."""
        others = self._held
        if besides is not None and len(self._kept[id(besides)]) == 1:
            others -= weight_of(besides)
        return id(notice) in self._kept or not others or others + weight_of(notice) <= HEAVIEST

    def hold(self, notice: Notice) -> None:
        """Once more; it counts once."""
        holders = self._kept.setdefault(id(notice), [])
        if not holders:
            self._held += weight_of(notice)
        holders.append(notice)

    def let_go(self, notice: Notice) -> None:
        """It is kept once less."""
        holders = self._kept[id(notice)]
        holders.pop()
        if not holders:
            del self._kept[id(notice)]
            self._held -= weight_of(notice)
            self._freed.set()
            self._freed = trio.Event()

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[None]:
        """To read a page of what is recorded: one at a time, and when half of it is free."""
        async with self._turn:
            while self._held > HEAVIEST // 2:
                await self._freed.wait()
            yield


@frozen(kw_only=True)
class FollowingStatistics:
    waiting: int
    missed: int


@define(eq=False, repr=False)
class Following:
    """One follower. Iterating ends after the end of the job that is followed, and with the system.

    A follower that does not read for so long that not even beginnings and ends have room is cut off: it
    reads what was kept for it, and then `TooSlow` is raised.
    """

    job: JobId | None
    session: SessionKey | None
    _hub: Hub
    _history: History | None = None
    _reached: int = 0
    _ended: bool = False
    _allowance: Allowance = field(factory=Allowance)
    _waiting: deque[Notice] = field(factory=deque[Notice], init=False)
    _given_out: Notice | None = field(default=None, init=False)
    _missed: int = field(default=0, init=False)
    _arrived: trio.Event = field(factory=trio.Event, init=False)
    _over: bool = field(default=False, init=False)
    _cut_off: bool = field(default=False, init=False)
    _told_early: set[Notice] = field(factory=set[Notice], init=False)

    def __repr__(self) -> str:
        what = "everything" if self.job is None else self.job
        state = "cut off" if self._cut_off else "over" if self._over else "open"
        return f"<Following {what}, {state}, {len(self._waiting)} waiting>"

    @property
    def over(self) -> bool:
        """Whether nothing new comes any more; what waits can still be read."""
        return self._over

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Notice | NoticesMissed:
        # Nothing is taken before the last checkpoint, or a cancellation there would lose it.
        await trio.lowlevel.checkpoint()
        # What was given out last counts until the next one is asked for: until then it is somebody's.
        self._take_back()
        while not self._waiting and not self._missed:
            if self._history is not None:
                await self._read_on(self._history)
                continue
            if self._cut_off:
                raise TooSlow(
                    "notices were not read for so long that there was no room for more",
                    hint="read faster, or follow again and ask for the status of what was missed",
                )
            if self._over:
                raise StopAsyncIteration
            await self._arrived.wait()
        if self._missed:
            missed, self._missed = self._missed, 0
            return NoticesMissed(count=missed)
        notice = self._waiting.popleft()
        self._given_out = notice
        return notice

    def _take_back(self) -> None:
        if self._given_out is not None:
            self._allowance.let_go(self._given_out)
            self._given_out = None

    def leave(self) -> None:
        """It is not read any more."""
        self._over, self._history = True, None
        self._take_back()
        while self._waiting:
            self._allowance.let_go(self._waiting.pop())
        self._wake()

    async def _read_on(self, history: History) -> None:
        if self._hub.closed:
            self._history, self._over = None, True
            return
        if self._reached >= self._hub.forgotten and not self._ended:
            self._history = None
            self._hub.join(self, self._reached)
            return
        async with self._allowance.turn():
            upto = self._hub.position
            page = await history(self._reached, upto)
            self._reached = page.reached
            self._missed += page.missed
            for notice in page.notices:
                self._waiting.append(notice)
                self._allowance.hold(notice)
                self._over = self._over or self._is_the_end(notice)
        if self._over or (self._ended and self._reached >= upto):
            self._history, self._over = None, True

    def tell(self, notice: Notice) -> None:
        """For who publishes: never waits."""
        if self._over or not self._wants(notice) or self._was_told_early(notice):
            return
        if not self._joined(notice):
            self._add(notice)
        if self._is_the_end(notice):
            self._over = True
        self._wake()

    def end(self) -> None:
        """For who publishes: nothing more comes."""
        self._over = True
        self._wake()

    def statistics(self) -> FollowingStatistics:
        """Figures for who wonders whether it reads fast enough."""
        return FollowingStatistics(waiting=len(self._waiting), missed=self._missed)

    def _was_told_early(self, notice: Notice) -> bool:
        """What could not be recorded was told without a number, and comes again with one."""
        if isinstance(notice, PROGRESS):
            return False
        if not notice.seq:
            self._told_early.add(notice)
            return False
        if not self._told_early:
            return False
        early = evolve(notice, seq=0, at=0.0)
        was = early in self._told_early
        self._told_early.discard(early)
        return was

    def _is_the_end(self, notice: Notice) -> bool:
        return isinstance(notice, JobEnded) and notice.job == self.job

    def _wants(self, notice: Notice) -> bool:
        if self.job is None:
            return self.session is None or notice.session == self.session
        if isinstance(notice, SessionChanged | NotificationFailed):
            return notice.session == self.session
        return notice.job == self.job

    def _add(self, notice: Notice) -> None:
        room = self._allowance
        while len(self._waiting) >= BACKLOG or not room.has_room(notice, besides=self._given_out):
            if not self._drop_progress():
                break
        else:
            self._waiting.append(notice)
            room.hold(notice)
            return
        if isinstance(notice, PROGRESS):
            self._missed += 1
        else:
            self._over = self._cut_off = True

    def _joined(self, notice: Notice) -> bool:
        last = self._waiting[-1] if self._waiting else None
        if not (isinstance(notice, OutputAdded) and isinstance(last, OutputAdded)):
            return False
        if last.job != notice.job or last.kind is not notice.kind:
            return False
        if len(last.text) + len(notice.text) > _JOINED_AT_MOST:
            return False
        # Its number is the last one's: who asks for what came after it gets nothing twice.
        joined = evolve(notice, offset=last.offset, text=last.text + notice.text)
        if not self._allowance.has_room(joined, besides=self._given_out):
            return False
        self._allowance.let_go(last)
        self._allowance.hold(joined)
        self._waiting[-1] = joined
        return True

    def _drop_progress(self) -> bool:
        for index, notice in enumerate(self._waiting):
            if isinstance(notice, PROGRESS):
                del self._waiting[index]
                self._allowance.let_go(notice)
                self._missed += 1
                return True
        return False

    def _wake(self) -> None:
        self._arrived.set()
        self._arrived = trio.Event()


@frozen(kw_only=True)
class HubStatistics:
    published: int
    remembered: int
    followers: int


@define(eq=False, repr=False)
class Hub:
    """Where all notices go through, in the order of their numbers; `position` is the last one's. Keeps some,
    so that who comes a moment late need not read the journal."""

    position: int = field(default=0, init=False)
    _followers: WeakSet[Following] = field(factory=WeakSet[Following], init=False)
    _recent: deque[Notice] = field(factory=deque[Notice], init=False)
    _weight: int = field(default=0, init=False)
    closed: bool = field(default=False, init=False)

    def __repr__(self) -> str:
        state = "closed, " if self.closed else ""
        return f"<Hub {state}{self.position} notices, {len(self._followers)} followers>"

    @property
    def forgotten(self) -> int:
        """The last number that the hub does not remember any more."""
        return self.position - len(self._recent)

    def begin(self, position: int) -> None:
        """Before anything is told: the number of the last notice of an earlier process."""
        self.position = position

    def publish(self, notice: Notice) -> None:
        """One without a number could not be recorded yet: it is told, and not remembered."""
        if notice.seq:
            self._remember(notice)
        for follower in tuple(self._followers):
            follower.tell(notice)

    def _remember(self, notice: Notice) -> None:
        self.position = notice.seq
        self._recent.append(notice)
        self._weight += weight_of(notice)
        while len(self._recent) > BACKLOG or self._weight > HEAVIEST:
            self._weight -= weight_of(self._recent.popleft())

    def follow(
        self,
        job: JobId | None = None,
        session: SessionKey | None = None,
        *,
        since: tuple[int, History] | None = None,
        allowance: Allowance | None = None,
        ended: bool = False,
    ) -> Following:
        """Everything from now on, and before that what came after a number. Of a job that has `ended`
        nothing is remembered here that is not recorded too."""
        allowance = allowance or Allowance()
        following = Following(job, session, self, None, 0, ended, allowance)
        if since is None:
            self.join(following, self.position)
            return following
        after, history = min(since[0], self.position), since[1]
        if after >= self.forgotten and not ended:
            self.join(following, after)
            return following
        return Following(job, session, self, history, after, ended, allowance)

    def join(self, following: Following, after: int) -> None:
        """For who has all up to that number: the rest that is remembered, and all that is new."""
        for notice in tuple(self._recent)[max(0, after - self.forgotten) :]:
            following.tell(notice)
        if self.closed:
            following.end()
        elif not following.over:
            self._followers.add(following)

    def close(self) -> None:
        self.closed = True
        for follower in tuple(self._followers):
            follower.end()

    def statistics(self) -> HubStatistics:
        return HubStatistics(
            published=self.position, remembered=len(self._recent), followers=len(self._followers)
        )


def weight_of(notice: Notice) -> int:
    """About how much memory it holds that nothing else bounds."""
    match notice:
        case OutputAdded():
            return _PLAIN_WEIGHT + len(notice.text)
        case JobEnded():
            return _PLAIN_WEIGHT + len(notice.snapshot.prompt)
        case _:
            return _PLAIN_WEIGHT
