"""Was it memory? The kernel's own count of processes killed in one container, watched without polling.

Podman on cgroup v1 never says that a container died for want of memory, and Docker says so also when
only a tool of long ago was killed. The kernel counts kills in the container's cgroup; the count must be
read in the moment of death, because the cgroup is removed 10-100 ms later. A kill that is older than
`RECENT` when the container dies was a tool's: it is not what ended the container.

The kernel tells of kills through an eventfd (v1) or inotify (v2).
"""

from __future__ import annotations

import ctypes
import os
import struct
from contextlib import suppress
from pathlib import Path

import trio
from attrs import define, field

from opencode_actors.adapters.cgroup import Cgroups, entry_of, oom_counter
from opencode_actors.ports import ContainerId

# From the kill of the server to the end of its init takes milliseconds; the rest is a busy machine.
RECENT = 2.0
_IN_MODIFY = 0x2


@define
class OomWatch:
    """Use: open, run `follow` beside the wait for death, ask `verdict` at once when it came, close."""

    _counter: int  # descriptor of the counter's file
    _wakes: int | None  # descriptor of the eventfd or inotify
    _unified: bool
    recent: float = RECENT
    _settled: int = field(default=0, init=False)  # kills that ended tools, not the container
    _signals: int = field(default=0, init=False)
    _latest: int = field(default=0, init=False)  # kills when the counter was last read

    def __attrs_post_init__(self) -> None:
        # After the eventfd was set up: a kill before that has sent no signal, and is in the count.
        self._latest = self._read() or 0

    async def follow(self) -> None:
        """Sorts kills into old and recent, for as long as it runs."""
        while True:
            await trio.sleep(self.recent)
            count = self._read()
            if count is None:
                return
            self._settled, self._latest, self._signals = count, count, 0
            if self._wakes is not None:  # a kernel that does not tell is asked every `recent` seconds
                await trio.lowlevel.wait_readable(self._wakes)
                self._signals += self._drain()

    def verdict(self) -> bool | None:
        """Whether a kill of the last moments ended the container; None when nobody can tell any more."""
        count = self._read()
        if count is not None or self._latest > self._settled:
            return max(count or 0, self._latest) > self._settled
        self._signals += self._drain()
        if self._unified or self._wakes is None:
            return None
        # Removing a v1 cgroup is one more signal on its eventfd.
        if self._signals >= 2:
            return True
        # Where no kill was seen before, an engine that knows of one means one of the last moments.
        return False if self._settled else None

    def close(self) -> None:
        os.close(self._counter)
        if self._wakes is not None:
            os.close(self._wakes)

    def _read(self) -> int | None:
        try:
            return entry_of(os.pread(self._counter, 4096, 0).decode(), "oom_kill")
        except OSError:  # ENODEV: the cgroup was removed
            return None

    def _drain(self) -> int:
        if self._wakes is None:
            return 0
        with suppress(BlockingIOError):
            data = os.read(self._wakes, 4096)
            return 1 if self._unified else int(struct.unpack("Q", data)[0])
        return 0


def open_oom_watch(cgroups: Cgroups, pid: int, container: ContainerId) -> OomWatch | None:
    """None when the container has no cgroup of its own, or is gone."""
    try:
        memory = cgroups.own_folder(pid, container, "memory")
        if memory is None:
            return None
        path = oom_counter(memory)
        counter = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    wakes = _inotify(path) if memory.unified else _eventfd(memory.path, counter)
    return OomWatch(counter, wakes, memory.unified)


def _eventfd(folder: Path, counter: int) -> int | None:
    try:
        wakes = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    except OSError:
        return None
    try:
        (folder / "cgroup.event_control").write_text(f"{wakes} {counter}")
    except OSError:
        os.close(wakes)
        return None
    return wakes


def _inotify(path: Path) -> int | None:
    """The standard library has no inotify; two calls of libc are all of it."""
    libc = ctypes.CDLL(None, use_errno=True)
    wakes: int = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    if wakes < 0:
        return None
    if libc.inotify_add_watch(wakes, os.fsencode(path), _IN_MODIFY) < 0:
        os.close(wakes)
        return None
    return wakes
