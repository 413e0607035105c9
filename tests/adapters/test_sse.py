"""The parser of server-sent events, over any way in which a network may cut the bytes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencode_actors.adapters.sse import EventParser, EventTooLarge

ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
# What JSON.stringify leaves bare, and what splits lines elsewhere; never a line's end here.
TEXTS = st.text(alphabet=st.sampled_from('ab: {}"\u2028\u2029\x85\x0b\x0c\x1c漢🎉data')).map(str.encode)


def cut(whole: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(whole) + 1) for place in places), len(whole)]
    return [whole[start:end] for start, end in pairwise(edges)]


def parse(chunks: list[bytes]) -> list[bytes]:
    parser = EventParser()
    return [event for chunk in chunks for event in parser.feed(chunk)]


@given(st.lists(st.lists(TEXTS, min_size=1, max_size=3), max_size=5), ENDS, st.lists(st.integers(0, 10_000)))
def test_any_cut_of_the_bytes_gives_the_same_events(
    events: list[list[bytes]], end: bytes, places: list[int]
) -> None:
    whole = b"".join(b"".join(b"data: " + line + end for line in event) + end for event in events)
    assert parse(cut(whole, places)) == [b"\n".join(event) for event in events]


@given(st.binary(), st.lists(st.integers(0, 10_000)))
def test_nonsense_is_parsed_alike_however_it_is_cut(whole: bytes, places: list[int]) -> None:
    assert parse(cut(whole, places)) == parse([whole])


def test_a_character_in_two_reads_is_one_character() -> None:
    parser = EventParser()
    begun, rest = "data: ä🎉".encode()[:9], "data: ä🎉".encode()[9:]
    assert parser.feed(begun) == []
    assert parser.feed(rest + b"\n\n") == ["ä🎉".encode()]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b": a comment\n\ndata: x\n\n", [b"x"]),
        (b"event: e\nid: 1\nretry: 5\ndata: x\n\n", [b"x"]),
        (b"data:x\n\n", [b"x"]),
        (b"data:  x\n\n", [b" x"]),
        (b"data\n\n", [b""]),
        (b"data: x\n", []),
        (b"\n\n\n", []),
        (b"database: x\n\n", []),
        (b"data: x\r\rdata: y\r\n\r\n", [b"x", b"y"]),
    ],
)
def test_the_lines_of_an_event(stream: bytes, events: list[bytes]) -> None:
    assert parse([stream]) == events


@pytest.mark.parametrize(
    "line", [b"x" * 101, b"data: " + b"x" * 101, b"data: " + b"x" * 60 + b"\ndata: " + b"x" * 60]
)
def test_an_event_without_end_is_refused(line: bytes) -> None:
    parser = EventParser(largest=100)
    with pytest.raises(EventTooLarge):
        parser.feed(line)


def test_many_small_events_are_no_large_one() -> None:
    parser = EventParser(largest=100)
    assert len(parser.feed(b"data: 0123456789\n\n" * 1000)) == 1000
