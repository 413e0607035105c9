"""What grows with the journal's history, beside a journal that has none, in the same run.

    python -m tests.benchmarks.history [JOBS ...]

Fills a journal with so many settled jobs (10, 1,000 and 100,000, if nothing else is said), each with its key,
its notices and its announcement, and a few that are open. Then: opening it, after an end in good order and after
SIGKILL; opening one that somebody else has written to, of which every page is examined; what a start loads, and
the calls behind `status`, `output`, `start(key=...)`, `follow`, the outbox, `cleanup`, and one append alone. What
counts is each column's ratio to the first. `cleanup` has eight sessions to list: the others were cleaned up before.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import count
from pathlib import Path
from time import perf_counter

import trio
from attrs import evolve

from opencode_actors.machines.notices import (
    Accepted,
    JobEnded,
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
from opencode_actors.store import notice_rows, outbox_rows
from opencode_actors.store.journal import Journal, open_journal
from tests.store.samples import job

_SIZES = (10, 1_000, 100_000)
_JOBS_OF_A_SESSION = 20
_PIECES = 8
_OPEN = 5
_ROUNDS = 200
_ON_DISK = 8
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
    for number in range(jobs):
        if number % max(1, jobs // 100) == 0:
            (folder / "outputs" / f"{_job(number)}.txt").write_text(_TEXT * _PIECES)


def _job(number: int) -> JobId:
    return JobId(f"job_{number:016x}")


async def measure(folder: Path, jobs: int, rounds: int) -> dict[str, float]:
    found = await _openings(folder, max(1, rounds // 40))
    async with open_journal(folder) as journal:
        last = (await journal.load()).last_seq
        some = _job(jobs // 2 - jobs // 2 % max(1, jobs // 100))
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "load": journal.load,
            "status": partial(journal.job, some),
            "output": partial(journal.output, some, offset=0, limit=1 << 16),
            "start by key": partial(journal.keyed, f"key-{jobs // 2}"),
            "follow": partial(journal.notices, _job(jobs - 1), SessionKey("session-0"), after=0, upto=last),
            "outbox": partial(
                journal.notifications, LookForNotifications(now=1e12, limit=16, aimed_only=False)
            ),
            "cleanup's list": partial(journal.on_disk, data=True, workspaces=True, after=""),
            "append": partial(append, journal, count()),
        }
        for name, call in calls.items():
            found[name] = await _median(call, rounds)
    return found


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


async def _median(call: Callable[[], Awaitable[object]], rounds: int) -> float:
    times: list[float] = []
    over = perf_counter() + 5
    while len(times) < rounds and perf_counter() < over:
        begun = perf_counter()
        await call()
        times.append(perf_counter() - begun)
    return statistics.median(times)


async def main(sizes: tuple[int, ...], rounds: int = _ROUNDS) -> None:
    table: dict[int, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="oa-history-") as base:
        for size in sizes:
            folder = Path(base) / str(size)
            await trio.to_thread.run_sync(fill, folder, size)
            megabytes = (folder / "journal.sqlite").stat().st_size / 1e6
            print(f"{size:,} jobs: {megabytes:.1f} MB", file=sys.stderr)  # noqa: T201
            table[size] = await measure(folder, size, rounds)
    print(f"{'':16}" + "".join(f"{f'{size:,} jobs':>24}" for size in sizes))  # noqa: T201
    for name, first in table[sizes[0]].items():
        cells = (f"{found[name] * 1000:12.2f} ms {found[name] / first:7.1f}x" for found in table.values())
        print(f"{name:16}" + "".join(f"{cell:>24}" for cell in cells))  # noqa: T201


if __name__ == "__main__":
    trio.run(main, tuple(map(int, sys.argv[1:])) or _SIZES)
