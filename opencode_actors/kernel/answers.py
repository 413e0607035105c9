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
    *, answers: Sequence[Sequence[str]] | str | None, reply: PermissionReply | str | None, message: str
) -> Answer:
    """Raises `UsageError` for what cannot be one."""
    if (answers is None) == (reply is None):
        raise UsageError(
            "give either answers or a reply", hint="answers are for questions, a reply for permissions"
        )
    if answers is not None:
        if message:
            raise UsageError("a message goes with a rejection only", hint="put it into the answers")
        given = ((answers,),) if isinstance(answers, str) else tuple(tuple(one) for one in answers)
        _check_size(text for one in given for text in one)
        return QuestionAnswer(answers=given)
    try:
        chosen = PermissionReply(reply)
    except ValueError:
        choices = ", ".join(choice.value for choice in PermissionReply)
        raise UsageError(f"{reply!r} is no reply", hint=f"there are {choices}") from None
    if chosen is PermissionReply.REJECT:
        _check_size((message,))
        return Rejection(message=message)
    if message:
        raise UsageError("a message goes with a rejection only", hint="leave it out, or reject")
    return PermissionAnswer(reply=chosen)


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
