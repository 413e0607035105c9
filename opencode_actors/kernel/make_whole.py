"""Making something that must not be left half-made, and must not be left behind."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from opencode_actors.errors import EngineError

T = TypeVar("T")


async def make_whole(
    make: Callable[[], Awaitable[T]], *, undo: Callable[[T], Awaitable[None]], within: float
) -> T:
    """What `make` makes. A cancellation does not break it off: it is let finish, and then undone.

    Making may take any time before a cancellation, and each of the two up to `within` seconds after it.
    Raises what the engine refuses; nothing begins when it is cancelled already.
    """
    await trio.lowlevel.checkpoint_if_cancelled()
    made: list[T] = []
    refusals: list[EngineError] = []
    shield = trio.CancelScope(shield=True)

    async def watch() -> None:
        try:
            await trio.sleep_forever()
        finally:
            shield.deadline = trio.current_time() + within

    wanted = False
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            with shield:
                # Caught here, because a nursery would raise it in a group.
                try:
                    made.append(await make())
                except EngineError as error:
                    refusals.append(error)
            nursery.cancel_scope.cancel()
        # A cancellation from outside does not get here: the nursery raises it.
        wanted = True
    finally:
        if made and not wanted:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + within):
                await undo(made[0])
    for refusal in refusals:
        raise refusal
    return made[0]
