"""Copies of a session's directories, for another session to go on from. All calls block.

What is copied is an agent's, and may change while it is: no link is followed, what goes meanwhile is left out,
and OpenCode's database is copied at a moment in which nobody has written to it.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from contextlib import suppress

from attrs import define, frozen

from opencode_actors.agents_files import entries, give, made_directory, open_directory, opened

# Deeper ones are made by nobody but for mischief, and each level holds two files open.
_DEEPEST = 128
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PIECE = 8 << 20
_DATABASE = "opencode.db"
# Its shared memory is made anew from these two by whoever opens them.
_OF_THE_DATABASE = (_DATABASE, f"{_DATABASE}-wal")
# A log is the old server's, and logins are the host's, which gives them to each session itself.
_NOT_THE_CONVERSATION = frozenset(("log", "auth.json", f"{_DATABASE}-shm", *_OF_THE_DATABASE))
# A file's time has the steps of the kernel's clock, 4 ms at most: what was written longer ago than this, and has
# the same time and size afterwards, was not written to.
_SETTLED_FOR = 0.02
_LOOKS = 200


class Unsettled(OSError):
    """The database was written to whenever it was looked at."""


@frozen(kw_only=True)
class Copied:
    """`repository` is whether it has a git repository, with all of its history and what is not committed."""

    repository: bool
    files: int
    size: int


@define
class _Tally:
    files: int = 0
    size: int = 0


def copy_tree(source: int, target: int, owner: tuple[int, int]) -> Copied:
    """Raises `OSError`."""
    tally = _Tally()
    _copy_all(source, target, owner, tally, frozenset(), _DEEPEST)
    with suppress(FileNotFoundError):
        os.stat(".git", dir_fd=source, follow_symlinks=False)
        return Copied(repository=True, files=tally.files, size=tally.size)
    return Copied(repository=False, files=tally.files, size=tally.size)


def copy_conversation(source: int, target: int, owner: tuple[int, int]) -> None:
    """OpenCode's data, but for what is the old server's alone. Raises `Unsettled`, and other `OSError`s."""
    with (
        opened(open_directory("opencode", source)) as here,
        made_directory("opencode", target, owner) as there,
    ):
        for _ in range(_LOOKS):
            before = _times(here)
            if before and time.time() - max(written for _, _, written in before) / 1e9 >= _SETTLED_FOR:
                for name in _OF_THE_DATABASE:
                    with suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=there)
                    with suppress(FileNotFoundError):
                        _copy_file(name, here, there, owner)
                if _times(here) == before:
                    break
            time.sleep(_SETTLED_FOR)
        else:
            raise Unsettled(errno.EBUSY, "OpenCode wrote to its database all the time")
        _copy_all(here, there, owner, _Tally(), _NOT_THE_CONVERSATION, _DEEPEST)


def _times(folder: int) -> tuple[tuple[str, int, int], ...]:
    found: list[tuple[str, int, int]] = []
    for name in _OF_THE_DATABASE:
        with suppress(FileNotFoundError):
            about = os.stat(name, dir_fd=folder, follow_symlinks=False)
            found.append((name, about.st_size, about.st_mtime_ns))
    return tuple(found)


def _copy_all(
    source: int, target: int, owner: tuple[int, int], tally: _Tally, but: frozenset[str], deepest: int
) -> None:
    if not deepest:
        raise OSError(errno.ELOOP, f"directories are nested more than {_DEEPEST} deep")
    for name, about in entries(source):
        if name in but:
            continue
        try:
            if stat.S_ISDIR(about.st_mode):
                with (
                    opened(open_directory(name, source)) as here,
                    made_directory(name, target, owner) as there,
                ):
                    _copy_all(here, there, owner, tally, frozenset(), deepest - 1)
                    _take_over(there, about)
            elif stat.S_ISLNK(about.st_mode):
                os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
                if os.geteuid() == 0:
                    os.chown(name, *owner, dir_fd=target, follow_symlinks=False)
            elif stat.S_ISREG(about.st_mode):
                tally.files, tally.size = (
                    tally.files + 1,
                    tally.size + _copy_file(name, source, target, owner),
                )
        except (FileNotFoundError, NotADirectoryError):
            continue  # it went, or became something else, while it was looked at


def _copy_file(name: str, source: int, target: int, owner: tuple[int, int]) -> int:
    """How many bytes it has. A file system that can lets both share them until one is written to."""
    with opened(os.open(name, _OLD_FILE, dir_fd=source)) as here:
        about = os.fstat(here)
        if not stat.S_ISREG(about.st_mode):
            return 0
        with opened(os.open(name, _NEW_FILE, 0o600, dir_fd=target)) as there:
            size = _copy_bytes(here, there)
            give(there, owner)
            _take_over(there, about)
    return size


def _copy_bytes(here: int, there: int) -> int:
    size = 0
    try:
        while copied := os.copy_file_range(here, there, _PIECE):
            size += copied
    except OSError as error:
        # Between some file systems, and on some, the kernel does not do it by itself.
        if size or error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        while piece := os.read(here, _PIECE):
            left = memoryview(piece)
            while left:
                left = left[os.write(there, left) :]
            size += len(piece)
    return size


def _take_over(descriptor: int, about: os.stat_result) -> None:
    """Who may do what, but not as somebody else; and when it was written, by which git knows it."""
    os.fchmod(descriptor, stat.S_IMODE(about.st_mode) & 0o777)
    os.utime(descriptor, ns=(about.st_atime_ns, about.st_mtime_ns))
