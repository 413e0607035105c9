"""Who is told that a job has settled, when, and what an answer means.

A notification is one row of the journal, written with the record of the job's end. It is offered to a
client that attends, where a chat session asked for the job, and sent to the webhook otherwise. The rows
are the queue; in here is only what is under way, so that a thousand rows take no more memory than one.

What is wrong with the endpoint (nobody listens, too many requests) makes all of them wait, and the next
one alone tries whether it is right again. What is wrong with one notification makes that one wait.
"""

from __future__ import annotations

from enum import Enum
from typing import TypeAlias, assert_never

from attrs import evolve, frozen

from opencode_actors.machines import outbox_messages as m
from opencode_actors.machines.notices import (
    NotificationFailed,
    NotificationRecorded,
    Publish,
    Record,
    Step,
)
from opencode_actors.machines.outbox_messages import Notification, OutboxEffect, OutboxMessage, OutboxTimer
from opencode_actors.machines.vocabulary import (
    ROUNDING,
    AskId,
    Forget,
    JobId,
    Moment,
    NotificationState,
    Reply,
    Run,
    StartTimer,
)
from opencode_actors.ports import HookAnswer

# A gateway that starts takes 8 to 30 s: the first delays find it soon, the last ones are for a night.
FIRST_DELAY = 1.0
DELAY_FACTOR = 2.0
LONGEST_DELAY = 300.0
JITTER = 0.5
# A Retry-After beyond this is nonsense or an attack, and would outlast the notification.
LONGEST_RETRY_AFTER = 3600.0
# Those that are sent beside each other; OpenClaw runs an agent's turns one after another in any case.
BATCH = 4
# How many an attendant may hold that it has not acknowledged; beyond that the next way is taken.
HOLDS = 16
# The rows of one look. More than what can go out by all ways at once.
LOOK_AT = 64
# The time of day may be set while a timer runs.
LONGEST_TIMER = 3600.0
# The time of day is slewed by at most 500 ppm against the shell's clock: 1.8 s in the longest wait.
CLOCKS_DIFFER = 5.0


@frozen(kw_only=True)
class OutboxPolicy:
    """`claim` is how long an attendant may take to acknowledge."""

    give_up_after: float
    claim: float


@frozen(kw_only=True)
class Held:
    """Offered to an attendant, and not acknowledged yet."""

    notification: Notification
    attendant: m.AttendantId


@frozen(kw_only=True)
class OutboxState:
    """`webhook` is whether there is one. `failures` of the endpoint in a row; until `opens_at` (on the
    shell's clock) nothing is sent to it. `busy` while a batch is under way, `sending` are those of it that
    have no answer yet. `looking` while the rows are read, `again` when one came meanwhile, `touched` those
    that were decided meanwhile: what was read of them is old. `put_off_until` (on the shell's clock too) is the end of
    the longest wait that was ordered here: what says that it waits longer was written by another clock. When it is
    `ending` nothing new is begun."""

    policy: OutboxPolicy
    webhook: bool
    attendants: tuple[m.AttendantId, ...] = ()
    held: tuple[Held, ...] = ()
    failures: int = 0
    opens_at: float = 0.0
    busy: bool = False
    sending: tuple[Notification, ...] = ()
    looking: bool = False
    again: bool = False
    touched: frozenset[JobId] = frozenset()
    flushing: tuple[AskId, ...] = ()
    put_off_until: float = 0.0
    ending: bool = False


OutboxStep: TypeAlias = Step[OutboxState, OutboxEffect]


class Meaning(Enum):
    """What an answer says: taken, never to be taken, not now for this one, not now for any."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    AGAIN = "again"
    DOWN = "down"


_AGAIN = (408, 409, 425)  # 409: OpenClaw could not admit it into that session at this moment
_DOWN = (429, 502, 503, 504)


def meaning(answer: HookAnswer) -> Meaning:
    status = answer.status
    if status is None or status in _DOWN:
        return Meaning.DOWN
    if 200 <= status < 300:
        return Meaning.ACCEPTED
    if 300 <= status < 500 and status not in _AGAIN:
        return Meaning.REFUSED
    return Meaning.AGAIN


def delay(failures: int, roll: float) -> float:
    """Before the attempt that follows so many in vain (at least one)."""
    # 2 ** 30 is beyond every cap; a float would overflow at 2 ** 1024.
    plain = FIRST_DELAY * DELAY_FACTOR ** min(failures - 1, 30)
    return min(plain, LONGEST_DELAY) * (1 + JITTER * roll)


def handle(state: OutboxState, message: OutboxMessage, moment: Moment) -> OutboxStep:
    step = _decided(state, message, moment)
    return _flushed(step)


def _decided(state: OutboxState, message: OutboxMessage, moment: Moment) -> OutboxStep:
    match message:
        case m.NotificationQueued() | m.OutboxTimerFired():
            return _look(state, moment)
        case m.AttendantCame():
            return _look(evolve(state, attendants=(*state.attendants, message.attendant)), moment)
        case m.AttendantLeft():
            return _left(state, message.attendant, moment)
        case m.AcknowledgeNotification():
            return _acknowledged(state, message)
        case m.FlushOutbox():
            return _look(evolve(state, flushing=(*state.flushing, message.ask)), moment)
        case m.EndOutbox():
            return _ending(state, message.ask)
        case m.NotificationsFound():
            return _found(state, message, moment)
        case m.NotificationAnswered():
            return _answered(state, message, moment)
        case m.SendingOver():
            return _look(evolve(state, busy=False, sending=()), moment)
        case _:
            assert_never(message)


# ---- looking for what is due


def _look(state: OutboxState, moment: Moment, records: tuple[Record, ...] = ()) -> OutboxStep:
    if state.looking:
        return Step(state=evolve(state, again=True), records=records)
    if state.ending:
        return Step(state=state, records=records)
    if not (_can_send(state, moment) or state.attendants):
        return Step(state=state, effects=_wake_when_open(state, moment), records=records)
    operation = m.LookForNotifications(
        now=moment.wall,
        latest=moment.wall + max(state.put_off_until - moment.now, 0.0) + CLOCKS_DIFFER,
        limit=LOOK_AT,
        aimed_only=not _can_send(state, moment),
    )
    return Step(
        state=evolve(state, looking=True, again=False, touched=frozenset()),
        effects=(Run(operation=operation),),
        records=records,
    )


def _can_send(state: OutboxState, moment: Moment) -> bool:
    return state.webhook and not state.busy and _closed_for(state, moment) == 0.0


def _closed_for(state: OutboxState, moment: Moment) -> float:
    rest = state.opens_at - moment.now
    return rest if rest > ROUNDING else 0.0


def _wake_when_open(state: OutboxState, moment: Moment) -> tuple[OutboxEffect, ...]:
    rest = _closed_for(state, moment)
    if not state.webhook or state.busy or not rest:
        return ()
    return (StartTimer(timer=OutboxTimer.LOOK, seconds=rest),)


def _found(state: OutboxState, message: m.NotificationsFound, moment: Moment) -> OutboxStep:
    old, again = state.touched, state.again
    state = evolve(state, looking=False, again=False, touched=frozenset())
    may_send, closed = _can_send(state, moment), _closed_for(state, moment)
    room = (BATCH if not state.failures else 1) if may_send else 0
    batch: list[Notification] = []
    effects: list[OutboxEffect] = []
    records: list[NotificationRecorded] = []
    for one in message.found:
        if one.job in old or any(one.job == other.job for other in state.sending):
            continue
        state = _without(state, one.job)  # whoever held it is late
        attendant = _next_attendant(state, one)
        if moment.wall - one.since >= state.policy.give_up_after:
            record, told = _expired(state, one)
            records.append(record)
            effects.append(told)
        elif attendant is not None:
            offered, until = evolve(one, last_offer=attendant), moment.wall + state.policy.claim
            state = _put_off(state, state.policy.claim, moment)
            state = evolve(state, held=(*state.held, Held(notification=offered, attendant=attendant)))
            records.append(_record(offered, NotificationState.CLAIMED, due=until))
            effects.append(m.OfferNotification(attendant=attendant, job=one.job))
        elif len(batch) < room:
            batch.append(one)
        elif not state.webhook or closed:
            # Nothing can be done for it now, and left where it is it would hide those behind it.
            left = one if closed else evolve(one, attempts=one.attempts + 1, last_offer=0)
            wait = closed or delay(left.attempts, moment.roll)
            state, due = _put_off(state, wait, moment), moment.wall + wait
            records.append(_record(left, NotificationState.PENDING, due=due))
    if batch:
        state = evolve(state, busy=True, sending=tuple(batch))
        effects.append(Run(operation=m.SendNotifications(batch=tuple(batch))))
    next_due = min(
        (*(record.due for record in records if record.open), *_some(message.next_due)), default=None
    )
    effects.extend(_next_look(state, moment, next_due))
    step = Step(state=state, effects=tuple(effects), records=tuple(records))
    return _also(_look(state, moment), step) if again else step


def _some(due: float | None) -> tuple[float, ...]:
    return () if due is None else (due,)


def _next_attendant(state: OutboxState, one: Notification) -> m.AttendantId | None:
    """The one that came last first, each of them once, then the webhook. Their numbers only grow."""
    if not one.aimed:
        return None
    for attendant in sorted(state.attendants, reverse=True):
        has_room = sum(held.attendant == attendant for held in state.held) < HOLDS
        if has_room and not 0 < one.last_offer <= attendant:
            return attendant
    return None


def _next_look(state: OutboxState, moment: Moment, next_due: float | None) -> tuple[OutboxEffect, ...]:
    waits = [] if next_due is None else [max(next_due - moment.wall, 0.0)]
    closed = _closed_for(state, moment)
    if closed and state.webhook:
        waits.append(closed)
    if not waits:
        return ()
    # Never at once: what is due at this very moment was found, or is on its way.
    seconds = min(max(min(waits), 2 * ROUNDING), LONGEST_TIMER)
    return (StartTimer(timer=OutboxTimer.LOOK, seconds=seconds),)


# ---- attendants


def _left(state: OutboxState, attendant: m.AttendantId, moment: Moment) -> OutboxStep:
    """What it held is offered to the next, or sent."""
    records: list[Record] = []
    for held in state.held:
        if held.attendant == attendant:
            state = _without(state, held.notification.job)
            records.append(_record(held.notification, NotificationState.PENDING, due=moment.wall))
    state = evolve(state, attendants=tuple(here for here in state.attendants if here != attendant))
    return _look(state, moment, tuple(records))


def _acknowledged(state: OutboxState, message: m.AcknowledgeNotification) -> OutboxStep:
    """Also one that was late: what is under way for it cannot be called back, but nothing is tried again."""
    record = NotificationRecorded(job=message.job, state=NotificationState.DONE)
    return Step(
        state=_without(state, message.job),
        effects=(Reply(ask=message.ask, value=None),),
        records=(record,),
    )


def _without(state: OutboxState, job: JobId) -> OutboxState:
    """It is decided, whatever is read of it in the look that is under way."""
    return evolve(
        state,
        held=tuple(held for held in state.held if held.notification.job != job),
        sending=tuple(one for one in state.sending if one.job != job),
        touched=state.touched | {job} if state.looking else state.touched,
    )


def _ending(state: OutboxState, ask: AskId) -> OutboxStep:
    """An answer that has come is decided before this is, or is on its way and waited for: what was taken and is not
    on record would be told again by the next process."""
    nothing = frozenset[JobId]()
    state = evolve(state, looking=False, again=False, touched=nothing)
    state = evolve(state, ending=True, flushing=(*state.flushing, ask))
    hang_up = (m.HangUp(),) if state.busy else ()
    return Step(state=state, effects=(Forget(kind=m.LookForNotifications), *hang_up))


# ---- what came of an attempt


def _answered(state: OutboxState, message: m.NotificationAnswered, moment: Moment) -> OutboxStep:
    one = next((one for one in state.sending if one.job == message.job), None)
    if one is None:
        return Step(state=state)  # acknowledged meanwhile
    state, answer = _without(state, one.job), message.answer
    match meaning(answer):
        case Meaning.ACCEPTED:
            return Step(state=evolve(state, failures=0), records=(_record(one, NotificationState.DONE),))
        case Meaning.REFUSED:
            failed = _failed(one, reason=answer.said, hint=hint(answer))
            record = _record(one, NotificationState.REFUSED)
            return Step(state=evolve(state, failures=0), effects=(failed,), records=(record,))
        case Meaning.AGAIN:
            return _later(evolve(state, failures=0), one, answer, moment)
        case Meaning.DOWN:
            return _later(_closed(state, answer, moment), one, answer, moment)


def _closed(state: OutboxState, answer: HookAnswer, moment: Moment) -> OutboxState:
    """A whole batch that fails together is one failure."""
    failures = state.failures if _closed_for(state, moment) else state.failures + 1
    wait = max(delay(failures, moment.roll), _asked_for(answer))
    return evolve(state, failures=failures, opens_at=max(state.opens_at, moment.now + wait))


def _asked_for(answer: HookAnswer) -> float:
    return min(max(answer.retry_after or 0.0, 0.0), LONGEST_RETRY_AFTER)


def _later(state: OutboxState, one: Notification, answer: HookAnswer, moment: Moment) -> OutboxStep:
    one = evolve(one, attempts=one.attempts + 1, last_offer=0)
    wait = max(delay(one.attempts, moment.roll), _asked_for(answer), _closed_for(state, moment))
    due = moment.wall + wait
    if due - one.since >= state.policy.give_up_after:
        record, told = _expired(state, one, last=answer)
        return Step(state=state, effects=(told,), records=(record,))
    return Step(
        state=_put_off(state, wait, moment), records=(_record(one, NotificationState.PENDING, due=due),)
    )


def _put_off(state: OutboxState, wait: float, moment: Moment) -> OutboxState:
    return evolve(state, put_off_until=max(state.put_off_until, moment.now + wait))


def _expired(
    state: OutboxState, one: Notification, *, last: HookAnswer | None = None
) -> tuple[NotificationRecorded, Publish]:
    reason = f"it could not be delivered within {state.policy.give_up_after:g} s"
    if last is not None:
        reason += f"; at last: {last.said}"
    told = _failed(one, reason=reason, hint="the job's status and output can still be asked for")
    return _record(one, NotificationState.EXPIRED), told


def _failed(one: Notification, *, reason: str, hint: str) -> Publish:
    return Publish(notice=NotificationFailed(about=one.job, session=one.session, reason=reason, hint=hint))


def _record(one: Notification, state: NotificationState, *, due: float = 0.0) -> NotificationRecorded:
    return NotificationRecorded(
        job=one.job, state=state, due=due, attempts=one.attempts, last_offer=one.last_offer
    )


def hint(answer: HookAnswer) -> str:
    """Which setting to look at, for an answer that is a refusal."""
    status = answer.status or 0
    if status in (401, 403):
        return "hooksToken must be the hooks.token of OpenClaw's config"
    if status in (404, 405):
        return (
            "set hooks.enabled to true in OpenClaw's config; notifyWebhookUrl must end as its hooks.path says"
        )
    if 300 <= status < 400:
        return "a redirect is not followed: set notifyWebhookUrl to the address that it leads to"
    return "`opencode-actors doctor` checks the settings; this OpenClaw may want another payload"


# ---- what every step ends with


def _flushed(step: OutboxStep) -> OutboxStep:
    state = step.state
    if not state.flushing or state.looking or state.busy or (state.held and not state.ending):
        return step
    replies = tuple(Reply(ask=ask, value=None) for ask in state.flushing)
    return evolve(step, state=evolve(state, flushing=()), effects=(*step.effects, *replies))


def _also(step: OutboxStep, before: OutboxStep) -> OutboxStep:
    return evolve(step, effects=(*before.effects, *step.effects), records=(*before.records, *step.records))
