"""Opening and closing a system: what it is made of, and how it ends whatever happens."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import trio

from opencode_actors.adapters.engine import open_engine
from opencode_actors.adapters.opencode import HttpOpenCode
from opencode_actors.containers import ModelAccess
from opencode_actors.error_groups import only_error
from opencode_actors.kernel.policies import graces
from opencode_actors.kernel.servers import Connect, Servers
from opencode_actors.kernel.system import System
from opencode_actors.ports import Engine
from opencode_actors.settings import Settings
from opencode_actors.store.journal import open_journal
from opencode_actors.store.port import Store
from opencode_actors.workdirs import MakeDirectories, make_directories

# Beyond the ladder's own graces, for the clean-up of what was just being made.
_SHUTDOWN_MARGIN = 15.0


@asynccontextmanager
async def open_system(
    settings: Settings,
    *,
    access: ModelAccess | None = None,
    engine: Engine | None = None,
    connect: Connect = HttpOpenCode,
    store: Store | None = None,
    directories: MakeDirectories = make_directories,
    rng: random.Random | None = None,
    wall: Callable[[], float] = time.time,
) -> AsyncGenerator[System]:
    """A running system. Everything with an outside effect can be given; what is not is the real thing.

    Leaving it ends every container by the ladder, within one budget, also when it is left by an
    exception or a cancellation. Raises `EngineUnavailable` and `StoreError` before anything is started.
    """
    async with plain_errors(), AsyncExitStack() as stack:
        if store is None:
            folder = settings.sessions_dir.expanduser()
            store = await stack.enter_async_context(open_journal(folder))
        if engine is None:
            engine = await stack.enter_async_context(
                open_engine(runtime=settings.runtime, socket=settings.engine_socket)
            )
        remembered = await store.load()
        async with trio.open_nursery() as outer:
            # The actors outlive a cancellation of the body by the time that shutting down takes.
            life = trio.CancelScope(shield=True)
            nursery: trio.Nursery = await outer.start(_hold_nursery, life)
            system = System(
                settings=settings,
                access=access or ModelAccess(),
                engine=engine,
                store=store,
                servers=Servers(connect),
                directories=directories,
                owner=remembered.owner,
                nursery=nursery,
                rng=rng or random.Random(),  # noqa: S311 - ids and jitter, no secrets
                wall=wall,
                conversations=dict(remembered.conversations),
            )
            try:
                await system.recover(remembered.unsettled)
                yield system
            finally:
                every = graces(settings)
                budget = every.stop + every.kill + every.remove + _SHUTDOWN_MARGIN
                life.deadline = trio.current_time() + budget
                with trio.CancelScope(shield=True, deadline=life.deadline):
                    await system.aclose()
                life.cancel()


async def _hold_nursery(life: trio.CancelScope, *, task_status: trio.TaskStatus[trio.Nursery]) -> None:
    with life:
        async with trio.open_nursery() as nursery:
            task_status.started(nursery)
            await trio.sleep_forever()


@asynccontextmanager
async def plain_errors() -> AsyncGenerator[None]:
    """An error that is alone in its groups is raised as itself: the nurseries in here are our own business."""
    try:
        yield
    except BaseExceptionGroup as group:
        only = only_error(group)
        if only is None:
            raise
        raise only from only.__cause__
