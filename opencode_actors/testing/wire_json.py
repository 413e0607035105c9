"""What a fake server has, in the JSON of OpenCode's API: the other side of `opencode_decode`."""

from __future__ import annotations

from typing import Any, assert_never

from opencode_actors.machines import server_events as e
from opencode_actors.ports import Conversation, Model, PendingPermission, PendingQuestion

Json = dict[str, Any]


def conversation(about: Conversation) -> Json:
    made: Json = {"id": about.id, "title": about.title, "directory": about.directory, "time": {}}
    return made if about.parent is None else {**made, "parentID": about.parent}


def providers(models: tuple[Model, ...]) -> Json:
    found: dict[str, Json] = {}
    for model in models:
        provider, _, name = model.name.partition("/")
        cost = {"input": 1, "output": 4} if model.priced else {"input": 0, "output": 0}
        found.setdefault(provider, {})[name] = {"name": model.title, "cost": cost}
    return {"providers": [{"id": id_, "models": known} for id_, known in found.items()]}


def info(about: e.MessageInfo) -> Json:
    provider, _, model = about.model.partition("/")
    made: Json = {
        "id": about.id,
        "sessionID": about.conversation,
        "role": about.role,
        "time": _made(about),
        "agent": about.agent,
    }
    if about.role == "user":
        return {**made, "model": {"providerID": provider, "modelID": model}}
    made |= {"providerID": provider, "modelID": model, "cost": about.cost, "summary": about.summary}
    made["tokens"] = {"input": about.tokens.input, "output": about.tokens.output}
    if about.parent is not None:
        made["parentID"] = about.parent
    if about.finish is not None:
        made["finish"] = about.finish
    if about.error is not None:
        made["error"] = error(about.error)
    return made


def _made(about: e.MessageInfo) -> Json:
    times = {"created": about.created_at * 1000}
    return times if about.completed_at is None else {**times, "completed": about.completed_at * 1000}


def error(about: e.MessageError) -> Json:
    data: Json = {"message": about.message, "isRetryable": about.retryable}
    if about.status_code is not None:
        data["statusCode"] = about.status_code
    return {"name": about.name, "data": data}


def part(about: e.Part, in_conversation: e.ConversationId) -> Json:
    made: Json = {"id": about.id, "messageID": about.message, "sessionID": in_conversation}
    match about:
        case e.TextPart():
            return {**made, "type": "text", "text": about.text, "synthetic": about.synthetic} | _times(about)
        case e.ReasoningPart():
            return {**made, "type": "reasoning", "text": about.text} | _times(about)
        case e.ToolPart():
            return {**made, "type": "tool", "tool": about.tool, "state": _tool_state(about)}
        case e.StepPart():
            return {**made, "type": "step-finish"}
        case _:
            assert_never(about)


def _times(about: e.TextPart | e.ReasoningPart) -> Json:
    return {"time": {"start": 1, "end": 2} if about.finished else {"start": 1}}


def _tool_state(about: e.ToolPart) -> Json:
    times = {"start": about.started_at, "end": about.ended_at}
    state: Json = {
        "status": about.state.value,
        "title": about.title,
        "time": {name: at * 1000 for name, at in times.items() if at is not None},
    }
    if about.exit_code is not None:
        state["metadata"] = {"exit": about.exit_code}
    if about.error is not None:
        state["error"] = about.error
    return state


def message(about: e.Message) -> Json:
    return {
        "info": info(about.info),
        "parts": [part(one, about.info.conversation) for one in about.parts],
    }


def question(about: PendingQuestion) -> Json:
    made = _asked(about.request, about.conversation, about.text, about.options)
    return made if about.message is None else {**made, "tool": {"messageID": about.message}}


def _asked(request: str, of: e.ConversationId, text: str, options: tuple[str, ...]) -> Json:
    """One question each, as the scripted model asks them."""
    item = {"question": text, "options": [{"label": label} for label in options]}
    return {"id": request, "sessionID": of, "questions": [item]}


def permission(about: PendingPermission) -> Json:
    made: Json = {
        "id": about.request,
        "sessionID": about.conversation,
        "permission": about.permission,
        "patterns": [about.text],
    }
    return made if about.message is None else {**made, "tool": {"messageID": about.message}}


def todo(about: e.Todo) -> Json:
    return {"content": about.content, "status": about.status, "priority": about.priority}


def event(about: e.ServerEvent) -> Json:
    """As it stands in the stream."""
    kind, properties = _event(about)
    return {"payload": {"type": kind, "properties": properties}}


def _event(about: e.ServerEvent) -> tuple[str, Json]:
    match about:
        case e.Heartbeat():
            return "server.heartbeat", {}
        case e.InstanceDisposed():
            return "server.instance.disposed", {}
        case e.ConversationCreated():
            made = Conversation(id=about.conversation, title="", directory="", parent=about.parent)
            return "session.created", {"info": conversation(made)}
        case e.ConversationBusy():
            return "session.status", _status(about.conversation, type="busy")
        case e.ConversationIdle():
            return "session.status", _status(about.conversation, type="idle")
        case e.ConversationRetrying():
            status = {"attempt": about.attempt, "message": about.message, "next": about.next_at * 1000}
            return "session.status", _status(about.conversation, type="retry", **status)
        case e.ConversationFailed():
            of: Json = {} if about.conversation is None else {"sessionID": about.conversation}
            return "session.error", {**of, "error": error(about.error)}
        case e.MessageUpdated():
            return "message.updated", {"info": info(about.info)}
        case e.PartUpdated():
            return "message.part.updated", {"part": part(about.part, about.conversation)}
        case e.PartDelta():
            return "message.part.delta", {
                "sessionID": about.conversation,
                "messageID": about.message,
                "partID": about.part,
                "field": "text",
                "delta": about.text,
            }
        case e.TodosUpdated():
            todos = [todo(one) for one in about.todos]
            return "todo.updated", {"sessionID": about.conversation, "todos": todos}
        case e.QuestionAsked():
            return "question.asked", _asked(about.request, about.conversation, about.text, about.options)
        case e.RequestAnswered():
            return "question.replied", {"sessionID": about.conversation, "requestID": about.request}
        case e.PermissionAsked():
            return "permission.asked", {
                "id": about.request,
                "sessionID": about.conversation,
                "permission": about.permission,
                "patterns": [about.text],
            }
        case _:
            assert_never(about)


def _status(of: e.ConversationId, **status: Any) -> Json:
    return {"sessionID": of, "status": status}
