"""What a session is told, what it has done for it, and what it tells its jobs."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from attrs import frozen

from opencode_actors.machines.job_messages import (
    EventsSeen,
    JobMessage,
    JobOver,
    StopForJob,
    StreamOpened,
)
from opencode_actors.machines.notices import (
    Publish,
)
from opencode_actors.machines.server_events import (
    ConversationId,
    MessageId,
)
from opencode_actors.machines.vocabulary import (
    AskId,
    Failure,
    Finish,
    Forget,
    JobId,
    Reply,
    Run,
    Rung,
    StartTimer,
    StopTimer,
)
from opencode_actors.ports import (
    Container,
    ContainerId,
    Death,
    Endpoint,
    Permissions,
    Usage,
)


@frozen(kw_only=True)
class AddJob:
    """Answered with `Accepted` or `Refused`. The `first` goes before all that wait."""

    ask: AskId
    job: JobId
    first: bool = False
    permissions: Permissions | None = None


@frozen(kw_only=True)
class Accepted:
    ahead: int


@frozen(kw_only=True)
class Refused:
    """`hint` is what the asker can do about it."""

    reason: str
    hint: str = ""


@frozen(kw_only=True)
class WakeSession:
    """Gets its server up without a job, if nothing speaks against it. Answered with `Accepted` or `Refused`."""

    ask: AskId


@frozen(kw_only=True)
class CloseSession:
    """Fails its jobs, ends its container by the ladder, and is answered with the `Climb`."""

    ask: AskId


@frozen(kw_only=True)
class ResetSession:
    """Forgets its crashes and what it was given up for. Answered with the `SessionSnapshot` after it."""

    ask: AskId


@frozen(kw_only=True)
class RetireSession:
    """Ends it as `CloseSession` does, unless somebody needs it. Answered with the `Climb` when it is over,
    and with `Refused` when it has jobs or gets one before that. `why` is announced."""

    ask: AskId
    why: str


@frozen(kw_only=True)
class TakeOver:
    """What an earlier process left, before anything else: its jobs in their order, and the container in which
    the first of them is at work, if that still runs. `begun` was sent to a server, if one of them was."""

    jobs: tuple[JobId, ...]
    begun: JobId | None = None
    container: Container | None = None
    endpoint: Endpoint | None = None
    permissions: Mapping[JobId, Permissions | None] = {}


@frozen(kw_only=True)
class ContainerLaunched:
    container: Container
    endpoint: Endpoint


@frozen(kw_only=True)
class LaunchFailed:
    """`retryable` is False when trying again cannot help: no image, a flag the engine refuses."""

    failure: Failure
    retryable: bool


@frozen(kw_only=True)
class ContainerExited:
    death: Death


@frozen(kw_only=True)
class ContainerFoundDead:
    """The engine says that it has ended, and its own watch has not: the backstop.

    About one container, because it may come when the next one runs.
    """

    container: ContainerId
    death: Death


@frozen(kw_only=True)
class ProbeSucceeded:
    version: str


@frozen(kw_only=True)
class ProbeFailed:
    reason: str


@frozen(kw_only=True)
class ConversationOpened:
    conversation: ConversationId
    fresh: bool


@frozen(kw_only=True)
class CaughtUp:
    """Nothing in `conversation` lies ahead of the clock: it reaches until `upto`, as far as anybody knows. `how` says
    what had to be done for it, if anything."""

    conversation: ConversationId
    upto: float | None
    how: str = ""


@frozen(kw_only=True)
class OpeningFailed:
    failure: Failure


@frozen(kw_only=True)
class StreamLost:
    reason: str


@frozen(kw_only=True)
class UsageSampled:
    usage: Usage


@frozen(kw_only=True)
class TidiedUp:
    """`disk_bytes` is what the session's OpenCode data takes, after the clean-up."""

    disk_bytes: int


@frozen(kw_only=True)
class StopAnswered:
    """The engine answered a rung's request. No proof of anything."""

    rung: Rung


@frozen(kw_only=True)
class StopRefused:
    """`away` when there is no engine that could have said no."""

    rung: Rung
    reason: str
    away: bool = False


@frozen(kw_only=True)
class ContainerRemoved:
    """The engine no longer knows the container: it is gone, whatever else was said."""


@frozen(kw_only=True)
class GetSession:
    ask: AskId


class SessionTimer(Enum):
    LAUNCH = "launch"
    READY = "ready"
    PROBE = "probe"
    SILENCE = "silence"
    STREAM = "stream"
    SAMPLE = "sample"
    IDLE = "idle"
    RUNG = "rung"
    AGAIN = "again"
    BACKOFF = "backoff"


@frozen(kw_only=True)
class SessionTimerFired:
    timer: SessionTimer


SessionMessage = (
    AddJob
    | WakeSession
    | CloseSession
    | ResetSession
    | RetireSession
    | JobOver
    | StopForJob
    | TakeOver
    | ContainerLaunched
    | LaunchFailed
    | ContainerExited
    | ContainerFoundDead
    | ProbeSucceeded
    | ProbeFailed
    | ConversationOpened
    | CaughtUp
    | OpeningFailed
    | StreamOpened
    | EventsSeen
    | StreamLost
    | UsageSampled
    | TidiedUp
    | StopAnswered
    | StopRefused
    | ContainerRemoved
    | GetSession
    | SessionTimerFired
)


@frozen(kw_only=True)
class LaunchContainer:
    """`permissions` are built into it: a job with others needs another one."""

    name: str
    permissions: Permissions | None = None


@frozen(kw_only=True)
class WatchExit:
    container: Container


@frozen(kw_only=True)
class ProbeServer:
    endpoint: Endpoint
    within: float


@frozen(kw_only=True)
class OpenConversation:
    """Warms the server up, and makes the conversation or finds the one that is there. With `before` it goes on in
    a branch of that one, which has nothing from this message on."""

    endpoint: Endpoint
    conversation: ConversationId | None
    title: str
    before: MessageId | None = None


@frozen(kw_only=True)
class CatchUp:
    """Sees to it that nothing in the conversation lies ahead of the clock, which says `wall`: after it was set back,
    the server would take each prompt for one of before. Nobody may be at work in it."""

    endpoint: Endpoint
    conversation: ConversationId
    title: str
    wall: float


@frozen(kw_only=True)
class FollowServer:
    endpoint: Endpoint


@frozen(kw_only=True)
class SampleUsage:
    container: Container


@frozen(kw_only=True)
class TidyUp:
    """Carries refreshed logins back to the host, and keeps the session's data within its bound."""


@frozen(kw_only=True)
class EndContainer:
    """One rung's request to the engine, by the container's name. `grace` is a stop's own, before the engine kills."""

    name: str
    rung: Rung
    grace: float


SessionOperation = (
    LaunchContainer
    | WatchExit
    | ProbeServer
    | OpenConversation
    | CatchUp
    | FollowServer
    | SampleUsage
    | TidyUp
    | EndContainer
)


@frozen(kw_only=True)
class TellJob:
    job: JobId
    message: JobMessage


SessionEffect = (
    Run[SessionOperation]
    | Forget[SessionOperation]
    | StartTimer[SessionTimer]
    | StopTimer[SessionTimer]
    | Reply
    | TellJob
    | Publish
    | Finish
)
