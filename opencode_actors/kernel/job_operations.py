"""What a job has done for it: prompt, read, abort, through its server. Failures come back as facts."""

from __future__ import annotations

from typing import assert_never

import trio
from attrs import define

from opencode_actors.errors import OpenCodeError, ServerRefused
from opencode_actors.kernel.servers import Servers
from opencode_actors.machines.job_messages import (
    AbortAnswered,
    AbortConversation,
    AbortFailed,
    ConversationRead,
    JobMessage,
    JobOperation,
    PromptRefused,
    PromptTaken,
    PromptUnsure,
    ReadConversation,
    ReadFailed,
    SubmitPrompt,
)
from opencode_actors.machines.vocabulary import Cause, Failure
from opencode_actors.ports import ConversationState

_NOT_FOUND = 404
_BAD_REQUEST = 400


@define(eq=False)
class JobOperations:
    servers: Servers

    async def perform(self, operation: JobOperation) -> JobMessage:
        match operation:
            case SubmitPrompt():
                return await self._submit(operation)
            case ReadConversation():
                return await self._read(operation)
            case AbortConversation():
                return await self._abort(operation)
            case _:
                assert_never(operation)

    async def _submit(self, operation: SubmitPrompt) -> JobMessage:
        try:
            server = self.servers.at(operation.endpoint)
            await server.submit(operation.conversation, operation.prompt)
        except ServerRefused as refused:
            if refused.status in (_BAD_REQUEST, _NOT_FOUND):
                return PromptRefused(failure=Failure(cause=Cause.REJECTED, message=refused.message))
            return PromptUnsure(reason=refused.message)
        except OpenCodeError as error:
            return PromptUnsure(reason=error.message)
        return PromptTaken()

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
