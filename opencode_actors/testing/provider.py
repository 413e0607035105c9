"""A model provider without a model: OpenAI-compatible, scripted, deterministic.

It is the embedded default where nobody has logged in with a provider, and the one stand-in of the
end-to-end tests: what OpenCode, the container and this package do with its answers is real.

    async with open_provider(port=0) as provider:
        config = provider_config(provider.base_url)     # for OpenCode's own configuration
        ...
        await provider.wait_until(lambda exchanges: len(exchanges) == 2)
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from enum import Enum
from pathlib import Path

import h11
import trio
from attrs import define, field

from opencode_actors.testing.provider_demo import demo_script
from opencode_actors.testing.provider_http import (
    Answer,
    HttpConnection,
    HungUp,
    StreamedAnswer,
    WholeAnswer,
)
from opencode_actors.testing.provider_markers import BadMarker
from opencode_actors.testing.provider_script import (
    CallTool,
    ChatRequest,
    Drop,
    Finish,
    Garble,
    Hang,
    Pause,
    Refuse,
    Say,
    Script,
    Step,
    StreamError,
    is_object,
    read_request,
)

PROVIDER = "scripted"
MODEL = "scripted/demo"
_REMEMBERED = 4096  # exchanges; a test asks for the last few, and a demo may run for days
_BACKLOG = 128
_REASONS = {400: "bad request", 401: "Incorrect API key provided", 402: "Insufficient credits"}
_MORE_REASONS = {404: "The model does not exist", 429: "Rate limit reached", 500: "Internal error"}


def provider_config(base_url: str, *, options: Mapping[str, object] | None = None) -> dict[str, object]:
    """OpenCode's `provider` block for this provider; its model is called `scripted/demo`.

    `options` are added to the provider's own, such as `headerTimeout` and `chunkTimeout` (milliseconds).
    The prices are made up, and not 0, so that a cost shows.
    """
    model = {
        "name": "Scripted demo model",
        "tool_call": True,
        "reasoning": True,
        "limit": {"context": 200_000, "output": 32_000},
        "cost": {"input": 1.0, "output": 4.0},  # dollars for a million tokens
    }
    return {
        PROVIDER: {
            "npm": "@ai-sdk/openai-compatible",  # bundled with OpenCode: nothing is fetched
            "name": "Scripted demo provider",
            "options": {"baseURL": base_url, "apiKey": "not-needed", **(options or {})},
            "models": {"demo": model},
        }
    }


class Outcome(Enum):
    RUNNING = "running"
    ANSWERED = "answered"
    REFUSED = "refused"
    DROPPED = "dropped"  # by the provider, because the script says so
    HUNG_UP = "hung up"  # by the client


@define
class Exchange:
    """One request and what became of it; `attempt` counts the tries of one request from 1."""

    request: ChatRequest
    attempt: int
    began_at: float  # trio's clock
    outcome: Outcome = Outcome.RUNNING
    ended_at: float | None = None


@define
class ScriptedProvider:
    """Answers by its script, and remembers what it was asked."""

    base_url: str
    script: Script = demo_script
    _exchanges: deque[Exchange] = field(factory=lambda: deque(maxlen=_REMEMBERED))
    _changed: trio.Event = field(factory=trio.Event)
    _served: int = 0
    _connections: int = 0

    @property
    def exchanges(self) -> Sequence[Exchange]:
        return tuple(self._exchanges)

    def statistics(self) -> Mapping[str, int]:
        running = sum(exchange.outcome is Outcome.RUNNING for exchange in self._exchanges)
        return {"served": self._served, "running": running, "connections": self._connections}

    async def wait_until(self, holds: Callable[[Sequence[Exchange]], bool]) -> None:
        """Returns once `holds` is true of the exchanges."""
        while not holds(self.exchanges):
            await self._changed.wait()

    async def serve(self, stream: trio.SocketStream) -> None:
        """One connection until it ends. Whatever a client sends ends that connection at most."""
        self._connections += 1
        connection = HttpConnection(stream)
        try:
            while (asked := await connection.next_request()) is not None:
                if not await self._reply(connection, *asked):
                    return
        except (HungUp, h11.RemoteProtocolError):
            return
        finally:
            self._connections -= 1
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await trio.aclose_forcefully(stream)

    async def _reply(self, connection: HttpConnection, head: h11.Request, body: bytes) -> bool:
        """False when the connection is not to be used again."""
        path = head.target.split(b"?")[0].decode("ascii", "replace")
        if (head.method, path) == (b"GET", "/v1/models"):
            await connection.send_json(200, {"object": "list", "data": [{"id": "demo", "object": "model"}]})
            return True
        if (head.method, path) != (b"POST", "/v1/chat/completions"):
            await connection.send_json(404, _error(404, f"no such path: {path}"))
            return True
        try:
            asked = json.loads(body)
        except ValueError:
            asked = None
        if not is_object(asked):
            await connection.send_json(400, _error(400, "the body is not a JSON object"))
            return True
        session = next((value.decode() for name, value in head.headers if name == b"x-session-id"), "")
        return await self._chat(connection, read_request(asked, session=session))

    async def _chat(self, connection: HttpConnection, request: ChatRequest) -> bool:
        exchange = self._note(request)
        try:
            steps = self.script(request)
        except BadMarker as wrong:
            await connection.send_json(400, _error(400, str(wrong)))
            self._end(exchange, Outcome.REFUSED)
            return True
        outcome = Outcome.HUNG_UP
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_at_hang_up, connection, nursery.cancel_scope)
                outcome = await _perform(steps, exchange, connection)
                nursery.cancel_scope.cancel()
        finally:
            self._end(exchange, outcome)
        return outcome in (Outcome.ANSWERED, Outcome.REFUSED)

    def _note(self, request: ChatRequest) -> Exchange:
        attempt = 1 + sum(seen.request.key == request.key for seen in self._exchanges)
        exchange = Exchange(request, attempt, trio.current_time())
        self._exchanges.append(exchange)
        self._served += 1
        self._tell()
        return exchange

    def _end(self, exchange: Exchange, outcome: Outcome) -> None:
        exchange.outcome = outcome
        exchange.ended_at = trio.current_time()
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


async def _cancel_at_hang_up(connection: HttpConnection, scope: trio.CancelScope) -> None:
    with suppress(HungUp):
        await connection.wait_hang_up()
    scope.cancel()


async def _perform(steps: Sequence[Step], exchange: Exchange, connection: HttpConnection) -> Outcome:
    request = exchange.request
    answer: Answer = (StreamedAnswer if request.stream else WholeAnswer)(connection, request.model)
    told = tools = 0
    finish = ""
    try:
        for step in steps:
            match step:
                case Say():
                    await _say(step, answer)
                    told += len(step.pieces)
                case CallTool():
                    await answer.tool_call(tools, step.name, step.arguments)
                    tools += 1
                case Pause():
                    await trio.sleep(step.seconds)
                case Hang():
                    await trio.sleep_forever()
                case Refuse():
                    if exchange.attempt <= step.times:
                        await _refuse(step, connection)
                        return Outcome.REFUSED
                case Drop():
                    if exchange.attempt <= step.times:
                        await answer.begin()
                        return Outcome.DROPPED
                case Garble():
                    await answer.raw('{"choices": [{"delta": {"content": "half of')
                case StreamError():
                    await answer.raw(json.dumps(_error(500, step.message)))
                case Finish():
                    finish = step.reason
        await answer.end(finish or ("tool_calls" if tools else "stop"), _usage(request, told + tools))
    except HungUp:
        return Outcome.HUNG_UP
    return Outcome.ANSWERED


async def _say(step: Say, answer: Answer) -> None:
    await answer.begin()
    if step.rate <= 0:
        await answer.text(step.pieces, reasoning=step.reasoning)
        return
    began = trio.current_time()
    for index, piece in enumerate(step.pieces):
        await trio.sleep_until(began + index / step.rate)
        await answer.text((piece,), reasoning=step.reasoning)


async def _refuse(step: Refuse, connection: HttpConnection) -> None:
    message = {**_REASONS, **_MORE_REASONS}.get(step.status, f"scripted status {step.status}")
    headers = {"retry-after": step.retry_after} if step.retry_after else {}
    await connection.send_json(step.status, _error(step.status, message, code=step.code), headers)


def _error(status: int, message: str, *, code: str = "") -> dict[str, object]:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "code": code or kind}}


def _usage(request: ChatRequest, completion: int) -> Mapping[str, int]:
    """Pieces told, and a quarter of the characters asked: the usual rule of thumb."""
    prompt = len(json.dumps(request.body.get("messages", []))) // 4
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


@asynccontextmanager
async def open_provider(
    *, unix_socket: Path | None = None, port: int | None = None, script: Script = demo_script
) -> AsyncGenerator[ScriptedProvider, None]:
    """A provider that serves until the block ends, on a unix socket, a port of 127.0.0.1, or both.

    With `port=0` any free one is taken; `base_url` says which. A socket's file is removed at the end.
    """
    listeners: list[trio.SocketListener] = []
    base_url = "http://127.0.0.1:4097/v1"  # where a container sees the unix socket
    if port is not None:
        listeners += await trio.open_tcp_listeners(port, host="127.0.0.1")
        base_url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/v1"
    if unix_socket is not None:
        listeners.append(await _unix_listener(unix_socket))
    provider = ScriptedProvider(base_url, script)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, provider.serve, listeners)
            yield provider
            nursery.cancel_scope.cancel()
    finally:
        if unix_socket is not None:
            unix_socket.unlink(missing_ok=True)  # noqa: ASYNC240 - one system call, and no await in a finally


async def _unix_listener(path: Path) -> trio.SocketListener:
    await trio.Path(path).unlink(missing_ok=True)  # of a run that was killed
    sock = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    await sock.bind(str(path))
    # The server in the container runs as another user than a rootful engine's; the directory is the guard.
    await trio.Path(path).chmod(0o666)
    sock.listen(_BACKLOG)
    return trio.SocketListener(sock)
