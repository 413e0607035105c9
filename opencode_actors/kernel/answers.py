"""From what a caller gives as an answer to what a job is told, and what the caller is told of its fate."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from opencode_actors.errors import OpencodeActorsError, OpenCodeError, RequestGone, UsageError
from opencode_actors.machines.job_messages import (
    Answer,
    NoAnswer,
    NotAnswered,
    PermissionAnswer,
    QuestionAnswer,
    Rejection,
)
from opencode_actors.ports import PermissionReply

LONGEST_ANSWER = 1 << 20  # characters; what goes back to the model, all of it together


def answer_of(
    *,
    answers: Sequence[Sequence[str]] | str | None = None,
    reply: PermissionReply | str | None = None,
    reject: bool = False,
    message: str = "",
) -> Answer:
    """Raises `UsageError` for what cannot be one. What contradicts itself is refused, not half of it believed: one
    answer is all that a request takes."""
    chosen = None if reply is None else _reply_of(reply)
    rejected = reject or chosen is PermissionReply.REJECT
    if (answers is not None) + (chosen not in (None, PermissionReply.REJECT)) + rejected != 1:
        raise UsageError(
            "give one of answers, a reply and a rejection",
            hint="answers are for questions, a reply for permissions, and a rejection says no to either",
        )
    if message and not rejected:
        raise UsageError(
            "a message goes with a rejection only", hint="put it into the answer, or reject with it"
        )
    if answers is not None:
        given = ((answers,),) if isinstance(answers, str) else tuple(tuple(one) for one in answers)
        _check_size(text for one in given for text in one)
        return QuestionAnswer(answers=given)
    if chosen is None or rejected:
        _check_size((message,))
        return Rejection(message=message)
    return PermissionAnswer(reply=chosen)


def _reply_of(reply: PermissionReply | str) -> PermissionReply:
    try:
        return PermissionReply(reply)
    except ValueError:
        choices = ", ".join(choice.value for choice in PermissionReply)
        raise UsageError(f"{reply!r} is no reply", hint=f"there are {choices}") from None


def said_in(answer: Answer) -> str:
    """The answer in one line, for whoever is told of it."""
    match answer:
        case QuestionAnswer(answers=answers):
            return "; ".join(", ".join(one) for one in answers)
        case PermissionAnswer(reply=reply):
            return reply.value
        case Rejection(message=message):
            return f"no: {message}" if message else "no"


def _check_size(texts: Iterable[str]) -> None:
    size = sum(len(text) for text in texts)
    if size > LONGEST_ANSWER:
        raise UsageError(f"the answer has {size} characters, and at most {LONGEST_ANSWER} are taken")


def why_not_answered(outcome: NotAnswered) -> OpencodeActorsError:
    match outcome.why:
        case NoAnswer.GONE:
            return RequestGone(outcome.reason, hint="the job's status lists what waits for an answer")
        case NoAnswer.UNFIT:
            return UsageError(
                outcome.reason, hint="the job's status lists what waits for an answer, and its options"
            )
        case NoAnswer.UNSURE:
            return OpenCodeError(
                f"nobody knows whether OpenCode took the answer: {outcome.reason}",
                hint="the job's status says whether it still waits; then answer again",
            )
