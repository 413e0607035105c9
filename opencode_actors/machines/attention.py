"""Who is told what of a running job: the chat that asked for it, each word once, and the right one of the two
that hear there. A question wakes the agent that asked for the job, but only so many times in a row: when no
person has said anything in between, the person is told instead.

A word is offered to the client that attends and came last, is its own until it acknowledges, leaves or is late,
and is never offered to the same one again. One that waits for nothing any more is forgotten. Nothing of it is
recorded: a question that is still open is found again with its job.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias, assert_never

from attrs import evolve, frozen

from opencode_actors.machines.matters import FOR_PEOPLE, Matter, Party
from opencode_actors.machines.notices import Step
from opencode_actors.machines.outbox_messages import AttendantCame, AttendantId, AttendantLeft
from opencode_actors.machines.vocabulary import ROUNDING, JobId, Moment

# How many words an attendant may hold that it has not acknowledged.
HOLDS_WORDS = 16
# The chats whose agents were woken are not kept for ever.
CHATS_REMEMBERED = 1_000


@frozen(kw_only=True)
class Word:
    """What is to be said of a job: with a `request` that it waits for an answer to it, or that it waits no more.
    What it tells of are the notices `after` one number and up to another. `held` until that moment by the
    attendant that it was `offered` last."""

    id: str
    job: JobId
    matter: Matter
    to: Party
    request: str | None = None
    after: int = 0
    upto: int = 0
    offered: frozenset[AttendantId] = frozenset()
    held: AttendantId | None = None
    until: float = 0.0
    passed_on: bool = False


@frozen(kw_only=True)
class AttentionState:
    """`woken` is how often in a row a chat's agent was, since a person said something there. `heard` is up to
    where there is something to be told of a job that streams, and `told` up to where it was put into a word; a
    job is in `pausing` while no other such word may come."""

    claim: float
    pause: float = 15.0
    max_woken: int = 10
    attendants: tuple[AttendantId, ...] = ()
    words: Mapping[str, Word] = {}
    woken: Mapping[str, int] = {}
    heard: Mapping[JobId, int] = {}
    told: Mapping[JobId, int] = {}
    pausing: frozenset[JobId] = frozenset()


@frozen(kw_only=True)
class InputAwaited:
    """The job waits for an answer; also when that is not news. `chat` is where it was asked for."""

    job: JobId
    request: str
    chat: str


@frozen(kw_only=True)
class WordDue:
    """The job has begun, runs long, is to be reported on, is full, or was answered. A newer word on the same
    matter stands for those before it."""

    job: JobId
    matter: Matter
    number: int
    request: str | None = None


@frozen(kw_only=True)
class Streamed:
    """The job has said something or uses a tool, and its chat wants to see that."""

    job: JobId
    number: int


@frozen(kw_only=True)
class PauseOver:
    """What was streamed meanwhile may be told."""

    job: JobId


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


@frozen(kw_only=True)
class PersonSpoke:
    """In this chat, or to a job that it asked for."""

    chat: str


AttentionMessage: TypeAlias = (
    InputAwaited
    | WordDue
    | Streamed
    | PauseOver
    | WordOver
    | JobSilent
    | WordAcknowledged
    | PersonSpoke
    | AttendantCame
    | AttendantLeft
)


@frozen(kw_only=True)
class OfferWord:
    attendant: AttendantId
    word: Word


@frozen(kw_only=True)
class StartPause:
    job: JobId
    seconds: float


AttentionEffect: TypeAlias = OfferWord | StartPause
AttentionStep: TypeAlias = Step[AttentionState, AttentionEffect]


def word_of(job: JobId, request: str) -> str:
    return f"{job}:{request}"


def is_word(id_: str) -> bool:
    """Whether it is the id of a word, and not of a job."""
    return ":" in id_


def handle(state: AttentionState, message: AttentionMessage, moment: Moment) -> AttentionStep:
    effects: tuple[AttentionEffect, ...] = ()
    match message:
        case InputAwaited():
            state = _awaited(state, message)
        case WordDue(job=job, matter=matter, number=number):
            word = Word(
                id=word_of(job, f"{matter.value}-{number}"),
                job=job,
                matter=matter,
                to=Party.PERSON if matter in FOR_PEOPLE else Party.AGENT,
                request=message.request,
                upto=number,
            )
            state = _with(_without(state, _on(state, job, matter)), word)
        case Streamed(job=job, number=number):
            state = evolve(state, heard={**state.heard, job: number})
            if job not in state.pausing:
                state, effects = _streamed(state, job)
        case PauseOver(job=job):
            state = evolve(state, pausing=state.pausing - {job})
            if state.heard.get(job, 0) > state.told.get(job, 0):
                state, effects = _streamed(state, job)
        case WordOver(id=id_):
            state = _without(state, {id_})
        case JobSilent(job=job):
            state = _without(state, {one.id for one in state.words.values() if one.job == job})
            state = evolve(state, heard=_less(state.heard, job), told=_less(state.told, job))
        case WordAcknowledged(id=id_) if (known := state.words.get(id_)) is not None:
            state = _acknowledged(state, known)
        case WordAcknowledged():
            return Step(state=state)  # it is over meanwhile
        case PersonSpoke(chat=chat):
            state = evolve(state, woken={other: n for other, n in state.woken.items() if other != chat})
        case AttendantCame(attendant=attendant):
            state = evolve(state, attendants=(*state.attendants, attendant))
        case AttendantLeft(attendant=attendant):
            rest = tuple(here for here in state.attendants if here != attendant)
            state = evolve(state, attendants=rest)
            for held in _held_by(state, attendant):
                state = _changed(state, evolve(held, held=None))
        case _:
            assert_never(message)
    state, offers = _offered(state, moment.now)
    return Step(state=state, effects=(*effects, *offers))


def _awaited(state: AttentionState, message: InputAwaited) -> AttentionState:
    id_ = word_of(message.job, message.request)
    if id_ in state.words:
        return state
    times = state.woken.get(message.chat, 0)
    to = Party.AGENT if times < state.max_woken else Party.PERSON
    if to is Party.AGENT:
        rest = {chat: n for chat, n in state.woken.items() if chat != message.chat}
        for oldest in list(rest)[: max(0, len(rest) + 1 - CHATS_REMEMBERED)]:
            del rest[oldest]
        state = evolve(state, woken={**rest, message.chat: times + 1})
    word = Word(id=id_, job=message.job, matter=Matter.WAITING, to=to, request=message.request)
    return _changed(state, word)


def _streamed(state: AttentionState, job: JobId) -> tuple[AttentionState, tuple[AttentionEffect, ...]]:
    """One word for all since the last one; what nobody has passed on yet is in it again."""
    older = [state.words[id_] for id_ in _on(state, job, Matter.TEXT) if not state.words[id_].passed_on]
    upto = state.heard[job]
    word = Word(
        id=word_of(job, f"{Matter.TEXT.value}-{upto}"),
        job=job,
        matter=Matter.TEXT,
        to=Party.PERSON,
        after=min((one.after for one in older), default=state.told.get(job, 0)),
        upto=upto,
    )
    state = _with(_without(state, _on(state, job, Matter.TEXT)), word)
    state = evolve(state, told={**state.told, job: upto}, pausing=state.pausing | {job})
    return state, (StartPause(job=job, seconds=state.pause),)


def _acknowledged(state: AttentionState, word: Word) -> AttentionState:
    """A question is remembered for as long as it is open; nothing else comes twice."""
    if word.matter is Matter.WAITING:
        return _changed(state, evolve(word, held=None, passed_on=True))
    return _without(state, {word.id})


def _on(state: AttentionState, job: JobId, matter: Matter) -> set[str]:
    return {one.id for one in state.words.values() if one.job == job and one.matter is matter}


def _held_by(state: AttentionState, attendant: AttendantId) -> list[Word]:
    return [word for word in state.words.values() if word.held == attendant]


def _with(state: AttentionState, word: Word) -> AttentionState:
    return state if word.id in state.words else _changed(state, word)


def _changed(state: AttentionState, word: Word) -> AttentionState:
    return evolve(state, words={**state.words, word.id: word})


def _without(state: AttentionState, ids: set[str]) -> AttentionState:
    return evolve(state, words={id_: word for id_, word in state.words.items() if id_ not in ids})


def _less(numbers: Mapping[JobId, int], job: JobId) -> Mapping[JobId, int]:
    return {other: number for other, number in numbers.items() if other != job}


def _offered(state: AttentionState, now: float) -> tuple[AttentionState, tuple[AttentionEffect, ...]]:
    """All that nobody holds, or that is held for too long, as far as somebody can still take it."""
    offers: list[AttentionEffect] = []
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
    return state, tuple(offers)
