"""Why a job is ended though nobody cancelled it, in the user's words."""

from __future__ import annotations

from attrs import evolve

from opencode_actors.machines import failures
from opencode_actors.machines.job_state import JobPolicy
from opencode_actors.machines.server_events import ConversationRetrying
from opencode_actors.machines.spending import dollars
from opencode_actors.machines.transcript import ABORTED, Ending
from opencode_actors.machines.vocabulary import Cause, Failure, PendingRequest, RequestKind
from opencode_actors.machines.work import Work


def idle(policy: JobPolicy, work: Work, seconds: float, now: float) -> Failure:
    retrying = work.activity.retrying
    cause, why = Cause.IDLE_TIMEOUT, work.transcript.silence
    if retrying is not None:
        cause = _provider_cause(retrying.reason)
        why = (
            f"OpenCode has been asking the provider again for {now - retrying.since:.0f} s "
            f"(attempt {retrying.attempt}: {retrying.reason})"
        )
    return Failure(
        cause=cause,
        message=f"nothing happened for {seconds:.0f} s (idleTimeout is {policy.idle_timeout:g} s): {why}",
    )


def unanswered(policy: JobPolicy, request: PendingRequest) -> Failure:
    what = "question" if request.kind is RequestKind.QUESTION else "permission"
    return Failure(
        cause=Cause.UNANSWERED,
        message=f"nobody answered within questionTimeout ({policy.question_timeout:g} s). "
        f"The {what} was: {request.text}",
    )


def unanswerable(request: PendingRequest, reason: str) -> Failure:
    return Failure(
        cause=Cause.SERVER_HUNG,
        message=f"OpenCode takes no answer to {request.text!r}, for which it waits ({reason})",
    )


def too_much(policy: JobPolicy, retrying: ConversationRetrying, wait: float) -> Failure | None:
    """OpenCode itself would ask the provider again for hours."""
    cause = _provider_cause(retrying.message)
    if wait > policy.idle_timeout:
        return Failure(
            cause=cause,
            message=f"the provider wants {wait:.0f} s of patience: {retrying.message}",
        )
    if retrying.attempt > policy.max_provider_retries:
        return Failure(
            cause=cause,
            message=f"the provider failed {retrying.attempt} times in a row: {retrying.message}",
        )
    return None


def _provider_cause(message: str) -> Cause:
    words = message.lower()
    limited = "rate limit" in words or "too many requests" in words
    return Cause.RATE_LIMIT if limited else Cause.PROVIDER


def unended(work: Work) -> Failure:
    """The server is idle, and the answer is not one."""
    last = work.transcript.last
    if last is not None and last.error is not None and last.error.name != ABORTED:
        return failures.of_error(last.error)
    if work.error is not None:
        return failures.of_error(work.error)
    if last is None:
        return Failure(cause=Cause.REJECTED, message="OpenCode took the prompt and never began to answer it")
    if work.transcript.ending is Ending.ABORTED:
        return Failure(cause=Cause.LOST, message="somebody else aborted the answer on the server")
    return Failure(cause=Cause.LOST, message="OpenCode went idle in the middle of its answer")


def without_end() -> Failure:
    return Failure(
        cause=Cause.LOST,
        message="the clock was set back while the model was at work. OpenCode takes an older message for the last "
        "one then, and would ask the model again and again; tell the session to go on, and it will",
    )


def set_back(why: Failure) -> Failure:
    """It was interrupted, and the way on begins before where it was."""
    rest = "meanwhile the clock was set back, so nothing can be asked behind its prompt; start it again"
    return evolve(why, message=f"{why.message}; {rest}")


def over_budget(policy: JobPolicy, work: Work) -> Failure | None:
    """An answer that has ended costs no more, so it is not ended for what it has cost."""
    cost = work.spending.cost
    if not policy.max_cost_usd or cost <= policy.max_cost_usd or work.transcript.ending is not None:
        return None
    return Failure(
        cause=Cause.BUDGET,
        message=f"the job has cost {dollars(cost)}, and may cost {dollars(policy.max_cost_usd)} at most",
    )


def not_ended(policy: JobPolicy, verdict: Failure | None, why: str) -> Failure:
    """The ladder ends at its first rung where the server is somebody else's."""
    rest = (
        f"the answer could not be ended at {policy.elsewhere}: {why}; it may still be running there, and a server "
        "that somebody else runs is never stopped"
    )
    if verdict is None:
        return Failure(cause=Cause.NOT_ENDED, message=rest)
    return evolve(verdict, message=f"{verdict.message}; {rest}")


def timed_out(policy: JobPolicy) -> Failure:
    return Failure(
        cause=Cause.JOB_TIMEOUT,
        message=f"the job was not done after jobTimeout ({policy.job_timeout:g} s)",
    )
