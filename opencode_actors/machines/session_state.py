"""What a session knows in each phase of its container's life, and how that looks from outside."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import Factory, frozen

from opencode_actors.machines import health
from opencode_actors.machines.cancellation import Graces, Ladder
from opencode_actors.machines.health import Liveness, Verdict
from opencode_actors.machines.restart import CrashHistory, GiveUp, RestartAfter, RestartPolicy
from opencode_actors.machines.server_events import ConversationId, MessageId
from opencode_actors.machines.vocabulary import (
    AskId,
    Climb,
    Failure,
    JobId,
    Rung,
    SessionKey,
    SessionSnapshot,
    SessionStatus,
)
from opencode_actors.ports import Container, Endpoint, Permissions, Usage


@frozen(kw_only=True)
class SessionPolicy:
    startup_timeout: float
    server_ready_timeout: float
    session_idle_timeout: float
    max_queued_jobs: int
    memory: int
    recycle_memory_share: float  # 0: never
    max_disk: int  # 0: no bound
    restart: RestartPolicy
    graces: Graces
    # The address of a server that somebody else runs: it is reached where a container would be started, let go
    # of where one would be ended, and waited for where one would be started anew.
    elsewhere: str = ""
    lost_after: float = 0.0  # how long that one may be away


@frozen(kw_only=True)
class Absent:
    """No container. The next job makes one."""


@frozen(kw_only=True)
class Creating:
    pass


@frozen(kw_only=True)
class Starting:
    """The container runs; the server in it has to answer, each time `within` so many seconds, to open its
    stream and a conversation."""

    container: Container
    endpoint: Endpoint
    within: float = health.STARTUP_PROBE_WITHIN
    failed_probes: int = 0
    why: str = ""
    version: str = ""
    streaming: bool = False
    opened: bool = False


@frozen(kw_only=True)
class Serving:
    """Ready, or for the moment not: no new job is let in while the server does not answer.

    `catching_up` while it is seen to it that nothing in the conversation lies ahead of the clock.
    `deaf` counts how often in a row the event stream was opened and brought nothing, since
    `unheard_since`. `usage` is the running
    job's last reading, `memory_bytes` that of any job of this container.
    """

    container: Container
    endpoint: Endpoint
    liveness: Liveness
    catching_up: bool = False
    streaming: bool = True
    deaf: int = 0
    unheard_since: float | None = None
    usage: Usage | None = None
    usage_at: float = 0.0
    memory_bytes: int = 0

    @property
    def ready(self) -> bool:
        return self.streaming and self.liveness.verdict is Verdict.READY


@frozen(kw_only=True)
class Stopping:
    """The ladder's upper rungs. `why` is what a job in the container is told.

    `climb` is set once the container has exited: what is left is to take it away. `launching` when it was
    not known to run. `away_since` while no engine answers; `asked` when it was asked once more since it said so.
    """

    ladder: Ladder
    why: Failure
    climb: Climb | None = None
    afterwards: RestartAfter | GiveUp | None = None
    launching: bool = False
    away_since: float | None = None
    asked: bool = False

    @property
    def nothing_runs(self) -> bool:
        """Nothing of a job can be in the container, so that nobody is hurt by waiting for an engine."""
        return self.launching or self.climb is not None


@frozen(kw_only=True)
class BackingOff:
    why: Failure


@frozen(kw_only=True)
class GivenUp:
    """`leftover` when the engine may still have a container, which goes before the next one is made."""

    why: Failure
    leftover: bool = False


@frozen(kw_only=True)
class Quarantined:
    """The engine does not end the container. Nothing more is tried; a person has to look."""

    why: Failure


@frozen(kw_only=True)
class Closed:
    """Over. Whoever still asks is told so."""

    climb: Climb


Phase = Absent | Creating | Starting | Serving | Stopping | BackingOff | GivenUp | Quarantined | Closed


@frozen(kw_only=True)
class SessionState:
    """`queue` holds the jobs that wait, in order; `current` the one that has the turn. `used_at` is when a
    job came or went last; `disk_bytes` what the session's data took when it was measured last; `before` is
    where the conversation, which is another session's, is to be branched, until that is done; `latest` the time
    of day until which something may have been said in it, or None when nobody here knows; `begun` a job that waits
    to go on in it, or to be looked up there."""

    key: SessionKey
    container_name: str
    title: str
    policy: SessionPolicy
    conversation: ConversationId | None
    before: MessageId | None = None
    latest: float | None = None
    begun: JobId | None = None
    phase: Phase = Absent()
    queue: tuple[JobId, ...] = ()
    current: JobId | None = None
    crashes: CrashHistory = Factory(CrashHistory)
    closing: tuple[AskId, ...] = ()
    retiring: tuple[AskId, ...] = ()
    used_at: float = 0.0
    disk_bytes: int | None = None
    # What the container was made with, and what its jobs want; None: what the settings say.
    permissions: Permissions | None = None
    wanted: Mapping[JobId, Permissions | None] = {}


def snapshot(state: SessionState) -> SessionSnapshot:
    phase = state.phase
    why = phase.why if isinstance(phase, Stopping | BackingOff | GivenUp | Quarantined) else None
    up = isinstance(phase, Creating | Starting | Serving | Stopping | Quarantined)
    has_container = up and not state.policy.elsewhere
    return SessionSnapshot(
        key=state.key,
        status=status(phase),
        conversation=state.conversation,
        container=state.container_name if has_container else None,
        running=state.current,
        queued=state.queue,
        crashes=state.crashes.count,
        failure=why,
        disk_bytes=state.disk_bytes,
        server=state.policy.elsewhere,
    )


def status(phase: Phase) -> SessionStatus:
    match phase:
        case Absent():
            return SessionStatus.ABSENT
        case Creating():
            return SessionStatus.CREATING
        case Starting():
            return SessionStatus.STARTING
        case Serving():
            return SessionStatus.READY if phase.ready else SessionStatus.UNREADY
        case Stopping():
            return SessionStatus.STOPPING
        case BackingOff():
            return SessionStatus.BACKING_OFF
        case GivenUp():
            return SessionStatus.GIVEN_UP
        case Quarantined():
            return SessionStatus.QUARANTINED
        case Closed():
            # a container that nobody could end is not absent, closed or not
            lost = phase.climb.ended_by is Rung.QUARANTINE
            return SessionStatus.QUARANTINED if lost else SessionStatus.ABSENT
