"""One peer: a task that reads, a task that writes, and one for each call and each subscription between them.

The reading side never waits for the writing side: what cannot be taken is refused at once, and a peer that
does not read is let go when the room for what it has to be told is used up.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Protocol

import trio
from attrs import define, field, frozen
from trio_websocket import ConnectionClosed, WebSocketConnection

from opencode_actors.door import calls
from opencode_actors.door.backlog import Backlog, BacklogFull
from opencode_actors.door.calls import BadCall, Call, Frame
from opencode_actors.door.commands import Command, Follow, Output, Unfollow
from opencode_actors.door.faults import CloseCode, Code, Fault, Refused, bug, busy, fault_of
from opencode_actors.door.limits import Limits
from opencode_actors.door.params import command_of
from opencode_actors.door.results import Document
from opencode_actors.errors import OpencodeActorsError, TooSlow
from opencode_actors.kernel.hub import Allowance, Following, NoticesMissed
from opencode_actors.kernel.supervisor import Supervisor
from opencode_actors.machines.notices import Notice


class Guest(Protocol):
    """What a peer is to the desk."""

    def say(self, method: str, params: Document) -> None:
        """Never waits. A peer that has gone, or has no room left, is not told."""
        ...

    def close(self, code: CloseCode, reason: str) -> None: ...


class Desk(Protocol):
    """What does the work that is asked for. Its calls raise `Refused`, and the package's own errors."""

    async def perform(self, command: Command, guest: Guest, /) -> Document: ...

    async def follow(self, command: Follow, allowance: Allowance, /) -> tuple[Following, int]:
        """The notices, kept within that, and the position at which they begin."""
        ...

    async def words(self, notice: Notice | NoticesMissed, /) -> str:
        """A notice as the JSON object that every follower is sent, `subscription` aside."""
        ...

    def lasts(self, command: Command, /) -> bool:
        """Whether half of it is worse than all of it, so that it goes on when its connection has gone."""
        ...

    def gone(self, guest: Guest, /) -> None:
        """The connection has ended."""
        ...


@define(eq=False)
class House:
    """What all connections share. `report` keeps a bug's details, and says where."""

    desk: Desk
    limits: Limits
    lasting: trio.Nursery
    report: Callable[[BaseException], str | None]
    supervisor: Supervisor = field(factory=Supervisor, init=False)
    subscriptions: int = field(default=0, init=False)
    lasting_calls: int = field(default=0, init=False)
    closing: bool = field(default=False, init=False)


@define(eq=False)
class _Subscription:
    """`seq` is the number of the last notice that was told; `announced` is set once the peer has been sent the answer that names it."""

    name: str
    following: Following
    seq: int
    announced: trio.Event = field(factory=trio.Event, init=False)
    scope: trio.CancelScope = field(factory=trio.CancelScope, init=False)


@define(eq=False)
class _Answers:
    """To one frame: a batch's belong together. `opened` are the subscriptions that they name."""

    batch: bool
    owed: int
    texts: list[str] = field(factory=list[str], init=False)
    opened: list[_Subscription] = field(factory=list[_Subscription], init=False)


@frozen
class _Closing:
    code: CloseCode
    reason: str


# The peer does not read: what waits is not written any more.
_WITHOUT_THE_REST = (CloseCode.TOO_SLOW, CloseCode.NO_PONG)


@define(eq=False, repr=False)
class Connection:
    house: House
    websocket: WebSocketConnection
    backlog: Backlog = field(init=False)
    allowance: Allowance = field(factory=Allowance, init=False)
    in_flight: int = field(default=0, init=False)
    _subscriptions: dict[str, _Subscription] = field(factory=dict[str, _Subscription], init=False)
    _numbers: Iterator[int] = field(factory=lambda: itertools.count(1), init=False)
    _closing: _Closing | None = field(default=None, init=False)
    _over: trio.Event = field(factory=trio.Event, init=False)
    _work: trio.Nursery | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.backlog = Backlog(self.house.limits)

    def __repr__(self) -> str:
        return (
            f"<Connection {self.in_flight} calls, {len(self._subscriptions)} subscriptions, {self.backlog!r}>"
        )

    async def serve(self) -> None:
        """Until it is closed, by whomever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write, nursery.cancel_scope)
            try:
                async with trio.open_nursery() as self._work:
                    self._work.start_soon(self._read)
                    self._work.start_soon(self._keep_alive)
                    await self._over.wait()
                    self._work.cancel_scope.cancel()
            finally:
                self._end(nursery.cancel_scope)
            await self._read_away()

    def _end(self, rest: trio.CancelScope) -> None:
        self._work = None
        self._over.set()
        self.house.desk.gone(self)
        for name in tuple(self._subscriptions):
            self._forget(name)
        self.backlog.close(drop=self._closing is not None and self._closing.code in _WITHOUT_THE_REST)
        # A frame that is half written is ended, and then the peer is told why it was the last.
        rest.deadline = trio.current_time() + self.house.limits.close_within

    # ---- a guest

    def say(self, method: str, params: Document) -> None:
        self._put(calls.notification(method, params))

    def close(self, code: CloseCode, reason: str) -> None:
        """The first reason stands."""
        if self._closing is None:
            self._closing = _Closing(code, reason)
        self._over.set()

    # ---- reading

    async def _read(self) -> None:
        try:
            while True:
                self._take(calls.read_frame(await self.websocket.get_message(), self.house.limits))
        except ConnectionClosed:
            self._over.set()

    async def _read_away(self) -> None:
        """A peer that sends and does not read would not come to read why it is closed."""
        try:
            while True:
                await self.websocket.get_message()
        except ConnectionClosed:
            pass

    def _take(self, frame: Frame) -> None:
        owed = sum(isinstance(call, BadCall) or call.answered for call in frame.calls)
        answers = _Answers(frame.batch, owed)
        for call in frame.calls:
            if isinstance(call, BadCall):
                self._deliver(answers, calls.error(call.id, call.fault))
                continue
            try:
                self._begin(call, answers)
            except Refused as refusal:
                if call.answered:
                    self._deliver(answers, calls.error(call.id, refusal.fault))

    def _begin(self, call: Call, answers: _Answers) -> None:
        limits, house = self.house.limits, self.house
        command = command_of(call.method, call.params)
        if self.in_flight >= limits.in_flight:
            raise Refused(busy(f"{limits.in_flight} calls of this connection are under way already"))
        lasts = house.desk.lasts(command)
        if lasts and house.lasting_calls >= limits.lasting_calls:
            raise Refused(busy(f"{limits.lasting_calls} calls are under way already"))
        nursery = house.lasting if lasts else self._work
        if nursery is not None:
            self.in_flight += 1
            house.lasting_calls += lasts
            nursery.start_soon(self._run, call, command, answers)

    async def _run(self, call: Call, command: Command, answers: _Answers) -> None:
        try:
            if isinstance(command, Output):
                await self._run_large(call, command, answers)
                return
            text = await self._answer(call, command, answers)
            if call.answered:
                self._deliver(answers, text)
        finally:
            self.in_flight -= 1
            self.house.lasting_calls -= self.house.desk.lasts(command)

    async def _run_large(self, call: Call, command: Command, answers: _Answers) -> None:
        """The slot comes first: what is not read yet takes no memory."""
        slots = self.backlog.large_answers
        await slots.acquire()
        text = await self._answer(call, command, answers)
        if call.answered and not answers.batch:
            self._deliver(answers, text, release=slots.release)
            return
        slots.release()
        if call.answered:
            self._deliver(answers, text)

    async def _answer(self, call: Call, command: Command, answers: _Answers) -> str:
        house, documents, faults = self.house, list[Document](), list[Fault]()

        async def work() -> None:
            try:
                documents.append(await self._perform(command, answers))
            except Refused as refusal:
                faults.append(refusal.fault)
            except OpencodeActorsError as error:
                faults.append(fault_of(error, closing=house.closing))

        wrong = await house.supervisor.watch(f"a call of {call.method}", work)
        if wrong is not None:
            faults.append(bug(house.report(wrong)))
        return calls.result(call.id, documents[0]) if documents else calls.error(call.id, faults[0])

    async def _perform(self, command: Command, answers: _Answers) -> Document:
        match command:
            case Follow():
                self._check_room()
                following, seq = await self.house.desk.follow(command, self.allowance)
                subscription = self._subscribe(following, seq)
                answers.opened.append(subscription)
                return {"subscription": subscription.name, "seq": seq}
            case Unfollow():
                if command.subscription not in self._subscriptions:
                    raise Refused(
                        Fault(
                            Code.USAGE,
                            f"this connection has no subscription {command.subscription}",
                            "it may be over",
                        )
                    )
                self._forget(command.subscription)
                await trio.lowlevel.checkpoint()
                return {}
            case _:
                return await self.house.desk.perform(command, self)

    # ---- answering

    def _deliver(self, answers: _Answers, text: str, release: Callable[[], None] | None = None) -> None:
        answers.texts.append(text)
        try:
            if len(answers.texts) < answers.owed:
                self.backlog.hold(len(text))
                return
            for waiting in answers.texts[:-1]:
                self.backlog.let_go(len(waiting))
            self.backlog.put(calls.batch(answers.texts) if answers.batch else text, release)
        except BacklogFull:
            self._too_slow()
        for subscription in answers.opened:
            subscription.announced.set()

    def _put(self, text: str, release: Callable[[], None] | None = None) -> None:
        try:
            self.backlog.put(text, release)
        except BacklogFull:
            self._too_slow()

    def _too_slow(self) -> None:
        self.close(CloseCode.TOO_SLOW, "nothing was read for too long; follow again with since")

    # ---- subscriptions

    def _check_room(self) -> None:
        limits = self.house.limits
        if len(self._subscriptions) >= limits.subscriptions:
            raise Refused(busy(f"a connection has at most {limits.subscriptions} subscriptions"))
        if self.house.subscriptions >= limits.all_subscriptions:
            raise Refused(busy(f"there are {limits.all_subscriptions} subscriptions already"))

    def _subscribe(self, following: Following, seq: int) -> _Subscription:
        self._check_room()  # again: others may have come while it was made
        subscription = _Subscription(f"sub_{next(self._numbers)}", following, seq)
        self._subscriptions[subscription.name] = subscription
        self.house.subscriptions += 1
        if self._work is not None:
            self._work.start_soon(self._tell, subscription)
        return subscription

    def _forget(self, name: str) -> None:
        subscription = self._subscriptions.pop(name, None)
        if subscription is not None:
            self.house.subscriptions -= 1
            subscription.scope.cancel()
            subscription.following.leave()

    async def _tell(self, subscription: _Subscription) -> None:
        """All that is heard there, as fast as the peer reads."""
        wrong = await self.house.supervisor.watch("a subscription", lambda: self._tell_all(subscription))
        if wrong is not None:
            self.house.report(wrong)
            self.close(CloseCode.GOING_AWAY, "a mistake in opencode-actors itself; follow again with since")

    async def _tell_all(self, subscription: _Subscription) -> None:
        name, reason = subscription.name, "what was followed is over"
        with subscription.scope:
            await subscription.announced.wait()
            try:
                async for notice in subscription.following:
                    await self._tell_one(name, notice)
                    if not isinstance(notice, NoticesMissed):
                        subscription.seq = notice.seq
            except TooSlow:
                self._too_slow()
                return
            except OpencodeActorsError as error:
                reason = error.message
            self.say("followEnded", {"subscription": name, "seq": subscription.seq, "reason": reason})
            self._forget(name)

    async def _tell_one(self, subscription: str, notice: Notice | NoticesMissed) -> None:
        slots, given_away = self.backlog.notices, False
        await slots.acquire()
        try:
            words = await self.house.desk.words(notice)
            self._put(_notice(subscription, words), release=slots.release)
            given_away = True
        finally:
            if not given_away:
                slots.release()

    # ---- writing

    async def _write(self, rest: trio.CancelScope) -> None:
        try:
            while (text := await self.backlog.take()) is not None:
                await self.websocket.send_message(text)
                self.backlog.written()
        except ConnectionClosed:
            self._over.set()
        closing = self._closing or _Closing(CloseCode.GOING_AWAY, "")
        await self.websocket.aclose(closing.code, closing.reason)
        rest.cancel()

    async def _keep_alive(self) -> None:
        """A peer that is half gone does not say so: it is asked."""
        limits = self.house.limits
        try:
            while True:
                await trio.sleep(limits.ping_every)
                with trio.fail_after(limits.pong_within):
                    await self.websocket.ping()
        except trio.TooSlowError:
            self.close(CloseCode.NO_PONG, f"no pong came within {limits.pong_within:g} s")
        except ConnectionClosed:
            self._over.set()


def _notice(subscription: str, words: str) -> str:
    """Put together from texts: a notice is encoded once, however many follow."""
    return (
        '{"jsonrpc":"2.0","method":"notice","params":{"subscription":"'
        + subscription
        + '",'
        + words.removeprefix("{")
        + "}"
    )
