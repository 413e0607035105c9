"""What an attached session has done for it. Its server is somebody else's: it is reached and let go of, and
nothing of theirs is ever stopped or removed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import assert_never

import trio
from attrs import define, field

from opencode_actors.errors import (
    OpenCodeError,
    ServerRefused,
    ServerSilent,
    ServerUnreachable,
    UsageError,
)
from opencode_actors.kernel import server_operations
from opencode_actors.kernel.actor import Post
from opencode_actors.kernel.servers import Servers
from opencode_actors.machines import session_messages as m
from opencode_actors.machines.session_messages import SessionMessage, SessionOperation
from opencode_actors.machines.vocabulary import Cause, Failure
from opencode_actors.ports import Container, ContainerId, ContainerPhase, Endpoint

_UNAUTHORIZED = 401
# It was there a moment ago; how long it may be away is the session's to say.
_AGAIN = 1.0

# Stands where a container's figures would: there is none that could be looked at.
NO_CONTAINER = Container(
    id=ContainerId("elsewhere"), name="", image="", labels={}, phase=ContainerPhase.RUNNING
)


@define(eq=False)
class RemoteOperations:
    """`reach` reads the password, and raises `UsageError` when it is not there."""

    url: str
    servers: Servers
    reach: Callable[[], Awaitable[Endpoint]]
    _endpoint: Endpoint | None = field(default=None, init=False)

    async def perform(self, operation: SessionOperation, post: Post[SessionMessage]) -> SessionMessage | None:
        match operation:
            case m.LaunchContainer():
                return await self._reach()
            case m.WatchExit():
                return await trio.sleep_forever()  # nobody here sees it end
            case m.ProbeServer():
                return await self._probe(operation)
            case m.OpenConversation():
                return await self._open(operation)
            case m.FollowServer():
                return await server_operations.follow(self.servers, operation, post)
            case m.SampleUsage() | m.TidyUp() | m.CatchUp():
                await trio.lowlevel.checkpoint()
                return None  # theirs, also the clock
            case m.EndContainer():
                await self.disconnect()
                return m.ContainerRemoved()
            case _:
                assert_never(operation)

    def connect(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self.servers.add(endpoint)

    async def disconnect(self) -> None:
        if self._endpoint is not None:
            endpoint, self._endpoint = self._endpoint, None
            await self.servers.forget(endpoint)

    async def _reach(self) -> SessionMessage:
        await self.disconnect()
        try:
            endpoint = await self.reach()
        except UsageError as error:
            failure = Failure(cause=Cause.SERVER_REFUSED, message=error.message)
            return m.LaunchFailed(failure=failure, retryable=False)
        self.connect(endpoint)
        return m.ContainerLaunched(container=NO_CONTAINER, endpoint=endpoint)

    async def _probe(self, operation: m.ProbeServer) -> SessionMessage:
        try:
            health = await self.servers.at(operation.endpoint).health(within=operation.within)
        except ServerRefused as error:
            if error.status == _UNAUTHORIZED:
                return m.OpeningFailed(failure=self._refused("does not take the password any more"))
            return m.ProbeFailed(reason=error.message)
        except OpenCodeError as error:
            return m.ProbeFailed(reason=error.message)
        return m.ProbeSucceeded(version=health.version)

    async def _open(self, operation: m.OpenConversation) -> SessionMessage:
        while True:
            try:
                return await self._open_once(operation)
            except (ServerUnreachable, ServerSilent):
                pass
            except OpenCodeError as error:
                return m.OpeningFailed(failure=self._refused(f"answers, but: {error.message}"))
            await trio.sleep(_AGAIN)

    async def _open_once(self, operation: m.OpenConversation) -> SessionMessage:
        server = self.servers.at(operation.endpoint)
        self.servers.offers(operation.endpoint, await server.warm_up())
        if operation.conversation is None:
            made = await server.create_conversation(title=operation.title)
            return m.ConversationOpened(conversation=made.id, fresh=True)
        known = await server.conversation(operation.conversation)
        if known is None:
            # A new one in its place would look as if nothing had been lost.
            why = f"does not know conversation {operation.conversation} any more"
            return m.OpeningFailed(failure=self._refused(why))
        return m.ConversationOpened(conversation=known.id, fresh=False)

    def _refused(self, why: str) -> Failure:
        return Failure(cause=Cause.SERVER_REFUSED, message=f"OpenCode's server at {self.url} {why}")
