"""A container with OpenCode in it as a person would start one: `podman run` and the same options, and nobody who watches."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import trio

from opencode_actors import ModelAccess, Settings
from opencode_actors.containers import SessionPlace, container_spec
from opencode_actors.machines.names import directory_name, session_key
from opencode_actors.ports import ContainerSpec
from opencode_actors.workdirs import HostDirectories

_PASSWORD = "by-hand"
_PROBE_WITHIN = 0.2
_PROBE_EVERY = 0.02
_LOOK_EVERY = 0.05


async def spec_by_hand(settings: Settings, access: ModelAccess, base: Path, label: str) -> ContainerSpec:
    """With directories of its own below `base`."""
    key = session_key(f"hand-{label}")
    place = SessionPlace(
        key=key,
        container_name=f"opencode-actors-by-hand-{label}",
        data=base / "hand" / directory_name(key) / "data",
        workspace=base / "hand" / directory_name(key) / "workspace",
        owner="by-hand",
    )
    await HostDirectories(settings, access).make(place, (1000, 1000))
    return container_spec(settings, access, place, password=_PASSWORD)


@asynccontextmanager
async def open_container(spec: ContainerSpec) -> AsyncGenerator[httpx.AsyncClient]:
    """A client of its server, as soon as that says it is healthy."""
    await trio.run_process(["podman", "run", "--detach", *_flags(spec), spec.image], capture_stdout=True)
    try:
        asked = await trio.run_process(["podman", "port", spec.name, "4096"], capture_stdout=True)
        url = f"http://127.0.0.1:{asked.stdout.decode().rpartition(':')[2].strip()}"
        # One for all probes and what follows: to make one takes 16 ms.
        async with httpx.AsyncClient(
            base_url=url, auth=("opencode", _PASSWORD), timeout=60, trust_env=False
        ) as client:
            await _healthy(client)
            yield client
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 30):
            await trio.run_process(["podman", "rm", "--force", "--time", "0", spec.name], capture_stdout=True)


async def until_idle(client: httpx.AsyncClient, session: str) -> None:
    """A prompt that comes while the server leaves the one before is taken, and never run."""
    while session in (await client.get("/session/status")).json():  # noqa: ASYNC110 - by hand
        await trio.sleep(_LOOK_EVERY)


def _flags(spec: ContainerSpec) -> list[str]:
    flags = [
        *("--name", spec.name, "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        *("--read-only", "--init", "--user", "1000:1000", "--pids-limit", str(spec.pids)),
        *("--memory", str(spec.memory_bytes), "--memory-swap", str(spec.memory_bytes)),
        *("--cpus", str(spec.cpus), "--publish", "127.0.0.1::4096"),
        *("--tmpfs", f"/tmp:rw,nosuid,nodev,exec,size={spec.tmpfs_bytes}"),  # noqa: S108 - in the container
    ]
    for name, value in spec.environment.items():
        flags += ["--env", f"{name}={value}"]
    for mount in spec.mounts:
        flags += ["--volume", f"{mount.source}:{mount.target}{':ro' if mount.read_only else ''}"]
    return flags


async def _healthy(client: httpx.AsyncClient) -> None:
    while True:
        try:
            if (await client.get("/global/health", timeout=_PROBE_WITHIN)).is_success:
                return
        except httpx.TransportError:
            pass
        await trio.sleep(_PROBE_EVERY)
