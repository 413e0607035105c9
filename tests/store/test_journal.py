"""The journal on the disk: durable when it says so, in few commits, and plain about what it cannot do."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import trio
import trio.testing

from opencode_actors.errors import StoreError
from opencode_actors.machines.notices import OutputRecorded
from opencode_actors.machines.server_events import PartId
from opencode_actors.machines.vocabulary import JobId, JobStatus
from opencode_actors.store import database as db
from opencode_actors.store import journal as journal_module
from opencode_actors.store.journal import Journal, open_journal
from opencode_actors.store.output_files import OutputFiles
from opencode_actors.store.schema import MIGRATIONS, script

from .samples import JOB, conversation, job, said

PLENTY = 20  # seconds of real time; nothing here takes one


async def refusal(folder: Path) -> StoreError:
    """What opening there says."""
    with pytest.raises(StoreError) as raised:
        async with open_journal(folder):
            raise AssertionError("it opened")
    return raised.value


# ---- writing


async def test_what_waits_at_one_time_is_written_at_one_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, waiting = threading.Event(), 60
    write = db.write
    sizes: list[int] = []

    def held_write(database: sqlite3.Connection, rows: list[db.Row], *, durable: bool) -> None:
        assert held.wait(PLENTY)
        sizes.append(len(rows))
        write(database, rows, durable=durable)

    monkeypatch.setattr(db, "write", held_write)
    async with open_journal(tmp_path) as journal, trio.open_nursery() as nursery:
        for number in range(waiting):
            nursery.start_soon(journal.append, (job(id_=JobId(f"job_{number}")),))
        await trio.testing.wait_all_tasks_blocked(0.01)
        held.set()
    assert journal.statistics().appends == sum(sizes) == waiting
    assert journal.statistics().commits == len(sizes) <= 2


async def test_output_keeps_the_order_that_it_was_appended_in(tmp_path: Path) -> None:
    async with open_journal(tmp_path) as journal:
        for number in range(100):
            await journal.append((said(f"{number} "), said("- ")))
        written = (await journal.output(JOB, offset=0, limit=10_000)).text
    assert written == "".join(f"{number} - " for number in range(100))


async def test_a_settled_job_has_its_output_on_the_disk_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    make_durable, write = OutputFiles.make_durable, db.write

    def durable(self: OutputFiles, job_: JobId) -> None:
        order.append("output")
        make_durable(self, job_)

    def recorded(database: sqlite3.Connection, rows: list[db.Row], *, durable: bool) -> None:
        order.append("record")
        write(database, rows, durable=durable)

    monkeypatch.setattr(OutputFiles, "make_durable", durable)
    monkeypatch.setattr(db, "write", recorded)
    async with open_journal(tmp_path) as journal:
        await journal.append((job(JobStatus.RUNNING), said("all of it")))
        await journal.append((job(JobStatus.COMPLETED),))
    assert order == ["record", "output", "record"]


async def test_records_that_are_on_their_way_when_all_is_cancelled_are_written(tmp_path: Path) -> None:
    jobs = [JobId(f"job_{number}") for number in range(20)]
    with trio.CancelScope() as scope:
        async with open_journal(tmp_path) as journal, trio.open_nursery() as nursery:
            for job_ in jobs:
                nursery.start_soon(journal.append, (job(id_=job_),))
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    async with open_journal(tmp_path) as journal:
        assert {open_.snapshot.id for open_ in (await journal.load()).unsettled} == set(jobs)


APPEND_FOR_EVER = """
import sys, trio
from pathlib import Path
from opencode_actors.machines.vocabulary import JobId, JobStatus
from opencode_actors.store.journal import open_journal
from tests.store.samples import job, said

async def main():
    async with open_journal(Path(sys.argv[1])) as journal, trio.open_nursery() as nursery:
        for writer in range(4):
            nursery.start_soon(append, journal, writer)

async def append(journal, writer):
    for number in range(1_000_000):
        id_ = JobId(f"job_{writer}_{number}")
        await journal.append((said("all of it", id_=id_), job(JobStatus.RUNNING, id_=id_)))
        print(id_, flush=True)

trio.run(main)
"""


def acknowledged_before_a_kill(folder: Path) -> list[str]:
    writer = subprocess.Popen(
        [sys.executable, "-c", APPEND_FOR_EVER, str(folder)], stdout=subprocess.PIPE, text=True
    )
    with writer:
        assert writer.stdout is not None
        some = [writer.stdout.readline().strip() for _ in range(50)]
        writer.kill()
        return some + writer.stdout.read().split()


async def test_p18_what_was_acknowledged_outlives_a_kill(tmp_path: Path) -> None:
    acknowledged = acknowledged_before_a_kill(tmp_path)
    async with open_journal(tmp_path) as journal:
        for id_ in map(JobId, acknowledged):
            known = await journal.job(id_)
            assert known is not None
            assert known.snapshot == job(JobStatus.RUNNING, id_=id_).snapshot
            assert (await journal.output(id_, offset=0, limit=100)).text == "all of it"
        unsettled = {open_.snapshot.id for open_ in (await journal.load()).unsettled}
        assert set(acknowledged) <= unsettled
        await journal.append((job(JobStatus.COMPLETED),))


async def test_nothing_is_taken_after_the_end(tmp_path: Path) -> None:
    async with open_journal(tmp_path) as journal:
        pass
    for call in (lambda: journal.append((job(),)), lambda: journal.job(JOB), journal.load):
        with pytest.raises(StoreError, match="is closed"):
            await call()


async def test_a_disk_that_hangs_does_not_hang_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer's shield ends. Everybody who waits hears of it, also who came late."""
    monkeypatch.setattr(journal_module, "_CLOSE_WITHIN", 0.1)
    let_go = threading.Event()
    heard: list[str] = []

    def hang(database: sqlite3.Connection, rows: list[db.Row], *, durable: bool) -> None:
        let_go.wait(PLENTY)

    monkeypatch.setattr(db, "write", hang)

    async def append(journal: Journal) -> None:
        try:
            with trio.CancelScope(shield=True, relative_deadline=PLENTY):
                await journal.append((job(),))
        except StoreError as error:
            heard.append(error.message)

    async def hold(nursery: trio.Nursery) -> None:
        async with open_journal(tmp_path) as journal:
            for _ in range(3):
                nursery.start_soon(append, journal)
                await trio.testing.wait_all_tasks_blocked(0.01)

    with trio.fail_after(PLENTY):
        async with trio.open_nursery() as nursery:
            await hold(nursery)
    let_go.set()
    assert len(heard) == 3
    assert all("writing to the state directory" in message for message in heard)


@pytest.mark.parametrize("records", [300, 2])
async def test_a_bug_in_the_writer_is_seen_and_nobody_waits_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, records: int
) -> None:
    refused = 0

    def bug(database: sqlite3.Connection, rows: list[db.Row], *, durable: bool) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(db, "write", bug)

    async def append(journal: Journal) -> None:
        nonlocal refused
        with trio.CancelScope(shield=True, relative_deadline=PLENTY):
            with pytest.raises(StoreError):
                await journal.append((job(),))
            refused += 1

    with pytest.RaisesGroup(KeyError, flatten_subgroups=True):
        async with open_journal(tmp_path) as journal, trio.open_nursery() as nursery:
            for _ in range(records):
                nursery.start_soon(append, journal)
    assert refused == records


async def test_a_record_that_cannot_be_written_is_nobody_elses_fault(tmp_path: Path) -> None:
    async with open_journal(tmp_path) as journal:
        with pytest.raises(AttributeError):
            await journal.append((OutputRecorded(job=JOB, offset=0, text=None),))  # type: ignore[arg-type]
        await journal.append((job(),))
        assert await journal.job(JOB) is not None


# ---- a disk that is full


async def test_p13_a_full_disk_is_said_in_words_and_the_journal_goes_on_when_there_is_room(
    tmp_path: Path,
) -> None:
    async with open_journal(tmp_path) as journal:
        await journal.append((job(JobStatus.PENDING),))
        # SQLite then says what it says of a disk without room.
        (pages,) = journal._writing.execute("PRAGMA page_count").fetchone()
        journal._writing.execute(f"PRAGMA max_page_count = {pages}")
        many = tuple(job(id_=JobId(f"job_{number}")) for number in range(100))
        with pytest.raises(StoreError) as raised:
            await journal.append(many)
        assert "database or disk is full" in raised.value.message
        assert "make room on the disk" in raised.value.hint
        journal._writing.execute("PRAGMA max_page_count = 100000")
        await journal.append((job(JobStatus.COMPLETED),))
        found = await journal.job(JOB)
        assert found is not None
        assert found.snapshot.settled


async def test_output_that_cannot_be_written_is_said_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_journal(tmp_path) as journal:
        (tmp_path / "outputs").rmdir()
        with pytest.raises(StoreError, match="No such file or directory"):
            await journal.append((job(JobStatus.RUNNING), said("lost")))
        # and what belonged to it is not there either
        assert await journal.job(JOB) is None


# ---- what is found on opening


async def test_a_directory_that_cannot_be_is_said_in_words(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    error = await refusal(in_the_way / "sessions")
    assert "cannot be used: " in error.message
    assert "Not a directory" in error.message
    assert "choose another sessionsDir" in error.hint


async def test_a_read_only_directory_is_said_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operating system's word for it is played in: root, who may run this, can write everywhere."""
    really_open = os.open

    def read_only(path: str, flags: int, *rest: int) -> int:
        if flags & (os.O_RDWR | os.O_WRONLY):
            raise OSError(30, "Read-only file system", path)
        return really_open(path, flags, *rest)

    monkeypatch.setattr(os, "open", read_only)
    assert "Read-only file system" in (await refusal(tmp_path)).message


async def test_a_file_that_is_no_journal_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "journal.sqlite"
    file.write_text("my diary\n" * 100)
    assert "file is not a database" in (await refusal(tmp_path)).message
    assert file.read_text().startswith("my diary")


async def test_a_journal_of_another_version_is_named_as_such(tmp_path: Path) -> None:
    async with open_journal(tmp_path):
        pass
    with sqlite3.connect(tmp_path / "journal.sqlite") as database:
        database.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    database.close()
    error = await refusal(tmp_path)
    assert f"format {len(MIGRATIONS) + 1}, this one reads {len(MIGRATIONS)}" in error.message
    assert "use the version that wrote it" in error.hint


@pytest.mark.parametrize("snapshot", ["{", "{}", "[]", '{"id": "x", "session": "y", "status": "confused"}'])
async def test_an_entry_that_cannot_be_understood_is_said_in_words(tmp_path: Path, snapshot: str) -> None:
    async with open_journal(tmp_path) as journal:
        await journal.append((job(),))
    with sqlite3.connect(tmp_path / "journal.sqlite") as database:
        database.execute("UPDATE jobs SET snapshot = ?", (snapshot,))
    database.close()
    async with open_journal(tmp_path) as journal:
        with pytest.raises(StoreError, match="cannot be understood"):
            await journal.job(JOB)


def test_a_process_that_dies_while_it_makes_the_journal_leaves_none(tmp_path: Path) -> None:
    """All of it is one transaction: half a journal could never be opened again."""
    db.open_for_writing(tmp_path / "journal.sqlite").close()
    for number, step in enumerate(MIGRATIONS):
        statements = script(step, number + 1).split(";")
        for count in range(2, len(statements) - 1):
            path = tmp_path / f"{number}-{count}.sqlite"
            database = sqlite3.connect(path, isolation_level=None)
            for whole in range(number):
                database.executescript(script(MIGRATIONS[whole], whole + 1))
            for statement in whole_statements(statements[:count]):
                database.execute(statement)
            database.close()  # as a death does: without a commit
            db.open_for_writing(path).close()


def whole_statements(parts: list[str]) -> list[str]:
    """A trigger has a semicolon inside."""
    statements: list[str] = []
    for part in parts:
        if statements and not sqlite3.complete_statement(statements[-1] + ";"):
            statements[-1] += ";" + part
        else:
            statements.append(part)
    return [statement for statement in statements if sqlite3.complete_statement(statement + ";")]


# ---- who may look


async def test_prompts_and_answers_are_their_owners_alone(tmp_path: Path) -> None:
    folder = tmp_path / "open to all"
    folder.mkdir(mode=0o755)
    before = os.umask(0)
    try:
        async with open_journal(folder) as journal:
            await journal.append((job(), said("secret"), conversation()))
            for path in folder.rglob("*"):
                allowed = 0o700 if path.is_dir() else 0o600
                assert stat.S_IMODE(path.stat().st_mode) == allowed, path
        async with open_journal(tmp_path / "made"):
            assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o700
    finally:
        os.umask(before)


async def test_it_tells_its_state(tmp_path: Path) -> None:
    async with open_journal(tmp_path) as journal:
        await journal.append((job(),))
        assert repr(journal) == f"<Journal {tmp_path}, 1 commits, 0 waiting>"


async def test_p19_output_that_a_power_failure_took_is_told_again_and_taken_for_nothing_else(
    tmp_path: Path,
) -> None:
    def said_by(part: str, text: str, *, offset: int, at: int = 0) -> OutputRecorded:
        return OutputRecorded(job=JOB, offset=offset, span=offset, text=text, part=PartId(part), at=at)

    async def told() -> list[tuple[str, int, str]]:
        async with open_journal(tmp_path) as journal:
            (open_,) = (await journal.load()).unsettled
        return [(piece.part, piece.at, piece.text) for piece in open_.told]

    async with open_journal(tmp_path) as journal:
        await journal.append(
            (job(), said_by("prt_1", "one and ", offset=0), said_by("prt_2", "two", offset=8))
        )
    os.truncate(tmp_path / "outputs" / f"{JOB}.txt", 4)
    assert await told() == [("prt_1", 0, "one ")]
    async with open_journal(tmp_path) as journal:
        await journal.append((said_by("prt_1", "and more", offset=4, at=4),))
    assert await told() == [("prt_1", 0, "one "), ("prt_1", 4, "and more")]
