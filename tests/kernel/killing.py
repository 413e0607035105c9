"""A process that is killed: from one instant on, nothing that it does reaches the outside, and nobody tells it."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

import trio
from attrs import define, field
from outcome import acapture

T = TypeVar("T")


@define(eq=False)
class Cable:
    """Between a process and its engine, its servers and its disk."""

    cut: bool = False

    def through(self, port: T) -> T:
        return cast(T, _Port(self, port))

    async def hold(self) -> None:
        """What the other end does with a call that has arrived is done; its answer finds nobody."""
        if self.cut:
            await trio.sleep_forever()


@define(eq=False)
class _Port:
    _cable: Cable
    _inner: Any

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name == "events":
            return self._events
        return self._called(found) if inspect.iscoroutinefunction(found) else found

    def _called(self, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def called(*arguments: Any, **more: Any) -> Any:
            await self._cable.hold()
            outcome = await acapture(call, *arguments, **more)
            await self._cable.hold()
            return outcome.unwrap()

        return called

    @asynccontextmanager
    async def _events(self, *arguments: Any) -> AsyncGenerator[AsyncIterator[Any]]:
        await self._cable.hold()
        async with self._inner.events(*arguments) as events:

            async def heard() -> AsyncGenerator[Any]:
                async for event in events:
                    await self._cable.hold()
                    yield event

            yield heard()


@define(eq=False)
class Steps(trio.abc.Instrument):
    """Counts what tasks do, and cuts the cable before one of their steps. 0: never."""

    cable: Cable = field(factory=Cable)
    at: int = 0
    done: int = 0
    reached: trio.Event = field(factory=trio.Event)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002 - as trio calls it
        if self.cable.cut:
            return
        self.done += 1
        if self.done == self.at:
            self.cable.cut = True
            self.reached.set()
