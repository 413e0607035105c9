"""Server-sent events, sans I/O: bytes in, the data of whole events out.

Only `data` is kept, because it is all that OpenCode sends: no `event`, `id` or `retry` line. Lines end
at LF, CRLF or CR and nowhere else. Libraries that split decoded text also split at U+2028 or U+0085,
which JSON leaves bare inside strings; on bytes neither that nor a character cut in two can happen.
"""

from __future__ import annotations

from attrs import define, field

LARGEST_EVENT = 64 << 20  # one event carries a whole text part, and 32 MiB of text have been seen


class EventTooLarge(Exception):
    """An event that would not end; nothing more can be read from its stream."""


@define
class EventParser:
    """One stream. After `EventTooLarge` it is of no more use."""

    largest: int = LARGEST_EVENT
    _line: bytearray = field(factory=bytearray)  # the beginning of a line whose end is not here yet
    _data: list[bytes] = field(factory=list[bytes])
    _size: int = 0  # of `_data`
    _after_cr: bool = False  # a LF now would belong to the CR that ended the last line

    def feed(self, received: bytes) -> list[bytes]:
        """The data of each event that `received` completes, in order."""
        if self._after_cr and received:
            received = received.removeprefix(b"\n")
            self._after_cr = False
        if b"\r" in received:
            self._after_cr = received.endswith(b"\r")
            received = received.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = received.split(b"\n")
        events: list[bytes] = []
        for line in lines:
            if self._line:
                self._line += line
                line, self._line = bytes(self._line), bytearray()  # noqa: PLW2901 - the whole line
            self._take(line, events)
        self._line += rest
        if self._size + len(self._line) > self.largest:
            raise EventTooLarge(f"an event of more than {self.largest} bytes")
        return events

    def _take(self, line: bytes, events: list[bytes]) -> None:
        if not line:
            if self._data:
                events.append(b"\n".join(self._data))
                self._data, self._size = [], 0
        elif line == b"data":
            self._data.append(b"")
        elif line.startswith(b"data:"):
            data = line[6:] if line.startswith(b"data: ") else line[5:]
            self._data.append(data)
            self._size += len(data)
