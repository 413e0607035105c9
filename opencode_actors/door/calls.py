"""JSON-RPC 2.0: a frame as calls, and answers and notifications as frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from attrs import frozen

from opencode_actors.door.faults import Code, Fault
from opencode_actors.door.frames import Unreadable, encode, parse
from opencode_actors.door.limits import Limits

CallId = str | int | None

_LONGEST_ID = 256
_LARGEST_ID = 1 << 53  # what JavaScript can tell apart
_LONGEST_METHOD = 64


@frozen(kw_only=True)
class Call:
    """`answered` is False for a notification: nothing is said of it, whatever comes of it."""

    id: CallId
    answered: bool
    method: str
    params: Mapping[str, object]


@frozen(kw_only=True)
class BadCall:
    id: CallId
    fault: Fault


@frozen(kw_only=True)
class Frame:
    """`batch` is whether the answers belong into one array."""

    calls: tuple[Call | BadCall, ...]
    batch: bool = False


def read_frame(message: str | bytes, limits: Limits) -> Frame:
    """Whatever a peer may send is a frame, if only one that is answered with a fault."""
    if isinstance(message, bytes):
        return _bad(Code.INVALID_REQUEST, "binary frames are not understood", "send JSON in text frames")
    try:
        value = parse(message, limits)
    except Unreadable as error:
        return _bad(Code.PARSE_ERROR, str(error), "send one JSON-RPC 2.0 message in each text frame")
    if not isinstance(value, list):
        call = _read_call(value)
        return Frame(calls=() if call is None else (call,))
    members = cast("list[object]", value)
    if not members:
        return _bad(Code.INVALID_REQUEST, "a batch is empty", "put at least one call into it")
    if len(members) > limits.batch:
        return _bad(Code.INVALID_REQUEST, f"a batch has at most {limits.batch} calls", "send several batches")
    calls = (_read_call(member) for member in members)
    return Frame(calls=tuple(call for call in calls if call is not None), batch=True)


def _bad(code: Code, message: str, hint: str) -> Frame:
    return Frame(calls=(BadCall(id=None, fault=Fault(code, message, hint)),))


def _read_call(value: object) -> Call | BadCall | None:
    """None is for a reply: nothing is asked here, and two that answer each other's errors would not end."""
    if not isinstance(value, dict):
        return _invalid(None, "a call is a JSON object")
    member = cast("dict[str, object]", value)
    if "method" not in member and ("result" in member or "error" in member):
        return None
    given = member.get("id")
    if not _is_id(given):
        return _invalid(
            None, f"an id is null, a whole number up to 2^53, or a text of {_LONGEST_ID} characters"
        )
    id_ = cast(CallId, given)
    if member.get("jsonrpc") != "2.0":
        return _invalid(id_, 'a call has "jsonrpc": "2.0"')
    method = member.get("method")
    if not isinstance(method, str):
        return _invalid(id_, "a call has a method, which is a text")
    if unknown := member.keys() - {"jsonrpc", "id", "method", "params"}:
        return _invalid(id_, f"a call has no {min(unknown)[:_LONGEST_METHOD]!r}")
    params = member.get("params", {})
    if not isinstance(params, dict):
        fault = Fault(
            Code.INVALID_PARAMS,
            "params are a JSON object: all of them are named",
            "write {…} instead of […]",
            {"field": "params"},
        )
        return BadCall(id=id_, fault=fault)
    return Call(
        id=id_,
        answered="id" in member,
        method=method[:_LONGEST_METHOD],
        params=cast("dict[str, object]", params),
    )


def _is_id(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= _LONGEST_ID
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) <= _LARGEST_ID
    return value is None


def _invalid(id_: CallId, message: str) -> BadCall:
    return BadCall(id=id_, fault=Fault(Code.INVALID_REQUEST, message, "docs/protocol.md has examples"))


# ---- what goes out


def result(id_: CallId, value: Mapping[str, object]) -> str:
    return encode({"jsonrpc": "2.0", "id": id_, "result": value})


def error(id_: CallId, fault: Fault) -> str:
    return encode({"jsonrpc": "2.0", "id": id_, "error": fault.document()})


def notification(method: str, params: Mapping[str, object]) -> str:
    return encode({"jsonrpc": "2.0", "method": method, "params": params})


def batch(answers: list[str]) -> str:
    return f"[{','.join(answers)}]"
