"""The faults of the fake engine, on virtual time. What it shares with real ones is in the contract tests."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing
from attrs import define, field

from opencode_actors.errors import ContainerMissing, EngineRefused, EngineUnavailable, ImageMissing
from opencode_actors.ports import (
    Container,
    ContainerPhase,
    ContainerSpec,
    Death,
    Engine,
    EngineEventKind,
)
from opencode_actors.testing.fake_container import FakeContainer
from opencode_actors.testing.fake_engine import EVENTS_HELD, FakeEngine

IMAGE = "localhost/opencode-actors:latest"
LABELS = {"owner": "me"}


def _spec(name: str = "a") -> ContainerSpec:
    return ContainerSpec(name=name, image=IMAGE, labels=LABELS, environment={})


async def _run(engine: FakeEngine, name: str = "a") -> Container:
    return await engine.start(await engine.create(_spec(name)))


@define
class World:
    started: list[tuple[str, int | None]] = field(factory=list[tuple[str, int | None]])
    ended: list[tuple[str, Death]] = field(factory=list[tuple[str, Death]])

    def on_start(self, container: FakeContainer) -> None:
        self.started.append((container.name, container.port))

    def on_exit(self, container: FakeContainer, death: Death) -> None:
        self.ended.append((container.name, death))


async def test_a_world_hears_of_each_start_and_end() -> None:
    world = World()
    engine = FakeEngine(world.on_start, world.on_exit)
    container = await _run(engine)
    assert world.started == [("a", container.port)]
    engine.crash("a", exit_code=139)
    again = await engine.start(container.id)
    assert again.port != container.port
    await engine.remove("a")
    assert world.ended == [
        ("a", Death(exit_code=139, oom_killed=False)),
        ("a", Death(exit_code=None, oom_killed=False, removed=True)),
    ]


async def test_refusals_have_no_effect_and_are_counted() -> None:
    engine = FakeEngine()
    engine.refuse("create", EngineRefused("no space left", status=500), times=2)
    for _ in range(2):
        with pytest.raises(EngineRefused, match="no space left"):
            await engine.create(_spec())
    container = await _run(engine)
    engine.images.clear()
    with pytest.raises(ImageMissing):
        await engine.image(IMAGE)
    assert engine.statistics().calls["create"] == 3
    assert ("start", container.id) in engine.calls


async def test_an_engine_that_goes_away_before_it_answers_has_done_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    engine = FakeEngine(start_delay=5.0)
    container = await engine.create(_spec())
    async with trio.open_nursery() as nursery:

        async def start_in_vain() -> None:
            with pytest.raises(EngineUnavailable):
                await engine.start(container)

        nursery.start_soon(start_in_vain)
        await trio.sleep(1)
        engine.go_away()
        engine.come_back()
    assert (await engine.inspect(container)).phase is ContainerPhase.RUNNING


async def test_each_trouble_of_an_engine_ends_by_itself_and_knows_who_met_it() -> None:
    engine = FakeEngine()
    container = await _run(engine)
    first, second = engine.lie("kill"), engine.lie("kill")
    first.over = True
    await engine.kill(container.id)
    assert (await engine.inspect(container.id)).phase is ContainerPhase.RUNNING
    assert (first.met, second.met) == (0, 1)
    second.over = True
    await engine.kill(container.id)
    assert (await engine.inspect(container.id)).phase is ContainerPhase.EXITED
    refusal = engine.refuse("stop", EngineRefused("no", status=500), times=9)
    refusal.over = True
    await engine.stop(container.id, grace=1.0)
    assert refusal.met == 0


async def test_an_engine_goes_away_and_comes_back_and_its_containers_live_on() -> None:
    engine = FakeEngine()
    container = await _run(engine)
    async with engine.events(LABELS) as events:
        engine.go_away()
        with pytest.raises(EngineUnavailable):
            await anext(events)
    with pytest.raises(EngineUnavailable):
        await engine.inspect(container.id)
    engine.come_back()
    assert await engine.inspect(container.id) == container


async def test_a_death_while_the_engine_is_away_is_told_without_its_cause(
    autojump_clock: trio.testing.MockClock,
) -> None:
    engine = FakeEngine()
    deaths: list[tuple[float, Death]] = []
    begun = trio.current_time()

    async def wait(container: Container) -> None:
        death = await engine.wait_exit(container)
        deaths.append((trio.current_time() - begun, death))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, await _run(engine, "a"))
        await trio.testing.wait_all_tasks_blocked()
        engine.go_away()
        engine.crash("a")
        await trio.sleep(10)
        engine.come_back()
        nursery.start_soon(wait, await _run(engine, "b"))
        await trio.testing.wait_all_tasks_blocked()
        engine.go_away()
        engine.crash("b")
        await trio.sleep(2)
        engine.come_back()
    assert deaths == [
        (5.0, Death(exit_code=None, oom_killed=False)),
        (12.0, Death(exit_code=1, oom_killed=False)),
    ]


async def test_slow_calls_have_their_effect_at_once(autojump_clock: trio.testing.MockClock) -> None:
    engine = FakeEngine(start_delay=3.0)
    engine.delay("create", math.inf)
    with trio.move_on_after(2):
        await engine.create(_spec())
    assert [found.name for found in await engine.list(LABELS)] == ["a"]
    engine.be_honest()
    begun = trio.current_time()
    with trio.move_on_after(1):
        await engine.start(engine.find("a").id)
    assert trio.current_time() - begun == 1
    assert (await engine.inspect("a")).phase is ContainerPhase.RUNNING


async def test_a_lying_kill_answers_and_kills_nothing() -> None:
    engine = FakeEngine()
    container = await _run(engine)
    for verb in ("stop", "kill", "remove"):
        engine.lie(verb)
    await engine.stop(container.id, grace=1)
    await engine.kill(container.id)
    await engine.remove(container.id)
    assert (await engine.inspect(container.id)).phase is ContainerPhase.RUNNING
    engine.be_honest()
    await engine.kill(container.id)
    assert (await engine.wait_exit(container)).exit_code == 137


async def test_a_frozen_one_runs_on_and_only_sigkill_ends_it(autojump_clock: trio.testing.MockClock) -> None:
    engine = FakeEngine()
    container = await _run(engine)
    engine.find("a").set_cpu_load(0.5)
    await trio.sleep(2)
    engine.freeze("a")
    await trio.sleep(2)
    assert (await engine.inspect("a")).phase is ContainerPhase.RUNNING
    assert (await engine.usage(container)).cpu_seconds == 1.0
    await engine.kill(container.id, signal="SIGTERM")
    begun = trio.current_time()
    await engine.stop(container.id, grace=7)
    assert trio.current_time() - begun == 7
    assert await engine.wait_exit(container) == Death(exit_code=137, oom_killed=False)


async def test_a_thawed_one_goes_on(autojump_clock: trio.testing.MockClock) -> None:
    engine = FakeEngine()
    container = await _run(engine)
    engine.find("a").set_cpu_load(1.0)
    engine.freeze("a")
    await trio.sleep(5)
    engine.thaw("a")
    await trio.sleep(1)
    assert (await engine.usage(container)).cpu_seconds == 1.0


@pytest.mark.parametrize(("takes", "grace", "exit_code", "seconds"), [(2, 5, 143, 2), (5, 2, 137, 2)])
async def test_stop_takes_what_the_container_takes_within_its_grace(
    autojump_clock: trio.testing.MockClock, takes: float, grace: float, exit_code: int, seconds: float
) -> None:
    engine = FakeEngine()
    container = await _run(engine)
    engine.find("a").sigterm_takes = takes
    begun = trio.current_time()
    await engine.stop(container.id, grace=grace)
    assert trio.current_time() - begun == seconds
    assert (await engine.inspect("a")).exit_code == exit_code


@pytest.mark.parametrize("told", [False, True])
async def test_want_of_memory_is_told_as_the_engine_at_hand_does(told: bool) -> None:  # noqa: FBT001
    engine = FakeEngine(oom_events=told)
    container = await _run(engine)
    async with engine.events(LABELS) as events:
        engine.crash("a", oom=True)
        kinds = [(await anext(events)).kind for _ in range(2 if told else 1)]
    assert kinds == ([EngineEventKind.OOM] if told else []) + [EngineEventKind.DIED]
    assert await engine.wait_exit(container) == Death(exit_code=137, oom_killed=True)


async def test_swallowed_events_reach_nobody() -> None:
    engine = FakeEngine()
    async with engine.events(LABELS) as events:
        engine.swallow_events()
        await _run(engine)
        engine.swallow_events(swallow=False)
        engine.crash("a")
        assert (await anext(events)).kind is EngineEventKind.DIED


async def test_a_subscriber_that_does_not_read_is_cut_off() -> None:
    engine = FakeEngine()
    container = await _run(engine)
    async with engine.events(LABELS) as events:
        for _ in range(EVENTS_HELD):
            await engine.kill(container.id)
            await engine.start(container.id)
        assert engine.statistics().streams == 0
        for _ in range(EVENTS_HELD):
            await anext(events)
        with pytest.raises(EngineUnavailable):
            await anext(events)


async def test_a_broken_stream_is_not_a_broken_engine() -> None:
    engine = FakeEngine()
    async with engine.events(LABELS) as events:
        engine.break_streams()
        with pytest.raises(EngineUnavailable):
            await anext(events)
    assert await engine.list(LABELS) == ()


async def test_it_is_an_engine_and_tells_its_state() -> None:
    engine = FakeEngine()
    await _run(engine, "a")
    port: Engine = engine
    assert (await port.info()).version
    statistics = engine.statistics()
    assert (statistics.containers, statistics.running) == (1, 1)
    assert "a" in repr(engine)
    with pytest.raises(ContainerMissing):
        engine.crash("nobody")
    await port.aclose()


async def test_a_refusal_keeps_nobody_alive_that_it_was_told_to(
    autojump_clock: trio.testing.MockClock,
) -> None:
    engine = FakeEngine()
    refused = EngineRefused("no space left", status=507, hint="make room")
    engine.refuse("list", refused, times=2)
    told: list[EngineRefused] = []
    for _ in range(2):
        with pytest.raises(EngineRefused, match="no space left") as raised:
            await engine.list({})
        told.append(raised.value)
    assert [(error.message, error.status, error.hint) for error in told] == [
        ("no space left", 507, "make room")
    ] * 2
    assert refused.__traceback__ is None
    assert told[0] is not told[1]
