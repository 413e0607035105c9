"""Every error of this package, one tree.

OpencodeActorsError
├── SettingsError            a setting is wrong; `key` names it
├── UsageError               the caller asked for something that cannot be
│   ├── UnknownJob           no job has this id
│   ├── UnknownSession       no session has this key
│   ├── RequestGone          the question or permission waits for no answer any more
│   ├── Busy                 a bound is reached (sessions, queue, mailbox); try again later
│   └── TooSlow              notices were not read for so long that no more could be kept
├── EngineError              the container engine's side
│   ├── EngineUnavailable    no engine answers on its socket
│   ├── ImageMissing         the image is not in the engine's store
│   ├── ImageBuildFailed     the image, or the base that it starts from, could not be made
│   ├── ContainerMissing     the engine knows no such container
│   └── EngineRefused        the engine answered with an error; `status` is its HTTP status
├── OpenCodeError            the OpenCode server's side
│   ├── ServerUnreachable    the connection was refused or broke
│   ├── ServerSilent         the connection stands, no answer came in time
│   ├── ServerRefused        the server answered with an error; `status` is its HTTP status
│   └── ServerUnintelligible an answer that is not what the server's API promises
├── DoorError                the service's side, as a client of its front door sees it
│   ├── NoService            none runs, or the connection to it has ended
│   └── CallRefused          it answered with an error; `code` is JSON-RPC's
├── StoreError               the state directory: in use, unreadable, full
├── ActorGone                the actor that was asked has ended
└── OpenClawError            OpenClaw is not on this host, or does not take the plugin

The type says whose fault it is; the text says what failed and why; `hint` says what to do next.
"""

from __future__ import annotations


class OpencodeActorsError(Exception):
    """What failed and why, in the user's words; `hint` is the next step, if there is one."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class SettingsError(OpencodeActorsError):
    """A setting is wrong; `key` is its name as it is written in a file."""

    def __init__(self, key: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.key = key


class UsageError(OpencodeActorsError):
    """The caller asked for something that cannot be."""


class UnknownJob(UsageError):
    """No job has this id."""


class UnknownSession(UsageError):
    """No session with this key is open."""


class RequestGone(UsageError):
    """The question or permission waits for no answer any more, or is not known."""


class Busy(UsageError):
    """A bound is reached, or the end has begun; nothing was started."""


class TooSlow(UsageError):
    """A follower did not read for so long that no more could be kept for it."""


class EngineError(OpencodeActorsError):
    """The container engine's side."""


class EngineUnavailable(EngineError):
    """No engine answers on its socket."""


class ImageMissing(EngineError):
    """The image is not in the engine's store."""


class ImageBuildFailed(EngineError):
    """The image, or the base that it starts from, could not be made."""


class ContainerMissing(EngineError):
    """The engine knows no such container."""


class EngineRefused(EngineError):
    """The engine answered with an error; `status` is its HTTP status."""

    def __init__(self, message: str, *, status: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


class OpenCodeError(OpencodeActorsError):
    """The OpenCode server's side."""


class ServerUnreachable(OpenCodeError):
    """The connection was refused, or broke."""


class ServerSilent(OpenCodeError):
    """The connection stands, and no answer came in time."""


class ServerRefused(OpenCodeError):
    """The server answered with an error; `status` is its HTTP status."""

    def __init__(self, message: str, *, status: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


class ServerUnintelligible(OpenCodeError):
    """An answer that is not what the server's API promises."""


class DoorError(OpencodeActorsError):
    """The service's side, as a client of its front door sees it."""


class NoService(DoorError):
    """No service runs, or the connection to it has ended."""


class CallRefused(DoorError):
    """The service answered with an error; `code` is JSON-RPC's, and `cause` its name."""

    cause: str = ""

    def __init__(self, message: str, *, code: int, cause: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.cause = cause


class StoreError(OpencodeActorsError):
    """The state directory is in use, unreadable or full."""


class ActorGone(OpencodeActorsError):
    """The actor that was asked has ended."""


class OpenClawError(OpencodeActorsError):
    """OpenClaw is not on this host, or does not take the plugin."""
