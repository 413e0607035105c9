"""What is written to the journal's SQLite file, and read from it. Everything here blocks."""

from __future__ import annotations

import os
import sqlite3
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import cattrs
from attrs import evolve, frozen

from opencode_actors.machines.notices import Accepted, JobEnded, JobRecorded, SessionRecorded
from opencode_actors.machines.server_events import ConversationId
from opencode_actors.machines.vocabulary import JobId, JobSnapshot, SessionKey
from opencode_actors.store.port import Keyed, KnownJob, KnownSession
from opencode_actors.store.schema import migrate
from opencode_actors.store.sums import fields_in, with_sum

# Somebody who looks into the file with another program may hold it for a moment.
_LOCKED_AT_MOST = 5.0

_converter = cattrs.Converter(detailed_validation=False)

Value = str | int | float | None


@frozen
class Row:
    """One statement with its values, made before anything is queued: what cannot be written is its own
    writer's fault and nobody else's."""

    statement: str
    values: tuple[Value, ...]


_SESSION = """
INSERT INTO sessions (key, conversation) VALUES (?, ?)
ON CONFLICT (key) DO UPDATE SET conversation = excluded.conversation
"""
_IMAGE = """
INSERT INTO sessions (key, image) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET image = excluded.image
"""
# What is NULL was recorded before, or is not so yet.
_JOB = """
INSERT INTO jobs (id, session, settled, snapshot, since, accepted, begun, verdict, key, created, name)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET settled = excluded.settled, snapshot = excluded.snapshot,
    begun = COALESCE(excluded.begun, begun), verdict = COALESCE(excluded.verdict, verdict)
"""
_SESSION_NOW = """
SELECT
    (SELECT at FROM notices WHERE session = :key ORDER BY seq DESC LIMIT 1),
    (SELECT MIN(created) FROM jobs WHERE session = :key),
    (SELECT COUNT(*) FROM jobs WHERE session = :key),
    (SELECT name FROM jobs WHERE session = :key AND name IS NOT NULL ORDER BY number DESC LIMIT 1),
    (SELECT image FROM sessions WHERE key = :key)
"""
# Nothing of a job comes after its end.
_KNOWN = """
SELECT snapshot, since, notices.seq, notices.kind FROM jobs LEFT JOIN notices
    ON notices.seq = (SELECT MAX(seq) FROM notices WHERE job = jobs.id)
WHERE jobs.id = ?
"""


def row_of(record: SessionRecorded | JobRecorded) -> Row:
    match record:
        case SessionRecorded():
            return Row(_SESSION, (record.session, record.conversation))
        case JobRecorded(snapshot=job, accepted=accepted):
            values = (
                job.id,
                job.session,
                int(job.settled),
                _in_json(job),
                accepted.since if accepted else 0,
                _accepted_in_json(accepted),
                _in_json(record.begun),
                _in_json(record.verdict),
                accepted.key if accepted else None,
                accepted.at if accepted else None,
                job.name or None,
            )
            return Row(_JOB, values)


def image_row(session: SessionKey, image: str) -> Row:
    """Of the image that the session's containers are made from, from now on."""
    return Row(_IMAGE, (session, image))


def _in_json(value: Any) -> str | None:
    return None if value is None else with_sum(_converter.unstructure(value))


def _accepted_in_json(accepted: Accepted | None) -> str | None:
    """Without the prompt's text, which may have megabytes and stands in the snapshot."""
    if accepted is None:
        return None
    return _in_json(evolve(accepted, prompt=evolve(accepted.prompt, text="")))


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
        # Each checkpoint waits for the disk twice; four times as far apart, it is not felt per token.
        database.execute("PRAGMA wal_autocheckpoint = 4000")
        migrate(database, path)
        undo.pop_all()
    return database


def open_for_reading(path: Path) -> sqlite3.Connection:
    """Beside the writer, which it neither waits for nor makes wait."""
    database = sqlite3.connect(path, check_same_thread=False, timeout=_LOCKED_AT_MOST)
    database.execute("PRAGMA query_only = ON")
    return database


def write(database: sqlite3.Connection, rows: list[Row], *, durable: bool = True) -> None:
    """In one transaction. One that is not `durable` outlives the process, and the machine only with the
    next one that is."""
    if not rows:
        return
    database.execute("PRAGMA synchronous = FULL" if durable else "PRAGMA synchronous = NORMAL")
    with database:
        for row in rows:
            database.execute(row.statement, row.values)


def read_owner(database: sqlite3.Connection) -> str:
    (owner,) = cast(tuple[str], _one(database, "SELECT value FROM about WHERE name = 'owner'"))
    return owner


def read_conversation(database: sqlite3.Connection, session: SessionKey) -> ConversationId | None:
    found = _one(database, "SELECT conversation FROM sessions WHERE key = ?", session)
    return None if found is None or found[0] is None else ConversationId(found[0])


def read_session(database: sqlite3.Connection, session: SessionKey) -> KnownSession:
    """One that was never heard of has nothing known of it."""
    used_at, began_at, jobs, name, image = database.execute(_SESSION_NOW, {"key": session}).fetchone()
    return KnownSession(
        key=session, used_at=used_at, began_at=began_at, jobs=jobs, name=name or "", image=image
    )


def read_job(database: sqlite3.Connection, job: JobId) -> KnownJob | None:
    found = _one(database, _KNOWN, job)
    if found is None:
        return None
    snapshot, since, last, kind = found
    ended = last if kind == JobEnded.__name__ else None
    return KnownJob(snapshot=snapshot_in(snapshot), since=since, ended=ended)


def read_keyed(database: sqlite3.Connection, key: str) -> Keyed | None:
    query = "SELECT id, session, accepted FROM jobs WHERE key = ? ORDER BY number DESC LIMIT 1"
    found = _one(database, query, key)
    if found is None:
        return None
    accepted = _converter.structure(fields_in(found[2]), Accepted)
    return Keyed(job=JobId(found[0]), session=SessionKey(found[1]), request=accepted.request, at=accepted.at)


def snapshot_in(text: str) -> JobSnapshot:
    return _converter.structure(fields_in(text), JobSnapshot)


def _one(database: sqlite3.Connection, query: str, *values: str) -> tuple[Any, ...] | None:
    return cast("tuple[Any, ...] | None", database.execute(query, values).fetchone())
