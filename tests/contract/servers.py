"""The servers that are held to one contract: a fake, the same behind real HTTP, and the real OpenCode.

The real one is a process on loopback with a home of its own, and its model is the scripted provider. It
is looked for in `OPENCODE_ACTORS_TEST_OPENCODE`, then on PATH. A missing one is a failure where
`CI=true`, and a skip that says what to do elsewhere.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import pytest
import trio
from attrs import define, evolve, field

from opencode_actors.adapters.opencode import HttpOpenCode
from opencode_actors.errors import OpenCodeError
from opencode_actors.machines.prompt_ids import stamped
from opencode_actors.machines.server_events import (
    ConversationCreated,
    ConversationId,
    ConversationIdle,
    Heartbeat,
    InstanceDisposed,
    MessageInfo,
    MessageUpdated,
    PartDelta,
    ServerEvent,
)
from opencode_actors.machines.vocabulary import Moment
from opencode_actors.ports import Conversation, Endpoint, OpenCodeServer, Prompt
from opencode_actors.testing.fake_opencode import FakeServers, open_fake_servers
from opencode_actors.testing.fake_server import FakeBehaviour, FakeServer
from opencode_actors.testing.http_front import HttpFront
from opencode_actors.testing.provider import MODEL, ScriptedProvider, open_provider, provider_config

from .engines import missing

E = TypeVar("E")

BINARY = "OPENCODE_ACTORS_TEST_OPENCODE"
ASKED_FOR = "echo permitted"  # the one command for which both servers ask a permission
_PERMISSION = {"*": "allow", "bash": {"*": "allow", f"{ASKED_FOR}*": "ask"}}
PASSWORD = "a password of the tests"
# Of a second provider, with which all servers have little patience.
IMPATIENT = "impatient/demo"
_PATIENCE = {"headerTimeout": 1500, "chunkTimeout": 1500}
_SWITCHED_OFF = ("AUTOUPDATE", "MODELS_FETCH", "LSP_DOWNLOAD", "DEFAULT_PLUGINS", "SHARE", "PROJECT_CONFIG")
_HOUR = 3600
_STARTS_WITHIN = 30.0  # 1.1 s on a quiet machine, 2.6 s on a loaded one


class Process(Protocol):
    """What the tests do to a server from outside."""

    endpoint: Endpoint

    def connect(self, password: str = PASSWORD, directory: str = "") -> OpenCodeServer: ...
    def model_requests(self, conversation: ConversationId) -> int: ...
    def kill(self) -> None: ...
    def start(self) -> None: ...
    def freeze(self) -> None: ...
    def thaw(self) -> None: ...
    def set_clock_back(self, conversation: ConversationId) -> None:
        """By an hour, for this conversation: what was said in it was said an hour from now."""


@define
class ServerBench:
    """A server, a client of it, and what its event stream told of this test's conversations.

    The real server serves all tests, and may not be done with what another one left.
    """

    process: Process
    opencode: OpenCodeServer
    _heard: list[ServerEvent] = field(factory=list[ServerEvent])
    _own: set[ConversationId] = field(factory=set[ConversationId])
    _changed: trio.Event = field(factory=trio.Event)
    _rng: random.Random = field(factory=lambda: random.Random(1))

    def prompt(self, text: str, *, agent: str | None = None, model: str | None = None) -> Prompt:
        moment = Moment(now=0.0, wall=time.time(), roll=self._rng.random())
        return stamped(Prompt(text=text, agent=agent, model=model), moment)

    async def say(
        self, text: str, conversation: ConversationId | None = None, *, model: str | None = None
    ) -> tuple[ConversationId, Prompt]:
        """Sends a prompt, to a new conversation if none is given."""
        if conversation is None:
            conversation = (await self.converse()).id
        prompt = self.prompt(text, model=model)
        await self.opencode.submit(conversation, prompt)
        return conversation, prompt

    async def converse(self, title: str = "a contract") -> Conversation:
        made = await self.opencode.create_conversation(title=title)
        self._own.add(made.id)
        return made

    def converse_in(self, made: Conversation) -> ConversationId:
        """From now on it is this test's."""
        self._own.add(made.id)
        return made.id

    async def answered(self, text: str) -> tuple[ConversationId, Prompt]:
        """Sends a prompt to a new conversation and waits for its end."""
        conversation, prompt = await self.say(text)
        await self.wait_idle(conversation)
        return conversation, prompt

    @property
    def events(self) -> Sequence[ServerEvent]:
        own = set(self._own)
        own |= {e.conversation for e in self._heard if isinstance(e, ConversationCreated) and e.parent in own}
        return [event for event in self._heard if _conversation_of(event) in own | {None}]

    def forget(self) -> None:
        self._heard.clear()

    async def wait_idle(self, conversation: ConversationId, *, times: int = 1) -> None:
        await self.wait_until(lambda: self.idles(conversation) >= times)

    def idles(self, conversation: ConversationId) -> int:
        return sum(event == ConversationIdle(conversation=conversation) for event in self.events)

    def of(self, kind: type[E]) -> Sequence[E]:
        return [event for event in self.events if isinstance(event, kind)]

    def told(self, conversation: ConversationId) -> str:
        return "".join(event.text for event in self.of(PartDelta) if event.conversation == conversation)

    def answer_infos(self, prompt: Prompt) -> Sequence[MessageInfo]:
        return [event.info for event in self.of(MessageUpdated) if event.info.parent == prompt.message_id]

    async def wait_for(self, kind: type[E], holds: Callable[[E], bool] = lambda _: True) -> E:
        await self.wait_until(lambda: any(holds(event) for event in self.of(kind)))
        return next(event for event in self.of(kind) if holds(event))

    async def wait_until(self, holds: Callable[[], bool]) -> None:
        """Returns once `holds` is true of what the stream told."""
        while not holds():
            await self._changed.wait()

    async def wait_ready(self) -> None:
        """Returns when a server that was just started answers."""
        with trio.fail_after(_STARTS_WITHIN):
            while True:
                try:
                    await self.opencode.health(within=0.2)
                except OpenCodeError:
                    await trio.sleep(0.02)  # a process that starts tells nobody when it listens
                else:
                    return

    @asynccontextmanager
    async def listening(self) -> AsyncGenerator[None, None]:
        """Notes what the stream brings."""
        async with self.opencode.events() as batches, trio.open_nursery() as nursery:
            nursery.start_soon(self._note, batches)
            yield
            nursery.cancel_scope.cancel()

    async def _note(self, batches: AsyncIterator[tuple[ServerEvent, ...]]) -> None:
        async for batch in batches:
            assert batch
            self._heard.extend(batch)
            self._changed.set()
            self._changed = trio.Event()


# ---- the fake


@define
class FakeProcess:
    _servers: FakeServers
    endpoint: Endpoint = field(factory=lambda: Endpoint(url="http://127.0.0.1:4096", password=PASSWORD))
    _server: FakeServer = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.start()

    def connect(self, password: str = PASSWORD, directory: str = "") -> OpenCodeServer:
        return self._servers.connect(Endpoint(url=self.endpoint.url, password=password, directory=directory))

    def model_requests(self, conversation: ConversationId) -> int:
        return sum(count for key, count in self._server.attempts.items() if key[0] == conversation)

    def kill(self) -> None:
        self._server.crash()

    def start(self) -> None:
        self._server = _start(self._servers, self.endpoint.url)

    def freeze(self) -> None:
        self._server.freeze()

    def thaw(self) -> None:
        self._server.thaw()

    def set_clock_back(self, conversation: ConversationId) -> None:
        _set_back(self._server, conversation)


@define
class FrontProcess:
    """The fake behind a real socket, and the real client before it."""

    _servers: FakeServers
    _nursery: trio.Nursery
    endpoint: Endpoint = field(init=False)
    _front: HttpFront = field(init=False)
    _server: FakeServer = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._begin(HttpFront(self._servers))

    def connect(self, password: str = PASSWORD, directory: str = "") -> OpenCodeServer:
        return HttpOpenCode(Endpoint(url=self.endpoint.url, password=password, directory=directory))

    def model_requests(self, conversation: ConversationId) -> int:
        return sum(count for key, count in self._server.attempts.items() if key[0] == conversation)

    def kill(self) -> None:
        self._server.crash()

    def start(self) -> None:
        self._begin(HttpFront(self._servers, self._front.port))

    def freeze(self) -> None:
        self._server.freeze()

    def thaw(self) -> None:
        self._server.thaw()

    def set_clock_back(self, conversation: ConversationId) -> None:
        _set_back(self._server, conversation)

    def _begin(self, front: HttpFront) -> None:
        self._front, self.endpoint = front, Endpoint(url=front.url, password=PASSWORD)
        self._server = _start(self._servers, front.url)
        self._nursery.start_soon(front.serve)


def _start(servers: FakeServers, url: str) -> FakeServer:
    return servers.start(url, password=PASSWORD, providers=_providers(""), permission=_PERMISSION)


def _set_back(server: FakeServer, conversation: ConversationId) -> None:
    for stored in server.stored(conversation).messages.values():
        stored.info = evolve(stored.info, created_at=stored.info.created_at + _HOUR)


@asynccontextmanager
async def fake_server_bench() -> AsyncGenerator[ServerBench, None]:
    async with open_fake_servers(FakeBehaviour()) as servers:
        process = FakeProcess(servers)
        bench = ServerBench(process, process.connect())
        await bench.wait_ready()
        yield bench


@asynccontextmanager
async def front_bench() -> AsyncGenerator[ServerBench, None]:
    async with (
        open_fake_servers(FakeBehaviour()) as servers,
        trio.open_nursery() as nursery,
    ):
        process = FrontProcess(servers, nursery)
        opencode = process.connect()
        bench = ServerBench(process, opencode)
        await bench.wait_ready()
        yield bench
        await opencode.aclose()
        nursery.cancel_scope.cancel()


# ---- the real one


@define
class RealProcess:
    """One server for all tests; one that kills it starts it again."""

    binary: str
    home: Path
    endpoint: Endpoint
    provider_port: int
    provider: ScriptedProvider | None = None
    _process: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def connect(self, password: str = PASSWORD, directory: str = "") -> OpenCodeServer:
        return HttpOpenCode(Endpoint(url=self.endpoint.url, password=password, directory=directory))

    def model_requests(self, conversation: ConversationId) -> int:
        assert self.provider is not None
        return sum(exchange.request.session == conversation for exchange in self.provider.exchanges)

    def start(self) -> None:
        port = self.endpoint.url.rpartition(":")[2]
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self.binary, "serve", "--port", port, "--hostname", "127.0.0.1"],
                cwd=self.home / "workspace",
                env=self._environment(),
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def set_clock_back(self, conversation: ConversationId) -> None:
        """Of a process alone no clock can be set, so its memory is: OpenCode reads it anew for each prompt."""
        ahead = (_HOUR * 1000, conversation)
        database = self.home / ".local" / "share" / "opencode" / "opencode.db"
        with closing(sqlite3.connect(database, timeout=_STARTS_WITHIN)) as memory, memory:
            memory.execute(
                "UPDATE message SET time_created = time_created + ?1, data = json_set(data, '$.time.created', "
                "json_extract(data, '$.time.created') + ?1) WHERE session_id = ?2",
                ahead,
            )

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _environment(self) -> Mapping[str, str]:
        providers = _providers(f"http://127.0.0.1:{self.provider_port}/v1")
        config = {
            "model": MODEL,
            "small_model": MODEL,
            "autoupdate": False,
            "share": "disabled",
            "snapshot": False,
            "enabled_providers": list(providers),
            "permission": _PERMISSION,
            "provider": providers,
        }
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "OPENCODE_CONFIG_CONTENT": json.dumps(config),
            "OPENCODE_SERVER_USERNAME": self.endpoint.user,
            "OPENCODE_SERVER_PASSWORD": PASSWORD,
            **{f"OPENCODE_DISABLE_{name}": "1" for name in _SWITCHED_OFF},
        }

    def prepare(self) -> None:
        """With these in its place the server does not start an npm install of its own."""
        (self.home / "workspace").mkdir()
        folder = self.home / ".config" / "opencode"
        (folder / "node_modules").mkdir(parents=True)
        wanted = {"dependencies": {"@opencode-ai/plugin": "1.18.33"}}
        lock = {"name": "opencode", "lockfileVersion": 3, "packages": {"": wanted}}
        (folder / "package.json").write_text(json.dumps(wanted))
        (folder / "package-lock.json").write_text(json.dumps(lock))
        (folder / ".gitignore").write_text("*\n")


@pytest.fixture(scope="session")
def real_opencode(tmp_path_factory: pytest.TempPathFactory) -> Generator[RealProcess, None, None]:
    binary = os.environ.get(BINARY) or shutil.which("opencode")
    if binary is None or not Path(binary).is_file():
        missing(f"set {BINARY} to an opencode binary, or put one on PATH: npm install -g opencode-ai")
    port, provider_port = _free_ports(2)
    endpoint = Endpoint(url=f"http://127.0.0.1:{port}", password=PASSWORD)
    process = RealProcess(str(binary), tmp_path_factory.mktemp("opencode"), endpoint, provider_port)
    process.prepare()
    yield process
    process.kill()


@asynccontextmanager
async def real_server_bench(process: RealProcess) -> AsyncGenerator[ServerBench, None]:
    async with open_provider(port=process.provider_port) as provider:
        process.provider = provider
        if not process.is_running:
            process.start()
        opencode = HttpOpenCode(process.endpoint)
        bench = ServerBench(process, opencode)
        await bench.wait_ready()
        yield bench
        await opencode.aclose()


def _providers(url: str) -> dict[str, object]:
    """Both of them one and the same."""
    (impatient,) = provider_config(url, options=_PATIENCE).values()
    return {**provider_config(url), IMPATIENT.partition("/")[0]: impatient}


def _free_ports(count: int) -> Sequence[int]:
    sockets = [socket.socket() for _ in range(count)]
    for sock in sockets:
        sock.bind(("127.0.0.1", 0))
    ports = [int(sock.getsockname()[1]) for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


Opening = Callable[[], AbstractAsyncContextManager[ServerBench]]


@pytest.fixture(params=["fake", "front", pytest.param("real", marks=pytest.mark.opencode)])
def server_opening(request: pytest.FixtureRequest) -> Opening:
    """Fakes are made anew for each test."""
    if request.param == "real":
        return partial(real_server_bench, request.getfixturevalue("real_opencode"))
    return fake_server_bench if request.param == "fake" else front_bench


@pytest.fixture
async def server_bench(server_opening: Opening) -> AsyncGenerator[ServerBench, None]:
    async with server_opening() as bench:
        yield bench


def _conversation_of(event: ServerEvent) -> ConversationId | None:
    match event:
        case MessageUpdated():
            return event.info.conversation
        case Heartbeat() | InstanceDisposed():
            return None
        case _:
            return event.conversation
