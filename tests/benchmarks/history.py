"""What grows with the journal's history, beside a journal that has none, in the same run.

    python -m tests.benchmarks.history [JOBS ...]

Fills a journal with so many settled jobs (10, 1,000 and 100,000, if nothing else is said), each with its key, its
notices, its announcement and its file of output, and a few that are open. Then: opening it, after an end in good order
and after SIGKILL; opening one that somebody else has written to, of which every page is examined; what a start loads,
and the calls behind `status`, `output`, `start(key=...)`, `follow`, the outbox, `cleanup`, the list of ended sessions,
and one append alone. `cleanup` has eight sessions to list (the others were cleaned up before), and the list of ended
sessions is of 200 at most: with 10 jobs there is one, with 1,000 fifty. Then what is done each hour, call by call: what
is beyond the limits (all that there is is within them), one job that is forgotten, and the removal of its output for
certain. A status beside it is asked for while those looks go on without a rest.

All journals are open, and asked in turns, call by call: the first row is a call in a thread that does nothing, and it
takes 0.05 ms or 0.12 ms as the processor pleases, for seconds on end. Each journal was asked everything before the next
one until that was seen, and the larger ones seemed to be 2.5 to 3 times as slow, from 1,000 jobs on and without a reason
in the file: SQLite's own part of `start(key=...)` is 0.014 ms with 10 jobs and with 10,000. What counts is each column's
ratio to the first.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from itertools import count
from pathlib import Path
from time import perf_counter

import trio
from attrs import define, evolve, field

from opencode_actors.machines.notices import (
    Accepted,
    JobEnded,
    JobForgotten,
    JobQueued,
    JobRecorded,
    OutputAdded,
    OutputKind,
    OutputRecorded,
)
from opencode_actors.machines.outbox_messages import LookForNotifications
from opencode_actors.machines.vocabulary import JobId, JobStatus, NotificationState, SessionKey
from opencode_actors.ports import Prompt
from opencode_actors.store import database as db
from opencode_actors.store import notice_rows, old_rows, outbox_rows
from opencode_actors.store.journal import Journal, open_journal
from opencode_actors.store.port import Limits
from tests.store.samples import job

_SIZES = (10, 1_000, 100_000)
_JOBS_OF_A_SESSION = 20
_PIECES = 8
_OPEN = 5
_ROUNDS = 200
_ON_DISK = 8
_LISTED = 200
_FORGOTTEN = 5
_TURNS = 10
# Each has something to be compared with, and nothing is beyond it.
_LIMITS = Limits(
    jobs=10**9,
    jobs_before=-1.0,
    outputs=1 << 60,
    unkeyed_before=0.0,
    sessions=10**9,
    sessions_before=-1.0,
)
# The directories of all sessions but these few are cleaned up: what has to be listed is what is there.
_CLEANED_UP = """
UPDATE sessions SET has_data = 0, has_workspace = 0 WHERE key NOT IN (SELECT key FROM sessions LIMIT ?)
"""
_PROMPT = "look into it, please " * 10
_TEXT = "hello "
# What dies with its log as it is.
_KILLED = """
import os, signal, sys, trio
from pathlib import Path
from itertools import count
from opencode_actors.store.journal import open_journal
from tests.benchmarks.history import append

async def main():
    async with open_journal(Path(sys.argv[1])) as journal:
        await append(journal, count())
        os.kill(os.getpid(), signal.SIGKILL)

trio.run(main)
"""


def fill(folder: Path, jobs: int, *, open_jobs: int = _OPEN) -> None:
    """As the journal itself would have written it, in fewer transactions."""
    (folder / "outputs").mkdir(parents=True)
    database = db.open_for_writing(folder / "journal.sqlite")
    kept = notice_rows.read_kept(database)
    numbers = count(1)
    rows: list[db.Row] = []
    for number in range(jobs + open_jobs):
        id_, session = _job(number), SessionKey(f"session-{number // _JOBS_OF_A_SESSION}")
        pending = evolve(
            job(JobStatus.PENDING, id_=id_).snapshot,
            session=session,
            prompt=_PROMPT,
            failure=None,
            climb=None,
            notify=True,
        )
        plan = Accepted(
            prompt=Prompt(text=_PROMPT),
            timeout=None,
            at=number,
            since=0,
            key=f"key-{number}",
            request="0" * 64,
        )
        rows.append(db.row_of(JobRecorded(snapshot=pending, accepted=plan)))
        notices: list[JobQueued | OutputAdded | JobEnded] = [JobQueued(job=id_, session=session, ahead=0)]
        if number < jobs:
            done = evolve(pending, status=JobStatus.COMPLETED, output_bytes=_PIECES * len(_TEXT))
            rows.append(db.row_of(JobRecorded(snapshot=done)))
            rows.append(outbox_rows.new_row(done, number))
            text = _TEXT * _PIECES
            rows.append(old_rows.size_row(id_, len(text)))
            (folder / "outputs" / f"{id_}.txt").write_text(text)
            notices += [
                OutputAdded(job=id_, session=session, kind=OutputKind.TEXT, offset=at, text=_TEXT)
                for at in range(0, done.output_bytes, len(_TEXT))
            ]
            notices.append(JobEnded(job=id_, session=session, snapshot=done))
        for notice in notices:
            seq = next(numbers)
            rows.append(notice_rows.notice_row(notice, number).numbered(seq)[0])
            after = kept.after(seq)
            rows += kept.cut_to(after)
            kept = after
        if len(rows) > 10_000:
            db.write(database, rows, durable=False)
            rows = []
    rows.append(db.Row("UPDATE outbox SET state = ?", (NotificationState.DONE.value,)))
    rows.append(db.Row(_CLEANED_UP, (_ON_DISK,)))
    db.write(database, rows)
    database.close()


def _job(number: int) -> JobId:
    return JobId(f"job_{number:016x}")


@define(eq=False)
class History:
    """One journal of so many jobs, and what was measured of it, in seconds by the names of the rows."""

    folder: Path
    jobs: int
    found: dict[str, float] = field(factory=dict[str, float])
    journal: Journal = field(init=False)
    _forgotten: count[int] = field(factory=count, init=False)
    _beside: list[float] = field(factory=list[float], init=False)

    async def calls(self) -> dict[str, Callable[[], Awaitable[object]]]:
        journal, jobs, some = self.journal, self.jobs, _job(self.jobs // 2)
        last = (await journal.load()).last_seq
        due = LookForNotifications(now=1e12, latest=2e12, limit=16, aimed_only=False)
        return {
            "nothing, in a thread": partial(trio.to_thread.run_sync, _nothing),
            "load": journal.load,
            "status": partial(journal.job, some),
            "output": partial(journal.output, some, offset=0, limit=1 << 16),
            "start by key": partial(journal.keyed, f"key-{jobs // 2}"),
            "follow": partial(journal.notices, _job(jobs - 1), SessionKey("session-0"), after=0, upto=last),
            "outbox": partial(journal.notifications, due),
            "cleanup's list": partial(journal.on_disk, data=True, workspaces=True, after=""),
            "ended sessions": partial(journal.known_sessions, limit=_LISTED),
            "append": partial(append, journal, count()),
            "look for old jobs": partial(journal.old_jobs, _LIMITS),
            "look for old sessions": partial(journal.old_sessions, _LIMITS, but=set()),
            "look for what is left": journal.remove_strangers,
        }

    def forgetting(self) -> dict[str, Callable[[], Awaitable[object]]]:
        """A job each time, as long as there are some."""
        return {"forget a job": self._forget, "forget, for certain": self._forget_for_certain}

    async def _forget(self) -> None:
        await self.journal.append((JobForgotten(job=_job(next(self._forgotten))),))

    async def _forget_for_certain(self) -> None:
        await self._forget()
        await self.journal.remove_strangers()

    async def beside_housekeeping(self, rounds: int) -> None:
        """A status, while it is looked for what is old all the time."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._look)
            status = partial(self.journal.job, _job(self.jobs // 2))
            self._beside += [await _seconds(status) for _ in range(rounds)]
            nursery.cancel_scope.cancel()
        self.found["status beside it"] = statistics.median(self._beside)
        self.found["the worst of them"] = max(self._beside)

    async def _look(self) -> None:
        while True:
            await self.journal.old_jobs(_LIMITS)
            await self.journal.old_sessions(_LIMITS, but=set())
            await self.journal.remove_strangers()


def _nothing() -> None:
    pass


async def measure(histories: list[History], rounds: int) -> None:
    for history in histories:
        history.found.update(await _openings(history.folder, max(1, rounds // 40)))
    async with AsyncExitStack() as stack:
        for history in histories:
            history.journal = await stack.enter_async_context(open_journal(history.folder))
        await _in_turns(histories, [await one.calls() for one in histories], rounds)
        for _ in range(_TURNS):
            for history in histories:
                await history.beside_housekeeping(max(1, rounds // _TURNS))
        await _in_turns(histories, [one.forgetting() for one in histories], min(rounds, _FORGOTTEN))


async def _in_turns(
    histories: list[History], calls: list[dict[str, Callable[[], Awaitable[object]]]], rounds: int
) -> None:
    for name in calls[0]:
        times: list[list[float]] = [[] for _ in histories]
        over = perf_counter() + 5 * len(histories)
        while len(times[0]) < rounds and perf_counter() < over:
            for its, of in zip(times, calls, strict=True):
                its.append(await _seconds(of[name]))
        for history, its in zip(histories, times, strict=True):
            history.found[name] = statistics.median(its)


async def _seconds(call: Callable[[], Awaitable[object]]) -> float:
    begun = perf_counter()
    await call()
    return perf_counter() - begun


async def _openings(folder: Path, times: int) -> dict[str, float]:
    async def seconds() -> float:
        begun = perf_counter()
        async with open_journal(folder):
            return perf_counter() - begun

    examined: list[float] = []
    killed: list[float] = []
    for _ in range(times):
        os.utime(folder / "journal.sqlite")
        examined.append(await seconds())
        await trio.run_process([sys.executable, "-c", _KILLED, str(folder)], check=False)
        killed.append(await seconds())
    return {
        "open": statistics.median([await seconds() for _ in range(times * 4)]),
        "open, killed": statistics.median(killed),
        "open, examined": statistics.median(examined),
    }


async def append(journal: Journal, numbers: count[int]) -> None:
    at, id_ = next(numbers) * len(_TEXT), JobId("job_of_now")
    record = OutputRecorded(job=id_, text=_TEXT, offset=at)
    notice = OutputAdded(job=id_, session=SessionKey("now"), kind=OutputKind.TEXT, offset=at, text=_TEXT)
    await journal.append((record,), (notice,), at=1.0)


async def main(sizes: tuple[int, ...], rounds: int = _ROUNDS) -> None:
    with tempfile.TemporaryDirectory(prefix="oa-history-") as base:
        histories = [History(Path(base) / str(size), size) for size in sizes]
        for one in histories:
            await trio.to_thread.run_sync(fill, one.folder, one.jobs)
            megabytes = (one.folder / "journal.sqlite").stat().st_size / 1e6
            print(f"{one.jobs:,} jobs: {megabytes:.1f} MB", file=sys.stderr)  # noqa: T201
        await measure(histories, rounds)
    print(f"{'':22}" + "".join(f"{f'{size:,} jobs':>24}" for size in sizes))  # noqa: T201
    for name, first in histories[0].found.items():
        cells = (f"{one.found[name] * 1000:12.2f} ms {one.found[name] / first:7.1f}x" for one in histories)
        print(f"{name:22}" + "".join(f"{cell:>24}" for cell in cells))  # noqa: T201


if __name__ == "__main__":
    trio.run(main, tuple(map(int, sys.argv[1:])) or _SIZES)
