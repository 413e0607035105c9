"""How much a system keeps by itself: not what its world does, nor what it remembers on purpose and bounds."""

from __future__ import annotations

import gc
import sys
from collections import OrderedDict, deque
from collections.abc import Sized
from typing import cast
from weakref import WeakSet

from opencode_actors.kernel.finished import Finished
from opencode_actors.kernel.hub import Hub
from opencode_actors.kernel.system import System

_CONTAINERS = (dict, list, tuple, set, frozenset, deque, WeakSet)
# An ordered one has a bound: its oldest goes first.
_BOUNDED = (Hub, Finished, OrderedDict)
_OURS = "opencode_actors."
_OF_THE_WORLD = ("opencode_actors.stress.", "opencode_actors.testing.", "opencode_actors.store.")
_MODULES = ("opencode_actors.kernel.", "opencode_actors.machines.", "opencode_actors.adapters.")


def kept(system: System) -> int:
    """How many things are in what it has, and in what its modules have at their top."""
    todo: list[object] = [system]
    for name, module in tuple(sys.modules.items()):
        if name.startswith(_MODULES):
            todo.extend(
                cast(object, value) for value in vars(module).values() if isinstance(value, _CONTAINERS)
            )
    seen: set[int] = set()
    alive: list[object] = []  # so that no id is given to another one meanwhile
    count = 0
    while todo:
        one = todo.pop()
        if id(one) in seen or not _is_kept(one):
            continue
        seen.add(id(one))
        alive.append(one)
        count += len(cast(Sized, one)) if isinstance(one, _CONTAINERS) else 1
        todo.extend(gc.get_referents(one))
    return count


def _is_kept(one: object) -> bool:
    if isinstance(one, _CONTAINERS):
        return not isinstance(one, _BOUNDED)
    kind = type(one)
    module = kind.__module__
    return (
        module.startswith(_OURS)
        and not module.startswith(_OF_THE_WORLD)
        and not isinstance(one, (type, *_BOUNDED))
    )
