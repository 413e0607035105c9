"""The connections to OpenCode servers, one for each endpoint, shared by a session and its jobs."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field

from opencode_actors.errors import ServerUnreachable
from opencode_actors.ports import Endpoint, OpenCodeServer

Connect = Callable[[Endpoint], OpenCodeServer]


@define(eq=False, repr=False)
class Servers:
    connect: Connect
    _open: dict[Endpoint, OpenCodeServer] = field(factory=dict[Endpoint, OpenCodeServer], init=False)

    def __repr__(self) -> str:
        return f"<Servers {', '.join(endpoint.url for endpoint in self._open) or 'none'}>"

    def add(self, endpoint: Endpoint) -> None:
        """From now on there may be a server."""
        self._open[endpoint] = self.connect(endpoint)

    def at(self, endpoint: Endpoint) -> OpenCodeServer:
        """Raises `ServerUnreachable` for one that is gone: a late call must not open a new connection,
        which nobody would close."""
        server = self._open.get(endpoint)
        if server is None:
            raise ServerUnreachable(f"OpenCode's server at {endpoint.url} is gone with its container")
        return server

    async def forget(self, endpoint: Endpoint) -> None:
        server = self._open.pop(endpoint, None)
        if server is not None:
            await server.aclose()

    async def aclose(self) -> None:
        for endpoint in tuple(self._open):
            await self.forget(endpoint)
