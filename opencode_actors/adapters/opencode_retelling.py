"""A conversation told to its server once more, as one that took place earlier.

OpenCode keeps a conversation in the order of the times at which its messages were made, and takes what was made
last for its end. After the clock was set back, nothing that is said comes behind what was said before, and no
prompt is answered. Its own fork does not help: the times stay. What it keeps is the sum of its events, and it takes
those of another server; so it is given the conversation's as they would have been.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any

from opencode_actors.machines.prompt_ids import PER_MILLISECOND, TIME_BITS

Json = Mapping[str, Any]

_TAIL = 14
_TOLD_AT_ONCE = 50
_LARGEST_BATCH = 4 << 20
# What is added up from the parts again, and what belongs to the one conversation alone.
_NOT_KEPT = frozenset({"cost", "tokens", "summary", "revert", "share"})


def retold(session: Json, messages: Sequence[Json], *, to: str, earlier: float) -> list[Json]:
    """The events that make `session`, with its messages as the API tells them, the conversation `to`."""
    milliseconds = round(earlier * 1000)
    made = {key: value for key, value in session.items() if key not in _NOT_KEPT}
    made |= {"id": to, "time": _moved(session["time"], milliseconds)}
    events = [_event(0, "session.created.1", to, {"info": made})]
    renamed: dict[str, str] = {}
    created = 0.0
    for message in _in_turns(messages):
        info = message["info"]
        time = _moved(info["time"], milliseconds)
        # The server goes by this time alone, and by the ids where it is the same.
        created = time["created"] = max(created, time["created"])
        id_ = renamed[info["id"]] = _id("msg", created, len(renamed), f"{to}{info['id']}")
        told = {**info, "id": id_, "sessionID": to, "time": time}
        if "parentID" in info:
            told["parentID"] = renamed.get(info["parentID"], info["parentID"])
        events.append(_event(len(events), "message.updated.1", to, {"info": told}))
        for place, part in enumerate(message["parts"]):
            own = _id("prt", created, place, f"{to}{part['id']}")
            piece = {**part, "id": own, "messageID": id_, "sessionID": to}
            if "tail_start_id" in part:  # where the model's view begins after a compaction
                piece["tail_start_id"] = renamed.get(part["tail_start_id"], part["tail_start_id"])
            data = {"part": piece, "time": created}
            events.append(_event(len(events), "message.part.updated.1", to, data))
    return events


def in_batches(events: Sequence[Json]) -> Iterator[list[Json]]:
    """Each is one transaction of the server's, and one request, which has a bound: files stand in them whole."""
    batch: list[Json] = []
    size = 0
    for event in events:
        length = len(json.dumps(event))
        if batch and (len(batch) == _TOLD_AT_ONCE or size + length > _LARGEST_BATCH):
            yield batch
            batch, size = [], 0
        batch.append(event)
        size += length
    if batch:
        yield batch


def _in_turns(messages: Sequence[Json]) -> list[Json]:
    """An answer that the clock was set back under stands before what it answers: in the copy, behind it."""
    theirs = {message["info"]["id"] for message in messages}
    placed: list[Json] = []
    told: set[str] = set()
    early: dict[str, list[Json]] = {}
    for message in messages:
        parent = message["info"].get("parentID")
        if parent in theirs and parent not in told:
            early.setdefault(parent, []).append(message)
            continue
        own = early.pop(message["info"]["id"], [])
        placed += (message, *own)
        told.update(one["info"]["id"] for one in (message, *own))
    return placed + [message for left in early.values() for message in left]


def _moved(time: Json, milliseconds: int) -> dict[str, Any]:
    return {name: at - milliseconds for name, at in time.items()}


def _event(seq: int, kind: str, to: str, data: Json) -> Json:
    id_ = _id("evt", 0, seq, f"{to}{seq}")
    return {"id": id_, "aggregateID": to, "seq": seq, "type": kind, "data": {"sessionID": to, **data}}


def _id(prefix: str, milliseconds: float, number: int, of: str) -> str:
    """In the server's form; of those of one time, a later one sorts behind an earlier one."""
    time = (int(milliseconds) * PER_MILLISECOND + 1 + number % (PER_MILLISECOND - 1)) % (1 << TIME_BITS)
    return f"{prefix}_{time:012x}{sha256(of.encode()).hexdigest()[:_TAIL]}"
