"""The two files by which a client finds the door: `door.json` says where it is, `door.token` opens it."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import cast

from attrs import frozen

from opencode_actors.errors import StoreError

PROTOCOL = 1
_TOKEN_BYTES = 32
_SHORTEST_TOKEN = 16


@frozen(kw_only=True)
class Whereabouts:
    """`certificate` is what a TLS client has to trust; None without TLS. Times are epoch seconds."""

    url: str
    token_file: Path
    pid: int
    version: str
    started_at: float
    certificate: Path | None = None


def door_file(sessions_dir: Path) -> Path:
    return sessions_dir / "door.json"


def token_file(sessions_dir: Path) -> Path:
    return sessions_dir / "door.token"


def keep_token(path: Path) -> str:
    """The token of this directory, made at the first start. Raises `StoreError`."""
    try:
        return read_token(path)
    except FileNotFoundError:
        token = secrets.token_urlsafe(_TOKEN_BYTES)
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        _write(path, token + "\n")
    except OSError as error:
        raise _unusable(path, error) from error
    return token


def read_token(path: Path) -> str:
    """Raises `OSError`, and `StoreError` for what cannot be one."""
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise StoreError(
            f"{path} can be read by others (mode {mode:o}), and whoever has it controls the agents",
            hint=f"remove it (a new one is made at the next start), or `chmod 600 {path}`",
        )
    token = path.read_text(encoding="ascii", errors="replace").strip()
    if len(token) < _SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise StoreError(
            f"{path} has no usable token: one word of {_SHORTEST_TOKEN} characters of plain ASCII or more",
            hint="remove it; a new one is made at the next start",
        )
    return token


def announce(path: Path, where: Whereabouts) -> None:
    """Written as a whole, so that nobody reads half of it. Raises `StoreError`."""
    document: dict[str, object] = {
        "url": where.url,
        "tokenFile": str(where.token_file),
        "pid": where.pid,
        "version": where.version,
        "protocol": PROTOCOL,
        "startedAt": where.started_at,
    }
    if where.certificate is not None:
        document["certificate"] = str(where.certificate)
    try:
        _write(path, json.dumps(document, indent=2) + "\n")
    except OSError as error:
        raise _unusable(path, error) from error


def withdraw(path: Path, pid: int) -> None:
    """At a clean end; what another process has written since is left alone."""
    with suppress(OSError, StoreError):
        where = find_door(path)
        if where is not None and where.pid == pid:
            path.unlink()


def find_door(path: Path) -> Whereabouts | None:
    """None when no service has announced itself here. Raises `StoreError`."""
    try:
        document: object = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _unusable(path, error) from error
    given = cast("dict[str, object]", document) if isinstance(document, dict) else {}
    url, token, pid = given.get("url"), given.get("tokenFile"), given.get("pid")
    if not isinstance(url, str) or not isinstance(token, str) or not isinstance(pid, int):
        raise _unusable(path, ValueError("it is not what a service writes"))
    started_at, certificate = given.get("startedAt"), given.get("certificate")
    return Whereabouts(
        url=url,
        token_file=Path(token),
        pid=pid,
        version=str(given.get("version", "")),
        started_at=float(started_at) if isinstance(started_at, int | float) else 0.0,
        certificate=Path(certificate) if isinstance(certificate, str) else None,
    )


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise


def _unusable(path: Path, error: Exception) -> StoreError:
    return StoreError(
        f"{path} cannot be used: {error}", hint="check its permissions and its disk, or remove it"
    )
