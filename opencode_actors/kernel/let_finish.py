"""A shield with a deadline that begins when it is needed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from opencode_actors.errors import EngineError

T = TypeVar("T")


async def let_finish(work: Callable[[], Awaitable[T]], *, within: float) -> T:
    """Does `work`, which goes on for up to `within` seconds after it was cancelled; before, for any time.

    Raises what the engine refuses. When the time is over, it is cancelled as everything else.
    """
    scope = trio.CancelScope(shield=True)
    results: list[T] = []
    refusals: list[EngineError] = []

    async def watch() -> None:
        try:
            await trio.sleep_forever()
        finally:
            scope.deadline = trio.current_time() + within

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        with scope:
            # Caught here, because a nursery would raise it in a group.
            try:
                results.append(await work())
            except EngineError as error:
                refusals.append(error)
        nursery.cancel_scope.cancel()
    for refusal in refusals:
        raise refusal
    for result in results:
        return result
    await trio.lowlevel.checkpoint_if_cancelled()
    raise AssertionError("the work was cut off though nobody cancelled it")
