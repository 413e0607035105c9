"""What the journal need not keep any more, and how it goes. Everything here blocks."""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Iterable, Iterator, Set
from itertools import islice
from typing import cast

from opencode_actors.machines.matters import Scope
from opencode_actors.machines.notices import JobForgotten, SessionForgotten
from opencode_actors.machines.vocabulary import JobId, SessionKey
from opencode_actors.store.database import Row, one_view, read_session
from opencode_actors.store.port import KnownSession, Limits

# When it was used, or 0.0, its key, when it was used, and whether it may go.
_Used = tuple[float, SessionKey, float | None, int]

# How many sessions one reading brings.
PAGE = 32
# And how many outputs that are to go: a millisecond of work, in which nobody else has the interpreter.
_OUTPUTS_AT_ONCE = 64

# Each of the two is read from an index. Not those of which somebody is still to be told, nor the last one of its session,
# which says what can be gone on with, nor one that a client's key may still stand for.
_JOBS = """
WITH old AS (
    SELECT number, session, created, key, id FROM jobs WHERE settled = 1 AND number <= :upto
    UNION
    SELECT number, session, created, key, id FROM jobs WHERE settled = 1 AND created < :before
)
SELECT id FROM old
    WHERE number < (SELECT newest FROM sessions WHERE sessions.key = old.session)
    AND (key IS NULL OR created < :unkeyed)
    AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.job = old.id AND outbox.state IN ('pending', 'claimed'))
ORDER BY number
"""
_KEPT = "SELECT ended, bytes FROM kept"
_BEHIND = "SELECT number FROM jobs WHERE settled = 1 ORDER BY number DESC LIMIT 1 OFFSET ?"
# The newest that is too much, with all newer ones: ten times the work of a sum.
_TOO_LARGE = """
SELECT MAX(number) FROM (SELECT number,
    SUM(bytes) OVER (ORDER BY number DESC ROWS UNBOUNDED PRECEDING) AS newer FROM outputs) WHERE newer > ?
"""
_SIZE = """
INSERT INTO outputs (number, bytes) SELECT number, ? FROM jobs WHERE id = ?
ON CONFLICT (number) DO UPDATE SET bytes = excluded.bytes
"""
# In the order in which they were used, and whether they may go. An attached one is its server's.
_MAY_GO = """
    sessions.key NOT IN (SELECT session FROM jobs WHERE settled = 0)
    AND sessions.key NOT IN (SELECT session FROM outbox WHERE state IN ('pending', 'claimed'))
"""
_SPOKEN = f"""
SELECT COALESCE(used, 0.0), key, used, {_MAY_GO} FROM sessions INDEXED BY by_use
    WHERE newest IS NOT NULL AND server IS NULL ORDER BY COALESCE(used, 0.0), key
"""  # noqa: S608 - our words
# Two counts that need nothing but an index each: what both ask for at once is read from every session's row.
_HOW_MANY_SPOKEN = """
SELECT (SELECT COUNT(*) FROM sessions WHERE newest IS NOT NULL)
    - (SELECT COUNT(*) FROM sessions INDEXED BY attached WHERE newest IS NOT NULL AND server IS NOT NULL)
"""
# One that was only forked off, or only has directories, was used when something was announced of it last; where that is
# not kept any more, it is older than all others.
_UNSPOKEN = f"""
SELECT COALESCE((SELECT at FROM notices WHERE session = key ORDER BY seq DESC LIMIT 1), 0.0) AS at, key, {_MAY_GO}
    FROM sessions INDEXED BY unspoken
    WHERE newest IS NULL AND server IS NULL AND (conversation IS NOT NULL OR has_data = 1) ORDER BY at, key
"""  # noqa: S608 - our words
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
    with one_view(database):
        unspoken = [(at, key, at, may) for at, key, may in database.execute(_UNSPOKEN)]
        too_many = 0
        if limits.sessions:
            (spoken,) = cast(tuple[int], database.execute(_HOW_MANY_SPOKEN).fetchone())
            too_many = spoken + len(unspoken) - limits.sessions
        by_use = cast("Iterable[_Used]", heapq.merge(database.execute(_SPOKEN), unspoken))
        old = _old(by_use, too_many, limits.sessions_before)
        return tuple(islice((key for key in old if key not in but), PAGE))


def _old(by_use: Iterable[_Used], too_many: int, before: float) -> Iterator[SessionKey]:
    """Of one with jobs of which nobody knows when they came nobody knows its age, either."""
    for place, (rank, key, at, may_go) in enumerate(by_use):
        if place >= too_many and rank >= before:
            return
        if may_go and (place < too_many or (at is not None and at < before)):
            yield key


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
    if not kept or _kept(database)[0] <= kept:
        return 0
    found = cast("tuple[int] | None", database.execute(_BEHIND, (kept,)).fetchone())
    return 0 if found is None else found[0]


def _too_large(database: sqlite3.Connection, most: int) -> int:
    if not most or _kept(database)[1] <= most:
        return 0
    (number,) = cast("tuple[int | None]", database.execute(_TOO_LARGE, (most,)).fetchone())
    return number or 0


def _kept(database: sqlite3.Connection) -> tuple[int, int]:
    """How many have ended, and the size of their outputs. This says only whether there is anything to look for; what
    goes is counted one by one, for a turned bit in here would take everything with it, and so it keeps some longer."""
    return cast(tuple[int, int], database.execute(_KEPT).fetchone())
