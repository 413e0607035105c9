"""How long a whole system takes to open, beside SQLite alone that opens the same file and reads the same rows.

    python -m tests.benchmarks.recovery [JOBS ...]

First with so many settled jobs in the journal (10, 1,000 and 100,000, if nothing else is said) and none open. Then with
so many open ones, each at work in a session of its own, that an earlier system left (10 and 100): until the system is
open, and until every session has its server's events again. Each twice: after an end in good order, and after SIGKILL of
the process before, with all those jobs at work. In the local world: the real journal and client, no containers. By hand:
`sqlite3.connect` of the same files, and what `open_system` has to know from there. Both sides take turns.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import statistics
import sys
from contextlib import AbstractAsyncContextManager, closing
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import trio
from attrs import define, field

from opencode_actors import JobId, JobStatus, Leave, Settings, System, open_system
from opencode_actors.machines.notices import SessionChanged
from opencode_actors.machines.vocabulary import SessionStatus
from opencode_actors.testing.fake_engine import FakeEngine
from tests.benchmarks.fake_house import open_house
from tests.benchmarks.history import fill

_SIZES = (10, 1_000, 100_000)
_OPEN_SIZES = (10, 100)
_ROUNDS = 6
_WITHIN = 120
_ROWS = (
    "SELECT value FROM about WHERE name = 'owner'",
    "SELECT id, snapshot, accepted, begun, verdict FROM jobs WHERE settled = 0 ORDER BY number",
    "SELECT job, start, upto, kind, part, at FROM spans",
    "SELECT key, container, url, password FROM sessions WHERE container IS NOT NULL",
    "SELECT seq FROM sqlite_sequence WHERE name = 'notices'",
)


@define
class Times:
    by_hand: list[float] = field(factory=list[float])
    opened: list[float] = field(factory=list[float])
    ready: list[float] = field(factory=list[float])


def by_hand(folder: Path, times: Times) -> int:
    """The number of the last notice."""
    began = perf_counter()
    with closing(sqlite3.connect(folder / "journal.sqlite")) as database:
        *_, last = [database.execute(rows).fetchall() for rows in _ROWS]
        times.by_hand.append(perf_counter() - began)
    return int(last[0][0])


def with_settled(jobs: int, rounds: int) -> dict[str, Times]:
    with TemporaryDirectory(prefix="oa-recovery-") as base:
        life = Life(_settings(Path(base), sessions=8), FakeEngine())
        fill(life.settings.sessions_dir, jobs, open_jobs=0)
        trio.run(life.go_on)  # it was filled by somebody else, and is examined
        return life.measure(f"{jobs:,} settled", rounds)


def with_open(jobs: int, rounds: int) -> dict[str, Times]:
    with TemporaryDirectory(prefix="oa-recovery-") as base, open_house(jobs) as house:
        engine = FakeEngine(on_start=house.on_start, on_exit=house.on_exit)
        life = Life(_settings(Path(base), sessions=jobs), engine)
        trio.run(life.begin, jobs)
        found = life.measure(f"{jobs:,} open", rounds)
        trio.run(life.end)
    return found


@define
class Life:
    """One system after another, with the same containers."""

    settings: Settings
    engine: FakeEngine
    jobs: list[JobId] = field(factory=list[JobId])
    position: int = 0

    def measure(self, name: str, rounds: int) -> dict[str, Times]:
        in_order, killed = Times(), Times()
        for _ in range(rounds):
            by_hand(self.settings.sessions_dir, in_order)
            trio.run(self.go_on, in_order)
            self.is_killed()
            with TemporaryDirectory(prefix="oa-recovery-") as copy:
                shutil.copytree(self.settings.sessions_dir, copy, dirs_exist_ok=True)
                self.position = by_hand(Path(copy), killed)
            trio.run(self.go_on, killed)
        return {name: in_order, f"{name}, killed": killed}

    async def begin(self, jobs: int) -> None:
        async with self._open() as system:
            for number in range(jobs):
                self.jobs.append((await system.start("::hang", session=f"session-{number}")).id)
            await self._all_at_work(system)

    async def go_on(self, times: Times | None = None) -> None:
        began = perf_counter()
        async with self._open() as system:
            opened = perf_counter()
            await self._all_at_work(system)
            if times is not None:
                times.opened.append(opened - began)
                times.ready.append(perf_counter() - began)

    def is_killed(self) -> None:
        """In a process that is a copy of this one, with all that the engine knows."""
        child = os.fork()
        if child == 0:
            try:
                trio.run(self._until_killed)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, "it ended before it was killed"

    async def _until_killed(self) -> None:
        async with self._open() as system:
            await self._all_at_work(system)
            os.kill(os.getpid(), signal.SIGKILL)

    async def end(self) -> None:
        async with open_system(self.settings, engine=self.engine, leave=Leave.NOTHING):
            pass

    def _open(self) -> AbstractAsyncContextManager[System]:
        return open_system(self.settings, engine=self.engine, leave=Leave.ALL)

    async def _all_at_work(self, system: System) -> None:
        if not self.jobs:
            return
        await _all_are(system, len(self.jobs), SessionStatus.READY, since=self.position)
        await _all_run(system, self.jobs)
        self.position = system.position


async def _all_are(system: System, sessions: int, status: SessionStatus, since: int = 0) -> None:
    waited_for = {f"session-{number}" for number in range(sessions)}
    with trio.fail_after(_WITHIN):
        async for notice in system.follow(since=since):
            if isinstance(notice, SessionChanged) and notice.status is status:
                waited_for.discard(notice.session)
            if not waited_for:
                return


async def _all_run(system: System, jobs: list[JobId]) -> None:
    with trio.fail_after(_WITHIN):
        await trio.lowlevel.checkpoint()
        for job in jobs:
            while (await system.status(job)).status is not JobStatus.RUNNING:  # noqa: ASYNC110 - outside the figures
                await trio.sleep(0.05)


def _settings(base: Path, *, sessions: int) -> Settings:
    return Settings(
        model="scripted/demo",
        min_free_disk=0,
        max_sessions=sessions,
        sessions_dir=base / "s",
        workspaces_dir=base / "w",
    )


def main(sizes: tuple[int, ...], open_sizes: tuple[int, ...] = _OPEN_SIZES, rounds: int = _ROUNDS) -> None:
    found: dict[str, Times] = {}
    for size in sizes:
        found |= with_settled(size, rounds)
    for size in open_sizes:
        found |= with_open(size, rounds)
    head = (
        f"{'':24}{'SQLite alone':>14}{'system open':>14}{'ratio':>8}{'to the first':>14}{'all at work':>14}"
    )
    print(f"{head}   medians of {rounds}")  # noqa: T201
    first = statistics.median(next(iter(found.values())).opened)
    for name, times in found.items():
        there, here = statistics.median(times.by_hand), statistics.median(times.opened)
        ready = f"{statistics.median(times.ready) * 1e3:11.1f} ms" if "open" in name else ""
        print(  # noqa: T201
            f"{name:24}{there * 1e3:11.2f} ms{here * 1e3:11.2f} ms{here / there:8.1f}{here / first:13.1f}x{ready:>14}"
        )


if __name__ == "__main__":
    main(tuple(map(int, sys.argv[1:])) or _SIZES)
