"""The port to what outlives the process."""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import Protocol

from attrs import field, frozen

from opencode_actors.machines.matters import Choice
from opencode_actors.machines.notices import Accepted, Begun, Habits, Notice, Record, SessionAttached
from opencode_actors.machines.outbox_messages import LookForNotifications, NotificationsFound
from opencode_actors.machines.server_events import ConversationId, MessageId
from opencode_actors.machines.totals import Totals
from opencode_actors.machines.transcript import Piece
from opencode_actors.machines.vocabulary import Failure, JobId, JobSnapshot, PendingRequest, SessionKey
from opencode_actors.ports import ContainerId, Endpoint

# Called in the order of `seq`, for each notice once, when it is durable. It does not wait.
Tell = Callable[[Notice], None]


@frozen(kw_only=True)
class OpenJob:
    """A job that nobody saw the end of, as it was last recorded. `told` is its whole output, of `told_bytes`,
    piece by piece; `wanted` what was announced as waiting for an answer, and not as answered."""

    snapshot: JobSnapshot
    accepted: Accepted | None  # None: an earlier version took it
    begun: Begun | None
    verdict: Failure | None
    told: tuple[Piece, ...] = ()
    told_bytes: int = 0
    wanted: tuple[PendingRequest, ...] = ()


@frozen(kw_only=True)
class Housed:
    """Where a session's server was last."""

    session: SessionKey
    container: ContainerId
    endpoint: Endpoint


@frozen(kw_only=True)
class Remembered:
    """What an earlier process left: `unsettled` jobs in the order in which they came, the sessions that are
    `housed`, those that are `attached` to somebody else's servers, the number of the last notice, and who chose
    to be told what."""

    owner: str
    unsettled: tuple[OpenJob, ...] = ()
    housed: tuple[Housed, ...] = ()
    attached: tuple[SessionAttached, ...] = ()
    last_seq: int = 0
    choices: tuple[Choice, ...] = ()


@frozen(kw_only=True)
class KnownJob:
    """A job, the number of the last notice before any of its own, and that of its `JobEnded` if that is
    kept."""

    snapshot: JobSnapshot
    since: int
    ended: int | None


@frozen(kw_only=True)
class Recalled:
    """What a session had last, and what comes next in it is to have: its `conversation`, the `image` that was asked
    for, if one was, and the `habits` of the job that it accepted last. `before` is the message before which the
    conversation, which is still that of the session it was forked off, is to be branched."""

    conversation: ConversationId | None = None
    before: MessageId | None = None
    image: str = ""
    habits: Habits = field(factory=Habits)


@frozen(kw_only=True)
class KnownSession:
    """`used_at` is when something was announced of it last and `began_at` when its first job came, in epoch
    seconds; None when that is not kept. `name` is the newest of its jobs' names, `image` the one that was
    asked for, if one was, and `source` the session that it was forked off. `talked` is whether it had a
    conversation."""

    key: SessionKey
    used_at: float | None = None
    began_at: float | None = None
    jobs: int = 0
    name: str = ""
    image: str | None = None
    source: SessionKey | None = None
    talked: bool = False

    @property
    def heard_of(self) -> bool:
        """Whether there ever was such a session."""
        return bool(self.jobs) or self.source is not None


@frozen(kw_only=True)
class OnDisk:
    """A session that may have directories. `used_at` is as in `KnownSession`, of the notice `last_seq`."""

    key: SessionKey
    used_at: float | None = None
    last_seq: int = 0


@frozen(kw_only=True)
class Keyed:
    """The job that a client's key stands for; `request` is the digest of what was asked for then."""

    job: JobId
    session: SessionKey
    request: str
    at: float


@frozen(kw_only=True)
class Limits:
    """How much is kept: so many ended jobs, sessions and bytes of output (0: all), and none whose last job came
    `before` that time of day; a session that had none, by what was announced of it last. A job with a client's key
    is kept until that may stand for another one."""

    jobs: int
    jobs_before: float
    outputs: int
    unkeyed_before: float
    sessions: int
    sessions_before: float


@frozen(kw_only=True)
class Page:
    """Notices in their order, and how far they reach: all that was asked for up to `reached` is here, but
    for at most `missed` that are not kept any more."""

    notices: tuple[Notice, ...]
    reached: int
    missed: int = 0


@frozen(kw_only=True)
class OutputSlice:
    """A part of a job's output. `next_offset` is where to read on, in bytes; `more` is whether there is
    anything to read there now."""

    text: str
    next_offset: int
    more: bool


class Store(Protocol):
    """Every method raises `StoreError`, and nothing else."""

    async def load(self) -> Remembered:
        """For the beginning. Output that was not recorded to its end is taken back: nobody was told it."""
        ...

    def listen(self, tell: Tell) -> None:
        """From now on each notice goes there, and to nobody else."""
        ...

    async def append(
        self, records: tuple[Record, ...], notices: tuple[Notice, ...] = (), *, at: float = 0.0
    ) -> None:
        """Returns when all of them are durable, together or not at all, and the notices are told, stamped
        with their numbers and `at`. A job's output, and what is announced of it, is durable with the
        record of its end, and until then outlives the process, not the machine."""
        ...

    async def notices(self, job: JobId | None, session: SessionKey | None, *, after: int, upto: int) -> Page:
        """A bounded number of those with `after < seq <= upto`: of the job and of its session itself, or
        else of all in the session, or else of all. `reached` is `upto` when there are no more."""
        ...

    async def recall(self, session: SessionKey) -> Recalled:
        """Of one that was never heard of there is nothing."""
        ...

    async def on_disk(self, *, data: bool, workspaces: bool, after: str) -> tuple[OnDisk, ...]:
        """A bounded number of the sessions that may have any of these directories, open or not, in the order of
        their keys and behind `after`; none when there are no more."""
        ...

    async def session(self, session: SessionKey) -> KnownSession:
        """Of one that was never heard of there is nothing but its key."""
        ...

    async def old_jobs(self, limits: Limits) -> tuple[JobId, ...]:
        """Those that have ended and are beyond the limits, the oldest first. Not the last one of a session, nor one
        whose end is still to be announced."""
        ...

    async def old_sessions(self, limits: Limits, *, but: Set[SessionKey]) -> tuple[SessionKey, ...]:
        """Those that were used last before the limits, but for these, the oldest first, a bounded number. None has a
        job that has not ended or of which somebody is still to be told, or is attached to somebody else's server."""
        ...

    async def jobs_of(self, session: SessionKey) -> tuple[JobId, ...] | None:
        """The jobs of a session, the oldest first; None where one of them has not ended."""
        ...

    async def known_sessions(self, *, limit: int) -> tuple[KnownSession, ...]:
        """All that have jobs or were forked off another one, those with the newest jobs first."""
        ...

    async def remove_strangers(self) -> None:
        """Output of forgotten jobs that is still there: a process has ended between the one and the other. Output of
        which nothing is recorded stays: its journal may have been moved away."""
        ...

    async def named(self, name: str, *, limit: int) -> tuple[JobSnapshot, ...]:
        """The newest jobs that were given this name, as they were last recorded, the newest first."""
        ...

    async def last_job(self, session: SessionKey) -> JobSnapshot | None:
        """The session's newest job, as it was last recorded."""
        ...

    async def recent_names(self, *, jobs: int) -> tuple[str, ...]:
        """What the newest jobs and their sessions are called, the newest first, each word once."""
        ...

    async def free_number(self, name: str, *, above: int = 0) -> int:
        """1 when no job and no session was given this name; or else the first number that is free behind it, larger
        than how many of either begin like that. Always one that is larger than `above`."""
        ...

    async def job(self, job: JobId) -> KnownJob | None:
        """The job as it was last recorded."""
        ...

    async def keyed(self, key: str) -> Keyed | None:
        """The newest job that was accepted under this key."""
        ...

    async def notifications(self, look: LookForNotifications) -> NotificationsFound:
        """One stands there for each job that was recorded as settled and is to `notify`, since that very
        record; what is final is never found again."""
        ...

    async def totals(self, since: str) -> Totals:
        """Of the local days from this one on (`2026-11-26`), also of jobs that are forgotten by now."""
        ...

    async def output(self, job: JobId, *, offset: int, limit: int) -> OutputSlice:
        """Up to `limit` bytes from `offset`, never splitting a character: one that alone is longer than
        `limit` is given whole. A job without output reads empty."""
        ...

    async def aclose(self) -> None: ...
