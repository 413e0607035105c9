"""Readings on made-up trees of cgroup v1, hybrid and v2, and on this machine's own processes."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from opencode_actors.adapters.cgroup import Cgroups, NotRunning, cgroup_mounts, cgroup_paths
from opencode_actors.adapters.oom_watch import RECENT, OomWatch, open_oom_watch
from opencode_actors.ports import ContainerId, Process, Usage

PID = 4711
ID = ContainerId("0123456789abcdef" * 4)

V1 = ("memory", "cpuacct", "pids")


def _write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def _proc(root: Path, mounts: list[str], cgroup: str) -> Cgroups:
    _write(root / "proc/self", mountinfo="".join(mounts))
    _write(root / f"proc/{PID}", cgroup=cgroup)
    return Cgroups(root / "proc")


def _v2(root: Path, *, below: str = "") -> Cgroups:
    path = f"/user.slice/libpod-{ID}.scope{below}"
    _write(
        root / f"cg{path}",
        memory__current="50000000\n",
        memory__stat="anon 1\ninactive_file 8000000\nactive_file 7\n",
        memory__events="low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\n",
        cpu__stat="usage_usec 2500000\nuser_usec 1\n",
        pids__current="9\n",
    )
    mount = f"30 23 0:26 / {root}/cg rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
    return _proc(root, [mount], f"0::{path}\n")


def _v1(root: Path, *, unified: bool = False) -> Cgroups:
    path = f"/libpod_parent/libpod-{ID}"
    _write(
        root / f"cg/memory{path}",
        memory__usage_in_bytes="50000000\n",
        memory__stat="cache 1\ntotal_inactive_file 8000000\n",
        memory__oom_control="oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
    )
    _write(root / f"cg/cpuacct{path}", cpuacct__usage="2500000000\n")
    _write(root / f"cg/pids{path}", pids__current="9\n")
    mounts = [f"3{n} 23 0:2{n} / {root}/cg/{c} rw - cgroup cgroup rw,{c}\n" for n, c in enumerate(V1)]
    lines = [f"{n}:{c}:{path}\n" for n, c in enumerate(V1, start=1)]
    if unified:
        mounts.append(f"40 23 0:40 / {root}/cg/unified rw - cgroup2 cgroup2 rw\n")
        lines.append("0::/\n")
    return _proc(root, mounts, "".join(lines))


EXPECTED = Usage(cpu_seconds=2.5, memory_bytes=42_000_000, pids=9, oom_kills=2)


def test_v2_is_read(tmp_path: Path) -> None:
    assert _v2(tmp_path).usage(PID, ID) == EXPECTED


def test_v2_is_read_where_the_runtime_makes_a_cgroup_below_the_containers(tmp_path: Path) -> None:
    assert _v2(tmp_path, below="/container").usage(PID, ID) == EXPECTED


def test_v1_is_read(tmp_path: Path) -> None:
    assert _v1(tmp_path).usage(PID, ID) == EXPECTED


def test_hybrid_is_read_from_v1(tmp_path: Path) -> None:
    assert _v1(tmp_path, unified=True).usage(PID, ID) == EXPECTED


def test_a_hierarchy_that_is_mounted_from_within_is_found(tmp_path: Path) -> None:
    mounts = cgroup_mounts(f"30 23 0:26 /kubepods/pod1 {tmp_path} rw - cgroup2 cgroup2 rw\n")
    assert mounts[0].folder("/kubepods/pod1/libpod-x") == tmp_path / "libpod-x"


def test_lines_that_are_none_of_ours_are_passed_over() -> None:
    mountinfo = (
        "22 1 8:1 / / rw - ext4 /dev/root rw\nnonsense\n31 23 0:27 / /m rw - cgroup cgroup rw,cpu,cpuacct\n"
    )
    (mount,) = cgroup_mounts(mountinfo)
    assert mount.controllers >= {"cpu", "cpuacct"}
    assert cgroup_paths("5:cpu,cpuacct:/a\n0::/b\n") == {"cpu": "/a", "cpuacct": "/a", "": "/b"}


def test_without_a_cgroup_of_its_own_the_process_tree_is_read() -> None:
    cgroups = Cgroups()
    assert cgroups.own_folder(os.getpid(), ID, "memory") is None
    usage = cgroups.usage(os.getpid(), ID)
    assert usage.memory_bytes > 1 << 20
    assert usage.cpu_seconds > 0
    assert usage.pids >= 1


async def test_children_are_part_of_the_tree() -> None:
    cgroups = Cgroups()
    before = cgroups.usage(os.getpid(), ID).pids
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.run_process, ["sleep", "1000"])
        assert cgroups.usage(os.getpid(), ID).pids == before + 1
        nursery.cancel_scope.cancel()


async def test_p6_without_a_cgroup_of_its_own_the_tree_tells_what_lives_there() -> None:
    cgroups = Cgroups()
    script = "setsid sh -c 'sleep 1000 & sleep 1000' & sleep 1000"
    async with trio.open_nursery() as nursery:
        process = await nursery.start(partial(trio.run_process, ["sh", "-c", script], start_new_session=True))
        living: tuple[Process, ...] = ()
        while [found.name for found in living].count("sleep") < 3:
            await trio.sleep(0.01)
            living = cgroups.processes(process.pid, ID)
        assert {found.session for found in living if found.pid == process.pid} == {process.pid}
        (daemon,) = {found.session for found in living} - {process.pid}
        nursery.cancel_scope.cancel()
    os.killpg(daemon, signal.SIGKILL)


def test_what_is_gone_does_not_run(tmp_path: Path) -> None:
    for look in (Cgroups().usage, Cgroups().processes):
        with pytest.raises(NotRunning):
            look(2**22 + 1, ID)  # above every pid
    cgroups = _v2(tmp_path)
    (tmp_path / f"proc/{PID}/cgroup").write_text("0::/\n")
    with pytest.raises(NotRunning):
        cgroups.usage(PID, ID)


# ---- was it memory?


def _watch(root: Path) -> tuple[OomWatch, Path]:
    watch = open_oom_watch(_v2(root), PID, ID)
    assert watch is not None
    return watch, root / f"cg/user.slice/libpod-{ID}.scope/memory.events"


async def test_p25_a_kill_of_the_last_moments_is_the_cause(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    watch, counter = _watch(tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.follow)
        await trio.sleep(RECENT * 2)
        assert watch.verdict() is False  # the two that were there before are settled
        counter.write_text("oom_kill 3\n")
        assert watch.verdict() is True
        nursery.cancel_scope.cancel()
    watch.close()


def test_p25_a_kill_before_the_watch_began_counts_as_recent(tmp_path: Path) -> None:
    watch, _ = _watch(tmp_path)
    assert watch.verdict() is True
    watch.close()


def test_p25_a_kill_before_the_watch_began_counts_also_when_the_cgroup_is_gone_at_the_end(
    tmp_path: Path,
) -> None:
    watch, _ = _watch(tmp_path)
    folder = os.open(tmp_path, os.O_RDONLY)
    os.dup2(folder, watch._counter)  # reading it fails from now on, as of a counter that was removed
    os.close(folder)
    assert watch.verdict() is True
    watch.close()


async def test_a_kill_that_the_container_survives_is_settled(tmp_path: Path) -> None:
    """On the real clock, because the kernel's word (inotify) comes in real time."""
    watch, counter = _watch(tmp_path)
    watch.recent = 0.05
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.follow)
        for kills in (3, 4):
            counter.write_text(f"oom_kill {kills}\n")
            with trio.fail_after(10):
                await _settled(watch)
        nursery.cancel_scope.cancel()
    watch.close()


async def _settled(watch: OomWatch) -> None:
    await trio.sleep(watch.recent)
    while watch.verdict():  # noqa: ASYNC110 - the kernel tells it, not a task
        await trio.sleep(0.01)


def test_there_is_no_watch_without_a_cgroup() -> None:
    assert open_oom_watch(Cgroups(), os.getpid(), ID) is None
    assert open_oom_watch(Cgroups(), 2**22 + 1, ID) is None
