"""Whole is what nobody else has written to: such a journal is opened without reading all of it."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import trio

from opencode_actors.errors import StoreError
from opencode_actors.machines.vocabulary import JobId
from opencode_actors.store import examination
from opencode_actors.store.journal import open_journal
from opencode_actors.store.seal import Seal

from .samples import job

FILE = "journal.sqlite"

KILLED = """
import os, signal, sys, trio
from pathlib import Path
from opencode_actors.machines.vocabulary import JobId
from opencode_actors.store.journal import open_journal
from tests.store.samples import job

async def main():
    async with open_journal(Path(sys.argv[1])) as journal:
        journal._writing.execute("PRAGMA wal_autocheckpoint = 1")
        await journal.append((job(id_=JobId("job_1")),))
        journal._writing.execute("PRAGMA wal_autocheckpoint = 4000")
        await journal.append((job(id_=JobId("job_2")),))
        os.kill(os.getpid(), signal.SIGKILL)

trio.run(main)
"""


@pytest.fixture
def examined(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files of which every page was read."""
    found: list[Path] = []
    whole = examination.check_pages

    def seen(database: sqlite3.Connection, path: Path) -> None:
        found.append(path)
        whole(database, path)

    monkeypatch.setattr(examination, "check_pages", seen)
    return found


async def opened(folder: Path) -> None:
    async with open_journal(folder) as journal:
        await journal.append((job(),))


async def test_an_end_in_good_order_leaves_nothing_to_examine(tmp_path: Path, examined: list[Path]) -> None:
    for _ in range(3):
        await opened(tmp_path)
    assert examined == []


async def test_nor_does_a_kill(tmp_path: Path, examined: list[Path]) -> None:
    for _ in range(2):
        done = await trio.run_process([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
        assert done.returncode == -signal.SIGKILL
        async with open_journal(tmp_path) as journal:
            assert await journal.job(JobId("job_2")) is not None
    assert examined == []


async def test_a_checkpoint_in_between_is_our_own(tmp_path: Path, examined: list[Path]) -> None:
    async with open_journal(tmp_path) as journal:
        journal._writing.execute("PRAGMA wal_autocheckpoint = 1")
        for number in range(20):
            await journal.append((job(id_=JobId(f"job_{number}")),))
            assert journal._seal.holds(), number
    await opened(tmp_path)
    assert examined == []


def _one_byte(file: Path) -> None:
    """As it was, and its times too, as far as a program can set them."""
    before = file.stat()
    with file.open("r+b") as pages:
        byte = pages.read(1)
        pages.seek(0)
        pages.write(byte)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def _another_file(file: Path) -> None:
    shutil.copy2(file, file.with_suffix(".copy"))
    file.with_suffix(".copy").rename(file)


def _by_sqlite(file: Path) -> None:
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("DELETE FROM jobs")


def _torn(file: Path) -> None:
    seal = file.with_name(f"{FILE}-seal")
    seal.write_text(seal.read_text()[:-9])


def _gone(file: Path) -> None:
    file.with_name(f"{FILE}-seal").unlink()


@pytest.mark.parametrize("meddle", [_one_byte, _another_file, _by_sqlite, _torn, _gone])
async def test_whatever_somebody_else_wrote_is_examined(
    tmp_path: Path, examined: list[Path], meddle: Callable[[Path], None]
) -> None:
    await opened(tmp_path)
    meddle(tmp_path / FILE)
    await opened(tmp_path)
    assert examined == [tmp_path / FILE]
    await opened(tmp_path)
    assert len(examined) == 1, "it was whole, and nobody wrote to it again"


async def test_what_is_written_to_an_open_one_is_examined_the_next_time(
    tmp_path: Path, examined: list[Path]
) -> None:
    async with open_journal(tmp_path) as journal:
        await journal.append((job(),))
        _one_byte(tmp_path / FILE)
        await journal.append((job(id_=JobId("job_2")),))
        journal._writing.execute("PRAGMA wal_checkpoint(PASSIVE)")
        await journal.append((job(id_=JobId("job_3")),))
    await opened(tmp_path)
    assert examined == [tmp_path / FILE]


async def test_damage_that_was_met_is_examined_the_next_time(tmp_path: Path, examined: list[Path]) -> None:
    async with open_journal(tmp_path) as journal:
        await journal.append((job(),))
        journal._writing.execute("UPDATE jobs SET snapshot = '{}'")
        journal._writing.commit()
        with pytest.raises(StoreError, match="cannot be understood"):
            await journal.job(job().snapshot.id)
    await opened(tmp_path)
    assert examined == [tmp_path / FILE]


async def test_a_power_failure_takes_the_seal_of_an_open_one_and_not_of_a_closed_one(tmp_path: Path) -> None:
    file = tmp_path / FILE
    async with open_journal(tmp_path) as journal:
        await journal.append((job(),))
        assert not Seal(file, "another").holds()
        assert not Seal(file, "").holds()
    assert Seal(file, "another").holds()


async def test_who_still_reads_the_file_keeps_it_from_being_closed(tmp_path: Path) -> None:
    async with open_journal(tmp_path) as journal:
        await journal.append((job(),))
        reader = sqlite3.connect(tmp_path / FILE)
        reader.execute("SELECT * FROM jobs").fetchone()
    assert not Seal(tmp_path / FILE, "another").holds()
    reader.close()


async def test_no_seal_without_a_name_for_the_machines_run(tmp_path: Path) -> None:
    await opened(tmp_path)
    seal = Seal(tmp_path / FILE, "")
    _gone(tmp_path / FILE)
    seal.begin()
    assert not seal.holds()
