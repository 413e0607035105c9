"""Into directories that belong to an agent, without being led anywhere.

What is in them is the agent's, and a service that runs as root goes into them all the same. So nothing in
there is ever reached by a path, which the agent could bend with a symbolic link: each step is taken from
the directory before it, and no link is followed. All calls block.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# Not to wait for the other end of a pipe that stands where a file should.
_OLD_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextmanager
def opened(descriptor: int) -> Generator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_root(folder: Path) -> int:
    """Where the agent's part begins. It may itself be a link: what it lies in is the host's, so the user
    has set it."""
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def open_directory(name: str, above: int) -> int:
    return os.open(name, _DIRECTORY, dir_fd=above)


@contextmanager
def made_directory(name: str, above: int, owner: tuple[int, int]) -> Generator[int]:
    try:
        os.mkdir(name, mode=0o700, dir_fd=above)
    except FileExistsError:
        made = False
    else:
        made = True
    with opened(open_directory(name, above)) as folder:
        if made:
            give(folder, owner)
        yield folder


def read(name: str, folder: int, *, at_most: int) -> bytes | None:
    """None for what is no plain file, or larger than `at_most`."""
    try:
        descriptor = os.open(name, _OLD_FILE, dir_fd=folder)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        data = file.read(at_most + 1)
    return data if len(data) <= at_most else None


def replace(name: str, folder: int, data: bytes, owner: tuple[int, int] | None) -> None:
    """A whole new file, its owner's alone, in the place of whatever is there; the name beside it cannot be
    guessed."""
    partial = f"{name}.{secrets.token_hex(8)}"
    descriptor = os.open(partial, _NEW_FILE, 0o600, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
            if owner is not None:
                give(descriptor, owner)
        os.rename(partial, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        os.unlink(partial, dir_fd=folder)
        raise


def give(descriptor: int, owner: tuple[int, int]) -> None:
    if os.geteuid() == 0 and owner != (0, 0):
        os.fchown(descriptor, *owner)


def names(folder: int) -> list[str]:
    with os.scandir(folder) as found:
        return [entry.name for entry in found]


def entries(folder: int) -> Iterator[tuple[str, os.stat_result]]:
    """What is in it now; what goes while one looks is left out."""
    for name in names(folder):
        try:
            yield name, os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            continue


def remove(name: str, above: int) -> None:
    """Whatever it is, with all that is in it, however deep. A link is removed, and not what it points to."""
    try:
        os.unlink(name, dir_fd=above)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):  # Linux and POSIX have each their own word for a directory
        _make_usable(name, above)
        with opened(open_directory(name, above)) as folder:
            while found := names(folder):
                for entry in found:
                    _remove_flat(entry, folder)
        os.rmdir(name, dir_fd=above)


def _remove_flat(name: str, root: int) -> None:
    """Directories in it become entries of `root`, so that neither depth nor open files have to be bounded."""
    if _unlinked(name, root):
        return
    _make_usable(name, root)
    with opened(open_directory(name, root)) as folder:
        for entry in names(folder):
            if not _unlinked(entry, folder):
                _make_usable(entry, folder)
                os.rename(entry, secrets.token_hex(16), src_dir_fd=folder, dst_dir_fd=root)
    os.rmdir(name, dir_fd=root)


def _unlinked(name: str, folder: int) -> bool:
    if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        return False
    os.unlink(name, dir_fd=folder)
    return True


def _make_usable(name: str, above: int) -> None:
    """Package managers make read-only directories, out of which nothing can be removed."""
    with opened(os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)) as it:
        if os.fstat(it).st_mode & stat.S_IRWXU != stat.S_IRWXU:
            Path(f"/proc/self/fd/{it}").chmod(stat.S_IRWXU)  # not by its name, which can be exchanged
