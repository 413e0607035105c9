"""The service's log on stderr: a line for each thing, and never in the way of what it tells of.

It is written by a thread of its own. Whoever reads it may be slow, or stop reading: then lines are left
out, and how many is said once there is room again. A bug's details go into a file, its summary into the log.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import queue
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TextIO

from opencode_actors.cli.bug import keep_details

_LINES = 1_000
_LAST_LINES_WITHIN = 1.0


@contextmanager
def log_to_stderr(*, as_json: bool) -> Generator[None]:
    """What the package logs, and the warnings of what it uses."""
    lines: queue.Queue[logging.LogRecord | None] = queue.Queue(_LINES)
    out = _Stderr(sys.stderr)
    # The journal has its own clock.
    with_time = not os.environ.get("JOURNAL_STREAM")
    out.setFormatter(JsonLines() if as_json else PlainLines(with_time=with_time))
    handler = _Unhurried(lines)
    root, own = logging.getLogger(), logging.getLogger("opencode_actors")
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    own.setLevel(logging.INFO)
    writer = threading.Thread(target=_write, args=(lines, out), name="log", daemon=True)
    writer.start()
    try:
        yield
    finally:
        root.removeHandler(handler)
        # A reader who has stopped reading does not keep the process: the thread is a daemon.
        with suppress(queue.Full):
            lines.put(None, timeout=_LAST_LINES_WITHIN)
        writer.join(_LAST_LINES_WITHIN)


def _write(lines: queue.Queue[logging.LogRecord | None], out: logging.Handler) -> None:
    while (record := lines.get()) is not None:
        out.handle(record)


class _Stderr(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """There is nowhere to complain of a log that cannot be written."""


class _Unhurried(logging.handlers.QueueHandler):
    """Does not wait, and counts what it leaves out."""

    def __init__(self, lines: queue.Queue[logging.LogRecord | None]) -> None:
        super().__init__(lines)
        self._lines = lines
        self._left_out = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        if record.exc_info is not None and record.exc_info[1] is not None:
            where = keep_details(record.exc_info[1])
            record.msg = f"{record.getMessage()}: {record.exc_info[1]!r}; details in {where}"
        else:
            record.msg = record.getMessage()
        record.args = record.exc_info = record.exc_text = record.stack_info = None
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        if self._left_out:
            record.msg = f"({self._left_out} lines left out) {record.msg}"
        try:
            self._lines.put_nowait(record)
        except queue.Full:
            self._left_out += 1
        else:
            self._left_out = 0


class PlainLines(logging.Formatter):
    def __init__(self, *, with_time: bool) -> None:
        super().__init__()
        self._with_time = with_time

    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        time = f"{datetime.fromtimestamp(record.created).astimezone():%H:%M:%S} " if self._with_time else ""
        return f"{time}{level}{record.msg}"


class JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        return json.dumps({"at": at, "level": record.levelname.lower(), "message": record.msg})
