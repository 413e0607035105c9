"""Copies of a session's directories, for another session to go on from. All calls block.

What is copied is an agent's, and may change while it is: no link is followed, what goes meanwhile is left out,
of what grows only so much is copied as there was, and OpenCode's database is copied at a moment in which nobody
has written to it. A copy takes no more room than what it is of: holes stay holes, and names of one file stay so.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress

from attrs import define, field, frozen

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


class NoRoom(OSError):
    """The copy would take what is to be left free."""


@frozen(kw_only=True)
class Copied:
    """`repository` is whether it has a git repository, with all of its history and what is not committed."""

    repository: bool
    files: int
    size: int


def _nobody_asks() -> None:
    pass


@frozen(kw_only=True)
class Limits:
    """Asked again between two pieces: so much is left free on the disk, and `go_on` raises when the copy is to
    end."""

    least_free: int = 0
    go_on: Callable[[], None] = _nobody_asks

    def check(self, target: int) -> None:
        self.go_on()
        if self.least_free:
            about = os.fstatvfs(target)
            if about.f_bavail * about.f_frsize < self.least_free:
                raise NoRoom(errno.ENOSPC, "the copy would take what is to be left free")


_NO_LIMITS = Limits()


@define
class _Copy:
    """`named` are the copies of files with several names, from the root on, by the file that each is of."""

    root: int
    owner: tuple[int, int]
    limits: Limits
    named: dict[tuple[int, int], str] = field(factory=dict[tuple[int, int], str])
    files: int = 0
    size: int = 0


def copy_tree(source: int, target: int, owner: tuple[int, int], limits: Limits = _NO_LIMITS) -> Copied:
    """Raises `OSError`, and what `limits` raise."""
    tally = _Copy(target, owner, limits)
    _copy_all(source, target, tally, frozenset(), "", _DEEPEST)
    with suppress(FileNotFoundError):
        os.stat(".git", dir_fd=source, follow_symlinks=False)
        return Copied(repository=True, files=tally.files, size=tally.size)
    return Copied(repository=False, files=tally.files, size=tally.size)


def copy_conversation(source: int, target: int, owner: tuple[int, int], limits: Limits = _NO_LIMITS) -> None:
    """OpenCode's data, but for what is the old server's alone. Raises `Unsettled`, other `OSError`s, and what
    `limits` raise."""
    with (
        opened(open_directory("opencode", source)) as here,
        made_directory("opencode", target, owner) as there,
    ):
        tally = _Copy(there, owner, limits)
        for _ in range(_LOOKS):
            before = _times(here)
            if before and time.time() - max(written for _, _, written in before) / 1e9 >= _SETTLED_FOR:
                for name in _OF_THE_DATABASE:
                    with suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=there)
                    with suppress(FileNotFoundError):
                        _copy_file(name, here, there, tally)
                if _times(here) == before:
                    break
            limits.check(there)
            time.sleep(_SETTLED_FOR)
        else:
            raise Unsettled(errno.EBUSY, "OpenCode wrote to its database all the time")
        _copy_all(here, there, tally, _NOT_THE_CONVERSATION, "", _DEEPEST)


def _times(folder: int) -> tuple[tuple[str, int, int], ...]:
    found: list[tuple[str, int, int]] = []
    for name in _OF_THE_DATABASE:
        with suppress(FileNotFoundError):
            about = os.stat(name, dir_fd=folder, follow_symlinks=False)
            found.append((name, about.st_size, about.st_mtime_ns))
    return tuple(found)


def _copy_all(source: int, target: int, tally: _Copy, but: frozenset[str], above: str, deepest: int) -> None:
    if not deepest:
        raise OSError(errno.ELOOP, f"directories are nested more than {_DEEPEST} deep")
    for name, about in entries(source):
        if name in but:
            continue
        tally.limits.check(target)
        try:
            if stat.S_ISDIR(about.st_mode):
                with (
                    opened(open_directory(name, source)) as here,
                    made_directory(name, target, tally.owner) as there,
                ):
                    _copy_all(here, there, tally, frozenset(), f"{above}{name}/", deepest - 1)
                    _take_over(there, about)
            elif stat.S_ISLNK(about.st_mode):
                os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
                if os.geteuid() == 0:
                    os.chown(name, *tally.owner, dir_fd=target, follow_symlinks=False)
            elif stat.S_ISREG(about.st_mode) and not _named_again(name, about, target, tally):
                _copy_file(name, source, target, tally)
                if about.st_nlink > 1:
                    tally.named[about.st_dev, about.st_ino] = f"{above}{name}"
        except (FileNotFoundError, NotADirectoryError):
            continue  # it went, or became something else, while it was looked at


def _named_again(name: str, about: os.stat_result, target: int, tally: _Copy) -> bool:
    first = tally.named.get((about.st_dev, about.st_ino)) if about.st_nlink > 1 else None
    if first is None:
        return False
    try:
        os.link(first, name, src_dir_fd=tally.root, dst_dir_fd=target, follow_symlinks=False)
    except OSError:
        return False  # too many names, or too long a one: it is another file then
    tally.files += 1
    return True


def _copy_file(name: str, source: int, target: int, tally: _Copy) -> None:
    """A file system that can lets both share their bytes until one is written to."""
    with opened(os.open(name, _OLD_FILE, dir_fd=source)) as here:
        about = os.fstat(here)
        if not stat.S_ISREG(about.st_mode):
            return
        with opened(os.open(name, _NEW_FILE, 0o600, dir_fd=target)) as there:
            tally.size += _copy_bytes(here, there, about.st_size, tally.limits)
            give(there, tally.owner)
            _take_over(there, about)
    tally.files += 1


def _copy_bytes(here: int, there: int, size: int, limits: Limits) -> int:
    """Those that it had when its `size` was looked at; how many are no hole."""
    os.ftruncate(there, size)
    place = full = 0
    while place < size:
        try:
            place = os.lseek(here, place, os.SEEK_DATA)
            end = min(size, os.lseek(here, place, os.SEEK_HOLE))
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole is all that is left
                break
            raise
        while place < end and (copied := _copy_piece(here, there, min(_PIECE, end - place), place)):
            limits.check(there)
            place, full = place + copied, full + copied
        if place < end:
            break  # it has become shorter
    os.ftruncate(there, min(size, os.fstat(here).st_size))
    return full


def _copy_piece(here: int, there: int, length: int, place: int) -> int:
    try:
        return os.copy_file_range(here, there, length, place, place)
    except OSError as error:
        # Between some file systems, and on some, the kernel does not do it by itself.
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    piece = os.pread(here, length, place)
    left = memoryview(piece)
    while left:
        left = left[os.pwrite(there, left, place + len(piece) - len(left)) :]
    return len(piece)


def _take_over(descriptor: int, about: os.stat_result) -> None:
    """Who may do what, but not as somebody else; and when it was written, by which git knows it."""
    os.fchmod(descriptor, stat.S_IMODE(about.st_mode) & 0o777)
    os.utime(descriptor, ns=(about.st_atime_ns, about.st_mtime_ns))
