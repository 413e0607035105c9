"""Which addresses a server that somebody else runs may have, and what is said of one that is accepted."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from opencode_actors.errors import UsageError

LONGEST = 2048
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
# HTTP Basic ends a user's name with a colon.
_USER = re.compile(r"[!-9;-~]{1,128}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
# Whoever may attach, an agent among them, says which of the service's secrets goes to which address.
_WHY = ", so that nobody is talked into sending another secret there"
_EXAMPLE = "write it as https://HOST:PORT, for example http://127.0.0.1:4096"


def server_address(text: str) -> str:
    """Raises `UsageError`; what is wrong may have a password in it, so it is never repeated whole."""
    if len(text) > LONGEST or not text.isprintable() or " " in text or not text.isascii():
        raise UsageError("the server's address is not a URL", hint=_EXAMPLE)
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        raise UsageError(
            "the server's address has no valid host and port", hint="a port is a number from 1 to 65535"
        ) from None
    if "@" in url.netloc:
        raise UsageError(
            "a user or password does not belong into the server's address",
            hint="give the name as user, and put the password into a file (password_file) or an environment "
            "variable (password_env)",
        )
    if url.scheme not in ("http", "https"):
        raise UsageError("the server's address does not begin with http:// or https://", hint=_EXAMPLE)
    if url.query or url.fragment:
        raise UsageError("the server's address has a query or a fragment", hint=_EXAMPLE)
    if port == 0:
        raise UsageError("port 0 is none that a server answers on", hint=_EXAMPLE)
    if not _is_host(url.hostname or ""):
        raise UsageError("the server's address names no host", hint=_EXAMPLE)
    return f"{url.scheme}://{url.netloc.lower()}{url.path.rstrip('/')}"


def _is_host(name: str) -> bool:
    return bool(_HOST.fullmatch(name)) or _address(name) is not None


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def travels_openly(url: str) -> bool:
    """Whether all that is said to it, its password included, can be read on the way."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    address = _address(host)
    here = host == "localhost" or (address is not None and address.is_loopback)
    return parts.scheme == "http" and not here


def user_name(text: str) -> str:
    """Raises `UsageError`: somebody may have given the password too, so it is not repeated."""
    if not _USER.fullmatch(text):
        raise UsageError(
            "user is no name that a server may have",
            hint="1 to 128 ASCII characters without spaces and `:`; the password is given by password_file or "
            "password_env",
        )
    return text


def variable_name(text: str) -> str:
    """Raises `UsageError`: somebody may have given the password itself, which is not repeated."""
    if not _VARIABLE.fullmatch(text):
        raise UsageError(
            "password_env is not the name of an environment variable",
            hint="give the variable's name, not the password: letters, digits and _",
        )
    if "PASSWORD" not in text.upper():
        raise UsageError(
            f"{text} is not named as a password is",
            hint="the variable's name must have PASSWORD in it" + _WHY,
        )
    return text


def password_path(text: str) -> str:
    """Raises `UsageError`."""
    name = text.rpartition("/")[2]
    if not (text.startswith("/") and text.isprintable()):
        raise UsageError("password_file is not an absolute path", hint="begin it with /")
    if "password" not in name.lower():
        raise UsageError(
            f"{name} is not named as a password's file is",
            hint="the file's name must have `password` in it" + _WHY,
        )
    return text
