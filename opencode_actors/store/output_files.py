"""One append-only file for each job's output."""

from __future__ import annotations

import os
from pathlib import Path

from attrs import define

from opencode_actors.machines.vocabulary import JobId
from opencode_actors.store.port import OutputSlice

_LONGEST_CHARACTER = 4
_SUFFIX = ".txt"


@define(eq=False)
class OutputFiles:
    """All calls block; the journal's writer and readers call from a thread."""

    folder: Path

    def append(self, job: JobId, text: bytes) -> None:
        """All of it, or nothing: what a full disk has cut off is taken back."""
        descriptor = os.open(self._path(job), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            before = os.fstat(descriptor).st_size
            try:
                left = memoryview(text)
                while left:
                    left = left[os.write(descriptor, left) :]
            except OSError:
                os.ftruncate(descriptor, before)
                raise
        finally:
            os.close(descriptor)

    def take_back(self, job: JobId, upto: int) -> bytes:
        """What there is up to there, without the beginning of a character at its end. The rest goes."""
        try:
            descriptor = os.open(self._path(job), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return b""
        try:
            kept = bytearray()
            while chunk := os.pread(descriptor, upto - len(kept), len(kept)):
                kept += chunk
            whole = whole_characters(bytes(kept))
            os.ftruncate(descriptor, len(whole))
        finally:
            os.close(descriptor)
        return whole

    def make_durable(self, job: JobId) -> int:
        """What is appended so far outlives a power failure. Returns how many bytes that are."""
        try:
            descriptor = os.open(self._path(job), os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return 0
        try:
            os.fsync(descriptor)
            return os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)

    def read(self, job: JobId, offset: int, limit: int) -> OutputSlice:
        try:
            descriptor = os.open(self._path(job), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return OutputSlice(text="", next_offset=offset, more=False)
        try:
            size = os.fstat(descriptor).st_size
            wanted = min(max(limit, _LONGEST_CHARACTER), size - offset)
            data = os.pread(descriptor, wanted, offset) if wanted > 0 else b""
        finally:
            os.close(descriptor)
        return output_slice(data, offset=offset, limit=limit, size=size)

    def piece(self, job: JobId, offset: int, length: int) -> str:
        """So many bytes from there; less when there is less."""
        try:
            descriptor = os.open(self._path(job), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return ""
        try:
            return os.pread(descriptor, length, offset).decode(errors="replace")
        finally:
            os.close(descriptor)

    def remove(self, job: JobId) -> None:
        self._path(job).unlink(missing_ok=True)

    def make_removals_durable(self) -> None:
        """What is removed so far does not come back after a power failure."""
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _path(self, job: JobId) -> Path:
        return self.folder / f"{job}{_SUFFIX}"


def output_slice(data: bytes, *, offset: int, limit: int, size: int) -> OutputSlice:
    """Of `data`, which begins at `offset` of an output of `size` bytes, what an answer may have.

    A character that is not wholly there yet is not there: `more` is then False, or whoever reads until
    there is no more would read for ever.
    """
    whole = whole_characters(data[:limit]) or _first_character(data)
    rest_is_there = offset + len(data) < size or bool(_first_character(data[len(whole) :]))
    return OutputSlice(
        text=whole.decode(errors="replace"),
        next_offset=offset + len(whole),
        more=bool(whole) and rest_is_there,
    )


def whole_characters(data: bytes) -> bytes:
    """`data` without the beginning of a character at its end."""
    for back in range(1, min(_LONGEST_CHARACTER, len(data)) + 1):
        byte = data[-back]
        if byte < 0x80:  # ASCII: nothing is open
            return data
        if byte >= 0xC0:  # the first byte of a character
            return data if back >= _length(byte) else data[:-back]
    return data


def _first_character(data: bytes) -> bytes:
    return whole_characters(data[: _length(data[0])]) if data else b""


def _length(first: int) -> int:
    if first < 0xC0:
        return 1
    return 2 if first < 0xE0 else 3 if first < 0xF0 else 4
