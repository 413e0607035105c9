"""The sums of each day in the journal's SQLite file, written with the record of a job's end: they stay when the job
is forgotten, and reading them costs what the days that are asked for have, however long the history is.

Everything here blocks.
"""

from __future__ import annotations

import datetime as dt
import sqlite3
import time
from typing import Any, cast

from opencode_actors.machines.totals import DEAREST_KEPT, DayTotal, DearJob, Tally, settled_total
from opencode_actors.machines.vocabulary import JobId, JobSnapshot, SessionKey
from opencode_actors.store.database import Row

# Before the job's own row, so that a second record of the same end adds nothing.
_NOT_YET = "NOT EXISTS (SELECT 1 FROM jobs WHERE id = ? AND settled)"
_ADD = f"""
INSERT INTO totals (day, model, outcome, cause, jobs, ran, seconds, cost, unpriced, tokens_in, tokens_out)
SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ? WHERE {_NOT_YET}
ON CONFLICT (day, model, outcome, cause) DO UPDATE SET jobs = jobs + excluded.jobs, ran = ran + excluded.ran,
    seconds = seconds + excluded.seconds, cost = cost + excluded.cost, unpriced = unpriced + excluded.unpriced,
    tokens_in = tokens_in + excluded.tokens_in, tokens_out = tokens_out + excluded.tokens_out
"""
_DEAR = f"""
INSERT INTO dearest (day, job, name, session, model, outcome, cost) SELECT ?, ?, ?, ?, ?, ?, ? WHERE {_NOT_YET}
ON CONFLICT (day, job) DO NOTHING
"""
_CHEAPER = """
DELETE FROM dearest WHERE day = ?1 AND job NOT IN
    (SELECT job FROM dearest WHERE day = ?1 ORDER BY cost DESC, job LIMIT ?2)
"""
_TOTALS = """
SELECT day, model, outcome, cause, jobs, ran, seconds, cost, unpriced, tokens_in, tokens_out
FROM totals WHERE day >= ?
"""
_DEAREST = "SELECT day, job, name, session, model, outcome, cost FROM dearest WHERE day >= ?"


def day_of(at: float) -> str:
    """The local day of a time of day, in epoch seconds."""
    return time.strftime("%Y-%m-%d", time.localtime(at))


def first_day(at: float, days: int) -> str:
    """Of so many, up to the local day of that time."""
    today = dt.datetime.fromtimestamp(at, dt.UTC).astimezone().date()
    return (today - dt.timedelta(days=days - 1)).isoformat()


def rows_of(job: JobSnapshot, at: float) -> list[Row]:
    day = day_of(at)
    total = settled_total(job, day=day, at=at)
    tally = total.tally
    sums = (
        tally.jobs,
        tally.ran,
        tally.seconds,
        tally.cost,
        tally.unpriced,
        tally.tokens_in,
        tally.tokens_out,
    )
    rows = [Row(_ADD, (day, total.model, total.outcome, total.cause, *sums, job.id))]
    if job.cost_usd > 0:
        said = (day, job.id, job.name, job.session, job.model, job.status.value, job.cost_usd)
        rows += [Row(_DEAR, (*said, job.id)), Row(_CHEAPER, (day, DEAREST_KEPT))]
    return rows


def read_totals(database: sqlite3.Connection, since: str) -> tuple[tuple[DayTotal, ...], tuple[DearJob, ...]]:
    totals = cast("list[tuple[Any, ...]]", database.execute(_TOTALS, (since,)).fetchall())
    dear = cast("list[tuple[Any, ...]]", database.execute(_DEAREST, (since,)).fetchall())
    return tuple(_total(*row) for row in totals), tuple(_dear(*row) for row in dear)


def _total(day: str, model: str, outcome: str, cause: str, *sums: Any) -> DayTotal:
    jobs, ran, seconds, cost, unpriced, tokens_in, tokens_out = sums
    tally = Tally(
        jobs=jobs,
        ran=ran,
        seconds=seconds,
        cost=cost,
        unpriced=unpriced,
        tokens_in=tokens_in,
        tokens_out=tokens_out,
    )
    return DayTotal(day=day, model=model, outcome=outcome, cause=cause, tally=tally)


def _dear(day: str, job: str, name: str, session: str, model: str, outcome: str, cost: float) -> DearJob:
    return DearJob(
        day=day,
        job=JobId(job),
        name=name,
        session=SessionKey(session),
        model=model,
        outcome=outcome,
        cost=cost,
    )
