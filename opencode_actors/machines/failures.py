"""What a server's error and a container's death are called, and what is said of them."""

from __future__ import annotations

from opencode_actors.machines.server_events import MessageError
from opencode_actors.machines.vocabulary import Cause, Failure
from opencode_actors.ports import Death

_AUTH = frozenset({401, 403})
_PAYMENT_REQUIRED = 402
_TOO_MANY = 429
KILLED = 137
TERMINATED = 143
_SIGNALS = 128


def of_error(error: MessageError) -> Failure:
    """A provider's or the server's own error, as the cause that a user can act upon."""
    return Failure(cause=_cause(error), message=_text(error))


def _cause(error: MessageError) -> Cause:
    if error.name == "ProviderAuthError" or error.status_code in _AUTH:
        return Cause.AUTH
    if error.status_code == _TOO_MANY:
        return Cause.RATE_LIMIT
    if error.name == "ContextOverflowError":
        return Cause.CONTEXT
    if error.name == "APIError":
        return Cause.PROVIDER
    if error.name.endswith("NotFoundError") or "not found" in error.message.lower():
        return Cause.REJECTED  # an unknown agent or model: the prompt never reached a provider
    return Cause.PROVIDER


def _text(error: MessageError) -> str:
    text = error.message or error.name
    if error.status_code == _PAYMENT_REQUIRED:
        return f"the provider wants to be paid first: {text}"
    return f"{text} (HTTP {error.status_code})" if error.status_code is not None else text


def of_silence(url: str, seconds: float, reason: str) -> Failure:
    """A server that somebody else runs has been waited for long enough."""
    why = f" ({reason})" if reason else ""
    return Failure(
        cause=Cause.SERVER_LOST,
        message=f"OpenCode's server at {url} has not been heard for {seconds:.0f} s{why}; "
        "what it was working on may still be running there",
    )


def of_death(death: Death) -> Failure:
    """A container that ended though nobody here asked for it."""
    if death.oom_killed:
        return Failure(
            cause=Cause.OOM,
            message="the container ran out of memory and the kernel killed it",
            exit_code=death.exit_code,
        )
    if death.removed:
        return Failure(
            cause=Cause.REMOVED,
            message="somebody removed the container",
            exit_code=death.exit_code,
        )
    return Failure(
        cause=Cause.CRASH,
        message=f"the container ended: {_exit_in_words(death.exit_code)}",
        exit_code=death.exit_code,
    )


def _exit_in_words(exit_code: int | None) -> str:
    if exit_code is None:
        return "exit code unknown"
    if exit_code == KILLED:
        return "killed by SIGKILL (exit code 137)"
    if exit_code > _SIGNALS:
        return f"killed by signal {exit_code - _SIGNALS} (exit code {exit_code})"
    return f"exit code {exit_code}"
