"""docs/protocol.md is true: its examples are replayed, and its tables are those of the code."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, cast, get_args

from opencode_actors.door.faults import CloseCode, Code
from opencode_actors.door.notices import kind_of
from opencode_actors.machines.notices import Notice
from tests.door.room import Peer, a_peer
from tests.door.service import a_service

TEXT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
EXAMPLES = [
    (line[:3], json.loads(line[4:])) for line in TEXT.splitlines() if line.startswith(("--> ", "<-- "))
]

# What the example's ids are called in this run.
Names = dict[str, str]
_IDS = ("jobId", "subscription", "sessionKey")
_SAID = ("code", "cause", "kind", "field", "method", "hasMore", "protocol", "service")


def rewritten(value: Any, names: Names) -> Any:
    if isinstance(value, dict):
        return {key: rewritten(inner, names) for key, inner in cast(dict[str, Any], value).items()}
    if isinstance(value, list):
        return [rewritten(inner, names) for inner in value]  # pyright: ignore[reportUnknownVariableType]
    return names.get(value, value) if isinstance(value, str) else value


def compare(example: Any, real: Any, names: Names, where: str) -> None:
    """The same names, the same kinds of values; the same values where they are promised."""
    if isinstance(example, dict):
        assert isinstance(real, dict), where
        expected, found = cast(dict[str, Any], example), cast(dict[str, Any], real)
        assert expected.keys() == found.keys(), where
        for key, value in expected.items():
            if key in _IDS and isinstance(value, str):
                names.setdefault(value, found[key])
                assert names[value] == found[key], f"{where}.{key}"
            elif key in _SAID:
                assert value == found[key], f"{where}.{key}"
            else:
                compare(value, found[key], names, f"{where}.{key}")
    elif isinstance(example, list):
        assert isinstance(real, list), where
        expected_list, found_list = list[Any](example), list[Any](real)  # pyright: ignore[reportUnknownArgumentType]
        assert len(expected_list) == len(found_list), where
        for one, other in zip(expected_list, found_list, strict=True):
            compare(one, other, names, where)
    elif isinstance(example, bool | str):
        assert isinstance(real, type(example) | None), where
    elif isinstance(example, int | float):
        assert real is None or isinstance(real, int | float), where


def _id_last(answer: dict[str, Any]) -> bool:
    return answer["id"] is not None


async def the_next(peer: Peer, example: Any) -> Any:
    """Notices that the example leaves out are passed over."""
    while True:
        real = await peer.receive()
        if isinstance(example, dict) and example.get("method") == "notice":  # pyright: ignore[reportUnknownMemberType]
            if real.get("method") == "followEnded":
                raise AssertionError(f"never came: {example}")
            if real.get("params", {}).get("kind") != example["params"]["kind"]:
                continue
        elif isinstance(real, dict) and real.get("method") == "notice":  # pyright: ignore[reportUnknownMemberType]
            continue
        return real  # pyright: ignore[reportUnknownVariableType]


async def test_every_example_is_what_a_door_does() -> None:
    names: Names = {}
    async with a_service() as service, a_peer(service.door) as peer:
        service.world.servers.start("http://opencode.example:4096", password="").create("what they work on")
        for direction, message in EXAMPLES:
            if direction == "-->":
                await peer.send(rewritten(message, names))
                continue
            real = await the_next(peer, message)
            if isinstance(message, list):
                real.sort(key=_id_last)
            compare(message, real, names, json.dumps(message)[:80])
    assert len(EXAMPLES) > 30


def test_every_code_and_every_notice_is_in_a_table() -> None:
    rows = re.findall(r"^\| (-\d+) \| `(\w+)`", TEXT, re.MULTILINE)
    assert {(int(code), cause) for code, cause in rows} == {(int(code), code.name.lower()) for code in Code}
    closings = TEXT[TEXT.index("| close code |") :]
    assert not [code for code in CloseCode if f"| {int(code)} |" not in closings]
    kinds = set(
        re.findall(r"^\| `(\w+)` \|", TEXT[TEXT.index("## Notices") : TEXT.index("## Errors")], re.MULTILINE)
    )
    assert kinds == {kind_of(kind) for kind in get_args(Notice)} | {"missed"}
