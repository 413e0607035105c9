"""The words that every machine shares: ids, outcomes, snapshots, and the effects of any kind.

Commands are imperative and may be refused; facts are past tense; signals are facts about a machine's own
operations and timers, and are dropped at the mailbox's door once they are stale; queries start with
`Get`. Effects go out to the shell, notices to whoever follows. What only one machine is told stands in
`session_messages` and `job_messages`.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Generic, NewType, TypeVar

from attrs import Factory, field, frozen

from opencode_actors.machines.server_events import (
    ConversationId,
    Todo,
    Tokens,
)
from opencode_actors.machines.spending import Spending

JobId = NewType("JobId", str)


SessionKey = NewType("SessionKey", str)


AskId = NewType("AskId", int)

# Asked for by nobody who waits: the answer is dropped.
NOBODY = AskId(0)


@frozen(kw_only=True)
class Moment:
    """All that a decision knows of the world besides the message: the time and one roll of a die.

    `now` is the shell's monotonic clock, `wall` the time of day in epoch seconds; `roll` is uniform in
    [0, 1).
    """

    now: float
    wall: float
    roll: float


# What is due within this is due: sums of floats fall short of a deadline by less, and a timer for the rest
# of 1e-15 s would fire at the same instant again, and for ever.
ROUNDING = 0.001


class Cause(Enum):
    """What a job or a session failed of, as it really was."""

    CRASH = "crash"
    OOM = "oom"
    REMOVED = "removed"
    SERVER_HUNG = "server_hung"
    SERVER_LOST = "server_lost"
    SERVER_REFUSED = "server_refused"
    NOT_ENDED = "not_ended"
    UNANSWERED = "unanswered"
    BUDGET = "budget"
    IDLE_TIMEOUT = "idle_timeout"
    JOB_TIMEOUT = "job_timeout"
    STARTUP_TIMEOUT = "startup_timeout"
    AUTH = "auth"
    RATE_LIMIT = "rate_limit"
    PROVIDER = "provider"
    CONTEXT = "context"
    REJECTED = "rejected"
    IMAGE_MISSING = "image_missing"
    ENGINE_UNAVAILABLE = "engine_unavailable"
    ENGINE_REFUSED = "engine_refused"
    LOST = "lost"
    STORE = "store"
    INTERNAL = "internal"
    CLOSED = "closed"


@frozen(kw_only=True)
class Failure:
    """`message` is for a person; `exit_code` is the container's, where it has to do with it."""

    cause: Cause
    message: str
    exit_code: int | None = None


class JobStatus(Enum):
    """The first three are of a job that is under way, the last three are final."""

    PENDING = "pending"
    RUNNING = "running"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class ActivityState(Enum):
    """Whether a running job does anything: words came, work is seen, an answer is awaited, or none."""

    ACTIVE = "active"
    PROCESSING = "processing"
    WAITING = "waiting"
    IDLE = "idle"


class RequestKind(Enum):
    """A question has options and takes any text; a permission is given once, always, or not."""

    QUESTION = "question"
    PERMISSION = "permission"


class OnUnanswered(Enum):
    """What becomes of a request that nobody answers in time."""

    REJECT = "reject"
    FAIL = "fail"


class OnCrash(Enum):
    """What becomes of a job whose server ends in the middle of it."""

    FAIL = "fail"
    RESUME = "resume"


class Leave(Enum):
    """Which jobs go on in their containers when a system is left: none, those of a service that an earlier
    process began, or all that are at work or wait. The next system of the same state directory goes on with
    them."""

    NOTHING = "nothing"
    FOUND = "found"
    ALL = "all"


@frozen(kw_only=True)
class PendingRequest:
    """What the agent asks and waits for, or a `sub_agent` in a `conversation` of its own.

    A question takes one answer for each of its `questions`. A permission's options are its replies.
    """

    id: str
    kind: RequestKind
    text: str
    options: tuple[str, ...] = ()
    questions: int = 1
    conversation: ConversationId
    sub_agent: bool = False
    waiting_seconds: float = 0.0  # in a snapshot: since it was heard of


class Rung(IntEnum):
    """The ladder of a cancel. Each rung has a request, a bounded wait and a fact that ends it."""

    ABORT = 1
    STOP = 2
    KILL = 3
    REMOVE = 4
    QUARANTINE = 5


@frozen(kw_only=True)
class Climb:
    """How far a cancel had to go, and how long each rung took, in seconds.

    `why` is for a person: why OpenCode's own abort did not end it, where it did not.
    """

    ended_by: Rung | None  # None: nothing had to be stopped
    seconds: tuple[tuple[Rung, float], ...] = ()
    why: str = ""


@frozen(kw_only=True)
class Origin:
    """Who asked for a job, in the words of whatever the request came through. It is only kept, never read."""

    session_key: str = ""
    agent_id: str = ""
    channel: str = ""


@frozen(kw_only=True)
class JobSnapshot:
    """A job as it was at one moment; a settled one stays as it is."""

    id: JobId
    session: SessionKey
    prompt: str = field(repr=False)
    name: str = ""  # what people call it
    status: JobStatus
    activity: ActivityState
    failure: Failure | None = None
    climb: Climb | None = None
    started_at: float | None = None  # when its turn came, in epoch seconds
    elapsed_seconds: float = 0.0
    output_bytes: int = 0
    output_truncated: bool = False
    answer_at: int = 0  # where its last words begin in the output, in bytes
    last_output_seconds_ago: float | None = None
    todos: tuple[Todo, ...] = ()
    pending: tuple[PendingRequest, ...] = ()  # what waits for an answer
    cost_usd: float = 0.0  # with its sub-agents'; too low unless `cost_known`
    cost_known: bool = True
    max_cost_usd: float = 0.0  # 0: no bound
    tokens: Tokens = Factory(Tokens)
    spent_aside: Spending = Factory(Spending)  # of it all, what the last prompt's answer does not tell again
    model: str = ""
    cpu_load: float | None = None  # 1.0 is one whole core
    memory_bytes: int | None = None
    origin: Origin | None = None
    notify: bool = False  # its end is announced to OpenClaw
    interrupted_by: JobId | None = None  # it was ended for that one, whose message went first

    @property
    def aimed(self) -> bool:
        """Whether a chat session asked for it, which can be told of its end."""
        return self.origin is not None and bool(self.origin.session_key)

    @property
    def settled(self) -> bool:
        """Whether its end is told here; nothing changes after it."""
        return self.status in (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)


class NotificationState(Enum):
    """What became of the word that a job has settled. `claimed`: a client has it and has not said yet that
    it passed it on. The last three are final: passed on, refused for good, given up."""

    PENDING = "pending"
    CLAIMED = "claimed"
    DONE = "done"
    REFUSED = "refused"
    EXPIRED = "expired"


class SessionStatus(Enum):
    """Where a session's container is in its life. Jobs run while it is ready, and wait otherwise."""

    ABSENT = "absent"
    CREATING = "creating"
    STARTING = "starting"
    READY = "ready"
    UNREADY = "unready"
    STOPPING = "stopping"
    BACKING_OFF = "backing_off"
    GIVEN_UP = "given_up"
    QUARANTINED = "quarantined"


@frozen(kw_only=True)
class SessionSnapshot:
    """A session as it was at one moment. `container` is the container's name, where there is one, and
    `server` the address of the one that somebody else runs; `disk_bytes` what its OpenCode data takes, once
    that was measured."""

    key: SessionKey
    status: SessionStatus
    conversation: ConversationId | None
    container: str | None
    running: JobId | None
    queued: tuple[JobId, ...]
    crashes: int
    failure: Failure | None = None
    disk_bytes: int | None = None
    server: str = ""


OperationT = TypeVar("OperationT")


TimerT = TypeVar("TimerT")


@frozen(kw_only=True)
class Run(Generic[OperationT]):
    """Starts an operation. One of the same kind that still runs is forgotten first."""

    operation: OperationT


@frozen(kw_only=True)
class Forget(Generic[OperationT]):
    """Ends an operation of this kind; nothing of it is heard again."""

    kind: type[OperationT]


@frozen(kw_only=True)
class StartTimer(Generic[TimerT]):
    """Sets the timer anew if it runs already."""

    timer: TimerT
    seconds: float


@frozen(kw_only=True)
class StopTimer(Generic[TimerT]):
    timer: TimerT


@frozen(kw_only=True)
class Reply:
    ask: AskId
    value: object


@frozen(kw_only=True)
class Finish:
    """The machine has nothing left to do; its actor ends once the other effects are out."""


StateT = TypeVar("StateT")


EffectT = TypeVar("EffectT")
