"""What a stress run needs of the world that its system lives in."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from attrs import frozen

from opencode_actors.kernel.system import System
from opencode_actors.settings import Settings
from opencode_actors.stress.plan import PlannedFault
from opencode_actors.stress.scenario import FaultKind
from opencode_actors.stress.truth import Hit

SystemFactory = Callable[[], AbstractAsyncContextManager[System]]

# What a client of any system can do to it.
BY_CLIENTS = frozenset(
    {
        FaultKind.CANCEL_STORM,
        FaultKind.CLEANUP_STORM,
        FaultKind.CLOSE_STORM,
        FaultKind.VANISHING_FOLLOWERS,
    }
)


class World(Protocol):
    """`settings` are those of its systems."""

    @property
    def name(self) -> str: ...

    @property
    def settings(self) -> Settings: ...

    def system(self) -> AbstractAsyncContextManager[System]:
        """A system in this world; after a `kill` another one, with all that the first one left."""
        ...

    def kill(self) -> None:
        """The running system has no effect on this world any more, from this moment on."""
        ...

    def can(self, kind: FaultKind) -> bool:
        """Whether it knows how. `BY_CLIENTS` need no world."""
        ...

    async def inflict(self, fault: PlannedFault) -> Hit | None:
        """Lets it happen; what was hit, if there was anything to be hit."""
        ...

    async def relent(self, fault: PlannedFault) -> None:
        """Ends what lasts."""
        ...

    def left_over(self) -> tuple[str, ...]:
        """What is still there after the system was closed, and should not be."""
        ...


@frozen
class EmbeddedWorld:
    """Whatever a caller's own factory makes: only its clients can be bad."""

    settings: Settings
    factory: SystemFactory
    name: str = "embedded"

    def system(self) -> AbstractAsyncContextManager[System]:
        return self.factory()

    def kill(self) -> None:
        """Nothing here can be killed."""

    def can(self, kind: FaultKind) -> bool:  # noqa: ARG002 - as the protocol has it
        return False

    async def inflict(self, fault: PlannedFault) -> Hit | None:  # noqa: ARG002 - as the protocol has it
        return None

    async def relent(self, fault: PlannedFault) -> None:
        """Nothing was inflicted."""

    def left_over(self) -> tuple[str, ...]:
        return ()
