"""What every engine does, real or not: the contract of the `Engine` port."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
import trio
import trio.testing
from attrs import evolve

from opencode_actors.errors import ContainerMissing, EngineRefused, ImageMissing
from opencode_actors.ports import (
    Container,
    ContainerId,
    ContainerPhase,
    Death,
    EngineEvent,
    EngineEventKind,
    Mount,
)

from .engines import Bench, Program, within

NO_SUCH = ContainerId("oa-test-no-such-container")


# ---- the engine and its images


@within()
async def test_an_engine_says_what_it_is_and_can_enforce(bench: Bench) -> None:
    info = await bench.engine.info()
    assert info.kind is bench.kind
    assert info.version
    assert info.cgroup_version in (1, 2)
    # What cannot be enforced is said, and nothing else is: rootless on cgroup v1.
    assert info.memory_enforced is info.pids_enforced is not (info.rootless and info.cgroup_version == 1)


@within()
async def test_an_image_is_described(bench: Bench) -> None:
    image = await bench.engine.image(bench.image)
    assert image.reference == bench.image
    assert image.size_bytes > 0
    assert image.architecture
    assert len(image.id) == 64


@within()
async def test_a_missing_image_is_named_with_the_way_out(bench: Bench) -> None:
    spec = evolve(bench.spec(), image="localhost/oa-test-no-such-image:1")
    with pytest.raises(ImageMissing, match="localhost/oa-test-no-such-image:1") as looking:
        await bench.engine.image(spec.image)
    with pytest.raises(ImageMissing, match="localhost/oa-test-no-such-image:1"):
        await bench.engine.create(spec)
    assert looking.value.hint
    assert await bench.engine.list(bench.label) == ()


# ---- life


@within()
async def test_a_life_from_creation_to_removal(bench: Bench) -> None:
    spec = bench.spec()
    identity = await bench.engine.create(spec)
    created = await bench.engine.inspect(identity)
    assert (created.phase, created.pid, created.port) == (ContainerPhase.CREATED, 0, None)

    running = await bench.engine.start(identity)
    assert running.phase is ContainerPhase.RUNNING
    assert running.pid > 0
    assert running.port is not None
    assert 1024 < running.port < 65536
    assert (running.id, running.name, running.image) == (identity, spec.name, bench.image)
    assert bench.label.items() <= running.labels.items()
    assert await bench.engine.inspect(spec.name) == running

    await bench.wait_said(running, "ready")
    await bench.engine.stop(identity, grace=10)
    stopped = await bench.engine.inspect(identity)
    assert (stopped.phase, stopped.exit_code, stopped.pid) == (ContainerPhase.EXITED, 143, 0)

    again = await bench.engine.start(identity)
    assert again.phase is ContainerPhase.RUNNING
    assert again.pid not in (0, running.pid)
    assert again.port is not None

    await bench.engine.remove(identity)
    with pytest.raises(ContainerMissing, match=identity):
        await bench.engine.inspect(identity)


@within()
async def test_what_holds_already_is_no_error(bench: Bench) -> None:
    running = await bench.run()
    assert await bench.engine.start(running.id) == running
    await bench.engine.kill(running.id)
    await bench.engine.wait_exit(running)
    await bench.engine.kill(running.id)
    await bench.engine.stop(running.id, grace=1)
    await bench.engine.remove(running.id)
    await bench.engine.remove(running.id)
    await bench.engine.remove(running.name)
    await bench.engine.remove(NO_SUCH)


@within()
async def test_one_that_was_never_started_is_stopped_killed_and_removed(bench: Bench) -> None:
    identity = await bench.engine.create(bench.spec())
    await bench.engine.stop(identity, grace=1)
    await bench.engine.kill(identity)
    with pytest.raises(EngineRefused, match="never started"):
        await bench.engine.wait_exit(await bench.engine.inspect(identity))
    await bench.engine.remove(bench.spec().name)
    assert await bench.engine.list(bench.label) == ()


@within()
async def test_a_name_in_use_is_a_conflict(bench: Bench) -> None:
    first = await bench.engine.create(bench.spec())
    with pytest.raises(EngineRefused, match=bench.spec().name) as refused:
        await bench.engine.create(bench.spec())
    assert refused.value.status == 409
    assert [found.id for found in await bench.engine.list(bench.label)] == [first]


@within()
async def test_what_is_mounted_must_exist(bench: Bench, tmp_path: Path) -> None:
    mounts = (Mount(source=tmp_path / "nothing here", target="/out"),)
    with pytest.raises(EngineRefused, match="nothing here") as refused:
        await bench.engine.create(evolve(bench.spec(), mounts=mounts))
    assert refused.value.status == 400
    assert not (tmp_path / "nothing here").exists()


@within()
async def test_a_missing_container_is_named(bench: Bench) -> None:
    engine = bench.engine
    for call in (
        engine.inspect(NO_SUCH),
        engine.start(NO_SUCH),
        engine.stop(NO_SUCH, grace=1),
        engine.kill(NO_SUCH),
        engine.pause(NO_SUCH),
        engine.unpause(NO_SUCH),
    ):
        with pytest.raises(ContainerMissing, match=NO_SUCH):
            await call


@pytest.mark.usefixtures("limits")
@within()
async def test_a_paused_one_is_stopped_with_its_grace_killed_and_removed(bench: Bench) -> None:
    container = await bench.run()
    # An init that has not begun yet ignores what it is to hand on, as process 1 of a container does.
    await bench.wait_said(container, "ready")
    await bench.engine.pause(container.id)
    assert (await bench.engine.inspect(container.id)).phase is ContainerPhase.PAUSED
    await bench.engine.unpause(container.id)
    assert (await bench.engine.inspect(container.id)) == container
    await bench.engine.pause(container.id)
    await bench.engine.stop(container.id, grace=10)
    assert await bench.engine.wait_exit(container) == Death(exit_code=143, oom_killed=False)

    container = await bench.engine.start(container.id)
    await bench.engine.pause(container.id)
    await bench.engine.kill(container.id)
    assert await bench.engine.wait_exit(container) == Death(exit_code=137, oom_killed=False)

    container = await bench.engine.start(container.id)
    await bench.engine.pause(container.id)
    await bench.engine.remove(container.id)
    assert await bench.engine.list(bench.label) == ()


@within()
async def test_a_cancelled_create_leaves_nothing_that_its_name_does_not_find(bench: Bench) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.engine.create, bench.spec())
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    # The engine may still be at it: whatever it makes has the name.
    identity: ContainerId | None = None
    while identity is None:
        await bench.engine.remove(bench.spec().name)
        with suppress(EngineRefused):  # it came to be just now
            identity = await bench.engine.create(bench.spec())
    assert [found.id for found in await bench.engine.list(bench.label)] == [identity]


# ---- death


@within()
async def test_p25_an_end_of_its_own_has_its_exit_code(bench: Bench) -> None:
    container = await bench.run(Program.ENDS_WITH_7)
    assert await bench.engine.wait_exit(container) == Death(exit_code=7, oom_killed=False)
    assert (await bench.engine.inspect(container.id)).exit_code == 7


@within()
@pytest.mark.parametrize(("signal", "exit_code"), [("SIGKILL", 137), ("SIGTERM", 143)])
async def test_p25_a_signal_is_told_by_the_exit_code(bench: Bench, signal: str, exit_code: int) -> None:
    container = await bench.run()
    await bench.wait_said(container, "ready")
    deaths: list[Death] = []
    async with trio.open_nursery() as nursery:
        for _ in range(2):  # two may wait for one death
            nursery.start_soon(_note_death, bench, container, deaths)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert deaths == []
        await bench.engine.kill(container.id, signal=signal)
    assert deaths == [Death(exit_code=exit_code, oom_killed=False)] * 2


@pytest.mark.usefixtures("limits")
@within()
async def test_p25_a_death_for_want_of_memory_is_told(bench: Bench) -> None:
    container = await bench.run(Program.RUNS_OUT_OF_MEMORY)
    assert await bench.engine.wait_exit(container) == Death(exit_code=137, oom_killed=True)


@within()
async def test_p25_a_tool_killed_for_want_of_memory_is_not_why_the_container_died_later(bench: Bench) -> None:
    container = await bench.run(Program.A_TOOL_RUNS_OUT_OF_MEMORY)
    assert await bench.engine.wait_exit(container) == Death(exit_code=137, oom_killed=False)


@within()
async def test_stop_kills_what_ignores_sigterm_when_its_grace_is_over(bench: Bench) -> None:
    container = await bench.run(Program.IGNORES_SIGTERM)
    await bench.wait_said(container, "ready")
    begun = trio.current_time()
    await bench.engine.stop(container.id, grace=1)
    assert trio.current_time() - begun >= 0.9
    assert await bench.engine.wait_exit(container) == Death(exit_code=137, oom_killed=False)


@within()
async def test_removing_a_running_one_is_its_death(bench: Bench) -> None:
    container = await bench.run()
    deaths: list[Death] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_note_death, bench, container, deaths)
        await trio.testing.wait_all_tasks_blocked(0.01)
        await bench.engine.remove(container.id)
    # Whether the engine could still be asked for the exit code is a matter of milliseconds.
    assert deaths[0] in (
        Death(exit_code=137, oom_killed=False),
        Death(exit_code=None, oom_killed=False, removed=True),
    )
    assert (await bench.engine.wait_exit(container)).removed


@within()
async def test_the_end_of_an_earlier_run_is_not_that_of_the_next(bench: Bench) -> None:
    first = await bench.run()
    await bench.engine.kill(first.id)
    ended = Death(exit_code=137, oom_killed=False)
    assert await bench.engine.wait_exit(first) == ended
    assert await bench.engine.wait_exit(await bench.engine.inspect(first.id)) == ended
    second = await bench.engine.start(first.id)
    assert await bench.engine.wait_exit(first) == Death(exit_code=None, oom_killed=False)
    assert (await bench.engine.inspect(second.id)).phase is ContainerPhase.RUNNING


async def _note_death(bench: Bench, container: Container, deaths: list[Death]) -> None:
    deaths.append(await bench.engine.wait_exit(container))


# ---- looking


@within()
async def test_a_list_has_what_carries_all_labels_in_whatever_state(bench: Bench) -> None:
    first = await bench.run(name="a")
    second = await bench.engine.create(bench.spec(name="b"))
    assert {(found.id, found.phase) for found in await bench.engine.list(bench.label)} == {
        (first.id, ContainerPhase.RUNNING),
        (second, ContainerPhase.CREATED),
    }
    only = await bench.engine.list({**bench.label, "role": "b"})
    assert [(found.id, found.name, found.labels["role"]) for found in only] == [
        (second, bench.spec(name="b").name, "b")
    ]
    assert await bench.engine.list({**bench.label, "role": "c"}) == ()


@within()
async def test_usage_grows_with_the_work_and_ends_with_the_container(bench: Bench) -> None:
    container = await bench.run(Program.BURNS_CPU)
    first = await bench.engine.usage(container)
    assert first.memory_bytes > 0
    assert first.pids >= 1
    assert first.oom_kills == 0
    later = first
    while later.cpu_seconds < first.cpu_seconds + 0.1:
        await trio.sleep(0.01)
        later = await bench.engine.usage(container)
    assert later.pids >= 2  # the init and its child
    await bench.engine.kill(container.id)
    await bench.engine.wait_exit(container)
    with pytest.raises(ContainerMissing):
        await bench.engine.usage(container)


@within()
async def test_p6_what_lives_in_a_container_is_seen_with_its_sessions(bench: Bench) -> None:
    container = await bench.run(Program.LEAVES_A_DAEMON)
    living = await bench.engine.processes(container)
    while len(sessions := {process.session for process in living}) < 2:
        await trio.sleep(0.01)
        living = await bench.engine.processes(container)
    first = living[0]
    assert first.pid == container.pid
    (daemon,) = (process for process in living if process.session != first.session)
    assert sessions == {first.session, daemon.pid}
    assert daemon.name == "sleep"
    assert {first, daemon} <= set(await bench.engine.processes(container))
    await bench.engine.kill(container.id)
    await bench.engine.wait_exit(container)
    with pytest.raises(ContainerMissing):
        await bench.engine.processes(container)


@within()
async def test_p25_the_last_words_of_a_container_can_be_read(bench: Bench) -> None:
    container = await bench.run(Program.ENDS_WITH_7)
    await bench.engine.wait_exit(container)
    assert sorted((await bench.engine.log(container.id)).splitlines()) == ["one", "three", "two"]
    assert len((await bench.engine.log(container.name, lines=2)).splitlines()) == 2
    with pytest.raises(ContainerMissing):
        await bench.engine.log(NO_SUCH)


@within()
async def test_events_tell_a_life_in_order(bench: Bench) -> None:
    async with bench.engine.events({**bench.label, "role": "a"}) as events:
        unheard = await bench.run(Program.ENDS_WITH_7, name="b")
        container = await bench.run(Program.ENDS_WITH_7, name="a")
        await bench.engine.wait_exit(container)
        await bench.engine.remove(unheard.id)
        await bench.engine.remove(container.id)
        seen = [await anext(events) for _ in range(3)]
    assert [event.kind for event in seen] == [
        EngineEventKind.STARTED,
        EngineEventKind.DIED,
        EngineEventKind.REMOVED,
    ]
    assert {event.container for event in seen} == {container.id}
    assert seen[1].exit_code == 7
    assert all(bench.label.items() <= event.labels.items() for event in seen)


@within()
async def test_nothing_is_missed_between_entering_the_stream_and_reading_it(bench: Bench) -> None:
    container = await bench.run()
    for _ in range(3):
        async with bench.engine.events(bench.label) as events:
            await bench.engine.kill(container.id)
            event: EngineEvent = await anext(events)
            assert (event.kind, event.exit_code) == (EngineEventKind.DIED, 137)
        await bench.engine.wait_exit(container)
        container = await bench.engine.start(container.id)
