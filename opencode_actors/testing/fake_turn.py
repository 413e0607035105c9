"""A fake OpenCode server at work on a prompt: the model's turns, their tools, retries and failures.

The order of the events is the real server's, as recorded from it.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, Never

import trio
from attrs import define, evolve, field

from opencode_actors.machines.server_events import (
    ConversationBusy,
    ConversationId,
    ConversationRetrying,
    MessageError,
    MessageInfo,
    PartDelta,
    PartId,
    ReasoningPart,
    StepPart,
    TextPart,
    Tokens,
)
from opencode_actors.ports import ConversationState
from opencode_actors.testing.fake_calls import ToolRun, abort_tools
from opencode_actors.testing.fake_disk import StoredConversation, StoredMessage
from opencode_actors.testing.fake_server import ABORTED, FakeServer, Work
from opencode_actors.testing.fake_tools import TOOLS
from opencode_actors.testing.provider_script import (
    CallTool,
    ChatRequest,
    Drop,
    Finish,
    Garble,
    Hang,
    Pause,
    Refuse,
    Say,
    Step,
    StreamError,
)

# Between the tries of one request, without the jitter; after the sixth try the request has failed.
_RETRY_AFTER = (2.0, 4.0, 8.0, 16.0, 30.0)
_OVERFLOW = "context_length_exceeded"
# An aborted tool's last state comes up to 0.28 s after the abort was answered.
_LINGER = 0.28
_ASKED_AGAIN = 2.0
_PATIENCE = 300.0  # with a provider that says nothing, where the config does not say
_SILENT = "The operation timed out."
_SUMMARY = "A conversation with the scripted model."


@define
class _ProviderFault(Exception):
    """A request to the model failed. `retry_after` is None for the server's own back-off."""

    error: MessageError
    again: bool
    retry_after: float | None = None


async def work_on(server: FakeServer, conversation: ConversationId, work: Work) -> None:
    """Answers what is unanswered, then says idle. Prompts that come meanwhile are answered too."""
    stored = server.stored(conversation)
    server.publish(ConversationBusy(conversation=conversation))
    turn: _Turn | None = None
    with work.scope:
        await server.wait_thawed()
        while (prompt := stored.last_user()) is not None and not stored.is_answered(prompt):
            turn = _Turn(server, stored, prompt, work)
            if not await turn.run():
                break
            server.publish(ConversationBusy(conversation=conversation))
            if turn.is_behind:
                # The clock was set back meanwhile: it asks again and again, and not in no time.
                turn = None
                await trio.sleep(_ASKED_AGAIN)
    if work.aborted:
        if turn is not None:
            await turn.end_aborted()
    else:
        server.works.pop(conversation, None)
    server.say_idle(conversation)
    work.ended.set()


@define(eq=False)
class _Turn:
    """One assistant message: one request to the model, with its retries, and the tools it calls."""

    server: FakeServer
    stored: StoredConversation
    prompt: StoredMessage
    work: Work
    _message: StoredMessage = field(init=False)
    _open: TextPart | ReasoningPart | None = None  # as it is so far; the disk has it empty
    _tools: list[ToolRun] = field(factory=list[ToolRun])
    _told: int = 0
    _began: bool = False  # whether the provider has said anything in answer to this request
    _heard_at: float = 0.0

    def __attrs_post_init__(self) -> None:
        request = self.prompt.info
        self._message = self.server.put_message(
            MessageInfo(
                id=self.server.disk.new_message_id(self.server.now()),
                conversation=request.conversation,
                role="assistant",
                parent=request.id,
                model=request.model,
                agent=request.agent,
            )
        )

    @property
    def is_behind(self) -> bool:
        """Whether what the model said before stands behind it."""
        said = [stored for stored in self.stored.in_order() if stored.info.role == "assistant"]
        return said[-1] is not self._message

    async def run(self) -> bool:
        """True when the conversation is to go on, were it only to see that nothing is left to do."""
        conversation = self._message.info.conversation
        self.server.publish(ConversationBusy(conversation=conversation))
        for tries in itertools.count(1):
            try:
                finish = await self._request()
            except _ProviderFault as fault:
                if fault.again and tries <= len(_RETRY_AFTER):
                    await self._back_off(tries, fault)
                    continue
                return self._fail(fault.error)
            return self._end(finish)
        raise AssertionError("the count has no end")

    # ---- one request to the model

    async def _request(self) -> str:
        request = self._as_model_sees_it()
        attempt = self.server.attempts[request.key] = self.server.attempts.get(request.key, 0) + 1
        steps = self.server.behaviour.script(request)
        self._began, self._heard_at = False, trio.current_time()
        finish = ""
        async with trio.open_nursery() as nursery:
            fault = None
            try:
                for step in steps:
                    if isinstance(step, CallTool):
                        self._hear()
                        self._close_open()
                        self._tools.append(tool := ToolRun(self.server, self._message, step))
                        nursery.start_soon(tool.run)
                    elif isinstance(step, Finish):
                        finish = step.reason
                    else:
                        await self._perform(step, attempt)
                self._close_open()
            except _ProviderFault as wrong:  # not through the nursery, which would wrap it in a group
                fault = wrong
                nursery.cancel_scope.cancel()
        if fault is not None:
            self._open = None
            raise fault
        return finish or ("tool-calls" if self._tools else "stop")

    def _as_model_sees_it(self) -> ChatRequest:
        since = [message for message in self.stored.answers(self.prompt) if message.says_something]
        return ChatRequest(
            session=self.stored.about.id,
            model=self.prompt.info.model.rpartition("/")[2],
            system="",
            prompt=self.prompt.text,
            turn=len(since),
            results=tuple(outcome for message in since for outcome in message.outcomes),
            length=len(self.stored.messages) - 1,
            tools=TOOLS,
            stream=True,
            body={},
        )

    async def _perform(self, step: Step, attempt: int) -> None:
        match step:
            case Say():
                await self._say(step)
            case Pause():
                await self._until(trio.current_time() + step.seconds)
            case Hang():
                await self._until(math.inf)
            case Refuse() if attempt <= step.times:
                _refuse(step)
            case Drop() if attempt <= step.times:
                raise _ProviderFault(
                    MessageError(name="APIError", message="Connection reset by server"), again=True
                )
            case StreamError():
                raise _ProviderFault(MessageError(name="APIError", message=step.message), again=True)
            case Garble():
                # with text before it the real server takes it for a broken connection
                raise _ProviderFault(
                    MessageError(name="UnknownError", message="JSON parsing failed"),
                    again=self._open is not None,
                )
            case _:
                await trio.lowlevel.checkpoint()
        await self.server.wait_thawed()

    async def _say(self, step: Say) -> None:
        if not step.pieces:
            return
        kind = ReasoningPart if step.reasoning else TextPart
        if not isinstance(self._open, kind):
            self._close_open()
            self._open = kind(
                id=self.server.disk.new_part_id(self.server.now()),
                message=self._message.info.id,
                text="",
                finished=False,
            )
            self.server.put_part(self._message, self._open)
        began = trio.current_time()
        for index, piece in enumerate(step.pieces):
            if step.rate > 0:
                await self._until(began + index / step.rate)
                await self.server.wait_thawed()
            self._hear()
            self._tell(self._open.id, piece)

    async def _until(self, moment: float) -> None:
        """Or until the provider has been silent for too long, whichever comes first."""
        options = self.server.options_of(self.prompt.info.model.partition("/")[0])
        name = "chunkTimeout" if self._began else "headerTimeout"
        patience = options.get(name, _PATIENCE * 1000) / 1000
        with trio.move_on_at(self._heard_at + patience) as scope:
            await trio.sleep_until(moment)
        if scope.cancelled_caught:
            raise _ProviderFault(MessageError(name="APIError", message=_SILENT), again=True)

    def _hear(self) -> None:
        self._began, self._heard_at = True, trio.current_time()

    def _tell(self, part: PartId, piece: str) -> None:
        if self._open is None:
            return
        self._told += 1
        self._open = evolve(self._open, text=self._open.text + piece)
        info = self._message.info
        self.server.publish(PartDelta(conversation=info.conversation, message=info.id, part=part, text=piece))

    def _close_open(self) -> None:
        if self._open is not None:
            self.server.put_part(self._message, evolve(self._open, finished=True))
            self._open = None

    # ---- how it goes on

    async def _back_off(self, tries: int, fault: _ProviderFault) -> None:
        delay = _RETRY_AFTER[tries - 1] if fault.retry_after is None else fault.retry_after
        conversation = self._message.info.conversation
        self.work.state, self.work.waits_for_retry = ConversationState.RETRY, True
        self.server.publish(
            ConversationRetrying(
                conversation=conversation,
                attempt=tries,
                message=fault.error.message,
                next_at=self.server.now() + delay,
            )
        )
        await trio.sleep(delay)
        await self.server.wait_thawed()
        self.work.state, self.work.waits_for_retry = ConversationState.BUSY, False
        self.server.publish(ConversationBusy(conversation=conversation))

    def _end(self, finish: str) -> bool:
        self.server.put_part(
            self._message,
            StepPart(id=self.server.disk.new_part_id(self.server.now()), message=self._message.info.id),
        )
        self._put_info(
            finish=finish, cost=self._told * 4e-6 + 1e-4, tokens=Tokens(input=100, output=self._told)
        )
        self._put_info(completed_at=self.server.now())
        return not any(tool.stops_the_model for tool in self._tools)

    def _fail(self, error: MessageError) -> bool:
        """A failure is told before the message has it, and idle comes twice."""
        conversation = self._message.info.conversation
        self.server.fail(conversation, error)
        if error.name == "ContextOverflowError":
            self._put_info(completed_at=self.server.now())
            self._compact()
            return True
        self.server.works.pop(conversation, None)
        self.server.say_idle(conversation)
        self._put_info(error=error, completed_at=self.server.now())
        return False

    def _compact(self) -> None:
        """The conversation is summed up, and the model asked to go on: by a message that nobody sent."""
        server, conversation = self.server, self._message.info.conversation
        ask = server.put_message(evolve(self.prompt.info, id=server.disk.new_message_id(server.now())))
        info = evolve(
            self._message.info, id=server.disk.new_message_id(server.now()), parent=ask.info.id, summary=True
        )
        summary = server.put_message(evolve(info, completed_at=None))
        part = TextPart(
            id=server.disk.new_part_id(server.now()), message=info.id, text=_SUMMARY, finished=True
        )
        server.put_part(summary, part)
        server.put_message(evolve(info, finish="stop", completed_at=server.now()))
        text = "The previous request exceeded the provider's size limit. Go on."
        server.put_user_text(conversation, text, model=self.prompt.info.model, synthetic=True)

    async def end_aborted(self) -> None:
        """What the abort left to be said. Shielded by nothing: a crash ends this too."""
        if self.work.waits_for_retry:
            self._put_info(completed_at=self.server.now())
            return
        if any(not tool.ended for tool in self._tools):
            await trio.sleep(_LINGER)
            await self.server.wait_thawed()
        self._close_open()
        abort_tools(self._tools)
        self._put_info(error=ABORTED, completed_at=self.server.now())

    def _put_info(self, **changes: Any) -> None:
        self._message.info = evolve(self._message.info, **changes)
        self.server.put_message(self._message.info)


def _refuse(step: Refuse) -> Never:
    if step.code == _OVERFLOW:
        raise _ProviderFault(MessageError(name="ContextOverflowError", message="bad request"), again=False)
    again = step.status == 429 or step.status >= 500
    message = "Rate limit reached" if step.status == 429 else f"scripted status {step.status}"
    raise _ProviderFault(
        MessageError(name="APIError", message=message, status_code=step.status, retryable=again),
        again=again,
        retry_after=float(step.retry_after) if step.retry_after else None,
    )
