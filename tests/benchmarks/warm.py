"""What a job costs beside the same prompt over raw HTTP, on the very same OpenCode server.

    python -m tests.benchmarks.warm [PROMPTS]

The server is the session's own, in its container, and warm. Through us: a client of the service's websocket starts the
job and follows it, and the job is written down before it is sent. Raw: one connection to the server with a conversation
of its own, and one that reads its event stream line by line. A prompt of each in turns. From the call on: until the model
provider has the request, until the client has the first text, and until it knows of the end (raw: until the server says
that it is idle).
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter

import httpx
import trio
from attrs import define, field

from opencode_actors.door.client import Client
from opencode_actors.testing.provider import open_provider
from opencode_actors.testing.provider_demo import demo_script
from opencode_actors.testing.provider_script import ChatRequest, Step
from tests.benchmarks.by_hand import until_idle
from tests.benchmarks.service import open_service
from tests.e2e.rig import short_folder

_PROMPT = "::say hello"
_HEARD_WITHIN = 5.0
_STAGES = ("provider has it", "first text", "settled")


@define
class Model:
    """Knows when it was asked last."""

    asked_at: float = 0.0

    def script(self, request: ChatRequest) -> Sequence[Step]:
        if not request.wants_title:
            self.asked_at = perf_counter()
        return demo_script(request)


@define(eq=False)
class RawClient:
    """Of one conversation."""

    _server: httpx.AsyncClient
    _session: str
    _first_text: trio.Event = field(factory=trio.Event)
    _idle: trio.Event = field(factory=trio.Event)

    async def read(self, *, task_status: trio.TaskStatus[None]) -> None:
        async with self._server.stream("GET", "/global/event", timeout=None) as response:
            task_status.started()
            async for line in response.aiter_lines():
                if not line.startswith("data:"):
                    continue
                event = json.loads(line[5:])["payload"]
                if event.get("properties", {}).get("sessionID") != self._session:
                    continue
                if event["type"] == "message.part.delta":
                    self._first_text.set()
                elif event["type"] == "session.idle":
                    self._idle.set()

    async def prompt(self) -> tuple[float, float]:
        """When the first text and the end were there."""
        self._first_text, self._idle = trio.Event(), trio.Event()
        body = {"parts": [{"type": "text", "text": _PROMPT}]}
        path = f"/session/{self._session}/prompt_async"
        (await self._server.post(path, json=body)).raise_for_status()
        await self._first_text.wait()
        first = perf_counter()
        await self._idle.wait()
        return first, perf_counter()


async def prompt_by_us(client: Client) -> tuple[float, float]:
    """When the first text and the end were there."""
    job = (await client.call("start", prompt=_PROMPT, session_id="demo"))["jobId"]
    subscription = (await client.call("follow", job_id=job))["subscription"]
    first = 0.0
    while True:
        notice = (await client.told())["params"]
        if notice.get("subscription") != subscription:
            continue
        if notice["kind"] == "output":
            first = first or perf_counter()
        if notice["kind"] == "jobEnded":
            return first, perf_counter()


async def timed(model: Model, prompt: Callable[[], Awaitable[tuple[float, float]]]) -> tuple[float, ...]:
    """Seconds from the call to each stage."""
    began = perf_counter()
    first, settled = await prompt()
    return model.asked_at - began, first - began, settled - began


async def main(prompts: int) -> None:
    model = Model()
    raw: list[tuple[float, ...]] = []
    ours: list[tuple[float, ...]] = []
    with short_folder() as base:
        socket = base / "provider" / "provider.sock"
        socket.parent.mkdir(mode=0o755)
        async with (
            open_provider(unix_socket=socket, script=model.script),
            open_service(socket) as (service, client),
        ):
            await prompt_by_us(client)
            async with service.server("demo") as server, trio.open_nursery() as nursery:
                session = (await server.post("/session", json={"title": "raw"})).json()["id"]
                reader = RawClient(server, session)
                await nursery.start(reader.read)
                await _wait_standing(reader)
                for _ in range(prompts):
                    await until_idle(server, session)
                    raw.append(await timed(model, reader.prompt))
                    ours.append(await timed(model, lambda: prompt_by_us(client)))
                nursery.cancel_scope.cancel()
    print(f"{'':17}{'raw HTTP':>11}{'through us':>14}{'more':>12}{'ratio':>8}   medians of {prompts}")  # noqa: T201
    for stage, there, here in zip(_STAGES, _medians(raw), _medians(ours), strict=True):
        print(  # noqa: T201
            f"{stage:17}{there * 1e3:8.1f} ms{here * 1e3:11.1f} ms{(here - there) * 1e3:9.1f} ms{here / there:8.2f}"
        )


async def _wait_standing(reader: RawClient) -> None:
    """What the server says to somebody who has just come may be lost."""
    heard = False
    while not heard:
        with trio.move_on_after(_HEARD_WITHIN):
            await reader.prompt()
            heard = True


def _medians(rows: list[tuple[float, ...]]) -> list[float]:
    return [statistics.median(column) for column in zip(*rows, strict=True)]


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 60)
