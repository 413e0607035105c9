"""Which chat is told of a job that none asked for: the one that its working directory belongs to."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePath

from attrs import frozen

from opencode_actors.errors import UsageError
from opencode_actors.machines.vocabulary import Origin

_CHANNEL = re.compile(r"[a-z][a-z0-9_-]*")
_AGENT = re.compile(r"agent:([^:]+):.+")


@frozen(kw_only=True)
class Route:
    """`directory` and all that is in it; with `opens`, all that begins so."""

    directory: str
    opens: bool
    chat: Origin

    def fits(self, workspace: PurePath) -> bool:
        text = str(workspace)
        if self.opens:
            return text.startswith(self.directory)
        return text == self.directory or text.startswith(self.directory.rstrip("/") + "/")


def routes_of(entries: Iterable[str]) -> tuple[Route, ...]:
    """Raises `UsageError`."""
    return tuple(_route(entry) for entry in entries)


def _route(entry: str) -> Route:
    directory, equals, target = entry.partition("=")
    session, at, channel = target.rpartition("@")
    if not at or not _CHANNEL.fullmatch(channel):
        session, channel = target, ""
    if not equals or not directory.startswith(("/", "~/")) or not session or not session.isprintable():
        raise UsageError(
            f"{entry!r} is no route", hint="write DIRECTORY=SESSION, and @CHANNEL behind it when it needs one"
        )
    agent = _AGENT.fullmatch(session)
    return Route(
        directory=_expanded(directory.removesuffix("*")),
        opens=directory.endswith("*"),
        chat=Origin(session_key=session, agent_id=agent[1] if agent else "", channel=channel),
    )


def _expanded(directory: str) -> str:
    try:
        return str(Path(directory).expanduser()) + ("/" if directory.endswith("/") else "")
    except RuntimeError:
        raise UsageError(f"{directory!r} begins with a home directory that is not known") from None


def routed(origin: Origin | None, workspace: PurePath, routes: Iterable[Route]) -> Origin | None:
    """Of several that fit the one with the longest directory. A job that a chat asked for is that chat's."""
    if origin is not None and origin.session_key:
        return origin
    fitting = [route for route in routes if route.fits(workspace)]
    return max(fitting, key=lambda route: len(route.directory)).chat if fitting else origin
