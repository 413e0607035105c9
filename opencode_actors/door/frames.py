"""A peer's text as JSON values, under bounds that are checked before anything is built of it."""

from __future__ import annotations

import json
import math
import re
from typing import NoReturn

from opencode_actors.door.limits import Limits

# Possessive: a string of 8 MiB costs one step of the loop below, and no memory for going back.
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{},:]', re.DOTALL)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_LONGEST_NUMBER = 32  # characters; a double has 24 at most


class Unreadable(ValueError):
    """Not JSON, or more of it than anybody needs. The text is for a person."""


def parse(text: str, limits: Limits) -> object:
    """Raises `Unreadable`, and nothing else."""
    _check_shape(text, limits)
    try:
        value: object = json.loads(
            text, parse_int=_integer, parse_float=_number, parse_constant=_refuse_constant
        )
    except json.JSONDecodeError as error:
        raise Unreadable(f"not JSON: {error.msg} at character {error.pos}") from None
    if _SURROGATE.search(text):
        _check_text(value)
    return value


def _check_shape(text: str, limits: Limits) -> None:
    depth = 0
    for tokens, match in enumerate(_TOKEN.finditer(text), start=1):
        if tokens > limits.values:
            raise Unreadable(f"a message has at most {limits.values} values and separators")
        first = text[match.start()]
        if first in "[{":
            depth += 1
            if depth > limits.nesting:
                raise Unreadable(f"a message is nested {limits.nesting} deep at most")
        elif first in "]}":
            depth -= 1


def _integer(text: str) -> int:
    if len(text) > _LONGEST_NUMBER:
        raise Unreadable(f"a number has at most {_LONGEST_NUMBER} characters")
    return int(text)


def _number(text: str) -> float:
    number = float(text) if len(text) <= _LONGEST_NUMBER else math.inf
    if not math.isfinite(number):
        raise Unreadable("a number is too large or too long")
    return number


def _refuse_constant(word: str) -> NoReturn:
    raise Unreadable(f"{word} is no JSON")


def _check_text(value: object) -> None:
    """Half a pair of surrogates is no character, and could be written to no file."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise Unreadable("a text has half a surrogate pair in it") from None


def encode(value: object) -> str:
    """ASCII, so that a lone surrogate of a model's cannot break a frame, and a character is a byte."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
