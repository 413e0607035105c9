"""The jobs that are under way, by whatever they are looked up: their id, their session, what they are called."""

from __future__ import annotations

from collections.abc import Iterator

import trio
from attrs import define, field

from opencode_actors.errors import StoreError
from opencode_actors.kernel.actor import Actor
from opencode_actors.machines.job_messages import JobEffect, JobMessage
from opencode_actors.machines.job_state import JobState, Settled
from opencode_actors.machines.notices import Accepted, JobEnded
from opencode_actors.machines.vocabulary import JobId, SessionKey

JobActor = Actor[JobState, JobMessage, JobEffect]


@define(eq=False, repr=False)
class JobEntry:
    """`plan` is what is recorded of it besides its state. `accepted` is set when it is known whether it is `recorded`,
    `refused` says why it is not; `ended` is what was announced of its end, if its machine did not."""

    actor: JobActor
    id: JobId
    session: SessionKey
    name: str
    plan: Accepted
    accepted: trio.Event = field(factory=trio.Event, init=False)
    recorded: bool = field(default=False, init=False)
    refused: StoreError | None = field(default=None, init=False)
    ended: JobEnded | None = field(default=None, init=False)
    done: trio.Event = field(factory=trio.Event, init=False)

    @property
    def state(self) -> JobState:
        return self.actor.state


# In the order in which they came.
_Some = dict[JobId, JobEntry]


@define(eq=False, repr=False)
class JobEntries:
    _all: _Some = field(factory=_Some, init=False)
    _in_session: dict[str, _Some] = field(factory=dict[str, _Some], init=False)
    _called: dict[str, _Some] = field(factory=dict[str, _Some], init=False)

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, job: JobId) -> bool:
        return job in self._all

    def __iter__(self) -> Iterator[JobEntry]:
        """In the order in which they came, as of now."""
        return iter(tuple(self._all.values()))

    def get(self, job: JobId) -> JobEntry | None:
        return self._all.get(job)

    def add(self, entry: JobEntry) -> None:
        self._all[entry.id] = entry
        self._in_session.setdefault(entry.session, {})[entry.id] = entry
        self._called.setdefault(entry.name, {})[entry.id] = entry

    def remove(self, entry: JobEntry) -> None:
        del self._all[entry.id]
        _remove(self._in_session, entry.session, entry.id)
        _remove(self._called, entry.name, entry.id)

    def in_session(self, session: SessionKey) -> tuple[JobEntry, ...]:
        """In the order in which they came."""
        return tuple(self._in_session.get(session, {}).values())

    # ---- those that have not settled: one that has is here until its last words are recorded

    def unsettled(self) -> Iterator[JobState]:
        return _unsettled(self._all)

    def unsettled_in(self, session: SessionKey) -> tuple[JobState, ...]:
        """Those that run or wait in the session, or are on their way to it."""
        return tuple(_unsettled(self._in_session.get(session, {})))

    def called(self, name: str) -> JobState | None:
        """No two that have not settled have one name."""
        return next(_unsettled(self._called.get(name, {})), None) if name else None


def _unsettled(entries: _Some) -> Iterator[JobState]:
    return (entry.state for entry in entries.values() if not isinstance(entry.state.phase, Settled))


def _remove(groups: dict[str, _Some], key: str, job: JobId) -> None:
    del groups[key][job]
    if not groups[key]:
        del groups[key]
