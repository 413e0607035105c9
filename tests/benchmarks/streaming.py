"""How a long answer comes through, beside a bare reader of the same event stream at the same time.

    python -m tests.benchmarks.streaming [ROUNDS]

Through us: the server's event stream, the job's file and the journal, the websocket, until the client knows that the
job has ended. The bare reader is another client of the very same server: it reads the events line by line until the
server says that it is idle, understands nothing of them and keeps nothing. Both clocks begin with the call that starts
the job. Two servers are no measure: how warm each is, and what it does at the moment, made ratios from 0.44 to 1.13, where
OpenCode itself takes all of the time. Reader, service and what stands in for the model are processes of their own, and so is OpenCode;
the columns of CPU say which of them the answer waits for.
"""

from __future__ import annotations

import json
import statistics
import sys
from time import perf_counter

import trio
from attrs import fields, frozen

from opencode_actors.door.client import Client
from tests.benchmarks.bare_reader import BareReader, open_reader
from tests.benchmarks.model import open_model
from tests.benchmarks.processes import cpu_of
from tests.benchmarks.service import Service, open_service
from tests.e2e.rig import short_folder

_SIZES = {"small pieces": "::text 200000 chunk=20", "large pieces": "::text 2000000 chunk=2000"}
_HEARD_WITHIN = 60.0  # twenty times what the longest answer takes here


@frozen(kw_only=True)
class Answer:
    """Seconds, but for the first two."""

    size: int
    events: int
    bare: float
    ours: float
    bare_cpu: float
    our_cpu: float
    server_cpu: float


_COLUMNS = tuple(column.name for column in fields(Answer))


async def read_by_us(client: Client, prompt: str) -> int:
    """Bytes that the client has got when it knows of the end."""
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
            return size


async def read_by_both(
    client: Client, reader: BareReader, prompt: str, *, service: int, server: int
) -> Answer:
    """A first prompt is for warming up, and tells how much the reader has read until then."""
    await read_by_us(client, "::say hello")
    with trio.fail_after(_HEARD_WITHIN):
        before = await reader.until_idle()
    our_cpu, server_cpu = cpu_of(service), cpu_of(server)
    began = perf_counter()
    size = await read_by_us(client, prompt)
    ours = perf_counter() - began
    with trio.fail_after(_HEARD_WITHIN):
        after = await reader.until_idle()
    return Answer(
        size=size,
        events=after.events - before.events,
        bare=after.at - began,
        ours=ours,
        bare_cpu=after.cpu - before.cpu,
        our_cpu=cpu_of(service) - our_cpu,
        server_cpu=cpu_of(server) - server_cpu,
    )


async def measure() -> dict[str, Answer]:
    """With a container of its own for each answer: a conversation that has grown long is compacted."""
    found: dict[str, Answer] = {}
    for name, prompt in _SIZES.items():
        with short_folder() as base, open_model(base) as access:
            async with open_service(access.provider_socket) as (service, client):
                await read_by_us(client, "::say hello")
                url, password = service.server_access("demo")
                async with open_reader(url, password) as reader:
                    await _wait_standing(client, reader)
                    found[name] = await read_by_both(
                        client, reader, prompt, service=service.pid, server=await _first_process(service)
                    )
    return found


async def _wait_standing(client: Client, reader: BareReader) -> None:
    """What the server says to somebody who has just come may be lost."""
    while True:
        await read_by_us(client, "::say hello")
        with trio.move_on_after(1.0):
            await reader.until_idle()
            return


async def _first_process(service: Service) -> int:
    told = await trio.run_process(["podman", "inspect", service.container("demo")], capture_stdout=True)
    return int(json.loads(told.stdout)[0]["State"]["Pid"])


async def main(rounds: int) -> None:
    rows: dict[str, list[Answer]] = {name: [] for name in _SIZES}
    for number in range(rounds):
        for name, answer in (await measure()).items():
            rows[name].append(answer)
        print(f"round {number + 1} of {rounds}", file=sys.stderr)  # noqa: T201
    print(  # noqa: T201
        f"{'':13}{'bytes':>10}{'events':>8}{'bare':>9}{'through us':>12}{'ratio':>7}{'events/s':>10}{'MB/s':>7}"
        f"   CPU: bare    ours  OpenCode   medians of {rounds}"
    )
    for name, answers in rows.items():
        middle = {one: statistics.median(getattr(answer, one) for answer in answers) for one in _COLUMNS}
        bare, ours = middle["bare"], middle["ours"]
        print(  # noqa: T201
            f"{name:13}{middle['size']:>10,}{middle['events']:>8,}{bare:7.2f} s{ours:10.2f} s{ours / bare:7.2f}"
            f"{middle['events'] / ours:>10,.0f}{middle['size'] / ours / 1e6:7.2f}"
            f"{middle['bare_cpu']:10.2f} s{middle['our_cpu']:6.2f} s{middle['server_cpu']:8.2f} s"
        )


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 5)
