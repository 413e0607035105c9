"""What a stress run needs of the world that its system lives in."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from attrs import frozen

from opencode_actors.kernel.hub import NoticesMissed
from opencode_actors.kernel.system import System
from opencode_actors.machines.notices import Notice
from opencode_actors.machines.vocabulary import JobId, JobSnapshot, Leave, SessionSnapshot
from opencode_actors.settings import Settings
from opencode_actors.store.port import OutputSlice
from opencode_actors.stress.ledger import Ledger
from opencode_actors.stress.once import Reached
from opencode_actors.stress.plan import PlannedFault
from opencode_actors.stress.receiver import Receiver
from opencode_actors.stress.scenario import FaultKind
from opencode_actors.stress.windows import Hit
from opencode_actors.stress.wire import Wire
from opencode_actors.testing.fake_container import Deed

SystemFactory = Callable[[Wire], AbstractAsyncContextManager[System]]

# What a client of any system can do to it.
BY_CLIENTS = frozenset(
    {
        FaultKind.CANCEL_STORM,
        FaultKind.CLEANUP_STORM,
        FaultKind.CLOSE_STORM,
        FaultKind.VANISHING_FOLLOWERS,
    }
)
# What needs somebody who works there to be felt.
AIMED = frozenset(
    {
        FaultKind.CONTAINER_CRASH,
        FaultKind.CONTAINER_OOM,
        FaultKind.CONTAINER_REMOVED,
        FaultKind.CRASH_LOOP,
        FaultKind.IGNORES_SIGTERM,
        FaultKind.SERVER_FROZEN,
        FaultKind.SERVER_SLOW,
        FaultKind.ANSWERS_LOST,
        FaultKind.STREAM_DROPPED,
        FaultKind.STREAM_TRUNCATED,
        FaultKind.EVENTS_DUPLICATED,
        FaultKind.EVENTS_REORDERED,
        FaultKind.CANCEL_STORM,
        FaultKind.SERVICE_KILLED,
        FaultKind.SERVICE_ENDED,
    }
)


class Accepted(Protocol):
    @property
    def id(self) -> JobId: ...


class Face(Protocol):
    """A system as its clients see it: `System` itself, or its front door from outside."""

    async def start(self, prompt: str, *, session: str, key: str) -> Accepted: ...

    async def status(self, job: JobId) -> JobSnapshot: ...

    async def cancel(self, job: JobId) -> JobSnapshot: ...

    async def answer(
        self,
        job: JobId,
        request: str,
        *,
        answers: str | None = None,
        reply: str | None = None,
        message: str = "",
    ) -> None: ...

    async def output(self, job: JobId, *, offset: int, limit: int) -> OutputSlice: ...

    async def sessions(self) -> Sequence[SessionSnapshot]: ...

    async def cleanup(self) -> object: ...

    async def close_session(self, session: str) -> object: ...

    async def reset_session(self, session: str) -> object: ...


Told = AsyncIterator[Notice | NoticesMissed]


class Following(Protocol):
    def __call__(self, since: int, job: JobId | None = None) -> AbstractAsyncContextManager[Told]: ...


@frozen
class Live:
    """A system that runs. `follow` tells what came after a notice's number, of everything or of one job, for as long
    as it is entered.
    `inside` is the system itself, where it is in this process; `connections` counts those that clients keep to it."""

    face: Face
    follow: Following
    inside: System | None
    connections: Callable[[], int] = lambda: 0


def embedded(system: System) -> Live:
    @asynccontextmanager
    async def follow(since: int, job: JobId | None = None) -> AsyncGenerator[Told]:
        yield system.follow(job, since=since)

    return Live(system, follow, system)


class World(Protocol):
    """`settings` are those of its systems, `receiver` what they announce ends to, if to anybody."""

    @property
    def name(self) -> str: ...

    @property
    def settings(self) -> Settings: ...

    @property
    def receiver(self) -> Receiver | None: ...

    @property
    def ledger(self) -> Ledger | None:
        """What the model is asked, if that can be known."""
        ...

    @property
    def late(self) -> float:
        """By how many seconds one notice may be heard later than another, on their way to the run."""
        ...

    @property
    def reached(self) -> Reached | None:
        """What came to the model, where that is this world's."""
        ...

    @property
    def asked(self) -> Sequence[Deed] | None:
        """How its engine was asked to end containers, if that is known."""
        ...

    @property
    def unchecked(self) -> tuple[str, ...]:
        """Rules of which it cannot see whether they hold."""
        ...

    @property
    def leave(self) -> Leave | None:
        """Which jobs the running system leaves to the next one when it ends in order, if that is known."""
        ...

    def system(self) -> AbstractAsyncContextManager[Live]:
        """A system in this world, which ends in order when it is left; after that, or a `kill`, another one, with
        all that the first one left."""
        ...

    def kill(self) -> None:
        """The running system has no effect on this world any more, from this moment on."""
        ...

    def can(self, kind: FaultKind) -> bool:
        """Whether it knows how, now that a system runs in it."""
        ...

    async def inflict(self, fault: PlannedFault) -> Hit | None:
        """Lets it happen; what was hit, if there was anything to be hit. Not called for `BY_CLIENTS`."""
        ...

    async def relent(self, fault: PlannedFault) -> bool:
        """Ends what lasts. False when nobody had felt anything of it."""
        ...

    def memory(self) -> int | None:
        """What the system's process takes now, in bytes; None where it has none of its own."""
        ...

    def working(self, session: str) -> Mapping[str, int | None]:
        """What works in a session's container, as far as the world can see that: each with the number of its job,
        where that is known."""
        ...

    async def at_rest(self, live: Live) -> tuple[str, ...]:
        """What it holds that it needs no more, now that all has settled and its sessions have ended."""
        ...

    async def left_over(self) -> tuple[str, ...]:
        """What is still there after the system was closed, and should not be."""
        ...
