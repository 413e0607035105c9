"""The shell around a machine: receive, drop what is stale, decide, record, act.

1. A forgotten operation or timer is never heard again: each start has a ticket, and a letter whose
   ticket is not the current one of its name is dropped at the mailbox's door. One that was forgotten
   before its task had its first turn never begins.
2. Expected failures come back as facts; anything else is a bug that ends the actor and is seen.
3. Records and notices are durable, together, before the state is taken over, and the state before the
   other effects are out. The journal tells the notices, in the order of their numbers.
4. An actor never awaits another: what it tells its peers is put into their mailboxes.
5. Every ask is answered exactly once, with `ActorGone` when the actor ends before it decided it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any, Generic, Protocol, TypeVar, cast

import trio
from attrs import define, field, frozen

from opencode_actors.errors import ActorGone
from opencode_actors.kernel.mailbox import Letter, Mailbox, MailboxStatistics, Ticket
from opencode_actors.machines.notices import Notice, Publish, Record, Step
from opencode_actors.machines.vocabulary import (
    AskId,
    Finish,
    Forget,
    Moment,
    Reply,
    Run,
    StartTimer,
    StopTimer,
)

StateT = TypeVar("StateT")
MessageT = TypeVar("MessageT")
EffectT = TypeVar("EffectT")
SaidT_contra = TypeVar("SaidT_contra", contravariant=True)
MessageT_co = TypeVar("MessageT_co", covariant=True)
EffectT_contra = TypeVar("EffectT_contra", contravariant=True)

Clock = Callable[[], Moment]

# For a command that nobody waits to hear the answer of; asks count from 1.


class Post(Protocol[SaidT_contra]):
    """How an operation that goes on says something before it ends. Waits while nobody reads."""

    async def __call__(self, message: SaidT_contra) -> None: ...


class Shell(Protocol[MessageT_co, EffectT_contra]):
    """What an actor's surroundings do for it."""

    async def perform(self, operation: Any, post: Post[MessageT_co]) -> MessageT_co | None:
        """Does one operation. Its expected failures are messages; what it raises is a bug."""
        ...

    def fired(self, timer: Any) -> MessageT_co: ...

    def deliver(self, effect: EffectT_contra) -> None:
        """An effect that is not about the actor itself: a word to a peer."""
        ...

    async def record(self, records: tuple[Record, ...], notices: tuple[Notice, ...], at: float) -> None:
        """Returns when they are durable and the notices are told, with the time of day `at`."""
        ...


@define(eq=False)
class _Ask:
    answered: trio.Event = field(factory=trio.Event)
    value: object = None


@frozen(kw_only=True)
class ActorStatistics:
    """`running` names the operations and timers of which something may still be heard; `tasks` counts those that have
    not ended, forgotten ones that still clean up behind themselves with them."""

    mailbox: MailboxStatistics
    decisions: int
    stale: int
    running: tuple[str, ...]
    tasks: int
    asks: int


@define(eq=False, repr=False)
class Actor(Generic[StateT, MessageT, EffectT]):
    name: str
    state: StateT
    handle: Callable[[StateT, MessageT, Moment], Step[StateT, EffectT]]
    shell: Shell[MessageT, EffectT]
    clock: Clock
    mailbox: Mailbox[MessageT] = field(init=False)
    _serial: int = field(default=0, init=False)
    _decisions: int = field(default=0, init=False)
    _stale: int = field(default=0, init=False)
    _tasks: int = field(default=0, init=False)
    _finished: bool = field(default=False, init=False)
    _started: dict[object, tuple[Ticket, trio.CancelScope]] = field(factory=dict[object, Any], init=False)
    _asks: dict[AskId, _Ask] = field(factory=dict[AskId, _Ask], init=False)

    def __attrs_post_init__(self) -> None:
        self.mailbox = Mailbox(self.name)

    def __repr__(self) -> str:
        phase = type(getattr(self.state, "phase", self.state)).__name__
        return f"<{type(self).__name__} {self.name} {phase}>"

    async def run(self) -> None:
        """Until the machine says that it is finished, and all that it started has ended."""
        try:
            async with trio.open_nursery() as nursery:
                while not self._finished:
                    letter = await self.mailbox.receive()
                    if self._is_current(letter) and letter.message is not None:
                        await self._decide(letter.message, nursery)
                # What still cleans up behind itself may take its time; who asks need not wait for it.
                self._close()
                nursery.cancel_scope.cancel()
        finally:
            self._close()

    async def ask(self, make: Callable[[AskId], MessageT]) -> object:
        """Sends a command or a query, waits for its one answer. Raises `ActorGone`."""
        if self.mailbox.closed:
            raise self._gone()
        self._serial += 1
        ask_id, ask = AskId(self._serial), _Ask()
        self._asks[ask_id] = ask
        try:
            await self.mailbox.send(make(ask_id))
            await ask.answered.wait()
        finally:
            self._asks.pop(ask_id, None)
        if isinstance(ask.value, ActorGone):
            raise ask.value
        return ask.value

    def statistics(self) -> ActorStatistics:
        return ActorStatistics(
            mailbox=self.mailbox.statistics(),
            decisions=self._decisions,
            stale=self._stale,
            running=tuple(_in_words(name) for name in self._started),
            tasks=self._tasks,
            asks=len(self._asks),
        )

    # ---- deciding

    def _is_current(self, letter: Letter[MessageT]) -> bool:
        """Whether it is to be decided: not when its operation or timer was forgotten or started anew."""
        ticket = letter.ticket
        if ticket is None:
            return True
        started = self._started.get(ticket.name)
        if started is None or started[0] is not ticket:
            self._stale += 1
            return False
        if letter.last:
            del self._started[ticket.name]
        return True

    async def _decide(self, message: MessageT, nursery: trio.Nursery) -> None:
        self._decisions += 1
        moment = self.clock()
        step = self.handle(self.state, message, moment)
        notices = tuple(effect.notice for effect in step.effects if isinstance(effect, Publish))
        if step.records or notices:
            await self.shell.record(step.records, notices, moment.wall)
        self.state = step.state
        for effect in step.effects:
            self._act(effect, nursery)

    def _act(self, effect: EffectT, nursery: trio.Nursery) -> None:
        match effect:
            case Run():
                operation = cast("Run[object]", effect).operation
                self._start(type(operation), nursery, lambda ticket: self._perform(operation, ticket))
            case StartTimer():
                start = cast("StartTimer[object]", effect)
                self._start(start.timer, nursery, lambda ticket: self._sleep(start, ticket))
            case Forget():
                self._forget(cast("Forget[object]", effect).kind)
            case StopTimer():
                self._forget(cast("StopTimer[object]", effect).timer)
            case Reply(ask=ask, value=value):
                self._reply(ask, value)
            case Finish():
                self._finished = True
            case Publish():
                pass  # told when it was recorded
            case _:
                self.shell.deliver(effect)

    # ---- operations and timers

    def _start(self, name: object, nursery: trio.Nursery, work: Callable[[Ticket], Awaitable[None]]) -> None:
        self._forget(name)
        self._serial += 1
        ticket, scope = Ticket(name, self._serial), trio.CancelScope()
        self._started[name] = (ticket, scope)
        nursery.start_soon(self._in_scope, work, ticket, scope)

    async def _in_scope(
        self, work: Callable[[Ticket], Awaitable[None]], ticket: Ticket, scope: trio.CancelScope
    ) -> None:
        self._tasks += 1
        try:
            with scope:
                # Without this, what was forgotten at once would still send its first request.
                await trio.lowlevel.checkpoint_if_cancelled()
                await work(ticket)
        finally:
            self._tasks -= 1

    async def _perform(self, operation: object, ticket: Ticket) -> None:
        async def post(message: MessageT) -> None:
            await self.mailbox.wait_room()
            self.mailbox.put(message, ticket)

        # Also when there is no last word: what was said before it may not be read yet.
        self.mailbox.put(await self.shell.perform(operation, post), ticket, last=True)

    async def _sleep(self, start: StartTimer[object], ticket: Ticket) -> None:
        await trio.sleep(start.seconds)
        self.mailbox.put(self.shell.fired(start.timer), ticket, last=True)

    def _forget(self, name: object) -> None:
        started = self._started.pop(name, None)
        if started is not None:
            started[1].cancel()

    # ---- asks

    def _reply(self, ask_id: AskId, value: object) -> None:
        ask = self._asks.get(ask_id)
        if ask is not None and not ask.answered.is_set():
            ask.value = value
            ask.answered.set()

    def _gone(self) -> ActorGone:
        return ActorGone(f"{self.name} has ended")

    def _close(self) -> None:
        self.mailbox.close()
        for ask_id in tuple(self._asks):
            self._reply(ask_id, self._gone())


def _in_words(name: object) -> str:
    if isinstance(name, Enum):
        return str(name.value)
    return name.__name__ if isinstance(name, type) else str(name)
