"""What is not kept for ever: ended jobs with their output, and sessions that nobody has come back to.

By age, by count and by size, as the settings say, a little at a time. What can be gone on with goes with a word.
"""

from __future__ import annotations

import logging

import trio
from attrs import frozen

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
        await self.surroundings.store.remove_strangers()
        sessions = await self._forget_sessions()
        jobs = 0
        while old := await self.surroundings.store.old_jobs(self._limits()):
            await self._forget_jobs(old)
            jobs += len(old)
        if jobs:
            settings = self.surroundings.settings
            _log.info(
                "%d ended jobs are forgotten, with their output (keepJobs is %d, keepJobsFor %g s, keepOutputs %d)",
                jobs,
                settings.keep_jobs,
                settings.keep_jobs_for,
                settings.keep_outputs,
            )
        return Forgotten(jobs=jobs, sessions=sessions)

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

    async def _forget_jobs(self, old: tuple[JobId, ...]) -> None:
        records = tuple(JobForgotten(job=job) for job in old)
        await self.surroundings.store.append(records, at=self.surroundings.wall())
        self.jobs.forget(old)

    async def _forget_sessions(self) -> tuple[SessionKey, ...]:
        gone: list[SessionKey] = []
        kept: set[SessionKey] = set()
        while old := await self.surroundings.store.old_sessions(self._limits()):
            left = [key for key in old if key not in kept]
            if not left:
                break
            for key in left:
                if await self._forget_session(key):
                    gone.append(key)
                else:
                    kept.add(key)
        if gone:
            await self.sessions.directories.sweep()
        return tuple(gone)

    async def _forget_session(self, key: SessionKey) -> bool:
        """Unless somebody has opened it. Its files are the agent's work, and stay."""
        store, place = self.surroundings.store, self.sessions.place_of(key)
        if await self.sessions.set_aside(key, (place.data.parent,)) is None:
            return False
        while old := await store.jobs_of(key):
            await self._forget_jobs(old)
        settings = self.surroundings.settings
        detail = (
            f"forgotten, with its conversation (keepSessions is {settings.keep_sessions}, keepSessionsFor "
            f"{settings.keep_sessions_for:g} s); its files stay in {place.workspace}"
        )
        _log.info("session %s is %s", key, detail)
        said = SessionChanged(session=key, status=SessionStatus.ABSENT, detail=detail)
        await store.append((SessionForgotten(session=key),), (said,), at=self.surroundings.wall())
        return True
