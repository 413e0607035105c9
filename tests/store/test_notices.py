"""Notices in a store: numbered, told in order, found again by job and by session, and kept within bounds."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
import trio
from attrs import evolve

from opencode_actors.errors import StoreError
from opencode_actors.machines.notices import (
    Accepted,
    InputAnswered,
    InputEnd,
    InputWanted,
    JobCancelling,
    JobEnded,
    JobLasted,
    JobQueued,
    JobReported,
    JobStarted,
    Notice,
    OutputAdded,
    OutputFilled,
    OutputKind,
    ProviderRetrying,
    SessionChanged,
    TodosChanged,
    ToolStarted,
)
from opencode_actors.machines.server_events import ConversationId, Todo
from opencode_actors.machines.vocabulary import JobId, JobStatus, RequestKind, Rung, SessionKey, SessionStatus
from opencode_actors.ports import Prompt
from opencode_actors.store import database as db
from opencode_actors.store import notice_rows
from opencode_actors.store.journal import Journal, open_journal
from opencode_actors.store.port import Keyed, Store
from opencode_actors.store.schema import MIGRATIONS, script

from .samples import JOB, SESSION, job, said
from .test_store import OpenStore, open_store

__all__ = ["open_store"]

OTHER, ELSEWHERE = JobId("job_other"), SessionKey("elsewhere")
ENDED = JobEnded(job=JOB, session=SESSION, snapshot=job(JobStatus.COMPLETED).snapshot)
LIFE: tuple[Notice, ...] = (
    JobQueued(job=JOB, session=SESSION, ahead=2),
    SessionChanged(session=SESSION, status=SessionStatus.READY, detail="grüße"),
    JobStarted(job=JOB, session=SESSION),
    ToolStarted(job=JOB, session=SESSION, tool="bash", title="make"),
    TodosChanged(job=JOB, session=SESSION, todos=(Todo(content="a", status="b"),)),
    InputWanted(
        job=JOB,
        session=SESSION,
        request="que_1",
        kind=RequestKind.QUESTION,
        text="which?",
        options=("a", "b"),
        conversation=ConversationId("ses_1"),
    ),
    InputAnswered(job=JOB, session=SESSION, request="que_1", end=InputEnd.ANSWERED),
    JobLasted(job=JOB, session=SESSION, seconds=600.25),
    JobReported(job=JOB, session=SESSION, seconds=120.0),
    OutputFilled(job=JOB, session=SESSION, size=10),
    ProviderRetrying(job=JOB, session=SESSION, attempt=1, reason="busy", seconds=1.5),
    JobCancelling(job=JOB, session=SESSION, rung=Rung.STOP),
)


def output(text: str, offset: int = 0, *, of: JobId = JOB) -> OutputAdded:
    return OutputAdded(job=of, session=SESSION, kind=OutputKind.TOOL, offset=offset, text=text)


def tool(number: int, *, of: JobId = JOB, session: SessionKey = SESSION) -> ToolStarted:
    return ToolStarted(job=of, session=session, tool="bash", title=str(number))


async def read_all(
    store: Store, job_: JobId | None = None, session: SessionKey | None = None, *, after: int = 0
) -> tuple[list[Notice], int]:
    """And how many are not there any more."""
    found: list[Notice] = []
    missed, upto = 0, (await store.load()).last_seq
    while after < upto:
        page = await store.notices(job_, session, after=after, upto=upto)
        assert after < page.reached <= upto
        found += page.notices
        missed, after = missed + page.missed, page.reached
    return found, missed


async def test_notices_are_told_with_numbers_and_read_again_the_next_time(open_store: OpenStore) -> None:
    told: list[Notice] = []
    async with open_store() as store:
        store.listen(told.append)
        await store.append((job(JobStatus.PENDING),), LIFE[:3], at=1.5)
        await store.append((said("é!"),), (output("é!"),), at=2.5)
        await store.append((), LIFE[3:], at=3.5)
        await store.append((job(JobStatus.COMPLETED),), (ENDED,), at=4.5)
    assert [(n.seq, n.at) for n in told] == [
        (seq, 1.5 if seq < 4 else 2.5 if seq == 4 else 3.5 if seq < 14 else 4.5) for seq in range(1, 15)
    ]
    assert [evolve(n, seq=0, at=0.0) for n in told] == [*LIFE[:3], output("é!"), *LIFE[3:], ENDED]
    async with open_store() as store:
        store.listen(told.append)
        assert await read_all(store) == await read_all(store, JOB, SESSION) == (told, 0)
        assert await read_all(store, after=7) == (told[7:], 0)
        known = await store.job(JOB)
        assert known is not None
        assert (known.snapshot, known.ended) == (ENDED.snapshot, 14)
        await store.append((), (tool(0),))
        assert told[-1].seq == 15


async def test_each_is_read_by_whoever_asks_for_its_job_or_session(open_store: OpenStore) -> None:
    mixed: tuple[Notice, ...] = (
        tool(1),
        tool(2, of=OTHER),
        SessionChanged(session=SESSION, status=SessionStatus.READY),
        SessionChanged(session=ELSEWHERE, status=SessionStatus.READY),
        tool(5, session=ELSEWHERE, of=JobId("third")),
    )
    async with open_store() as store:
        await store.append((), mixed)

        async def numbers(job_: JobId | None, session: SessionKey | None) -> list[int]:
            return [notice.seq for notice in (await read_all(store, job_, session))[0]]

        assert await numbers(None, None) == [1, 2, 3, 4, 5]
        assert await numbers(None, SESSION) == [1, 2, 3]
        assert await numbers(None, ELSEWHERE) == [4, 5]
        assert await numbers(JOB, SESSION) == [1, 3]
        assert await numbers(OTHER, SESSION) == [2, 3]


async def test_a_long_history_is_read_in_bounded_pages(open_store: OpenStore) -> None:
    async with open_store() as store:
        for first in range(0, 1000, 100):
            await store.append((), tuple(tool(number) for number in range(first, first + 100)))
        page = await store.notices(None, None, after=0, upto=1000)
        assert len(page.notices) < 300
        assert [n.seq for n in (await read_all(store))[0]] == list(range(1, 1001))


async def test_heavy_notices_make_a_page_of_few(tmp_path: Path) -> None:
    async with open_journal(tmp_path) as journal:
        megabyte = "x" * (1 << 20)
        for number in range(3):
            await journal.append((said(megabyte),), (output(megabyte, number << 20),))
        assert len((await journal.notices(None, None, after=0, upto=3)).notices) == 1


async def test_a_key_stands_for_the_newest_job_that_was_accepted_under_it(open_store: OpenStore) -> None:
    def accepted(at: float, request: str) -> Accepted:
        prompt = Prompt(text=job().snapshot.prompt)
        return Accepted(prompt=prompt, timeout=None, at=at, since=0, key="k", request=request)

    async with open_store() as store:
        await store.append((evolve(job(), accepted=accepted(1.0, "one")),))
        await store.append((evolve(job(id_=OTHER), accepted=accepted(2.0, "two")),))
        await store.append((job(JobStatus.COMPLETED),))
    async with open_store() as store:
        assert await store.keyed("k") == Keyed(job=OTHER, session=SESSION, request="two", at=2.0)
        assert await store.keyed("other") is None


# ---- on the disk


async def test_numbers_go_on_when_nothing_that_had_one_is_left(tmp_path: Path) -> None:
    async with open_journal(tmp_path) as journal:
        await journal.append((job(),), (tool(1), tool(2)))
    with sqlite3.connect(tmp_path / "journal.sqlite") as database:
        database.execute("DELETE FROM jobs")
        assert database.execute("SELECT COUNT(*) FROM notices").fetchone() == (0,)
    database.close()
    told: list[Notice] = []
    async with open_journal(tmp_path) as journal:
        journal.listen(told.append)
        await journal.append((), (tool(3),))
    assert told[0].seq == 3


async def test_notices_of_one_commit_are_told_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    told: list[Notice] = []
    async with open_journal(tmp_path) as journal:
        journal.listen(told.append)
        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(_append, journal, tool(number))
        assert journal.statistics().commits < 200
        assert [notice.seq for notice in told] == list(range(1, 201))
        assert (await read_all(journal))[0] == told


async def _append(journal: Journal, notice: Notice) -> None:
    await journal.append((), (notice,))


async def test_what_could_not_be_written_has_no_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Notice] = []
    async with open_journal(tmp_path) as journal:
        journal.listen(told.append)
        (tmp_path / "outputs").rmdir()
        with pytest.raises(StoreError):
            await journal.append((said("lost"),), (output("lost"),))
        assert told == []
        await journal.append((), (tool(1),))
        assert [notice.seq for notice in told] == [1]


async def test_only_what_is_output_need_not_wait_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    durable: list[bool] = []
    write = db.write

    def noted(database: sqlite3.Connection, rows: list[db.Row], *, durable: bool) -> None:
        waits.append(durable)
        write(database, rows, durable=durable)

    waits = durable
    monkeypatch.setattr(db, "write", noted)
    async with open_journal(tmp_path) as journal:
        await journal.append((said("a"),), (output("a"),))
        await journal.append((said("b"),), (output("b", 1), tool(1)))
        await journal.append((said("c"), job()), (output("c", 2),))
    assert durable == [False, True, True]


async def test_the_oldest_progress_goes_and_what_counts_stays_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notice_rows, "PROGRESS_KEPT", 100)
    monkeypatch.setattr(notice_rows, "KEPT", 250)
    monkeypatch.setattr(notice_rows, "_CUT_EVERY", 10)
    async with open_journal(tmp_path) as journal:
        for number in range(200):
            await journal.append((), (tool(number), JobStarted(job=JOB, session=SESSION)))
    async with open_journal(tmp_path) as journal:
        await journal.append((), tuple(tool(number) for number in range(10)))
        found, missed = await read_all(journal)
        begun = [n.seq for n in found if isinstance(n, JobStarted)]
        progress = [n.seq for n in found if isinstance(n, ToolStarted)]
        assert begun == list(range(162, 401, 2))
        assert progress == [*range(311, 401, 2), *range(401, 411)]
        # at most so many: those between two that count are not known to be gone
        assert missed == 310 - (310 - 160) // 2
        assert (await read_all(journal, after=310))[1] == 0


async def test_a_journal_of_the_first_form_is_taken_over(tmp_path: Path) -> None:
    old = sqlite3.connect(tmp_path / "journal.sqlite")
    old.executescript(script(MIGRATIONS[0], 1))
    (_, owner) = old.execute("SELECT * FROM about").fetchone()
    snapshot = db.row_of(job(JobStatus.RUNNING)).values[3]
    old.execute("INSERT INTO jobs VALUES (?, ?, 0, ?)", (JOB, SESSION, snapshot))
    old.execute("INSERT INTO sessions VALUES (?, 'ses_1')", (SESSION,))
    old.commit()
    old.close()
    async with open_journal(tmp_path) as journal:
        remembered = await journal.load()
        assert (remembered.owner, remembered.last_seq) == (owner, 0)
        assert [open_.snapshot.id for open_ in remembered.unsettled] == [JOB]
        known = await journal.job(JOB)
        assert known is not None
        assert (known.snapshot, known.since, known.ended) == (job(JobStatus.RUNNING).snapshot, 0, None)
        assert (await journal.recall(SESSION)).conversation == "ses_1"
