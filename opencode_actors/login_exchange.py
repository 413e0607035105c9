"""Gives a session its copy of the host's logins, and carries back what was renewed in it. All calls block.

Two servers on one data directory lose each other's refreshed tokens, so each session has a copy. What both
sides had when it was made is kept beside the session's data, where no agent writes.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from attrs import frozen

from opencode_actors import logins
from opencode_actors.agents_files import (
    give,
    made_directory,
    names,
    open_root,
    opened,
    read,
    replace,
)
from opencode_actors.containers import AUTH_FILE, SessionPlace

_log = logging.getLogger("opencode_actors")

_BASE = "logins.json"
# Who holds the host's directory only writes one file.
_LOCK_WITHIN = 2.0
_LOCK_AGAIN = 0.02


@frozen
class LoginExchange:
    auth_file: Path

    def renew(self, place: SessionPlace, owner: tuple[int, int]) -> None:
        """Before a container starts: the session gets what the host has, and keeps what it has renewed and
        the host could not take over. Where the host has no file any more, as after a logout, what it once
        gave goes too. Raises `OSError`."""
        if not self.auth_file.exists():
            self._take_back(place, owner)
            return
        with opened(open_root(place.data.parent)) as own, self._copies(place, owner) as copies:
            kept = self._carry(own, copies)
            text = self.auth_file.read_bytes()
            host = logins.parsed(text)
            replace(_BASE, own, text, None)
            copy = logins.written({**host, **kept}) if host is not None and kept else text
            replace(AUTH_FILE.name, copies, copy, owner)

    def _take_back(self, place: SessionPlace, owner: tuple[int, int]) -> None:
        with opened(open_root(place.data.parent)) as own, self._copies(place, owner) as copies:
            if _BASE in names(own):
                for name, folder in ((AUTH_FILE.name, copies), (_BASE, own)):
                    with suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=folder)

    def carry_back(self, place: SessionPlace) -> None:
        """While a container runs or after it. What cannot be done now is tried again the next time."""
        try:
            with opened(open_root(place.data.parent)) as own, self._copies(place, None) as copies:
                self._carry(own, copies)
        except OSError as error:
            _log.warning("logins renewed in session %s could not be looked at: %s", place.key, error)

    @contextmanager
    def _copies(self, place: SessionPlace, owner: tuple[int, int] | None) -> Generator[int]:
        with (
            opened(open_root(place.data)) as data,
            made_directory(str(AUTH_FILE.parent), data, owner or (0, 0)) as folder,
        ):
            yield folder

    def _carry(self, own: int, copies: int) -> dict[str, object]:
        """What the session has renewed and the host does not have, which is nothing when all went well."""
        base = logins.parsed(read(_BASE, own, at_most=logins.LARGEST_FILE))
        session = logins.parsed(read(AUTH_FILE.name, copies, at_most=logins.LARGEST_FILE))
        if base is None or session is None or base == session:
            return {}
        try:
            with _alone(self.auth_file.resolve().parent):
                text = self.auth_file.read_bytes()
                host = logins.parsed(text)
                if host is not None and (found := logins.renewed(base, host, session)):
                    self._write({**host, **found}, instead_of=text)
                    replace(_BASE, own, logins.written({**base, **found}), None)
        except OSError as error:
            _log.warning("%s does not get what a session has renewed: %s", self.auth_file, error)
            host = logins.parsed(self.auth_file.read_bytes())
            return logins.renewed(base, host, session) if host is not None else {}
        return {}

    def _write(self, table: logins.Logins, *, instead_of: bytes) -> None:
        real = self.auth_file.resolve()  # a user may keep it elsewhere, behind a link
        with opened(open_root(real.parent)) as folder:
            partial = f".{real.name}.opencode-actors"
            descriptor = os.open(
                partial,
                os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC,
                0o600,
                dir_fd=folder,
            )
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(logins.written(table))
                    file.flush()
                    os.fchmod(descriptor, 0o600)
                    before = real.stat()
                    give(descriptor, (before.st_uid, before.st_gid))
                    os.fsync(descriptor)
                # The host's own OpenCode knows no lock: what it wrote meanwhile is newer.
                _check_same(real, instead_of)
                os.rename(partial, real.name, src_dir_fd=folder, dst_dir_fd=folder)
            except OSError:
                os.unlink(partial, dir_fd=folder)
                raise


def _check_same(path: Path, expected: bytes) -> None:
    if path.read_bytes() != expected:
        raise OSError("it was written by somebody else at the same moment")


@contextmanager
def _alone(folder: Path) -> Generator[None]:
    """Of all sessions, of this process and of others. The kernel lets go of it when a process dies."""
    deadline = time.monotonic() + _LOCK_WITHIN
    with opened(open_root(folder)) as descriptor:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_LOCK_AGAIN)
        yield
