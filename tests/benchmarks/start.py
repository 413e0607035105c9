"""How long a first job takes until its first word, beside the same done by hand in the same run.

    python -m tests.benchmarks.start [ROUNDS]

From nothing to the first piece of text: container, server, conversation, prompt.
By hand: `podman run`, health asked for every 20 ms with short probes of one client, raw HTTP, raw event stream. Both
sides take turns, and each is first in every second round, so that a noisy machine is noisy for both; what counts is the
ratio.
"""

from __future__ import annotations

import json
import statistics
import sys
from time import perf_counter

import trio
from attrs import evolve

from opencode_actors import System
from opencode_actors.machines.notices import OutputAdded
from tests.benchmarks.by_hand import open_container, spec_by_hand
from tests.e2e.rig import Rig, open_rig

_PROMPT = "::say hello"


async def by_hand(rig: Rig, label: str) -> float:
    spec = await spec_by_hand(rig.settings, rig.access, rig.base, label)
    began = perf_counter()
    async with open_container(spec) as client, client.stream("GET", "/global/event", timeout=None) as events:
        session = (await client.post("/session", json={"title": "by hand"})).json()["id"]
        body = {"parts": [{"type": "text", "text": _PROMPT}]}
        (await client.post(f"/session/{session}/prompt_async", json=body)).raise_for_status()
        async for line in events.aiter_lines():
            if line.startswith("data:") and json.loads(line[5:])["payload"]["type"] == "message.part.delta":
                return perf_counter() - began
    raise RuntimeError("the server by hand ended its stream before it had said a word")


async def by_us(system: System, label: str) -> float:
    began = perf_counter()
    job = await system.start(_PROMPT, session=label)
    async for notice in system.follow(job.id):
        if isinstance(notice, OutputAdded):
            break
    taken = perf_counter() - began
    await job.wait()
    await system.close_session(label)
    return taken


async def main(rounds: int) -> None:
    hand: list[float] = []
    ours: list[float] = []
    async with open_rig("podman") as rig, rig.system(evolve(rig.settings, max_sessions=2)) as system:
        for number in range(rounds):
            if number % 2:
                ours.append(await by_us(system, f"r{number}"))
            hand.append(await by_hand(rig, f"r{number}"))
            if not number % 2:
                ours.append(await by_us(system, f"r{number}"))
            print(f"round {number + 1} of {rounds}", file=sys.stderr)  # noqa: T201
    there, here = statistics.median(hand), statistics.median(ours)
    print(f"{'by hand':>9}{'opencode-actors':>18}{'ratio':>8}   medians of {rounds}")  # noqa: T201
    print(f"{there:7.3f} s{here:16.3f} s{here / there:8.2f}")  # noqa: T201


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 5)
