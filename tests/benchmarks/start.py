"""How long until the first word, beside the same done by hand in the same run.

    python -m tests.benchmarks.start [ROUNDS]

Cold: from nothing to the first piece of text: container, server, conversation, prompt.
Warm: the next prompts of the same conversation, each from the call to the first piece of text.
By hand: `podman run`, health asked for with short probes, raw HTTP, raw event stream. Both sides take
turns, so that a noisy machine is noisy for both; what counts is the ratio.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import perf_counter

import httpx
import trio
from attrs import define, evolve, field

from opencode_actors import System
from opencode_actors.containers import SessionPlace, container_spec
from opencode_actors.machines.names import directory_name, session_key
from opencode_actors.machines.notices import OutputAdded
from opencode_actors.ports import ContainerSpec
from opencode_actors.workdirs import HostDirectories
from tests.e2e.rig import Rig, open_rig

_PROMPT = "::say hello"
_PASSWORD = "by-hand"
_WARM_PROMPTS = 20
_PROBE_WITHIN = 0.2
_PROBE_EVERY = 0.05


@define
class Times:
    cold: list[float] = field(factory=list[float])
    warm: list[float] = field(factory=list[float])


async def by_hand(rig: Rig, times: Times, label: str) -> None:
    key = session_key(f"hand-{label}")
    place = SessionPlace(
        key=key,
        container_name=f"opencode-actors-by-hand-{label}",
        data=rig.base / "hand" / directory_name(key) / "data",
        workspace=rig.base / "hand" / directory_name(key) / "workspace",
        owner="by-hand",
    )
    await HostDirectories(rig.settings, rig.access).make(place, (1000, 1000))
    spec = container_spec(rig.settings, rig.access, place, password=_PASSWORD)
    began = perf_counter()
    await trio.run_process(["podman", "run", "--detach", *_flags(spec), spec.image], capture_stdout=True)
    try:
        asked = await trio.run_process(["podman", "port", spec.name, "4096"], capture_stdout=True)
        url = f"http://127.0.0.1:{asked.stdout.decode().rpartition(':')[2].strip()}"
        await _healthy(url)
        async with _client(url) as client, _events(client) as deltas:
            session = (await client.post("/session", json={"title": "by hand"})).json()["id"]
            await _prompt(client, session)
            await deltas()
            times.cold.append(perf_counter() - began)
            for _ in range(_WARM_PROMPTS):
                await _idle(client, session)
                began = perf_counter()
                await _prompt(client, session)
                await deltas()
                times.warm.append(perf_counter() - began)
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 30):
            await trio.run_process(["podman", "rm", "--force", "--time", "0", spec.name], capture_stdout=True)


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


@asynccontextmanager
async def _client(url: str) -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        base_url=url, auth=("opencode", _PASSWORD), timeout=60, trust_env=False
    ) as client:
        yield client


async def _healthy(url: str) -> None:
    while True:
        try:
            async with httpx.AsyncClient(auth=("opencode", _PASSWORD), trust_env=False) as client:
                answer = await client.get(f"{url}/global/health", timeout=_PROBE_WITHIN)
                if answer.is_success:
                    return
        except httpx.TransportError:
            await trio.sleep(_PROBE_EVERY)


async def _prompt(client: httpx.AsyncClient, session: str) -> None:
    body = {"parts": [{"type": "text", "text": _PROMPT}]}
    (await client.post(f"/session/{session}/prompt_async", json=body)).raise_for_status()


async def _idle(client: httpx.AsyncClient, session: str) -> None:
    while session in (await client.get("/session/status")).json():  # noqa: ASYNC110 - by hand
        await trio.sleep(_PROBE_EVERY)


@asynccontextmanager
async def _events(client: httpx.AsyncClient) -> AsyncGenerator[Callable[[], Awaitable[None]]]:
    async with client.stream("GET", "/global/event", timeout=None) as response:
        lines = response.aiter_lines()

        async def delta() -> None:
            async for line in lines:
                if line.startswith("data:"):
                    payload = json.loads(line[5:])["payload"]
                    if payload["type"] == "message.part.delta":
                        return

        yield delta


async def by_us(system: System, times: Times, label: str) -> None:
    for kind in (times.cold, *[times.warm] * _WARM_PROMPTS):
        began = perf_counter()
        job = await system.start(_PROMPT, session=label)
        async for notice in system.follow(job.id):
            if isinstance(notice, OutputAdded):
                kind.append(perf_counter() - began)
                break
        await job.wait()
    await system.close_session(label)


async def main(rounds: int) -> None:
    hand, ours = Times(), Times()
    async with open_rig("podman") as rig, rig.system(evolve(rig.settings, max_sessions=2)) as system:
        for number in range(rounds):
            await by_hand(rig, hand, f"r{number}")
            await by_us(system, ours, f"r{number}")
            print(f"round {number + 1} of {rounds}", file=sys.stderr)  # noqa: T201
    print(f"{'':6}{'by hand':>12}{'opencode-actors':>18}{'ratio':>8}   medians of {rounds}")  # noqa: T201
    for name in ("cold", "warm"):
        there = statistics.median(getattr(hand, name))
        here = statistics.median(getattr(ours, name))
        print(f"{name:6}{there:10.3f} s{here:16.3f} s{here / there:8.2f}")  # noqa: T201


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 5)
