"""What jobs and sessions are called, as the journal has it. Everything here blocks."""

from __future__ import annotations

import sqlite3
from typing import cast

from opencode_actors.machines.names import numbered
from opencode_actors.machines.vocabulary import JobSnapshot, SessionKey
from opencode_actors.store.database import snapshot_in

_NAMED = "SELECT snapshot FROM jobs WHERE name = ? ORDER BY number DESC LIMIT ?"
_LAST = "SELECT snapshot FROM jobs WHERE session = ? ORDER BY number DESC LIMIT 1"
_RECENT = "SELECT name, session FROM jobs ORDER BY number DESC LIMIT ?"
_GIVEN = """
SELECT EXISTS (SELECT 1 FROM jobs WHERE name = :name) OR EXISTS (SELECT 1 FROM jobs WHERE session = :name)
    OR EXISTS (SELECT 1 FROM sessions WHERE key = :name)
"""
# Those that begin like it, by the index: as many numbers need not be tried.
_ALIKE = """
SELECT MAX((SELECT COUNT(*) FROM jobs WHERE name > :low AND name < :high),
    (SELECT COUNT(*) FROM sessions WHERE key > :low AND key < :high))
"""


def read_named(database: sqlite3.Connection, name: str, limit: int) -> tuple[JobSnapshot, ...]:
    found = cast("list[tuple[str]]", database.execute(_NAMED, (name, limit)).fetchall())
    return tuple(snapshot_in(snapshot) for (snapshot,) in found)


def read_last(database: sqlite3.Connection, session: SessionKey) -> JobSnapshot | None:
    found = cast("tuple[str] | None", database.execute(_LAST, (session,)).fetchone())
    return None if found is None else snapshot_in(found[0])


def read_recent(database: sqlite3.Connection, jobs: int) -> tuple[str, ...]:
    """The newest first, each once."""
    found = cast("list[tuple[str | None, str]]", database.execute(_RECENT, (jobs,)).fetchall())
    return tuple(dict.fromkeys(word for row in found for word in row if word))


def read_free(database: sqlite3.Connection, name: str, above: int) -> int:
    """The number that the name needs behind it so that nobody was given it; 1 where it needs none."""
    if above < 1 and not _is_given(database, name):
        return 1
    span = {"low": f"{name}-", "high": f"{name}."}  # "." comes after "-"
    (alike,) = cast(tuple[int], database.execute(_ALIKE, span).fetchone())
    number = max(alike + 2, above + 1)
    while _is_given(database, numbered(name, number)):
        number += 1
    return number


def _is_given(database: sqlite3.Connection, name: str) -> bool:
    (given,) = cast(tuple[int], database.execute(_GIVEN, {"name": name}).fetchone())
    return bool(given)
