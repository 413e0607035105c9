"""A peer's text as calls: what is refused, and in which words."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencode_actors.door import calls
from opencode_actors.door.calls import BadCall, Call, read_frame
from opencode_actors.door.commands import METHODS, Answer, Start
from opencode_actors.door.faults import Code, Refused
from opencode_actors.door.frames import Unreadable, encode, parse
from opencode_actors.door.limits import Limits
from opencode_actors.door.params import command_of

LIMITS = Limits()


def fault_of(text: str | bytes) -> Code:
    (call,) = read_frame(text, LIMITS).calls
    assert isinstance(call, BadCall)
    assert call.fault.message
    return call.fault.code


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "nonsense",
        '{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":NaN}}',
        '{"x":Infinity}',
        '{"x":-Infinity}',
        '{"x":1e999}',
        '{"x":' + "9" * 33 + "}",
        '{"x":' + "9" * 100_000 + "}",
        '{"x":0.' + "1" * 100_000 + "}",
        "[" * 65 + "]" * 65,
        "[" * 1_000_000,
        '{"a":' * 100_000,
        "[" + "[]," * 20_000 + "[]]",
        '"' * 100_000,
        '"\\ud800"',
        '{"\\udfff":1}',
        '"\x00"',
        "\ufeff{}",
    ],
    ids=lambda text: text[:12],
)
def test_what_is_no_json_or_too_much_of_it_is_a_parse_error(text: str) -> None:
    assert fault_of(text) is Code.PARSE_ERROR


@pytest.mark.parametrize(
    "text",
    [
        b"{}",
        "1",
        "null",
        '"x"',
        "[]",
        "{}",
        '{"jsonrpc":"1.0","method":"ping"}',
        '{"jsonrpc":"2.0","method":1}',
        '{"jsonrpc":"2.0","method":"ping","id":1.5}',
        '{"jsonrpc":"2.0","method":"ping","id":true}',
        '{"jsonrpc":"2.0","method":"ping","id":[]}',
        '{"jsonrpc":"2.0","method":"ping","id":9007199254740993}',
        '{"jsonrpc":"2.0","method":"ping","extra":1}',
        "[" + ",".join(["1"] * 65) + "]",
    ],
)
def test_what_is_no_call_is_an_invalid_request(text: str | bytes) -> None:
    assert fault_of(text) is Code.INVALID_REQUEST


def test_params_are_named() -> None:
    assert fault_of('{"jsonrpc":"2.0","method":"ping","id":1,"params":[1]}') is Code.INVALID_PARAMS


def test_a_reply_is_not_answered_or_two_would_answer_each_other_for_ever() -> None:
    assert read_frame('{"jsonrpc":"2.0","id":1,"result":{}}', LIMITS).calls == ()
    assert read_frame('{"jsonrpc":"2.0","id":1,"error":{}}', LIMITS).calls == ()


def test_a_batch_is_its_calls_in_order() -> None:
    frame = read_frame(
        '[{"jsonrpc":"2.0","id":1,"method":"ping"},3,{"jsonrpc":"2.0","method":"info"}]', LIMITS
    )
    first, second, third = frame.calls
    assert frame.batch
    assert isinstance(first, Call)
    assert first.answered
    assert isinstance(second, BadCall)
    assert isinstance(third, Call)
    assert not third.answered


def test_a_prompt_of_megabytes_is_one_value() -> None:
    prompt = 'say "\\n' * 500_000
    assert parse(json.dumps({"prompt": prompt}), LIMITS) == {"prompt": prompt}


def test_a_whole_surrogate_pair_is_a_character() -> None:
    assert parse('"\\ud83d\\ude00"', LIMITS) == "😀"


_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
    max_leaves=20,
)


@given(_JSON)
def test_what_is_written_is_read(value: Any) -> None:
    assert parse(encode(value), LIMITS) == value


@given(
    st.text() | _JSON.map(json.dumps) | _JSON.map(lambda value: json.dumps({"jsonrpc": "2.0", "id": value}))
)
def test_whatever_comes_is_a_frame(text: str) -> None:
    for call in read_frame(text, LIMITS).calls:
        if isinstance(call, BadCall):
            assert json.loads(calls.error(call.id, call.fault))["error"]["message"]


@given(st.text())
def test_whatever_is_no_json_is_said_to_be_none(text: str) -> None:
    with suppress(Unreadable):
        parse(text, LIMITS)


@given(st.text(st.characters(), max_size=20))
def test_a_models_lone_surrogate_breaks_no_frame(text: str) -> None:
    assert encode({"text": text}).isascii()


# ---- commands


@pytest.mark.parametrize(
    ("method", "params", "field"),
    [
        ("start", {}, "prompt"),
        ("start", {"prompt": 3}, "prompt"),
        ("start", {"prompt": None}, "prompt"),
        ("start", {"prompt": "x", "foo": 1}, "foo"),
        ("start", {"prompt": "x", "origin": 3}, "origin"),
        ("start", {"prompt": "x", "origin": {"who": "me"}}, "origin.who"),
        ("start", {"prompt": "x", "origin": {"agent_id": 4}}, "origin.agent_id"),
        ("start", {"prompt": "x", "timeout": -1}, "timeout"),
        ("start", {"prompt": "x", "timeout": "60"}, "timeout"),
        ("start", {"prompt": "x", "max_cost_usd": 0}, "max_cost_usd"),
        ("start", {"prompt": "x", "key": ""}, "key"),
        ("start", {"prompt": "x", "name": "two\nlines"}, "name"),
        ("start", {"prompt": "x", "name": "n" * 300}, "name"),
        ("output", {"job_id": "x", "offset": -1}, "offset"),
        ("output", {"job_id": "x", "offset": True}, "offset"),
        ("output", {"job_id": "x", "limit": 0}, "limit"),
        ("output", {"job_id": "x", "limit": 1e30}, "limit"),
        ("follow", {"since": 1.5}, "since"),
        ("cleanup", {"delete_workspaces": 1}, "delete_workspaces"),
        ("answer", {"job_id": "x", "request_id": "y", "answers": [3]}, "answers"),
        ("answer", {"job_id": "x", "request_id": "y", "answers": {}}, "answers"),
        ("answer", {"job_id": "x", "request_id": "y", "reply": "maybe"}, "reply"),
        ("ping", {"x": 1}, "x"),
    ],
)
def test_a_wrong_param_is_named(method: str, params: dict[str, object], field: str) -> None:
    with pytest.raises(Refused) as refused:
        command_of(method, params)
    assert refused.value.fault.code is Code.INVALID_PARAMS
    assert refused.value.fault.more == {"field": field}


def test_an_unknown_method_is_told_which_there_are() -> None:
    with pytest.raises(Refused) as refused:
        command_of("explode", {})
    assert refused.value.fault.code is Code.UNKNOWN_METHOD
    assert all(method in refused.value.fault.hint for method in METHODS)


@pytest.mark.parametrize("given_", ["Blue", ["Blue"], [["Blue"]]])
def test_one_answer_can_be_written_as_one_likes(given_: object) -> None:
    command = command_of("answer", {"job_id": "j", "request_id": "r", "answers": given_})
    assert isinstance(command, Answer)
    assert command.answers == (("Blue",),)


def test_a_null_is_a_param_that_is_not_given() -> None:
    command = command_of("start", {"prompt": "x", "model": None, "timeout": 60})
    assert command == Start(prompt="x", timeout=60.0)
