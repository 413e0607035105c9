"""Questions and permissions of a running job: announced, answered by exactly one reply, or timed out.

An answer is one call to the server after another, and over when the server took it or knows no such
request. What is announced as wanted is announced as ended exactly once, at the latest with the job.
"""

from __future__ import annotations

from attrs import evolve

from opencode_actors.machines import job_messages as m
from opencode_actors.machines import notices as n
from opencode_actors.machines.job_messages import JobEffect, JobTimer
from opencode_actors.machines.job_state import JobState, Owed, Running, pending
from opencode_actors.machines.vocabulary import (
    ROUNDING,
    AskId,
    Forget,
    OnUnanswered,
    PendingRequest,
    Reply,
    RequestKind,
    Run,
    StartTimer,
    StopTimer,
)
from opencode_actors.machines.work import Request, without_requests

NOBODY_ANSWERED = (
    "Nobody was there to answer within the time that there was for it. "
    "Decide by yourself what is best and safe, say what you decided, and go on."
)
# Replies to one request that fail, and the job is not kept waiting any longer.
REPLIES = 3
REPLY_AGAIN = 1.0

Acted = tuple[JobState, list[JobEffect]]


# ---- asked, and over


def announced(
    state: JobState, wanted: tuple[PendingRequest, ...], ended: tuple[PendingRequest, ...], now: float
) -> list[JobEffect]:
    """What came to wait, and what ended without us or by our reply."""
    effects = [_wanted(state, about) for about in wanted]
    effects.extend(_ended(state, about.id, _how(state, about.id)) for about in ended)
    return [*effects, _timer(state, now)] if effects else []


def awaited(state: JobState, running: Running, now: float) -> list[JobEffect]:
    """What was announced before an interruption has its whole time again."""
    return [_timer(state, now)] if running.work.requests else []


def _wanted(state: JobState, about: PendingRequest) -> JobEffect:
    notice = n.InputWanted(
        job=state.id,
        session=state.session,
        request=about.id,
        kind=about.kind,
        text=about.text,
        options=about.options,
        questions=about.questions,
        conversation=about.conversation,
        sub_agent=about.sub_agent,
        timeout=state.policy.question_timeout,
        on_unanswered=state.policy.on_unanswered,
    )
    return n.Publish(notice=notice)


def _ended(state: JobState, request: str, end: n.InputEnd) -> JobEffect:
    notice = n.InputAnswered(job=state.id, session=state.session, request=request, end=end)
    return n.Publish(notice=notice)


def _how(state: JobState, request: str) -> n.InputEnd:
    """The server tells of the end before it answers the call that made it."""
    if not state.replies or state.replies[0].request.id != request:
        return n.InputEnd.GONE
    owed = state.replies[0]
    if owed.ask is None:
        return n.InputEnd.UNANSWERED
    rejected = isinstance(owed.answer, m.Rejection)
    return n.InputEnd.REJECTED if rejected else n.InputEnd.ANSWERED


def given_up(state: JobState, why: str) -> Acted:
    """The job runs no more, so nothing of it waits for an answer. For the last moment of its phase.

    The answer that the server was heard to take was taken, though the call that gave it has not returned yet; of
    one that is on its way nobody knows, and the others never left."""
    effects: list[JobEffect] = []
    waiting = pending(state)
    open_ = {about.id for about in waiting}
    for place, owed in enumerate(state.replies):
        value: m.Answered | m.NotAnswered = m.NotAnswered(why=m.NoAnswer.GONE, reason=why)
        if place == 0:
            unsure = owed.request.id in open_
            value = m.NotAnswered(why=m.NoAnswer.UNSURE, reason=why) if unsure else m.Answered()
        effects.extend(_told(owed.ask, value))
    effects.extend(_ended(state, about.id, n.InputEnd.GONE) for about in waiting)
    if waiting:
        effects.append(StopTimer(timer=JobTimer.UNANSWERED))
    if state.replies:
        effects.append(Forget(kind=m.ReplyToRequest))
    return evolve(state, replies=()), effects


# ---- answered


def answer(state: JobState, running: Running, message: m.AnswerRequest) -> Acted:
    request = running.work.requests.get(message.request)
    refusal = _refusal(state, request, message)
    if refusal is not None or request is None:
        return state, [Reply(ask=message.ask, value=refusal)]
    return _reply(state, Owed(request=request.about, answer=message.answer, ask=message.ask))


def no_request(message: m.AnswerRequest) -> Reply:
    return Reply(ask=message.ask, value=_gone(message.request))


def _gone(request: str) -> m.NotAnswered:
    reason = f"nothing waits for an answer under {request}: it was answered, timed out, or never asked"
    return m.NotAnswered(why=m.NoAnswer.GONE, reason=reason)


def _refusal(state: JobState, request: Request | None, message: m.AnswerRequest) -> m.NotAnswered | None:
    if request is None:
        return _gone(message.request)
    if any(owed.request.id == request.about.id for owed in state.replies):
        return m.NotAnswered(why=m.NoAnswer.GONE, reason=f"{message.request} is being answered already")
    unfit = _unfit(request.about, message.answer)
    return None if unfit is None else m.NotAnswered(why=m.NoAnswer.UNFIT, reason=unfit)


def _unfit(about: PendingRequest, given: m.Answer) -> str | None:
    match given:
        case m.QuestionAnswer(answers=answers):
            if about.kind is not RequestKind.QUESTION:
                return f"{about.id} is a permission: reply once, always or reject"
            if len(answers) != about.questions:
                return f"{about.id} has {about.questions} questions, and {len(answers)} answers were given"
            return None
        case m.PermissionAnswer():
            if about.kind is not RequestKind.PERMISSION:
                return f"{about.id} is a question: give answers, or reject it"
            return None
        case m.Rejection():
            return None


def _reply(state: JobState, owed: Owed) -> Acted:
    state = evolve(state, replies=(*state.replies, owed))
    return state, _next_reply(state) if len(state.replies) == 1 else []


def _next_reply(state: JobState) -> list[JobEffect]:
    if not state.replies or not isinstance(state.phase, Running):
        return []
    owed, endpoint = state.replies[0], state.phase.work.endpoint
    return [Run(operation=m.ReplyToRequest(endpoint=endpoint, request=owed.request, answer=owed.answer))]


# ---- what came of a reply


def taken(state: JobState, running: Running, now: float) -> Acted:
    owed, *rest = state.replies
    ended: list[JobEffect] = []
    if owed.request.id in running.work.requests:
        ended.append(_ended(state, owed.request.id, _how(state, owed.request.id)))
        work = without_requests(running.work, (owed.request.id,), now)
        state = evolve(state, phase=evolve(running, work=work))
    state = evolve(state, replies=tuple(rest))
    return state, [*_told(owed.ask, m.Answered()), *ended, *_next_reply(state), _timer(state, now)]


def failed(state: JobState, running: Running, message: m.ReplyFailed, now: float) -> Acted:
    owed, *rest = state.replies
    id_ = owed.request.id
    effects: list[JobEffect] = []
    work, request = running.work, running.work.requests.get(id_)
    if message.gone and request is not None:
        effects.append(_ended(state, id_, n.InputEnd.GONE))
        work = without_requests(work, (id_,), now)
    elif request is not None and owed.ask is None:
        again = evolve(request, failed_replies=request.failed_replies + 1)
        work = evolve(work, requests={**work.requests, id_: again})
    state = evolve(state, phase=evolve(running, work=work), replies=tuple(rest))
    why = m.NoAnswer.GONE if message.gone else m.NoAnswer.UNSURE
    effects.extend(_told(owed.ask, m.NotAnswered(why=why, reason=message.reason)))
    return state, [*effects, *_next_reply(state), _timer(state, now)]


def beyond_reach(running: Running) -> PendingRequest | None:
    """One that the server takes no answer to."""
    requests = running.work.requests.values()
    return next((request.about for request in requests if request.failed_replies >= REPLIES), None)


def _told(ask: AskId | None, value: m.Answered | m.NotAnswered) -> list[JobEffect]:
    return [] if ask is None else [Reply(ask=ask, value=value)]


# ---- when nobody answers


def overdue(state: JobState, running: Running, now: float) -> PendingRequest | None:
    due = (request.about for request in running.work.requests.values() if _is_due(state, request, now))
    return next(due, None)


def reject_overdue(state: JobState, running: Running, now: float) -> Acted:
    """Where the policy is to go on: the model is told that nobody answered."""
    effects: list[JobEffect] = []
    for request in running.work.requests.values():
        if _is_due(state, request, now) and not _is_replied(state, request):
            rejection = m.Rejection(message=NOBODY_ANSWERED)
            state, more = _reply(state, Owed(request=request.about, answer=rejection, ask=None))
            effects.extend(more)
    return state, [*effects, _timer(state, now)]


def _is_due(state: JobState, request: Request, now: float) -> bool:
    timeout = state.policy.question_timeout
    return bool(timeout) and now - request.at >= timeout - ROUNDING


def _is_replied(state: JobState, request: Request) -> bool:
    return any(owed.request.id == request.about.id for owed in state.replies)


def _timer(state: JobState, now: float) -> JobEffect:
    """For the next one that nobody has answered yet. One whose reply failed is tried again soon."""
    timeout, phase = state.policy.question_timeout, state.phase
    if not timeout or not isinstance(phase, Running):
        return StopTimer(timer=JobTimer.UNANSWERED)
    open_ = [request for request in phase.work.requests.values() if not _is_replied(state, request)]
    if not open_:
        return StopTimer(timer=JobTimer.UNANSWERED)
    seconds = min(
        max(request.at + timeout - now, REPLY_AGAIN if request.failed_replies else 0.0) for request in open_
    )
    return StartTimer(timer=JobTimer.UNANSWERED, seconds=seconds)


def is_fatal(state: JobState) -> bool:
    return state.policy.on_unanswered is OnUnanswered.FAIL
