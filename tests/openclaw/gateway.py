"""OpenClaw's own gateway, headless: a process with a home of its own, and a client of its websocket."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import trio
from attrs import Factory, define, frozen
from trio_websocket import ConnectionClosed, WebSocketConnection, open_websocket_url

from tests.openclaw.installation import Installation

TOKEN = "a-token-of-the-tests"
READY_WITHIN = 120  # seconds; 8 to 28 are usual
ENDS_WITHIN = 60
ANSWERS_WITHIN = 60
PROBE = 0.1


@define
class Gateway:
    """`base` is its HOME and holds all of its state."""

    installed: Installation
    base: Path
    port: int
    environment: dict[str, str] = Factory(dict[str, str])
    _process: subprocess.Popen[bytes] | None = None

    @property
    def state(self) -> Path:
        return self.base / ".openclaw"

    @property
    def config_file(self) -> Path:
        return self.state / "openclaw.json"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def config(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.config_file.read_text())
        return found

    def full_environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("LANG", "XDG_RUNTIME_DIR") if name in os.environ}
        return {
            **kept,
            "PATH": self.installed.path(),
            "HOME": str(self.base),
            "OPENCLAW_HOME": str(self.base),
            "OPENCLAW_STATE_DIR": str(self.state),
            "OPENCLAW_CONFIG_PATH": str(self.config_file),
            "OPENCLAW_NO_AUTO_UPDATE": "1",
            "DO_NOT_TRACK": "1",
            "TMPDIR": str(self.base / "tmp"),
            **self.environment,
        }

    def write_config(self, model_url: str, *, agents: Mapping[str, Any], plugins: Mapping[str, Any]) -> None:
        (self.base / "tmp").mkdir(exist_ok=True)
        (self.base / "workspace").mkdir(exist_ok=True)
        self.state.mkdir(exist_ok=True)
        model = {
            "id": "scripted",
            "name": "Scripted",
            "reasoning": False,
            "input": ["text"],
            "cost": {"input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0},
            "contextWindow": 128_000,
            "maxTokens": 8_000,
        }
        provider = {"baseUrl": model_url, "apiKey": "none", "api": "openai-completions", "models": [model]}
        whole = {
            "gateway": {
                "mode": "local",
                "port": self.port,
                "bind": "loopback",
                "auth": {"mode": "token", "token": TOKEN},
                "controlUi": {"enabled": False},
            },
            "agents": {
                "defaults": {
                    "workspace": str(self.base / "workspace"),
                    "model": {"primary": "fake/scripted"},
                    "skipBootstrap": True,
                },
                "entries": agents,
            },
            "models": {
                "mode": "replace",
                "catalogRefresh": {"enabled": False},
                "providers": {"fake": provider},
            },
            "update": {"checkOnStart": False},
            "telemetry": {"enabled": False},
            "logging": {"file": str(self.base / "openclaw.log")},
            "plugins": plugins,
        }
        self.config_file.write_text(json.dumps(whole, indent=1))

    async def start(self) -> None:
        assert self._process is None
        with (self.base / "gateway.out").open("ab") as out:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - a fork, and not waited for
                [self.installed.openclaw / "openclaw", "gateway", "run"],
                env=self.full_environment(),
                cwd=self.base,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        await self._until_ready()

    async def _until_ready(self) -> None:
        assert self._process is not None
        async with httpx.AsyncClient() as client:
            with trio.move_on_after(READY_WITHIN):
                while True:
                    await trio.sleep(PROBE)
                    if self._process.poll() is not None:
                        break
                    with suppress(httpx.HTTPError):
                        if (await client.get(f"{self.url}/readyz")).status_code == 200:
                            return
        raise AssertionError(f"OpenClaw's gateway is not ready; it said:\n{self.said()}")

    async def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        with trio.move_on_after(ENDS_WITHIN):
            while True:
                await trio.sleep(PROBE)
                if process.poll() is not None:
                    return
        process.kill()
        process.wait()

    def said(self) -> str:
        return (self.base / "gateway.out").read_text(errors="replace")[-4_000:]

    async def command(self, *arguments: str) -> str:
        """`openclaw ARGUMENTS`, as a user would type it: what it printed."""
        done = await trio.run_process(
            [str(self.installed.openclaw / "openclaw"), *arguments],
            env=self.full_environment(),
            cwd=self.base,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
        said = done.stdout.decode() + done.stderr.decode()
        assert done.returncode == 0, f"openclaw {' '.join(arguments)}: {said}"
        return said

    async def invoke(
        self, tool: str, session: str = "agent:main:main", **arguments: object
    ) -> httpx.Response:
        """A tool without an agent's turn, through the gateway's HTTP."""
        async with httpx.AsyncClient(timeout=ANSWERS_WITHIN) as client:
            return await client.post(
                f"{self.url}/tools/invoke",
                headers={"authorization": f"Bearer {TOKEN}"},
                json={"tool": tool, "args": arguments, "sessionKey": session},
            )

    @asynccontextmanager
    async def client(self) -> AsyncGenerator[GatewayClient]:
        async with (
            open_websocket_url(f"ws://127.0.0.1:{self.port}/") as connection,
            trio.open_nursery() as nursery,
        ):
            client = GatewayClient(connection)
            await client.shake_hands()
            nursery.start_soon(client.listen)
            yield client
            nursery.cancel_scope.cancel()


@frozen(kw_only=True)
class GatewayError(Exception):
    error: Mapping[str, Any]

    def __str__(self) -> str:
        return str(self.error)


@define
class GatewayClient:
    """What OpenClaw's own command line does: requests and their answers."""

    _connection: WebSocketConnection
    _answers: dict[str, tuple[trio.Event, list[Any]]] = Factory(dict[str, tuple[trio.Event, list[Any]]])
    _count: int = 0

    async def shake_hands(self) -> None:
        await self._connection.get_message()  # the challenge, for devices
        await self._send(
            "connect",
            {
                "minProtocol": 4,
                "maxProtocol": 4,
                "client": {"id": "gateway-client", "version": "1", "platform": "linux", "mode": "backend"},
                "role": "operator",
                "scopes": ["operator.read", "operator.write", "operator.admin"],
                "caps": [],
                "auth": {"token": TOKEN},
            },
        )
        answer = json.loads(await self._connection.get_message())
        assert answer["ok"], answer

    async def listen(self) -> None:
        with suppress(ConnectionClosed):
            while True:
                message = json.loads(await self._connection.get_message())
                if message.get("type") != "res":
                    continue
                if message["id"] in self._answers:
                    event, place = self._answers[message["id"]]
                    place.append(message)
                    event.set()

    async def request(self, method: str, **params: object) -> Any:
        event, place = trio.Event(), list[Any]()
        name = await self._send(method, params, (event, place))
        with trio.fail_after(ANSWERS_WITHIN):
            await event.wait()
        del self._answers[name]
        (answer,) = place
        if not answer["ok"]:
            raise GatewayError(error=answer["error"])
        return answer.get("payload")

    async def _send(
        self, method: str, params: Mapping[str, object], place: tuple[trio.Event, list[Any]] | None = None
    ) -> str:
        self._count += 1
        name = f"r{self._count}"
        if place is not None:
            self._answers[name] = place
        await self._connection.send_message(
            json.dumps({"type": "req", "id": name, "method": method, "params": params})
        )
        return name


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
