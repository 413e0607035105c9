"""Who is told what a running job asks, and that it runs long: the chat that asked for the job, each word once.

A word is offered to the client that attends and came last, is its own until it acknowledges, leaves or is late,
and is never offered to the same one again. One that waits for nothing any more is forgotten. Nothing of it is
recorded: a question that is still open is found again with its job.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias, assert_never

from attrs import evolve, frozen

from opencode_actors.machines.notices import Step
from opencode_actors.machines.outbox_messages import AttendantCame, AttendantId, AttendantLeft
from opencode_actors.machines.vocabulary import ROUNDING, JobId, Moment

# How many words an attendant may hold that it has not acknowledged.
HOLDS_WORDS = 16

_REMINDER = "reminder"


@frozen(kw_only=True)
class Word:
    """What is to be said of a job: that it waits for an answer to `request`, or, without one, that it runs long.
    `held` until that moment by the attendant that it was `offered` last."""

    id: str
    job: JobId
    request: str | None
    offered: frozenset[AttendantId] = frozenset()
    held: AttendantId | None = None
    until: float = 0.0
    passed_on: bool = False


@frozen(kw_only=True)
class AttentionState:
    claim: float
    attendants: tuple[AttendantId, ...] = ()
    words: Mapping[str, Word] = {}


@frozen(kw_only=True)
class InputAwaited:
    """The job waits for an answer; also when that is not news."""

    job: JobId
    request: str


@frozen(kw_only=True)
class ReminderDue:
    """The job runs long. A newer reminder stands for those before it."""

    job: JobId
    number: int


@frozen(kw_only=True)
class WordOver:
    """There is nothing to be said any more."""

    id: str


@frozen(kw_only=True)
class JobSilent:
    """The job has ended."""

    job: JobId


@frozen(kw_only=True)
class WordAcknowledged:
    """It was passed on, and is not said again for as long as it is true."""

    id: str


AttentionMessage: TypeAlias = (
    InputAwaited | ReminderDue | WordOver | JobSilent | WordAcknowledged | AttendantCame | AttendantLeft
)


@frozen(kw_only=True)
class OfferWord:
    attendant: AttendantId
    word: Word


AttentionStep: TypeAlias = Step[AttentionState, OfferWord]


def word_of(job: JobId, request: str) -> str:
    return f"{job}:{request}"


def is_word(id_: str) -> bool:
    """Whether it is the id of a word, and not of a job."""
    return ":" in id_


def handle(state: AttentionState, message: AttentionMessage, moment: Moment) -> AttentionStep:
    match message:
        case InputAwaited(job=job, request=request):
            state = _with(state, Word(id=word_of(job, request), job=job, request=request))
        case ReminderDue(job=job, number=number):
            state = _without(state, {one.id for one in _of(state, job) if one.request is None})
            state = _with(state, Word(id=word_of(job, f"{_REMINDER}-{number}"), job=job, request=None))
        case WordOver(id=id_):
            state = _without(state, {id_})
        case JobSilent(job=job):
            state = _without(state, {one.id for one in _of(state, job)})
        case WordAcknowledged(id=id_) if (word := state.words.get(id_)) is not None:
            state = _changed(state, evolve(word, held=None, passed_on=True))
        case WordAcknowledged():
            return Step(state=state)  # it is over meanwhile
        case AttendantCame(attendant=attendant):
            state = evolve(state, attendants=(*state.attendants, attendant))
        case AttendantLeft(attendant=attendant):
            rest = tuple(here for here in state.attendants if here != attendant)
            state = evolve(state, attendants=rest)
            for word in _held_by(state, attendant):
                state = _changed(state, evolve(word, held=None))
        case _:
            assert_never(message)
    return _offered(state, moment.now)


def _of(state: AttentionState, job: JobId) -> list[Word]:
    return [word for word in state.words.values() if word.job == job]


def _held_by(state: AttentionState, attendant: AttendantId) -> list[Word]:
    return [word for word in state.words.values() if word.held == attendant]


def _with(state: AttentionState, word: Word) -> AttentionState:
    return state if word.id in state.words else _changed(state, word)


def _changed(state: AttentionState, word: Word) -> AttentionState:
    return evolve(state, words={**state.words, word.id: word})


def _without(state: AttentionState, ids: set[str]) -> AttentionState:
    return evolve(state, words={id_: word for id_, word in state.words.items() if id_ not in ids})


def _offered(state: AttentionState, now: float) -> AttentionStep:
    """All that nobody holds, or that is held for too long, as far as somebody can still take it."""
    offers: list[OfferWord] = []
    for word in state.words.values():
        if word.passed_on or (word.held is not None and now < word.until - ROUNDING):
            continue
        state = _changed(state, evolve(word, held=None))
        for attendant in sorted(state.attendants, reverse=True):
            if attendant not in word.offered and len(_held_by(state, attendant)) < HOLDS_WORDS:
                offered, until = word.offered | {attendant}, now + state.claim
                taken = evolve(word, offered=offered, held=attendant, until=until)
                state = _changed(state, taken)
                offers.append(OfferWord(attendant=attendant, word=taken))
                break
    return Step(state=state, effects=tuple(offers))
