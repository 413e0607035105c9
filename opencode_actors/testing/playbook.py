"""A machine on a table: a message in, the effects out, and a clock that a test moves.

    book = Playbook(job.handle, new_job(...))
    book.tell(turn).expect(JobStarted, SubmitPrompt, JobTimer.IDLE)
    book.answer(SubmitPrompt, PromptTaken()).expect(JobTimer.START)
    book.advance(30.0).expect(ReadConversation)

The playbook is the shell without its I/O: it starts and stops timers and operations as the effects say,
refuses what the shell would drop as stale, and keeps replies, notices, records and words to peers.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, assert_never, cast

from attrs import define, field

from opencode_actors.machines.job_messages import JobTimer, JobTimerFired, TellSession
from opencode_actors.machines.notices import Notice, OutputRecorded, Publish, Record, Step
from opencode_actors.machines.session_messages import SessionTimer, SessionTimerFired, TellJob
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
NoticeT = TypeVar("NoticeT")
OperationT = TypeVar("OperationT")

# Every effect that a shell knows.
Known = (
    Run[Any]
    | Forget[Any]
    | StartTimer[Any]
    | StopTimer[Any]
    | Reply
    | Publish
    | TellSession
    | TellJob
    | Finish
)

# Monday, 2024-01-01, 00:00 UTC: a book that opens at any other time says so.
EPOCH = 1_704_067_200.0


@define(eq=False)
class Playbook(Generic[StateT, MessageT, EffectT]):
    """`effects` and `records` are those of the last message, or of all that one `advance` fired."""

    handle: Callable[[StateT, MessageT, Moment], Step[StateT, EffectT]]
    state: StateT
    now: float = field(default=0.0, kw_only=True)
    roll: float = field(default=0.5, kw_only=True)
    ahead: float = field(default=0.0, kw_only=True)  # of the time of day, settable
    effects: tuple[EffectT, ...] = field(default=(), init=False)
    records: tuple[Record, ...] = field(default=(), init=False)
    timers: dict[Any, float] = field(factory=dict[Any, float], init=False)
    operations: dict[type[Any], Any] = field(factory=dict[type[Any], Any], init=False)
    replies: dict[AskId, object] = field(factory=dict[AskId, object], init=False)
    notices: list[Notice] = field(factory=list[Notice], init=False)
    told: list[TellSession | TellJob] = field(factory=list[TellSession | TellJob], init=False)
    recorded: list[Record] = field(factory=list[Record], init=False)
    finished: bool = field(default=False, init=False)
    _owed: set[AskId] = field(factory=set[AskId], init=False)
    _last: str = field(default="nothing yet", init=False)

    # ---- in

    def tell(self, message: MessageT) -> Self:
        """Says `message` to the machine, from outside or from a peer."""
        self._begin(type(message).__name__)
        self._take(message)
        return self

    def answer(self, kind: type[Any], message: MessageT) -> Self:
        """The last word of the operation of this kind, which must be in flight."""
        self._in_flight(kind)
        del self.operations[kind]
        return self.tell(message)

    def hear(self, kind: type[Any], message: MessageT) -> Self:
        """A word of an operation that goes on."""
        self._in_flight(kind)
        return self.tell(message)

    def advance(self, seconds: float) -> Self:
        """Moves the clock, and fires what becomes due on the way, each at its own time, in order."""
        self._begin(f"advance({seconds:g})")
        until = self.now + seconds
        while (due := self.next_due()) is not None and self.timers[due] <= until:
            self.now = max(self.now, self.timers.pop(due))
            self._take(fired(due))
        self.now = until
        return self

    # ---- out

    def expect(self, *expected: object) -> Self:
        """These effects and no others, in this order.

        Each is an effect, what it carries (an operation, a notice, a word to a peer, a timer that is
        started, the value of a reply), or the class of either.
        """
        wanted = [_show(item) for item in expected]
        found = [
            _show(item) if _matches(item, effect) else _show(effect)
            for item, effect in zip(expected, self.effects, strict=False)
        ]
        found += [_show(effect) for effect in self.effects[len(expected) :]]
        if wanted != found:
            difference = "\n".join(difflib.ndiff(wanted, found))
            raise AssertionError(f"after {self._last} (- expected, + came):\n{difference}")
        return self

    def expect_some(self, *expected: object) -> Self:
        """These effects in this order, whatever else stands between them."""
        rest = iter(self.effects)
        for item in expected:
            if not any(_matches(item, effect) for effect in rest):
                came = "\n  ".join(_show(effect) for effect in self.effects) or "(nothing)"
                raise AssertionError(
                    f"after {self._last}: no {_show(item)} in its turn; there came\n  {came}"
                )
        return self

    def expect_nothing(self) -> Self:
        return self.expect()

    def next_due(self) -> Any | None:
        return min(self.timers, key=lambda timer: self.timers[timer]) if self.timers else None

    def running(self, kind: type[OperationT]) -> OperationT:
        """The operation of this kind that is in flight."""
        self._in_flight(kind)
        operation: OperationT = self.operations[kind]
        return operation

    def noticed(self, kind: type[NoticeT]) -> list[NoticeT]:
        """Every notice of this kind, from the beginning."""
        return [notice for notice in self.notices if isinstance(notice, kind)]

    @property
    def output(self) -> str:
        """What stands in the output file by now."""
        return "".join(record.text for record in self.recorded if isinstance(record, OutputRecorded))

    @property
    def owed(self) -> frozenset[AskId]:
        """The asks that have no answer yet."""
        return frozenset(self._owed)

    # ---- the shell

    def _begin(self, what: str) -> None:
        self.effects, self.records, self._last = (), (), what

    def _take(self, message: MessageT) -> None:
        ask: AskId | None = getattr(message, "ask", None)
        if ask is not None:
            self._owed.add(ask)
        moment = Moment(now=self.now, wall=EPOCH + self.now + self.ahead, roll=self.roll)
        step = self.handle(self.state, message, moment)
        self.state = step.state
        self.records += step.records
        self.recorded += step.records
        self.effects += step.effects
        for effect in step.effects:
            self._act(cast(Known, effect))

    def _act(self, effect: Known) -> None:
        match effect:
            case StartTimer(timer=timer, seconds=seconds):
                if seconds < 0:
                    raise AssertionError(f"{timer} would fire in the past ({seconds:g} s)")
                self.timers.pop(timer, None)
                self.timers[timer] = self.now + seconds
            case StopTimer(timer=timer):
                self.timers.pop(timer, None)
            case Run(operation=operation):
                self.operations[type(operation)] = operation
            case Forget(kind=kind):
                self.operations.pop(kind, None)
            case Reply(ask=ask, value=value):
                if ask not in self._owed:
                    raise AssertionError(f"ask {ask} is answered, and nobody waits for it: {value!r}")
                self._owed.remove(ask)
                self.replies[ask] = value
            case Publish(notice=notice):
                self.notices.append(notice)
            case TellSession() | TellJob():
                self.told.append(effect)
            case Finish():
                if self.finished:
                    raise AssertionError("finished a second time")
                self.finished = True
            case _:
                assert_never(effect)
        if self.finished:
            self.timers.clear()
            self.operations.clear()

    def _in_flight(self, kind: type[Any]) -> None:
        if kind not in self.operations:
            flying = ", ".join(sorted(kind.__name__ for kind in self.operations)) or "nothing"
            raise AssertionError(
                f"no {kind.__name__} is in flight, the shell would drop its words; {flying} is"
            )


def fired(timer: JobTimer | SessionTimer) -> Any:
    """What a machine is told when its timer fires."""
    if isinstance(timer, JobTimer):
        return JobTimerFired(timer=timer)
    return SessionTimerFired(timer=timer)


def _carried(effect: Known) -> object:
    match effect:
        case Run(operation=operation):
            return operation
        case Publish(notice=notice):
            return notice
        case TellSession(message=message) | TellJob(message=message):
            return message
        case StartTimer(timer=timer):
            return timer
        case Reply(value=value):
            return value
        case _:
            return effect


def _matches(expected: object, effect: object) -> bool:
    carried = _carried(cast(Known, effect))
    if isinstance(expected, type):
        return isinstance(effect, expected) or isinstance(carried, expected)
    return expected in (effect, carried)


def _show(item: object) -> str:
    if isinstance(item, type):
        return item.__name__
    text = repr(item)
    return text if len(text) <= 300 else text[:299] + "…"
