"""What a running job has to say to the chat that asked for it: that it asks something, that it runs long.

The end of a job is the outbox's; this is for while it runs, and disturbs neither.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial

from attrs import define, field, frozen

from opencode_actors.errors import UnknownJob
from opencode_actors.kernel.jobs import Jobs
from opencode_actors.kernel.outbox import CLAIM, Announcement, Attendance, Matter
from opencode_actors.kernel.outbox_operations import tail_of
from opencode_actors.kernel.surroundings import Surroundings
from opencode_actors.machines import attention as machine
from opencode_actors.machines import notification
from opencode_actors.machines.attention import (
    AttentionMessage,
    AttentionState,
    InputAwaited,
    JobSilent,
    ReminderDue,
    Word,
    WordAcknowledged,
    WordOver,
    word_of,
)
from opencode_actors.machines.notices import InputAnswered, InputWanted, JobEnded, JobLasted, Notice
from opencode_actors.machines.outbox_messages import AttendantCame, AttendantId, AttendantLeft
from opencode_actors.machines.vocabulary import OnUnanswered

_log = logging.getLogger("opencode_actors")


@frozen(kw_only=True)
class AttentionStatistics:
    """`held` are on their way to an attendant, `waiting` have found none, or none that took them."""

    words: int
    held: int
    waiting: int


@define(eq=False, repr=False)
class Attention:
    """No actor: each message is decided on where it comes, without waiting."""

    surroundings: Surroundings
    jobs: Jobs
    _attending: dict[AttendantId, Attendance] = field(factory=dict[AttendantId, Attendance], init=False)
    _state: AttentionState = field(factory=lambda: AttentionState(claim=CLAIM), init=False)

    def __repr__(self) -> str:
        return f"<Attention {len(self._state.words)} words, {len(self._attending)} attending>"

    def statistics(self) -> AttentionStatistics:
        words = self._state.words.values()
        return AttentionStatistics(
            words=len(words),
            held=sum(word.held is not None for word in words),
            waiting=sum(word.held is None and not word.passed_on for word in words),
        )

    def told(self, notice: Notice) -> None:
        """By the journal, when it is durable."""
        match notice:
            case InputWanted(job=job, request=request) if self.jobs.is_aimed(job):
                self._decide(InputAwaited(job=job, request=request))
            case JobLasted(job=job, seq=seq) if self.jobs.is_aimed(job):
                self._decide(ReminderDue(job=job, number=seq))
            case InputAnswered(job=job, request=request):
                self._decide(WordOver(id=word_of(job, request)))
            case JobEnded(job=job):
                self._decide(JobSilent(job=job))
            case _:
                pass

    @contextmanager
    def attended_by(self, attendance: Attendance) -> Generator[None]:
        """While it is entered, it is offered what was asked before too, also in an earlier process."""
        self._attending[attendance.id] = attendance
        for job, request in self.jobs.waiting_for_input():
            self._decide(InputAwaited(job=job, request=request))
        self._decide(AttendantCame(attendant=attendance.id))
        try:
            yield
        finally:
            del self._attending[attendance.id]
            self._decide(AttendantLeft(attendant=attendance.id))

    def acknowledge(self, id_: str) -> None:
        self._decide(WordAcknowledged(id=id_))

    def _decide(self, message: AttentionMessage) -> None:
        step = machine.handle(self._state, message, self.surroundings.moment())
        self._state = step.state
        for offer in step.effects:
            attendance = self._attending[offer.attendant]
            attendance.offer(partial(self._said, offer.word))

    async def _said(self, word: Word) -> Announcement | None:
        """None when it is not true any more. The job itself is asked: a notice is told before the state that
        it tells of is taken over."""
        try:
            job = await self.jobs.status(word.job)
        except UnknownJob:
            return None
        request = next((asked for asked in job.pending if asked.id == word.request), None)
        if request is not None:
            settings = self.surroundings.settings
            text = notification.asked_in_words(
                job,
                request,
                timeout=settings.question_timeout,
                on_unanswered=OnUnanswered(settings.on_unanswered),
            )
            return Announcement(id=word.id, matter=Matter.QUESTION, job=job, text=text)
        if word.request is not None or job.settled:
            self._decide(WordOver(id=word.id))
            return None
        tail = await tail_of(self.surroundings.store, job)
        text = notification.lasting_in_words(job, tail)
        return Announcement(id=word.id, matter=Matter.REMINDER, job=job, text=text)
