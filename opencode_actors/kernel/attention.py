"""What a running job has to say to the chat that asked for it: what it asks, how far it is, that it runs long.

The end of a job is the outbox's; this is for while it runs, and disturbs neither.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial

import trio
from attrs import define, field, frozen

from opencode_actors.errors import UnknownJob
from opencode_actors.kernel.jobs import Jobs
from opencode_actors.kernel.outbox import CLAIM, Announcement, Attendance
from opencode_actors.kernel.outbox_operations import answer_of, tail_of
from opencode_actors.kernel.surroundings import Surroundings
from opencode_actors.machines import attention as machine
from opencode_actors.machines import chat_words, notification
from opencode_actors.machines.attention import (
    AttentionMessage,
    AttentionState,
    InputAwaited,
    JobSilent,
    OfferWord,
    PauseOver,
    PersonSpoke,
    StartPause,
    Streamed,
    Word,
    WordAcknowledged,
    WordDue,
    WordOver,
    word_of,
)
from opencode_actors.machines.matters import Matter, Party
from opencode_actors.machines.notices import (
    InputAnswered,
    InputEnd,
    InputWanted,
    JobEnded,
    JobLasted,
    JobReported,
    JobStarted,
    Notice,
    OutputAdded,
    OutputFilled,
    OutputKind,
    ToolStarted,
)
from opencode_actors.machines.outbox_messages import AttendantCame, AttendantId, AttendantLeft
from opencode_actors.machines.vocabulary import JobId, JobSnapshot, OnUnanswered, Origin

_log = logging.getLogger("opencode_actors")

_ANSWERS = 256  # that are remembered, for who wants to hear of them
_NOBODY = Origin()


@frozen(kw_only=True)
class AttentionStatistics:
    """`held` are on their way to an attendant, `waiting` have found none, or none that took them."""

    words: int
    held: int
    waiting: int


@frozen(kw_only=True)
class Given:
    """An answer to a request, and who gave it."""

    by: Party
    question: str
    said: str


@define(eq=False, repr=False)
class Attention:
    """No actor: each message is decided on where it comes, without waiting."""

    surroundings: Surroundings
    jobs: Jobs
    _attending: dict[AttendantId, Attendance] = field(factory=dict[AttendantId, Attendance], init=False)
    _state: AttentionState = field(init=False)
    _given: OrderedDict[tuple[JobId, str], Given] = field(
        factory=OrderedDict[tuple[JobId, str], Given], init=False
    )

    def __attrs_post_init__(self) -> None:
        settings = self.surroundings.settings
        self._state = AttentionState(
            claim=CLAIM, pause=settings.notify_every, max_woken=settings.max_auto_answers
        )

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
            case InputWanted(job=job, request=request) if self._wants(notice, Matter.WAITING):
                chat = self._origin(job).session_key
                self._decide(InputAwaited(job=job, request=request, chat=chat))
            case InputAnswered(job=job, request=request):
                self._decide(WordOver(id=word_of(job, request)))
                if notice.end in (InputEnd.ANSWERED, InputEnd.REJECTED) and self._wants(
                    notice, Matter.ANSWERED
                ):
                    due = WordDue(job=job, matter=Matter.ANSWERED, number=notice.seq, request=request)
                    self._decide(due)
            case JobEnded(job=job):
                self._decide(JobSilent(job=job))
            case OutputAdded(job=job, kind=OutputKind.TEXT) if self._wants(notice, Matter.TEXT):
                self._decide(Streamed(job=job, number=notice.seq))
            case ToolStarted(job=job) if self._wants(notice, Matter.TOOL):
                self._decide(Streamed(job=job, number=notice.seq))
            case JobStarted() | JobLasted() | JobReported() | OutputFilled():
                matter = _MATTERS[type(notice)]
                if self._wants(notice, matter):
                    self._decide(WordDue(job=notice.job, matter=matter, number=notice.seq))
            case _:
                pass

    def answering(self, job: JobId, request: str, given: Party, said: str) -> None:
        """Somebody is about to answer it. A person in the job's chat is there, then."""
        asked = self.jobs.asked(job, request)
        self._given[job, request] = Given(by=given, question=asked.text if asked else "", said=said)
        while len(self._given) > _ANSWERS:
            self._given.popitem(last=False)
        if given is Party.PERSON:
            self.person_spoke(self._origin(job).session_key)

    def person_spoke(self, chat: str) -> None:
        """From here on the chat's agent may be woken as often as ever."""
        if chat:
            self._decide(PersonSpoke(chat=chat))

    @contextmanager
    def attended_by(self, attendance: Attendance) -> Generator[None]:
        """While it is entered, it is offered what was asked before too, also in an earlier process."""
        self._attending[attendance.id] = attendance
        for job, session, request in self.jobs.waiting_for_input():
            origin = self._origin(job)
            if self.surroundings.matrix.tells(Matter.WAITING, session=session, channel=origin.channel):
                self._decide(InputAwaited(job=job, request=request, chat=origin.session_key))
        self._decide(AttendantCame(attendant=attendance.id))
        try:
            yield
        finally:
            del self._attending[attendance.id]
            self._decide(AttendantLeft(attendant=attendance.id))

    def acknowledge(self, id_: str) -> None:
        self._decide(WordAcknowledged(id=id_))

    def _origin(self, job: JobId) -> Origin:
        return self.jobs.aimed_at(job) or _NOBODY

    def _wants(self, notice: _OfAJob, matter: Matter) -> bool:
        """Whether a chat asked for the job, and wants to be told of this."""
        origin = self.jobs.aimed_at(notice.job)
        return origin is not None and self.surroundings.matrix.tells(
            matter, session=notice.session, channel=origin.channel
        )

    def _decide(self, message: AttentionMessage) -> None:
        step = machine.handle(self._state, message, self.surroundings.moment())
        self._state = step.state
        for effect in step.effects:
            match effect:
                case OfferWord():
                    attendance = self._attending[effect.attendant]
                    attendance.offer(partial(self._said, effect.word))
                case StartPause():
                    self.surroundings.nursery.start_soon(self._pause, effect)

    async def _pause(self, pause: StartPause) -> None:
        await trio.sleep(pause.seconds)
        self._decide(PauseOver(job=pause.job))

    # ---- in words

    async def _said(self, word: Word) -> Announcement | None:
        """None when it is not true any more. The job itself is asked: a notice is told before the state that
        it tells of is taken over."""
        try:
            job = await self.jobs.status(word.job)
        except UnknownJob:
            return None
        text = "" if job.settled else await self._text(word, job)
        if not text:
            if word.matter is not Matter.WAITING:
                self._decide(WordOver(id=word.id))
            return None
        return Announcement(id=word.id, matter=word.matter, job=job, text=text, to=word.to)

    async def _text(self, word: Word, job: JobSnapshot) -> str:
        """Empty when there is nothing to be said."""
        store, room = self.surroundings.store, chat_words.room_for(self._origin(job.id).channel)
        match word.matter:
            case Matter.WAITING:
                return self._question(word, job)
            case Matter.ANSWERED:
                given = self._given.get((job.id, word.request or ""))
                if given is None:
                    return chat_words.answered(job, by=None, question="", said="")
                return chat_words.answered(job, by=given.by, question=given.question, said=given.said)
            case Matter.RUNNING:
                return notification.lasting_in_words(job, await tail_of(store, job))
            case Matter.LIMIT:
                return notification.full_in_words(job)
            case Matter.REPORT:
                return chat_words.report(
                    job, await answer_of(store, job), room=min(room, chat_words.REPORTED)
                )
            case Matter.STARTED:
                return chat_words.started(job)
            case Matter.TEXT:
                return await self._streamed(word, job, room)
            case _:
                raise ValueError(f"{word.matter} is the outbox's")

    def _question(self, word: Word, job: JobSnapshot) -> str:
        request = next((asked for asked in job.pending if asked.id == word.request), None)
        if request is None:
            return ""
        settings = self.surroundings.settings
        if word.to is Party.PERSON:
            return chat_words.asks(job, request, woken=settings.max_auto_answers)
        return notification.asked_in_words(
            job,
            request,
            timeout=settings.question_timeout,
            on_unanswered=OnUnanswered(settings.on_unanswered),
        )

    async def _streamed(self, word: Word, job: JobSnapshot, room: int) -> str:
        found: list[Notice] = []
        after = word.after or self.jobs.since(job.id)
        while after < word.upto:
            page = await self.surroundings.store.notices(job.id, job.session, after=after, upto=word.upto)
            found.extend(notice for notice in page.notices if isinstance(notice, OutputAdded | ToolStarted))
            after = page.reached
        tells, channel = self.surroundings.matrix.tells, self._origin(job.id).channel
        text = tells(Matter.TEXT, session=job.session, channel=channel)
        tools = tells(Matter.TOOL, session=job.session, channel=channel)
        return chat_words.streamed(job, found, text=text, tools=tools, room=room)


_OfAJob = (
    InputWanted
    | InputAnswered
    | OutputAdded
    | ToolStarted
    | JobStarted
    | JobLasted
    | JobReported
    | OutputFilled
)
_MATTERS = {
    JobStarted: Matter.STARTED,
    JobLasted: Matter.RUNNING,
    JobReported: Matter.REPORT,
    OutputFilled: Matter.LIMIT,
}
