"""Whom a word means, and what is called how.

Jobs and sessions have an id and a name that people use; a session's key is both. A name that nobody chose is
made of the prompt's key words, and with a number behind it where others were called so.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable

import trio
from attrs import define, field

from opencode_actors.errors import UnknownJob, UnknownSession, UsageError
from opencode_actors.kernel.job_entries import JobEntries
from opencode_actors.machines.job_state import JobState
from opencode_actors.machines.names import is_job_id, name_of, numbered
from opencode_actors.machines.vocabulary import JobId, JobSnapshot, SessionKey
from opencode_actors.store.port import Store

_CANDIDATES = 5  # that are listed when a word means several
_NEAREST = 3
# Of so many of the newest jobs a word that means nothing is compared with the names.
_COMPARED = 500
_LEAST_ALIKE = 0.6


@define(eq=False)
class Names:
    """`given` are the sessions that somebody uses, or may at any moment; `is_given` asks after one of them."""

    store: Store
    entries: JobEntries
    is_given: Callable[[SessionKey], bool]
    given: Callable[[], Iterable[SessionKey]]
    _one_at_a_time: trio.Lock = field(factory=trio.Lock, init=False, repr=False)

    # ---- giving

    async def check_is_no_session(self, name: str, but: SessionKey | None) -> None:
        """A word must not mean one session to who looks for a job, and another one to who looks for a session."""
        if name != but and await self.is_session(name):
            raise UsageError(
                f"{name!r} is the name of another session", hint="choose another name for the job, or none"
            )

    def check(self, name: str) -> None:
        """While a job has not settled, its name is its own. Afterwards others may be called so."""
        holder = self.entries.called(name)
        if holder is not None:
            raise UsageError(
                f"{name!r} is what job {holder.id} is called, which has not ended yet",
                hint="choose another name, or none",
            )

    async def make(self, prompt: str) -> str:
        """A name for a job, or a session, or both, that no other has or had."""
        return await self.free(name_of(prompt))

    async def free(self, wanted: str) -> str:
        """That name, or with a number behind it when others were called so. Whoever gets it calls something so before
        anything else happens."""
        # One after another: the next one who asks finds it among the jobs, or the sessions.
        async with self._one_at_a_time:
            number = await self.store.free_number(wanted)
            while self._is_used(numbered(wanted, number)):  # and not recorded yet
                number = await self.store.free_number(wanted, above=number)
            return numbered(wanted, number)

    def _is_used(self, word: str) -> bool:
        session = SessionKey(word)
        return bool(self.entries.called(word) or self.entries.unsettled_in(session) or self.is_given(session))

    # ---- finding

    async def find(self, word: str) -> JobId:
        """The job that has this id or this name, or else the one that the session of this name is about: what
        is under way goes before what has ended.

        Raises `UsageError` with the candidates where a word means several, and `UnknownJob` with the nearest
        names where it means none. An id is given back as it is.
        """
        if is_job_id(word):
            await trio.lowlevel.checkpoint()
            return JobId(word)
        called, in_session = self.entries.called(word), self._at_work_in(word)
        if called is not None and in_session is not None and called.session != in_session.session:
            raise UsageError(
                f"{word!r} is what job {called.id} in session {called.session} is called, and a session in "
                f"which job {in_session.id} is under way",
                hint="name the job by its id",
            )
        under_way = called or in_session
        if under_way is not None:
            await trio.lowlevel.checkpoint()
            return under_way.id
        named = await self.store.named(word, limit=_CANDIDATES + 1)
        if len(named) > 1:
            raise _several(word, named)
        last = named[0] if named else await self.store.last_job(SessionKey(word))
        if last is None:
            raise UnknownJob(f"there is no job {word}", hint=await self._nearest(word))
        return last.id

    async def find_session(self, word: str) -> SessionKey:
        """The session of this name, or else the one that the job of this id or name is in. Raises as `find`
        does, also where both are there and differ, and `UnknownSession`."""
        if is_job_id(word):
            known = await self.store.job(JobId(word))
            if known is None:
                raise UnknownJob(f"there is no job {word}")
            return known.snapshot.session
        called = self.entries.called(word)
        named = () if called is not None else await self.store.named(word, limit=_CANDIDATES + 1)
        jobs = {job.session: job.id for job in ((called,) if called is not None else reversed(named))}
        if await self.is_session(word):
            other = next((session for session in jobs if session != word), None)
            if other is not None:
                raise UsageError(
                    f"{word!r} is a session, and what job {jobs[other]} in session {other} is called",
                    hint="name either by the id of a job that is or was in it",
                )
            return SessionKey(word)
        if len(jobs) > 1:
            raise _several(word, named)
        if not jobs:
            raise UnknownSession(f"there is no session {word}", hint=await self._nearest(word))
        return next(iter(jobs))

    async def is_session(self, word: str) -> bool:
        """Whether a session of this name is open, or was."""
        return self.is_given(SessionKey(word)) or (await self.store.session(SessionKey(word))).heard_of

    def _at_work_in(self, session: str) -> JobState | None:
        """The one that has begun, or else the first that waits."""
        there = self.entries.unsettled_in(SessionKey(session))
        return next((state for state in there if state.has_begun), there[0] if there else None)

    async def _nearest(self, word: str) -> str:
        recent = await self.store.recent_names(jobs=_COMPARED)
        under_way = (one for state in self.entries.unsettled() for one in (state.name, state.session))
        known = {*under_way, *self.given(), *recent} - {"", word}
        lower = word.lower()
        near = sorted(name for name in known if lower in name.lower() or name.lower() in lower)
        alike = difflib.get_close_matches(word, known, n=_NEAREST, cutoff=_LEAST_ALIKE)
        names = list(dict.fromkeys((*alike, *near)))[:_NEAREST]
        if not names:
            return "`sessions` lists what there is"
        return f"did you mean {' or '.join(repr(name) for name in names)}?"


def _several(word: str, named: tuple[JobSnapshot, ...]) -> UsageError:
    shown = ", ".join(f"{one.id} ({one.status.value})" for one in named[:_CANDIDATES])
    more = " and more" if len(named) > _CANDIDATES else ""
    return UsageError(
        f"several jobs were called {word!r}, the newest first: {shown}{more}", hint="name one by its id"
    )
