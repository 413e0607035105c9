"""Sessions, jobs and notices in SQLite, output in files, one writer for all.

Whoever appends waits until the records are durable. All that wait at one time are written in one
transaction, so many jobs cost hardly more than one. Notices are numbered in the order in which they are
written, and told in that order once they are.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, Set
from contextlib import ExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import trio
from attrs import define, field, frozen

from opencode_actors.errors import StoreError
from opencode_actors.machines.notices import Notice, Record
from opencode_actors.machines.outbox_messages import LookForNotifications, NotificationsFound
from opencode_actors.machines.totals import Totals, summed
from opencode_actors.machines.vocabulary import JobId, JobSnapshot, SessionKey
from opencode_actors.store import database as db
from opencode_actors.store import (
    directory_rows,
    name_rows,
    notice_rows,
    old_rows,
    open_rows,
    outbox_rows,
    total_rows,
)
from opencode_actors.store.batch import Batch
from opencode_actors.store.examination import damaged, examine, is_damage
from opencode_actors.store.lock import DirectoryLock
from opencode_actors.store.notice_rows import Kept
from opencode_actors.store.output_files import OutputFiles
from opencode_actors.store.port import (
    Keyed,
    KnownJob,
    KnownSession,
    Limits,
    OnDisk,
    OutputSlice,
    Page,
    Recalled,
    Remembered,
    Tell,
)
from opencode_actors.store.reader import DAMAGE, Reader, has_damage, is_closed
from opencode_actors.store.seal import Seal

_JOURNAL = "journal.sqlite"
# More actors than this have to wait for the disk, one after another.
_QUEUE = 256
# How long the last records may take when everything else has ended; a disk that hangs must not hang us.
_CLOSE_WITHIN = 30.0


@frozen(kw_only=True)
class JournalStatistics:
    """`appends` by `commits` is how many were written at one time."""

    appends: int
    commits: int
    waiting: int


@define(eq=False, repr=False)
class Journal:
    """Use `open_journal`, which runs the writer.

    What clients wait for, and what nobody does, are read each by a reader of its own: the second has to look at
    all that there ever was.
    """

    folder: Path
    _writing: sqlite3.Connection
    _reader: Reader
    _housekeeper: Reader
    _seal: Seal
    _outputs: OutputFiles
    _send: trio.MemorySendChannel[Batch]
    _last_seq: int
    _kept: Kept
    _tell: Tell | None = field(default=None, init=False)
    _writer: trio.CancelScope = field(factory=lambda: trio.CancelScope(shield=True), init=False)
    _one_writer: trio.CapacityLimiter = field(factory=lambda: trio.CapacityLimiter(1), init=False)
    _appends: int = field(default=0, init=False)
    _commits: int = field(default=0, init=False)

    def __repr__(self) -> str:
        waiting = self._send.statistics().current_buffer_used
        return f"<Journal {self.folder}, {self._commits} commits, {waiting} waiting>"

    async def load(self) -> Remembered:
        return await self._reader.read(self._load)

    def listen(self, tell: Tell) -> None:
        self._tell = tell

    async def append(
        self, records: tuple[Record, ...], notices: tuple[Notice, ...] = (), *, at: float = 0.0
    ) -> None:
        await self._append(Batch.of(records, notices, at))

    async def _append(self, batch: Batch) -> None:
        try:
            await self._send.send(batch)
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            raise is_closed(self.folder) from None
        await batch.done.wait()
        if batch.error is not None:
            raise batch.error

    async def recall(self, session: SessionKey) -> Recalled:
        return await self._reader.read(db.read_recalled, session)

    async def on_disk(self, *, data: bool, workspaces: bool, after: str) -> tuple[OnDisk, ...]:
        read = directory_rows.read_on_disk
        return await self._reader.read(read, data=data, workspaces=workspaces, after=after)

    async def session(self, session: SessionKey) -> KnownSession:
        return await self._reader.read(db.read_session, session)

    async def named(self, name: str, *, limit: int) -> tuple[JobSnapshot, ...]:
        return await self._reader.read(name_rows.read_named, name, limit)

    async def old_jobs(self, limits: Limits) -> tuple[JobId, ...]:
        return await self._housekeeper.read(old_rows.read_old_jobs, limits)

    async def old_sessions(self, limits: Limits, *, but: Set[SessionKey]) -> tuple[SessionKey, ...]:
        return await self._housekeeper.read(old_rows.read_old_sessions, limits, but)

    async def jobs_of(self, session: SessionKey) -> tuple[JobId, ...] | None:
        return await self._housekeeper.read(old_rows.read_jobs_of, session)

    async def known_sessions(self, *, limit: int) -> tuple[KnownSession, ...]:
        return await self._reader.read(old_rows.read_known, limit)

    async def remove_strangers(self) -> None:
        """Each is on record until it is certain that its file is gone, whoever removed it."""
        while gone := await self._housekeeper.read(self._remove_some):
            await self._append(Batch(rows=[old_rows.gone_row(job) for job in gone]))

    async def last_job(self, session: SessionKey) -> JobSnapshot | None:
        return await self._reader.read(name_rows.read_last, session)

    async def recent_names(self, *, jobs: int) -> tuple[str, ...]:
        return await self._reader.read(name_rows.read_recent, jobs)

    async def free_number(self, name: str, *, above: int = 0) -> int:
        return await self._reader.read(name_rows.read_free, name, above)

    async def job(self, job: JobId) -> KnownJob | None:
        return await self._reader.read(db.read_job, job)

    async def keyed(self, key: str) -> Keyed | None:
        return await self._reader.read(db.read_keyed, key)

    async def notices(self, job: JobId | None, session: SessionKey | None, *, after: int, upto: int) -> Page:
        read, piece = notice_rows.read_page, self._outputs.piece
        return await self._reader.read(read, piece, job, session, after, upto)

    async def notifications(self, look: LookForNotifications) -> NotificationsFound:
        return await self._reader.read(outbox_rows.read_due, look)

    async def totals(self, since: str) -> Totals:
        found = await self._reader.read(total_rows.read_totals, since)
        return summed(since, *found)

    async def output(self, job: JobId, *, offset: int, limit: int) -> OutputSlice:
        return await self._reader.read(lambda _: self._outputs.read(job, offset, limit))

    async def aclose(self) -> None:
        """Nothing more is taken; what was taken is still written."""
        self._writer.deadline = trio.current_time() + _CLOSE_WITHIN
        await self._send.aclose()

    def statistics(self) -> JournalStatistics:
        return JournalStatistics(
            appends=self._appends,
            commits=self._commits,
            waiting=self._send.statistics().current_buffer_used,
        )

    # ---- writing

    async def write(self, receive: trio.MemoryReceiveChannel[Batch]) -> None:
        """The writer: until the sending side is closed and all is written.

        Under a shield, because what is being settled while everything is cancelled has to be durable too;
        `open_journal` closes the sending side in any case, and that ends it, or its deadline does.
        """
        async with receive:
            with self._writer:
                async for first in receive:
                    await self._write_with(first, receive)
            for batch in _waiting(receive):
                batch.end(self._not_written("the disk did not answer in time"))

    async def _write_with(self, first: Batch, receive: trio.MemoryReceiveChannel[Batch]) -> None:
        """And with all that wait behind it. Whatever happens, each of them hears of it."""
        batches = [first, *_waiting(receive)]
        error: StoreError | None = self._not_written("the writer was ended")
        try:
            notices, rows = self._numbered(batches)
            kept = self._kept.after(self._last_seq + len(notices))
            await trio.to_thread.run_sync(
                self._write,
                batches,
                [*rows, *self._kept.cut_to(kept)],
                limiter=self._one_writer,
                abandon_on_cancel=True,
            )
            error = None
            self._appends += len(batches)
            self._commits += 1
            self._last_seq, self._kept = self._last_seq + len(notices), kept
            if self._tell is not None:
                for notice in notices:
                    self._tell(notice)
        except (OSError, sqlite3.Error) as wrong:
            error = self._failed(wrong)
        finally:
            for batch in batches:
                batch.end(error)

    def _numbered(self, batches: list[Batch]) -> tuple[list[Notice], list[db.Row]]:
        """A number that could not be written is given again: nobody has heard of it."""
        notices: list[Notice] = []
        rows: list[db.Row] = []
        waiting = [row for batch in batches for row in batch.notices]
        for seq, row in enumerate(waiting, start=self._last_seq + 1):
            numbered, notice = row.numbered(seq)
            rows.append(numbered)
            notices.append(notice)
        return notices, rows

    def _write(self, batches: list[Batch], notices: list[db.Row]) -> None:
        texts: dict[JobId, list[bytes]] = {}
        for batch in batches:
            for job, text in batch.texts:
                texts.setdefault(job, []).append(text)
        for job, pieces in texts.items():
            self._outputs.append(job, b"".join(pieces))
        rows = [row for batch in batches for row in (*batch.spans, *batch.rows)]
        settled = [job for batch in batches for job in batch.settled]
        rows += [old_rows.size_row(job, size) for job in settled if (size := self._outputs.make_durable(job))]
        only_output = all(batch.only_output for batch in batches)
        self._seal.check()
        db.write(self._writing, [*rows, *notices], durable=not only_output)
        self._seal.renew()
        forgotten = tuple(job for batch in batches for job in batch.forgotten)
        for job in old_rows.read_strangers(self._writing, forgotten):
            with suppress(OSError):  # it is on record as one that is to go
                self._outputs.remove(job)

    # ---- reading

    def _load(self, database: sqlite3.Connection) -> Remembered:
        return Remembered(
            owner=db.read_owner(database),
            unsettled=open_rows.read_open(database, self._outputs.take_back),
            housed=open_rows.read_housed(database),
            attached=db.read_attached(database),
            last_seq=notice_rows.read_last(database),
            choices=db.read_choices(database),
        )

    def _remove_some(self, database: sqlite3.Connection) -> tuple[JobId, ...]:
        """Which are gone for good then, also after a power failure."""
        found = old_rows.read_to_remove(database)
        for job in old_rows.read_strangers(database, found):
            self._outputs.remove(job)
        if found:
            self._outputs.make_removals_durable()
        return found

    # ---- errors

    def _failed(self, wrong: Exception) -> StoreError:
        if is_damage(wrong):
            return has_damage(self.folder / _JOURNAL, self._seal, wrong)
        return self._not_written(str(wrong))

    def _not_written(self, why: str) -> StoreError:
        return StoreError(
            f"writing to the state directory {self.folder} failed: {why}",
            hint="make room on the disk, or check its permissions; then start again",
        )


def _waiting(receive: trio.MemoryReceiveChannel[Batch]) -> list[Batch]:
    batches: list[Batch] = []
    while True:
        try:
            batches.append(receive.receive_nowait())
        except (trio.WouldBlock, trio.EndOfChannel):
            return batches


@asynccontextmanager
async def open_journal(folder: Path) -> AsyncGenerator[Journal]:
    """The journal of one state directory, which nobody else may use meanwhile. Raises `StoreError`."""
    lock = DirectoryLock(folder / "lock")
    try:
        await trio.to_thread.run_sync(_make_folder, folder)
        lock.acquire()
    except OSError as error:
        raise _not_opened(folder, error) from error
    try:
        seal = Seal(folder / _JOURNAL, lock.boot)
        writing, *reading = await _open_database(folder, seal, same_boot=lock.same_boot)
        try:
            send, receive = trio.open_memory_channel[Batch](_QUEUE)
            last_seq, kept = _numbers(writing, folder)
            outputs = OutputFiles(folder / "outputs")
            reader, housekeeper = (Reader(folder / _JOURNAL, one, seal) for one in reading)
            journal = Journal(folder, writing, reader, housekeeper, seal, outputs, send, last_seq, kept)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(journal.write, receive)
                try:
                    yield journal
                finally:
                    await journal.aclose()
        finally:
            # Closing writes the last of the WAL into the file.
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _CLOSE_WITHIN):
                await trio.to_thread.run_sync(_close, (*reading, writing), seal, abandon_on_cancel=True)
    finally:
        lock.release()


def _make_folder(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    (folder / "outputs").mkdir(exist_ok=True, mode=0o700)


async def _open_database(folder: Path, seal: Seal, *, same_boot: bool) -> list[sqlite3.Connection]:
    try:
        return await trio.to_thread.run_sync(partial(_open_all, folder / _JOURNAL, seal, same_boot=same_boot))
    except (OSError, sqlite3.Error) as error:
        raise _not_opened(folder, error) from error


def _open_all(path: Path, seal: Seal, *, same_boot: bool) -> list[sqlite3.Connection]:
    """One that writes, and two that read."""
    examine(path, same_boot=same_boot, sealed=seal.holds())
    with ExitStack() as undo:
        opened = [db.open_for_writing(path)]
        undo.callback(opened[0].close)
        seal.begin()
        for _ in range(2):
            opened.append(db.open_for_reading(path))
            undo.callback(opened[-1].close)
        undo.pop_all()
    return opened


def _numbers(database: sqlite3.Connection, folder: Path) -> tuple[int, Kept]:
    try:
        return notice_rows.read_last(database), notice_rows.read_kept(database)
    except (*DAMAGE, sqlite3.Error) as error:
        raise damaged(folder / _JOURNAL, f"its own numbers cannot be read: {error!r}") from error


def _close(connections: tuple[sqlite3.Connection, ...], seal: Seal) -> None:
    seal.check()
    for connection in connections:
        connection.close()
    seal.close()


def _not_opened(folder: Path, error: Exception) -> StoreError:
    return StoreError(
        f"the state directory {folder} cannot be used: {error}",
        hint="check that it exists, is yours and has room, or choose another sessionsDir",
    )
