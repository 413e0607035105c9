"""Who looks after the actors: runs them, sees to it that a bug in one is seen and does not spread.

An actor that ends by itself has settled everything. One that ends by an exception is a bug, or a state
directory that cannot be written; the `Failure` says which, and whoever runs it tells what depended on it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from attrs import define, field, frozen

from opencode_actors.error_groups import first_error
from opencode_actors.errors import StoreError
from opencode_actors.kernel.actor import Actor
from opencode_actors.machines.vocabulary import Cause, Failure

_log = logging.getLogger("opencode_actors")


@frozen(kw_only=True)
class SupervisorStatistics:
    running: int
    ended: int
    failures: int


@define(eq=False, repr=False)
class Supervisor:
    running: int = field(default=0, init=False)
    ended: int = field(default=0, init=False)
    failures: int = field(default=0, init=False)

    def __repr__(self) -> str:
        return f"<Supervisor of {self.running} actors, {self.failures} of {self.ended} failed>"

    async def run(self, actor: Actor[Any, Any, Any]) -> Failure | None:
        """None when it ended by itself."""
        error = await self._see(actor.run)
        return None if error is None else self._failure(actor, error)

    async def watch(self, what: str, work: Callable[[], Awaitable[None]]) -> Exception | None:
        """For what is no actor, and may end no more than itself either. None when it ended by itself."""
        error = await self._see(work)
        if error is not None:
            _log.error("a bug ended %s", what, exc_info=error)
        return error

    async def _see(self, work: Callable[[], Awaitable[None]]) -> Exception | None:
        self.running += 1
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - the one place: a bug ends its actor, not the others
            self.failures += 1
            return error
        else:
            return None
        finally:
            self.running -= 1
            self.ended += 1

    def statistics(self) -> SupervisorStatistics:
        return SupervisorStatistics(running=self.running, ended=self.ended, failures=self.failures)

    def _failure(self, actor: Actor[Any, Any, Any], error: Exception) -> Failure:
        wrong = first_error(error)
        if isinstance(wrong, StoreError):
            _log.error("%r ended: %s", actor, wrong)
            return Failure(cause=Cause.STORE, message=wrong.message)
        _log.error("a bug ended %r", actor, exc_info=error)
        return Failure(
            cause=Cause.INTERNAL, message=f"a bug in opencode-actors ended {actor.name}: {wrong!r}"
        )
