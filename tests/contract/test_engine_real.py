"""What only a real container can show: its walls, its limits, its port, its processes."""

from __future__ import annotations

import errno
import os
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
from attrs import evolve

from opencode_actors.adapters.cgroup import Cgroups
from opencode_actors.errors import EngineRefused
from opencode_actors.ports import Container, ContainerPhase, ContainerSpec, Death, EngineEventKind, Mount

from .engines import Program, RealBench, within

REPORT = """
{
  grep -E '^(CapEff|CapPrm|CapBnd|NoNewPrivs)' /proc/self/status
  echo "init: $(cat /proc/1/comm)"
  echo "user: $(id -u):$(id -g)"
  echo "greeting: $GREETING"
  grep ' /tmp ' /proc/mounts
  cp /bin/touch /tmp/touch && /tmp/touch /tmp/made && echo "tmp: programs run"
  touch /made || echo "root: read-only"
  touch /in/made || echo "read-only mount: read-only"
  cat /in/given
  touch /out/made
} > /out/report 2>/dev/null
"""


def _handed_over(bench: RealBench, directory: Path) -> Path:
    directory.mkdir()
    if os.geteuid() == 0:
        os.chown(directory, *bench.engine.directory_owner())
    return directory


def _spec_with_directories(bench: RealBench, tmp_path: Path) -> ContainerSpec:
    out, given = _handed_over(bench, tmp_path / "out"), _handed_over(bench, tmp_path / "in")
    (given / "given").write_text("given: read\n")
    mounts = (Mount(source=out, target="/out"), Mount(source=given, target="/in", read_only=True))
    return evolve(bench.spec(), mounts=mounts)


@within()
async def test_p14_the_walls_of_a_container_stand(real_bench: RealBench, tmp_path: Path) -> None:
    container = await real_bench.run_script(REPORT, _spec_with_directories(real_bench, tmp_path))
    assert await real_bench.engine.wait_exit(container) == Death(exit_code=0, oom_killed=False)
    report = (tmp_path / "out/report").read_text().splitlines()
    words = dict(line.split(":", 1) for line in report if ":" in line)
    assert {words[name].strip() for name in ("CapEff", "CapPrm", "CapBnd")} == {"0" * 16}
    assert words["NoNewPrivs"].strip() == "1"
    assert words["init"].strip() in ("podman-init", "docker-init", "catatonit", "tini")
    assert words["user"].strip() == "1000:1000"
    assert words["greeting"].strip() == "hello"
    assert words["tmp"].strip() == "programs run"
    assert words["root"].strip() == "read-only"
    assert words["read-only mount"].strip() == "read-only"
    assert words["given"].strip() == "read"
    options = next(line for line in report if " /tmp " in line).split()[3].split(",")
    assert {"rw", "nosuid", "nodev", "size=16384k"} <= set(options)
    assert "noexec" not in options


@within()
async def test_files_on_the_host_belong_to_the_owner_of_the_directory(
    real_bench: RealBench, tmp_path: Path
) -> None:
    container = await real_bench.run_script(REPORT, _spec_with_directories(real_bench, tmp_path))
    await real_bench.engine.wait_exit(container)
    made = (tmp_path / "out/made").stat()
    assert (made.st_uid, made.st_gid) == real_bench.engine.directory_owner()


@pytest.mark.usefixtures("real_limits")
@within()
async def test_p22_the_limits_stand_in_the_kernel(real_bench: RealBench) -> None:
    container = await real_bench.run_spec(evolve(real_bench.spec(), cpus=0.5, pids=32))
    assert _limits(container) == {"memory": 64 << 20, "cpu": 0.5, "pids": 32}


def _limits(container: Container) -> dict[str, float]:
    memory, cpu, pids = (
        Cgroups().own_folder(container.pid, container.id, controller)
        for controller in ("memory", "cpu", "pids")
    )
    assert memory is not None
    assert cpu is not None
    assert pids is not None
    if cpu.unified:
        quota, period = (int(number) for number in (cpu.path / "cpu.max").read_text().split())
    else:
        quota, period = (int((cpu.path / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
    return {
        "memory": memory.number(v1="memory.limit_in_bytes", v2="memory.max"),
        "cpu": quota / period,
        "pids": pids.number(v1="pids.max", v2="pids.max"),
    }


@pytest.mark.usefixtures("real_limits")
@within()
async def test_a_fork_bomb_ends_at_the_limit_of_processes(real_bench: RealBench) -> None:
    script = "i=0; while [ $i -lt 100 ]; do sleep 100 & i=$((i+1)); done; exit 0"
    container = await real_bench.run_script(script, evolve(real_bench.spec(), pids=16))
    assert await real_bench.engine.wait_exit(container) == Death(exit_code=2, oom_killed=False)


@within()
async def test_p14_the_port_answers_on_this_machine_only(real_bench: RealBench) -> None:
    container = await real_bench.run(Program.SERVES)
    assert container.port is not None
    assert await _read_all("127.0.0.1", container.port) == b"served"
    told = await trio.run_process(["hostname", "-I"], capture_stdout=True)
    others = [address for address in told.stdout.decode().split() if ":" not in address]
    assert others, "a machine that runs containers has their bridge's address at least"
    for address in others:
        with pytest.raises(OSError, match="refused"):
            await _read_all(address, container.port)


async def _read_all(address: str, port: int) -> bytes:
    """Tries again while the server starts: an engine's proxy accepts before it listens."""
    while True:
        with trio.socket.socket() as connection:
            try:
                await connection.connect((address, port))
                if data := await connection.recv(100):
                    return data
            except ConnectionResetError:
                pass
            except ConnectionRefusedError:
                if address != "127.0.0.1":
                    raise
        await trio.sleep(0.01)


@within()
async def test_a_restarted_container_answers_on_the_port_it_tells(real_bench: RealBench) -> None:
    first = await real_bench.run(Program.SERVES)
    await real_bench.engine.kill(first.id)
    await real_bench.engine.wait_exit(first)
    again = await real_bench.engine.start(first.id)
    assert again.port is not None
    assert await _read_all("127.0.0.1", again.port) == b"served"


@within()
async def test_a_death_by_the_hosts_hand_is_told_before_the_engine_tells_of_it(real_bench: RealBench) -> None:
    container = await real_bench.run()
    async with real_bench.engine.events(real_bench.label) as events:
        os.kill(container.pid, 9)
        assert await real_bench.engine.wait_exit(container) == Death(exit_code=137, oom_killed=False)
        event = await anext(events)
        assert (event.kind, event.exit_code) == (EngineEventKind.DIED, 137)
    assert (await real_bench.engine.inspect(container.id)).phase is ContainerPhase.EXITED


@within()
async def test_what_hears_a_stop_and_stays_can_be_killed_while_the_engine_waits(
    real_bench: RealBench,
) -> None:
    script = "trap 'echo heard' TERM; echo ready; while :; do sleep 0.1; done"
    container = await real_bench.run_script(script, real_bench.spec())
    await real_bench.wait_said(container, "ready")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(real_bench.engine.stop, container.id, grace=1000))
        await real_bench.wait_said(container, "heard")
        await real_bench.engine.kill(container.id)
        assert await real_bench.engine.wait_exit(container) == Death(exit_code=137, oom_killed=False)
        nursery.cancel_scope.cancel()


@within()
async def test_waiting_holds_nothing_when_it_is_over(real_bench: RealBench) -> None:
    container = await real_bench.run()
    before = _open_files()
    for _ in range(3):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(real_bench.engine.wait_exit, container)
            await trio.testing.wait_all_tasks_blocked(0.02)
            nursery.cancel_scope.cancel()
    await real_bench.engine.inspect(container.id)
    assert _open_files() <= before
    await real_bench.engine.kill(container.id)
    await real_bench.engine.wait_exit(container)
    assert _open_files() <= before


@within()
async def test_p25_a_death_is_told_where_the_kernel_gives_no_pidfd(
    real_bench: RealBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(pid: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files", str(pid))

    monkeypatch.setattr(os, "pidfd_open", refuse)
    container = await real_bench.run_script("sleep 1; exit 7", real_bench.spec())
    assert await real_bench.engine.wait_exit(container) == Death(exit_code=7, oom_killed=False)


def _open_files() -> int:
    """Without sockets, which a pool may hold and drop as it likes."""
    return sum(not link.startswith("socket:") for link in _descriptors())


def _descriptors() -> list[str]:
    links: list[str] = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            links.append(str(entry.readlink()))
        except FileNotFoundError:  # the one that lists them
            continue
    return links


@within(120)
async def test_many_lives_side_by_side(real_bench: RealBench) -> None:
    deaths: dict[str, Death] = {}

    async def live(name: str) -> None:
        container = await real_bench.run(Program.ENDS_WITH_7, name=name)
        deaths[name] = await real_bench.engine.wait_exit(container)
        await real_bench.engine.remove(container.id)

    names = [f"n{number}" for number in range(8)]
    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(live, name)
    assert deaths == dict.fromkeys(names, Death(exit_code=7, oom_killed=False))
    assert await real_bench.engine.list(real_bench.label) == ()


@within()
async def test_p25_a_program_that_the_image_lacks_is_named_in_the_log(real_bench: RealBench) -> None:
    container = await real_bench.run_spec(evolve(real_bench.spec(), command=("no-such-program",)))
    death = await real_bench.engine.wait_exit(container)
    assert death.exit_code in (1, 127)  # the init's own way to say it
    # Podman writes the log in pieces, the last of them perhaps after the death is known.
    while "No such file or directory" not in await real_bench.engine.log(container.id):  # noqa: ASYNC110
        await trio.sleep(0.05)


@within()
async def test_p23_a_port_that_was_taken_meanwhile_is_told_with_the_way_out(real_bench: RealBench) -> None:
    container = await real_bench.run(Program.SERVES)
    assert container.port is not None
    await real_bench.engine.kill(container.id)
    await real_bench.engine.wait_exit(container)
    listeners = await trio.open_tcp_listeners(container.port, host="127.0.0.1")
    try:
        again = await real_bench.engine.start(container.id)
    except EngineRefused as refusal:
        assert refusal.status == 409  # noqa: PT017 - Podman keeps its choice
        assert "create it again" in refusal.hint  # noqa: PT017
    else:
        assert again.port not in (None, container.port)  # Docker chooses another one
    finally:
        for listener in listeners:
            await listener.aclose()
