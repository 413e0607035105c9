"""One connection that reads, and one thread at a time on it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import trio
from attrs import define, field

from opencode_actors.errors import StoreError
from opencode_actors.store.examination import damaged, is_damage
from opencode_actors.store.seal import Seal

# What comes of reading what was never written like that.
DAMAGE = (LookupError, TypeError, ValueError)

P = ParamSpec("P")
T = TypeVar("T")


@define(eq=False)
class Reader:
    """Of the journal at `path`. Whoever reads waits for those who asked this reader before, and for nobody else."""

    path: Path
    _database: sqlite3.Connection
    _seal: Seal
    _one: trio.CapacityLimiter = field(factory=lambda: trio.CapacityLimiter(1), init=False)

    async def read(
        self, call: Callable[Concatenate[sqlite3.Connection, P], T], *arguments: P.args, **named: P.kwargs
    ) -> T:
        """What `call` makes of the database, in a thread. Raises `StoreError`."""
        try:
            return await trio.to_thread.run_sync(
                lambda: call(self._database, *arguments, **named), limiter=self._one
            )
        except sqlite3.ProgrammingError:
            raise is_closed(self.path.parent) from None
        except DAMAGE as error:
            raise has_damage(self.path, self._seal, error) from error
        except (OSError, sqlite3.Error) as error:
            if is_damage(error):
                raise has_damage(self.path, self._seal, error) from error
            raise StoreError(
                f"reading from the state directory {self.path.parent} failed: {error}",
                hint="check its permissions and its disk",
            ) from error


def has_damage(path: Path, seal: Seal, error: Exception) -> StoreError:
    """The next one that opens it has to examine all of it."""
    seal.break_()
    return damaged(path, f"it has an entry that cannot be understood: {error!r}")


def is_closed(folder: Path) -> StoreError:
    return StoreError(f"the journal of {folder} is closed", hint="open a system again")
