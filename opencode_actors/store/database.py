"""The journal's SQLite file: its form, and what is written to it and read from it. Everything here blocks."""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import cattrs
from attrs import frozen

from opencode_actors.errors import StoreError
from opencode_actors.machines.notices import JobRecorded, SessionRecorded
from opencode_actors.machines.server_events import ConversationId
from opencode_actors.machines.vocabulary import JobId, JobSnapshot, SessionKey

VERSION = 1
# Somebody who looks into the file with another program may hold it for a moment.
_LOCKED_AT_MOST = 5.0

# One transaction, so that a process that dies half-way leaves an empty file and no half a journal.
_SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE sessions (key TEXT PRIMARY KEY, conversation TEXT) WITHOUT ROWID;
CREATE TABLE jobs (id TEXT PRIMARY KEY, session TEXT NOT NULL, settled INTEGER NOT NULL, snapshot TEXT NOT NULL)
    WITHOUT ROWID;
CREATE INDEX unsettled ON jobs (id) WHERE settled = 0;
INSERT INTO about VALUES ('owner', '{owner}');
PRAGMA user_version = {version};
COMMIT;
"""

_converter = cattrs.Converter(detailed_validation=False)


@frozen
class Row:
    """One statement with its values, made before anything is queued: what cannot be written is its own
    writer's fault and nobody else's."""

    statement: str
    values: tuple[str | int | None, ...]


def row_of(record: SessionRecorded | JobRecorded) -> Row:
    match record:
        case SessionRecorded():
            return Row("INSERT OR REPLACE INTO sessions VALUES (?, ?)", (record.session, record.conversation))
        case JobRecorded(snapshot=job):
            text = json.dumps(_converter.unstructure(job))
            return Row(
                "INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, ?)",
                (job.id, job.session, int(job.settled), text),
            )


def open_for_writing(path: Path) -> sqlite3.Connection:
    # SQLite would make it readable for everybody; its two companions take over what the file has.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    # One thread at a time, by construction; which one changes.
    database = sqlite3.connect(
        path, check_same_thread=False, timeout=_LOCKED_AT_MOST, isolation_level="IMMEDIATE"
    )
    with ExitStack() as undo:
        undo.callback(database.close)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        (version,) = cast(tuple[int], database.execute("PRAGMA user_version").fetchone())
        if version == 0:
            database.executescript(_SCHEMA.format(owner=secrets.token_hex(4), version=VERSION))
        elif version != VERSION:
            raise StoreError(
                f"{path} was written by another version of opencode-actors "
                f"(format {version}, this one reads {VERSION})",
                hint="use the version that wrote it, or choose another sessionsDir",
            )
        undo.pop_all()
    return database


def open_for_reading(path: Path) -> sqlite3.Connection:
    """Beside the writer, which it neither waits for nor makes wait."""
    database = sqlite3.connect(path, check_same_thread=False, timeout=_LOCKED_AT_MOST)
    database.execute("PRAGMA query_only = ON")
    return database


def write(database: sqlite3.Connection, rows: list[Row]) -> None:
    with database:
        for row in rows:
            database.execute(row.statement, row.values)


def read_owner(database: sqlite3.Connection) -> str:
    (owner,) = cast(tuple[str], _one(database, "SELECT value FROM about WHERE name = 'owner'"))
    return owner


def read_unsettled(database: sqlite3.Connection) -> tuple[JobId, ...]:
    found = cast(list[tuple[str]], database.execute("SELECT id FROM jobs WHERE settled = 0").fetchall())
    return tuple(JobId(job) for (job,) in found)


def read_conversation(database: sqlite3.Connection, session: SessionKey) -> ConversationId | None:
    found = _one(database, "SELECT conversation FROM sessions WHERE key = ?", session)
    return None if found is None or found[0] is None else ConversationId(found[0])


def read_job(database: sqlite3.Connection, job: JobId) -> JobSnapshot | None:
    found = _one(database, "SELECT snapshot FROM jobs WHERE id = ?", job)
    return None if found is None else _converter.structure(json.loads(found[0]), JobSnapshot)


def _one(database: sqlite3.Connection, query: str, *values: str) -> tuple[Any, ...] | None:
    return cast("tuple[Any, ...] | None", database.execute(query, values).fetchone())
