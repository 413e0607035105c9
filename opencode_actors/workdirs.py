"""A session's own directories on the host: its OpenCode data and its workspace.

What is in them belongs to the agent, and a service that runs as root goes into them all the same. So
nothing in there is ever reached by a path, which the agent could bend with a symbolic link: each step is
taken from the directory before it, and no link is followed.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import trio

from opencode_actors.containers import AUTH_FILE, SessionPlace, config_copy
from opencode_actors.errors import StoreError

MakeDirectories = Callable[[SessionPlace, tuple[int, int], Path | None, Path | None], Awaitable[None]]


async def make_directories(
    place: SessionPlace, owner: tuple[int, int], auth_file: Path | None, config_file: Path | None = None
) -> None:
    """Makes what is missing, gives it to `owner`, the container's user, and copies the credentials in.

    Each session has its own copy of the credentials: two servers on one data directory lose each other's
    refreshed tokens. A copy that is as new as the host's is left alone, for the server may have refreshed it.
    The config is the host's each time: no server writes to it. Raises `StoreError`.
    """
    await trio.to_thread.run_sync(_make_all, place, owner, auth_file, config_file)


def _make_all(
    place: SessionPlace, owner: tuple[int, int], auth_file: Path | None, config_file: Path | None
) -> None:
    try:
        for folder in (place.data, place.workspace):
            _make(folder, owner)
        if auth_file is not None and auth_file.exists():
            with _folder_of_copies(place.data, owner) as copies:
                if not _is_as_new(AUTH_FILE.name, copies, auth_file.stat().st_mtime):
                    _replace(AUTH_FILE.name, copies, auth_file, owner)
        if config_file is not None:
            with _folder_of_copies(place.data, owner) as copies:
                _follow(config_copy(config_file).name, copies, config_file, owner)
    except OSError as error:
        raise StoreError(
            f"the directories of session {place.key} cannot be made: {error}",
            hint="check sessionsDir and workspacesDir: they must be yours and have room",
        ) from error


def _make(folder: Path, owner: tuple[int, int]) -> None:
    """The folder alone is the agent's; what it lies in is the host's, so this path cannot be bent."""
    folder.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
    if folder.is_dir():
        return
    folder.mkdir(mode=0o700)
    with _opened(os.open(folder, _DIRECTORY)) as made:
        _give(made, owner)


# ---- inside what is the agent's

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def _folder_of_copies(data: Path, owner: tuple[int, int]) -> Generator[int]:
    # The data directory itself may be a link: what it lies in is the host's, so the user has set it.
    with (
        _opened(os.open(data, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as above,
        _directory(str(AUTH_FILE.parent), above, owner) as folder,
    ):
        yield folder


def _follow(name: str, folder: int, source: Path, owner: tuple[int, int]) -> None:
    if source.exists():
        _replace(name, folder, source, owner)
    else:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)


@contextmanager
def _directory(name: str, above: int, owner: tuple[int, int]) -> Generator[int]:
    try:
        os.mkdir(name, mode=0o700, dir_fd=above)
    except FileExistsError:
        made = False
    else:
        made = True
    with _opened(os.open(name, _DIRECTORY, dir_fd=above)) as folder:
        if made:
            _give(folder, owner)
        yield folder


def _is_as_new(name: str, folder: int, modified: float) -> bool:
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_mtime >= modified


def _replace(name: str, folder: int, source: Path, owner: tuple[int, int]) -> None:
    """A whole new file in the place of whatever is there; the name beside it cannot be guessed."""
    partial = f"{name}.{secrets.token_hex(8)}"
    descriptor = os.open(partial, _NEW_FILE, 0o600, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "wb") as file, source.open("rb") as original:
            shutil.copyfileobj(original, file)
            _give(file.fileno(), owner)
        os.rename(partial, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        os.unlink(partial, dir_fd=folder)
        raise


@contextmanager
def _opened(descriptor: int) -> Generator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _give(descriptor: int, owner: tuple[int, int]) -> None:
    if os.geteuid() == 0 and owner != (0, 0):
        os.fchown(descriptor, *owner)
