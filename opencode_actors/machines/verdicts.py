"""Why a job is ended though nobody cancelled it, in the user's words."""

from __future__ import annotations

from opencode_actors.machines import failures
from opencode_actors.machines.job_state import JobPolicy
from opencode_actors.machines.server_events import ConversationRetrying
from opencode_actors.machines.transcript import ABORTED, Ending
from opencode_actors.machines.vocabulary import Cause, Failure
from opencode_actors.machines.work import Work


def idle(policy: JobPolicy, work: Work, seconds: float) -> Failure:
    why = work.activity.why_idle(text_seen=work.transcript.text_seen)
    retrying = work.activity.retrying
    return Failure(
        cause=_provider_cause(retrying) if retrying else Cause.IDLE_TIMEOUT,
        message=f"nothing happened for {seconds:.0f} s (idleTimeout is {policy.idle_timeout:g} s): {why}",
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


def timed_out(policy: JobPolicy) -> Failure:
    return Failure(
        cause=Cause.JOB_TIMEOUT,
        message=f"the job was not done after jobTimeout ({policy.job_timeout:g} s)",
    )
