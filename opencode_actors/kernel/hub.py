"""Notices to whoever follows: each follower at its own pace, none of them in anybody's way.

A follower that is slow keeps a bounded backlog. Output that waits is joined piece to piece; when that is
not enough, the oldest progress goes, and the follower is told how much. What begins, asks and ends is
never left out: when there is no room even for that, the follower is cut off, and told so.
"""

from __future__ import annotations

from collections import deque
from typing import Self
from weakref import WeakSet

import trio
from attrs import define, evolve, field, frozen

from opencode_actors.errors import TooSlow
from opencode_actors.machines.notices import (
    JobEnded,
    Notice,
    OutputAdded,
    ProviderRetrying,
    SessionChanged,
    TodosChanged,
    ToolStarted,
)
from opencode_actors.machines.vocabulary import JobId, SessionKey

# Of a follower's backlog and of what is remembered, each: a count, and the size of the texts in it. Most
# notices are a few hundred bytes, but the end of a job carries its prompt, which may have megabytes.
BACKLOG = 512
HEAVIEST = 8 << 20
_JOINED_AT_MOST = 64 << 10
_PLAIN_WEIGHT = 256

_PROGRESS = (OutputAdded, ToolStarted, TodosChanged, ProviderRetrying, SessionChanged)


@frozen(kw_only=True)
class NoticesMissed:
    """The follower was too slow, or came too late. Nothing is lost but the telling: status and output can
    be asked for. `count` is at most how many there were."""

    count: int


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
    _waiting: deque[Notice] = field(factory=deque[Notice], init=False)
    _weight: int = field(default=0, init=False)
    _missed: int = field(default=0, init=False)
    _arrived: trio.Event = field(factory=trio.Event, init=False)
    _over: bool = field(default=False, init=False)
    _cut_off: bool = field(default=False, init=False)

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
        while not self._waiting and not self._missed:
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
        self._weight -= weight_of(notice)
        return notice

    def tell(self, notice: Notice) -> None:
        """For who publishes: never waits."""
        if self._over or not self._wants(notice):
            return
        if not self._joined(notice):
            self._add(notice)
        if isinstance(notice, JobEnded) and notice.job == self.job:
            self._over = True
        self._wake()

    def miss(self, count: int) -> None:
        """For who publishes: so many may be missing here."""
        self._missed += count
        self._wake()

    def end(self) -> None:
        """For who publishes: nothing more comes."""
        self._over = True
        self._wake()

    def statistics(self) -> FollowingStatistics:
        """Figures for who wonders whether it reads fast enough."""
        return FollowingStatistics(waiting=len(self._waiting), missed=self._missed)

    def _wants(self, notice: Notice) -> bool:
        if self.job is None:
            return True
        if isinstance(notice, SessionChanged):
            return notice.session == self.session
        return notice.job == self.job

    def _add(self, notice: Notice) -> None:
        weight = weight_of(notice)
        while self._waiting and (len(self._waiting) >= BACKLOG or self._weight + weight > HEAVIEST):
            if not self._drop_progress():
                break
        else:
            self._waiting.append(notice)
            self._weight += weight
            return
        if isinstance(notice, _PROGRESS):
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
        self._waiting[-1] = evolve(last, text=last.text + notice.text)
        self._weight += len(notice.text)
        return True

    def _drop_progress(self) -> bool:
        for index, notice in enumerate(self._waiting):
            if isinstance(notice, _PROGRESS):
                del self._waiting[index]
                self._weight -= weight_of(notice)
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
    """Where all notices go through. Keeps the last ones, so that who comes a moment late misses nothing."""

    position: int = field(default=0, init=False)
    _followers: WeakSet[Following] = field(factory=WeakSet[Following], init=False)
    _recent: deque[Notice] = field(factory=deque[Notice], init=False)
    _weight: int = field(default=0, init=False)
    _closed: bool = field(default=False, init=False)

    def __repr__(self) -> str:
        state = "closed, " if self._closed else ""
        return f"<Hub {state}{self.position} notices, {len(self._followers)} followers>"

    def publish(self, notice: Notice) -> None:
        self.position += 1
        self._recent.append(notice)
        self._weight += weight_of(notice)
        while len(self._recent) > BACKLOG or self._weight > HEAVIEST:
            self._weight -= weight_of(self._recent.popleft())
        for follower in tuple(self._followers):
            follower.tell(notice)

    def follow(
        self, job: JobId | None = None, session: SessionKey | None = None, *, since: int | None = None
    ) -> Following:
        """Everything from now on, and before that what is still remembered from after `since`."""
        following = Following(job, session)
        if since is not None:
            oldest = self.position - len(self._recent)
            if since < oldest:
                following.miss(oldest - since)
            for notice in tuple(self._recent)[max(0, since - oldest) :]:
                following.tell(notice)
        if self._closed:
            following.end()
        elif not following.over:
            self._followers.add(following)
        return following

    def close(self) -> None:
        self._closed = True
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
