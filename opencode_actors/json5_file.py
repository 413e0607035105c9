"""Reads somebody else's small JSON5 (or JSON, or JSONC) file, and says what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from opencode_actors.errors import SettingsError

# Such files are a few KB, and JSON5 is read at about 100 KB/s: a bigger one is somebody's mistake.
LARGEST_FILE = 4 << 20


def read_object(path: Path) -> dict[str, Any] | None:
    """None when there is no such file; `SettingsError` when it is there and does not hold an object."""
    text = _text_of(path)
    return None if text is None else parsed(text, path)


def _text_of(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _broken(path, f"cannot be read: {error.strerror}") from None
    if len(content) > LARGEST_FILE:
        raise _broken(path, f"is larger than {LARGEST_FILE >> 20} MiB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _broken(path, f"is not UTF-8 text (byte {error.start})") from None


def loads(text: str) -> object:
    """Raises `ValueError`."""
    import json5  # its grammar takes long to load, and few files need it

    return json5.loads(text)


def parsed(text: str, path: Path) -> dict[str, Any]:
    """What was read from `path`. Raises `SettingsError`."""
    try:
        # Most such files are plain JSON, which the standard library reads far faster than JSON5.
        document = json.loads(text)
    except (ValueError, RecursionError):
        try:
            document = loads(text)
        except ValueError as error:
            where = str(error).removeprefix("<string>:")
            raise _broken(path, f"is not JSON5: line {where}") from None
        except RecursionError:
            raise _broken(path, "is nested too deeply") from None
    if not isinstance(document, dict):
        raise _broken(path, "does not hold an object")
    return cast(dict[str, Any], document)


def _broken(path: Path, what: str) -> SettingsError:
    return SettingsError(path.name, f"{path} {what}", hint="repair the file")
