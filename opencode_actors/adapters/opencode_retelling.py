"""A conversation told to its server once more, as one that took place earlier.

OpenCode keeps a conversation in the order of the times at which its messages were made, and takes what was made
last for its end. After the clock was set back, nothing that is said comes behind what was said before, and no
prompt is answered. Its own fork does not help: the times stay. What it keeps is the sum of its events, and it takes
those of another server; so it is given the conversation's as they would have been.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

Json = Mapping[str, Any]

_PER_MILLISECOND = 0x1000
_TIME_BITS = 48
_TAIL = 14
# What is added up from the parts again, and what belongs to the one conversation alone.
_NOT_KEPT = frozenset({"cost", "tokens", "summary", "revert", "share"})


def retold(session: Json, messages: Sequence[Json], *, to: str, earlier: float) -> list[Json]:
    """The events that make `session`, with its messages as the API tells them, the conversation `to`."""
    milliseconds = round(earlier * 1000)
    made = {key: value for key, value in session.items() if key not in _NOT_KEPT}
    made |= {"id": to, "time": _moved(session["time"], milliseconds)}
    events = [_event(0, "session.created.1", to, {"info": made})]
    renamed: dict[str, str] = {}
    for message in messages:
        info = message["info"]
        time = _moved(info["time"], milliseconds)
        id_ = renamed[info["id"]] = _id("msg", time["created"], len(renamed), f"{to}{info['id']}")
        told = {**info, "id": id_, "sessionID": to, "time": time}
        if "parentID" in info:
            told["parentID"] = renamed.get(info["parentID"], info["parentID"])
        events.append(_event(len(events), "message.updated.1", to, {"info": told}))
        for part in message["parts"]:
            own = _id("prt", time["created"], len(events), f"{to}{part['id']}")
            piece = {**part, "id": own, "messageID": id_, "sessionID": to}
            if "tail_start_id" in part:  # where the model's view begins after a compaction
                piece["tail_start_id"] = renamed.get(part["tail_start_id"], part["tail_start_id"])
            data = {"part": piece, "time": time["created"]}
            events.append(_event(len(events), "message.part.updated.1", to, data))
    return events


def _moved(time: Json, milliseconds: int) -> dict[str, Any]:
    return {name: at - milliseconds for name, at in time.items()}


def _event(seq: int, kind: str, to: str, data: Json) -> Json:
    id_ = _id("evt", 0, seq, f"{to}{seq}")
    return {"id": id_, "aggregateID": to, "seq": seq, "type": kind, "data": {"sessionID": to, **data}}


def _id(prefix: str, milliseconds: float, number: int, of: str) -> str:
    """In the server's form; of those of one time, a later one sorts behind an earlier one."""
    time = (int(milliseconds) * _PER_MILLISECOND + 1 + number % (_PER_MILLISECOND - 1)) % (1 << _TIME_BITS)
    return f"{prefix}_{time:012x}{sha256(of.encode()).hexdigest()[:_TAIL]}"
