"""An error that nobody expected: one line for the user, and the details in a file for whoever mends it."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import NoReturn, cast

from opencode_actors.cli.status import Status


def report_bugs() -> None:
    """From now on an exception that nobody catches is reported like this."""
    sys.excepthook = _report


def _report(_: type[BaseException], error: BaseException, trace: TracebackType | None) -> NoReturn:
    where = keep_details(error.with_traceback(trace))
    first = _first_leaf(error)
    summary = f"{type(first).__name__}: {first}".splitlines()[0]
    sys.stderr.write(f"error: a mistake in opencode-actors itself: {summary}\n")
    if where is None:
        sys.stderr.write(_details(error))
    else:
        sys.stderr.write(f"hint: please report it, with the details in {where}\n")
    sys.stderr.flush()
    # A plain exit would report 1, which means that a job failed.
    raise SystemExit(Status.BUG)


def keep_details(error: BaseException) -> Path | None:
    """Where they are now; None where nothing can be written."""
    return _write(_details(error))


def _details(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def _first_leaf(error: BaseException) -> BaseException:
    if isinstance(error, BaseExceptionGroup):
        group = cast(BaseExceptionGroup[BaseException], error)
        return _first_leaf(group.exceptions[0])
    return error


def _write(details: str) -> Path | None:
    """The arguments are left out on purpose: they hold the prompt."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser())
    header = f"{datetime.now(UTC).isoformat()} Python {sys.version.split()[0]}\n"
    for folder in (state / "opencode-actors", Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor, name = tempfile.mkstemp(prefix="crash-", suffix=".txt", dir=folder)
            with open(descriptor, "w", encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - a descriptor
                file.write(header + details)
        except OSError:
            continue
        return Path(name)
    return None
