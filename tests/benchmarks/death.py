"""How long from a container's death to its job's settled state, beside a bare reader of the engine's events.

    python -m tests.benchmarks.death [ROUNDS]

Three deaths: the server ends with a code of its own (a segmentation fault), it is killed with SIGKILL, and the
container is removed by somebody (`podman rm --force`). The clock starts when the kernel says that the
container's first process has ended. By hand: `podman events`' own API, read until "died". A removed one is
settled when the engine has forgotten it, so the event beside it is "remove".

What was killed may be about to be removed: `podman rm --force` kills first, and until Podman has cleaned up (the second
column: the engine is asked every 10 ms until it says "exited", or knows it no more) neither its states nor its events
tell the one from the other. So a kill by somebody else cannot be settled sooner with its true cause; it is settled
0.1 s later, in which a removal that waited for the same lock shows itself.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter

import trio
from attrs import define, evolve, field

from opencode_actors import System
from opencode_actors.adapters.engine import DockerApiEngine
from opencode_actors.adapters.engine_http import engine_http_client
from opencode_actors.machines.notices import OutputAdded
from opencode_actors.ports import Container
from tests.e2e.rig import container_of, open_rig, server_of, until

_PROMPT = "::say begun\n::hang"
_WITHIN = 30


@define
class Times:
    causes: set[str] = field(factory=set[str])
    by_hand: list[float] = field(factory=list[float])
    cleaned_up: list[float] = field(factory=list[float])
    ours: list[float] = field(factory=list[float])


async def one_death(system: System, socket: Path, how: str, times: Times, label: str) -> None:
    job = await system.start(_PROMPT, session=label)
    await until(system.follow(job.id), OutputAdded, "begun")
    container = await container_of(system, label)
    server = await server_of(system.engine, container)
    first = os.pidfd_open(container.pid)
    try:
        async with _event(socket, container, "remove" if how == "removed" else "died") as event:
            moments: dict[str, float] = {}

            async def died() -> None:
                await trio.lowlevel.wait_readable(first)
                moments["died"] = perf_counter()

            async def heard() -> None:
                await event.wait()
                moments["heard"] = perf_counter()

            async def settled() -> None:
                ended = await job.wait()
                moments["settled"] = perf_counter()
                times.causes.add(ended.failure.cause.value if ended.failure else ended.status.value)

            async def cleaned_up() -> None:
                async with engine_http_client(socket) as client:
                    while (
                        answer := await client.get(f"/v4.0.0/libpod/containers/{container.id}/json")
                    ).is_success:
                        if answer.json()["State"]["Status"] == "exited":
                            break
                        await trio.sleep(0.01)
                moments["cleaned up"] = perf_counter()

            with trio.fail_after(_WITHIN):
                async with trio.open_nursery() as nursery:
                    for part in (died, heard, settled, cleaned_up):
                        nursery.start_soon(part)
                    await trio.sleep(0.2)  # all of them are waiting
                    await _end(how, container, server)
    finally:
        os.close(first)
    times.by_hand.append(moments["heard"] - moments["died"])
    times.cleaned_up.append(moments["cleaned up"] - moments["died"])
    times.ours.append(moments["settled"] - moments["died"])


async def _end(how: str, container: Container, server: int) -> None:
    if how == "removed":
        command = ["podman", "rm", "--force", "--time", "0", container.name]
        await trio.run_process(command, capture_stdout=True)
    else:
        os.kill(server, signal.SIGKILL if how == "killed" else signal.SIGSEGV)


@asynccontextmanager
async def _event(socket: Path, container: Container, status: str) -> AsyncGenerator[trio.Event]:
    """Set when a bare reader of the engine's stream has read it."""
    seen = trio.Event()
    begun = trio.Event()

    async def read() -> None:
        filters = json.dumps({"container": [container.id]})
        async with (
            engine_http_client(socket, answer_within=None) as client,
            client.stream("GET", "/v4.0.0/libpod/events", params={"filters": filters}) as answer,
        ):
            begun.set()
            async for line in answer.aiter_lines():
                if line and json.loads(line).get("status", json.loads(line).get("Action")) == status:
                    seen.set()
                    return

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        with trio.move_on_after(1):  # Podman answers with its first event
            await begun.wait()
        yield seen
        nursery.cancel_scope.cancel()


async def main(rounds: int) -> None:
    found = {how: Times() for how in ("segfault", "killed", "removed")}
    async with open_rig("podman") as rig:
        settings = evolve(rig.settings, max_sessions=2)
        async with rig.system(settings) as system:
            assert isinstance(system.engine, DockerApiEngine)
            for number in range(rounds):
                for how, times in found.items():
                    label = f"{how}-{number}"
                    await one_death(system, system.engine.socket, how, times, label)
                    await system.close_session(label)
                print(f"round {number + 1} of {rounds}", file=sys.stderr)  # noqa: T201
    print(  # noqa: T201
        f"{'':10}{'event read':>12}{'cleaned up':>12}{'job settled':>13}{'ratio':>8}{'worst':>10}   medians of {rounds}; cause"
    )
    for how, times in found.items():
        there, here = statistics.median(times.by_hand), statistics.median(times.ours)
        cleaned = statistics.median(times.cleaned_up)
        print(  # noqa: T201
            f"{how:10}{there * 1000:9.0f} ms{cleaned * 1000:9.0f} ms{here * 1000:10.0f} ms{here / there:8.2f}"
            f"{max(times.ours) * 1000:7.0f} ms   {', '.join(sorted(times.causes))}"
        )


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 5)
