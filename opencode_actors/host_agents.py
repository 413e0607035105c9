"""Which agents the host's OpenCode config has: each may say for itself what it may do."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from opencode_actors.containers import HostAgents
from opencode_actors.credentials import REFERENCE
from opencode_actors.errors import SettingsError, StoreError
from opencode_actors.json5_file import parsed


def host_agents(path: Path, content: bytes) -> HostAgents:
    """By what was read from `path`. Raises `StoreError` when it cannot be known: what an agent may do would be
    for that file alone to say."""
    text = REFERENCE.sub("0", content.decode("utf-8-sig", errors="replace"))
    try:
        table = parsed(text, path) if text.strip() else {}
    except SettingsError as error:
        raise StoreError(f"the agents in {path} cannot be read: {error.message}", hint=error.hint) from None
    return HostAgents(agents=_names(table, "agent", path), modes=_names(table, "mode", path))


def _names(table: dict[str, object], key: str, path: Path) -> tuple[str, ...]:
    agents = table.get(key)
    if agents is not None and not isinstance(agents, dict):
        raise StoreError(
            f"the agents in {path} cannot be read: `{key}` is not written out there",
            hint=f"write the agents themselves into that file, in the place of what stands for them under `{key}`",
        )
    return tuple(cast(dict[str, object], agents or {}))
