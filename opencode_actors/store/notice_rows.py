"""Notices in the journal's SQLite file: numbered, found by job and by session, and not kept for ever.

Progress is kept of the last `PROGRESS_KEPT` notices of all, what begins, asks and ends of the last
`KEPT`: what there is more of may be asked for, the rest is small and seldom. Everything here blocks.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from typing import Any, cast, get_args
from zlib import crc32

import cattrs
from attrs import evolve, frozen

from opencode_actors.machines.notices import (
    PROGRESS,
    JobEnded,
    Notice,
    NotificationFailed,
    OutputAdded,
    OutputKind,
    SessionChanged,
)
from opencode_actors.machines.vocabulary import JobId, SessionKey
from opencode_actors.store.database import Row, snapshot_in
from opencode_actors.store.port import Page
from opencode_actors.store.sums import check, fields_in, with_sum

PROGRESS_KEPT = 50_000
KEPT = 250_000
# Older ones go so many numbers at a time, so that it costs each commit next to nothing.
_CUT_EVERY = 1_000
# What one reading brings at most, of notices and of bytes of text in them.
_PAGE = 256
_PAGE_BYTES = 1 << 20

_KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in get_args(Notice)}
_PROGRESS = ", ".join(f"'{kind.__name__}'" for kind in PROGRESS)
_converter = cattrs.Converter(detailed_validation=False)

_NOTICE = "INSERT INTO notices (job, session, kind, body, at, seq) VALUES (?, ?, ?, ?, ?, ?)"

_CUT_PROGRESS = f"DELETE FROM notices WHERE seq > ? AND seq <= ? AND kind IN ({_PROGRESS})"  # noqa: S608 - our names
_CUT_ALL = "DELETE FROM notices WHERE seq <= ?"
_SET_CUT = "UPDATE about SET value = ? WHERE name = ?"
_FOUND = "SELECT seq, at, job, session, kind, body FROM notices WHERE seq > :after AND seq <= :upto"
_OF_ALL = f"{_FOUND} ORDER BY seq LIMIT :limit"
_OF_SESSION = f"{_FOUND} AND session = :session ORDER BY seq LIMIT :limit"
# Two walks along two indices, merged: none of them passes what belongs to somebody else.
_OF_JOB = (
    f"{_FOUND} AND job = :job UNION ALL {_FOUND} AND session = :session AND job IS NULL"
    " ORDER BY seq LIMIT :limit"
)

# A piece of a job's output: its job, where it begins, and how many bytes it has.
ReadPiece = Callable[[JobId, int, int], str]


@frozen
class NoticeRow:
    """A notice as it is written, but for its number, which it gets when its turn comes."""

    notice: Notice
    values: tuple[str | float | None, ...]

    def numbered(self, seq: int) -> tuple[Row, Notice]:
        at = cast(float, self.values[-1])
        return Row(_NOTICE, (*self.values, seq)), evolve(self.notice, seq=seq, at=at)


def notice_row(notice: Notice, at: float) -> NoticeRow:
    job = None if isinstance(notice, SessionChanged | NotificationFailed) else notice.job
    kind = type(notice).__name__
    return NoticeRow(notice, (job, notice.session, kind, _body(notice), at))


def _body(notice: Notice) -> str:
    if isinstance(notice, OutputAdded):
        where = (notice.kind.value, notice.offset, len(notice.text.encode(errors="replace")))
        return json.dumps((*where, crc32(json.dumps(where).encode())))
    if isinstance(notice, JobEnded):
        return ""
    fields = _converter.unstructure(notice)
    return with_sum({name: value for name, value in fields.items() if name not in _COLUMNS})


_COLUMNS = frozenset({"seq", "at", "job", "session"})


@frozen(kw_only=True)
class Kept:
    """Up to `no_progress` there is no progress any more, and up to `nothing` nothing at all."""

    no_progress: int
    nothing: int

    def after(self, last: int) -> Kept:
        """When the number of the last one is `last`."""
        no_progress, nothing = last - PROGRESS_KEPT, last - KEPT
        return Kept(
            no_progress=no_progress if no_progress >= self.no_progress + _CUT_EVERY else self.no_progress,
            nothing=nothing if nothing >= self.nothing + _CUT_EVERY else self.nothing,
        )

    def cut_to(self, new: Kept) -> list[Row]:
        rows: list[Row] = []
        if new.no_progress > self.no_progress:
            rows.append(Row(_CUT_PROGRESS, (self.no_progress, new.no_progress)))
            rows.append(Row(_SET_CUT, (new.no_progress, "no_progress")))
        if new.nothing > self.nothing:
            rows.append(Row(_CUT_ALL, (new.nothing,)))
            rows.append(Row(_SET_CUT, (new.nothing, "nothing")))
        return rows


def read_last(database: sqlite3.Connection) -> int:
    found = database.execute("SELECT seq FROM sqlite_sequence WHERE name = 'notices'").fetchone()
    return 0 if found is None else cast(int, found[0])


def read_kept(database: sqlite3.Connection) -> Kept:
    query = "SELECT name, value FROM about WHERE name IN ('no_progress', 'nothing')"
    found = dict(cast(list[tuple[str, str]], database.execute(query).fetchall()))
    return Kept(no_progress=int(found["no_progress"]), nothing=int(found["nothing"]))


def read_page(
    database: sqlite3.Connection,
    read_piece: ReadPiece,
    job: JobId | None,
    session: SessionKey | None,
    after: int,
    upto: int,
) -> Page:
    """As `Store.notices`."""
    wanted = {"job": job, "session": session, "after": after, "upto": upto, "limit": _PAGE}
    query = _OF_JOB if job is not None else _OF_SESSION if session is not None else _OF_ALL
    notices: list[Notice] = []
    room, reached = _PAGE_BYTES, upto
    for row in database.execute(query, wanted):
        notice = _notice_in(database, read_piece, *row)
        if notice is not None:
            notices.append(notice)
            room -= _size(notice)
        if len(notices) == _PAGE or room <= 0:
            reached = cast(int, row[0])
            break
    cut = min(read_kept(database).no_progress, reached)
    there = sum(notice.seq <= cut for notice in notices)
    return Page(notices=tuple(notices), reached=reached, missed=max(0, cut - after - there))


def _notice_in(
    database: sqlite3.Connection,
    read_piece: ReadPiece,
    seq: int,
    at: float,
    job: str | None,
    session: str,
    kind: str,
    body: str,
) -> Notice | None:
    stamp: dict[str, Any] = {"seq": seq, "at": at, "session": session}
    if job is None:
        return _structured(kind, {**stamp, **fields_in(body)})
    stamp["job"] = job
    if kind == OutputAdded.__name__:
        words, offset, length, *sums = json.loads(body)
        for told in sums:
            check(json.dumps((words, offset, length)), told)
        text = read_piece(JobId(job), offset, length)
        return OutputAdded(**stamp, kind=OutputKind(words), offset=offset, text=text)
    if kind == JobEnded.__name__:
        found = database.execute("SELECT snapshot FROM jobs WHERE id = ?", (job,)).fetchone()
        return None if found is None else JobEnded(**stamp, snapshot=snapshot_in(found[0]))
    return _structured(kind, {**stamp, **fields_in(body)})


def _structured(kind: str, fields: dict[str, Any]) -> Notice:
    return cast(Notice, _converter.structure(fields, _KINDS[kind]))


def _size(notice: Notice) -> int:
    if isinstance(notice, OutputAdded):
        return len(notice.text)
    return len(notice.snapshot.prompt) if isinstance(notice, JobEnded) else 0
