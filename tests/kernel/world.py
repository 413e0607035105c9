"""A system in a world of fakes, on virtual time: engine, servers and store in memory."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import trio
from attrs import define, evolve, field, frozen

from opencode_actors import Job, Leave, Settings, System, open_system
from opencode_actors.machines.notices import Notice, OutputAdded
from opencode_actors.ports import ContainerId, ContainerSpec, Webhook
from opencode_actors.testing.fake_directories import FakeDirectories
from opencode_actors.testing.fake_engine import FakeEngine
from opencode_actors.testing.fake_opencode import FakeServers, open_fake_servers
from opencode_actors.testing.fake_server import FakeBehaviour
from opencode_actors.testing.memory_store import MemoryStore

from .killing import Cable

SETTINGS = Settings(model="scripted/demo")


@define(eq=False)
class SlowEngine(FakeEngine):
    """Makes a container only at the end of the time that creating one takes: who looks before sees none."""

    creating_takes: float = 0.0

    async def create(self, spec: ContainerSpec) -> ContainerId:
        await trio.sleep(self.creating_takes)
        return await super().create(spec)


@frozen
class World:
    engine: SlowEngine
    servers: FakeServers
    store: MemoryStore
    base: Path
    rng: random.Random
    directories: FakeDirectories = field(factory=FakeDirectories)

    def check_nothing_is_left(self) -> None:
        assert not self.engine.containers
        assert self.engine.statistics().streams == 0
        unsettled = [job for job in self.store.jobs() if not job.settled]
        assert not unsettled

    @asynccontextmanager
    async def system(
        self,
        settings: Settings = SETTINGS,
        *,
        webhook: Webhook | None = None,
        notify: bool = False,
        leave: Leave = Leave.FOUND,
        through: Cable | None = None,
        ahead: Callable[[], float] = lambda: 0.0,
    ) -> AsyncGenerator[System]:
        places = evolve(
            settings, sessions_dir=self.base / "sessions", workspaces_dir=self.base / "workspaces"
        )
        cable = through or Cable()
        async with open_system(
            places,
            engine=cable.through(self.engine),
            connect=lambda endpoint: cable.through(self.servers.connect(endpoint)),
            store=cable.through(self.store),
            directories=self.directories,
            rng=self.rng,
            wall=lambda: 1_760_000_000.0 + ahead() + trio.current_time(),
            notify=notify or webhook is not None,
            webhook=webhook,
            leave=leave,
        ) as system:
            yield system


@asynccontextmanager
async def open_world(behaviour: FakeBehaviour | None = None) -> AsyncGenerator[World]:
    with TemporaryDirectory() as base:
        async with open_fake_servers(behaviour) as servers:
            engine = SlowEngine(on_start=servers.on_start, on_exit=servers.on_exit)
            world = World(engine, servers, MemoryStore(), Path(base), random.Random(4711))
            world.directories.copied = lambda source, target: servers.copy_disk(str(source), str(target))
            yield world


# ---- what a test waits for


async def until(system: System, job: Job, kind: type[Notice]) -> None:
    """Until it tells of such a thing; one that ends first never will."""
    async for notice in system.follow(job.id):
        if isinstance(notice, kind):
            return
    raise AssertionError(f"job {job.id} told of no {kind.__name__}")


async def begun(system: System, prompt: str = "::say begun\n::hang", *, session: str = "demo") -> Job:
    """One that has said something."""
    job = await system.start(prompt, session=session)
    await until(system, job, OutputAdded)
    return job
