"""The event stream of a fake OpenCode server, as one client reads it."""

from __future__ import annotations

import math
from collections import Counter

import trio
from attrs import define, evolve, field

from opencode_actors.errors import ServerUnreachable
from opencode_actors.machines.server_events import (
    ConversationIdle,
    Heartbeat,
    MessageUpdated,
    PartDelta,
    ServerEvent,
)

HEARTBEAT_EVERY = 10.0
# The real server buffers without end for a client that does not read, and dies of it. A client of the
# fake that lets this many events lie has a bug, and is cut off.
_HELD = 100_000
# What follows an idle is waited for so long when it is to be told before it.
_FOLLOWS_WITHIN = 0.5


@define(eq=False)
class StreamFaults:
    """Settable: `twice` tells all but deltas twice, and `late` tells what follows an idle before it. Nothing
    tells a delta from its copy, or two deltas' order, so no server may do either to them. `felt` counts what was
    told so."""

    twice: bool = False
    late: bool = False
    felt: Counter[str] = field(factory=Counter[str])


@define(eq=False)
class FakeStream:
    """Each item is all that has been published since the last one."""

    _url: str
    _faults: StreamFaults = field(factory=StreamFaults)
    _held: list[ServerEvent] = field(factory=list[ServerEvent])
    _news: trio.Event = field(factory=trio.Event)
    _ended: bool = False
    _frozen: bool = False
    _next_beat: float = field(factory=lambda: trio.current_time() + HEARTBEAT_EVERY)

    def publish(self, event: ServerEvent) -> None:
        if len(self._held) >= _HELD:
            self.end()
            return
        last = self._held[-1] if self._held else None
        if isinstance(event, PartDelta) and isinstance(last, PartDelta) and last.part == event.part:
            self._held[-1] = evolve(last, text=last.text + event.text)
        else:
            self._held.append(event)
        self._news.set()

    def end(self, *, losing: bool = False) -> None:
        """What was published before is read first, unless it is lost with it."""
        if losing:
            self._held.clear()
        self._ended = True
        self._news.set()

    def freeze(self, *, frozen: bool) -> None:
        self._frozen = frozen
        self._news.set()

    def __aiter__(self) -> FakeStream:
        return self

    async def __anext__(self) -> tuple[ServerEvent, ...]:
        await trio.lowlevel.checkpoint()
        while self._frozen or not self._held:
            if self._ended:
                raise ServerUnreachable(
                    f"OpenCode's server at {self._url} cannot be reached: the event stream ended"
                )
            await self._wait_news()
        if self._faults.late and isinstance(self._held[-1], ConversationIdle):
            await self._wait_for_more()
        held, self._held = self._held, []
        return _as_serialised(self._garbled(held))

    def _garbled(self, events: list[ServerEvent]) -> list[ServerEvent]:
        told: list[ServerEvent] = []
        for event in events:
            if self._faults.late and told and isinstance(told[-1], ConversationIdle):
                self._faults.felt["late"] += 1
                told.insert(-1, event)
            else:
                told.append(event)
        copies = 2 if self._faults.twice else 1
        self._faults.felt["twice"] += self._faults.twice
        return [event for event in told for _ in range(1 if isinstance(event, PartDelta) else copies)]

    async def _wait_for_more(self) -> None:
        self._news = trio.Event()
        with trio.move_on_after(_FOLLOWS_WITHIN):
            await self._news.wait()

    async def _wait_news(self) -> None:
        self._news = trio.Event()
        deadline = math.inf if self._frozen else self._next_beat
        with trio.move_on_at(deadline) as scope:
            await self._news.wait()
        if scope.cancelled_caught:
            self._held.append(Heartbeat())
            self._next_beat = trio.current_time() + HEARTBEAT_EVERY


def _as_serialised(events: list[ServerEvent]) -> tuple[ServerEvent, ...]:
    """The real server turns its events into text late, from objects that have moved on: each message of
    a batch shows its last state, so that `completed` may come before the text that it completes."""
    last = {event.info.id: event.info for event in events if isinstance(event, MessageUpdated)}
    return tuple(
        MessageUpdated(info=last[event.info.id]) if isinstance(event, MessageUpdated) else event
        for event in events
    )
