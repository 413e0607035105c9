"""Which sessions may have directories on the disk, in the journal's SQLite file. Everything here blocks."""

from __future__ import annotations

import sqlite3
from typing import cast

from opencode_actors.machines.notices import DirectoriesForgotten
from opencode_actors.machines.vocabulary import SessionKey
from opencode_actors.store.database import Row
from opencode_actors.store.port import OnDisk

# What one reading brings: 1 ms of work.
PAGE = 256

# A notice of a job comes with each job; one of the session alone may be of its end.
_FORGOTTEN = """
UPDATE sessions SET has_data = has_data AND NOT ?, has_workspace = has_workspace AND NOT ?
WHERE key = ? AND NOT EXISTS (SELECT 1 FROM notices WHERE session = ? AND seq > ? AND job IS NOT NULL)
"""
# Two walks along two indices, each as far as needed.
_WITH = (
    "SELECT * FROM (SELECT key FROM sessions WHERE {having} = 1 AND key > :after ORDER BY key LIMIT :limit)"
)
_ON_DISK = """
SELECT found.key, notices.at, notices.seq FROM ({found}) AS found LEFT JOIN notices
    ON notices.seq = (SELECT MAX(seq) FROM notices WHERE session = found.key)
ORDER BY found.key LIMIT :limit
"""


def row_of(record: DirectoriesForgotten) -> Row:
    which = (int(record.data), int(record.workspace))
    return Row(_FORGOTTEN, (*which, record.session, record.session, record.since))


def read_on_disk(
    database: sqlite3.Connection, *, data: bool, workspaces: bool, after: str
) -> tuple[OnDisk, ...]:
    """As `Store.on_disk`."""
    wanted = [name for name, asked in (("has_data", data), ("has_workspace", workspaces)) if asked]
    if not wanted:
        return ()
    walks = " UNION ".join(_WITH.format(having=name) for name in wanted)
    found = database.execute(_ON_DISK.format(found=walks), {"after": after, "limit": PAGE})
    return tuple(
        OnDisk(key=SessionKey(key), used_at=used_at, last_seq=last_seq or 0)
        for key, used_at, last_seq in cast("list[tuple[str, float | None, int | None]]", found.fetchall())
    )
