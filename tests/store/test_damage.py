"""A journal that is not whole: a plain error that changes nothing, or all that was recorded. Never less."""

from __future__ import annotations

import logging
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio

from opencode_actors.error_groups import leaves
from opencode_actors.errors import StoreError
from opencode_actors.machines.vocabulary import JobId
from opencode_actors.store import examination
from opencode_actors.store.examination import log_index
from opencode_actors.store.journal import open_journal
from opencode_actors.store.lock import DirectoryLock
from opencode_actors.store.seal import Seal

from .samples import JOB, SESSION, job

JOBS = 24
POSITIONS = 60
FILE, LOG, INDEX = "journal.sqlite", "journal.sqlite-wal", "journal.sqlite-shm"

# Half of it is in the file, half in the log, and the process dies with the log as it is; or it ends well.
WRITE = """
import os, signal, sys, trio
from pathlib import Path
from opencode_actors.machines.notices import JobEnded, JobQueued, OutputAdded, OutputKind
from opencode_actors.machines.vocabulary import JobId, JobStatus
from opencode_actors.store.journal import open_journal
from tests.store.samples import SESSION, conversation, job, said

async def main():
    async with open_journal(Path(sys.argv[1])) as journal:
        await journal.append((conversation(),))
        for number in range(int(sys.argv[2])):
            id_ = JobId(f"job_{number}")
            queued = JobQueued(job=id_, session=SESSION, ahead=0)
            await journal.append((job(JobStatus.PENDING, id_=id_),), (queued,), at=1.0)
            piece = OutputAdded(job=id_, session=SESSION, kind=OutputKind.TEXT, offset=0, text="all of it")
            await journal.append((said("all of it", id_=id_),), (piece,), at=2.0)
            if number % 3:
                done = job(JobStatus.COMPLETED, id_=id_)
                ended = JobEnded(job=id_, session=SESSION, snapshot=done.snapshot)
                await journal.append((done,), (ended,), at=3.0)
            if number == int(sys.argv[2]) // 2:
                journal._writing.execute("PRAGMA wal_checkpoint(RESTART)")
        if sys.argv[3] == "killed":
            os.kill(os.getpid(), signal.SIGKILL)

trio.run(main)
"""


@pytest.fixture(scope="module", params=["killed", "ended"])
def left(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory as a process leaves it."""
    folder = tmp_path_factory.mktemp(request.param) / "state"
    done = subprocess.run(
        [sys.executable, "-c", WRITE, str(folder), str(JOBS), request.param], check=False, timeout=60
    )
    assert done.returncode == (-signal.SIGKILL if request.param == "killed" else 0)
    assert (folder / LOG).exists() == (request.param == "killed")
    return folder


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed-alone") / "state"
    subprocess.run([sys.executable, "-c", WRITE, str(folder), str(JOBS), "killed"], check=False, timeout=60)
    return folder


async def everything(folder: Path) -> dict[str, Any]:
    """All that can be asked of a journal."""
    async with open_journal(folder) as journal:
        remembered = await journal.load()
        found: dict[str, Any] = {
            "remembered": remembered,
            "sessions": await journal.on_disk(data=True, workspaces=True, after=""),
            "session": await journal.session(SESSION),
            "recalled": await journal.recall(SESSION),
            "notices": await journal.notices(None, None, after=0, upto=remembered.last_seq),
        }
        for id_ in (JobId(f"job_{number}") for number in range(JOBS)):
            found[id_] = await journal.job(id_), await journal.output(id_, offset=0, limit=1000)
        return found


async def attempt(folder: Path) -> dict[str, Any] | StoreError:
    try:
        return await everything(folder)
    except StoreError as error:
        return error
    except ExceptionGroup as group:
        (only,) = leaves(group)
        assert isinstance(only, StoreError), only
        return only


def content(folder: Path) -> dict[str, bytes]:
    """Of the file and of its log, if that has any."""
    return {name: (folder / name).read_bytes() for name in (FILE, LOG) if size(folder / name)}


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def copy(source: Path, to: Path) -> Path:
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(source, to)
    return to


def sealed(folder: Path) -> Path:
    """As if nobody had written to it since the journal did."""
    seal = Seal(folder / FILE, DirectoryLock(folder / "lock").boot)
    seal.begin()
    assert seal.holds()
    return folder


def flip(data: bytearray, rng: random.Random) -> bytearray:
    # Half of them near the beginning, where one bit decides about everything.
    at = rng.randrange(len(data) if rng.random() < 0.5 else min(400, len(data)))
    data[at] ^= 1 << rng.randrange(8)
    return data


def cut(data: bytearray, rng: random.Random) -> bytearray:
    return data[: rng.choice((0, 1, 32, 4096, rng.randrange(len(data)), len(data) - 1))]


Damage = Callable[[bytearray, random.Random], bytearray]


@pytest.mark.parametrize("damage", [flip, cut])
@pytest.mark.parametrize("name", [FILE, LOG, INDEX])
async def test_p18_damage_is_said_or_does_no_harm(
    left: Path, tmp_path: Path, name: str, damage: Damage, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the file is not, there is nothing to damage."""
    if not (left / name).exists():
        return
    whole = await everything(copy(left, tmp_path / "whole"))
    rng = random.Random(f"{left.parent.name} {name} {damage.__name__}")
    ends: Counter[str] = Counter()
    for number in range(POSITIONS):
        folder = sealed(copy(left, tmp_path / "damaged"))
        (folder / name).write_bytes(damage(bytearray((left / name).read_bytes()), rng))
        before = content(folder)
        found = await attempt(folder)
        if not isinstance(found, StoreError):
            lost = [key for key in whole if found[key] != whole[key]]
            # Only what has no sum, a conversation's id, may be another one: no job, no state and no order is.
            assert set(lost) <= {"conversation"}, (number, lost)
            assert not lost or (name, damage) == (FILE, flip), (number, lost)
            ends["whole"] += 1
            continue
        ends["refused"] += 1
        assert str(folder) in found.message
        assert found.hint
        if "cannot be understood" not in found.message:
            assert content(folder) == before, found.message
            again = await attempt(folder)
            assert isinstance(again, StoreError), "the second time it was taken for whole"
            assert again.message == found.message
    if name == LOG:  # but for what stands behind its end, of the time before it was begun anew
        assert ends["refused"] > POSITIONS / 2
    assert not caplog.records


async def test_the_log_alone_says_that_something_is_missing_in_its_midst(
    killed: Path, tmp_path: Path
) -> None:
    """The shared index may be gone, as in a copy of the two other files."""
    folder = copy(killed, tmp_path / "damaged")
    (folder / INDEX).unlink()
    data = bytearray((folder / LOG).read_bytes())
    data[32 + 4120 * 3 + 100] ^= 1
    (folder / LOG).write_bytes(data)
    found = await attempt(folder)
    assert isinstance(found, StoreError)
    assert f"of {LOG} only 0 pages can be read, and " in found.message
    assert f"move {FILE}* out" in found.hint


async def test_what_a_power_failure_took_is_said_and_no_reason_not_to_start(
    killed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = copy(killed, tmp_path / "damaged")
    (folder / "lock").write_text("1\n8d1f9c1e-0000-4000-8000-000000000000\n")
    data = bytearray((folder / LOG).read_bytes())
    # Of the last transactions, the very last page was on the disk already.
    index = log_index((folder / INDEX).read_bytes())
    assert index is not None
    end = 32 + 4120 * (index.pages - 1)
    data[end - 4096 : end] = bytes(4096)
    (folder / LOG).write_bytes(data)
    with caplog.at_level(logging.WARNING):
        found = await attempt(folder)
    assert not isinstance(found, StoreError)
    # and said once: what was there is in the file now
    (said,) = [record.getMessage() for record in caplog.records]
    assert "cut off by a power failure, or is damaged" in said
    caplog.clear()
    assert await attempt(folder) == found
    assert not caplog.records


@pytest.mark.parametrize("empty", [True, False])
async def test_a_file_that_is_gone_is_not_taken_for_a_new_one(
    killed: Path, tmp_path: Path, *, empty: bool
) -> None:
    folder = copy(killed, tmp_path / "damaged")
    (folder / FILE).unlink()
    if empty:
        (folder / FILE).touch()
    there = size(folder / LOG)
    found = await attempt(folder)
    assert isinstance(found, StoreError)
    assert f"it is {'empty' if empty else 'missing'}, and {LOG} has {there} bytes" in found.message
    assert size(folder / LOG) == there
    if empty:
        (folder / LOG).unlink()
        found = await attempt(folder)
        assert isinstance(found, StoreError)
        assert "it is empty, and there is output of jobs" in found.message


async def test_moved_aside_as_the_error_says_there_is_a_new_beginning(killed: Path, tmp_path: Path) -> None:
    folder = copy(killed, tmp_path / "damaged")
    for name in (FILE, LOG, INDEX):
        (folder / name).rename(tmp_path / name)
    async with open_journal(folder) as journal:
        assert (await journal.load()).last_seq == 0
        await journal.append((job(),))
        assert await journal.job(JOB) is not None


async def test_another_programs_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / FILE
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE bookmarks (url TEXT)")
        database.commit()
    for version, missing in ((0, "has table bookmarks"), (1, "has no index")):
        with closing(sqlite3.connect(path)) as database:
            database.execute(f"PRAGMA user_version = {version}")
        before = path.read_bytes()
        found = await attempt(tmp_path)
        assert path.read_bytes() == before
        assert isinstance(found, StoreError)
        assert f"{path} is not a journal of opencode-actors: it {missing}" in found.message
        assert "choose another sessionsDir" in found.hint
    assert not (tmp_path / LOG).exists()


async def test_a_version_that_its_tables_do_not_have_is_damage(tmp_path: Path) -> None:
    """Else a step would be taken a second time."""
    async with open_journal(tmp_path):
        pass
    with closing(sqlite3.connect(tmp_path / FILE)) as database:
        database.execute("PRAGMA user_version = 2")
    found = await attempt(tmp_path)
    assert isinstance(found, StoreError)
    assert "it says that it has format 2, and has index " in found.message


async def test_damage_that_is_met_on_the_way_is_said_as_such(tmp_path: Path) -> None:
    async with open_journal(tmp_path) as journal:
        await journal.append((job(),))
        journal._writing.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        file = tmp_path / FILE
        with file.open("r+b") as pages:
            pages.seek(4096)
            pages.write(b"\xff" * (size(file) - 4096))
        for connection in (journal._writing, journal._reader._database):
            connection.execute("PRAGMA shrink_memory")
        for reading in (True, False):
            with pytest.raises(StoreError, match=r"journal\.sqlite is damaged") as raised:
                await (journal.job(JOB) if reading else journal.append((job(),)))
            assert "move journal.sqlite* out of it" in raised.value.hint


def test_the_index_is_read_as_sqlite_writes_it(tmp_path: Path) -> None:
    """Should a later SQLite write another one, we would no longer see what is lost."""
    path = tmp_path / FILE
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE one (two TEXT)")
        for number in range(3):
            database.execute("INSERT INTO one VALUES (?)", (f"{number}" * 9000,))
            database.commit()
        index = log_index((tmp_path / INDEX).read_bytes())
        assert index is not None
        (_, pages, _) = database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        assert index.pages == pages > 3
        assert index.salt == (tmp_path / LOG).read_bytes()[16:24]
    assert log_index(b"") is None
    assert log_index(bytes(32768)) is None


def test_examining_changes_nothing(killed: Path, tmp_path: Path) -> None:
    folder = copy(killed, tmp_path / "left")
    before = content(folder)
    for _ in range(2):
        examination.examine(folder / FILE, same_boot=True)
        assert content(folder) == before
    assert trio.run(everything, folder)
