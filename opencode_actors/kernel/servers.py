"""The connections to OpenCode servers, one for each endpoint, shared by a session and its jobs."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field

from opencode_actors.ports import Endpoint, OpenCodeServer

Connect = Callable[[Endpoint], OpenCodeServer]


@define(eq=False)
class Servers:
    connect: Connect
    _open: dict[Endpoint, OpenCodeServer] = field(factory=dict[Endpoint, OpenCodeServer])

    def at(self, endpoint: Endpoint) -> OpenCodeServer:
        server = self._open.get(endpoint)
        if server is None:
            server = self._open[endpoint] = self.connect(endpoint)
        return server

    async def forget(self, endpoint: Endpoint) -> None:
        server = self._open.pop(endpoint, None)
        if server is not None:
            await server.aclose()

    async def aclose(self) -> None:
        for endpoint in tuple(self._open):
            await self.forget(endpoint)
