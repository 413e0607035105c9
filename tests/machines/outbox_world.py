"""The outbox's machine between a model of the journal, of the webhook and of those who attend.

What happens next is a test's choice; that each word is right is checked here, as it is said.
"""

from __future__ import annotations

from attrs import define, evolve, field

from opencode_actors.machines import outbox
from opencode_actors.machines import outbox_messages as m
from opencode_actors.machines.notices import NotificationFailed, NotificationRecorded, Publish
from opencode_actors.machines.outbox import BATCH, HOLDS, OutboxPolicy, OutboxState
from opencode_actors.machines.outbox_messages import AttendantId, Notification, OutboxMessage
from opencode_actors.machines.vocabulary import (
    AskId,
    Forget,
    JobId,
    Moment,
    NotificationState,
    Reply,
    Run,
    SessionKey,
    StartTimer,
)
from opencode_actors.ports import HookAnswer
from opencode_actors.testing.playbook import EPOCH

POLICY = OutboxPolicy(give_up_after=86_400.0, claim=15.0)
SESSION = SessionKey("demo")


@define(eq=False)
class Row:
    """As it stands in the journal."""

    notification: Notification
    state: NotificationState = NotificationState.PENDING
    due: float = 0.0

    @property
    def open(self) -> bool:
        return self.state in (NotificationState.PENDING, NotificationState.CLAIMED)


@define(eq=False)
class Look:
    operation: m.LookForNotifications
    result: m.NotificationsFound | None = None


@define(eq=False)
class World:
    webhook: bool = True
    policy: OutboxPolicy = POLICY
    now: float = 0.0
    roll: float = 0.5
    rows: dict[JobId, Row] = field(factory=dict[JobId, Row])
    look: Look | None = None
    batch: list[Notification] | None = None
    timer: float | None = None
    attendants: list[AttendantId] = field(factory=list[AttendantId])
    offered: dict[JobId, tuple[AttendantId, float]] = field(factory=dict[JobId, tuple[AttendantId, float]])
    sent: list[JobId] = field(factory=list[JobId])
    failed: list[NotificationFailed] = field(factory=list[NotificationFailed])
    replies: list[AskId] = field(factory=list[AskId])
    looks: int = 0
    state: OutboxState = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.state = OutboxState(policy=self.policy, webhook=self.webhook)

    @property
    def wall(self) -> float:
        return EPOCH + self.now

    # ---- what happens

    def settle(self, job: str, *, aimed: bool = False) -> JobId:
        id_ = JobId(job)
        one = Notification(job=id_, session=SESSION, aimed=aimed, since=self.wall)
        self.rows[id_] = Row(one, due=self.wall)
        self.tell(m.NotificationQueued())
        return id_

    def attend(self, attendant: int) -> AttendantId:
        id_ = AttendantId(attendant)
        self.attendants.append(id_)
        self.tell(m.AttendantCame(attendant=id_))
        return id_

    def leave(self, attendant: AttendantId) -> None:
        self.attendants.remove(attendant)
        self.offered = {job: held for job, held in self.offered.items() if held[0] != attendant}
        self.tell(m.AttendantLeft(attendant=attendant))

    def acknowledge(self, job: JobId) -> None:
        self.offered.pop(job, None)
        self.tell(m.AcknowledgeNotification(ask=AskId(1), job=job))

    def read(self) -> None:
        """The rows are read; the answer is on its way."""
        assert self.look is not None
        look = self.look.operation
        mine = [
            row for row in self.rows.values() if row.open and (row.notification.aimed or not look.aimed_only)
        ]
        due = sorted((row for row in mine if row.due <= look.now), key=lambda row: row.due)
        later = [row.due for row in mine if row.due > look.now]
        found = tuple(row.notification for row in due[: look.limit])
        self.look.result = m.NotificationsFound(found=found, next_due=min(later, default=None))

    def land(self) -> None:
        assert self.look is not None
        if self.look.result is None:
            self.read()
        result, self.look = self.look.result, None
        assert result is not None
        self.tell(result)

    def answer(
        self, status: int | None, *, retry_after: float | None = None, job: JobId | None = None
    ) -> None:
        """The oldest that has none yet, or `job`."""
        assert self.batch
        one = next(one for one in self.batch if job in (None, one.job))
        self.batch.remove(one)
        answer = HookAnswer(status=status, said=f"HTTP {status}", retry_after=retry_after)
        self.tell(m.NotificationAnswered(job=one.job, answer=answer))

    def over(self) -> None:
        assert self.batch == []
        self.batch = None
        self.tell(m.SendingOver())

    def end(self) -> None:
        """In order; then the next process finds what stands in the journal, and nobody who attends."""
        self.tell(m.EndOutbox(ask=AskId(99)))
        if self.batch is not None:
            self.over()
        assert self.replies[-1] == AskId(99)
        self.timer, self.attendants, self.offered = None, [], {}
        self.state = OutboxState(policy=self.policy, webhook=self.webhook)
        self.tell(m.NotificationQueued())

    def advance(self, seconds: float) -> None:
        self.now += seconds
        if self.timer is not None and self.now >= self.timer:
            self.timer = None
            self.tell(m.OutboxTimerFired(timer=m.OutboxTimer.LOOK))

    def settle_down(self, status: int | None = 200) -> None:
        """All that is under way ends, and what follows from it, at this moment."""
        for _ in range(10_000):
            if self.look is not None:
                self.land()
            elif self.batch:
                self.answer(status)
            elif self.batch is not None:
                self.over()
            else:
                return
        raise AssertionError("it goes round in circles")

    # ---- what is said

    def tell(self, message: OutboxMessage) -> None:
        moment = Moment(now=self.now, wall=self.wall, roll=self.roll)
        step = outbox.handle(self.state, message, moment)
        for record in step.records:
            assert isinstance(record, NotificationRecorded)
            self._record(record)
        self.state = step.state
        for effect in step.effects:
            match effect:
                case Run():
                    self._begin(effect.operation)
                case StartTimer():
                    assert effect.seconds > 0
                    self.timer = self.now + effect.seconds
                case Reply():
                    self.replies.append(effect.ask)
                case Publish():
                    assert isinstance(effect.notice, NotificationFailed)
                    self.failed.append(effect.notice)
                case m.OfferNotification():
                    self._offer(effect)
                case Forget():
                    assert effect.kind is m.LookForNotifications
                    self.look = None
                case m.HangUp():
                    self.batch = []
        self._check()

    def _record(self, record: NotificationRecorded) -> None:
        row = self.rows.get(record.job)
        if row is None or not row.open:
            return  # as the journal: what is final stays
        row.state, row.due = record.state, record.due
        row.notification = evolve(row.notification, attempts=record.attempts, last_offer=record.last_offer)

    def _begin(self, operation: m.OutboxOperation) -> None:
        assert not self.state.ending
        if isinstance(operation, m.SendNotifications):
            self._send(operation)
            return
        assert self.look is None
        self.look = Look(operation)
        self.looks += 1

    def _send(self, send: m.SendNotifications) -> None:
        assert self.webhook
        assert self.batch is None
        assert 0 < len(send.batch) <= (1 if self.state.failures else BATCH)
        for one in send.batch:
            assert self.rows[one.job].open, "it was told already"
            assert not self._is_held(one.job), "somebody else tells it"
            self.sent.append(one.job)
        self.batch = list(send.batch)

    def _offer(self, offer: m.OfferNotification) -> None:
        assert offer.attendant in self.attendants
        assert not self.state.ending
        row = self.rows[offer.job]
        assert row.notification.aimed
        assert row.state is NotificationState.CLAIMED
        assert all(one.job != offer.job for one in self.batch or ())
        assert not self._is_held(offer.job)
        self.offered[offer.job] = (offer.attendant, self.wall + self.policy.claim)

    def _is_held(self, job: JobId) -> bool:
        held = self.offered.get(job)
        return held is not None and held[0] in self.attendants and self.wall < held[1] - 0.001

    def _check(self) -> None:
        assert len(self.failed) == len({notice.about for notice in self.failed})
        for notice in self.failed:
            assert self.rows[notice.about].state in (NotificationState.REFUSED, NotificationState.EXPIRED)
        for attendant in self.attendants:
            held = [one for one in self.state.held if one.attendant == attendant]
            assert len(held) <= HOLDS
        # What one look leaves behind is bounded, however many rows there are.
        assert self.state.looking == (self.look is not None)
        assert self.state.busy == (self.batch is not None)
        assert len(self.state.touched) <= len(self.rows)
        if not self.state.looking:
            assert not self.state.touched
