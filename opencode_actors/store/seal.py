"""That the journal's file is as this program left it: it need not be read from end to end again then.

A full examination takes 3.3 ms for each thousand jobs that there ever were. What it looks for comes of somebody
or something else that writes to the file, and whoever does leaves a trace: another file in its place, or other
times. So what the file looks like is kept beside it, after each time that SQLite has written to it. Between
those times nothing writes there: SQLite's own changes stand in the log, which has sums of its own.

Everything here blocks. A seal that cannot be written costs the next start its examination, and nothing else.
"""

from __future__ import annotations

import os
import secrets
import time
from contextlib import suppress
from pathlib import Path

from attrs import define, field, frozen

# While the journal is open its seal holds until the machine ends: a power failure may take back what the
# kernel has not written yet. Closed in good order all of it is on the disk.
_CLOSED = "closed"


@frozen
class _Looks:
    """`modified` is a time of our own making, which no clock says: a write in the same tick of the kernel's
    clock (4 ms) as ours would leave its own time, and be seen."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, path: Path) -> _Looks:
        found = path.stat()
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


@define(eq=False)
class Seal:
    """Beside the journal's file at `path`, in the machine's run `boot` ("" where it has no name)."""

    path: Path
    boot: str
    _looks: _Looks | None = field(default=None, init=False)
    _broken: bool = field(default=False, init=False)

    @property
    def _file(self) -> Path:
        return self.path.with_name(f"{self.path.name}-seal")

    def holds(self) -> bool:
        """Whether nobody else has written to the file since it was sealed."""
        try:
            when, *looks = self._file.read_text(encoding="ascii").split()
            return when in {_CLOSED, self.boot} and _Looks(*map(int, looks)) == _Looks.of(self.path)
        except (OSError, ValueError, TypeError):
            return False

    def begin(self) -> None:
        """The file was found whole and is open now."""
        self._set(self.boot)

    def check(self) -> None:
        """Before SQLite writes: what others have written must not be sealed as ours."""
        if self._looks is not None and not self._is_as_it_was():
            self.break_()

    def renew(self) -> None:
        """SQLite has written, perhaps to the file."""
        if self._looks is not None and not self._is_as_it_was():
            self._set(self.boot)

    def close(self) -> None:
        """SQLite has closed the file, and has left nothing in its log unless somebody else still reads there."""
        if self._looks is not None:
            log = self.path.with_name(f"{self.path.name}-wal")
            self._set(self.boot if log.exists() else _CLOSED)

    def break_(self) -> None:
        """For good: the next one has to examine all of it."""
        self._broken, self._looks = True, None
        with suppress(OSError):
            self._file.unlink(missing_ok=True)

    def _is_as_it_was(self) -> bool:
        with suppress(OSError):
            return _Looks.of(self.path) == self._looks
        return False

    def _set(self, when: str) -> None:
        if not when or self._broken:
            return
        try:
            self._write(when)
        except OSError:
            self._broken = True
        if self._broken:  # or by a reader, meanwhile
            self.break_()

    def _write(self, when: str) -> None:
        now = time.time_ns()
        os.utime(self.path, ns=(now, now - secrets.randbelow(1_000_000_000)))
        self._looks = looks = _Looks.of(self.path)
        numbers = (looks.device, looks.inode, looks.size, looks.modified, looks.changed)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with os.fdopen(os.open(self._file, flags, 0o600), "w", encoding="ascii") as file:
            file.write(f"{when} {' '.join(map(str, numbers))}\n")
