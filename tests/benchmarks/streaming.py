"""How fast a long answer comes through, beside a bare reader of OpenCode's event stream in the same run.

    python -m tests.benchmarks.streaming [ROUNDS]

Through us: the server's event stream, the job's file and the journal, the websocket, until the client has the
last character. By hand: the same prompt in a container of the same kind that no service knows, its stream read line by line until the
server says that it is idle; nothing is understood of it, and nothing is kept. Both take turns, and what stands in for
the model has a process of its own for both. Ours is one process more on the way, the service's.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from time import perf_counter

import httpx
import trio

from opencode_actors import Settings
from opencode_actors.door.client import Client
from opencode_actors.testing.provider import MODEL
from tests.benchmarks.by_hand import open_container, spec_by_hand, until_idle
from tests.benchmarks.model import open_model
from tests.benchmarks.service import MEMORY, open_service
from tests.e2e.rig import short_folder

# Twenty times what the longest answer takes here. Seen once, in a container with a quarter of the memory: no end.
_HEARD_WITHIN = 60.0
_SIZES = {"small pieces": "::text 200000 chunk=20", "large pieces": "::text 2000000 chunk=2000"}


async def by_hand(server: httpx.AsyncClient, prompt: str) -> tuple[float, int]:
    """Seconds, and events. Nothing tells a bare reader that it has missed the end: it gives up, and asks anew."""
    while True:
        session = (await server.post("/session", json={"title": "by hand"})).json()["id"]
        await _read_by_hand(server, session, "::say hello")
        await until_idle(server, session)
        with trio.move_on_after(_HEARD_WITHIN):
            return await _read_by_hand(server, session, prompt)
        busy = session in (await server.get("/session/status")).json()
        said = f"the reader by hand heard of no end in {_HEARD_WITHIN:g} s, and the server is"
        print(f"{said} {'still at work' if busy else 'idle'}: once more", file=sys.stderr)  # noqa: T201
        await server.post(f"/session/{session}/abort")


async def _read_by_hand(server: httpx.AsyncClient, session: str, prompt: str) -> tuple[float, int]:
    events = 0
    async with server.stream("GET", "/global/event", timeout=None) as response:
        began = perf_counter()
        body = {"parts": [{"type": "text", "text": prompt}]}
        (await server.post(f"/session/{session}/prompt_async", json=body)).raise_for_status()
        async for line in response.aiter_lines():
            events += line.startswith("data:")
            if "session.idle" in line and session in line:
                break
        return perf_counter() - began, events


async def by_us(client: Client, prompt: str) -> tuple[float, int]:
    """Seconds, and bytes that the client has got."""
    began = perf_counter()
    job = (await client.call("start", prompt=prompt, session_id="demo"))["jobId"]
    followed = await client.call("follow", job_id=job)
    size = 0
    while True:
        notice = (await client.told())["params"]
        if notice.get("subscription") != followed["subscription"]:
            continue
        if notice["kind"] == "output":
            size += len(notice["text"])
        if notice["kind"] == "jobEnded":
            return perf_counter() - began, size


@asynccontextmanager
async def open_both() -> AsyncGenerator[tuple[httpx.AsyncClient, Client]]:
    """A server by hand, and a service that has containers of the same kind."""
    with short_folder() as base, open_model(base) as access:
        spec = await spec_by_hand(Settings(model=MODEL, memory=MEMORY), access, base, "streaming")
        async with (
            open_container(spec) as server,
            open_service(access.provider_socket) as (_, client),
        ):
            yield server, client


async def main(rounds: int) -> None:
    hand = {name: list[float]() for name in _SIZES}
    ours = {name: list[float]() for name in _SIZES}
    events: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for number in range(rounds):
        # Each round with containers of its own: a conversation that has grown long is compacted, which is another matter.
        async with open_both() as (server, client):
            await by_us(client, "::say hello")
            for name, prompt in _SIZES.items():
                seconds, events[name] = await by_hand(server, prompt)
                hand[name].append(seconds)
                seconds, sizes[name] = await by_us(client, prompt)
                ours[name].append(seconds)
        print(f"round {number + 1} of {rounds}", file=sys.stderr)  # noqa: T201
    columns = f"{'':14}{'bytes':>10}{'events':>9}{'by hand':>11}{'through us':>12}{'ratio':>8}"
    print(f"{columns}   medians of {rounds}")  # noqa: T201
    for name in _SIZES:
        there, here = statistics.median(hand[name]), statistics.median(ours[name])
        print(  # noqa: T201
            f"{name:14}{sizes[name]:>10,}{events[name]:>9,}{there:9.2f} s{here:10.2f} s{here / there:8.2f}"
        )


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 3)
