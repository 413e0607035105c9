"""What the outbox is told, what it has done for it, and what it tells those who attend."""

from __future__ import annotations

from enum import Enum
from typing import NewType

from attrs import field, frozen

from opencode_actors.machines.notices import Publish
from opencode_actors.machines.vocabulary import (
    AskId,
    Forget,
    JobId,
    Reply,
    Run,
    SessionKey,
    StartTimer,
)
from opencode_actors.ports import HookAnswer

AttendantId = NewType("AttendantId", int)


@frozen(kw_only=True)
class Notification:
    """What is owed for one settled job.

    `aimed` when a chat session asked for the job; `since` is when it settled, in epoch seconds;
    `attempts` counts what went wrong, `last_offer` is the attendant that it was offered to since, if any.
    """

    job: JobId
    session: SessionKey
    aimed: bool
    since: float
    attempts: int = 0
    last_offer: int = 0


@frozen(kw_only=True)
class NotificationQueued:
    """A job has settled, and its notification stands in the journal."""


@frozen(kw_only=True)
class AttendantCame:
    """A client is connected that takes notifications itself."""

    attendant: AttendantId


@frozen(kw_only=True)
class AttendantLeft:
    attendant: AttendantId


@frozen(kw_only=True)
class AcknowledgeNotification:
    """An attendant has passed it on. Answered with None once that is durable; also when it is not news."""

    ask: AskId
    job: JobId


@frozen(kw_only=True)
class FlushOutbox:
    """Answered with None when nothing can be done at this moment that is not done."""

    ask: AskId


@frozen(kw_only=True)
class EndOutbox:
    """Nothing more is sent or offered, and who is being sent something is hung up on. Answered with None when all that
    was answered is on record."""

    ask: AskId


@frozen(kw_only=True)
class NotificationsFound:
    """The oldest that are due, and when the next one after them is, in epoch seconds."""

    found: tuple[Notification, ...]
    next_due: float | None


@frozen(kw_only=True)
class NotificationAnswered:
    job: JobId
    answer: HookAnswer


@frozen(kw_only=True)
class SendingOver:
    """Each of the batch has its answer."""


class OutboxTimer(Enum):
    LOOK = "look"


@frozen(kw_only=True)
class OutboxTimerFired:
    timer: OutboxTimer


OutboxMessage = (
    NotificationQueued
    | AttendantCame
    | AttendantLeft
    | AcknowledgeNotification
    | FlushOutbox
    | EndOutbox
    | NotificationsFound
    | NotificationAnswered
    | SendingOver
    | OutboxTimerFired
)


@frozen(kw_only=True)
class LookForNotifications:
    """Up to `limit` of those that are due at `now`, the longest due first. None was put off until after
    `latest` by who asks: what says so was written by a process before, or before the clock was set back, and is due."""

    now: float
    latest: float
    limit: int
    aimed_only: bool


@frozen(kw_only=True)
class SendNotifications:
    """All of them beside each other; says `NotificationAnswered` once for each that has an answer."""

    batch: tuple[Notification, ...] = field(repr=False)


OutboxOperation = LookForNotifications | SendNotifications


@frozen(kw_only=True)
class OfferNotification:
    """It is this attendant's until it acknowledges, leaves or is late."""

    attendant: AttendantId
    job: JobId


@frozen(kw_only=True)
class HangUp:
    """On whoever has not answered yet; `SendingOver` follows."""


OutboxEffect = (
    Run[OutboxOperation]
    | Forget[OutboxOperation]
    | StartTimer[OutboxTimer]
    | Reply
    | Publish
    | OfferNotification
    | HangUp
)
