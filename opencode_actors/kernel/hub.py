"""Notices to whoever follows: each follower at its own pace, none of them in anybody's way.

A follower that is slow keeps a bounded backlog. Output that waits is joined piece to piece; when that is
not enough, the oldest progress goes, and the follower is told how much. What ends a job never goes.
"""

from __future__ import annotations

from collections import deque
from typing import Self
from weakref import WeakSet

import trio
from attrs import define, evolve, field, frozen

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

BACKLOG = 512
_JOINED_AT_MOST = 64 << 10
_REMEMBERED = 512

_PROGRESS = (OutputAdded, ToolStarted, TodosChanged, ProviderRetrying, SessionChanged)


@frozen(kw_only=True)
class NoticesMissed:
    """The follower was too slow. Nothing is lost but the telling: status and output can be asked for."""

    count: int


@define(eq=False)
class Following:
    """One follower. Iterating ends after the end of the job that is followed."""

    job: JobId | None
    session: SessionKey | None
    _waiting: deque[Notice] = field(factory=deque[Notice])
    _missed: int = 0
    _arrived: trio.Event = field(factory=trio.Event)
    _over: bool = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Notice | NoticesMissed:
        while not self._waiting:
            if self._over:
                raise StopAsyncIteration
            await self._arrived.wait()
            self._arrived = trio.Event()
        if self._missed:
            missed, self._missed = self._missed, 0
            return NoticesMissed(count=missed)
        notice = self._waiting.popleft()
        await trio.lowlevel.checkpoint()
        return notice

    def wants(self, notice: Notice) -> bool:
        if self.job is None:
            return True
        if isinstance(notice, SessionChanged):
            return notice.session == self.session
        return notice.job == self.job

    def tell(self, notice: Notice) -> None:
        if self._over or not self.wants(notice):
            return
        if isinstance(notice, JobEnded) and notice.job == self.job:
            self._over = True
        if not self._joined(notice):
            if len(self._waiting) >= BACKLOG:
                self._make_room()
            self._waiting.append(notice)
        self._arrived.set()

    def end(self) -> None:
        self._over = True
        self._arrived.set()

    def _joined(self, notice: Notice) -> bool:
        last = self._waiting[-1] if self._waiting else None
        if not (isinstance(notice, OutputAdded) and isinstance(last, OutputAdded)):
            return False
        if last.job != notice.job or last.kind is not notice.kind:
            return False
        if len(last.text) + len(notice.text) > _JOINED_AT_MOST:
            return False
        self._waiting[-1] = evolve(last, text=last.text + notice.text)
        return True

    def _make_room(self) -> None:
        for index, notice in enumerate(self._waiting):
            if isinstance(notice, _PROGRESS):
                del self._waiting[index]
                self._missed += 1
                return


@define(eq=False)
class Hub:
    """Where all notices go through. Keeps the last ones, so that who comes a moment late misses nothing."""

    position: int = field(default=0, init=False)
    _followers: WeakSet[Following] = field(factory=WeakSet[Following])
    _recent: deque[tuple[int, Notice]] = field(factory=lambda: deque[tuple[int, Notice]](maxlen=_REMEMBERED))

    def publish(self, notice: Notice) -> None:
        self.position += 1
        self._recent.append((self.position, notice))
        for follower in tuple(self._followers):
            follower.tell(notice)

    def follow(
        self, job: JobId | None = None, session: SessionKey | None = None, *, since: int | None = None
    ) -> Following:
        """Everything from now on, and before that what is still remembered from after `since`."""
        following = Following(job, session)
        if since is not None:
            for position, notice in tuple(self._recent):
                if position > since:
                    following.tell(notice)
        self._followers.add(following)
        return following

    def close(self) -> None:
        for follower in tuple(self._followers):
            follower.end()
