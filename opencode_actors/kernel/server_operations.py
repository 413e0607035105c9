"""What is done with a server, whoever runs it: asked whether it answers, given a conversation, listened to."""

from __future__ import annotations

from opencode_actors.errors import OpenCodeError
from opencode_actors.kernel.actor import Post
from opencode_actors.kernel.servers import Servers
from opencode_actors.machines import session_messages as m
from opencode_actors.machines.job_messages import EventsSeen, StreamOpened
from opencode_actors.machines.session_messages import SessionMessage
from opencode_actors.machines.vocabulary import Cause, Failure


async def probe(servers: Servers, operation: m.ProbeServer) -> SessionMessage:
    try:
        health = await servers.at(operation.endpoint).health(within=operation.within)
    except OpenCodeError as error:
        return m.ProbeFailed(reason=error.message)
    return m.ProbeSucceeded(version=health.version)


async def open_conversation(servers: Servers, operation: m.OpenConversation) -> SessionMessage:
    try:
        server = servers.at(operation.endpoint)
        servers.offers(operation.endpoint, await server.warm_up())
        if operation.conversation is not None:
            known = await server.conversation(operation.conversation)
            if known is not None and operation.before is not None:
                known = await server.fork(known.id, before=operation.before)
            if known is not None:
                return m.ConversationOpened(conversation=known.id, fresh=False)
        made = await server.create_conversation(title=operation.title)
    except OpenCodeError as error:
        failure = Failure(cause=Cause.CRASH, message=f"OpenCode is up, but: {error.message}")
        return m.OpeningFailed(failure=failure)
    return m.ConversationOpened(conversation=made.id, fresh=True)


async def follow(servers: Servers, operation: m.FollowServer, post: Post[SessionMessage]) -> SessionMessage:
    try:
        async with servers.at(operation.endpoint).events() as batches:
            await post(StreamOpened())
            async for events in batches:
                await post(EventsSeen(events=events))
    except OpenCodeError as error:
        return m.StreamLost(reason=error.message)
    return m.StreamLost(reason="the server closed the stream")
