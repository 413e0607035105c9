"""From the server's shapes to the language of the machines and ports. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from opencode_actors.adapters.opencode_wire import (
    WireAgent,
    WireError,
    WireInfo,
    WireMessage,
    WirePart,
    WirePermission,
    WireProviders,
    WireQuestion,
    WireSession,
    WireTodo,
    WireToolCall,
    WireToolState,
)
from opencode_actors.errors import ServerUnintelligible
from opencode_actors.machines.server_events import (
    ConversationId,
    Message,
    MessageError,
    MessageId,
    MessageInfo,
    Part,
    PartId,
    ReasoningPart,
    StepPart,
    TextPart,
    Todo,
    Tokens,
    ToolPart,
    ToolState,
)
from opencode_actors.ports import Agent, Conversation, Model, PendingPermission, PendingQuestion

LONGEST_TITLE = 160  # characters; one line of a wide terminal
LONGEST_NAME = 60  # of a tool; a model may have made it up
LONGEST_ERROR = 1000  # an error text may quote a whole file
# OpenCode puts its JavaScript stack after the message: a line `at name (place:1:2)`, or a place in its binary.
_STACK_FRAME = re.compile(
    r"\n[ \t]*at [^\n()]{1,200} \([^\n()]{1,500}:\d+\)|(?:^|\s)at (?:async |new )?(?:[^\s()]{1,200} )?\(?/\$bunfs/"
)
_TELLING = ("command", "filePath", "pattern", "url", "query", "description", "name")


def one_line(text: str, *, longest: int) -> str:
    """Readable on one line of a terminal: no control characters, no escape sequences that work."""
    cut = text[: longest * 4]  # enough for what is dropped; a title may quote megabytes
    line = " ".join("".join(c if c.isprintable() or c.isspace() else "" for c in cut).split())
    return line if len(line) <= longest and len(cut) == len(text) else line[: longest - 1] + "…"


def conversation(wire: WireSession) -> Conversation:
    return Conversation(
        id=ConversationId(wire.id),
        title=wire.title,
        directory=wire.directory,
        parent=None if wire.parent_id is None else ConversationId(wire.parent_id),
        updated_at=_seconds(wire.time.updated) or 0.0,
    )


def models(wire: WireProviders) -> tuple[Model, ...]:
    return tuple(
        Model(
            name=f"{provider.id}/{id_}",
            title=one_line(model.name, longest=LONGEST_TITLE),
            priced=bool(model.cost.input or model.cost.output),
        )
        for provider in wire.providers
        for id_, model in sorted(provider.models.items())
    )


def message(wire: WireMessage) -> Message:
    parts = (part(item) for item in wire.parts)
    return Message(info=info(wire.info), parts=tuple(known for known in parts if known is not None))


def info(wire: WireInfo) -> MessageInfo:
    provider, model = wire.provider_id, wire.model_id
    if wire.model is not None:
        provider, model = wire.model.provider_id, wire.model.model_id
    tokens = wire.tokens
    return MessageInfo(
        id=MessageId(wire.id),
        conversation=ConversationId(wire.session_id),
        role=wire.role,
        parent=None if wire.parent_id is None else MessageId(wire.parent_id),
        created_at=_seconds(wire.time.created) or 0.0,
        completed_at=_seconds(wire.time.completed),
        finish=wire.finish,
        error=None if wire.error is None else error(wire.error),
        summary=wire.summary is True,
        cost=wire.cost,
        tokens=Tokens(
            input=tokens.input,
            output=tokens.output,
            reasoning=tokens.reasoning,
            cache_read=tokens.cache.read,
            cache_write=tokens.cache.write,
        ),
        model=f"{provider}/{model}" if model else "",
        agent=wire.agent,
    )


def error(wire: WireError) -> MessageError:
    return MessageError(
        name=wire.name,
        message=one_line(_without_stack(wire.data.message), longest=LONGEST_ERROR) or wire.name,
        status_code=wire.data.status_code,
        retryable=wire.data.is_retryable,
    )


def _without_stack(text: str) -> str:
    frame = _STACK_FRAME.search(text)
    return text if frame is None else text[: frame.start()]


def part(wire: WirePart) -> Part | None:
    """None for the kinds that nothing is decided on: step-start, snapshot, patch, file, …"""
    part_id, message_id = PartId(wire.id), MessageId(wire.message_id)
    match wire.type:
        case "text":
            # What a user says has no times: it is whole from the start.
            finished = wire.time.end is not None or wire.time.start is None
            return TextPart(
                id=part_id, message=message_id, text=wire.text, finished=finished, synthetic=wire.synthetic
            )
        case "reasoning":
            finished = wire.time.end is not None
            return ReasoningPart(id=part_id, message=message_id, text=wire.text, finished=finished)
        case "tool":
            if wire.state is None:
                raise ServerUnintelligible("a tool part has no state")
            return _tool_part(part_id, message_id, wire.tool, wire.state)
        case "step-finish":
            return StepPart(id=part_id, message=message_id)
        case _:
            return None


def _tool_part(part_id: PartId, message_id: MessageId, tool: str, state: WireToolState) -> ToolPart:
    try:
        status = ToolState(state.status)
    except ValueError:
        raise ServerUnintelligible(f"a tool part has the unknown state {state.status!r}") from None
    exit_code = state.metadata.get("exit")
    return ToolPart(
        id=part_id,
        message=message_id,
        tool=one_line(tool, longest=LONGEST_NAME) or "tool",
        state=status,
        title=tool_title(state.title, state.input),
        exit_code=exit_code if isinstance(exit_code, int) else None,
        error=None if state.error is None else one_line(state.error, longest=LONGEST_ERROR),
        started_at=_seconds(state.time.start),
        ended_at=_seconds(state.time.end),
    )


def tool_title(title: str | None, arguments: Mapping[str, Any]) -> str:
    """The server's own title, or the argument that tells most; empty while there is neither."""
    said = [title, *(arguments.get(name) for name in _TELLING)]
    lines = (one_line(text, longest=LONGEST_TITLE) for text in said if isinstance(text, str))
    return next((line for line in lines if line), "")


def todo(wire: WireTodo) -> Todo:
    return Todo(content=wire.content, status=wire.status, priority=wire.priority)


def agent(wire: WireAgent) -> Agent:
    return Agent(name=wire.name, mode=wire.mode, description=wire.description or "", hidden=bool(wire.hidden))


def question(wire: WireQuestion) -> PendingQuestion:
    """Several questions of one request become one text, and their options one list, in order."""
    return PendingQuestion(
        request=wire.id,
        conversation=ConversationId(wire.session_id),
        text="\n".join(one_line(item.question, longest=LONGEST_ERROR) for item in wire.questions),
        options=tuple(option.label for item in wire.questions for option in item.options),
        questions=len(wire.questions),
        message=_asking(wire.tool),
    )


def permission(wire: WirePermission) -> PendingPermission:
    """The text is what the agent wants to do: the argument that tells most, or the patterns."""
    return PendingPermission(
        request=wire.id,
        conversation=ConversationId(wire.session_id),
        permission=wire.permission,
        text=tool_title(None, wire.metadata) or one_line(", ".join(wire.patterns), longest=LONGEST_TITLE),
        message=_asking(wire.tool),
    )


def _asking(tool: WireToolCall | None) -> MessageId | None:
    return None if tool is None else MessageId(tool.message_id)


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000
