"""What is said of a failed job, and of an error: what happened, and what to do next. One place for all of it."""

from __future__ import annotations

from typing import assert_never

from attrs import frozen

from opencode_actors.cli.status import Status
from opencode_actors.errors import (
    CallRefused,
    EngineError,
    NoService,
    OpenClawError,
    OpencodeActorsError,
    SettingsError,
    StoreError,
    UsageError,
)
from opencode_actors.machines.vocabulary import Cause, Failure, JobSnapshot, JobStatus
from opencode_actors.settings import Settings
from opencode_actors.settings_knobs import show_size


@frozen(kw_only=True)
class Explanation:
    what: str
    hint: str


# The host, not the job, has to be mended before the next try.
ENVIRONMENT_CAUSES = frozenset(
    {Cause.IMAGE_MISSING, Cause.ENGINE_UNAVAILABLE, Cause.ENGINE_REFUSED, Cause.STORE}
)


# What the service answers to a call that was wrong.
_CALLERS_FAULT = frozenset({"usage", "invalid_params", "unknown_job", "unknown_session", "request_gone"})


# Causes whose message is somebody else's words, and needs ours before it. The others say it all themselves.
_FOREIGN_WORDS = frozenset(
    {
        Cause.AUTH,
        Cause.RATE_LIMIT,
        Cause.PROVIDER,
        Cause.CONTEXT,
        Cause.REJECTED,
        Cause.ENGINE_REFUSED,
        Cause.STORE,
    }
)


def explain(failure: Failure, settings: Settings) -> Explanation:
    what, hint = _explain(failure.cause, settings)
    detail = failure.message.strip()
    if not detail:
        return Explanation(what=what, hint=hint)
    return Explanation(what=f"{what}: {detail}" if failure.cause in _FOREIGN_WORDS else detail, hint=hint)


def _explain(cause: Cause, settings: Settings) -> tuple[str, str]:
    match cause:
        case Cause.CRASH:
            return (
                "the container ended in the middle of the job",
                "run again in the same session: it has a new container then, and its conversation",
            )
        case Cause.OOM:
            return (
                f"the container ran out of memory ({show_size(settings.memory)})",
                "give it more, for example with --set memory=2g",
            )
        case Cause.REMOVED:
            return (
                "the container was removed by somebody else",
                "run the job again; the session's conversation and workspace are still there",
            )
        case Cause.SERVER_HUNG:
            return (
                "OpenCode's server stopped answering, though its container runs",
                "run the job again: the container is started anew; if it happens often, give it more memory or CPU",
            )
        case Cause.SERVER_LOST:
            return (
                "the server that somebody else runs is out of reach",
                "look there what became of it before running it again; serverLostAfter is how long it may be away",
            )
        case Cause.SERVER_REFUSED:
            return (
                "the server that somebody else runs did not take it",
                "see to the server, or detach and attach again with what it takes now; nothing was sent",
            )
        case Cause.NOT_ENDED:
            return (
                "the server that somebody else runs did not end the answer",
                "end it there (its terminal, or whoever runs it); until then the session takes no other prompt",
            )
        case Cause.UNANSWERED:
            return (
                "the agent asked something, and nobody answered",
                "--set questions=deny takes the tool away; with --set onUnanswered=reject the agent goes on",
            )
        case Cause.BUDGET:
            return (
                "the job has cost more than it may",
                "go on in the same session, with another bound; what was done is in the workspace",
            )
        case Cause.IDLE_TIMEOUT:
            return (
                f"the job showed no sign of life for {settings.idle_timeout:g} s",
                "if the model or a tool may be silent for longer, raise it: --set idleTimeout=600",
            )
        case Cause.JOB_TIMEOUT:
            return (
                f"the job took longer than {settings.job_timeout:g} s",
                "raise jobTimeout (--timeout), or set it to 0 for no bound; what was done is in the workspace",
            )
        case Cause.STARTUP_TIMEOUT:
            return (
                "OpenCode did not become healthy in time",
                f"a slow host needs more than serverReadyTimeout={settings.server_ready_timeout:g}: raise it with --set",
            )
        case Cause.AUTH:
            return (
                "the model provider refused the credentials",
                "log in again with `opencode auth login` on this host, or correct the provider's key",
            )
        case Cause.RATE_LIMIT:
            return (
                "the model provider's rate limit is reached",
                "wait and run the job again, or choose another model with --model provider/model",
            )
        case Cause.PROVIDER:
            return (
                "the model provider failed",
                "run the job again, or choose another model with --model provider/model",
            )
        case Cause.CONTEXT:
            return (
                "the conversation is longer than the model can take",
                "start a fresh one with another --session",
            )
        case Cause.REJECTED:
            return (
                "OpenCode did not accept the prompt",
                "check the names given with --model (provider/model) and --agent",
            )
        case Cause.IMAGE_MISSING:
            return (
                f"the image {settings.image} is not here",
                "build it with `opencode-actors image build`, or bring one of your own into the engine's store",
            )
        case Cause.ENGINE_UNAVAILABLE:
            return f"{settings.runtime} cannot be reached", "`opencode-actors doctor` says what is missing"
        case Cause.ENGINE_REFUSED:
            return f"{settings.runtime} refused", "`opencode-actors doctor` checks what this host can do"
        case Cause.LOST:
            return (
                "what became of the job is not known: nobody watched when it ended",
                "look into the workspace before running it again; a prompt is never sent twice by itself",
            )
        case Cause.STORE:
            return (
                "the job could not be recorded",
                f"look at {settings.sessions_dir}: it must be yours and have room (`df -h`)",
            )
        case Cause.INTERNAL:
            return (
                "a mistake in opencode-actors itself ended the job",
                "please report it with the message above; the session can be used again",
            )
        case Cause.CLOSED:
            return "the session was closed before the job ended", "run the job again"
        case _:
            assert_never(cause)


def of_job(snapshot: JobSnapshot) -> Status:
    if snapshot.status is JobStatus.COMPLETED:
        return Status.OK
    if snapshot.status is JobStatus.CANCELLED:
        return Status.CANCELLED
    if snapshot.failure is not None and snapshot.failure.cause in ENVIRONMENT_CAUSES:
        return Status.ENVIRONMENT
    return Status.FAILED


def of_error(error: OpencodeActorsError) -> Status:
    if isinstance(error, SettingsError | UsageError):
        return Status.USAGE
    if isinstance(error, CallRefused) and error.cause in _CALLERS_FAULT:
        return Status.USAGE
    if isinstance(error, EngineError | StoreError | NoService | OpenClawError):
        return Status.ENVIRONMENT
    return Status.FAILED


def error_document(error: OpencodeActorsError) -> dict[str, object]:
    return {
        "status": "error",
        "error": {"kind": type(error).__name__, "message": error.message, "hint": error.hint},
    }
