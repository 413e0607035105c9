"""What the journal need not keep any more, and how it goes. Everything here blocks."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Set
from itertools import islice
from typing import cast

from opencode_actors.machines.matters import Scope
from opencode_actors.machines.notices import JobForgotten, SessionForgotten
from opencode_actors.machines.vocabulary import JobId, SessionKey
from opencode_actors.store.database import Row, read_session
from opencode_actors.store.port import KnownSession, Limits

# How many sessions one reading brings.
PAGE = 32
# And how many outputs that are to go: a millisecond of work, in which nobody else has the interpreter.
_OUTPUTS_AT_ONCE = 64

# The whole of it is read from one index. Not those of which somebody is still to be told, nor the last one of its
# session, which says what can be gone on with, nor one that a client's key may still stand for.
_JOBS = """
SELECT id FROM jobs WHERE settled = 1 AND (number <= :upto OR created < :before)
    AND number < (SELECT MAX(number) FROM jobs AS later WHERE later.session = jobs.session)
    AND (key IS NULL OR created < :unkeyed)
    AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.job = jobs.id AND outbox.state IN ('pending', 'claimed'))
ORDER BY number
"""
_BEHIND = "SELECT number FROM jobs WHERE settled = 1 ORDER BY number DESC LIMIT 1 OFFSET ?"
_WHOLE = "SELECT COALESCE(SUM(bytes), 0) FROM outputs"
# The newest that is too much, with all newer ones: ten times the work of the sum.
_TOO_LARGE = """
SELECT MAX(number) FROM (SELECT number,
    SUM(bytes) OVER (ORDER BY number DESC ROWS UNBOUNDED PRECEDING) AS newer FROM outputs) WHERE newer > ?
"""
_SIZE = "INSERT OR REPLACE INTO outputs (number, bytes) SELECT number, ? FROM jobs WHERE id = ?"
# Of jobs from one index, too. A session that was only forked off, or only has directories, was used when something was
# announced of it last; where that is not kept any more, it is older than all others. An attached one is its server's.
_SESSIONS = """
WITH used AS (
    SELECT jobs.session AS key, MAX(jobs.created) AS at FROM jobs GROUP BY jobs.session
    UNION ALL
    SELECT key, COALESCE((SELECT at FROM notices WHERE session = key ORDER BY seq DESC LIMIT 1), 0.0) FROM sessions
        WHERE (conversation IS NOT NULL OR has_data = 1) AND newest IS NULL
), ranked AS (
    SELECT key, at, ROW_NUMBER() OVER (ORDER BY COALESCE(at, 0.0) DESC, key DESC) AS place FROM used
        WHERE key NOT IN (SELECT key FROM sessions WHERE server IS NOT NULL)
)
SELECT key FROM ranked WHERE ((place > :most AND :most > 0) OR at < :before)
    AND key NOT IN (SELECT session FROM jobs WHERE settled = 0)
    AND key NOT IN (SELECT session FROM outbox WHERE state IN ('pending', 'claimed'))
ORDER BY place DESC
"""
_TO_REMOVE = "SELECT job FROM to_remove LIMIT ?"
_OPEN_ONE = "SELECT 1 FROM jobs WHERE session = ? AND settled = 0 LIMIT 1"
_OF_SESSION = "SELECT id FROM jobs WHERE session = ? ORDER BY number"
_KNOWN = "SELECT key FROM sessions WHERE newest IS NOT NULL ORDER BY newest DESC LIMIT ?"
_FORKED = "SELECT key FROM sessions WHERE source IS NOT NULL AND newest IS NULL"


def job_row(record: JobForgotten) -> Row:
    return Row("DELETE FROM jobs WHERE id = ? AND settled = 1", (record.job,))


def session_rows(record: SessionForgotten) -> tuple[Row, ...]:
    """Where its files are still on the disk, its name stays given. One that has jobs stays known."""
    gone = "conversation = NULL, before = NULL, source = NULL, image = NULL, habits = NULL, has_data = 0"
    left = f"UPDATE sessions SET {gone} WHERE key = ?"  # noqa: S608 - our words
    return (
        Row("DELETE FROM notices WHERE session = ? AND job IS NULL", (record.session,)),
        Row("DELETE FROM choices WHERE scope = ? AND name = ?", (Scope.SESSION.value, record.session)),
        Row("DELETE FROM sessions WHERE key = ? AND has_workspace = 0 AND newest IS NULL", (record.session,)),
        Row(left, (record.session,)),
    )


def size_row(job: JobId, size: int) -> Row:
    """Of a settled one, to whose output nothing comes any more."""
    return Row(_SIZE, (size, job))


def gone_row(job: JobId) -> Row:
    return Row("DELETE FROM to_remove WHERE job = ?", (job,))


def read_old_jobs(database: sqlite3.Connection, limits: Limits) -> tuple[JobId, ...]:
    """As `Store.old_jobs`."""
    upto = max(_behind(database, limits.jobs), _too_large(database, limits.outputs))
    wanted = {"upto": upto, "before": limits.jobs_before, "unkeyed": limits.unkeyed_before}
    return tuple(
        JobId(found) for (found,) in cast("list[tuple[str]]", database.execute(_JOBS, wanted).fetchall())
    )


def read_old_sessions(
    database: sqlite3.Connection, limits: Limits, but: Set[SessionKey]
) -> tuple[SessionKey, ...]:
    wanted = {"most": limits.sessions, "before": limits.sessions_before}
    found = (SessionKey(key) for (key,) in cast("Iterable[tuple[str]]", database.execute(_SESSIONS, wanted)))
    return tuple(islice((key for key in found if key not in but), PAGE))


def read_jobs_of(database: sqlite3.Connection, session: SessionKey) -> tuple[JobId, ...] | None:
    if database.execute(_OPEN_ONE, (session,)).fetchone() is not None:
        return None
    found = cast("list[tuple[str]]", database.execute(_OF_SESSION, (session,)).fetchall())
    return tuple(JobId(id_) for (id_,) in found)


def read_known(database: sqlite3.Connection, limit: int) -> tuple[KnownSession, ...]:
    """Those that were forked off and never spoken to come last."""
    found = cast("list[tuple[str]]", database.execute(_KNOWN, (limit,)).fetchall())
    if len(found) < limit:
        found += cast("list[tuple[str]]", database.execute(_FORKED).fetchall())
    return tuple(read_session(database, SessionKey(key)) for (key,) in found[:limit])


def read_strangers(database: sqlite3.Connection, jobs: tuple[JobId, ...]) -> tuple[JobId, ...]:
    """Those of them that are not known."""
    known = "SELECT 1 FROM jobs WHERE id = ?"
    return tuple(job for job in jobs if database.execute(known, (job,)).fetchone() is None)


def read_to_remove(database: sqlite3.Connection) -> tuple[JobId, ...]:
    """Some of the forgotten jobs whose output may still be there."""
    found = cast("list[tuple[str]]", database.execute(_TO_REMOVE, (_OUTPUTS_AT_ONCE,)).fetchall())
    return tuple(JobId(id_) for (id_,) in found)


def _behind(database: sqlite3.Connection, kept: int) -> int:
    """The number of the newest that is one too many; 0 stands for no bound, and for none."""
    if not kept:
        return 0
    found = cast("tuple[int] | None", database.execute(_BEHIND, (kept,)).fetchone())
    return 0 if found is None else found[0]


def _too_large(database: sqlite3.Connection, most: int) -> int:
    (whole,) = cast(tuple[int], database.execute(_WHOLE).fetchone())
    if not most or whole <= most:
        return 0
    (number,) = cast(tuple[int], database.execute(_TOO_LARGE, (most,)).fetchone())
    return number
