"""One append-only file for each job's output."""

from __future__ import annotations

import os
from pathlib import Path

from attrs import define

from opencode_actors.machines.vocabulary import JobId
from opencode_actors.store.port import OutputSlice

_LONGEST_CHARACTER = 4


@define(eq=False)
class OutputFiles:
    """All calls block; the journal's writer and readers call from a thread."""

    folder: Path

    def append(self, job: JobId, text: str) -> None:
        descriptor = os.open(self._path(job), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            left = memoryview(text.encode(errors="replace"))
            while left:
                left = left[os.write(descriptor, left) :]
        finally:
            os.close(descriptor)

    def read(self, job: JobId, offset: int, limit: int) -> OutputSlice:
        try:
            descriptor = os.open(self._path(job), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return OutputSlice(text="", next_offset=offset, more=False)
        try:
            size = os.fstat(descriptor).st_size
            data = os.pread(descriptor, max(limit, _LONGEST_CHARACTER), offset)
        finally:
            os.close(descriptor)
        whole = whole_characters(data[:limit]) or whole_characters(data)
        end = offset + len(whole)
        return OutputSlice(text=whole.decode(errors="replace"), next_offset=end, more=end < size)

    def _path(self, job: JobId) -> Path:
        return self.folder / f"{job}.txt"


def whole_characters(data: bytes) -> bytes:
    """`data` without the beginning of a character at its end."""
    for back in range(1, min(_LONGEST_CHARACTER, len(data)) + 1):
        byte = data[-back]
        if byte < 0x80:  # ASCII: nothing is open
            return data
        if byte >= 0xC0:  # the first byte of a character of `needed` bytes
            needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return data if back >= needed else data[:-back]
    return data
