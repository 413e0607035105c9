"""What a job has done for it: prompt, read, abort, through its server, and a look at what it left running.

Failures come back as facts.
"""

from __future__ import annotations

from collections.abc import Set
from contextlib import suppress
from typing import assert_never

import trio
from attrs import define

from opencode_actors.errors import EngineError, OpenCodeError, ServerRefused
from opencode_actors.kernel.actor import Post
from opencode_actors.kernel.servers import Servers
from opencode_actors.machines.job_messages import (
    AbortAnswered,
    AbortConversation,
    AbortFailed,
    ConversationRead,
    Delegated,
    JobMessage,
    JobOperation,
    LookAtProcesses,
    LookFailed,
    PermissionAnswer,
    ProcessesSeen,
    PromptRefused,
    PromptTaken,
    PromptUnsure,
    QuestionAnswer,
    ReadConversation,
    ReadFailed,
    ReadRequests,
    Rejection,
    ReplyFailed,
    ReplyTaken,
    ReplyToRequest,
    RequestsRead,
    RequestsUnread,
    ResidentsSeen,
    SubmitPrompt,
)
from opencode_actors.machines.offers import objection
from opencode_actors.machines.server_events import ConversationId, MessageId, ToolPart, ToolState
from opencode_actors.machines.vocabulary import Cause, Failure, RequestKind
from opencode_actors.machines.work import DELEGATES, permission, question
from opencode_actors.ports import (
    ConversationState,
    Engine,
    OpenCodeServer,
    PendingPermission,
    PendingQuestion,
    PermissionReply,
)

_NOT_FOUND = 404
_BAD_REQUEST = 400


@define(eq=False)
class JobOperations:
    """Without an `engine` the server is somebody else's, and not for this session alone."""

    engine: Engine | None
    servers: Servers

    async def perform(self, operation: JobOperation, post: Post[JobMessage]) -> JobMessage:
        match operation:
            case SubmitPrompt():
                if self.engine is not None:
                    # No engine's word is needed for it: where the look fails, the container is gone.
                    with suppress(EngineError):
                        await post(ResidentsSeen(processes=await self.engine.processes(operation.container)))
                return await self._submit(operation)
            case LookAtProcesses():
                return await self._look(operation)
            case ReadConversation():
                return await self._read(operation)
            case ReadRequests():
                return await self._list(operation)
            case ReplyToRequest():
                return await self._reply(operation)
            case AbortConversation():
                return await self._abort(operation)
            case _:
                assert_never(operation)

    async def _submit(self, operation: SubmitPrompt) -> JobMessage:
        try:
            server = self.servers.at(operation.endpoint)
            wrong = await self._objection(server, operation)
            if wrong:
                return PromptRefused(failure=Failure(cause=Cause.REJECTED, message=wrong))
            if self.engine is None and await _is_taken(server, operation):
                return PromptRefused(failure=_taken(operation))
            if self.engine is None and operation.prompt.permissions is not None:
                # A container has them in its config; here there is only the conversation to put them on.
                await self.servers.restrict(
                    operation.endpoint, operation.conversation, operation.prompt.permissions
                )
            await server.submit(operation.conversation, operation.prompt)
        except ServerRefused as refused:
            if refused.status in (_BAD_REQUEST, _NOT_FOUND):
                return PromptRefused(failure=Failure(cause=Cause.REJECTED, message=refused.message))
            return PromptUnsure(reason=refused.message)
        except OpenCodeError as error:
            return PromptUnsure(reason=error.message)
        return PromptTaken()

    async def _objection(self, server: OpenCodeServer, operation: SubmitPrompt) -> str:
        """OpenCode takes any name, and says later that it has none such. What it has was told when it started;
        whoever seems to be wrong is looked up once more."""
        known = self.servers.offered(operation.endpoint)
        model, agent = operation.prompt.model, operation.prompt.agent
        if known is None or not objection(known, model=model, agent=agent):
            return ""
        fresh = await server.warm_up()
        self.servers.offers(operation.endpoint, fresh)
        return objection(fresh, model=model, agent=agent)

    async def _read(self, operation: ReadConversation) -> JobMessage:
        try:
            server = self.servers.at(operation.endpoint)
            # The state first: a message that ends between the two calls is then read as it ended.
            states = await server.status()
            messages = await server.messages(operation.conversation, since=operation.since)
        except OpenCodeError as error:
            return ReadFailed(reason=error.message)
        state = states.get(operation.conversation, ConversationState.IDLE)
        return ConversationRead(messages=messages, state=state)

    async def _look(self, operation: LookAtProcesses) -> JobMessage:
        if self.engine is None:
            await trio.lowlevel.checkpoint()
            return LookFailed(reason="the server is on somebody else's machine")
        try:
            return ProcessesSeen(processes=await self.engine.processes(operation.container))
        except EngineError as error:
            return LookFailed(reason=error.message)

    async def _list(self, operation: ReadRequests) -> JobMessage:
        try:
            server = self.servers.at(operation.endpoint)
            todos = await server.todos(operation.conversation)
            children = await self._descendants(server, operation.conversation)
            questions = await server.questions()
            permissions = await server.permissions()
            ours = await self._answering(server, operation, (*questions, *permissions))
            # Last, so that what has ended meanwhile is seen to have.
            busy = frozenset(await server.status())
            delegated = await _delegated(server, children & busy) if operation.tools else None
        except OpenCodeError as error:
            return RequestsUnread(reason=error.message)

        def waits(asked: PendingQuestion | PendingPermission) -> bool:
            """An abort leaves what was asked on the list for ever. Nobody works on a ghost's conversation, or
            works on a later prompt."""
            if asked.conversation == operation.conversation:
                return asked.message is None or asked.message > operation.since or asked.message in ours
            return asked.conversation in children and asked.conversation in busy

        own = operation.conversation
        listed = (
            *(question(q, sub_agent=q.conversation != own) for q in questions if waits(q)),
            *(permission(p, sub_agent=p.conversation != own) for p in permissions if waits(p)),
        )
        pending = listed if own in busy else ()
        return RequestsRead(children=children, busy=busy, requests=pending, todos=todos, delegated=delegated)

    async def _answering(
        self,
        server: OpenCodeServer,
        operation: ReadRequests,
        asked: tuple[PendingQuestion | PendingPermission, ...],
    ) -> frozenset[MessageId]:
        """A message of before the prompt asked, or the clock was set back since: the conversation knows."""
        early = (one.message for one in asked if one.conversation == operation.conversation)
        if not any(message is not None and message < operation.since for message in early):
            return frozenset()
        since = await server.messages(operation.conversation, since=operation.since)
        return frozenset(message.info.id for message in since)

    async def _descendants(
        self, server: OpenCodeServer, conversation: ConversationId
    ) -> frozenset[ConversationId]:
        found: set[ConversationId] = set()
        parents = [conversation]
        while parents:
            children = await server.children(parents.pop())
            fresh = [child.id for child in children if child.id not in found]
            found.update(fresh)
            parents.extend(fresh)
        return frozenset(found)

    async def _reply(self, operation: ReplyToRequest) -> JobMessage:
        request, answer = operation.request, operation.answer
        try:
            server = self.servers.at(operation.endpoint)
            match answer:
                case QuestionAnswer(answers=answers):
                    await server.answer_question(request.id, answers)
                case PermissionAnswer(reply=reply):
                    await server.answer_permission(request.id, reply)
                case Rejection(message=message) if request.kind is RequestKind.PERMISSION:
                    await server.answer_permission(
                        request.id, PermissionReply.REJECT, message=message or None
                    )
                case Rejection(message=""):
                    await server.reject_question(request.id)
                case Rejection(message=message):
                    # A rejected question ends the prompt; an answer in free words does not.
                    await server.answer_question(request.id, ((message,),) * request.questions)
                case _:
                    assert_never(answer)
        except ServerRefused as refused:
            return ReplyFailed(gone=refused.status == _NOT_FOUND, reason=refused.message)
        except OpenCodeError as error:
            return ReplyFailed(gone=False, reason=error.message)
        return ReplyTaken()

    async def _abort(self, operation: AbortConversation) -> JobMessage:
        try:
            server = self.servers.at(operation.endpoint)
            children = await server.children(operation.conversation)
            async with trio.open_nursery() as nursery:
                for child in children:
                    nursery.start_soon(server.abort, child.id)
            await server.abort(operation.conversation)
        except* OpenCodeError as errors:
            reason = "; ".join(str(error) for error in errors.exceptions)
        else:
            return AbortAnswered()
        return AbortFailed(reason=reason)


async def _is_taken(server: OpenCodeServer, operation: SubmitPrompt) -> bool:
    """Whether the conversation is at work on another prompt. One of ours that is there already is sent again
    without harm."""
    if operation.conversation not in await server.status():
        return False
    ours = operation.prompt.message_id
    since = await server.messages(operation.conversation, since=ours)
    return all(message.info.id != ours for message in since)


def _taken(operation: SubmitPrompt) -> Failure:
    return Failure(
        cause=Cause.SERVER_REFUSED,
        message=f"conversation {operation.conversation} at {operation.endpoint.url} is at work on another prompt, "
        "and OpenCode would make one answer of both; nothing was sent",
    )


async def _delegated(server: OpenCodeServer, conversations: Set[ConversationId]) -> Delegated:
    """One that waits for a sub-agent of its own does no more than that one."""
    messages = [message for one in sorted(conversations) for message in await server.messages(one)]
    tools = [part for message in messages for part in message.parts if isinstance(part, ToolPart)]
    # An abort leaves tools that run for ever.
    open_ = {message.info.id for message in messages if message.info.completed_at is None}
    ends = [tool.ended_at for tool in tools] + [message.info.completed_at for message in messages]
    return Delegated(
        runs=any(
            tool.state is ToolState.RUNNING and tool.tool != DELEGATES and tool.message in open_
            for tool in tools
        ),
        ended_at=max((at for at in ends if at is not None), default=None),
    )
