"""What chats are told of their jobs, as persons choose it: durable before it counts."""

from __future__ import annotations

import re
from collections.abc import Sequence

from attrs import frozen

from opencode_actors.errors import UsageError
from opencode_actors.kernel.surroundings import Surroundings
from opencode_actors.machines.matters import Choice, Matter, Scope, Source, matters_named
from opencode_actors.machines.names import session_key
from opencode_actors.machines.notices import ChoiceRecorded

_CHANNEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@frozen(kw_only=True)
class Chosen:
    """Whether chats are told of the `matter`, and who says so."""

    matter: Matter
    on: bool
    source: Source


async def choose(
    here: Surroundings,
    *,
    session: str | None,
    channel: str | None,
    on: Sequence[str],
    off: Sequence[str],
    reset: Sequence[str],
) -> tuple[Chosen, ...]:
    """As `System.notify`."""
    if session is not None and channel is not None and (on or off or reset):
        raise UsageError("choose for a session or for a channel, not for both at once", hint="ask twice")
    key = "" if session is None else session_key(session)
    if channel is not None and not _CHANNEL.fullmatch(channel):
        raise UsageError(
            f"{channel[:64]!r} cannot be a channel", hint="name it as OpenClaw does, for example telegram"
        )
    scope, name = (Scope.SESSION, key) if session is not None else (Scope.CHANNEL, channel or "")
    choices = [
        Choice(scope=scope, name=name, matter=matter, on=wanted)
        for words, wanted in ((on, True), (off, False), (reset, None))
        for matter in matters_named(words)
    ]
    if choices and not name:
        raise UsageError(
            "nothing is named to choose for", hint="name a session or a channel; notifyKinds is for all"
        )
    if len({choice.matter for choice in choices}) < len(choices):
        raise UsageError("one of them is named twice", hint="name each of them once")
    if choices:
        await here.store.append(tuple(ChoiceRecorded(choice=choice) for choice in choices))
        here.matrix = here.matrix.chosen(choices)
    whys = {matter: here.matrix.why(matter, session=key, channel=channel or "") for matter in Matter}
    return tuple(Chosen(matter=matter, on=why[0], source=why[1]) for matter, why in whys.items())
