"""What `doctor` knows of a host. Gathering decides nothing; what could not be found out is None."""

from __future__ import annotations

import getpass
import os
import shutil
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import trio
from attrs import frozen

from opencode_actors.adapters.engine import open_engine
from opencode_actors.credentials import Credentials, find_credentials
from opencode_actors.errors import EngineError, ImageMissing
from opencode_actors.git_identity import host_git_identity
from opencode_actors.image import ImageState, load_context
from opencode_actors.image.show import image_state
from opencode_actors.ports import Engine, EngineInfo
from opencode_actors.settings import Settings
from opencode_actors.settings_sources import LoadedSettings
from opencode_actors.workspace_code import workspace_code

ENGINE_WITHIN = 60.0  # starting a rootless Podman's service for the first time included


@frozen(kw_only=True)
class EngineFacts:
    """Either `info`, or why there is none."""

    info: EngineInfo | None
    problem: str = ""
    hint: str = ""


@frozen(kw_only=True)
class Storage:
    """Where a Podman of this user keeps things, as its storage.conf files say."""

    graph_root: Path
    run_root: Path


@frozen(kw_only=True)
class Disk:
    name: str
    path: Path
    free_bytes: int | None


@frozen(kw_only=True)
class HostFacts:
    user: str
    uid: int
    loaded: LoadedSettings
    engine: EngineFacts
    image: ImageState | None
    credentials: Credentials
    git_name: str
    git_email: str
    subuids: int
    subgids: int
    systemd: bool
    lingering: bool
    storage: Storage | None
    disks: tuple[Disk, ...]
    total_memory_bytes: int | None
    workspace_code: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def settings(self) -> Settings:
        return self.loaded.settings


async def gather(loaded: LoadedSettings, environment: Mapping[str, str]) -> HostFacts:
    settings = loaded.settings
    engine, image = await _engine_and_image(settings)
    identity = await host_git_identity()
    uid, user = os.geteuid(), _user()
    storage = _podman_storage(environment, uid) if settings.runtime == "podman" else None
    return HostFacts(
        user=user,
        uid=uid,
        loaded=loaded,
        engine=engine,
        image=image,
        credentials=find_credentials(settings, environment),
        git_name=settings.git_user_name or identity.name,
        git_email=settings.git_user_email or identity.email,
        subuids=_subordinate_ids(Path("/etc/subuid"), user, uid),
        subgids=_subordinate_ids(Path("/etc/subgid"), user, uid),
        systemd=_exists("/run/systemd/system"),
        lingering=_exists(f"/var/lib/systemd/linger/{user}"),
        storage=storage,
        disks=_disks(settings, storage),
        total_memory_bytes=_total_memory(),
        workspace_code=_workspace_code(settings.workspaces_dir.expanduser()),
    )


async def _engine_and_image(settings: Settings) -> tuple[EngineFacts, ImageState | None]:
    try:
        with trio.fail_after(ENGINE_WITHIN):
            async with open_engine(runtime=settings.runtime, socket=settings.engine_socket) as engine:
                return EngineFacts(info=await engine.info()), await _image(engine, settings.image)
    except EngineError as error:
        return EngineFacts(info=None, problem=error.message, hint=error.hint), None
    except trio.TooSlowError:
        problem = f"{settings.runtime} does not answer within {ENGINE_WITHIN:g} s"
        return EngineFacts(info=None, problem=problem, hint=f"look at `{settings.runtime} info`"), None


async def _image(engine: Engine, reference: str) -> ImageState | None:
    try:
        return image_state(await engine.image(reference), load_context())
    except ImageMissing:
        return None


def _exists(path: str) -> bool:
    return Path(path).exists()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.geteuid())


def _subordinate_ids(path: Path, user: str, uid: int) -> int:
    """How many ids this user may hand to containers."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return 0
    total = 0
    for line in lines:
        owner, _, rest = line.strip().partition(":")
        count = rest.rpartition(":")[2]
        if owner in (user, str(uid)) and count.isdecimal():
            total += int(count)
    return total


def _podman_storage(environment: Mapping[str, str], uid: int) -> Storage:
    home = Path(environment.get("HOME") or Path.home())
    if uid == 0:
        files = [Path("/usr/share/containers/storage.conf"), Path("/etc/containers/storage.conf")]
        graph_root, run_root = Path("/var/lib/containers/storage"), Path("/run/containers/storage")
    else:
        config = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
        data = Path(environment.get("XDG_DATA_HOME") or home / ".local/share")
        files = [config / "containers/storage.conf"]
        graph_root = data / "containers/storage"
        run_root = Path(environment.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}") / "containers"
    if named := environment.get("CONTAINERS_STORAGE_CONF"):
        files = [Path(named)]
    for file in files:
        table = _storage_table(file)
        graph_root = Path(str(table.get("graphroot") or graph_root))
        run_root = Path(str(table.get("runroot") or run_root))
    return Storage(graph_root=graph_root, run_root=run_root)


def _storage_table(file: Path) -> dict[str, Any]:
    try:
        table: object = tomllib.loads(file.read_text(encoding="utf-8")).get("storage")
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return {}
    return cast(dict[str, Any], table) if isinstance(table, dict) else {}


def _disks(settings: Settings, storage: Storage | None) -> tuple[Disk, ...]:
    store = storage.graph_root if storage else Path("/var/lib/docker")
    places = (
        ("sessionsDir", settings.sessions_dir),
        ("workspacesDir", settings.workspaces_dir),
        (f"{settings.runtime}'s images", store),
    )
    return tuple(Disk(name=name, path=path, free_bytes=_free(path)) for name, path in places)


def _free(path: Path) -> int | None:
    """Of the nearest directory that exists: that is where the missing ones will be made."""
    for place in (path, *path.parents):
        try:
            return shutil.disk_usage(place).free
        except OSError:
            continue
    return None


def _workspace_code(folder: Path) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Of each workspace that has some."""
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    except OSError:
        return ()
    return tuple((name, code) for name in names if (code := workspace_code(folder / name)))


def _total_memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None
