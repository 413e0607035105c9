"""What a session and a job cost us when there are many of them, and how that grows.

    python -m tests.benchmarks.scale [SESSIONS ...]

In the local world: real sockets, HTTP and event streams, the real client and the real journal, no containers; the
servers are in another process. Each number of sessions (10, 100 and 1,000, if nothing else is said) has a process of
its own, which starts them fifty at a time, lets them idle, gives each a job that only waits, then ten each that say a
word, and then a few long answers. Memory is the resident one; what Python keeps for later counts, too. CPU is this
process's own, in thousandths of a core or in seconds of one. What counts is each column's ratio to the first. Each
number of sessions runs once, so a ratio close to one says nothing. From the CPU of the long answers what all sessions use
while they idle is subtracted. Python asks the system for memory in large pieces, and uses first what it kept: with
ten sessions a running job took 2, 7 and 19 KB in three runs, with a hundred 15, so that row's ratios are no growth.
"""

from __future__ import annotations

import gc
import json
import resource
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time

import trio

from opencode_actors import Job, JobStatus, Settings, System, open_system
from opencode_actors.testing.fake_engine import FakeEngine
from tests.benchmarks.fake_house import open_house

_SIZES = (10, 100, 1_000)
_JOBS_OF_EACH = 10
_LONG_ANSWERS = 10
_EVENTS = 1_000  # of a long answer
_LOOK_FOR = 10.0
# A thousand servers that start in the same second have no processor left to answer with.
_STARTS_AT_ONCE = 50
# Its event stream, kept connections and one that a probe is on; over there, the addresses of the next ones, too.
_FILES_OF_EACH = 10
_ROWS = (
    ("memory, nothing open", "MB"),
    ("start of all", "s"),
    ("start, CPU of each", "ms"),
    ("memory, idle session", "KB"),
    ("CPU, idle session", "‰"),
    ("memory, running job", "KB"),
    ("CPU, running job", "‰"),
    ("short job, all of them", "ms"),
    ("short job, CPU", "ms"),
    ("memory, settled job", "KB"),
    ("1,000 events, CPU", "ms"),
    ("end of all", "s"),
)


async def measure(sessions: int, look_for: float) -> dict[str, float]:
    found: dict[str, float] = {}
    with TemporaryDirectory(prefix="oa-scale-") as folder, open_house(sessions + 1) as house:
        settings = Settings(
            model="scripted/demo",
            min_free_disk=0,
            max_sessions=sessions,
            sessions_dir=Path(folder) / "s",
            workspaces_dir=Path(folder) / "w",
        )
        keys = [f"session-{number}" for number in range(sessions)]
        engine = FakeEngine(on_start=house.on_start, on_exit=house.on_exit)
        async with open_system(settings, engine=engine) as system:
            await _of_sessions(system, keys, look_for, found)
            await _of_jobs(system, keys, found)
            ended = perf_counter()
        found["end of all"] = perf_counter() - ended
    return found


async def _of_sessions(system: System, keys: list[str], look_for: float, found: dict[str, float]) -> None:
    # What the first session loads for all that come after it is nothing that a session costs.
    await _each(system, ["warm-up"], "::say hello")
    await system.close_session("warm-up")
    empty = found["memory, nothing open"] = _megabytes()
    seconds, cpu = await _timed(lambda: _each(system, keys, "::say hello", at_once=_STARTS_AT_ONCE))
    found["start of all"] = seconds
    found["start, CPU of each"] = cpu * 1e3 / len(keys)
    idle = _megabytes()
    found["memory, idle session"] = (idle - empty) * 1e3 / len(keys)
    found["CPU, idle session"] = await _load(look_for) / len(keys)
    waiting = [await system.start("::hang", session=key) for key in keys]
    for job in waiting:
        while (await job.status()).status is not JobStatus.RUNNING:  # noqa: ASYNC110 - once, and outside the figures
            await trio.sleep(0.1)
    found["memory, running job"] = (_megabytes() - idle) * 1e3 / len(keys)
    found["CPU, running job"] = await _load(look_for) / len(keys)
    async with trio.open_nursery() as nursery:
        for job in waiting:
            nursery.start_soon(job.cancel)


async def _of_jobs(system: System, keys: list[str], found: dict[str, float]) -> None:
    before, many = _megabytes(), len(keys) * _JOBS_OF_EACH

    async def all_of_them() -> None:
        for _ in range(_JOBS_OF_EACH):
            await _each(system, keys, "::say hello")

    seconds, cpu = await _timed(all_of_them)
    found["short job, all of them"] = seconds * 1e3 / many
    found["short job, CPU"] = cpu * 1e3 / many
    found["memory, settled job"] = (_megabytes() - before) * 1e3 / many
    few = keys[:_LONG_ANSWERS]
    seconds, cpu = await _timed(lambda: _each(system, few, f"::text {_EVENTS * 20} chunk=20"))
    cpu -= seconds * found["CPU, idle session"] * len(keys) / 1e3  # the others idle meanwhile
    found["1,000 events, CPU"] = cpu * 1e3 / len(few) / (_EVENTS / 1e3)


async def _each(system: System, keys: list[str], prompt: str, *, at_once: int | None = None) -> None:
    """A job in each session, until the last has ended."""
    room = trio.CapacityLimiter(at_once or len(keys))

    async def one(key: str) -> None:
        async with room:
            job: Job = await system.start(prompt, session=key)
            ended = await job.wait()
        assert ended.status is JobStatus.COMPLETED, ended

    async with trio.open_nursery() as nursery:
        for key in keys:
            nursery.start_soon(one, key)


async def _timed(call: Callable[[], Awaitable[None]]) -> tuple[float, float]:
    """Seconds, and seconds of our CPU."""
    begun, worked = perf_counter(), process_time()
    await call()
    return perf_counter() - begun, process_time() - worked


async def _load(look_for: float) -> float:
    """Thousandths of a core."""

    async def nothing() -> None:
        await trio.sleep(look_for)

    seconds, cpu = await _timed(nothing)
    return cpu / seconds * 1e3


def _megabytes() -> float:
    gc.collect()
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmRSS:")[2].split()[0]) / 1e3


def _ratio(now: float, first: float) -> str:
    """None to what is nothing, or less: memory that was given back meanwhile."""
    return f"{now / first:.1f}x" if first > 0 else "-"


def _allow_files(sessions: int) -> str:
    """As many open files as these sessions take, on either side; or what to do about it."""
    wanted = 200 + _FILES_OF_EACH * sessions
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        return f"{wanted:,} open files are needed and {hard:,} allowed: raise the hard limit (`ulimit -Hn`)"
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return ""


def _last_line(errors: str) -> str:
    """A machine with no processor left for so many takes busy servers for dead ones, and jobs fail."""
    said = [line for line in errors.splitlines() if "Error" in line]
    return f"it failed, as on a machine that has too much to do: {said[-1].strip(' |') if said else errors[-200:]}"


def main(sizes: tuple[int, ...], look_for: float = _LOOK_FOR) -> None:
    table: dict[int, dict[str, float]] = {}
    for size in sizes:
        if wrong := _allow_files(size):
            print(f"{size:,} sessions are left out: {wrong}")  # noqa: T201
            continue
        one = [sys.executable, "-m", "tests.benchmarks.scale", "--one", str(size), str(look_for)]
        done = subprocess.run(one, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{size:,} sessions are left out: {_last_line(done.stderr)}")  # noqa: T201
            continue
        table[size] = json.loads(done.stdout)
        print(f"{size:,} sessions", file=sys.stderr)  # noqa: T201
    print(f"{'':24}" + "".join(f"{f'{size:,} sessions':>22}" for size in table))  # noqa: T201
    if not table:
        sys.exit(1)
    first = next(iter(table.values()))
    for name, unit in _ROWS:
        cells = (
            f"{found[name]:9.2f} {unit:2} {_ratio(found[name], first[name]):>7}" for found in table.values()
        )
        print(f"{name:24}" + "".join(f"{cell:>22}" for cell in cells))  # noqa: T201


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(trio.run(measure, int(sys.argv[2]), float(sys.argv[3]))))  # noqa: T201
    else:
        main(tuple(map(int, sys.argv[1:])) or _SIZES)
