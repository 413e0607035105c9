"""What is owed for a settled job stands in the journal with its end, and neither without the other (P17)."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol

import pytest
from attrs import evolve

from opencode_actors.errors import StoreError
from opencode_actors.machines.notices import JobEnded, JobRecorded, NotificationFailed, NotificationRecorded
from opencode_actors.machines.outbox_messages import LookForNotifications, Notification, NotificationsFound
from opencode_actors.machines.vocabulary import JobId, JobStatus, NotificationState, Origin
from opencode_actors.store.journal import open_journal
from opencode_actors.store.port import Store
from opencode_actors.testing.memory_store import MemoryStore

from .samples import JOB, SESSION, job

AT = 1_760_000_000.0
CHAT = Origin(session_key="agent:main:lab")
PENDING, CLAIMED, DONE = NotificationState.PENDING, NotificationState.CLAIMED, NotificationState.DONE


class OpenStore(Protocol):
    def __call__(self) -> AbstractAsyncContextManager[Store]: ...


@pytest.fixture(params=["journal", "memory"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> OpenStore:
    """The same store each time."""
    memory = MemoryStore()

    @asynccontextmanager
    async def in_memory() -> AsyncGenerator[Store]:
        yield memory

    @asynccontextmanager
    async def on_disk() -> AsyncGenerator[Store]:
        async with open_journal(tmp_path) as journal:
            yield journal

    return on_disk if request.param == "journal" else in_memory


def settled(
    id_: str = JOB,
    *,
    status: JobStatus = JobStatus.COMPLETED,
    notify: bool = True,
    origin: Origin | None = None,
) -> JobRecorded:
    made = job(status, id_=JobId(id_))
    return evolve(made, snapshot=evolve(made.snapshot, notify=notify, origin=origin))


async def look(
    store: Store, *, now: float = AT, limit: int = 10, aimed_only: bool = False
) -> NotificationsFound:
    return await store.notifications(
        LookForNotifications(now=now, latest=now + 3600, limit=limit, aimed_only=aimed_only)
    )


def recorded(
    state: NotificationState, *, due: float = AT, attempts: int = 0, last_offer: int = 0
) -> NotificationRecorded:
    return NotificationRecorded(job=JOB, state=state, due=due, attempts=attempts, last_offer=last_offer)


def ids(found: NotificationsFound) -> list[str]:
    return [one.job for one in found.found]


async def test_P17_a_notification_begins_with_the_end_of_its_job(open_store: OpenStore) -> None:
    async with open_store() as store:
        await store.append((settled(status=JobStatus.RUNNING),), at=AT - 5)
        assert await look(store) == NotificationsFound(found=(), next_due=None)
        await store.append((settled(),), at=AT)
        one = Notification(job=JOB, session=SESSION, aimed=False, since=AT)
        assert await look(store) == NotificationsFound(found=(one,), next_due=None)
    async with open_store() as store:
        assert ids(await look(store, now=AT + 1e6)) == [JOB]


async def test_one_that_nobody_wants_told_has_none(open_store: OpenStore) -> None:
    async with open_store() as store:
        await store.append((settled(notify=False),), at=AT)
        assert await look(store) == NotificationsFound(found=(), next_due=None)


async def test_an_end_that_is_recorded_twice_is_owed_once(open_store: OpenStore) -> None:
    """As when its actor crashed between its record and its last word."""
    async with open_store() as store:
        await store.append((settled(),), at=AT)
        await store.append((recorded(DONE),))
        await store.append((settled(),), at=AT + 1)
        assert await look(store, now=AT + 10) == NotificationsFound(found=(), next_due=None)


async def test_what_was_tried_is_there_the_next_time(open_store: OpenStore) -> None:
    async with open_store() as store:
        await store.append((settled(origin=CHAT),), at=AT)
        await store.append((recorded(PENDING, due=AT + 60, attempts=3, last_offer=2),))
    async with open_store() as store:
        assert await look(store) == NotificationsFound(found=(), next_due=AT + 60)
        one = Notification(job=JOB, session=SESSION, aimed=True, since=AT, attempts=3, last_offer=2)
        assert await look(store, now=AT + 60) == NotificationsFound(found=(one,), next_due=None)


async def test_P17_a_clock_that_is_set_back_keeps_nothing_waiting(open_store: OpenStore) -> None:
    async with open_store() as store:
        await store.append((settled(),), at=AT)
        assert ids(await look(store, now=AT - 1800)) == [JOB]
        await store.append((recorded(PENDING, due=AT + 60),))
        assert await look(store, now=AT - 1800) == NotificationsFound(found=(), next_due=AT + 60)
        assert ids(await look(store, now=AT - 7200)) == [JOB]


async def test_a_claim_that_was_not_kept_is_found_when_it_is_over(open_store: OpenStore) -> None:
    async with open_store() as store:
        await store.append((settled(origin=CHAT),), at=AT)
        await store.append((recorded(CLAIMED, due=AT + 15),))
        assert await look(store, now=AT + 14) == NotificationsFound(found=(), next_due=AT + 15)
        assert ids(await look(store, now=AT + 15)) == [JOB]


@pytest.mark.parametrize("final", [DONE, NotificationState.REFUSED, NotificationState.EXPIRED])
async def test_what_is_final_stays_so(open_store: OpenStore, final: NotificationState) -> None:
    async with open_store() as store:
        await store.append((settled(),), at=AT)
        await store.append((recorded(final),))
        await store.append((recorded(PENDING),))
        assert await look(store, now=AT + 1e6) == NotificationsFound(found=(), next_due=None)


async def test_the_longest_due_come_first_and_no_more_than_asked_for(open_store: OpenStore) -> None:
    async with open_store() as store:
        for number in (3, 1, 2, 4):
            origin = CHAT if number % 2 else None
            await store.append((settled(f"job-{number}", origin=origin),), at=AT)
            later = evolve(recorded(PENDING, due=AT + number), job=JobId(f"job-{number}"))
            await store.append((later,))
        assert ids(await look(store, now=AT + 3)) == ["job-1", "job-2", "job-3"]
        assert ids(await look(store, now=AT + 3, limit=2)) == ["job-1", "job-2"]
        assert (await look(store, now=AT + 1)).next_due == AT + 2
        aimed = await look(store, now=AT + 1, aimed_only=True)
        assert (ids(aimed), aimed.next_due) == (["job-1"], AT + 3)
        assert (await look(store, now=AT + 3, aimed_only=True)).next_due is None


async def test_a_failure_to_tell_is_no_notice_of_the_job(open_store: OpenStore) -> None:
    """Nothing comes after the end of a job, for whoever follows it."""
    failed = NotificationFailed(about=JOB, session=SESSION, reason="HTTP 401", hint="set the token")
    async with open_store() as store:
        final = settled()
        await store.append((final,), (JobEnded(job=JOB, session=SESSION, snapshot=final.snapshot),), at=AT)
        await store.append((recorded(NotificationState.REFUSED),), (failed,), at=AT)
        known = await store.job(JOB)
        assert known is not None
        assert known.ended == 1
        page = await store.notices(None, SESSION, after=0, upto=10)
        assert page.notices[1:] == (evolve(failed, seq=2, at=AT),)


async def test_what_cannot_be_recorded_together_is_not_recorded(tmp_path: Path) -> None:
    """The end of a job without its notification would be a word that nobody ever hears."""
    async with open_journal(tmp_path) as journal:
        await journal.append((settled(status=JobStatus.RUNNING),), at=AT)
    async with open_journal(tmp_path) as journal:
        journal._writing.execute("DROP TABLE outbox")
        with pytest.raises(StoreError):
            await journal.append((settled(),), at=AT)
        known = await journal.job(JOB)
        assert known is not None
        assert known.snapshot.status is JobStatus.RUNNING


async def test_a_notification_goes_with_its_job(tmp_path: Path) -> None:
    async with open_journal(tmp_path) as journal:
        await journal.append((settled(),), at=AT)
    with sqlite3.connect(tmp_path / "journal.sqlite") as database:
        database.execute("DELETE FROM jobs")
    database.close()
    async with open_journal(tmp_path) as journal:
        assert await look(journal) == NotificationsFound(found=(), next_due=None)


SETTLE_FOR_EVER = """
import sys, trio
from pathlib import Path
from opencode_actors.store.journal import open_journal
from tests.store.test_outbox import AT, settled

async def main():
    async with open_journal(Path(sys.argv[1])) as journal:
        number = 0
        while True:
            await journal.append((settled(f"job-{number}"),), at=AT)
            print(f"job-{number}", flush=True)
            number += 1

trio.run(main)
"""


def settled_before_a_kill(folder: Path) -> list[str]:
    writer = subprocess.Popen(
        [sys.executable, "-c", SETTLE_FOR_EVER, str(folder)], stdout=subprocess.PIPE, text=True
    )
    with writer:
        assert writer.stdout is not None
        some = [writer.stdout.readline().strip() for _ in range(30)]
        writer.kill()
        return some + writer.stdout.read().split()


async def test_P17_after_a_kill_every_settled_job_has_its_notification_and_no_other_has(
    tmp_path: Path,
) -> None:
    acknowledged = settled_before_a_kill(tmp_path)
    async with open_journal(tmp_path) as journal:
        owed = set(ids(await look(journal, limit=1_000_000)))
        assert set(acknowledged) <= owed
        for id_ in owed:
            known = await journal.job(JobId(id_))
            assert known is not None
            assert known.snapshot.settled
