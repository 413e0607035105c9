"""Batches of the event stream: what becomes of each kind of event, and what of nonsense."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencode_actors.adapters.opencode_events import decode_batch
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
    MessageError,
    MessageId,
    MessageInfo,
    MessageUpdated,
    PartDelta,
    PartId,
    PartUpdated,
    PermissionAsked,
    QuestionAsked,
    ReasoningPart,
    RequestAnswered,
    ServerEvent,
    StepPart,
    TextPart,
    Todo,
    TodosUpdated,
    Tokens,
    ToolPart,
    ToolState,
)

TALK, ANSWER, PART = ConversationId("ses_1"), MessageId("msg_2"), PartId("prt_3")


def frame(kind: str, **properties: Any) -> bytes:
    payload = {"id": "evt_1", "type": kind, "properties": properties, "added": "by a later release"}
    return json.dumps(
        {"directory": "/w", "project": "global", "payload": payload}, ensure_ascii=False
    ).encode()


def delta(text: str, part: str = PART, **others: Any) -> bytes:
    about = {"sessionID": TALK, "messageID": ANSWER, "partID": part, "field": "text", "delta": text}
    return frame("message.part.delta", **{**about, **others})


def told(text: str, part: PartId = PART) -> PartDelta:
    return PartDelta(conversation=TALK, message=ANSWER, part=part, text=text)


def part(**fields: Any) -> bytes:
    about = {"id": PART, "sessionID": TALK, "messageID": ANSWER}
    return frame("message.part.updated", sessionID=TALK, part={**about, **fields}, time=1)


HEARTBEAT = frame("server.heartbeat")

EVENTS: list[tuple[bytes, ServerEvent]] = [
    (
        frame(
            "session.created",
            sessionID=TALK,
            info={"id": TALK, "title": "t", "directory": "/w", "parentID": "ses_0"},
        ),
        ConversationCreated(conversation=TALK, parent=ConversationId("ses_0")),
    ),
    (
        frame("session.status", sessionID=TALK, status={"type": "busy"}),
        ConversationBusy(conversation=TALK),
    ),
    (
        frame("session.status", sessionID=TALK, status={"type": "idle"}),
        ConversationIdle(conversation=TALK),
    ),
    (
        frame(
            "session.status",
            sessionID=TALK,
            status={"type": "retry", "attempt": 2, "message": "Rate\nlimit", "next": 1500},
        ),
        ConversationRetrying(conversation=TALK, attempt=2, message="Rate limit", next_at=1.5),
    ),
    (
        frame("session.error", error={"name": "MessageOutputLengthError", "data": {}}),
        ConversationFailed(
            conversation=None,
            error=MessageError(name="MessageOutputLengthError", message="MessageOutputLengthError"),
        ),
    ),
    (
        frame(
            "session.error",
            sessionID=TALK,
            error={
                "name": "APIError",
                "data": {"message": "no key", "statusCode": 401, "isRetryable": False, "responseBody": "{}"},
            },
        ),
        ConversationFailed(
            conversation=TALK, error=MessageError(name="APIError", message="no key", status_code=401)
        ),
    ),
    (
        frame(
            "message.updated",
            sessionID=TALK,
            info={
                "id": ANSWER,
                "sessionID": TALK,
                "role": "assistant",
                "parentID": "msg_1",
                "providerID": "p",
                "modelID": "m/1",
                "agent": "build",
                "cost": 0.5,
                "tokens": {
                    "total": 6,
                    "input": 1,
                    "output": 2,
                    "reasoning": 3,
                    "cache": {"read": 4, "write": 5},
                },
                "time": {"created": 1000, "completed": 2500},
                "finish": "stop",
                "summary": True,
            },
        ),
        MessageUpdated(
            info=MessageInfo(
                id=ANSWER,
                conversation=TALK,
                role="assistant",
                parent=MessageId("msg_1"),
                completed_at=2.5,
                finish="stop",
                summary=True,
                cost=0.5,
                tokens=Tokens(input=1, output=2, reasoning=3, cache_read=4, cache_write=5),
                model="p/m/1",
                agent="build",
            )
        ),
    ),
    (
        frame(
            "message.updated",
            sessionID=TALK,
            info={
                "id": "msg_1",
                "sessionID": TALK,
                "role": "user",
                "time": {"created": 1000},
                "agent": "build",
                "model": {"providerID": "p", "modelID": "m"},
                "summary": {"diffs": []},
            },
        ),
        MessageUpdated(
            info=MessageInfo(
                id=MessageId("msg_1"), conversation=TALK, role="user", model="p/m", agent="build"
            )
        ),
    ),
    (
        part(type="text", text="", time={"start": 1}),
        PartUpdated(conversation=TALK, part=TextPart(id=PART, message=ANSWER, text="", finished=False)),
    ),
    (
        part(type="text", text="whole", time={"start": 1, "end": 2}),
        PartUpdated(conversation=TALK, part=TextPart(id=PART, message=ANSWER, text="whole", finished=True)),
    ),
    (
        part(type="text", text="asked", synthetic=True),
        PartUpdated(
            conversation=TALK,
            part=TextPart(id=PART, message=ANSWER, text="asked", finished=True, synthetic=True),
        ),
    ),
    (
        part(type="reasoning", text="hm", time={"start": 1, "end": 2}),
        PartUpdated(conversation=TALK, part=ReasoningPart(id=PART, message=ANSWER, text="hm", finished=True)),
    ),
    (
        part(type="tool", tool="bash", callID="c", state={"status": "pending", "input": {}, "raw": ""}),
        PartUpdated(
            conversation=TALK,
            part=ToolPart(id=PART, message=ANSWER, tool="bash", state=ToolState.PENDING, title=""),
        ),
    ),
    (
        part(
            type="tool",
            tool="bash",
            state={
                "status": "completed",
                "input": {"command": "make"},
                "title": "make",
                "output": "…",
                "metadata": {"exit": 2, "output": "…"},
                "time": {"start": 1000, "end": 3000},
            },
        ),
        PartUpdated(
            conversation=TALK,
            part=ToolPart(
                id=PART,
                message=ANSWER,
                tool="bash",
                state=ToolState.COMPLETED,
                title="make",
                exit_code=2,
                started_at=1.0,
                ended_at=3.0,
            ),
        ),
    ),
    (
        part(
            type="tool",
            tool="read",
            state={
                "status": "error",
                "input": {"filePath": "/a"},
                "error": "no such\nfile",
                "time": {"start": 1000},
            },
        ),
        PartUpdated(
            conversation=TALK,
            part=ToolPart(
                id=PART,
                message=ANSWER,
                tool="read",
                state=ToolState.ERROR,
                title="/a",
                error="no such file",
                started_at=1.0,
            ),
        ),
    ),
    (
        part(type="step-finish", reason="stop", cost=0, tokens={}),
        PartUpdated(conversation=TALK, part=StepPart(id=PART, message=ANSWER)),
    ),
    (
        frame(
            "todo.updated", sessionID=TALK, todos=[{"content": "a", "status": "pending", "priority": "low"}]
        ),
        TodosUpdated(conversation=TALK, todos=(Todo(content="a", status="pending", priority="low"),)),
    ),
    (
        frame(
            "question.asked",
            id="que_1",
            sessionID=TALK,
            questions=[
                {"question": "Which?", "header": "h", "options": [{"label": "A", "description": "a"}]},
                {"question": "And?", "header": "h", "options": [{"label": "B", "description": "b"}]},
            ],
        ),
        QuestionAsked(
            conversation=TALK, request="que_1", text="Which?\nAnd?", options=("A", "B"), questions=2
        ),
    ),
    (
        frame("question.replied", sessionID=TALK, requestID="que_1", answers=[["A"]]),
        RequestAnswered(conversation=TALK, request="que_1"),
    ),
    (
        frame("question.rejected", sessionID=TALK, requestID="que_1"),
        RequestAnswered(conversation=TALK, request="que_1"),
    ),
    (
        frame(
            "permission.asked",
            id="per_1",
            sessionID=TALK,
            permission="bash",
            patterns=["rm *"],
            metadata={"command": "rm -rf x"},
            always=[],
        ),
        PermissionAsked(conversation=TALK, request="per_1", permission="bash", text="rm -rf x"),
    ),
    (
        frame(
            "permission.asked",
            id="per_1",
            sessionID=TALK,
            permission="external_directory",
            patterns=["/etc/*", "/var/*"],
            metadata={},
        ),
        PermissionAsked(
            conversation=TALK, request="per_1", permission="external_directory", text="/etc/*, /var/*"
        ),
    ),
    (
        frame("permission.replied", sessionID=TALK, requestID="per_1", reply="once"),
        RequestAnswered(conversation=TALK, request="per_1"),
    ),
    (frame("server.instance.disposed", directory="/w"), InstanceDisposed()),
    (frame("global.disposed"), InstanceDisposed()),
    (delta("hello"), told("hello")),
    (HEARTBEAT, Heartbeat()),
]


@pytest.mark.parametrize(("raw", "event"), EVENTS)
def test_each_event_that_matters_is_read(raw: bytes, event: ServerEvent) -> None:
    assert decode_batch([raw]) == (event,)


@pytest.mark.parametrize(
    "raw",
    [
        frame("session.idle", sessionID=TALK),
        frame("session.diff", sessionID=TALK, diff=[]),
        frame("plugin.added", id="x"),
        frame("session.status", sessionID=TALK, status={"type": "a new one"}),
        part(type="step-start", snapshot="…"),
        part(type="a new kind"),
        delta("x", field="another"),
        # everything durable comes a second time, in this form
        json.dumps({"payload": {"type": "sync", "syncEvent": {"type": "message.updated.1"}}}).encode(),
    ],
)
def test_what_no_decision_depends_on_is_a_heartbeat_at_most(raw: bytes) -> None:
    assert decode_batch([raw, raw, raw]) == (Heartbeat(),)
    assert decode_batch([raw, delta("a"), raw]) == (told("a"),)


def test_the_servers_own_heartbeat_is_never_lost() -> None:
    assert decode_batch([HEARTBEAT, delta("a"), HEARTBEAT]) == (told("a"), Heartbeat())


def test_no_frames_are_no_events() -> None:
    assert decode_batch([]) == ()


def test_neighbouring_deltas_of_a_part_are_one() -> None:
    other = PartId("prt_4")
    batch = [delta("a"), delta("b"), delta("c", other), delta("d"), delta("e"), HEARTBEAT, delta("f")]
    assert decode_batch(batch) == (told("ab"), told("c", other), told("de"), told("f"), Heartbeat())


@given(st.lists(st.tuples(st.sampled_from(["prt_1", "prt_2"]), st.text(max_size=3))))
def test_joining_keeps_every_character_in_order(deltas: list[tuple[str, str]]) -> None:
    events = decode_batch([delta(text, key) for key, text in deltas])
    joined = [event for event in events if isinstance(event, PartDelta)]
    for key in ("prt_1", "prt_2"):
        said = "".join(text for part, text in deltas if part == key)
        assert "".join(event.text for event in joined if event.part == key) == said
    assert all(a.part != b.part for a, b in pairwise(joined))


HIGH, LOW = r"\ud83c", r"\udf89"  # the two halves of 🎉 as JSON.stringify writes a half


def halves(first: str, second: str) -> list[bytes]:
    return [delta("@").replace(b"@", half.encode()) for half in (first, second)]


def test_half_characters_are_joined_or_replaced() -> None:
    """A model's pieces may end in the middle of an emoji, and a lone half cannot be written anywhere."""
    assert decode_batch(halves(HIGH, LOW)) == (told("🎉"),)
    assert decode_batch(halves(HIGH, "x")) == (told("\ufffdx"),)
    whole = part(type="text", text="@", time={"start": 1, "end": 2}).replace(b"@", HIGH.encode())
    (event,) = decode_batch([whole])
    assert isinstance(event, PartUpdated)
    assert isinstance(event.part, TextPart)
    assert event.part.text == "\ufffd"


@pytest.mark.parametrize(
    ("raw", "place"),
    [
        (b"no JSON", "not what"),
        (b"[]", "not what"),
        (b"{}", "payload"),
        (b'{"payload": {"type": "message.updated"}}', "properties"),
        (frame("message.updated", info={"id": "msg_1"}), "role"),
        (frame("message.updated", info=[]), r"message\.updated.*info"),
        (
            frame("session.status", sessionID=None, status={"type": "busy"}),
            "null instead of a text @ .*session_id",
        ),
        (
            frame("session.status", sessionID=TALK, status={"type": "retry", "attempt": "2"}),
            "a text instead of a number",
        ),
        (frame("session.status", sessionID=TALK, status={"type": "retry", "attempt": True}), "attempt"),
        (frame("todo.updated", sessionID=TALK, todos={"content": "a"}), "todos"),
        (frame("todo.updated", sessionID=TALK, todos=[{"content": "a"}, 5]), r"todos\[\d\]"),
        (part(type="tool", tool="bash"), "state"),
        (part(type="tool", tool="bash", state={"status": "a new one"}), "a new one"),
        (part(type="text", text=None), "text"),
        (delta("x", partID=5), "partID"),
        (b"\xff\xfe\x00", "not what"),
        (b'{"payload":' * 100_000, "not what"),
    ],
)
def test_another_shape_is_an_error_that_names_the_place(raw: bytes, place: str) -> None:
    with pytest.raises(ServerUnintelligible, match=place):
        decode_batch([raw])
