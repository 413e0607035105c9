"""Who may come in: decided from the upgrade request alone, before anything is said on the websocket."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence

from attrs import frozen

PATH = "/"
SUBPROTOCOL = "opencode-actors.v1"
TOKEN_SUBPROTOCOL = "opencode-actors.token."  # noqa: S105 - what stands before one


@frozen(kw_only=True)
class Admitted:
    """`subprotocol` is to be selected; None when the peer proposed none of ours."""

    subprotocol: str | None


@frozen(kw_only=True)
class TurnedAway:
    status: int
    text: str


def admit(
    *,
    path: str,
    headers: Iterable[tuple[bytes, bytes]],
    subprotocols: Sequence[str],
    token: str,
    origins: Sequence[str],
) -> Admitted | TurnedAway:
    by_name: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        by_name.setdefault(name.lower(), []).append(value)
    if path.partition("?")[0] != PATH:
        return TurnedAway(status=404, text=f"the websocket is at {PATH}")
    for origin in by_name.get(b"origin", ()):
        if origin.decode("latin-1") not in origins:
            return TurnedAway(
                status=403,
                text="this Origin may not come in: browsers are let in from the pages that the setting "
                "doorOrigins names, and other clients send no Origin",
            )
    if not _has_token(by_name.get(b"authorization", []), subprotocols, token):
        return TurnedAway(
            status=401,
            text='the token is missing or wrong: send "Authorization: Bearer TOKEN", or the subprotocols '
            f"{SUBPROTOCOL} and {TOKEN_SUBPROTOCOL}TOKEN; the token is in the file that door.json names",
        )
    return Admitted(subprotocol=SUBPROTOCOL if SUBPROTOCOL in subprotocols else None)


def _has_token(authorization: Sequence[bytes], subprotocols: Sequence[str], token: str) -> bool:
    given = [
        subprotocol.removeprefix(TOKEN_SUBPROTOCOL).encode()
        for subprotocol in subprotocols
        if subprotocol.startswith(TOKEN_SUBPROTOCOL)
    ]
    for value in authorization:
        scheme, _, credentials = value.partition(b" ")
        if scheme.lower() == b"bearer":
            given.append(credentials.strip())
    # Each is compared in the same time, however much of it is right.
    return any(hmac.compare_digest(one, token.encode()) for one in given)
