"""One process for one state directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from attrs import define, field

from opencode_actors.errors import StoreError


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


@define(eq=False)
class DirectoryLock:
    """Held from `acquire` to `release`; the kernel lets go of it when the process dies, however it does.

    `same_boot` is whether the one who held it before did so since this machine was started: nothing that it
    has written can be lost then. `boot` is this machine's run, "" where that cannot be known, as outside Linux.
    """

    path: Path
    boot: str = field(factory=_boot, init=False)
    same_boot: bool = field(default=False, init=False)
    _descriptor: int = field(default=-1, init=False)

    @property
    def held(self) -> bool:
        return self._descriptor >= 0

    def acquire(self) -> None:
        """Raises `StoreError` when another one has it, `OSError` when there can be no lock here."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _, before = _read(descriptor)
            self.same_boot = bool(self.boot) and before == self.boot
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n{self.boot}\n".encode(), 0)
        except BlockingIOError:
            holder, _ = _read(descriptor)
            os.close(descriptor)
            raise StoreError(
                f"{self.path.parent} is in use by another opencode-actors"
                + (f" (process {holder})" if holder else ""),
                hint="wait for it, end it, or choose another sessionsDir",
            ) from None
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def release(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _read(descriptor: int) -> tuple[str, str]:
    """The process that has it or had it last, and in which boot."""
    process, _, rest = os.pread(descriptor, 128, 0).decode(errors="replace").partition("\n")
    return process.strip(), rest.strip()
