"""Somebody who reads OpenCode's event stream line by line, in a process of its own, and understands nothing of it.

    python -m tests.benchmarks.bare_reader URL

The first line of its input is the server's password. Each time the server says that it is idle it has a line of JSON
to say: when, by the clock that all processes share, and how many events it has read and how many seconds of CPU it has
taken since it began.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from time import perf_counter, process_time

import httpx
import trio
from attrs import frozen

_ENDS_WITHIN = 10


@frozen(kw_only=True)
class Heard:
    at: float
    events: int
    cpu: float


@frozen(eq=False)
class BareReader:
    _told: trio.MemoryReceiveChannel[Heard]

    async def until_idle(self) -> Heard:
        return await self._told.receive()


@asynccontextmanager
async def open_reader(url: str, password: str) -> AsyncGenerator[BareReader]:
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "tests.benchmarks.bare_reader", url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    send, receive = trio.open_memory_channel[Heard](100)
    try:
        await process.stdin.send_all(password.encode() + b"\n")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_pass_on, process.stdout, send)
            yield BareReader(receive)
            nursery.cancel_scope.cancel()
    finally:
        process.kill()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _ENDS_WITHIN):
            await process.wait()


async def _pass_on(lines: trio.abc.ReceiveStream, send: trio.MemorySendChannel[Heard]) -> None:
    buffer = b""
    async with send:
        async for chunk in lines:
            *whole, buffer = (buffer + chunk).split(b"\n")
            for line in whole:
                await send.send(Heard(**json.loads(line)))


def main(url: str, password: str) -> None:
    events = 0
    with (
        httpx.Client(
            auth=("opencode", password), timeout=httpx.Timeout(10, read=None), trust_env=False
        ) as client,
        client.stream("GET", f"{url}/global/event") as response,
    ):
        for line in response.iter_lines():
            events += line.startswith("data:")
            if '"session.idle"' in line:
                heard = {"at": perf_counter(), "events": events, "cpu": process_time()}
                print(json.dumps(heard))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], sys.stdin.readline().strip())
