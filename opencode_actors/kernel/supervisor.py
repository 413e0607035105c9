"""Who looks after the actors: runs them, sees to it that a bug in one is seen and does not spread.

An actor that ends by itself has settled everything. One that ends by an exception is a bug, or a state
directory that cannot be written; the `Failure` says which, and whoever runs it tells what depended on it.
"""

from __future__ import annotations

import logging
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
        self.running += 1
        try:
            await actor.run()
        except Exception as error:  # noqa: BLE001 - the one place: a bug ends its actor, not the others
            self.failures += 1
            return self._failure(actor, error)
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
