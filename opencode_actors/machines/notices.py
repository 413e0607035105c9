"""What a machine announces, what it has made durable first, and one whole decision of it."""

from __future__ import annotations

from enum import Enum
from typing import Generic

from attrs import field, frozen

from opencode_actors.machines.matters import Choice
from opencode_actors.machines.server_events import (
    ConversationId,
    MessageId,
    PartId,
    Todo,
)
from opencode_actors.machines.vocabulary import (
    EffectT,
    Failure,
    JobId,
    JobSnapshot,
    NotificationState,
    OnUnanswered,
    RequestKind,
    Rung,
    SessionKey,
    SessionStatus,
    StateT,
)
from opencode_actors.ports import ContainerId, Endpoint, Permissions, Prompt

_NO_PART = PartId("")


@frozen(kw_only=True)
class _Stamped:
    """`seq` runs over all notices of a state directory and `at` is the time of day in epoch seconds. The
    journal gives both when the notice is durable; `seq` is 0 before, and for ever if it cannot be."""

    seq: int = 0
    at: float = 0.0


@frozen(kw_only=True)
class SessionChanged(_Stamped):
    """`detail` is for a person."""

    session: SessionKey
    status: SessionStatus
    detail: str = ""


@frozen(kw_only=True)
class JobQueued(_Stamped):
    """The job is recorded and has its place; so many are `ahead` of it in its session."""

    job: JobId
    session: SessionKey
    ahead: int


@frozen(kw_only=True)
class JobStarted(_Stamped):
    """The job has its turn, and its prompt is on its way."""

    job: JobId
    session: SessionKey


class OutputKind(Enum):
    """Whose words a piece of output is: the model's, a tool's, or a remark of our own."""

    TEXT = "text"
    TOOL = "tool"
    REMARK = "remark"


@frozen(kw_only=True)
class OutputAdded(_Stamped):
    """`offset` is in bytes of the job's output file."""

    job: JobId
    session: SessionKey
    kind: OutputKind
    offset: int
    text: str


@frozen(kw_only=True)
class ToolStarted(_Stamped):
    """The agent uses a tool; `title` is what it says of it."""

    job: JobId
    session: SessionKey
    tool: str
    title: str


@frozen(kw_only=True)
class TodosChanged(_Stamped):
    """The agent's list of what is to be done, all of it."""

    job: JobId
    session: SessionKey
    todos: tuple[Todo, ...]


@frozen(kw_only=True)
class InputWanted(_Stamped):
    """The agent asks something, and waits: for ever when `timeout` is 0, else for so many seconds.

    The fields are those of `PendingRequest`; `request` is what an answer names.
    """

    job: JobId
    session: SessionKey
    request: str
    kind: RequestKind
    text: str
    options: tuple[str, ...] = ()
    questions: int = 1
    conversation: ConversationId
    sub_agent: bool = False
    timeout: float = 0.0
    on_unanswered: OnUnanswered = OnUnanswered.REJECT


@frozen(kw_only=True)
class JobLasted(_Stamped):
    """The job has run for so many `seconds`, and runs on."""

    job: JobId
    session: SessionKey
    seconds: float


@frozen(kw_only=True)
class JobReported(_Stamped):
    """The job has run for so many `seconds`, and it is time to say how far it is (`reportEvery`)."""

    job: JobId
    session: SessionKey
    seconds: float


@frozen(kw_only=True)
class OutputFilled(_Stamped):
    """The job's output has reached `maxOutputSize`: nothing more of it is kept, and the job goes on."""

    job: JobId
    session: SessionKey
    size: int


class InputEnd(Enum):
    """How a request ended. `GONE` is without us: somebody answered at the server, or its tool is over."""

    ANSWERED = "answered"
    REJECTED = "rejected"
    UNANSWERED = "unanswered"
    GONE = "gone"


@frozen(kw_only=True)
class InputAnswered(_Stamped):
    """The agent waits for this request no more. There is one of these for each `InputWanted`."""

    job: JobId
    session: SessionKey
    request: str
    end: InputEnd


@frozen(kw_only=True)
class ProviderRetrying(_Stamped):
    """The model's provider failed, and is asked again in `seconds`."""

    job: JobId
    session: SessionKey
    attempt: int
    reason: str
    seconds: float


@frozen(kw_only=True)
class JobCancelling(_Stamped):
    """The job is being ended, and `rung` is what is tried now; `why` the one below it did not do."""

    job: JobId
    session: SessionKey
    rung: Rung
    why: str = ""


@frozen(kw_only=True)
class JobEnded(_Stamped):
    """The job has settled. There is one of these for each job, and nothing of the job after it."""

    job: JobId
    session: SessionKey
    snapshot: JobSnapshot


@frozen(kw_only=True)
class NotificationFailed(_Stamped):
    """OpenClaw was not told that the job `about` has settled, and will not be: it refused, or could not be
    reached for too long. `hint` is which setting to look at. It is the session's: nothing of a job comes
    after its end."""

    about: JobId
    session: SessionKey
    reason: str
    hint: str


Notice = (
    SessionChanged
    | JobQueued
    | JobStarted
    | OutputAdded
    | ToolStarted
    | TodosChanged
    | InputWanted
    | InputAnswered
    | ProviderRetrying
    | JobLasted
    | JobReported
    | OutputFilled
    | JobCancelling
    | JobEnded
    | NotificationFailed
)

# What may be left out for who is slow or comes late: there is more of it, or it can be asked for.
PROGRESS = (OutputAdded, ToolStarted, TodosChanged, ProviderRetrying, JobLasted, JobReported, SessionChanged)


@frozen(kw_only=True)
class Publish:
    notice: Notice


@frozen(kw_only=True)
class SessionRecorded:
    session: SessionKey
    conversation: ConversationId | None


@frozen(kw_only=True)
class SessionForked:
    """The session begins with a copy of the conversation of another one, `source`, without what comes from the
    message `before` on. Recorded as another conversation, it has left that behind."""

    session: SessionKey
    source: SessionKey
    conversation: ConversationId
    before: MessageId | None = None
    image: str | None = None


@frozen(kw_only=True)
class JobForgotten:
    """An ended job is not remembered any more, nor anything of it."""

    job: JobId


@frozen(kw_only=True)
class SessionForgotten:
    """The session has no jobs, no conversation and no data any more, nor what was chosen for it."""

    session: SessionKey


@frozen(kw_only=True)
class Attachment:
    """A server that somebody else runs. Where its password is, never the password; in an instance of this
    `directory`, or else in its own."""

    url: str
    user: str = ""  # OpenCode's default
    directory: str = ""
    password_file: str = ""
    password_env: str = ""


@frozen(kw_only=True)
class SessionAttached:
    """The session's server is that one from now on, and its `conversation` this one; None: detached."""

    session: SessionKey
    attachment: Attachment | None
    conversation: ConversationId | None = None


@frozen(kw_only=True)
class ContainerRecorded:
    """Where the session's server runs, so that a later process finds it again."""

    session: SessionKey
    container: ContainerId
    endpoint: Endpoint


@frozen(kw_only=True)
class ContainerForgotten:
    """The session has no container any more."""

    session: SessionKey


@frozen(kw_only=True)
class DirectoriesForgotten:
    """The session has nothing in these directories any more, unless a job of it came after notice `since`."""

    session: SessionKey
    data: bool
    workspace: bool
    since: int


@frozen(kw_only=True)
class Habits:
    """What was asked for in a session last, and holds for its next jobs where they ask for nothing else."""

    model: str | None = None
    agent: str | None = None
    system: str | None = None
    permissions: Permissions | None = None


@frozen(kw_only=True)
class Accepted:
    """What was asked for, as far as it does not stand in the job's snapshot.

    `since` is the number of the last notice before any of the job's own; `request` is a digest of all that
    was asked, so that a `key` that comes again can be told from one that is used for something else.
    """

    prompt: Prompt
    timeout: float | None
    at: float
    since: int
    max_cost_usd: float = 0.0
    report_every: float | None = None  # None: as the setting says
    image: str | None = None
    key: str | None = None
    habits: Habits | None = None
    request: str = ""
    first: bool = False  # it goes before those that wait, and the one that runs is ended for it


@frozen(kw_only=True)
class Begun:
    """Where the prompt is sent to, and under which ids. Durable before it is sent. When it `continues`, it is
    a prompt of our own, to go on with what an earlier one began. Only in its `container` somebody may be at
    work on it: the session may have another one by now."""

    conversation: ConversationId
    message: MessageId
    part: PartId
    at: float
    continues: bool = False
    container: ContainerId | None = None


@frozen(kw_only=True)
class JobRecorded:
    """A job as it is now. What is None was recorded before, or is not so yet.

    `verdict` is what a job that is being ended will settle as, if not as cancelled.
    """

    snapshot: JobSnapshot
    accepted: Accepted | None = None
    begun: Begun | None = None
    verdict: Failure | None = None


@frozen(kw_only=True)
class OutputRecorded:
    """What is added to a job's output at byte `offset`. Since byte `span` it is all of one kind and of one
    part of the server's, from its character `at` on: this is how a later process knows what was told."""

    job: JobId
    offset: int
    text: str = field(repr=False)
    kind: OutputKind = OutputKind.TEXT
    span: int = 0
    part: PartId = _NO_PART
    at: int = 0


@frozen(kw_only=True)
class NotificationRecorded:
    """Of a notification that stands with its job's end. `due`, in epoch seconds, is when it is looked at
    again; a final one never is, and stays as it is."""

    job: JobId
    state: NotificationState
    due: float = 0.0
    attempts: int = 0
    last_offer: int = 0

    @property
    def open(self) -> bool:
        """Whether somebody still has to be told."""
        return self.state in (NotificationState.PENDING, NotificationState.CLAIMED)


@frozen(kw_only=True)
class ChoiceRecorded:
    """What a session's or a channel's chats are told, from now on."""

    choice: Choice


Record = (
    SessionRecorded
    | SessionForked
    | JobForgotten
    | SessionForgotten
    | SessionAttached
    | ContainerRecorded
    | ContainerForgotten
    | DirectoriesForgotten
    | JobRecorded
    | OutputRecorded
    | NotificationRecorded
    | ChoiceRecorded
)


@frozen(kw_only=True)
class Step(Generic[StateT, EffectT]):
    """What follows from one message: the records are durable before the state is, the state before
    the effects are."""

    state: StateT
    effects: tuple[EffectT, ...] = ()
    records: tuple[Record, ...] = ()
