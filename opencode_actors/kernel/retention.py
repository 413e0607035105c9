"""What is not kept for ever: ended jobs with their output, and sessions that nobody has come back to.

By age, by count and by size, as the settings say, a little at a time. What can be gone on with goes with a word.
"""

from __future__ import annotations

import logging
from pathlib import Path

import trio
from attrs import field, frozen

from opencode_actors.errors import StoreError
from opencode_actors.kernel.jobs import KEY_LASTS, Jobs
from opencode_actors.kernel.sessions import Sessions
from opencode_actors.kernel.surroundings import Surroundings
from opencode_actors.machines.notices import JobForgotten, SessionChanged, SessionForgotten
from opencode_actors.machines.vocabulary import JobId, SessionKey, SessionStatus
from opencode_actors.store.port import Limits

_log = logging.getLogger("opencode_actors")

# A start has other things to do first, and what is kept grows slowly.
FIRST_AFTER = 60.0
EVERY = 3600.0
# One transaction takes so many jobs away: a few milliseconds, in which nothing else is written.
AT_ONCE = 32


@frozen(kw_only=True)
class Forgotten:
    """How many ended jobs are not remembered any more, and which sessions, whose data is gone."""

    jobs: int
    sessions: tuple[SessionKey, ...]


@frozen(eq=False, kw_only=True)
class Retention:
    surroundings: Surroundings
    sessions: Sessions
    jobs: Jobs
    _one_at_a_time: trio.Lock = field(factory=trio.Lock, init=False)

    async def run(self) -> None:
        await trio.sleep(FIRST_AFTER)
        while True:
            try:
                await self.forget()
            except StoreError as error:
                _log.warning("what is too old could not be forgotten, and is tried again: %s", error.message)
            await trio.sleep(EVERY)

    async def forget(self) -> Forgotten:
        """All that is beyond the settings now. Raises `StoreError`, and then some may be gone already."""
        async with self._one_at_a_time:
            await self.surroundings.store.remove_strangers()
            sessions = await self._forget_sessions()
            return Forgotten(jobs=await self._forget_old_jobs(), sessions=sessions)

    def _limits(self) -> Limits:
        settings, now = self.surroundings.settings, self.surroundings.wall()
        return Limits(
            jobs=settings.keep_jobs,
            jobs_before=now - settings.keep_jobs_for if settings.keep_jobs_for else 0.0,
            outputs=settings.keep_outputs,
            unkeyed_before=now - KEY_LASTS,
            sessions=settings.keep_sessions,
            sessions_before=now - settings.keep_sessions_for if settings.keep_sessions_for else 0.0,
        )

    async def _forget_old_jobs(self) -> int:
        old = await self.surroundings.store.old_jobs(self._limits())
        await self._forget_jobs(old)
        if old:
            settings = self.surroundings.settings
            _log.info(
                "%d ended jobs are forgotten, with their output (keepJobs is %d, keepJobsFor %g s, keepOutputs %d)",
                len(old),
                settings.keep_jobs,
                settings.keep_jobs_for,
                settings.keep_outputs,
            )
        return len(old)

    async def _forget_jobs(self, old: tuple[JobId, ...]) -> None:
        for first in range(0, len(old), AT_ONCE):
            some = old[first : first + AT_ONCE]
            records = tuple(JobForgotten(job=job) for job in some)
            await self.surroundings.store.append(records, at=self.surroundings.wall())
            self.jobs.forget(some)

    async def _forget_sessions(self) -> tuple[SessionKey, ...]:
        gone: list[SessionKey] = []
        looked_at: set[SessionKey] = set()
        limits = self._limits()
        while old := await self.surroundings.store.old_sessions(limits, but=looked_at):
            for key in old:
                if await self._forget_session(key):
                    gone.append(key)
                looked_at.add(key)
        if gone:
            await self.sessions.directories.sweep()
        return tuple(gone)

    async def _forget_session(self, key: SessionKey) -> bool:
        """Unless somebody has opened it, or a job is on its way to it. Its files are the agent's work, and stay.

        The data goes first: a process that ends in between leaves a session that is too old, and whose conversation
        is not kept any more, which is so; the next run comes to the end with it.
        """
        store, place = self.surroundings.store, self.sessions.place_of(key)
        async with self.sessions.kept_closed(key) as why_not:
            ended = None if why_not or self.jobs.entries.unsettled_in(key) else await store.jobs_of(key)
            if ended is None:
                return False
            await self.sessions.directories.set_aside(place.data.parent)
            await self._forget_jobs(ended)
            await self._record(key, place.workspace)
        return True

    async def _record(self, key: SessionKey, workspace: Path) -> None:
        here, settings = self.surroundings, self.surroundings.settings
        detail = (
            f"forgotten, with its conversation (keepSessions is {settings.keep_sessions}, keepSessionsFor "
            f"{settings.keep_sessions_for:g} s); its files stay in {workspace}"
        )
        said = SessionChanged(session=key, status=SessionStatus.ABSENT, detail=detail)
        await here.store.append((SessionForgotten(session=key),), (said,), at=here.wall())
        here.matrix = here.matrix.without(key)
        _log.info("session %s is %s", key, detail)
