"""The outbox in the journal's SQLite file: who still has to be told that a job has settled. Everything here
blocks."""

from __future__ import annotations

import sqlite3
from typing import cast

from opencode_actors.machines.notices import NotificationRecorded
from opencode_actors.machines.outbox_messages import LookForNotifications, Notification, NotificationsFound
from opencode_actors.machines.vocabulary import JobId, JobSnapshot, NotificationState, SessionKey
from opencode_actors.store.database import Row

_OPEN = "state IN ('pending', 'claimed')"

# The end of a job may be recorded twice, when its actor crashed in between.
_NEW = """
INSERT INTO outbox (job, session, aimed, state, since, due) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (job) DO NOTHING
"""
_SET = f"UPDATE outbox SET state = ?, due = ?, attempts = ?, last_offer = ? WHERE job = ? AND {_OPEN}"  # noqa: S608 - our words
_DUE = f"""
SELECT job, session, aimed, since, attempts, last_offer FROM outbox
WHERE {_OPEN} AND (due <= ? OR due > ?) AND aimed >= ? ORDER BY due, since LIMIT ?
"""  # noqa: S608 - our words
_NEXT = f"SELECT MIN(due) FROM outbox WHERE {_OPEN} AND due > ? AND due <= ? AND aimed >= ?"  # noqa: S608 - our words


def new_row(job: JobSnapshot, at: float) -> Row:
    """For a job that has settled at that time of day. It is due at once, also when the clock is set back."""
    pending = NotificationState.PENDING.value
    return Row(_NEW, (job.id, job.session, int(job.aimed), pending, at, 0.0))


def row_of(record: NotificationRecorded) -> Row:
    values = (record.state.value, record.due, record.attempts, record.last_offer, record.job)
    return Row(_SET, values)


def read_due(database: sqlite3.Connection, look: LookForNotifications) -> NotificationsFound:
    """As `Store.notifications`."""
    least = int(look.aimed_only)
    due = cast(
        "list[tuple[str, str, int, float, int, int]]",
        database.execute(_DUE, (look.now, look.latest, least, look.limit)).fetchall(),
    )
    (next_due,) = cast(
        "tuple[float | None]", database.execute(_NEXT, (look.now, look.latest, least)).fetchone()
    )
    found = tuple(
        Notification(
            job=JobId(job),
            session=SessionKey(session),
            aimed=bool(aimed),
            since=since,
            attempts=attempts,
            last_offer=last_offer,
        )
        for job, session, aimed, since, attempts, last_offer in due
    )
    return NotificationsFound(found=found, next_due=next_due)
