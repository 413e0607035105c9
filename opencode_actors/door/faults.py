"""What can go wrong with a call, as the peer is told: JSON-RPC's code, and the words for a person."""

from __future__ import annotations

from enum import IntEnum

from attrs import Factory, frozen

from opencode_actors.errors import (
    ActorGone,
    Busy,
    EngineError,
    OpencodeActorsError,
    OpenCodeError,
    RequestGone,
    StoreError,
    TooSlow,
    UnknownJob,
    UnknownSession,
)


class Code(IntEnum):
    PARSE_ERROR = -32700
    INVALID_REQUEST = -32600
    UNKNOWN_METHOD = -32601
    INVALID_PARAMS = -32602
    INTERNAL = -32603
    UNKNOWN_JOB = -32001
    UNKNOWN_SESSION = -32002
    BUSY = -32003
    USAGE = -32004
    STORE = -32005
    ENGINE_UNAVAILABLE = -32006
    SHUTTING_DOWN = -32007
    TOO_SLOW = -32008
    REQUEST_GONE = -32009


class CloseCode(IntEnum):
    GOING_AWAY = 1001
    MESSAGE_TOO_BIG = 1009
    TOO_MANY_CONNECTIONS = 1013
    TOO_SLOW = 4000
    REPLACED = 4001
    NO_PONG = 4008


@frozen
class Fault:
    code: Code
    message: str
    hint: str = ""
    more: dict[str, object] = Factory(dict[str, object])

    def document(self) -> dict[str, object]:
        data: dict[str, object] = {"cause": self.code.name.lower(), "hint": self.hint, **self.more}
        return {"code": int(self.code), "message": self.message, "data": data}


class Refused(Exception):
    """A call that is answered with a fault."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


# The first that fits.
_CODES: tuple[tuple[type[OpencodeActorsError], Code], ...] = (
    (UnknownJob, Code.UNKNOWN_JOB),
    (UnknownSession, Code.UNKNOWN_SESSION),
    (RequestGone, Code.REQUEST_GONE),
    (Busy, Code.BUSY),
    (TooSlow, Code.TOO_SLOW),
    (EngineError, Code.ENGINE_UNAVAILABLE),
    (OpenCodeError, Code.ENGINE_UNAVAILABLE),
    (StoreError, Code.STORE),
    (ActorGone, Code.BUSY),
    (OpencodeActorsError, Code.USAGE),
)


def fault_of(error: OpencodeActorsError, *, closing: bool = False) -> Fault:
    if closing and isinstance(error, Busy | ActorGone):
        return shutting_down()
    code = next(code for kind, code in _CODES if isinstance(error, kind))
    return Fault(code, error.message, error.hint)


def shutting_down() -> Fault:
    return Fault(Code.SHUTTING_DOWN, "the service is shutting down", "connect again once it has been started")


def busy(message: str) -> Fault:
    return Fault(Code.BUSY, message, "wait for an answer, then try again", {"retryAfterSeconds": 1})


def bug(crash_file: str | None) -> Fault:
    where = {"crashFile": crash_file} if crash_file else {}
    return Fault(
        Code.INTERNAL,
        "a mistake in opencode-actors itself ended this call",
        f"please report it, with the details in {crash_file}" if crash_file else "please report it",
        {**where},
    )
