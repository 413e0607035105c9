"""Between a system and its world, to be cut: how a service is killed without killing its process.

What is on its way is cut off, what is called afterwards never returns: nothing that a dead system does has any
effect, and nothing that it would have heard comes. Only what it holds of this process it may still let go.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, ParamSpec, TypeVar, cast

import trio
from attrs import define, field

from opencode_actors.kernel.system import System
from opencode_actors.ports import Endpoint, OpenCodeServer

T = TypeVar("T")
P = ParamSpec("P")
# Given the name of what is called, the call, and what it is called with.
Through = Callable[..., Awaitable[Any]]


@define(eq=False)
class Wire:
    is_cut: bool = False
    is_in_use: bool = False
    _carried: set[trio.CancelScope] = field(factory=set[trio.CancelScope], repr=False)

    def cut(self, system: System | None = None) -> None:
        """And its actors die: a system that is left without them does not wait for what they would have done."""
        self.is_cut = True
        for scope in self._carried:
            scope.cancel()
        if system is not None:
            system._surroundings.nursery.cancel_scope.cancel()  # noqa: SLF001 - nobody else may do that

    def over(self, target: T, *, through: Through | None = None) -> T:
        """The same port, reached over this wire; each call goes `through` what may do something to it."""
        self.is_in_use = True
        return cast(T, _Carried(target, self, through))

    def connecting(
        self, connect: Callable[[Endpoint], OpenCodeServer]
    ) -> Callable[[Endpoint], OpenCodeServer]:
        """The same, to servers that are reached over this wire."""
        return lambda endpoint: self.over(connect(endpoint))

    async def carry(self, call: Callable[P, Awaitable[T]], *arguments: P.args, **named: P.kwargs) -> T:
        if not self.is_cut:
            with trio.CancelScope() as scope:
                self._carried.add(scope)
                try:
                    return await call(*arguments, **named)
                finally:
                    self._carried.discard(scope)
        await trio.sleep_forever()
        raise AssertionError("a dead system was answered")


class _Carried:
    """All coroutines of `target` over the wire but the one that closes it, everything else as it is. Of a port
    that has thirty methods none has to be written down again for that."""

    def __init__(self, target: object, wire: Wire, through: Through | None) -> None:
        self._target, self._wire, self._through = target, wire, through

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        if name == "aclose" or not inspect.iscoroutinefunction(value):
            return value
        if self._through is None:
            return partial(self._wire.carry, value)
        return partial(self._wire.carry, self._through, name, value)
