"""The sums of each day: written once with a job's end, there when the job is forgotten, read by their days alone."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Generator
from pathlib import Path

import pytest
from attrs import evolve

from opencode_actors.machines.notices import Accepted, JobRecorded
from opencode_actors.machines.server_events import Tokens
from opencode_actors.machines.totals import DEAREST_KEPT, Tally
from opencode_actors.machines.vocabulary import Cause, Failure, JobId, JobStatus
from opencode_actors.ports import Prompt
from opencode_actors.store import database as db
from opencode_actors.store import total_rows
from opencode_actors.store.journal import open_journal
from opencode_actors.store.schema import _TOTALS, MIGRATIONS, script

from .samples import job
from .test_store import OpenStore, open_store

__all__ = ["open_store"]

# 23:30 on the 26th in Berlin, where it is already another day than in the Pacific, and not yet one in Tokyo.
LATE = 1_795_732_200.0
DAY = 86_400.0


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def ended(number: int, **changes: object) -> JobRecorded:
    usual: dict[str, object] = {
        "status": JobStatus.COMPLETED,
        "failure": None,
        "started_at": LATE - 100.0,
        "cost_usd": 0.25,
        "cost_known": True,
    }
    snapshot = evolve(
        job().snapshot,
        id=JobId(f"job_{number:016x}"),
        name=f"number {number}",
        prompt="do it",
        elapsed_seconds=110.0,
        tokens=Tokens(input=10, output=3),
        **usual | changes,  # type: ignore[arg-type]
    )
    accepted = Accepted(prompt=Prompt(text="do it"), timeout=None, at=LATE - 110.0, since=0)
    return JobRecorded(snapshot=snapshot, accepted=accepted)


def failed(number: int, cause: Cause = Cause.BUDGET, **changes: object) -> JobRecorded:
    return ended(
        number, **{"status": JobStatus.FAILED, "failure": Failure(cause=cause, message="no"), **changes}
    )


@pytest.mark.usefixtures("berlin")
async def test_a_job_counts_once_on_the_local_day_of_its_end_C8(open_store: OpenStore) -> None:
    async with open_store() as store:
        await store.append((job(JobStatus.PENDING), ended(1)), at=LATE)
        await store.append((ended(1),), at=LATE)  # what is recorded again is not another job
        await store.append((failed(2, cost_usd=0.5),), at=LATE + 3600.0)
        await store.append((failed(3, Cause.CRASH, started_at=None, cost_usd=0.0),), at=LATE + 3600.0)
        found = await store.totals("2026-11-26")
        assert [(day, tally.jobs, tally.cost) for day, tally in found.days] == [
            ("2026-11-26", 1, 0.25),
            ("2026-11-27", 2, 0.5),
        ]
        assert found.whole == Tally(jobs=3, ran=2, seconds=3800.0, cost=0.75, tokens_in=30, tokens_out=9)
        assert found.whole.mean_seconds == 1900.0
        assert [(name, tally.jobs) for name, tally in found.outcomes] == [("failed", 2), ("completed", 1)]
        assert [name for name, _ in found.causes] == ["budget", "crash"]
        assert [name for name, _ in found.models] == ["scripted/demo"]
        assert [one.name for one in found.dearest] == ["number 2", "number 1"]
        later = await store.totals("2026-11-27")
        assert (later.whole.jobs, [one.name for one in later.dearest]) == (2, ["number 2"])


@pytest.mark.usefixtures("berlin")
async def test_a_model_without_a_price_is_unknown_and_never_0_C8(open_store: OpenStore) -> None:
    async with open_store() as store:
        await store.append((ended(1, cost_usd=0.0, cost_known=False, model="free/one"),), at=LATE)
        alone = await store.totals("2026-11-26")
        assert alone.whole.cost_usd is None
        await store.append((ended(2),), at=LATE)
        found = await store.totals("2026-11-26")
        assert (found.whole.cost_usd, found.whole.unpriced) == (0.25, 1)
        assert {name: tally.cost_usd for name, tally in found.models} == {
            "scripted/demo": 0.25,
            "free/one": None,
        }
        assert [one.model for one in found.dearest] == ["scripted/demo"]


@pytest.mark.usefixtures("berlin")
async def test_of_the_most_expensive_a_few_are_kept_of_each_day(open_store: OpenStore) -> None:
    async with open_store() as store:
        for number in range(20):
            await store.append((ended(number, cost_usd=0.01 * (number * 7 % 20 + 1)),), at=LATE)
        found = await store.totals("2026-11-01")
        costs = [round(one.cost, 2) for one in found.dearest]
        assert costs == [0.2, 0.19, 0.18, 0.17, 0.16]
        assert len(costs) == DEAREST_KEPT


@pytest.mark.usefixtures("berlin")
async def test_what_was_summed_stays_when_its_jobs_are_forgotten(tmp_path: Path) -> None:
    async with open_journal(tmp_path) as journal:
        await journal.append((ended(1), failed(2)), at=LATE)
    with sqlite3.connect(tmp_path / "journal.sqlite") as database:
        database.execute("DELETE FROM jobs")
    database.close()
    async with open_journal(tmp_path) as journal:
        assert (await journal.totals("2026-11-26")).whole.jobs == 2


async def test_reading_walks_along_the_days_that_are_asked_for_and_no_further(tmp_path: Path) -> None:
    async with open_journal(tmp_path):
        pass
    database = db.open_for_reading(tmp_path / "journal.sqlite")
    for query in (total_rows._TOTALS, total_rows._DEAREST):
        (plan,) = database.execute(f"EXPLAIN QUERY PLAN {query}", ("2026-11-26",)).fetchall()
        assert plan[3].endswith("USING PRIMARY KEY (day>?)")
    database.close()


@pytest.mark.usefixtures("berlin")
async def test_what_had_settled_before_there_were_sums_is_counted(tmp_path: Path) -> None:
    before = MIGRATIONS.index(_TOTALS)
    old = sqlite3.connect(tmp_path / "journal.sqlite")
    for number, step in enumerate(MIGRATIONS[:before], start=1):
        old.executescript(script(step, number))
    records = [ended(1), failed(2, cost_usd=0.5, cost_known=False), job(JobStatus.RUNNING)]
    records += [ended(number, cost_usd=0.01) for number in range(10, 20)]
    for record in records:
        row = db.row_of(record)
        old.execute(row.statement, row.values)
    old.commit()
    old.close()
    async with open_journal(tmp_path) as journal:
        found = await journal.totals("2026-11-26")
        assert [(day, tally.jobs) for day, tally in found.days] == [("2026-11-26", 12)]
        assert (found.whole.ran, found.whole.seconds, found.whole.unpriced) == (12, 1200.0, 1)
        assert (found.whole.tokens_in, found.whole.tokens_out) == (120, 36)
        assert [name for name, _ in found.causes] == ["budget"]
        assert [round(one.cost, 2) for one in found.dearest] == [0.5, 0.25, 0.01, 0.01, 0.01]
        await journal.append((ended(1),), at=LATE)
        assert (await journal.totals("2026-11-26")).whole.jobs == 12


def test_the_first_of_so_many_days_is_counted_with_today(berlin: None) -> None:
    assert total_rows.first_day(LATE, 1) == "2026-11-26"
    assert total_rows.first_day(LATE + 3600.0, 1) == "2026-11-27"
    assert total_rows.first_day(LATE, 7) == "2026-11-20"
