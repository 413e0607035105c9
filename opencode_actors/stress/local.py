"""The local world: real sockets, HTTP and event streams, the real client and the real journal; no containers.

A container is a fake one with a real HTTP server on a port of its own. Its clock is the machine's, so a run is
not the same twice; what is planned is.
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import trio
from attrs import define

from opencode_actors.adapters.opencode import HttpOpenCode
from opencode_actors.errors import StoreError
from opencode_actors.machines.notices import Notice, Record
from opencode_actors.settings import Settings
from opencode_actors.store.journal import open_journal
from opencode_actors.store.port import Store
from opencode_actors.stress.fake_world import FakeWorld, Weather
from opencode_actors.stress.plan import Plan
from opencode_actors.stress.report import Progress, Report
from opencode_actors.stress.run import run_plan
from opencode_actors.testing.fake_container import FakeContainer
from opencode_actors.testing.fake_engine import FakeEngine
from opencode_actors.testing.fake_opencode import open_fake_servers
from opencode_actors.testing.fake_server import FakeBehaviour
from opencode_actors.testing.http_front import HttpFront


def run_local(plan: Plan, *, watch: Callable[[Progress], None] = lambda _: None) -> Report:
    """Takes as long as the scenario says."""
    return trio.run(_run, plan, watch)


async def _run(plan: Plan, watch: Callable[[Progress], None]) -> Report:
    async with _open_world(plan) as world:
        return await run_plan(world, plan, watch=watch)


@define(eq=False)
class _Switches:
    full: bool = False
    slow: float = 0.0


@asynccontextmanager
async def _open_world(plan: Plan) -> AsyncGenerator[FakeWorld]:
    weather, switches = Weather(), _Switches()
    with TemporaryDirectory(prefix="oa-stress-") as folder:
        base = Settings(
            model="scripted/demo",
            min_free_disk=0,
            sessions_dir=Path(folder) / "s",
            workspaces_dir=Path(folder) / "w",
        )
        settings = plan.scenario.settings_over(base)
        behaviour = FakeBehaviour(script=weather.script, start_up=0.1, wall=weather.wall)
        async with (
            trio.open_nursery() as nursery,
            open_fake_servers(behaviour) as servers,
            open_journal(settings.sessions_dir) as journal,
        ):

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
                rng=random.Random(plan.seed),  # noqa: S311 - the plan's seed
                nursery=nursery,
            )

            def on_start(container: FakeContainer) -> None:
                front = HttpFront(servers)
                if container.run is not None:
                    container.run.port = front.port
                world.on_start(container)
                nursery.start_soon(front.serve)

            world.engine.on_start, world.engine.on_exit = on_start, servers.on_exit
            yield world
            nursery.cancel_scope.cancel()


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
