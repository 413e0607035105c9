"""Ending what is idle and, if that is asked for, removing what it left on the disk."""

from __future__ import annotations

import logging
from pathlib import Path

from attrs import define, field, frozen

from opencode_actors.containers import SessionPlace
from opencode_actors.errors import StoreError
from opencode_actors.kernel.sessions import Sessions
from opencode_actors.machines.notices import DirectoriesForgotten
from opencode_actors.machines.session_messages import Refused
from opencode_actors.machines.vocabulary import SessionKey
from opencode_actors.store.port import OnDisk, Store

_log = logging.getLogger("opencode_actors")


@frozen(kw_only=True)
class Kept:
    """A session that was left as it is, and why."""

    session: SessionKey
    why: str


@frozen(kw_only=True)
class CleanedUp:
    """`ended` are the sessions that were open and are not any more, `removed` the directories that are gone.
    `forgotten` are sessions whose conversation is not kept any more, by the settings, and `forgotten_jobs` is how
    many ended jobs are not."""

    ended: tuple[SessionKey, ...]
    removed: tuple[Path, ...]
    kept: tuple[Kept, ...]
    forgotten: tuple[SessionKey, ...] = ()
    forgotten_jobs: int = 0


@define(eq=False, kw_only=True)
class Cleanup:
    """One clean-up. Who has a job, or gets one meanwhile, is left alone."""

    sessions: Sessions
    data: bool
    workspaces: bool
    unused_since: float  # epoch seconds; who was used after it is kept
    _ended: list[SessionKey] = field(factory=list[SessionKey], init=False)
    _removed: list[Path] = field(factory=list[Path], init=False)
    _kept: list[Kept] = field(factory=list[Kept], init=False)

    async def run(self, store: Store) -> CleanedUp:
        """Looks at what is open or on the disk, and not at all that ever was."""
        directories = self.data or self.workspaces
        if not directories:
            for key in self.sessions.open_keys():
                await self._clean_up(OnDisk(key=key, used_at=(await store.session(key)).used_at))
        after = ""
        while directories and (
            page := await store.on_disk(data=self.data, workspaces=self.workspaces, after=after)
        ):
            gone = [self._forgotten(session) for session in page if await self._clean_up(session)]
            try:
                await store.append(tuple(gone))
            except StoreError as error:
                _log.warning("directories are gone, and the next clean-up looks for them again: %s", error)
            after = page[-1].key
        if directories:
            await self.sessions.directories.sweep()
        return CleanedUp(ended=tuple(self._ended), removed=tuple(self._removed), kept=tuple(self._kept))

    def _forgotten(self, session: OnDisk) -> DirectoriesForgotten:
        return DirectoriesForgotten(
            session=session.key, data=self.data, workspace=self.workspaces, since=session.last_seq
        )

    async def _clean_up(self, session: OnDisk) -> bool:
        """Whether nothing of it is left of what is to go."""
        key = session.key
        if session.used_at is not None and session.used_at > self.unused_since:
            self._kept.append(Kept(session=key, why="it was used lately"))
            return False
        answer = await self.sessions.retire_if_open(key, "idle, and cleaned up")
        if isinstance(answer, Refused):
            self._kept.append(Kept(session=key, why=answer.reason))
            return False
        if answer is not None:
            self._ended.append(key)
        folders = self._folders(self.sessions.place_of(key))
        removed = await self.sessions.set_aside(key, folders)
        if isinstance(removed, Refused):
            self._kept.append(Kept(session=key, why=removed.reason))
            return False
        self._removed += removed
        return True

    def _folders(self, place: SessionPlace) -> tuple[Path, ...]:
        data = (place.data.parent,) if self.data else ()
        return (*data, place.workspace) if self.workspaces else data
