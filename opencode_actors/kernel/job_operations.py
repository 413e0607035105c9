"""What a job has done for it: prompt, read, abort, through its server, and a look at what it left running.

Failures come back as facts.
"""

from __future__ import annotations

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
    JobMessage,
    JobOperation,
    LookAtProcesses,
    LookFailed,
    ProcessesSeen,
    PromptRefused,
    PromptTaken,
    PromptUnsure,
    ReadConversation,
    ReadFailed,
    ResidentsSeen,
    SubmitPrompt,
)
from opencode_actors.machines.vocabulary import Cause, Failure
from opencode_actors.ports import ConversationState, Engine

_NOT_FOUND = 404
_BAD_REQUEST = 400


@define(eq=False)
class JobOperations:
    engine: Engine
    servers: Servers

    async def perform(self, operation: JobOperation, post: Post[JobMessage]) -> JobMessage:
        match operation:
            case SubmitPrompt():
                # No engine's word is needed for it: where the look fails, the container is gone.
                with suppress(EngineError):
                    await post(ResidentsSeen(processes=await self.engine.processes(operation.container)))
                return await self._submit(operation)
            case LookAtProcesses():
                return await self._look(operation)
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

    async def _look(self, operation: LookAtProcesses) -> JobMessage:
        try:
            return ProcessesSeen(processes=await self.engine.processes(operation.container))
        except EngineError as error:
            return LookFailed(reason=error.message)

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
