"""What a process takes and holds, as the kernel says."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import trio

_PAGE = os.sysconf("SC_PAGE_SIZE")


def resident(pid: int) -> int:
    """Bytes of memory that it takes now. Raises `OSError` when it is gone."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE


def open_files(pid: int) -> tuple[str, ...]:
    """What its file descriptors stand for. Raises `OSError` when it is gone."""
    found: list[str] = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # closed while we looked
            found.append(str(entry.readlink()))
    return tuple(sorted(found))


def living(marker: str) -> tuple[str, ...]:
    """The command lines with `marker` in them, of all processes of this host but this one."""
    return tuple(line for _, line in _found(marker))


def end_monitors(marker: str) -> None:
    """Podman's of containers that it was just starting when it was killed: it knows nothing of them, and nobody else ends
    them. Each has a process that was never let begin."""
    for pid, line in _found(marker):
        if Path(line.split()[0]).name != "conmon":
            continue
        with suppress(OSError):
            waiting = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
            for one in (*map(int, waiting), pid):
                os.kill(one, signal.SIGKILL)


def _found(marker: str) -> Iterator[tuple[int, str]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):  # it ended while we looked
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                if marker in line:
                    yield int(entry.name), line


def kinds_of_files(names: Iterable[str]) -> Counter[str]:
    """Sockets and pipes have numbers of their own each time; the folder that was looked into is not one."""
    return Counter(name.partition(":[")[0] for name in names if not name.startswith("/proc/"))


def held() -> tuple[int, Counter[str]]:
    """The tasks of this run of trio, and the open files of this process."""
    tasks = trio.lowlevel.current_statistics().tasks_living
    return tasks, kinds_of_files(open_files(os.getpid()))
