"""Whether a server has the model and the agent that a prompt asks for, and which are meant if not."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from opencode_actors.ports import Catalog

# What is shown of those that are near, and how near they have to be.
_SHOWN = 3
_NEAR = 0.4


def objection(catalog: Catalog, *, model: str | None, agent: str | None) -> str:
    """Empty when both are there."""
    agents = [one.name for one in catalog.agents]
    if agent is not None and agent not in agents:
        shown = [one.name for one in catalog.agents if not one.hidden]
        return f"there is no agent {agent!r}; {_near(agent, shown)}"
    models = [one.name for one in catalog.models]
    if model is not None and model not in models:
        return f"there is no model {model!r}; {_near(model, models)}"
    return ""


def _near(wanted: str, names: Iterable[str]) -> str:
    known = list(names)
    if not known:
        return "OpenCode has none at all"
    by_short_name = {name.lower().rpartition("/")[2]: name for name in known}
    short = get_close_matches(wanted.lower().rpartition("/")[2], by_short_name, n=_SHOWN, cutoff=_NEAR)
    whole = get_close_matches(wanted, known, n=_SHOWN, cutoff=_NEAR)
    near = list(dict.fromkeys([*(by_short_name[name] for name in short), *whole]))[:_SHOWN]
    if near:
        return f"nearest: {', '.join(near)}"
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    return f"there are {', '.join(known[:_SHOWN])}{more}"
