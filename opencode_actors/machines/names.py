"""What sessions and jobs may be called, and what a session's directories and its container are called then."""

from __future__ import annotations

import base64
import hashlib
import re
import unicodedata

from opencode_actors.errors import UsageError
from opencode_actors.machines.vocabulary import SessionKey

LONGEST_KEY = 64
LONGEST_NAME = 80
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")
_JOB_ID = re.compile(r"job_[0-9a-f]{16}")
_UNSAFE = re.compile(r"[^a-z0-9]+")
# What says little of a prompt is left out of the name that is made of it.
_LITTLE_WORDS = frozenset(
    """
    a all also am an and any are as at be been but by can could do does for from had has have how i if in
    into is it its let like make me must my need now of on one only or our out please run shall should so
    some that the their them then there these this those to up us use want was we what when where which who
    will with would you your
    """.split()  # noqa: SIM905 - a word to a line would be read by nobody
)
_WORDS_OF_A_NAME = 4
_LONGEST_MADE = 32
NAMELESS = "task"
# With its owner before it, a container's name stays within the 63 characters that a host name may have.
_READABLE = 20
_DIGEST_BYTES = 10  # 80 bits: somebody who may choose keys cannot find one that shares another's directory


def session_key(text: str) -> SessionKey:
    """Raises `UsageError` for what cannot be a session's key. An id always means the job that has it."""
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
    if is_job_id(text):
        raise UsageError(f"{text!r} looks like a job's id", hint="choose another key")
    return SessionKey(text)


def is_job_id(text: str) -> bool:
    return _JOB_ID.fullmatch(text) is not None


def job_name(text: str) -> str:
    """What people call a job. An id always means the job that has it, so no other may be called so. Raises
    `UsageError`."""
    if len(text) > LONGEST_NAME or text != text.strip() or not text or not text.isprintable():
        raise UsageError(
            f"{text[:LONGEST_NAME]!r} cannot be a job's name",
            hint=f"use one line of 1 to {LONGEST_NAME} characters",
        )
    if is_job_id(text):
        raise UsageError(f"{text!r} looks like a job's id", hint="choose another name")
    return text


def name_of(prompt: str) -> str:
    """A name of the key words in a prompt's first line that has any, which can be a session's key and a job's
    name: `fix-login-test`."""
    plain = unicodedata.normalize("NFKD", prompt[: 40 * _LONGEST_MADE]).encode("ascii", "ignore").decode()
    lines = (_UNSAFE.sub(" ", line).split() for line in plain.lower().splitlines())
    named = ([word for word in words if word not in _LITTLE_WORDS] for words in lines)
    name = ""
    for word in next((words for words in named if words), list[str]())[:_WORDS_OF_A_NAME]:
        longer = f"{name}-{word}" if name else word[:_LONGEST_MADE]
        if len(longer) > _LONGEST_MADE:
            break
        name = longer
    return NAMELESS if not name or is_job_id(name) else name


def numbered(name: str, number: int) -> str:
    """The one after others of that name; the first has no number."""
    return name if number == 1 else f"{name}-{number}"


def directory_name(key: SessionKey) -> str:
    """One name for one key, also where the file system does not tell `A` from `a`.

    The hash alone makes it unique; the readable part is for the person who looks.
    """
    readable = _UNSAFE.sub("-", key.lower()).strip("-")[:_READABLE].strip("-")
    digest = base64.b32encode(hashlib.sha256(key.encode()).digest()[:_DIGEST_BYTES]).decode().lower()
    return f"{readable}-{digest}" if readable else digest
