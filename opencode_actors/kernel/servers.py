"""The connections to OpenCode servers, one for each endpoint, shared by a session and its jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import trio
from attrs import define, field

from opencode_actors.errors import ServerUnreachable
from opencode_actors.machines.permissions import ruleset_of
from opencode_actors.machines.server_events import ConversationId
from opencode_actors.ports import Catalog, Endpoint, OpenCodeServer, Permissions

Connect = Callable[[Endpoint], OpenCodeServer]


@define(eq=False, repr=False)
class Servers:
    connect: Connect
    _open: dict[Endpoint, OpenCodeServer] = field(factory=dict[Endpoint, OpenCodeServer], init=False)
    # Several sessions may be attached to one server.
    _users: Counter[Endpoint] = field(factory=Counter[Endpoint], init=False)
    _restricted: dict[tuple[Endpoint, ConversationId], Permissions] = field(
        factory=dict[tuple[Endpoint, ConversationId], Permissions], init=False
    )
    _offers: dict[Endpoint, Catalog] = field(factory=dict[Endpoint, Catalog], init=False)

    def __repr__(self) -> str:
        return f"<Servers {', '.join(endpoint.url for endpoint in self._open) or 'none'}>"

    def add(self, endpoint: Endpoint) -> None:
        """From now on there may be a server."""
        self._users[endpoint] += 1
        if endpoint not in self._open:
            self._open[endpoint] = self.connect(endpoint)

    def at(self, endpoint: Endpoint) -> OpenCodeServer:
        """Raises `ServerUnreachable` for one that is gone: a late call must not open a new connection,
        which nobody would close."""
        server = self._open.get(endpoint)
        if server is None:
            raise ServerUnreachable(f"OpenCode's server at {endpoint.url} is not connected any more")
        return server

    @asynccontextmanager
    async def client(self, endpoint: Endpoint) -> AsyncGenerator[OpenCodeServer]:
        """Of one's own, for a few questions, whether anybody else uses that server or not."""
        server = self.connect(endpoint)
        try:
            yield server
        finally:
            await server.aclose()

    def offers(self, endpoint: Endpoint, catalog: Catalog) -> None:
        """What was last heard of it."""
        if endpoint in self._open:
            self._offers[endpoint] = catalog

    async def restrict(self, endpoint: Endpoint, conversation: ConversationId, wanted: Permissions) -> None:
        """Once for each change: the server keeps all that was ever put on a conversation."""
        if self._restricted.get((endpoint, conversation)) == wanted:
            await trio.lowlevel.checkpoint()
            return
        await self.at(endpoint).restrict(conversation, ruleset_of(wanted, directory=endpoint.directory))
        self._restricted[endpoint, conversation] = wanted

    def offered(self, endpoint: Endpoint) -> Catalog | None:
        return self._offers.get(endpoint)

    async def forget(self, endpoint: Endpoint) -> None:
        """By one of those who added it; it is closed with the last of them."""
        self._users[endpoint] -= 1
        if self._users[endpoint] <= 0:
            await self._close(endpoint)

    async def _close(self, endpoint: Endpoint) -> None:
        del self._users[endpoint]
        self._offers.pop(endpoint, None)
        self._restricted = {key: put for key, put in self._restricted.items() if key[0] != endpoint}
        server = self._open.pop(endpoint, None)
        if server is not None:
            await server.aclose()

    async def aclose(self) -> None:
        for endpoint in tuple(self._open):
            await self._close(endpoint)
