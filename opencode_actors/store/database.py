"""What is written to the journal's SQLite file, and read from it. Everything here blocks."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import cattrs
from attrs import evolve, frozen

from opencode_actors.machines.matters import Choice, Matter, Scope
from opencode_actors.machines.notices import (
    Accepted,
    Attachment,
    Habits,
    JobEnded,
    JobRecorded,
    SessionAttached,
    SessionForked,
    SessionRecorded,
)
from opencode_actors.machines.server_events import ConversationId
from opencode_actors.machines.vocabulary import Cause, JobId, JobSnapshot, SessionKey
from opencode_actors.store.port import Keyed, KnownJob, KnownSession, Recalled
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
ON CONFLICT (key) DO UPDATE SET conversation = excluded.conversation, before = NULL
"""
# The model and the agent of the last job that was not refused for them. SQLite makes no sum of what it writes.
_RIGHT_NAMES = """
UPDATE sessions
    SET habits = json_remove(json_set(habits, '$.model', right.model, '$.agent', right.agent), '$."~"')
FROM (SELECT MAX(number), json_extract(accepted, '$.habits.model') AS model, json_extract(accepted, '$.habits.agent') AS agent
    FROM jobs WHERE session = ? AND COALESCE(json_extract(snapshot, '$.failure.cause'), '') <> ?) AS right
WHERE key = ? AND habits IS NOT NULL
"""
_FORKED = """
INSERT INTO sessions (key, conversation, source, before, image, habits)
    VALUES (?, ?, ?, ?, ?, (SELECT habits FROM sessions WHERE key = ?))
ON CONFLICT (key) DO UPDATE SET conversation = excluded.conversation, source = excluded.source,
    before = excluded.before, image = excluded.image, habits = excluded.habits
"""
_ATTACHED = """
INSERT INTO sessions (key, conversation, server) VALUES (?, ?, ?)
ON CONFLICT (key) DO UPDATE SET conversation = excluded.conversation, server = excluded.server
"""
_HABITS = """
INSERT INTO sessions (key, habits) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET habits = excluded.habits
"""
_IMAGE = """
INSERT INTO sessions (key, image) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET image = excluded.image
"""
_CHOICE = """
INSERT INTO choices (scope, name, matter, wanted) VALUES (?, ?, ?, ?)
ON CONFLICT (scope, name, matter) DO UPDATE SET wanted = excluded.wanted
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
    (SELECT image FROM sessions WHERE key = :key),
    (SELECT source FROM sessions WHERE key = :key),
    EXISTS (SELECT 1 FROM sessions WHERE key = :key AND conversation IS NOT NULL)
"""
# Nothing of a job comes after its end.
_KNOWN = """
SELECT snapshot, since, notices.seq, notices.kind FROM jobs LEFT JOIN notices
    ON notices.seq = (SELECT MAX(seq) FROM notices WHERE job = jobs.id)
WHERE jobs.id = ?
"""


def row_of(record: SessionRecorded | SessionForked | SessionAttached | JobRecorded) -> Row:
    match record:
        case SessionForked():
            branch = (record.conversation, record.source, record.before)
            return Row(_FORKED, (record.session, *branch, record.image, record.source))
        case SessionAttached():
            return Row(_ATTACHED, (record.session, record.conversation, _in_json(record.attachment)))
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


def choice_row(choice: Choice) -> Row:
    key = (choice.scope.value, choice.name, choice.matter.value)
    if choice.on is None:
        return Row("DELETE FROM choices WHERE scope = ? AND name = ? AND matter = ?", key)
    return Row(_CHOICE, (*key, int(choice.on)))


def read_choices(database: sqlite3.Connection) -> tuple[Choice, ...]:
    query = "SELECT scope, name, matter, wanted FROM choices"
    found = cast("list[tuple[str, str, str, int]]", database.execute(query).fetchall())
    return tuple(
        Choice(scope=Scope(scope), name=name, matter=Matter(matter), on=bool(on))
        for scope, name, matter, on in found
    )


def habits_row(session: SessionKey, habits: Habits) -> Row:
    """Of what its next jobs are given where they ask for nothing else."""
    return Row(_HABITS, (session, _in_json(habits)))


def right_names_row(session: SessionKey) -> Row:
    """After a job that was refused: the names that it gave are not used again."""
    return Row(_RIGHT_NAMES, (session, Cause.REJECTED.value, session))


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


@contextmanager
def one_view(database: sqlite3.Connection) -> Generator[None]:
    """What is read in here is of one moment, whatever somebody writes meanwhile."""
    database.execute("BEGIN")
    try:
        yield
    finally:
        database.rollback()


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
    """Beside the writer, which it neither waits for nor makes wait. All files that it needs are open from now on: who
    has no more of them to open fails here, and not in an hour."""
    database = sqlite3.connect(path, check_same_thread=False, timeout=_LOCKED_AT_MOST)
    with ExitStack() as undo:
        undo.callback(database.close)
        database.execute("PRAGMA query_only = ON")
        database.execute("PRAGMA user_version").fetchone()
        undo.pop_all()
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


def read_recalled(database: sqlite3.Connection, session: SessionKey) -> Recalled:
    """Nothing of one that was never heard of."""
    found = _one(database, "SELECT conversation, before, image, habits FROM sessions WHERE key = ?", session)
    if found is None:
        return Recalled()
    conversation, before, image, habits = found
    return Recalled(
        conversation=conversation,
        before=before,
        image=image or "",
        habits=Habits() if habits is None else _converter.structure(fields_in(habits), Habits),
    )


def read_session(database: sqlite3.Connection, session: SessionKey) -> KnownSession:
    """One that was never heard of has nothing known of it."""
    found = database.execute(_SESSION_NOW, {"key": session}).fetchone()
    used_at, began_at, jobs, name, image, source, talked = found
    return KnownSession(
        key=session,
        used_at=used_at,
        began_at=began_at,
        jobs=jobs,
        name=name or "",
        image=image,
        source=source,
        talked=bool(talked),
    )


def read_attached(database: sqlite3.Connection) -> tuple[SessionAttached, ...]:
    query = "SELECT key, conversation, server FROM sessions WHERE server IS NOT NULL ORDER BY key"
    found = cast(list[tuple[str, str | None, str]], database.execute(query).fetchall())
    return tuple(
        SessionAttached(
            session=SessionKey(key),
            attachment=_converter.structure(fields_in(server), Attachment),
            conversation=None if conversation is None else ConversationId(conversation),
        )
        for key, conversation, server in found
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
