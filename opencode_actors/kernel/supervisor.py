"""Who looks after the actors: runs them, sees to it that a bug in one is seen and does not spread.

An actor that ends by itself has settled everything. One that ends by an exception is a bug, or a state
directory that cannot be written; what depended on it is told at once, by `on_failure`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from attrs import define, field

from opencode_actors.error_groups import first_error
from opencode_actors.errors import StoreError
from opencode_actors.kernel.actor import Actor
from opencode_actors.machines.vocabulary import Cause, Failure

_log = logging.getLogger("opencode_actors")


@define(eq=False)
class Supervisor:
    failures: int = field(default=0, init=False)

    async def run(
        self,
        actor: Actor[Any, Any, Any],
        *,
        on_end: Callable[[], None],
        on_failure: Callable[[Failure], None],
    ) -> None:
        try:
            await actor.run()
        except Exception as error:  # noqa: BLE001 - the one place: a bug ends its actor, not the others
            self.failures += 1
            on_failure(self._failure(actor, error))
        finally:
            on_end()

    def _failure(self, actor: Actor[Any, Any, Any], error: Exception) -> Failure:
        wrong = first_error(error)
        if isinstance(wrong, StoreError):
            _log.error("%r ended: %s", actor, wrong)
            return Failure(cause=Cause.STORE, message=wrong.message)
        _log.error("a bug ended %r", actor, exc_info=error)
        return Failure(
            cause=Cause.INTERNAL, message=f"a bug in opencode-actors ended {actor.name}: {wrong!r}"
        )
