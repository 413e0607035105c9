"""OpenCode servers in memory: the `OpenCodeServer` port without processes or sockets.

    async with open_fake_servers() as servers:
        server = servers.start("http://127.0.0.1:4096", password="secret")
        opencode = servers.connect(Endpoint(url=server.url, password="secret"))
        conversation = await opencode.create_conversation(title="demo")
        await opencode.submit(conversation.id, prompt)      # "::words 20 rate=10"
        server.crash()                                      # or freeze(), thaw(), drop_streams(), …

The model is a script, the same as the scripted provider's (`provider_markers` lists the steps), so that
one test runs against the fake and against the real server. What the fake does, and in which order it
tells of it, is what the real one was seen to do; where that varies, it does what is hardest on its
caller. It takes time only where a script says so, and then trio's (`MockClock` included).
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from copy import deepcopy
from typing import Any, TypeVar

import trio
from attrs import define, field

from opencode_actors.errors import ServerRefused, ServerSilent, ServerUnreachable
from opencode_actors.machines.server_events import ConversationId, Message, MessageId, ServerEvent, Todo
from opencode_actors.machines.transcript import from_prompt
from opencode_actors.ports import (
    DEFAULT_USER,
    Agent,
    Catalog,
    ContainerId,
    Conversation,
    ConversationState,
    Endpoint,
    PendingPermission,
    PendingQuestion,
    PermissionReply,
    Prompt,
    ServerHealth,
)
from opencode_actors.testing.fake_container import FakeContainer
from opencode_actors.testing.fake_disk import FakeDisk
from opencode_actors.testing.fake_server import VERSION, FakeBehaviour, FakeServer
from opencode_actors.testing.fake_turn import work_on

T = TypeVar("T")

CALL_WITHIN = 30.0  # as the real adapter
_STREAM_WITHIN = 15.0  # as the real adapter
_DATA = "/data"  # where a container has its server's data
_CONFIG = "OPENCODE_CONFIG_CONTENT"
_PASSWORD = "OPENCODE_SERVER_PASSWORD"  # noqa: S105 - the variable's name


@define(eq=False)
class FakeServers:
    """All fake servers of a test, by url; their disks by name, which outlive them."""

    behaviour: FakeBehaviour
    _nursery: trio.Nursery = field(repr=False)
    _servers: dict[str, FakeServer] = field(factory=dict[str, FakeServer])
    _disks: dict[str, FakeDisk] = field(factory=dict[str, FakeDisk], repr=False)
    _urls: dict[ContainerId, str] = field(factory=dict[ContainerId, str], repr=False)

    def start(
        self,
        url: str,
        *,
        user: str = DEFAULT_USER,
        password: str,
        disk: str = "",
        behaviour: FakeBehaviour | None = None,
        providers: Mapping[str, Any] | None = None,
        permission: Mapping[str, Any] | None = None,
    ) -> FakeServer:
        """A server at `url`, with what an earlier one left on the disk of that name (default: the url). `providers` and
        `permission` are those blocks of its config."""
        kept = self._disks.setdefault(disk or url, FakeDisk())
        server = FakeServer(
            url, user, password, kept, behaviour or self.behaviour, work_on, providers or {}, permission or {}
        )
        self._servers[url] = server
        self._nursery.start_soon(server.run)
        return server

    def server(self, url: str) -> FakeServer | None:
        """The one that runs at `url`, if any."""
        found = self._servers.get(url)
        return found if found is not None and found.alive else None

    def running(self) -> tuple[FakeServer, ...]:
        """Those that have not died."""
        return tuple(server for server in self._servers.values() if server.alive)

    def connect(self, endpoint: Endpoint) -> FakeOpenCode:
        """As `HttpOpenCode(endpoint)`; nothing needs to run there yet."""
        return FakeOpenCode(endpoint, self)

    def copy_disk(self, source: str, target: str) -> None:
        """What the servers on the one disk have said is on the other one, too."""
        self._disks[target] = deepcopy(self._disks[source])

    # ---- as a fake engine's world

    def on_start(self, container: FakeContainer) -> None:
        """For `FakeEngine(on_start=…)`: a server on the container's port, with its data on its mount."""
        if container.run is None:
            return
        url = self._urls[container.id] = f"http://127.0.0.1:{container.run.port}"
        environment = container.spec.environment
        password = environment.get(_PASSWORD, "")
        config = json.loads(environment.get(_CONFIG, "{}"))
        mounts = (str(m.source) for m in container.spec.mounts if m.target.endswith(_DATA))
        disk = next(mounts, container.name)
        server = self.start(
            url,
            password=password,
            disk=disk,
            providers=config.get("provider"),
            permission=config.get("permission"),
        )
        server.spawn = container.spawn

    def on_exit(self, container: FakeContainer, death: object) -> None:  # noqa: ARG002 - it dies of anything
        """For `FakeEngine(on_exit=…)`: the server dies with its container."""
        url = self._urls.pop(container.id, None)
        if url is not None:
            self._servers[url].crash()


@asynccontextmanager
async def open_fake_servers(behaviour: FakeBehaviour | None = None) -> AsyncGenerator[FakeServers, None]:
    """Servers run until the block ends; `behaviour` is what they do when `start` is not told otherwise."""
    async with trio.open_nursery() as nursery:
        yield FakeServers(behaviour or FakeBehaviour(), nursery)
        nursery.cancel_scope.cancel()


@define(eq=False)
class FakeOpenCode:
    """A client of whatever fake server runs at its endpoint at the time of a call."""

    endpoint: Endpoint
    _servers: FakeServers = field(repr=False)
    _closed: bool = field(default=False, init=False)

    async def health(self, *, within: float) -> ServerHealth:
        await self._reach(within=within)
        return ServerHealth(version=VERSION)

    async def warm_up(self) -> Catalog:
        return (await self._reach()).catalog()

    async def has_directory(self) -> bool:
        return (await self._reach()).behaviour.has_directory(self.endpoint.directory)

    async def create_conversation(self, *, title: str) -> Conversation:
        server = await self._reach()
        return await self._answer(server, server.create(title, directory=self.endpoint.directory))

    async def conversation(self, conversation: ConversationId) -> Conversation | None:
        stored = (await self._reach()).disk.conversations.get(conversation)
        return None if stored is None else stored.about

    async def conversations(self) -> tuple[Conversation, ...]:
        every = [stored.about for stored in (await self._reach()).disk.conversations.values()]
        return tuple(about for about in reversed(every) if about.parent is None)

    async def children(self, conversation: ConversationId) -> tuple[Conversation, ...]:
        server = await self._reach()
        server.stored(conversation)
        every = (stored.about for stored in server.disk.conversations.values())
        return tuple(about for about in every if about.parent == conversation)

    async def fork(self, conversation: ConversationId, *, before: MessageId | None = None) -> Conversation:
        server = await self._reach()
        return await self._answer(server, server.fork(conversation, before))

    async def newest(self, conversation: ConversationId) -> float | None:
        stored = (await self._reach()).stored(conversation)
        return max((message.info.created_at for message in stored.messages.values()), default=None)

    async def retell(self, conversation: ConversationId, *, earlier: float) -> Conversation:
        server = await self._reach()
        return await self._answer(
            server, server.disk.retell(server.stored(conversation), earlier=earlier).about
        )

    async def submit(self, conversation: ConversationId, prompt: Prompt) -> None:
        server = await self._reach()
        server.submit(conversation, prompt)
        await self._answer(server, None)

    async def restrict(self, conversation: ConversationId, rules: Sequence[Mapping[str, str]]) -> None:
        server = await self._reach()
        stored = server.stored(conversation)
        stored.rules = (*stored.rules, *(dict(rule) for rule in rules))
        await self._answer(server, None)

    async def abort(self, conversation: ConversationId) -> None:
        server = await self._reach()
        server.abort(conversation)
        await self._answer(server, None)

    async def messages(
        self, conversation: ConversationId, *, since: MessageId | None = None
    ) -> tuple[Message, ...]:
        stored = (await self._reach()).stored(conversation)
        found = tuple(message.snapshot() for message in stored.in_order())
        return found if since is None else from_prompt(found, since)

    async def status(self) -> Mapping[ConversationId, ConversationState]:
        return (await self._reach()).status(self.endpoint.directory)

    async def todos(self, conversation: ConversationId) -> tuple[Todo, ...]:
        return (await self._reach()).stored(conversation).todos

    async def agents(self) -> tuple[Agent, ...]:
        return (await self._reach()).agents()

    async def questions(self) -> tuple[PendingQuestion, ...]:
        requests = (await self._reach()).requests.values()
        return tuple(request.about for request in requests if isinstance(request.about, PendingQuestion))

    async def answer_question(self, request: str, answers: tuple[tuple[str, ...], ...]) -> None:
        server = await self._reach()
        server.answer(request, PendingQuestion).answers = answers
        await self._answer(server, None)

    async def reject_question(self, request: str) -> None:
        server = await self._reach()
        server.answer(request, PendingQuestion)
        await self._answer(server, None)

    async def permissions(self) -> tuple[PendingPermission, ...]:
        requests = (await self._reach()).requests.values()
        return tuple(request.about for request in requests if isinstance(request.about, PendingPermission))

    async def answer_permission(
        self, request: str, reply: PermissionReply, *, message: str | None = None
    ) -> None:
        server = await self._reach()
        question = server.answer(request, PendingPermission)
        question.reply, question.message = reply, message
        await self._answer(server, None)

    @asynccontextmanager
    async def events(self) -> AsyncGenerator[AsyncIterator[tuple[ServerEvent, ...]], None]:
        server = await self._reach(within=_STREAM_WITHIN)
        if trio.current_time() < server.streams_from:
            raise ServerUnreachable(f"OpenCode's server at {self.endpoint.url} opens no event stream")
        stream = server.open_stream()
        try:
            yield stream
        finally:
            server.close_stream(stream)

    async def aclose(self) -> None:
        """Nothing is held. Whoever calls it later has a bug, as with a real client."""
        self._closed = True
        await trio.sleep(self._servers.behaviour.takes())

    async def _reach(self, *, within: float = CALL_WITHIN) -> FakeServer:
        if self._closed:
            raise RuntimeError(f"the client of {self.endpoint.url} is closed")
        url = self.endpoint.url
        server = self._servers.server(url)
        if server is None or not server.listening:
            await trio.lowlevel.checkpoint()
            raise ServerUnreachable(f"OpenCode's server at {url} cannot be reached: connection refused")
        with trio.move_on_after(within):
            if trio.current_time() < server.ready_at:
                await server.wait_dead()
            await server.wait_thawed()
            if not server.alive:
                raise self._broken()
            server.felt["slow"] += server.answers_after > 0
            await trio.sleep(server.answers_after + server.behaviour.takes())
            if not server.alive:
                raise self._broken()
            if (self.endpoint.user, self.endpoint.password) != (server.user, server.password):
                raise ServerRefused("OpenCode's server refused the password", status=401)
            return server
        raise self._silent(within)

    async def _answer(self, server: FakeServer, answer: T) -> T:
        """What changes something has happened by now: its answer takes time, and may be lost on its way."""
        with trio.move_on_after(CALL_WITHIN):
            if server.loses_next_answer():
                await trio.sleep(server.loses_answers or 0.0)
                raise self._broken()
            await trio.sleep(server.behaviour.answers())
            await server.wait_thawed()
            if not server.alive:
                raise self._broken()
            return answer
        raise self._silent(CALL_WITHIN)

    def _broken(self) -> ServerUnreachable:
        url = self.endpoint.url
        return ServerUnreachable(f"OpenCode's server at {url} cannot be reached: the connection broke")

    def _silent(self, within: float) -> ServerSilent:
        return ServerSilent(f"OpenCode's server at {self.endpoint.url} did not answer in {within:g} s")
