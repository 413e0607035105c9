"""What is done with a server, whoever runs it: asked whether it answers, given a conversation, listened to."""

from __future__ import annotations

import trio

from opencode_actors.errors import (
    OpenCodeError,
    ServerRefused,
    ServerSilent,
    ServerUnintelligible,
    ServerUnreachable,
)
from opencode_actors.kernel.actor import Post
from opencode_actors.kernel.servers import Servers
from opencode_actors.machines import session_messages as m
from opencode_actors.machines.job_messages import EventsSeen, StreamOpened
from opencode_actors.machines.session_messages import SessionMessage
from opencode_actors.machines.vocabulary import Cause, Failure
from opencode_actors.ports import OpenCodeServer

_ASK_AGAIN = 1.0
_TRIES = 3
_ITS_OWN_FAULT = 500  # an HTTP status from there on says that the same may be taken another time
# Between what was said last and the next prompt: of one millisecond, the ids' random ends would decide.
_APART = 0.01
# A clock that is corrected goes back by a second or two: that long nobody need wait for a copy.
_WAITED_FOR = 5.0


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


async def catch_up(servers: Servers, operation: m.CatchUp) -> SessionMessage:
    """A server that cannot be reached is its session's to judge; until then it is asked again."""
    began, failures = trio.current_time(), 0
    while True:
        try:
            return await _caught_up(servers.at(operation.endpoint), operation, began)
        except ServerUnreachable:
            pass
        except OpenCodeError as error:
            # Each try may leave a part of a copy behind, and the job waits for it where no time-out of its own runs.
            failures += 1
            if failures == _TRIES:
                text = f"the clock was set back, and OpenCode takes no older copy of the conversation: {error.message}"
                return m.OpeningFailed(failure=Failure(cause=Cause.CRASH, message=text))
        await trio.sleep(_ASK_AGAIN)


async def _caught_up(server: OpenCodeServer, operation: m.CatchUp, began: float) -> m.CaughtUp:
    conversation = operation.conversation
    try:
        newest = await server.newest(conversation)
    except (ServerRefused, ServerSilent, ServerUnintelligible):
        return m.CaughtUp(conversation=conversation, upto=None)  # nothing says that the clock was set back
    now = operation.wall + trio.current_time() - began
    ahead = 0.0 if newest is None else newest + _APART - now
    if newest is None or ahead <= 0:
        return m.CaughtUp(conversation=conversation, upto=newest)
    if ahead <= _WAITED_FOR:
        await trio.sleep(ahead)
        return m.CaughtUp(conversation=conversation, upto=newest)
    try:
        copy = await server.retell(conversation, earlier=ahead)
    except (ServerRefused, ServerUnintelligible) as error:
        if isinstance(error, ServerRefused) and error.status >= _ITS_OWN_FAULT:
            raise
        made = await server.create_conversation(title=operation.title)
        how = (
            "the clock was set back, and OpenCode answers nothing in a conversation from ahead of it. It takes no "
            f"older copy of it either, so the session begins a new one: {error.message}"
        )
        return m.CaughtUp(conversation=made.id, upto=None, how=how)
    how = f"the clock was set back by {ahead:.0f} s: the conversation goes on in a copy that is as much older"
    return m.CaughtUp(conversation=copy.id, upto=newest - ahead, how=how)


async def follow(servers: Servers, operation: m.FollowServer, post: Post[SessionMessage]) -> SessionMessage:
    try:
        async with servers.at(operation.endpoint).events() as batches:
            await post(StreamOpened())
            async for events in batches:
                await post(EventsSeen(events=events))
    except OpenCodeError as error:
        return m.StreamLost(reason=error.message)
    return m.StreamLost(reason="the server closed the stream")
