"""A shield with a deadline that begins when it is needed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from opencode_actors.errors import EngineError


async def let_finish(work: Callable[[], Awaitable[None]], *, within: float) -> None:
    """Does `work`, which goes on for up to `within` seconds after it was cancelled; before, for any time.

    Raises what the engine refuses, and the cancellation, whether the work was done by then or not: what
    it has done, it has to have put where its caller finds it.
    """
    scope = trio.CancelScope(shield=True)
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
                await work()
            except EngineError as error:
                refusals.append(error)
        nursery.cancel_scope.cancel()
    for refusal in refusals:
        raise refusal
