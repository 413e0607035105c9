"""An actor's mailbox: outsiders wait for one of its places, its own work and its peers never wait.

What an actor starts itself comes back once for each operation or timer, so it is bounded by what the
actor started. What peers tell is bounded at its source: the one stream that brings much waits for
`wait_room`. Nothing here waits for a reader that is gone: a closed mailbox takes messages and drops them.
"""

from __future__ import annotations

import math
from typing import Generic, TypeVar

import trio
from attrs import define, field, frozen

from opencode_actors.errors import Busy

PLACES = 64

MessageT = TypeVar("MessageT")


@frozen
class Ticket:
    """One start of a timer or an operation."""

    name: object
    serial: int


@frozen
class Letter(Generic[MessageT]):
    """`last` is what ends the ticket's work: nothing more comes under it. Without a `message` it says only
    that."""

    message: MessageT | None
    ticket: Ticket | None = None
    last: bool = False
    takes_place: bool = False


@frozen(kw_only=True)
class MailboxStatistics:
    waiting: int
    taken: int
    outsiders_waiting: int


@define(eq=False, repr=False)
class Mailbox(Generic[MessageT]):
    owner: str
    closed: bool = field(default=False, init=False)
    _taken: int = field(default=0, init=False)
    _waiting: int = field(default=0, init=False)
    _places: trio.Semaphore = field(factory=lambda: trio.Semaphore(PLACES), init=False)
    _room: trio.Event = field(factory=trio.Event, init=False)
    _channel: tuple[trio.MemorySendChannel[Letter[MessageT]], trio.MemoryReceiveChannel[Letter[MessageT]]] = (
        field(factory=lambda: trio.open_memory_channel[Letter[MessageT]](math.inf), init=False)
    )

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{self._waiting} waiting"
        return f"<Mailbox of {self.owner}, {state}>"

    def put(self, message: MessageT | None, ticket: Ticket | None = None, *, last: bool = False) -> None:
        """For the actor's own work and for its peers."""
        self._put(Letter(message, ticket, last))

    async def send(self, message: MessageT) -> None:
        """For outsiders: waits for a place."""
        if self.closed:
            await trio.lowlevel.checkpoint()
            return
        await self._places.acquire()
        self._put(Letter(message, takes_place=True))

    def send_nowait(self, message: MessageT) -> None:
        """For outsiders who would rather hear `Busy` than wait."""
        if self.closed:
            return
        try:
            self._places.acquire_nowait()
        except trio.WouldBlock:
            raise Busy(
                f"{self.owner} has {PLACES} requests waiting already", hint="try again in a moment"
            ) from None
        self._put(Letter(message, takes_place=True))

    async def receive(self) -> Letter[MessageT]:
        letter = await self._channel[1].receive()
        self._taken += 1
        self._waiting -= 1
        if letter.takes_place:
            self._places.release()
        if self._waiting < PLACES:
            self._wake()
        return letter

    async def wait_room(self) -> None:
        """Until there is less than a full mailbox to read, or nobody reads it any more."""
        while self._waiting >= PLACES and not self.closed:
            await self._room.wait()

    def close(self) -> None:
        """What is in it is dropped, and so is all that comes."""
        self.closed = True
        self._waiting = 0
        self._channel[1].close()
        self._wake()
        for _ in range(self._places.statistics().tasks_waiting):
            self._places.release()

    def statistics(self) -> MailboxStatistics:
        return MailboxStatistics(
            waiting=self._waiting,
            taken=self._taken,
            outsiders_waiting=self._places.statistics().tasks_waiting,
        )

    def _put(self, letter: Letter[MessageT]) -> None:
        if self.closed:
            return
        self._waiting += 1
        self._channel[0].send_nowait(letter)

    def _wake(self) -> None:
        self._room.set()
        self._room = trio.Event()
