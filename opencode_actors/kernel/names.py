"""Whom a word means, and whether a name may be given."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import trio
from attrs import frozen

from opencode_actors.errors import UsageError
from opencode_actors.machines.job_state import JobState
from opencode_actors.machines.names import is_job_id
from opencode_actors.machines.vocabulary import JobId
from opencode_actors.store.port import Store

_CANDIDATES = 5  # that are listed when a name means several jobs


@frozen(eq=False)
class Names:
    """`unsettled` are the jobs that have not ended."""

    store: Store
    unsettled: Callable[[], Iterator[JobState]]

    def check(self, name: str) -> None:
        """While a job has not settled, its name is its own. Afterwards others may be called so."""
        holder = self._called(name)
        if holder is not None:
            raise UsageError(
                f"{name!r} is what job {holder} is called, which has not ended yet",
                hint="choose another name, or none",
            )

    def _called(self, name: str) -> JobId | None:
        return next((state.id for state in self.unsettled() if name and state.name == name), None)

    async def find(self, word: str) -> JobId:
        """The job that has this id or this name. Raises `UsageError` for a name that several settled jobs
        were given; a word that means none is given back, for whoever looks it up to say so."""
        if is_job_id(word):
            await trio.lowlevel.checkpoint()
            return JobId(word)
        unsettled = self._called(word)
        named = await self.store.named(word, limit=_CANDIDATES + 1) if unsettled is None else ()
        if len(named) > 1:
            shown = ", ".join(f"{one.id} ({one.status.value})" for one in named[:_CANDIDATES])
            more = " and more" if len(named) > _CANDIDATES else ""
            raise UsageError(
                f"several jobs were called {word!r}, the newest first: {shown}{more}",
                hint="name one by its id",
            )
        return unsettled or (named[0].id if named else JobId(word))
