"""One batch of the event stream, from JSON to `ServerEvent`. Pure, and a hot path.

A burst brings tens of thousands of deltas a second. They are read by hand and joined; every other
event, of which there are few, goes through the checked shapes of `opencode_wire`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from attrs import define, field

from opencode_actors.adapters import opencode_decode as decode
from opencode_actors.adapters.opencode_wire import (
    WireMessageUpdated,
    WirePartUpdated,
    WirePermission,
    WireQuestion,
    WireRequestAnswered,
    WireSessionCreated,
    WireSessionError,
    WireSessionStatus,
    WireTodoUpdated,
    has_lone_surrogates,
    mended,
    structure,
)
from opencode_actors.errors import ServerUnintelligible
from opencode_actors.machines.server_events import (
    ConversationBusy,
    ConversationCreated,
    ConversationFailed,
    ConversationId,
    ConversationIdle,
    ConversationRetrying,
    Heartbeat,
    InstanceDisposed,
    MessageId,
    MessageUpdated,
    PartDelta,
    PartId,
    PartUpdated,
    PermissionAsked,
    QuestionAsked,
    RequestAnswered,
    ServerEvent,
    TodosUpdated,
)


def decode_batch(frames: Iterable[bytes]) -> tuple[ServerEvent, ...]:
    """The events of `frames`, in order, and neighbouring deltas of one part as one.

    A batch of which nothing matters is one `Heartbeat`: it still shows that the server is alive. No
    frames, no events. Raises `ServerUnintelligible`.
    """
    batch = _Batch()
    for frame in frames:
        batch.take(frame)
    return batch.ended()


@define
class _Batch:
    _events: list[ServerEvent] = field(factory=list[ServerEvent])
    _heard: bool = False  # something of which no event was made
    _beat: bool = False
    _delta: dict[str, Any] = field(factory=dict[str, Any])  # the delta whose neighbours may still come
    _pieces: list[str] = field(factory=list[str])

    def take(self, frame: bytes) -> None:
        try:
            payload = json.loads(frame)["payload"]
            kind = payload["type"]
            properties: Any = payload["properties"] if kind != "sync" else None
            if kind == "message.part.delta":
                self._take_delta(properties)
                return
        except (ValueError, KeyError, TypeError, RecursionError) as wrong:
            raise ServerUnintelligible(
                f"an event is not what the server's API promises: {wrong!r}"
            ) from wrong
        self._flush()
        make = _EVENTS.get(kind)
        if make is None:
            self._heard = True
            self._beat = self._beat or kind == "server.heartbeat"
            return
        event = make(mended(properties) if has_lone_surrogates(frame) else properties)
        if event is None:
            self._heard = True
        else:
            self._events.append(event)

    def _take_delta(self, delta: dict[str, Any]) -> None:
        text = delta["delta"]
        if delta["field"] != "text" or not isinstance(text, str):
            self._heard = True
            return
        if delta["partID"] != self._delta.get("partID"):
            self._flush()
            self._delta = delta
        self._pieces.append(text)

    def _flush(self) -> None:
        if not self._pieces:
            return
        text = "".join(self._pieces)
        delta = self._delta
        self._events.append(
            PartDelta(
                conversation=ConversationId(_text(delta, "sessionID")),
                message=MessageId(_text(delta, "messageID")),
                part=PartId(_text(delta, "partID")),
                text=text if text.isascii() else mended(text),
            )
        )
        self._delta, self._pieces = {}, []

    def ended(self) -> tuple[ServerEvent, ...]:
        self._flush()
        if self._beat or (self._heard and not self._events):
            self._events.append(Heartbeat())
        return tuple(self._events)


def _text(properties: dict[str, Any], name: str) -> str:
    value = properties.get(name)
    if not isinstance(value, str):
        raise ServerUnintelligible(f"an event message.part.delta has no text {name!r}")
    return value


# ---- the events that matter. Everything durable comes a second time as `sync`, which is not listed.


def _session_created(properties: object) -> ServerEvent:
    made = decode.conversation(structure(WireSessionCreated, properties, what="session.created").info)
    return ConversationCreated(conversation=made.id, parent=made.parent)


def _message_updated(properties: object) -> ServerEvent:
    wire = structure(WireMessageUpdated, properties, what="message.updated")
    return MessageUpdated(info=decode.info(wire.info))


def _part_updated(properties: object) -> ServerEvent | None:
    wire = structure(WirePartUpdated, properties, what="message.part.updated").part
    part = decode.part(wire)
    return None if part is None else PartUpdated(conversation=ConversationId(wire.session_id), part=part)


def _session_status(properties: object) -> ServerEvent | None:
    wire = structure(WireSessionStatus, properties, what="session.status")
    conversation, status = ConversationId(wire.session_id), wire.status
    match status.type:
        case "busy":
            return ConversationBusy(conversation=conversation)
        case "idle":
            # `session.idle` says the same right behind it, and is not listed
            return ConversationIdle(conversation=conversation)
        case "retry":
            return ConversationRetrying(
                conversation=conversation,
                attempt=status.attempt,
                message=decode.one_line(status.message, longest=decode.LONGEST_ERROR),
                next_at=status.next / 1000,
            )
        case _:
            return None


def _session_error(properties: object) -> ServerEvent:
    wire = structure(WireSessionError, properties, what="session.error")
    conversation = None if wire.session_id is None else ConversationId(wire.session_id)
    return ConversationFailed(conversation=conversation, error=decode.error(wire.error))


def _todo_updated(properties: object) -> ServerEvent:
    wire = structure(WireTodoUpdated, properties, what="todo.updated")
    todos = tuple(decode.todo(item) for item in wire.todos)
    return TodosUpdated(conversation=ConversationId(wire.session_id), todos=todos)


def _question_asked(properties: object) -> ServerEvent:
    asked = decode.question(structure(WireQuestion, properties, what="question.asked"))
    return QuestionAsked(
        conversation=asked.conversation,
        request=asked.request,
        text=asked.text,
        options=asked.options,
        questions=asked.questions,
    )


def _permission_asked(properties: object) -> ServerEvent:
    asked = decode.permission(structure(WirePermission, properties, what="permission.asked"))
    return PermissionAsked(
        conversation=asked.conversation, request=asked.request, permission=asked.permission, text=asked.text
    )


def _request_answered(properties: object) -> ServerEvent:
    wire = structure(WireRequestAnswered, properties, what="an answer to a question or permission")
    return RequestAnswered(conversation=ConversationId(wire.session_id), request=wire.request_id)


def _disposed(_: object) -> ServerEvent:
    return InstanceDisposed()


_EVENTS: dict[str, Callable[[object], ServerEvent | None]] = {
    "session.created": _session_created,
    "session.status": _session_status,
    "session.error": _session_error,
    "message.updated": _message_updated,
    "message.part.updated": _part_updated,
    "todo.updated": _todo_updated,
    "question.asked": _question_asked,
    "question.replied": _request_answered,
    "question.rejected": _request_answered,
    "permission.asked": _permission_asked,
    "permission.replied": _request_answered,
    "server.instance.disposed": _disposed,
    "global.disposed": _disposed,
}
