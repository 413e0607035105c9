"""Ending what is idle and, if that is asked for, removing what it left on the disk."""

from __future__ import annotations

from pathlib import Path

from attrs import define, field, frozen

from opencode_actors.containers import SessionPlace
from opencode_actors.kernel.sessions import Sessions
from opencode_actors.machines.session_messages import Refused
from opencode_actors.machines.vocabulary import SessionKey
from opencode_actors.store.port import KnownSession


@frozen(kw_only=True)
class Kept:
    """A session that was left as it is, and why."""

    session: SessionKey
    why: str


@frozen(kw_only=True)
class CleanedUp:
    """`ended` are the sessions that were open and are not any more, `removed` the directories that are gone."""

    ended: tuple[SessionKey, ...]
    removed: tuple[Path, ...]
    kept: tuple[Kept, ...]


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

    async def run(self, known: tuple[KnownSession, ...]) -> CleanedUp:
        for session in known:
            await self._clean_up(session)
        if self.data or self.workspaces:
            await self.sessions.directories.sweep()
        return CleanedUp(ended=tuple(self._ended), removed=tuple(self._removed), kept=tuple(self._kept))

    async def _clean_up(self, session: KnownSession) -> None:
        key = session.key
        if session.used_at is not None and session.used_at > self.unused_since:
            self._kept.append(Kept(session=key, why="it was used lately"))
            return
        answer = await self.sessions.retire_if_open(key, "idle, and cleaned up")
        if isinstance(answer, Refused):
            self._kept.append(Kept(session=key, why=answer.reason))
            return
        if answer is not None:
            self._ended.append(key)
        folders = self._folders(self.sessions.place_of(key))
        removed = await self.sessions.set_aside(key, folders)
        if removed is None:
            self._kept.append(Kept(session=key, why=f"session {key} has a job again"))
        else:
            self._removed += removed

    def _folders(self, place: SessionPlace) -> tuple[Path, ...]:
        data = (place.data.parent,) if self.data else ()
        return (*data, place.workspace) if self.workspaces else data
