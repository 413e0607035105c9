"""One process for one state directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from attrs import define, field

from opencode_actors.errors import StoreError


@define(eq=False)
class DirectoryLock:
    """Held from `acquire` to `release`; the kernel lets go of it when the process dies, however it does."""

    path: Path
    _descriptor: int = field(default=-1, init=False)

    @property
    def held(self) -> bool:
        return self._descriptor >= 0

    def acquire(self) -> None:
        """Raises `StoreError` when another one has it, `OSError` when there can be no lock here."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
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
