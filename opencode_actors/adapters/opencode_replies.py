"""What the server's answers mean, apart from their shape: refusals, and web pages in place of answers."""

from __future__ import annotations

import json

from opencode_actors.adapters.opencode_decode import LONGEST_ERROR, one_line
from opencode_actors.errors import ServerRefused, ServerUnintelligible


def refused(status: int, body: bytes, *, what: str) -> ServerRefused:
    """The error for an answer of 400 or more."""
    if status == 401:
        return ServerRefused(
            f"{what}: OpenCode's server refused the password",
            status=status,
            hint="The container was started with another password. Close the session; its next job starts a new one.",
        )
    reason = _reason(body) or "no reason given"
    return ServerRefused(f"{what}: OpenCode's server refused with {status}: {reason}", status=status)


def check_json(content_type: str, *, what: str) -> None:
    """An unknown path is answered with 200 and the web interface's page."""
    if not content_type.startswith("application/json"):
        raise ServerUnintelligible(
            f"{what} is answered with {content_type or 'nothing'} in place of JSON",
            hint="This OpenCode server does not know the call; the package is made for OpenCode 1.18.",
        )


def _reason(body: bytes) -> str:
    """Two styles: `{"name", "data": {"message"}}` and `{"_tag", "message"?}`."""
    try:
        said = json.loads(body)
        text = (
            said.get("data", {}).get("message") or said.get("message") or said.get("name") or said.get("_tag")
        )
    except (ValueError, AttributeError):
        text = body.decode("utf-8", "replace")
    return one_line(str(text or ""), longest=LONGEST_ERROR)
