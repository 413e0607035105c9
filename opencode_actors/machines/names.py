"""What a session may be called, and what its directories and its container are called then."""

from __future__ import annotations

import base64
import hashlib
import re

from opencode_actors.errors import UsageError
from opencode_actors.machines.vocabulary import SessionKey

LONGEST_KEY = 64
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")
_UNSAFE = re.compile(r"[^a-z0-9]+")
# With its owner before it, a container's name stays within the 63 characters that a host name may have.
_READABLE = 20
_DIGEST_BYTES = 10  # 80 bits: somebody who may choose keys cannot find one that shares another's directory


def session_key(text: str) -> SessionKey:
    """Raises `UsageError` for what cannot be a session's key."""
    if len(text) > LONGEST_KEY:
        raise UsageError(
            f"a session key has at most {LONGEST_KEY} characters, and this one has {len(text)}",
            hint="choose a shorter key",
        )
    if not _KEY.fullmatch(text):
        raise UsageError(
            f"{text!r} cannot be a session key",
            hint="use letters, digits and . _ : - and begin with a letter or a digit",
        )
    return SessionKey(text)


def directory_name(key: SessionKey) -> str:
    """One name for one key, also where the file system does not tell `A` from `a`.

    The hash alone makes it unique; the readable part is for the person who looks.
    """
    readable = _UNSAFE.sub("-", key.lower()).strip("-")[:_READABLE].strip("-")
    digest = base64.b32encode(hashlib.sha256(key.encode()).digest()[:_DIGEST_BYTES]).decode().lower()
    return f"{readable}-{digest}" if readable else digest
