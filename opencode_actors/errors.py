"""Every error of this package, one tree.

OpencodeActorsError
├── SettingsError            a setting is wrong; `key` names it
├── UsageError               the caller asked for something that cannot be
│   ├── UnknownJob           no job has this id
│   ├── UnknownSession       no session has this key
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
├── StoreError               the state directory: in use, unreadable, full
└── ActorGone                the actor that was asked has ended

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
    def __init__(self, key: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.key = key


class UsageError(OpencodeActorsError):
    pass


class UnknownJob(UsageError):
    pass


class UnknownSession(UsageError):
    pass


class Busy(UsageError):
    pass


class TooSlow(UsageError):
    pass


class EngineError(OpencodeActorsError):
    pass


class EngineUnavailable(EngineError):
    pass


class ImageMissing(EngineError):
    pass


class ImageBuildFailed(EngineError):
    pass


class ContainerMissing(EngineError):
    pass


class EngineRefused(EngineError):
    def __init__(self, message: str, *, status: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


class OpenCodeError(OpencodeActorsError):
    pass


class ServerUnreachable(OpenCodeError):
    pass


class ServerSilent(OpenCodeError):
    pass


class ServerRefused(OpenCodeError):
    def __init__(self, message: str, *, status: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


class ServerUnintelligible(OpenCodeError):
    pass


class StoreError(OpencodeActorsError):
    pass


class ActorGone(OpencodeActorsError):
    pass
