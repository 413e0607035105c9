"""Titles, errors and ids: the few texts that are made and not only passed on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencode_actors.adapters.opencode_decode import LONGEST_TITLE, error, one_line, tool_title
from opencode_actors.adapters.opencode_wire import WireError, WireErrorData, load, mended


@pytest.mark.parametrize(
    ("title", "arguments", "shown"),
    [
        ("the server's own", {"command": "make"}, "the server's own"),
        ("", {"command": "make  all\n\tinstall"}, "make all install"),
        (None, {"content": "long", "filePath": "/a/b.py"}, "/a/b.py"),
        (None, {"pattern": "**/*.py"}, "**/*.py"),
        (None, {"url": "http://example.org"}, "http://example.org"),
        (None, {"description": "a sub-task", "prompt": "do"}, "a sub-task"),
        (None, {"command": 5}, ""),
        (None, {}, ""),
        (None, {"command": "a\x1b[31mred\x1b[0m\x07\u202e"}, "a[31mred[0m"),
    ],
)
def test_a_tool_has_one_readable_line(title: str | None, arguments: dict[str, object], shown: str) -> None:
    assert tool_title(title, arguments) == shown


@given(st.text(), st.integers(1, 50))
def test_one_line_is_one_line_and_short(text: str, longest: int) -> None:
    line = one_line(text, longest=longest)
    assert len(line) <= longest
    assert line.isprintable()
    assert line.splitlines() in ([], [line])


def test_a_long_title_says_that_it_is_cut() -> None:
    shown = tool_title(None, {"command": "x" * 1_000_000})
    assert len(shown) == LONGEST_TITLE
    assert shown.endswith("x…")


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (
            "no such model\n    at <anonymous> (/$bunfs/root/chunk-1x.js:7:9)\n    at run (native:1:1)",
            "no such model",
        ),
        ("no model at hand at <anonymous> (/$bunfs/root/chunk-1x.js:7:9)", "no model at hand"),
        ("no such model\n    at /$bunfs/root/chunk-1x.js:7:9", "no such model"),
        ("two\nlines\n    at async next (file:///srv/a.js:10:3)\n    at x (y.js:1:2)", "two lines"),
        ("    at <anonymous> (/$bunfs/root/chunk-1x.js:7:9)", "UnknownError"),
        (
            "a comma is missing\n  at /home/me/opencode.json:3:5",
            "a comma is missing at /home/me/opencode.json:3:5",
        ),
        ("wait\nat least (or most) 3 s", "wait at least (or most) 3 s"),
    ],
)
def test_an_error_ends_where_its_stack_begins(said: str, shown: str) -> None:
    wire = WireError(name="UnknownError", data=WireErrorData(message=said))
    assert error(wire).message == shown


@given(st.text(st.characters()))
def test_a_mended_text_can_be_written(text: str) -> None:
    mended(text).encode()


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_whole_text_is_not_touched(text: str) -> None:
    assert mended(text) == text


def test_half_characters_of_an_answer_are_mended_wherever_they_stand() -> None:
    assert load(rb'{"a": ["\ud83c\udf89", {"b\ud83c": 1}]}', what="GET /x") == {"a": ["🎉", {"b\ufffd": 1}]}
