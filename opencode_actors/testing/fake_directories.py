"""Sessions' directories without the thread that the real ones have: threads take real time.

Held to the same contract tests as the real ones, but for logins and links, which it knows nothing of.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import trio
from attrs import define, field

from opencode_actors.containers import NO_AGENTS, HostAgents, SessionPlace
from opencode_actors.directory_copy import Copied
from opencode_actors.errors import StoreError


@define(eq=False)
class FakeDirectories:
    """`full` makes it refuse jobs, `sizes` are what sessions' data takes, by key; `tidied` whose turn it was;
    `agents` are those of the host's config; `copied` is told when a conversation is copied, for the disks of
    fake servers."""

    full: bool = False
    bound: int = 0
    agents: HostAgents = NO_AGENTS
    sizes: dict[str, int] = field(factory=dict[str, int])
    tidied: list[str] = field(factory=list[str])
    copied: Callable[[Path, Path], None] = lambda _source, _target: None

    async def check_room(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.full:
            raise StoreError("sessionsDir has only 0 B free", hint="make room on that disk")

    async def make(self, place: SessionPlace, owner: tuple[int, int]) -> HostAgents:
        del owner
        for folder in (place.data, place.workspace):
            folder.mkdir(parents=True, exist_ok=True)
        await trio.lowlevel.checkpoint()
        if 0 < self.bound < self.sizes.get(place.key, 0):
            raise StoreError(f"the data of session {place.key} takes too much")
        return self.agents

    async def tidy(self, place: SessionPlace) -> int:
        await trio.lowlevel.checkpoint()
        self.tidied.append(place.key)
        return self.sizes.get(place.key, 0)

    async def has_conversation(self, place: SessionPlace) -> bool:
        await trio.lowlevel.checkpoint()
        return place.data.is_dir()

    async def copy_workspace(
        self, source: SessionPlace, target: SessionPlace, owner: tuple[int, int]
    ) -> Copied:
        del owner
        await trio.lowlevel.checkpoint()
        _copy(source.workspace, target.workspace)
        files = [path for path in target.workspace.rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
        return Copied(repository=(target.workspace / ".git").exists(), files=len(files), size=size)

    async def copy_conversation(
        self, source: SessionPlace, target: SessionPlace, owner: tuple[int, int]
    ) -> None:
        del owner
        await trio.lowlevel.checkpoint()
        _copy(source.data, target.data)
        self.copied(source.data, target.data)

    async def set_aside(self, folder: Path) -> bool:
        await trio.lowlevel.checkpoint()
        return _removed(folder)

    async def sweep(self) -> None:
        await trio.lowlevel.checkpoint()


def _copy(source: Path, target: Path) -> None:
    if target.exists() or not source.is_dir():
        raise StoreError(f"{source} cannot be copied to {target}")
    shutil.copytree(source, target, symlinks=True)


def _removed(folder: Path) -> bool:
    there = folder.exists()
    shutil.rmtree(folder, ignore_errors=True)
    return there
