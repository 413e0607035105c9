"""What waits to be written to one peer: bounded, and nothing in it is ever left out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio
from attrs import define, field, frozen

from opencode_actors.door.limits import Limits


class BacklogFull(Exception):
    """The peer does not read, and there is no room for what it has to be told."""


@frozen
class _Waiting:
    """`release` is of who has a slot for it."""

    text: str
    release: Callable[[], None] | None


@define(eq=False, repr=False)
class Backlog:
    """Notices and large answers take a slot of their kind before there is a text of them, and give it back
    when that has been written. So what is not read yet waits where it is bounded already: at a follower, or
    in a file. All else is small, waits here, and is bounded in bytes."""

    limits: Limits
    notices: trio.Semaphore = field(init=False)
    large_answers: trio.Semaphore = field(init=False)
    _waiting: deque[_Waiting] = field(factory=deque[_Waiting], init=False)
    _leaving: _Waiting | None = field(default=None, init=False)
    _bytes: int = field(default=0, init=False)
    _closed: bool = field(default=False, init=False)
    _arrived: trio.Event = field(factory=trio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        self.notices = trio.Semaphore(self.limits.slots)
        self.large_answers = trio.Semaphore(2)  # one is read while the other is written

    def __repr__(self) -> str:
        return f"<Backlog of {len(self._waiting)} frames, {self._bytes} bytes>"

    def hold(self, size: int) -> None:
        """Counts what will be put later, in one frame with others. Raises `BacklogFull`."""
        if self._bytes + size > self.limits.backlog:
            raise BacklogFull
        self._bytes += size

    def let_go(self, size: int) -> None:
        self._bytes -= size

    def put(self, text: str, release: Callable[[], None] | None = None) -> None:
        """Never waits. Raises `BacklogFull`, but not with a slot, which it `release`s when it has left."""
        if release is None:
            self.hold(len(text))
        self._waiting.append(_Waiting(text, release))
        self._arrived.set()

    async def take(self) -> str | None:
        """The next one, which counts until it is `written`; None when it is closed and all has left."""
        while not self._waiting:
            if self._closed:
                return None
            self._arrived = trio.Event()
            await self._arrived.wait()
        self._leaving = self._waiting.popleft()
        return self._leaving.text

    def written(self) -> None:
        """What was taken last has left."""
        left, self._leaving = self._leaving, None
        if left is None:
            return
        if left.release is None:
            self._bytes -= len(left.text)
        else:
            left.release()

    def close(self, *, drop: bool) -> None:
        """Nothing more comes; what waits is `drop`ped, or still written."""
        self._closed = True
        if drop:
            self._waiting.clear()
        self._arrived.set()
