"""What a machine announces, what it has made durable first, and one whole decision of it."""

from __future__ import annotations

from enum import Enum
from typing import Generic

from attrs import field, frozen

from opencode_actors.machines.server_events import (
    ConversationId,
    Todo,
)
from opencode_actors.machines.vocabulary import (
    EffectT,
    JobId,
    JobSnapshot,
    Rung,
    SessionKey,
    SessionStatus,
    StateT,
)


@frozen(kw_only=True)
class SessionChanged:
    """`detail` is for a person."""

    session: SessionKey
    status: SessionStatus
    detail: str = ""


@frozen(kw_only=True)
class JobQueued:
    """The job is recorded and has its place; so many are `ahead` of it in its session."""

    job: JobId
    session: SessionKey
    ahead: int


@frozen(kw_only=True)
class JobStarted:
    """The job has its turn, and its prompt is on its way."""

    job: JobId
    session: SessionKey


class OutputKind(Enum):
    """Whose words a piece of output is: the model's, a tool's, or a remark of our own."""

    TEXT = "text"
    TOOL = "tool"
    REMARK = "remark"


@frozen(kw_only=True)
class OutputAdded:
    """`offset` is in bytes of the job's output file."""

    job: JobId
    session: SessionKey
    kind: OutputKind
    offset: int
    text: str


@frozen(kw_only=True)
class ToolStarted:
    """The agent uses a tool; `title` is what it says of it."""

    job: JobId
    session: SessionKey
    tool: str
    title: str


@frozen(kw_only=True)
class TodosChanged:
    """The agent's list of what is to be done, all of it."""

    job: JobId
    session: SessionKey
    todos: tuple[Todo, ...]


@frozen(kw_only=True)
class InputWanted:
    """The agent asks something, and waits."""

    job: JobId
    session: SessionKey
    request: str
    text: str


@frozen(kw_only=True)
class ProviderRetrying:
    """The model's provider failed, and is asked again in `seconds`."""

    job: JobId
    session: SessionKey
    attempt: int
    reason: str
    seconds: float


@frozen(kw_only=True)
class JobCancelling:
    """The job is being ended, and `rung` is what is tried now; `why` the one below it did not do."""

    job: JobId
    session: SessionKey
    rung: Rung
    why: str = ""


@frozen(kw_only=True)
class JobEnded:
    """The job has settled. There is one of these for each job, and nothing of the job after it."""

    job: JobId
    session: SessionKey
    snapshot: JobSnapshot


Notice = (
    SessionChanged
    | JobQueued
    | JobStarted
    | OutputAdded
    | ToolStarted
    | TodosChanged
    | InputWanted
    | ProviderRetrying
    | JobCancelling
    | JobEnded
)


@frozen(kw_only=True)
class Publish:
    notice: Notice


@frozen(kw_only=True)
class SessionRecorded:
    session: SessionKey
    conversation: ConversationId | None


@frozen(kw_only=True)
class JobRecorded:
    snapshot: JobSnapshot


@frozen(kw_only=True)
class OutputRecorded:
    job: JobId
    text: str = field(repr=False)


Record = SessionRecorded | JobRecorded | OutputRecorded


@frozen(kw_only=True)
class Step(Generic[StateT, EffectT]):
    """What follows from one message: the records are durable before the state is, the state before
    the effects are."""

    state: StateT
    effects: tuple[EffectT, ...] = ()
    records: tuple[Record, ...] = ()
