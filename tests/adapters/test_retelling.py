"""A conversation told again as an earlier one: in the order of its turns, and in pieces that a server takes."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from opencode_actors.adapters.opencode import HttpOpenCode
from opencode_actors.adapters.opencode_retelling import in_batches, retold
from opencode_actors.errors import ServerUnintelligible
from opencode_actors.machines.server_events import ConversationId
from opencode_actors.testing.samples import ENDPOINT

SESSION = {
    "id": "ses_old",
    "title": "t",
    "directory": "/w",
    "time": {"created": 1_000_000, "updated": 9_000_000},
}


def message(id_: str, created: int, *parts: str, parent: str | None = None) -> dict[str, Any]:
    info: dict[str, Any] = {"id": id_, "sessionID": "ses_old", "role": "user", "time": {"created": created}}
    if parent is not None:
        info |= {"role": "assistant", "parentID": parent}
    return {
        "info": info,
        "parts": [{"id": f"prt_{id_}{n}", "type": "text", "text": t} for n, t in enumerate(parts)],
    }


def told(*messages: dict[str, Any], earlier: float = 1.0) -> list[Any]:
    return retold(SESSION, messages, to="ses_new", earlier=earlier)


def infos(events: list[Any]) -> list[Any]:
    return [event["data"]["info"] for event in events if event["type"] == "message.updated.1"]


def test_an_answer_that_stands_before_its_prompt_stands_behind_it_in_the_copy() -> None:
    first, second, third = infos(
        told(
            message("msg_answer", 5_000, "yes", parent="msg_asked"),
            message("msg_asked", 8_000, "is it?"),
            message("msg_next", 9_000, "and?"),
        )
    )
    assert (first["role"], second["role"], third["role"]) == ("user", "assistant", "user")
    assert second["parentID"] == first["id"]
    assert first["time"]["created"] == 7_000
    assert first["time"]["created"] <= second["time"]["created"] <= third["time"]["created"]
    assert first["id"] < second["id"] < third["id"]


def test_the_parts_of_a_message_keep_their_order_however_many_there_are_before_them() -> None:
    events = told(*(message(f"msg_{number:05}", number, "a", "b", "c") for number in range(3_000)))
    parts = [event["data"]["part"] for event in events if event["type"] == "message.part.updated.1"]
    of_one: dict[str, list[str]] = {}
    for part in parts:
        of_one.setdefault(part["messageID"], []).append(part["id"])
    assert all(ids == sorted(ids) for ids in of_one.values())


def test_it_is_told_in_pieces_that_are_bounded_by_number_and_by_size() -> None:
    small = told(*(message(f"msg_{number}", number, "a") for number in range(100)))
    batches = list(in_batches(small))
    assert [event for batch in batches for event in batch] == small
    assert max(map(len, batches)) == 50
    large = told(*(message(f"msg_{number}", number, "x" * (3 << 20)) for number in range(4)))
    sizes = [len(json.dumps(batch)) for batch in in_batches(large)]
    assert len(sizes) >= 4
    assert max(sizes) < 5 << 20


GARBAGE: list[tuple[Any, Any]] = [
    ({}, ()),
    ({**SESSION, "time": None}, ()),
    (SESSION, ({"info": {"id": "msg_1"}, "parts": []},)),
    (SESSION, ({"info": {"id": "msg_1", "time": {"created": float("inf")}}, "parts": []},)),
    (SESSION, ({"info": [], "parts": []},)),
    (SESSION, ({**message("msg_1", 5_000), "parts": [{}]},)),
]


@pytest.mark.parametrize(("session", "messages"), GARBAGE)
async def test_what_is_no_conversation_is_the_servers_fault(
    monkeypatch: pytest.MonkeyPatch, session: Any, messages: Any
) -> None:
    answers = iter((session, messages))

    async def answered(*_: object) -> object:
        await trio.lowlevel.checkpoint()
        return next(answers)

    monkeypatch.setattr(HttpOpenCode, "_get", answered)
    with pytest.raises(ServerUnintelligible, match="no conversation"):
        await HttpOpenCode(ENDPOINT).retell(ConversationId("ses_old"), earlier=1.0)
