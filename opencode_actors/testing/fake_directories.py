"""Sessions' directories without the thread that the real ones have: threads take real time.

Held to the same contract tests as the real ones, but for logins and links, which it knows nothing of.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import trio
from attrs import define, field

from opencode_actors.containers import SessionPlace
from opencode_actors.errors import StoreError


@define(eq=False)
class FakeDirectories:
    """`full` makes it refuse jobs, `sizes` are what sessions' data takes, by key; `tidied` whose turn it was."""

    full: bool = False
    bound: int = 0
    sizes: dict[str, int] = field(factory=dict[str, int])
    tidied: list[str] = field(factory=list[str])

    async def check_room(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.full:
            raise StoreError("sessionsDir has only 0 B free", hint="make room on that disk")

    async def make(self, place: SessionPlace, owner: tuple[int, int]) -> None:
        del owner
        for folder in (place.data, place.workspace):
            folder.mkdir(parents=True, exist_ok=True)
        await trio.lowlevel.checkpoint()
        if 0 < self.bound < self.sizes.get(place.key, 0):
            raise StoreError(f"the data of session {place.key} takes too much")

    async def tidy(self, place: SessionPlace) -> int:
        await trio.lowlevel.checkpoint()
        self.tidied.append(place.key)
        return self.sizes.get(place.key, 0)

    async def has_conversation(self, place: SessionPlace) -> bool:
        await trio.lowlevel.checkpoint()
        return place.data.is_dir()

    async def set_aside(self, folder: Path) -> bool:
        await trio.lowlevel.checkpoint()
        return _removed(folder)

    async def sweep(self) -> None:
        await trio.lowlevel.checkpoint()


def _removed(folder: Path) -> bool:
    there = folder.exists()
    shutil.rmtree(folder, ignore_errors=True)
    return there
