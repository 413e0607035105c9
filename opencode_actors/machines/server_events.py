"""What an OpenCode server says, as far as a decision depends on it.

The adapter turns the server's JSON into these; the machines read nothing else. One batch of the
event stream is a tuple of `ServerEvent`; a re-read conversation is a tuple of `Message`.
All times are the server's own epoch seconds.
"""

from __future__ import annotations

from enum import Enum
from typing import NewType

from attrs import Factory, field, frozen

ConversationId = NewType("ConversationId", str)
MessageId = NewType("MessageId", str)
PartId = NewType("PartId", str)


class ToolState(Enum):
    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    ERROR = "error"


@frozen(kw_only=True)
class TextPart:
    """`finished` once the server has put an end time on it: only then is `text` authoritative."""

    id: PartId
    message: MessageId
    text: str
    finished: bool
    synthetic: bool = False


@frozen(kw_only=True)
class ReasoningPart:
    id: PartId
    message: MessageId
    text: str
    finished: bool


@frozen(kw_only=True)
class ToolPart:
    """`title` is one readable line: the server's own title, or the shortest telling argument."""

    id: PartId
    message: MessageId
    tool: str
    state: ToolState
    title: str
    exit_code: int | None = None
    error: str | None = None
    started_at: float | None = None
    ended_at: float | None = None


@frozen(kw_only=True)
class StepPart:
    """The end of one request to the model."""

    id: PartId
    message: MessageId


Part = TextPart | ReasoningPart | ToolPart | StepPart


@frozen(kw_only=True)
class Tokens:
    """What a model read and wrote."""

    input: int = 0
    output: int = 0
    reasoning: int = 0
    cache_read: int = 0
    cache_write: int = 0


@frozen(kw_only=True)
class MessageError:
    """`name` is the server's own (`APIError`, `MessageAbortedError`, `ContextOverflowError`, …)."""

    name: str
    message: str
    status_code: int | None = None
    retryable: bool = False


@frozen(kw_only=True)
class MessageInfo:
    """One message of a conversation, without its parts.

    `parent` is the user message that an assistant message answers. `finish` is the model's reason to
    stop (`stop`, `length`, `tool-calls`, …); a message with `completed_at`, no `error` and no `finish`
    was aborted. `summary` marks a compaction's message, which is not an answer. `created_at` is when the server
    made it, in epoch seconds of its own: it keeps a conversation in this order.
    """

    id: MessageId
    conversation: ConversationId
    role: str
    parent: MessageId | None = None
    created_at: float = field(default=0.0, eq=False)
    completed_at: float | None = None
    finish: str | None = None
    error: MessageError | None = None
    summary: bool = False
    cost: float = 0.0
    tokens: Tokens = Factory(Tokens)
    model: str = ""
    agent: str = ""


@frozen(kw_only=True)
class Message:
    info: MessageInfo
    parts: tuple[Part, ...]


@frozen(kw_only=True)
class Todo:
    """One thing to be done; `status` and `priority` are the agent's words."""

    content: str
    status: str
    priority: str = ""


# ---- the event stream


@frozen(kw_only=True)
class MessageUpdated:
    info: MessageInfo


@frozen(kw_only=True)
class PartUpdated:
    conversation: ConversationId
    part: Part


@frozen(kw_only=True)
class PartDelta:
    """Text as it is made. Not durable, and sent again under a new part when a request is retried.

    Neighbouring deltas of one part that arrive in one batch are joined.
    """

    conversation: ConversationId
    message: MessageId
    part: PartId
    text: str


@frozen(kw_only=True)
class ConversationCreated:
    conversation: ConversationId
    parent: ConversationId | None


@frozen(kw_only=True)
class ConversationBusy:
    conversation: ConversationId


@frozen(kw_only=True)
class ConversationIdle:
    """A hint to look, not an end: it comes twice after an abort or an error."""

    conversation: ConversationId


@frozen(kw_only=True)
class ConversationRetrying:
    conversation: ConversationId
    attempt: int
    message: str
    next_at: float


@frozen(kw_only=True)
class ConversationFailed:
    """The server's `session.error`. `conversation` is None when the server does not say whose."""

    conversation: ConversationId | None
    error: MessageError


@frozen(kw_only=True)
class TodosUpdated:
    conversation: ConversationId
    todos: tuple[Todo, ...]


@frozen(kw_only=True)
class QuestionAsked:
    """`questions` is how many stand in one request: an answer to it has as many."""

    conversation: ConversationId
    request: str
    text: str
    options: tuple[str, ...]
    questions: int = 1


@frozen(kw_only=True)
class PermissionAsked:
    conversation: ConversationId
    request: str
    permission: str
    text: str


@frozen(kw_only=True)
class RequestAnswered:
    """A question or a permission was answered or rejected, by whomever."""

    conversation: ConversationId
    request: str


@frozen(kw_only=True)
class Heartbeat:
    """The server's event loop turns. Also stands for any event that no decision depends on."""


@frozen(kw_only=True)
class InstanceDisposed:
    """The server threw its instance away; what ran in it is gone."""


ServerEvent = (
    MessageUpdated
    | PartUpdated
    | PartDelta
    | ConversationCreated
    | ConversationBusy
    | ConversationIdle
    | ConversationRetrying
    | ConversationFailed
    | TodosUpdated
    | QuestionAsked
    | PermissionAsked
    | RequestAnswered
    | Heartbeat
    | InstanceDisposed
)
