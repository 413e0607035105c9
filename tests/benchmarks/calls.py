"""What one status and one page of output cost, beside `podman inspect` and `podman stats` in the same run.

    python -m tests.benchmarks.calls [ROUNDS]

The two commands of Podman are what must be run for a container's state and load where nobody keeps watch; most of their
time is two processes' beginning, so the same two questions stand beside them as they are asked of Podman's service by its
socket, over a connection that is kept, as ours is. Alone: one after another. Twenty at once: until the last one is
answered. A job streams all the while.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Awaitable, Callable
from time import perf_counter

import trio

from opencode_actors.adapters.engine import open_engine
from opencode_actors.adapters.engine_http import engine_http_client
from tests.benchmarks.service import open_service

_AT_ONCE = 20
_PER_ROUND = 10


async def alone(call: Callable[[], Awaitable[object]], times: int) -> float:
    seconds: list[float] = []
    for _ in range(times):
        began = perf_counter()
        await call()
        seconds.append(perf_counter() - began)
    return statistics.median(seconds)


async def at_once(call: Callable[[], Awaitable[object]]) -> float:
    began = perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(_AT_ONCE):
            nursery.start_soon(call)
    return perf_counter() - began


async def main(rounds: int) -> None:
    async with (
        open_service() as (service, client),
        open_engine(runtime="podman") as podmans,
        engine_http_client(podmans.socket) as engine,
    ):
        job = (await client.call("start", prompt="::words 100000 rate=20", session_id="demo"))["jobId"]
        while not (await client.call("output", job_id=job))["text"]:  # noqa: ASYNC110 - once, at the start
            await trio.sleep(0.1)
        container = service.container("demo")

        async def status() -> None:
            await client.call("status", job_id=job)

        async def output() -> None:
            await client.call("output", job_id=job)

        async def podmans_service() -> None:
            (await engine.get(f"/v1.41/containers/{container}/json")).raise_for_status()
            (await engine.get(f"/v1.41/containers/{container}/stats?stream=false")).raise_for_status()

        async def podman() -> None:
            for command in (["inspect"], ["stats", "--no-stream"]):
                await trio.run_process(["podman", *command, container], capture_stdout=True)

        sides = {"podman": podman, "its service": podmans_service, "status": status, "output": output}
        one = {name: list[float]() for name in sides}
        many = {name: list[float]() for name in sides}
        for number in range(rounds):
            for name, call in sides.items():
                one[name].append(await alone(call, 2 if name == "podman" else _PER_ROUND))
                many[name].append(await at_once(call))
            print(f"round {number + 1} of {rounds}", file=sys.stderr)  # noqa: T201
        await client.call("cancel", job_id=job)
    print(f"{'':12}{'alone':>12}{'ratio':>10}{f'{_AT_ONCE} at once':>14}{'ratio':>10}   medians of {rounds}")  # noqa: T201
    for name in sides:
        single, crowd = statistics.median(one[name]), statistics.median(many[name])
        there, together = statistics.median(one["podman"]), statistics.median(many["podman"])
        print(  # noqa: T201
            f"{name:12}{single * 1000:9.1f} ms{single / there:10.4f}"
            f"{crowd * 1000:11.1f} ms{crowd / together:10.4f}"
        )


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 5)
