"""A session's own directories on the host: its OpenCode data and its workspace."""

from __future__ import annotations

import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from opencode_actors.containers import AUTH_FILE, SessionPlace
from opencode_actors.errors import StoreError

MakeDirectories = Callable[[SessionPlace, tuple[int, int], Path | None], Awaitable[None]]


async def make_directories(place: SessionPlace, owner: tuple[int, int], auth_file: Path | None) -> None:
    """Makes what is missing, gives it to `owner`, the container's user, and copies the credentials in.

    Each session has its own copy of the credentials: two servers on one data directory lose each other's
    refreshed tokens. A copy that is as new as the host's is left alone, for the server may have refreshed it.
    Raises `StoreError`.
    """
    await trio.to_thread.run_sync(_make_all, place, owner, auth_file)


def _make_all(place: SessionPlace, owner: tuple[int, int], auth_file: Path | None) -> None:
    try:
        for folder in (place.data, place.workspace):
            _make(folder, owner)
        _make(place.data / AUTH_FILE.parent, owner)
        if auth_file is not None:
            _copy_auth(auth_file, place.data / AUTH_FILE, owner)
    except OSError as error:
        raise StoreError(
            f"the directories of session {place.key} cannot be made: {error}",
            hint="check sessionsDir and workspacesDir: they must be yours and have room",
        ) from error


def _make(folder: Path, owner: tuple[int, int]) -> None:
    try:
        folder.mkdir(parents=True, mode=0o700)
    except FileExistsError:
        return
    _give(folder, owner)


def _copy_auth(source: Path, target: Path, owner: tuple[int, int]) -> None:
    if not source.exists():
        return
    if target.exists() and target.stat().st_mtime >= source.stat().st_mtime:
        return
    partial = target.with_suffix(".new")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file, source.open("rb") as original:
        shutil.copyfileobj(original, file)
    _give(partial, owner)
    partial.replace(target)


def _give(path: Path, owner: tuple[int, int]) -> None:
    if os.geteuid() == 0 and owner != (0, 0):
        os.chown(path, *owner)
