"""Opening and closing a system: what it is made of, and how it ends whatever happens."""

from __future__ import annotations

import operator
import random
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from types import TracebackType

import trio
from attrs import define, field

from opencode_actors.adapters.engine import open_engine
from opencode_actors.adapters.openclaw_hooks import open_webhook
from opencode_actors.adapters.opencode import HttpOpenCode
from opencode_actors.containers import ModelAccess
from opencode_actors.error_groups import leaves
from opencode_actors.kernel.outbox import Outbox
from opencode_actors.kernel.policies import graces
from opencode_actors.kernel.servers import Connect, Servers
from opencode_actors.kernel.surroundings import Surroundings
from opencode_actors.kernel.system import System
from opencode_actors.machines.matters import Matrix, settings_of
from opencode_actors.machines.vocabulary import Leave
from opencode_actors.ports import Engine, Webhook
from opencode_actors.routes import routes_of
from opencode_actors.settings import Settings
from opencode_actors.store.journal import open_journal
from opencode_actors.store.port import Store
from opencode_actors.workdirs import Directories, HostDirectories

# Beyond the ladder's own graces, for the clean-up of what was just being made.
_SHUTDOWN_MARGIN = 15.0
_CLOSE_SERVERS_WITHIN = 5.0


@asynccontextmanager
async def open_system(
    settings: Settings,
    *,
    access: ModelAccess | None = None,
    engine: Engine | None = None,
    connect: Connect = HttpOpenCode,
    store: Store | None = None,
    directories: Directories | None = None,
    rng: random.Random | None = None,
    wall: Callable[[], float] = time.time,
    notify: bool = False,
    webhook: Webhook | None = None,
    leave: Leave = Leave.FOUND,
) -> AsyncGenerator[System]:
    """A running system. Everything with an outside effect can be given; what is not is the real thing.

    With `notify` the end of each job that it accepts is announced, to a client that attends or to
    OpenClaw's webhook; what an earlier system with it still owed, too. Without, it announces nothing.
    What an earlier system with the same state left is gone on with. Leaving it ends its containers by the
    ladder, within one budget, also when it is left by an exception or a cancellation; `leave` says which jobs
    are left to the next system. Raises `EngineUnavailable` and `StoreError` before anything is started.
    """
    access = access or ModelAccess()
    body = _Body()
    with _plain_errors(body):
        async with AsyncExitStack() as stack:
            if store is None:
                folder = settings.sessions_dir.expanduser()
                store = await stack.enter_async_context(open_journal(folder))
            if engine is None:
                engine = await stack.enter_async_context(
                    open_engine(runtime=settings.runtime, socket=settings.engine_socket)
                )
            if notify and webhook is None:
                webhook = await stack.enter_async_context(open_webhook(settings, wall))
            remembered = await store.load()
            servers = Servers(connect)
            # When the last actor has ended: the jobs that are left go on with their calls until then.
            stack.push_async_callback(_close, servers)
            async with _open_life() as life:
                surroundings = Surroundings(
                    settings=settings,
                    engine=engine,
                    store=store,
                    servers=servers,
                    nursery=life.nursery,
                    rng=rng or random.Random(),  # noqa: S311 - ids and jitter, no secrets
                    wall=wall,
                    notify=notify,
                    matrix=Matrix(settings=settings_of(settings.notify_kinds)).chosen(remembered.choices),
                    routes=routes_of(settings.routes),
                )
                outbox = Outbox(surroundings, webhook) if notify else None
                surroundings.hub.begin(remembered.last_seq)
                system = System(
                    surroundings,
                    owner=remembered.owner,
                    access=access,
                    directories=directories or HostDirectories(settings, access),
                    outbox=outbox,
                )
                await system.take_over(remembered)
                life.nursery.start_soon(system.watch_engine)
                life.nursery.start_soon(system.retain)
                if outbox is not None:
                    life.nursery.start_soon(outbox.run)
                try:
                    with body:
                        yield system
                finally:
                    every = graces(settings)
                    budget = every.stop + every.kill + every.remove + _SHUTDOWN_MARGIN
                    deadline = life.scope.deadline = trio.current_time() + budget
                    with trio.CancelScope(shield=True, deadline=deadline):
                        await system.aclose(leave=leave)


async def _close(servers: Servers) -> None:
    with trio.CancelScope(shield=True, deadline=trio.current_time() + _CLOSE_SERVERS_WITHIN):
        await servers.aclose()


@define(eq=False)
class _Life:
    """The nursery that actors live in. It hears nothing of cancellations from outside: whoever opened it
    sets its end."""

    scope: trio.CancelScope = field(factory=lambda: trio.CancelScope(shield=True))
    began: trio.Event = field(factory=trio.Event)
    _nursery: trio.Nursery | None = None

    @property
    def nursery(self) -> trio.Nursery:
        if self._nursery is None:
            raise RuntimeError("it has not begun")
        return self._nursery

    async def live(self) -> None:
        with self.scope:
            async with trio.open_nursery() as self._nursery:
                self.began.set()
                await trio.sleep_forever()


@asynccontextmanager
async def _open_life() -> AsyncGenerator[_Life]:
    life = _Life()
    async with trio.open_nursery() as nursery:
        # Not `nursery.start`: cancelled in the moment before its task is under way, that one waits for
        # the task to end, which under this shield it would never do.
        nursery.start_soon(life.live)
        try:
            await life.began.wait()
            yield life
        finally:
            life.scope.cancel()


@define(eq=False)
class _Body:
    """Sees what the caller's own block raises."""

    raised: BaseException | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.raised = error


@contextmanager
def _plain_errors(body: _Body) -> Generator[None]:
    """What the caller's block raises is raised as it was, a group of its own included, and any other error
    that is alone in its groups as itself: the nurseries in here are nobody's business.

    Compared are the errors in the groups, because trio's scopes copy the groups that they let through.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        found = leaves(group)
        if body.raised is not None and _are_the_same(found, leaves(body.raised)):
            only = body.raised
        elif len(found) == 1:
            only = found[0]
        else:
            raise
        context = only.__context__
        try:
            raise only
        finally:
            only.__context__ = context


def _are_the_same(one: list[BaseException], other: list[BaseException]) -> bool:
    return len(one) == len(other) and all(map(operator.is_, one, other))
