"""How much a system keeps by itself: not what its world does; and what it remembers on purpose no more than it may."""

from __future__ import annotations

import gc
import sys
from collections import OrderedDict, deque
from collections.abc import Iterator, Sized
from typing import cast
from weakref import WeakSet

from opencode_actors.kernel.finished import Finished
from opencode_actors.kernel.hub import BACKLOG, HEAVIEST, Hub, weight_of
from opencode_actors.kernel.system import System

# What it may remember on purpose, of each kind: an ordered one has its oldest go first.
_MOST = 256
_CONTAINERS = (dict, list, tuple, set, frozenset, deque, WeakSet)
_BOUNDED = (Hub, Finished, OrderedDict)
_OURS = "opencode_actors."
_OF_THE_WORLD = ("opencode_actors.stress.", "opencode_actors.testing.", "opencode_actors.store.")
_MODULES = ("opencode_actors.kernel.", "opencode_actors.machines.", "opencode_actors.adapters.")


def kept(system: System) -> int:
    """How many things are in what it has, and in what its modules have at their top."""
    counted = (one for one in _had(system) if not isinstance(one, _BOUNDED))
    return sum(len(cast(Sized, one)) if isinstance(one, _CONTAINERS) else 1 for one in counted)


def beyond_bounds(system: System) -> Iterator[str]:
    """Which of what it remembers on purpose has become too much."""
    for one in _had(system):
        if isinstance(one, Hub):
            recent = one._recent  # noqa: SLF001 - nobody else needs to know
            weight = sum(weight_of(notice) for notice in recent)
            if len(recent) > BACKLOG or weight > HEAVIEST:
                yield f"{len(recent)} notices of {weight} bytes are remembered"
        elif isinstance(one, Finished):
            ends = one._ended.values()  # noqa: SLF001
            weight = sum(weight_of(ended) for ended in ends)
            if len(ends) > _MOST or weight > HEAVIEST:
                yield f"{len(ends)} ends of {weight} bytes are remembered"
        elif isinstance(one, OrderedDict) and len(cast(Sized, one)) > _MOST:
            yield f"{len(cast(Sized, one))} things are remembered in one place"


def _had(system: System) -> Iterator[object]:
    """What is in something that is bounded is not looked at."""
    todo: list[object] = [system]
    for name, module in tuple(sys.modules.items()):
        if name.startswith(_MODULES):
            todo.extend(
                cast(object, value) for value in vars(module).values() if isinstance(value, _CONTAINERS)
            )
    seen: set[int] = set()
    alive: list[object] = []  # so that no id is given to another one meanwhile
    while todo:
        one = todo.pop()
        if id(one) in seen or not _is_kept(one):
            continue
        seen.add(id(one))
        alive.append(one)
        yield one
        if not isinstance(one, _BOUNDED):
            todo.extend(gc.get_referents(one))


def _is_kept(one: object) -> bool:
    if isinstance(one, _CONTAINERS):
        return True
    module = type(one).__module__
    return module.startswith(_OURS) and not module.startswith(_OF_THE_WORLD) and not isinstance(one, type)
