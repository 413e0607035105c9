"""Where Podman and Docker listen, who answers there, and what to tell a user when nobody does."""

from __future__ import annotations

import os
import socket as sockets
import stat
import struct
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import httpx
from attrs import frozen

from opencode_actors.adapters.engine_http import engine_http_client, why_unreachable
from opencode_actors.errors import EngineUnavailable

PING_WITHIN = 5.0
# A unix socket's path may have 107 characters.
SOCKET_PATH_LIMIT = 107

INSTALL_PODMAN = (
    "Debian, Ubuntu: `apt-get install podman runc netavark iptables catatonit` (rootless also uidmap and"
    " slirp4netns); Fedora: `dnf install podman`; Arch: `pacman -S podman`."
)
PODMAN_BY_HAND = (
    "`podman info` shows the same fault by itself. A user without subordinate ids needs"
    " `usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER` and `podman system migrate`."
)
START_DOCKER = (
    "Install it with `apt-get install docker.io` and start it with `systemctl start docker`; or set"
    " DOCKER_HOST=unix:///path when its socket is elsewhere."
)


def docker_hint(reasons: tuple[str, ...]) -> str:
    if any("permission denied" in reason for reason in reasons):
        return "Add this user to the group docker (`sudo usermod -aG docker $USER`) and log in again."
    return START_DOCKER


@frozen(kw_only=True)
class Answer:
    """What /_ping said; the headers tell the engines apart."""

    socket: Path
    headers: Mapping[str, str]


async def ping(socket: Path) -> Answer:
    """Raises httpx.TransportError. On a fresh connection, so that it tells of now."""
    async with engine_http_client(socket, answer_within=PING_WITHIN) as client:
        response = await client.get("/_ping")
    return Answer(socket=socket, headers=dict(response.headers))


async def first_answer(candidates: tuple[Path, ...]) -> tuple[Answer | None, tuple[str, ...]]:
    """The first socket that answers, or why each of them did not."""
    reasons: list[str] = []
    for candidate in candidates:
        try:
            return await ping(candidate), ()
        except httpx.TimeoutException:
            reasons.append(f"{candidate}: it took the connection and does not answer")
        except httpx.TransportError as error:
            reasons.append(f"{candidate}: {why_unreachable(error)}")
    return None, tuple(reasons)


def podman_sockets(environment: Mapping[str, str], *, uid: int) -> tuple[Path, ...]:
    """Podman's own sockets. A rootful one is not for other users unless they set `engineSocket`."""
    candidates: list[Path] = []
    if runtime_dir := environment.get("XDG_RUNTIME_DIR"):
        candidates.append(Path(runtime_dir) / "podman/podman.sock")
    if uid == 0:
        candidates.append(Path("/run/podman/podman.sock"))
    return tuple(candidates)


def docker_sockets(environment: Mapping[str, str]) -> tuple[Path, ...]:
    """DOCKER_HOST alone when it is set: falling back to another engine would be a surprise."""
    if host := environment.get("DOCKER_HOST"):
        return (unix_socket(host, "DOCKER_HOST"),)
    candidates = [Path("/var/run/docker.sock")]
    if runtime_dir := environment.get("XDG_RUNTIME_DIR"):
        candidates.insert(0, Path(runtime_dir) / "docker.sock")
    return tuple(candidates)


def unix_socket(address: str, named: str) -> Path:
    if address.startswith("/"):
        return Path(address)
    if address.startswith("unix://"):
        return Path(address.removeprefix("unix://"))
    raise EngineUnavailable(
        f"{named} is {address!r}, which is not a unix socket on this machine",
        hint="The engine must run on this machine: its containers' processes and directories are used"
        " directly. Give a path, or unix:///path.",
    )


def runtime_folder(environment: Mapping[str, str], *, uid: int) -> Path:
    """Private, short, gone after a reboot: the first of these that exists and leaves room for a socket."""
    places = [Path(environment["XDG_RUNTIME_DIR"])] if environment.get("XDG_RUNTIME_DIR") else []
    if uid == 0:
        places.append(Path("/run"))
    for place in places:
        folder = place / "opencode-actors"
        if (
            place.is_dir()
            and os.access(place, os.W_OK)
            and len(str(folder / "podman.sock")) <= SOCKET_PATH_LIMIT
        ):
            return folder
    return Path(f"/tmp/opencode-actors-{uid}")  # noqa: S108 - `make_private` refuses somebody else's


def make_private(folder: Path, *, uid: int) -> None:
    """The folder holds a socket that can do whatever its owner can: nobody else may have made it."""
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700, parents=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != uid or status.st_mode & 0o077:
        raise EngineUnavailable(
            f"{folder} is not a private directory of this user",
            hint=f"Remove it (`rm -r {folder}`), or set XDG_RUNTIME_DIR to a private directory.",
        )


def listener(socket: Path) -> int | None:
    """The process that listens on a unix socket, from the kernel; None when nobody does."""
    with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as probe:
        probe.settimeout(0)
        try:
            probe.connect(str(socket))
        except OSError:
            return None
        credentials = probe.getsockopt(sockets.SOL_SOCKET, sockets.SO_PEERCRED, struct.calcsize("3i"))
    pid: int = struct.unpack("3i", credentials)[0]
    return pid
