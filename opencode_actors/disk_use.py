"""How much a session's OpenCode data takes, and what of it can go. All calls block."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress

from opencode_actors.agents_files import entries, open_directory, opened

# OpenCode's own directories are far below both. An agent that goes beyond them is not counted further: it
# could as well fill its workspace, which has no bound.
_DEEPEST = 32
_MOST_FILES = 200_000

# What OpenCode keeps for itself alone: a long output of a tool, of which the conversation has the
# beginning, and its log.
_SPARE = ("tool-output", "log")
_BLOCK = 512


def size_of(folder: int) -> int:
    """What is in it takes on the disk, in bytes: a file with several names once."""
    size, named = 0, set[tuple[int, int]]()
    for found in _below(folder, _DEEPEST, [_MOST_FILES]):
        if found.st_nlink > 1 and stat.S_ISREG(found.st_mode):
            if (found.st_dev, found.st_ino) in named:
                continue
            named.add((found.st_dev, found.st_ino))
        size += found.st_blocks * _BLOCK
    return size


def _below(folder: int, deepest: int, left: list[int]) -> Iterator[os.stat_result]:
    for name, found in entries(folder):
        left[0] -= 1
        if left[0] < 0:
            return
        yield found
        if stat.S_ISDIR(found.st_mode) and deepest > 0:
            with suppress(OSError), opened(open_directory(name, folder)) as below:
                yield from _below(below, deepest - 1, left)


def prune(data: int, *, bound: int) -> int:
    """Removes what can go, oldest first, until the rest is within `bound`; how much the rest takes."""
    size = size_of(data)
    if size <= bound:
        return size
    with suppress(OSError), opened(open_directory("opencode", data)) as own:
        for name in _SPARE:
            with suppress(OSError), opened(open_directory(name, own)) as folder:
                size = _prune_folder(folder, size, bound, keep=1 if name == "log" else 0)
            if size <= bound:
                break
    return size


def _prune_folder(folder: int, size: int, bound: int, *, keep: int) -> int:
    """All but the `keep` newest: a log that is still written would go on unseen."""
    files = [(found.st_mtime, name, found) for name, found in entries(folder) if stat.S_ISREG(found.st_mode)]
    files.sort(key=lambda file: file[:2])
    for _, name, found in files[: len(files) - keep]:
        if size <= bound:
            break
        os.unlink(name, dir_fd=folder)
        size -= found.st_blocks * _BLOCK
    return size
