"""What a job is told, what it has done for it, and what it tells its session."""

from __future__ import annotations

from enum import Enum

from attrs import frozen

from opencode_actors.machines.notices import (
    Publish,
)
from opencode_actors.machines.server_events import (
    ConversationId,
    Message,
    MessageId,
    ServerEvent,
    Todo,
)
from opencode_actors.machines.vocabulary import (
    AskId,
    Climb,
    Failure,
    Finish,
    Forget,
    JobId,
    PendingRequest,
    Reply,
    Run,
    SessionKey,
    StartTimer,
    StopTimer,
)
from opencode_actors.ports import (
    Container,
    ConversationState,
    Endpoint,
    PermissionReply,
    Process,
    Prompt,
)


@frozen(kw_only=True)
class CancelJob:
    """Answered with the job's snapshot once it has settled."""

    ask: AskId


@frozen(kw_only=True)
class GiveWay:
    """The message of the job `to` goes first: it ends as a cancelled one does, and says for whom."""

    to: JobId


@frozen(kw_only=True)
class QuestionAnswer:
    """One answer for each question; each is a choice of options, or free text."""

    answers: tuple[tuple[str, ...], ...]


@frozen(kw_only=True)
class PermissionAnswer:
    """`reply` is not a rejection: that is a `Rejection`."""

    reply: PermissionReply


@frozen(kw_only=True)
class Rejection:
    """With a message the model is told it and goes on; without one the prompt ends there."""

    message: str = ""


Answer = QuestionAnswer | PermissionAnswer | Rejection


@frozen(kw_only=True)
class AnswerRequest:
    """Answered with `Answered` once the server has taken it, or with `NotAnswered`."""

    ask: AskId
    request: str
    answer: Answer


@frozen(kw_only=True)
class Answered:
    pass


class NoAnswer(Enum):
    """The request is over; the answer does not fit it; nobody knows whether the server took it."""

    GONE = "gone"
    UNFIT = "unfit"
    UNSURE = "unsure"


@frozen(kw_only=True)
class NotAnswered:
    why: NoAnswer
    reason: str


@frozen(kw_only=True)
class TurnGranted:
    """The session is ready and this job is the one that runs."""

    container: Container
    endpoint: Endpoint
    conversation: ConversationId


@frozen(kw_only=True)
class TakenOver:
    """To a job that an earlier process began: its deadlines run again."""


@frozen(kw_only=True)
class ServerLost:
    """The container that the job ran in has ended. `climb` is set when the session ended it; `again` when
    the session holds the next turn for this job, which a `JobOver` gives back."""

    failure: Failure
    climb: Climb | None = None
    again: bool = False


@frozen(kw_only=True)
class SessionFailed:
    """No turn will be granted any more."""

    failure: Failure


@frozen(kw_only=True)
class StreamOpened:
    """The server's event stream stands. What happened before was not heard."""


@frozen(kw_only=True)
class EventsSeen:
    """One batch of the server's events."""

    events: tuple[ServerEvent, ...]


@frozen(kw_only=True)
class LoadSeen:
    cpu_load: float
    memory_bytes: int


@frozen(kw_only=True)
class ResidentsSeen:
    """What lived in the container before the prompt was sent."""

    processes: tuple[Process, ...]


@frozen(kw_only=True)
class PromptTaken:
    """The server answered 204, which is not yet acceptance."""


@frozen(kw_only=True)
class PromptRefused:
    failure: Failure


@frozen(kw_only=True)
class PromptUnsure:
    """Nobody knows whether the server took the prompt; our own ids make sending it again safe."""

    reason: str


@frozen(kw_only=True)
class ConversationRead:
    """The messages from the job's prompt on, and whether the server works on the conversation."""

    messages: tuple[Message, ...]
    state: ConversationState


@frozen(kw_only=True)
class ReadFailed:
    reason: str


@frozen(kw_only=True)
class Delegated:
    """What the server says of the sub-agents that are busy: whether a tool of one `runs`, and when the last step or
    tool of one ended, in epoch seconds. An event that was lost, or is still on its way, is in this already."""

    runs: bool
    ended_at: float | None


@frozen(kw_only=True)
class RequestsRead:
    """What waits for an answer by the server's own lists, without the ghosts that aborts leave there; and what is to
    be done in the conversation. `delegated` is None when that was not asked."""

    children: frozenset[ConversationId]
    busy: frozenset[ConversationId]
    requests: tuple[PendingRequest, ...]
    todos: tuple[Todo, ...] = ()
    delegated: Delegated | None = None


@frozen(kw_only=True)
class RequestsUnread:
    reason: str


@frozen(kw_only=True)
class ReplyTaken:
    """The server passed the answer on to whoever asked."""


@frozen(kw_only=True)
class ReplyFailed:
    """`gone` when the server knows no such request."""

    gone: bool
    reason: str


@frozen(kw_only=True)
class AbortAnswered:
    pass


@frozen(kw_only=True)
class AbortFailed:
    reason: str


@frozen(kw_only=True)
class ProcessesSeen:
    """What lives in the container now."""

    processes: tuple[Process, ...]


@frozen(kw_only=True)
class LookFailed:
    reason: str


@frozen(kw_only=True)
class GetJob:
    ask: AskId


class JobTimer(Enum):
    SUBMIT = "submit"
    START = "start"
    IDLE = "idle"
    TOTAL = "total"
    REMIND = "remind"
    REPORT = "report"
    REREAD = "reread"
    LOOK = "look"
    UNANSWERED = "unanswered"
    RUNG = "rung"


@frozen(kw_only=True)
class JobTimerFired:
    timer: JobTimer


JobMessage = (
    CancelJob
    | GiveWay
    | AnswerRequest
    | TurnGranted
    | TakenOver
    | ServerLost
    | SessionFailed
    | StreamOpened
    | EventsSeen
    | LoadSeen
    | ResidentsSeen
    | PromptTaken
    | PromptRefused
    | PromptUnsure
    | ConversationRead
    | ReadFailed
    | RequestsRead
    | RequestsUnread
    | ReplyTaken
    | ReplyFailed
    | AbortAnswered
    | AbortFailed
    | ProcessesSeen
    | LookFailed
    | GetJob
    | JobTimerFired
)


@frozen(kw_only=True)
class SubmitPrompt:
    """Before it sends the prompt it looks at what lives in the container: what comes later is the job's."""

    container: Container
    endpoint: Endpoint
    conversation: ConversationId
    prompt: Prompt


@frozen(kw_only=True)
class ReadConversation:
    endpoint: Endpoint
    conversation: ConversationId
    since: MessageId


@frozen(kw_only=True)
class ReadRequests:
    """After a gap: the conversation's children, and what they and it wait for. `since` is the prompt. With `tools`
    each busy child's messages are read as well."""

    endpoint: Endpoint
    conversation: ConversationId
    since: MessageId
    tools: bool


@frozen(kw_only=True)
class ReplyToRequest:
    endpoint: Endpoint
    request: PendingRequest
    answer: Answer


@frozen(kw_only=True)
class AbortConversation:
    """Children first, or they go on working for a parent that is gone."""

    endpoint: Endpoint
    conversation: ConversationId


@frozen(kw_only=True)
class LookAtProcesses:
    container: Container


JobOperation = (
    SubmitPrompt | ReadConversation | ReadRequests | ReplyToRequest | AbortConversation | LookAtProcesses
)


@frozen(kw_only=True)
class JobOver:
    """The job has settled; its place in the session is free."""

    job: JobId


@frozen(kw_only=True)
class StopForJob:
    """Rung 1 did not end the job: the container has to go."""

    job: JobId


@frozen(kw_only=True)
class TellSession:
    session: SessionKey
    message: JobOver | StopForJob


JobEffect = (
    Run[JobOperation]
    | Forget[JobOperation]
    | StartTimer[JobTimer]
    | StopTimer[JobTimer]
    | Reply
    | TellSession
    | Publish
    | Finish
)
