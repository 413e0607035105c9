"""A session's own directories on the host: its OpenCode data and its workspace."""

from __future__ import annotations

import errno
import logging
import os
import secrets
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeVar, TypeVarTuple

import trio
from attrs import field, frozen

from opencode_actors.agents_files import give, made_directory, names, open_root, opened, remove, replace
from opencode_actors.containers import (
    AUTH_FILE,
    DATABASE,
    NO_AGENTS,
    HostAgents,
    ModelAccess,
    SessionPlace,
    config_copy,
)
from opencode_actors.directory_copy import Copied, Limits, NoRoom, copy_conversation, copy_tree
from opencode_actors.disk_use import prune, size_of
from opencode_actors.errors import StoreError
from opencode_actors.host_agents import host_agents
from opencode_actors.login_exchange import LoginExchange
from opencode_actors.settings import Settings
from opencode_actors.settings_knobs import show_size
from opencode_actors.workspace_code import workspace_code

_log = logging.getLogger("opencode_actors")

# What is on its way out: named so that whoever looks sees it, and the next clean-up finds it.
_LEAVING = ".opencode-actors-removed-"
# What agents, and not disks, do to what is theirs.
_IN_THE_WAY = frozenset((errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM))
# So many files that OpenCode runs by itself are named in one line.
_NAMED = 5

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Directories(Protocol):
    """What is done to sessions' directories. Every method raises `StoreError`, and nothing else."""

    async def check_room(self) -> None:
        """Whether a job can be started: with a disk that is full, not even its end could be recorded."""
        ...

    async def make(self, place: SessionPlace, owner: tuple[int, int]) -> HostAgents:
        """Before a container starts: makes what is missing, gives it to `owner`, the container's user, and
        copies the host's logins and config in. Refuses data that is larger than its bound, and a config that
        it cannot read the agents of."""
        ...

    async def tidy(self, place: SessionPlace) -> int:
        """Between jobs and after a container: carries renewed logins back to the host, removes what can go
        of data that is larger than its bound. How much the data takes, in bytes."""
        ...

    async def has_conversation(self, place: SessionPlace) -> bool:
        """Whether OpenCode's own record of what was said is there."""
        ...

    async def copy_workspace(
        self, source: SessionPlace, target: SessionPlace, owner: tuple[int, int]
    ) -> Copied:
        """All files as they are now become those of a session that has none yet, and are given to `owner`."""
        ...

    async def copy_conversation(
        self, source: SessionPlace, target: SessionPlace, owner: tuple[int, int]
    ) -> None:
        """The same of OpenCode's data, also while its server runs."""
        ...

    async def set_aside(self, folder: Path) -> bool:
        """One that nobody uses gets another name, at once; whether it was there."""
        ...

    async def sweep(self) -> None:
        """Removes what was set aside, with all that is in it and nothing that it points to."""
        ...


@frozen
class HostDirectories:
    settings: Settings
    access: ModelAccess
    _coming: set[str] = field(factory=set[str], init=False, repr=False, eq=False)

    async def check_room(self) -> None:
        least = self.settings.min_free_disk
        if not least:
            return
        for name, folder in (
            ("sessionsDir", self.settings.sessions_dir),
            ("workspacesDir", self.settings.workspaces_dir),
        ):
            free = await _in_thread(f"{folder} cannot be looked at", _free, folder, abandon=True)
            if free < least:
                raise StoreError(
                    f"{name} ({folder}) has only {show_size(free)} free, and minFreeDisk is {show_size(least)}",
                    hint="make room on that disk, clean sessions up, or lower minFreeDisk",
                )

    async def make(self, place: SessionPlace, owner: tuple[int, int]) -> HostAgents:
        size, agents = await _in_thread(
            f"the directories of session {place.key} cannot be made", self._make_all, place, owner
        )
        unread = f"the workspace of session {place.key} cannot be looked into"
        if code := await _in_thread(unread, workspace_code, place.workspace):
            _log.warning(
                "the workspace of session %s has code that OpenCode runs by itself: %s",
                place.key,
                ", ".join(code[:_NAMED]),
            )
        bound = self.settings.max_session_disk
        if 0 < bound < size:
            raise StoreError(
                f"the data of session {place.key} takes {show_size(size)} (maxSessionDisk is {show_size(bound)})",
                hint="use another session, clean this one up, or raise maxSessionDisk",
            )
        return agents

    async def tidy(self, place: SessionPlace) -> int:
        what = f"the data of session {place.key} cannot be tidied up"
        return await _in_thread(what, self._tidy, place, abandon=True)

    async def has_conversation(self, place: SessionPlace) -> bool:
        unread = f"the data of session {place.key} cannot be looked into"
        return await _in_thread(unread, (place.data / DATABASE).is_file, abandon=True)

    async def copy_workspace(
        self, source: SessionPlace, target: SessionPlace, owner: tuple[int, int]
    ) -> Copied:
        await self._check_room_for(source.workspace)
        what = f"the files of session {source.key} in {source.workspace} cannot be copied"
        return await _in_thread(what, self._copied, source.workspace, target.workspace, owner, copy_tree)

    async def copy_conversation(
        self, source: SessionPlace, target: SessionPlace, owner: tuple[int, int]
    ) -> None:
        what = f"the conversation of session {source.key} in {source.data} cannot be copied"
        await _in_thread(what, self._copied, source.data, target.data, owner, copy_conversation)

    async def _check_room_for(self, folder: Path) -> None:
        """What is known beforehand. What it grows to meanwhile is seen while it is copied."""
        what = f"{folder} cannot be looked at"
        size = await _in_thread(what, _size_of, folder, abandon=True)
        free = await _in_thread(what, _free, folder, abandon=True)
        if free - size < self.settings.min_free_disk:
            raise self._no_room(
                f"a copy of {folder} takes {show_size(size)}, and only {show_size(free)} are free"
            )

    def _no_room(self, what: str) -> StoreError:
        return StoreError(
            f"{what} (minFreeDisk is {show_size(self.settings.min_free_disk)})",
            hint="make room on that disk, clean sessions up, or lower minFreeDisk",
        )

    def _copied(self, source: Path, target: Path, owner: tuple[int, int], copy: Callable[..., T]) -> T:
        """Under its own name only when it is whole. What is half done when the process ends goes with the
        next clean-up. Who is cancelled waits for the piece that is copied just now, and for its removal."""
        if os.path.lexists(target):
            raise FileExistsError(f"{target} is there already")
        target.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
        coming = target.with_name(f"{_LEAVING}{secrets.token_hex(8)}")
        self._coming.add(coming.name)
        limits = Limits(least_free=self.settings.min_free_disk, go_on=trio.from_thread.check_cancelled)
        try:
            _make(coming, owner)
            with opened(open_root(source)) as here, opened(open_root(coming)) as there:
                done = copy(here, there, owner, limits)
            coming.rename(target)
        except NoRoom as error:
            raise self._no_room(
                f"the copy of {source} was ended, for it is larger than what is free"
            ) from error
        finally:
            with opened(open_root(coming.parent)) as above:
                remove(coming.name, above)  # nothing, when it has its own name
            self._coming.discard(coming.name)
        return done

    async def set_aside(self, folder: Path) -> bool:
        return await _in_thread(f"{folder} cannot be removed", _set_aside, folder)

    async def sweep(self) -> None:
        for folder in (self.settings.sessions_dir, self.settings.workspaces_dir):
            coming = frozenset(self._coming)
            await _in_thread(f"what was in {folder} cannot be removed", _sweep, folder, coming, abandon=True)

    def _make_all(self, place: SessionPlace, owner: tuple[int, int]) -> tuple[int, HostAgents]:
        agents = NO_AGENTS
        for folder in (place.data, place.workspace):
            _make(folder, owner)
        if self.access.auth_file is not None:
            LoginExchange(self.access.auth_file).renew(place, owner)
        if self.access.config_file is not None:
            with (
                opened(open_root(place.data)) as data,
                made_directory(str(AUTH_FILE.parent), data, owner) as copies,
            ):
                name = config_copy(self.access.config_file).name
                content = _follow(name, copies, self.access.config_file, owner)
            agents = host_agents(self.access.config_file, content)
        return self._prune(place), agents

    def _tidy(self, place: SessionPlace) -> int:
        if not place.data.is_dir():
            return 0
        if self.access.auth_file is not None:
            LoginExchange(self.access.auth_file).carry_back(place)
        return self._prune(place)

    def _prune(self, place: SessionPlace) -> int:
        with opened(open_root(place.data)) as data:
            return prune(data, bound=self.settings.max_session_disk or 1 << 62)


async def _in_thread(what: str, call: Callable[[*Ts], T], *arguments: *Ts, abandon: bool = False) -> T:
    """Who is cancelled does not wait for a disk that hangs, if what is done may end unseen: `abandon`."""
    try:
        return await trio.to_thread.run_sync(call, *arguments, abandon_on_cancel=abandon)
    except OSError as error:
        raise StoreError(f"{what}: {error}", hint=_what_to_look_at(error)) from error


def _what_to_look_at(error: OSError) -> str:
    """What is an agent's is reached from the directory above it, and has no path in the error."""
    name: object = error.filename
    if error.errno not in _IN_THE_WAY or (isinstance(name, str) and Path(name).is_absolute()):
        return "check sessionsDir and workspacesDir: they must be yours and have room"
    what = repr(name) if isinstance(name, str) else "what is"
    return f"look at {what} there: it is not what it should be, or not yours to read"


def _make(folder: Path, owner: tuple[int, int]) -> None:
    """The folder alone is the agent's; what it lies in is the host's, so this path cannot be bent."""
    folder.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
    if folder.is_dir():
        return
    folder.mkdir(mode=0o700)
    with opened(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)) as made:
        give(made, owner)


def _follow(name: str, folder: int, source: Path, owner: tuple[int, int]) -> bytes:
    """The config is the host's each time: no server writes to it. What it says now."""
    if source.exists():
        content = source.read_bytes()
        replace(name, folder, content, owner)
        return content
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)
    return b""


def _free(folder: Path) -> int:
    """Of the nearest directory that exists: that is where the missing ones will be made."""
    for place in (folder, *folder.parents):
        try:
            return shutil.disk_usage(place).free
        except FileNotFoundError:
            continue
    raise FileNotFoundError(str(folder))


def _size_of(folder: Path) -> int:
    with opened(open_root(folder)) as here:
        return size_of(here)


def _set_aside(folder: Path) -> bool:
    if not folder.parent.is_dir():
        return False
    with opened(open_root(folder.parent)) as above:
        leaving = f"{_LEAVING}{secrets.token_hex(8)}"
        try:
            os.rename(folder.name, leaving, src_dir_fd=above, dst_dir_fd=above)
        except FileNotFoundError:
            return False
    return True


def _sweep(folder: Path, but: frozenset[str]) -> None:
    if not folder.is_dir():
        return
    with opened(open_root(folder)) as above:
        for name in names(above):
            # Those, too, that somebody did not come to the end with.
            if name.startswith(_LEAVING) and name not in but:
                remove(name, above)
