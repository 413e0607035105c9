"""The virtual world: engine, servers, journal and clocks in memory; hours in seconds, the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import trio
import trio._core._run as trio_run
import trio.testing

from opencode_actors.settings import Settings
from opencode_actors.store.port import Store
from opencode_actors.stress.fake_faults import FakeFaults
from opencode_actors.stress.fake_world import ENDS_CHILDREN, FakeWorld
from opencode_actors.stress.plan import Plan
from opencode_actors.stress.processes import held
from opencode_actors.stress.receiver import Receiver, ReceiverPort
from opencode_actors.stress.report import Progress, Report
from opencode_actors.stress.run import run_plan
from opencode_actors.stress.weather import Outside, Weather
from opencode_actors.stress.wire import Wire
from opencode_actors.testing.fake_directories import FakeDirectories
from opencode_actors.testing.fake_engine import FakeEngine
from opencode_actors.testing.fake_opencode import CALL_WITHIN, open_fake_servers
from opencode_actors.testing.fake_server import FakeBehaviour
from opencode_actors.testing.memory_store import MemoryStore

# As long as the real ones take, on average.
START_UP = 1.2
CALL_TAKES = 0.01
WRITE_TAKES = 0.002


def run_virtual(plan: Plan, *, watch: Callable[[Progress], None] = lambda _: None) -> Report:
    """Not from within trio: the run has a clock of its own."""
    with _scheduled_by(plan.seed):
        return trio.run(_run, plan, watch, clock=trio.testing.MockClock(autojump_threshold=0))


async def _run(plan: Plan, watch: Callable[[Progress], None]) -> Report:
    before = held()
    async with _open_world(plan) as world:
        report = await run_plan(world, plan, watch=watch)
    after = held()
    return report if after == before else report.leaving(f"{before} before, {after} after")


@contextmanager
def _scheduled_by(seed: int) -> Generator[None]:
    """Which of the tasks that could run runs first is chance in trio. The switch that it has for Hypothesis lets
    them be shuffled by a generator of trio's own, which is seeded here: without it no run could be had again."""
    switch, generator = "_ALLOW_DETERMINISTIC_SCHEDULING", trio_run._r  # noqa: SLF001 - there is no public one
    was, state = getattr(trio_run, switch), generator.getstate()
    setattr(trio_run, switch, True)
    generator.seed(seed)
    try:
        yield
    finally:
        setattr(trio_run, switch, was)
        generator.setstate(state)


@asynccontextmanager
async def _open_world(plan: Plan) -> AsyncGenerator[FakeWorld]:
    weather, receiver = Weather(), Receiver(slow=5.0)
    store = MemoryStore(slow=WRITE_TAKES, late=WRITE_TAKES)

    @asynccontextmanager
    async def open_store(wire: Wire) -> AsyncGenerator[Store]:
        yield wire.over(store)

    with TemporaryDirectory(prefix="oa-stress-") as folder:
        rng = random.Random(plan.seed)  # noqa: S311 - it has to be had again
        behaviour = FakeBehaviour(
            script=weather.script,
            start_up=START_UP,
            ends_children=ENDS_CHILDREN,
            wall=weather.wall,
            takes=lambda: rng.expovariate(1 / CALL_TAKES),
            answers=lambda: rng.expovariate(1 / CALL_TAKES),
        )
        async with trio.open_nursery() as nursery, open_fake_servers(behaviour) as servers:
            engine = FakeEngine(start_delay=0.3)
            base = Settings(
                model="scripted/demo", sessions_dir=Path(folder) / "s", workspaces_dir=Path(folder) / "w"
            )
            faults = FakeFaults(
                engine=engine,
                servers=servers,
                disk=store,
                outside=Outside(weather, receiver),
                owner=store.owner,
                nursery=nursery,
                largest_step=3600.0,
                loses_for=1.5 * CALL_WITHIN,  # so that some have no answer, and some a broken connection
            )
            engine.on_start, engine.on_exit = faults.on_start, servers.on_exit
            yield FakeWorld(
                name="virtual",
                settings=plan.scenario.settings_over(base),
                faults=faults,
                connect=servers.connect,
                open_store=open_store,
                directories=FakeDirectories(),
                webhook=ReceiverPort(receiver, base.notify_timeout),
                rng=rng,
            )
            nursery.cancel_scope.cancel()
