"""Sessions and jobs in SQLite, output in files, one writer for both.

Whoever appends waits until the records are durable. All that wait at one time are written in one
transaction, so many jobs cost hardly more than one.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import AsyncGenerator, Mapping
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import cattrs
import trio
from attrs import define, field

from opencode_actors.errors import StoreError
from opencode_actors.machines.notices import JobRecorded, OutputRecorded, Record, SessionRecorded
from opencode_actors.machines.server_events import ConversationId
from opencode_actors.machines.vocabulary import JobId, JobSnapshot, JobStatus, SessionKey
from opencode_actors.store.lock import DirectoryLock
from opencode_actors.store.output_files import OutputFiles
from opencode_actors.store.port import OutputSlice, Remembered

VERSION = 1
# More actors than this have to wait for the disk, one after another.
_QUEUE = 256

_SCHEMA = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE sessions (key TEXT PRIMARY KEY, conversation TEXT) WITHOUT ROWID;
CREATE TABLE jobs (id TEXT PRIMARY KEY, session TEXT NOT NULL, settled INTEGER NOT NULL, snapshot TEXT NOT NULL)
    WITHOUT ROWID;
CREATE INDEX unsettled ON jobs (id) WHERE settled = 0;
"""

_converter = cattrs.Converter(detailed_validation=False)


@define(eq=False)
class _Batch:
    records: tuple[Record, ...]
    done: trio.Event = field(factory=trio.Event)
    error: StoreError | None = None


@define(eq=False)
class Journal:
    """Use `open_journal`, which runs the writer."""

    folder: Path
    _database: sqlite3.Connection
    _outputs: OutputFiles
    _send: trio.MemorySendChannel[_Batch]

    async def load(self) -> Remembered:
        return await trio.to_thread.run_sync(self._load)

    async def append(self, records: tuple[Record, ...]) -> None:
        batch = _Batch(records)
        await self._send.send(batch)
        await batch.done.wait()
        if batch.error is not None:
            raise batch.error

    async def job(self, job: JobId) -> JobSnapshot | None:
        return await trio.to_thread.run_sync(self._job, job)

    async def output(self, job: JobId, *, offset: int, limit: int) -> OutputSlice:
        return await trio.to_thread.run_sync(self._outputs.read, job, offset, limit)

    async def aclose(self) -> None:
        await self._send.aclose()

    async def write(self, receive: trio.MemoryReceiveChannel[_Batch]) -> None:
        """The writer: until the sending side is closed and all is written.

        Under a shield, because what is being settled while everything is cancelled has to be durable too;
        `open_journal` closes the sending side in any case, and that ends it.
        """
        with trio.CancelScope(shield=True):
            await self._write_all(receive)

    async def _write_all(self, receive: trio.MemoryReceiveChannel[_Batch]) -> None:
        async for first in receive:
            batches = [first]
            while True:
                try:
                    batches.append(receive.receive_nowait())
                except (trio.WouldBlock, trio.EndOfChannel):
                    break
            error: StoreError | None = None
            try:
                await trio.to_thread.run_sync(self._write, batches)
            except (OSError, sqlite3.Error) as wrong:
                error = _not_written(self.folder, wrong)
            for batch in batches:
                batch.error = error
                batch.done.set()

    # ---- in a thread, one call at a time for what writes

    def _write(self, batches: list[_Batch]) -> None:
        rows = [record for batch in batches for record in batch.records]
        for job, text in _texts(rows).items():
            self._outputs.append(job, text)
        with self._database as database:
            for record in rows:
                match record:
                    case SessionRecorded():
                        database.execute(
                            "INSERT OR REPLACE INTO sessions VALUES (?, ?)",
                            (record.session, record.conversation),
                        )
                    case JobRecorded():
                        _put_job(database, record.snapshot)
                    case OutputRecorded():
                        pass

    def _load(self) -> Remembered:
        read = self._database.execute
        owner = read("SELECT value FROM about WHERE name = 'owner'").fetchone()[0]
        sessions = read("SELECT key, conversation FROM sessions WHERE conversation IS NOT NULL")
        unsettled = read("SELECT id FROM jobs WHERE settled = 0")
        return Remembered(
            owner=owner,
            conversations={SessionKey(key): ConversationId(value) for key, value in sessions},
            unsettled=tuple(JobId(job) for (job,) in unsettled),
        )

    def _job(self, job: JobId) -> JobSnapshot | None:
        row = self._database.execute("SELECT snapshot FROM jobs WHERE id = ?", (job,)).fetchone()
        return None if row is None else _converter.structure(json.loads(row[0]), JobSnapshot)


def _texts(records: list[Record]) -> Mapping[JobId, str]:
    texts: dict[JobId, list[str]] = {}
    for record in records:
        if isinstance(record, OutputRecorded):
            texts.setdefault(record.job, []).append(record.text)
    return {job: "".join(pieces) for job, pieces in texts.items()}


def _put_job(database: sqlite3.Connection, snapshot: JobSnapshot) -> None:
    settled = snapshot.status in (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)
    database.execute(
        "INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, ?)",
        (snapshot.id, snapshot.session, settled, json.dumps(_converter.unstructure(snapshot))),
    )


@asynccontextmanager
async def open_journal(folder: Path) -> AsyncGenerator[Journal]:
    """The journal of one state directory, which nobody else may use meanwhile. Raises `StoreError`."""
    try:
        await trio.to_thread.run_sync(_make_folder, folder)
        lock = DirectoryLock(folder / "lock")
        lock.acquire()
    except OSError as error:
        raise _not_opened(folder, error) from error
    try:
        try:
            database = await trio.to_thread.run_sync(_open_database, folder / "journal.sqlite")
        except (OSError, sqlite3.Error) as error:
            raise _not_opened(folder, error) from error
        try:
            send, receive = trio.open_memory_channel[_Batch](_QUEUE)
            journal = Journal(folder, database, OutputFiles(folder / "outputs"), send)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(journal.write, receive)
                try:
                    yield journal
                finally:
                    await journal.aclose()
        finally:
            database.close()
    finally:
        lock.release()


def _make_folder(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    (folder / "outputs").mkdir(exist_ok=True, mode=0o700)


def _open_database(path: Path) -> sqlite3.Connection:
    # One writer at a time, by construction; the threads that it runs in change.
    database = sqlite3.connect(path, check_same_thread=False, timeout=5.0)
    with ExitStack() as undo:
        undo.callback(database.close)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        (version,) = cast(tuple[Any], database.execute("PRAGMA user_version").fetchone())
        if version == 0:
            _create(database)
        elif version != VERSION:
            raise StoreError(
                f"{path} was written by another version of opencode-actors "
                f"(format {version}, this one reads {VERSION})",
                hint="use the version that wrote it, or choose another sessionsDir",
            )
        undo.pop_all()
    return database


def _create(database: sqlite3.Connection) -> None:
    with database:
        database.executescript(_SCHEMA)
        database.execute("INSERT INTO about VALUES ('owner', ?)", (secrets.token_hex(4),))
        database.execute(f"PRAGMA user_version = {VERSION}")


def _not_opened(folder: Path, error: Exception) -> StoreError:
    return StoreError(
        f"the state directory {folder} cannot be used: {error}",
        hint="check that it exists, is yours and has room, or choose another sessionsDir",
    )


def _not_written(folder: Path, error: Exception) -> StoreError:
    return StoreError(
        f"writing to the state directory {folder} failed: {error}",
        hint="make room on the disk, or check its permissions; then start again",
    )
