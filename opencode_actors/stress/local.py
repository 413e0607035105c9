"""The local world: real sockets, HTTP, event streams and websockets, the real clients, journal and front door; no
containers.

A container is a fake one with a real HTTP server on a port of its own. Its clock is the machine's, so a run is
not the same twice; what is planned is.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import trio
from attrs import define, field

from opencode_actors.adapters.openclaw_hooks import HttpWebhook
from opencode_actors.adapters.opencode import HttpOpenCode
from opencode_actors.door.client import Client, connect
from opencode_actors.door.files import Whereabouts
from opencode_actors.door.limits import KIB, Limits
from opencode_actors.door.methods import SystemDesk
from opencode_actors.door.results import About
from opencode_actors.door.serving import Address, open_door
from opencode_actors.error_groups import leaves
from opencode_actors.errors import StoreError
from opencode_actors.kernel.system import System
from opencode_actors.machines.vocabulary import Failure
from opencode_actors.ports import EngineInfo
from opencode_actors.settings import Settings
from opencode_actors.store.journal import open_journal
from opencode_actors.store.port import Store
from opencode_actors.stress.deaf import be_deaf
from opencode_actors.stress.door_face import open_face
from opencode_actors.stress.fake_faults import FakeFaults
from opencode_actors.stress.fake_world import ENDS_CHILDREN, FakeWorld
from opencode_actors.stress.plan import Plan
from opencode_actors.stress.processes import held
from opencode_actors.stress.receiver import Overheard, Receiver, serve_receiver
from opencode_actors.stress.report import Progress, Report
from opencode_actors.stress.run import run_plan
from opencode_actors.stress.weather import Outside, Weather
from opencode_actors.stress.wire import Wire
from opencode_actors.stress.worlds import Live
from opencode_actors.testing.fake_container import FakeContainer
from opencode_actors.testing.fake_engine import FakeEngine
from opencode_actors.testing.fake_opencode import open_fake_servers
from opencode_actors.testing.fake_server import FakeBehaviour
from opencode_actors.testing.http_front import HttpFront

_log = logging.getLogger("opencode_actors")

# A door that ends waits up to 5 s for a frame that nobody reads: a service of a second or two would be most of that.
_DEAF_AFTER = 2.0
_TOKEN = "no-secret-of-anybody"  # noqa: S105 - of a door on loopback, for seconds


def run_local(plan: Plan, *, watch: Callable[[Progress], None] = lambda _: None) -> Report:
    """Takes as long as the scenario says."""
    return trio.run(_run, plan, watch)


async def _run(plan: Plan, watch: Callable[[Progress], None]) -> Report:
    await trio.to_thread.run_sync(int)  # trio keeps what it needs for threads
    before = held()
    async with _open_world(plan) as world:
        report = await run_plan(world, plan, watch=watch)
    after = held()
    return report if after == before else report.leaving(f"{before} before, {after} after")


@define(eq=False)
class _Disk:
    """Writes to a journal go through it: it may be slow or full."""

    full: bool = False
    slow: float = 0.0
    late: float = 0.0
    felt: Counter[str] = field(factory=Counter[str])

    async def through(
        self, name: str, call: Callable[..., Awaitable[Any]], *arguments: object, **named: object
    ) -> Any:
        if name != "append":
            return await call(*arguments, **named)
        self.felt["slow"] += 1
        await trio.sleep(self.slow)
        if self.full:
            self.felt["full"] += 1
            raise StoreError("the disk is full, as the scenario wants it")
        answer = await call(*arguments, **named)
        await trio.sleep(self.late)
        return answer


@asynccontextmanager
async def _open_world(plan: Plan) -> AsyncGenerator[FakeWorld]:
    weather, disk, receiver = Weather(slow=1.0), _Disk(), Receiver(_TOKEN)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    with TemporaryDirectory(prefix="oa-stress-") as folder:
        base = Settings(
            model="scripted/demo",
            min_free_disk=0,
            sessions_dir=Path(folder) / "s",
            workspaces_dir=Path(folder) / "w",
            notify_webhook_url=f"http://127.0.0.1:{listener.socket.getsockname()[1]}/hooks/agent",
            hooks_token=_TOKEN,
            notify_timeout=2.0,
        )
        settings = plan.scenario.settings_over(base)
        behaviour = FakeBehaviour(
            script=weather.script, start_up=0.1, ends_children=ENDS_CHILDREN, wall=weather.wall
        )
        async with open_journal(settings.sessions_dir) as journal:
            owner = (await journal.load()).owner

        @asynccontextmanager
        async def open_store(wire: Wire) -> AsyncGenerator[Store]:
            with _alone():
                async with open_journal(settings.sessions_dir) as journal:
                    yield wire.over(journal, through=disk.through)

        async with trio.open_nursery() as nursery, open_fake_servers(behaviour) as servers:
            webhook = HttpWebhook(token=_TOKEN, within=settings.notify_timeout, wall=weather.wall)
            nursery.start_soon(serve_receiver, receiver, listener)
            faults = FakeFaults(
                engine=FakeEngine(),
                servers=servers,
                disk=disk,
                outside=Outside(weather, receiver),
                owner=owner,
                nursery=nursery,
                largest_step=5.0,
                loses_for=0.5,
            )

            def on_start(container: FakeContainer) -> None:
                front = HttpFront(servers)
                if container.run is not None:
                    container.run.port = front.port
                faults.on_start(container)
                nursery.start_soon(front.serve)

            faults.engine.on_start, faults.engine.on_exit = on_start, servers.on_exit
            engine, held_on = await faults.engine.info(), list[str]()
            yield FakeWorld(
                name="local",
                settings=settings,
                faults=faults,
                connect=HttpOpenCode,
                open_store=open_store,
                directories=None,
                webhook=Overheard(webhook, receiver, settings.notify_timeout),
                rng=random.Random(plan.seed),  # noqa: S311 - the plan's seed
                enter=partial(_through_the_door, engine, held_on),
                held_on=held_on,
                late=0.3,
            )
            await webhook.aclose()
            nursery.cancel_scope.cancel()


@contextmanager
def _alone() -> Generator[None]:
    """An error that is alone in the groups of the journal's nursery is raised as itself: a system that opens its
    journal itself does the same."""
    try:
        yield
    except ExceptionGroup as group:
        found = leaves(group)
        if len(found) > 1:
            raise
        raise found[0] from None


@asynccontextmanager
async def _through_the_door(engine: EngineInfo, held_on: list[str], system: System) -> AsyncGenerator[Live]:
    """As `serve` opens it, which has asked its `engine` before, but for the files that say where it is. `held_on` is
    told what its door does not let go of."""
    # Less than usual of what waits for a client that does not read: that is soon reached.
    limits = Limits(backlog=512 * KIB)
    async with trio.open_nursery() as nursery:
        about = About(
            version=version("opencode-actors"),
            pid=os.getpid(),
            started_at=time.time(),
            engine=engine,
        )
        desk = SystemDesk(system, about, limits, _explained, nursery)
        address = Address(host="127.0.0.1", port=0)
        async with open_door(address, desk, token=_TOKEN, report=_bug, limits=limits) as door:
            where = Whereabouts(
                url=door.url,
                token_file=Path(os.devnull),
                pid=about.pid,
                version=about.version,
                started_at=about.started_at,
            )
            connecting: Callable[[], AbstractAsyncContextManager[Client]] = partial(connect, where, _TOKEN)
            async with open_face(connecting, inside=system) as live, trio.open_nursery() as beside:
                beside.start_soon(_try_deaf, door.url, held_on)
                yield live
                beside.cancel_scope.cancel()
        nursery.cancel_scope.cancel()


async def _try_deaf(url: str, held_on: list[str]) -> None:
    await trio.sleep(_DEAF_AFTER)
    wrong = await be_deaf(url, _TOKEN)
    if wrong is not None:
        held_on.append(wrong)


def _explained(failure: Failure) -> tuple[str, str]:
    return failure.message, ""


def _bug(error: BaseException) -> str | None:
    """The run hears of it by the log."""
    _log.error("a bug ended a call", exc_info=error)
    return None
