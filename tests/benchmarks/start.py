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
from opencode_actors.machines.notices import OutputAdded
from tests.benchmarks.by_hand import open_container, spec_by_hand, until_idle
from tests.e2e.rig import Rig, open_rig

_PROMPT = "::say hello"
_WARM_PROMPTS = 20


@define
class Times:
    cold: list[float] = field(factory=list[float])
    warm: list[float] = field(factory=list[float])


async def by_hand(rig: Rig, times: Times, label: str) -> None:
    spec = await spec_by_hand(rig.settings, rig.access, rig.base, label)
    began = perf_counter()
    async with open_container(spec) as client, _events(client) as deltas:
        session = (await client.post("/session", json={"title": "by hand"})).json()["id"]
        await _prompt(client, session)
        await deltas()
        times.cold.append(perf_counter() - began)
        for _ in range(_WARM_PROMPTS):
            await until_idle(client, session)
            began = perf_counter()
            await _prompt(client, session)
            await deltas()
            times.warm.append(perf_counter() - began)


async def _prompt(client: httpx.AsyncClient, session: str) -> None:
    body = {"parts": [{"type": "text", "text": _PROMPT}]}
    (await client.post(f"/session/{session}/prompt_async", json=body)).raise_for_status()


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
