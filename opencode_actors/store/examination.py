"""Whether the journal's files are whole, found before anything is written to them.

SQLite takes a damaged log (the `-wal` beside the file) for one that ends there, and an empty file for a new
one: both would lose what was recorded, and say nothing. So it is compared with what is left of the index
that SQLite shares between processes (`-shm`): it outlives the process, and says how many pages of the log
belong to finished transactions. Everything here blocks, and changes nothing.
"""

from __future__ import annotations

import logging
import sqlite3
import struct
from contextlib import ExitStack, closing
from pathlib import Path
from typing import cast
from urllib.parse import quote

from attrs import frozen

from opencode_actors.errors import StoreError
from opencode_actors.store.schema import MIGRATIONS, check_version, script

_log = logging.getLogger("opencode_actors")

# As https://www.sqlite.org/walformat.html has it. The index is in this machine's byte order, the log is not.
_INDEX = struct.Struct("=3I2BH2I2I8s2I")
_INDEX_CHECKED = struct.Struct("=10I")
_INDEX_VERSION = 3007000
_LOG_HEADER = struct.Struct(">4I8s2I")
_FRAME_HEADER = struct.Struct(">2I8s2I")
_WORD = 0xFFFFFFFF


@frozen
class LogIndex:
    """So many pages of the log that was begun with this salt are in finished transactions."""

    pages: int
    salt: bytes


def examine(path: Path, *, same_boot: bool, sealed: bool = False) -> None:
    """Of a `sealed` file the pages are not read again. Raises `StoreError` for what is damaged, belongs to another program, or is of another version, and
    `OSError` and `sqlite3.Error` for what cannot be read at all.

    After a power failure (not `same_boot`) what was not forced to the disk may be missing from the log, in
    any order, and is no damage; the log of the program says how much.
    """
    if _size(path) <= 1:  # SQLite takes that for a new one
        _check_that_it_is_new(path)
        return
    index_file, log_file = _beside(path, "-shm"), _beside(path, "-wal")
    index = index_file.read_bytes() if index_file.exists() else b""
    uri = f"file:{quote(str(path))}?mode=ro"
    with ExitStack() as undo:
        if index:
            # When it is opened, SQLite writes the index anew from what it can read of the log. Whoever
            # tries again has to find what we have found.
            undo.callback(index_file.write_bytes, index)
        try:
            with closing(sqlite3.connect(uri, uri=True)) as database:
                version = check_version(database, path)
                if _size(log_file) or index:
                    _check_log(path, log_index(index), same_boot=same_boot)
                _check_names(database, path, version)
                if not sealed:
                    check_pages(database, path)
        except UnicodeDecodeError as error:
            # What SQLite says of a damaged schema has the damaged words in it.
            raise damaged(path, f"malformed database schema: {error}") from error
        except sqlite3.Error as error:
            if is_damage(error):
                raise damaged(path, str(error)) from error
            raise
        undo.pop_all()


def damaged(path: Path, what: str) -> StoreError:
    return StoreError(
        f"the journal {path} is damaged: {what}",
        hint=f"nothing was changed. Put a copy of the folder {path.parent} back, or move {path.name}* out of"
        " it and start again: conversations and workspaces stay, what is recorded of jobs is gone, and"
        " containers that still run have to be removed by hand",
    )


def is_damage(error: Exception) -> bool:
    """Whether SQLite means the content of its file, and not the way to it."""
    if not isinstance(error, sqlite3.Error):
        return False
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or "decode to UTF-8" in str(error)


def _check_that_it_is_new(path: Path) -> None:
    log = _beside(path, "-wal")
    if _size(log):
        raise damaged(path, f"it is {_missing_or_empty(path)}, and {log.name} has {_size(log)} bytes")
    if path.exists() and any((path.parent / "outputs").iterdir()):
        raise damaged(path, "it is empty, and there is output of jobs")


def _missing_or_empty(path: Path) -> str:
    return "empty" if path.exists() else "missing"


# ---- the log


def _check_log(path: Path, before: LogIndex | None, *, same_boot: bool) -> None:
    """When the database was just opened, and its log read."""
    file = _beside(path, "-wal")
    data = file.read_bytes() if file.exists() else b""
    now = log_index(_beside(path, "-shm").read_bytes())
    read = now.pages if now is not None else 0
    lost = _beyond(data, read)
    if before is not None and before.pages and same_boot:
        same = now is not None and now.salt == before.salt
        lost = max(lost, before.pages - (read if same else 0))
    if lost <= 0:
        return
    what = f"of {file.name} only {read} pages can be read, and {lost} more were written"
    if same_boot:
        raise damaged(path, what)
    _log.warning(
        "the journal %s was cut off by a power failure, or is damaged: %s; the last of what was recorded is"
        " missing",
        path,
        what,
    )


def log_index(data: bytes) -> LogIndex | None:
    """What the index says, if it is one."""
    if len(data) < _INDEX.size:
        return None
    version, _, _, initialised, _, _, pages, _, _, _, salt, *sums = _INDEX.unpack_from(data)
    if version != _INDEX_VERSION or not initialised:
        return None
    if tuple(sums) != _sums(_INDEX_CHECKED.unpack_from(data)):
        return None
    return LogIndex(pages, salt)


def _beyond(log: bytes, read: int) -> int:
    """How many pages of the log stand behind those that could be read, to the last end of a transaction."""
    if len(log) <= _LOG_HEADER.size:
        return 0
    magic, _, page_size, _, salt, *sums = _LOG_HEADER.unpack_from(log)
    step = _FRAME_HEADER.size + page_size
    order = ">6I" if magic & 1 else "<6I"
    if tuple(sums) != _sums(struct.unpack_from(order, log)):
        return max(1, len(log) // 4096)  # nothing of it can be read
    last = read
    for number, at in enumerate(range(_LOG_HEADER.size, len(log) - step + 1, step), start=1):
        _, commits, of, *_ = _FRAME_HEADER.unpack_from(log, at)
        if number > read and commits and of == salt:
            last = number
    return last - read


def _sums(words: tuple[int, ...]) -> tuple[int, int]:
    """SQLite's own checksum."""
    one = two = 0
    for left, right in zip(words[::2], words[1::2], strict=True):
        one = (one + left + two) & _WORD
        two = (two + right + one) & _WORD
    return one, two


# ---- the file


def _check_names(database: sqlite3.Connection, path: Path, version: int) -> None:
    """Another program's file would be given our tables."""
    there, ours = _names_in(database), _names_of_version(version)
    if missing := sorted(ours - there):
        wrong = f"it has no {missing[0]}"
    elif version == 0 and there:
        wrong = f"it has {min(there)}"
    elif later := sorted(there & _names_of_version(len(MIGRATIONS)) - ours):
        raise damaged(path, f"it says that it has format {version}, and has {later[0]}")
    else:
        return
    raise StoreError(
        f"{path} is not a journal of opencode-actors: {wrong}",
        hint="nothing was changed. Move it away if it is another program's, or choose another sessionsDir",
    )


def _names_of_version(version: int) -> set[str]:
    with closing(sqlite3.connect(":memory:")) as empty:
        for number, step in enumerate(MIGRATIONS[:version], start=1):
            empty.executescript(script(step, number))
        return _names_in(empty)


def _names_in(database: sqlite3.Connection) -> set[str]:
    found = database.execute("SELECT type || ' ' || name FROM sqlite_schema").fetchall()
    return {name for (name,) in cast("list[tuple[str]]", found)}


def check_pages(database: sqlite3.Connection, path: Path) -> None:
    """Every page, and every index against its table: 0.4 s for 100,000 jobs (166 MB), 3 ms for 1,000."""
    (found,) = cast("tuple[str]", database.execute("PRAGMA integrity_check(1)").fetchone())
    if found != "ok":
        raise damaged(path, " ".join(found.split()))


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
