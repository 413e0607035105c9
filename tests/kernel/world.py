"""A system in a world of fakes, on virtual time: engine, servers and store in memory."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import trio
from attrs import evolve, frozen

from opencode_actors import Settings, System, open_system
from opencode_actors.containers import SessionPlace
from opencode_actors.testing.fake_engine import FakeEngine
from opencode_actors.testing.fake_opencode import FakeServers, open_fake_servers
from opencode_actors.testing.fake_server import FakeBehaviour
from opencode_actors.testing.memory_store import MemoryStore

SETTINGS = Settings(model="scripted/demo")


@frozen
class World:
    engine: FakeEngine
    servers: FakeServers
    store: MemoryStore
    base: Path

    @asynccontextmanager
    async def system(self, settings: Settings = SETTINGS) -> AsyncGenerator[System]:
        places = evolve(
            settings, sessions_dir=self.base / "sessions", workspaces_dir=self.base / "workspaces"
        )
        async with open_system(
            places,
            engine=self.engine,
            connect=self.servers.connect,
            store=self.store,
            directories=_directories,
            rng=random.Random(4711),
            wall=lambda: 1_760_000_000.0 + trio.current_time(),
        ) as system:
            yield system


async def _directories(place: SessionPlace, owner: tuple[int, int], auth_file: Path | None) -> None:
    """Without the thread that the real one has: threads take real time."""
    del owner, auth_file
    for folder in (place.data, place.workspace):
        folder.mkdir(parents=True, exist_ok=True)
    await trio.lowlevel.checkpoint()


@asynccontextmanager
async def open_world(behaviour: FakeBehaviour | None = None) -> AsyncGenerator[World]:
    with TemporaryDirectory() as base:
        async with open_fake_servers(behaviour) as servers:
            engine = FakeEngine(on_start=servers.on_start, on_exit=servers.on_exit)
            yield World(engine, servers, MemoryStore(), Path(base))
