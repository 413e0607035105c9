"""Which of a session's logins go back to the host. Pure: three versions of one `auth.json` in, one out.

OpenCode's server renews an OAuth login in the session's own copy, and with most providers the token before
it is void from then on. `base` is what both sides had when the copy was made. Only a renewal goes back: a
login that was there, that the host has not touched since, and of which nothing but the tokens and their
time has changed. The copy lies where the agent can write, so nothing else in it is believed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import cast

# Of a whole file and of one token: the largest known are a few KiB.
LARGEST_FILE = 1 << 20
_LONGEST_TOKEN = 32 << 10
_LATEST = 2.0**53  # milliseconds; what JavaScript counts to

Logins = Mapping[str, object]


def parsed(text: bytes | None) -> Logins | None:
    """None for what is no object of JSON: half-written, or never meant to be one."""
    if text is None:
        return None
    try:
        table: object = json.loads(text, parse_constant=_refused)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, object]", table) if isinstance(table, dict) else None


def written(logins: Logins) -> bytes:
    return json.dumps(logins, indent=2, ensure_ascii=False).encode()


def renewed(base: Logins, host: Logins, session: Logins) -> dict[str, object]:
    """The logins, by provider, that the host should take over from the session."""
    return {
        name: session[name]
        for name, before in base.items()
        if name in session
        and name in host
        and host[name] == before
        and session[name] != before
        and _is_renewal(before, session[name])
    }


def _is_renewal(before: object, after: object) -> bool:
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return False
    old, new = cast("dict[str, object]", before), cast("dict[str, object]", after)
    if old.get("type") != "oauth" or old.keys() != new.keys():
        return False
    kept = old.keys() - {"access", "refresh", "expires"}
    return (
        all(old[key] == new[key] for key in kept)
        and _is_token(new.get("access"))
        and _is_token(new.get("refresh"))
        and _is_later(old.get("expires"), new.get("expires"))
    )


def _is_token(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_TOKEN and value.isprintable()


def _is_later(before: object, after: object) -> bool:
    """A renewal lasts longer than what it renews."""
    if isinstance(before, bool) or isinstance(after, bool):
        return False
    if not (isinstance(before, int | float) and isinstance(after, int | float)):
        return False
    return before < after <= _LATEST and math.isfinite(after)


def _refused(constant: str) -> object:
    raise ValueError(f"{constant} is not JSON")
