"""What the journal keeps for the next process of jobs that are open and of containers that run.

Everything here blocks.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import cast

import cattrs
from attrs import evolve

from opencode_actors.machines.notices import (
    Accepted,
    Begun,
    ContainerForgotten,
    ContainerRecorded,
    InputAnswered,
    InputWanted,
    OutputKind,
    OutputRecorded,
)
from opencode_actors.machines.server_events import PartId
from opencode_actors.machines.transcript import Piece
from opencode_actors.machines.vocabulary import Failure, JobId, PendingRequest, SessionKey
from opencode_actors.ports import ContainerId, Endpoint
from opencode_actors.store.database import Row, snapshot_in
from opencode_actors.store.port import Housed, OpenJob
from opencode_actors.store.sums import fields_in

# The output of a job up to so many bytes; what is behind them goes.
TakeBack = Callable[[JobId, int], bytes]

_converter = cattrs.Converter(detailed_validation=False)

_CONTAINER = """
INSERT INTO sessions (key, container, url, password) VALUES (?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET container = excluded.container, url = excluded.url, password = excluded.password
"""
_SPAN = """
INSERT INTO spans (job, start, upto, kind, part, at) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (job, start) DO UPDATE SET upto = excluded.upto
"""
_NOT_THERE = "DELETE FROM spans WHERE job = ? AND start > ?"
_OPEN = "SELECT id, snapshot, accepted, begun, verdict FROM jobs WHERE settled = 0 ORDER BY number"
_SPANS = "SELECT start, upto, kind, part, at FROM spans WHERE job = ? ORDER BY start"
_WANTED = f"""
SELECT kind, body FROM notices WHERE job = ? AND kind IN ('{InputWanted.__name__}', '{InputAnswered.__name__}')
ORDER BY seq
"""  # noqa: S608 - our names
_HOUSED = "SELECT key, container, url, password FROM sessions WHERE container IS NOT NULL"


def container_row(record: ContainerRecorded | ContainerForgotten) -> Row:
    if isinstance(record, ContainerForgotten):
        return Row(_CONTAINER, (record.session, None, None, None))
    where = (record.container, record.endpoint.url, record.endpoint.password)
    return Row(_CONTAINER, (record.session, *where))


def span_rows(record: OutputRecorded, length: int) -> tuple[Row, ...]:
    end = record.offset + length
    row = Row(_SPAN, (record.job, record.span, end, record.kind.value, record.part, record.at))
    if record.offset > record.span:
        return (row,)
    # Where a power failure has left less of the file than was recorded, there are some behind its new end.
    return Row(_NOT_THERE, (record.job, record.span)), row


def read_housed(database: sqlite3.Connection) -> tuple[Housed, ...]:
    found = cast(list[tuple[str, str, str, str]], database.execute(_HOUSED).fetchall())
    return tuple(
        Housed(
            session=SessionKey(session),
            container=ContainerId(container),
            endpoint=Endpoint(url=url, password=password),
        )
        for session, container, url, password in found
    )


def read_open(database: sqlite3.Connection, take_back: TakeBack) -> tuple[OpenJob, ...]:
    found = cast(
        "list[tuple[str, str, str | None, str | None, str | None]]", database.execute(_OPEN).fetchall()
    )
    return tuple(_open_job(database, take_back, *row) for row in found)


def _open_job(
    database: sqlite3.Connection,
    take_back: TakeBack,
    job: str,
    snapshot: str,
    accepted: str | None,
    begun: str | None,
    verdict: str | None,
) -> OpenJob:
    known = snapshot_in(snapshot)
    plan = None if accepted is None else _converter.structure(fields_in(accepted), Accepted)
    told, told_bytes = _told(database, take_back, JobId(job))
    return OpenJob(
        snapshot=known,
        accepted=None if plan is None else evolve(plan, prompt=evolve(plan.prompt, text=known.prompt)),
        begun=None if begun is None else _converter.structure(fields_in(begun), Begun),
        verdict=None if verdict is None else _converter.structure(fields_in(verdict), Failure),
        told=told,
        told_bytes=told_bytes,
        wanted=_wanted(database, job),
    )


def _told(database: sqlite3.Connection, take_back: TakeBack, job: JobId) -> tuple[tuple[Piece, ...], int]:
    """The file leads where a power failure has left less of it than was recorded."""
    spans = cast(list[tuple[int, int, str, str, int]], database.execute(_SPANS, (job,)).fetchall())
    output = take_back(job, spans[-1][1] if spans else 0)
    following = [*(span[0] for span in spans[1:]), len(output)]
    pieces = tuple(
        Piece(
            kind=OutputKind(kind),
            text=output[start : min(end, limit)].decode(errors="replace"),
            part=PartId(part),
            at=at,
        )
        for (start, end, kind, part, at), limit in zip(spans, following, strict=False)
        if start < len(output)
    )
    return pieces, len(output)


def _wanted(database: sqlite3.Connection, job: str) -> tuple[PendingRequest, ...]:
    wanted: dict[str, PendingRequest] = {}
    for kind, body in cast(list[tuple[str, str]], database.execute(_WANTED, (job,)).fetchall()):
        fields = fields_in(body)
        id_ = fields["request"]
        if kind == InputAnswered.__name__:
            wanted.pop(id_, None)
        else:
            wanted[id_] = _converter.structure({**fields, "id": id_}, PendingRequest)
    return tuple(wanted.values())
