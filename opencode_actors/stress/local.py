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
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import trio
from attrs import define

from opencode_actors.adapters.openclaw_hooks import HttpWebhook
from opencode_actors.adapters.opencode import HttpOpenCode
from opencode_actors.door.client import Client, connect
from opencode_actors.door.files import Whereabouts
from opencode_actors.door.limits import Limits
from opencode_actors.door.methods import SystemDesk
from opencode_actors.door.results import About
from opencode_actors.door.serving import Address, open_door
from opencode_actors.errors import StoreError
from opencode_actors.kernel.system import System
from opencode_actors.machines.notices import Notice, Record
from opencode_actors.machines.vocabulary import Failure
from opencode_actors.settings import Settings
from opencode_actors.store.journal import open_journal
from opencode_actors.store.port import Store
from opencode_actors.stress.door_face import open_face
from opencode_actors.stress.fake_world import FakeWorld, Weather
from opencode_actors.stress.plan import Plan
from opencode_actors.stress.processes import held
from opencode_actors.stress.receiver import Receiver, serve_receiver
from opencode_actors.stress.report import Progress, Report
from opencode_actors.stress.run import run_plan
from opencode_actors.stress.worlds import Live
from opencode_actors.testing.fake_container import FakeContainer
from opencode_actors.testing.fake_engine import FakeEngine
from opencode_actors.testing.fake_opencode import open_fake_servers
from opencode_actors.testing.fake_server import FakeBehaviour
from opencode_actors.testing.http_front import HttpFront

_log = logging.getLogger("opencode_actors")

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
class _Switches:
    full: bool = False
    slow: float = 0.0


@asynccontextmanager
async def _open_world(plan: Plan) -> AsyncGenerator[FakeWorld]:
    weather, switches, receiver = Weather(slow=1.0), _Switches(), Receiver(_TOKEN)
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
        behaviour = FakeBehaviour(script=weather.script, start_up=0.1, wall=weather.wall)
        async with (
            trio.open_nursery() as nursery,
            open_fake_servers(behaviour) as servers,
            open_journal(settings.sessions_dir) as journal,
        ):
            webhook = HttpWebhook(token=_TOKEN, within=settings.notify_timeout, wall=weather.wall)
            nursery.start_soon(serve_receiver, receiver, listener)

            @asynccontextmanager
            async def open_store() -> AsyncGenerator[Store]:
                yield _troubled(journal, switches)

            world = FakeWorld(
                name="local",
                settings=settings,
                owner=(await journal.load()).owner,
                weather=weather,
                engine=FakeEngine(),
                servers=servers,
                connect=HttpOpenCode,
                open_store=open_store,
                disk=switches,
                directories=None,
                receiver=receiver,
                webhook=webhook,
                rng=random.Random(plan.seed),  # noqa: S311 - the plan's seed
                nursery=nursery,
                enter=_through_the_door,
                largest_step=5.0,
                late=0.3,
            )

            def on_start(container: FakeContainer) -> None:
                front = HttpFront(servers)
                if container.run is not None:
                    container.run.port = front.port
                world.on_start(container)
                nursery.start_soon(front.serve)

            world.engine.on_start, world.engine.on_exit = on_start, servers.on_exit
            yield world
            await webhook.aclose()
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def _through_the_door(system: System) -> AsyncGenerator[Live]:
    """As `serve` opens it, but for the files that say where it is."""
    limits = Limits()
    async with trio.open_nursery() as nursery:
        about = About(
            version=version("opencode-actors"),
            pid=os.getpid(),
            started_at=time.time(),
            engine=await system.engine.info(),
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
            async with open_face(connecting, inside=system) as live:
                yield live
        nursery.cancel_scope.cancel()


def _explained(failure: Failure) -> tuple[str, str]:
    return failure.message, ""


def _bug(error: BaseException) -> str | None:
    """The run hears of it by the log."""
    _log.error("a bug ended a call", exc_info=error)
    return None


class _Troubled:
    """A journal on a disk that is slow or full when it is told to be."""

    def __init__(self, store: Store, switches: _Switches) -> None:
        self._store, self._switches = store, switches

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def append(
        self, records: tuple[Record, ...], notices: tuple[Notice, ...] = (), *, at: float = 0.0
    ) -> None:
        await trio.sleep(self._switches.slow)
        if self._switches.full:
            raise StoreError("the disk is full, as the scenario wants it")
        await self._store.append(records, notices, at=at)


def _troubled(store: Store, switches: _Switches) -> Store:
    return cast(Store, _Troubled(store, switches))
