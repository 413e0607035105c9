"""What a store forgets: the oldest, a little at a time, and never what somebody still needs."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Awaitable, Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import cast

import pytest
import trio
from attrs import define, evolve

from opencode_actors.errors import StoreError
from opencode_actors.machines.matters import Choice, Matter, Scope
from opencode_actors.machines.notices import (
    Accepted,
    Attachment,
    ChoiceRecorded,
    JobForgotten,
    JobRecorded,
    OutputRecorded,
    SessionAttached,
    SessionChanged,
    SessionForgotten,
    SessionForked,
    SessionRecorded,
)
from opencode_actors.machines.vocabulary import JobId, JobStatus, SessionKey, SessionStatus
from opencode_actors.ports import Prompt
from opencode_actors.store import database as db
from opencode_actors.store import old_rows
from opencode_actors.store.journal import Journal, open_journal
from opencode_actors.store.output_files import OutputFiles
from opencode_actors.store.port import Limits, Store
from opencode_actors.store.schema import _SIZES, MIGRATIONS, script

from .samples import CONVERSATION, conversation, job, said
from .test_store import OpenStore, open_store

__all__ = ["open_store"]

_WITHIN = 30.0
ALL = Limits(jobs=0, jobs_before=0.0, outputs=0, unkeyed_before=0.0, sessions=0, sessions_before=0.0)


def ended(
    number: int, session: str, *, status: JobStatus = JobStatus.COMPLETED, key: str = ""
) -> JobRecorded:
    recorded = job(status, id_=JobId(f"job_{number}"))
    plan = Accepted(prompt=Prompt(text="x"), timeout=None, at=float(number), since=0, key=key or None)
    return evolve(recorded, snapshot=evolve(recorded.snapshot, session=SessionKey(session)), accepted=plan)


def output(number: int, text: str) -> OutputRecorded:
    return said(text, id_=JobId(f"job_{number}"))


async def filled(store: Store) -> None:
    """Four ended jobs of `a` and two of `b`, and one of `c` that runs."""
    for number in (1, 2, 3, 4):
        await store.append((ended(number, "a"), output(number, "x" * 10)))
    await store.append((ended(5, "b"), ended(6, "b"), ended(7, "c", status=JobStatus.RUNNING)))


async def known(store: Store, limit: int) -> tuple[SessionKey, ...]:
    return tuple(session.key for session in await store.known_sessions(limit=limit))


@pytest.mark.parametrize(
    ("limits", "gone"),
    [
        (ALL, []),
        (evolve(ALL, jobs=6), []),
        (evolve(ALL, jobs=4), ["job_1", "job_2"]),
        (evolve(ALL, jobs=1), ["job_1", "job_2", "job_3", "job_5"]),  # the last of each session stays
        (evolve(ALL, jobs_before=3.0), ["job_1", "job_2"]),
        (evolve(ALL, outputs=25), ["job_1", "job_2"]),
        (evolve(ALL, outputs=40), []),
    ],
)
async def test_ended_jobs_are_old_by_count_by_age_and_by_size(
    open_store: OpenStore, limits: Limits, gone: list[str]
) -> None:
    async with open_store() as store:
        await filled(store)
        old = await store.old_jobs(limits)
        assert list(old) == gone
        await store.append(tuple(JobForgotten(job=id_) for id_ in old))
        assert await store.old_jobs(limits) == ()
        for id_ in old:
            assert await store.job(id_) is None
            assert (await store.output(id_, offset=0, limit=9)).text == ""
        assert (await store.load()).unsettled[0].snapshot.id == "job_7"
        assert (await store.output(JobId("job_4"), offset=0, limit=99)).text == "x" * 10


async def test_a_job_that_a_key_stands_for_or_that_is_to_be_announced_stays(open_store: OpenStore) -> None:
    async with open_store() as store:
        told = ended(2, "a")
        told = evolve(told, snapshot=evolve(told.snapshot, notify=True))
        await store.append((ended(1, "a", key="k"), told, ended(3, "a")))
        most = evolve(ALL, jobs=1)
        assert await store.old_jobs(evolve(most, unkeyed_before=0.5)) == ()
        assert await store.old_jobs(evolve(most, unkeyed_before=1.5)) == ("job_1",)


async def test_a_job_of_which_nobody_knows_when_it_came_goes_by_count_alone(open_store: OpenStore) -> None:
    async with open_store() as store:
        await store.append((evolve(ended(1, "a"), accepted=None), ended(2, "a"), ended(3, "a")))
        assert await store.old_jobs(evolve(ALL, jobs_before=9.0)) == ("job_2",)
        assert await store.old_jobs(evolve(ALL, jobs=2)) == ("job_1",)


async def test_sessions_are_old_by_count_and_by_age_and_go_with_all_that_is_theirs(
    open_store: OpenStore,
) -> None:
    a, b, c = SessionKey("a"), SessionKey("b"), SessionKey("c")
    async with open_store() as store:
        await filled(store)
        await store.append(
            (evolve(conversation(), session=a),), (SessionChanged(session=a, status=SessionStatus.ABSENT),)
        )
        assert await known(store, 9) == (c, b, a)
        assert await known(store, 1) == (c,)
        assert await store.old_sessions(ALL, but=set()) == ()
        assert await store.old_sessions(evolve(ALL, sessions=2), but=set()) == (a,)
        assert await store.old_sessions(evolve(ALL, sessions_before=5.0), but=set()) == (a,)
        assert await store.old_sessions(evolve(ALL, sessions=1, sessions_before=99.0), but=set()) == (
            a,
            b,
        )  # one runs
        assert await store.jobs_of(a) == ("job_1", "job_2", "job_3", "job_4")
        assert await store.jobs_of(c) is None  # one runs
        for number in (1, 2, 3, 4):
            await store.append((JobForgotten(job=JobId(f"job_{number}")),))
        assert await store.jobs_of(a) == ()
        assert (await store.recall(a)).conversation == CONVERSATION
        await store.append((SessionForgotten(session=a),))
        assert (await store.recall(a)).conversation is None
        assert not (await store.session(a)).heard_of
        assert await known(store, 9) == (c, b)


async def test_a_job_that_has_not_ended_is_never_forgotten(open_store: OpenStore) -> None:
    async with open_store() as store:
        await store.append((ended(1, "a", status=JobStatus.RUNNING), output(1, "said")))
        await store.append((JobForgotten(job=JobId("job_1")),))
        assert await store.job(JobId("job_1")) is not None
        assert (await store.output(JobId("job_1"), offset=0, limit=9)).text == "said"


async def test_sessions_that_never_had_a_job_are_old_by_what_was_announced_of_them(
    open_store: OpenStore,
) -> None:
    """Forks that nobody spoke to have a copy of everything, and would stay for ever."""
    fork, made, source = SessionKey("fork"), SessionKey("made"), SessionKey("source")
    told = SessionChanged(session=fork, status=SessionStatus.ABSENT)
    forked = SessionForked(session=fork, source=source, conversation=CONVERSATION)
    async with open_store() as store:
        await store.append((SessionRecorded(session=made, conversation=None),))
        await store.append((ended(1, "source"),))
        await store.append((forked,), (told,), at=2.0)
        await store.append((ended(3, "last"),))
        assert await store.old_sessions(evolve(ALL, sessions=1), but=set()) == (made, source, fork)
        assert await store.old_sessions(evolve(ALL, sessions=1), but={made, fork}) == (source,)
        assert await store.old_sessions(evolve(ALL, sessions_before=2.5), but=set()) == (made, source, fork)
        assert await store.old_sessions(evolve(ALL, sessions_before=2.0), but=set()) == (made, source)
        assert await store.jobs_of(fork) == ()
        await store.append((SessionForgotten(session=fork), SessionForgotten(session=made)))
        assert await store.old_sessions(evolve(ALL, sessions=1), but=set()) == (source,)
        assert (await store.recall(fork)).conversation is None
        assert not (await store.session(fork)).heard_of
        assert [one.key for one in await store.on_disk(data=True, workspaces=False, after="")] == [
            "last",
            "source",
        ]


async def test_an_attached_session_is_not_old_as_long_as_it_is_attached(open_store: OpenStore) -> None:
    a = SessionKey("a")
    attached = SessionAttached(
        session=a, attachment=Attachment(url="http://localhost:1"), conversation=CONVERSATION
    )
    async with open_store() as store:
        await store.append((attached, ended(1, "a"), ended(2, "b"), ended(3, "c")))
        most = evolve(ALL, sessions=1, sessions_before=9.0)
        assert await store.old_sessions(most, but=set()) == ("b", "c")
        await store.append((evolve(attached, attachment=None, conversation=None),))
        assert await store.old_sessions(most, but=set()) == ("a", "b", "c")


async def test_with_a_session_goes_what_was_chosen_for_it(open_store: OpenStore) -> None:
    """The next one of its name began with somebody's image, and was told what somebody else wanted to hear."""
    a = SessionKey("a")
    mine, channels = (
        Choice(scope=scope, name="a", matter=Matter.TEXT, on=True) for scope in (Scope.SESSION, Scope.CHANNEL)
    )
    first = ended(1, "a")
    assert first.accepted is not None
    special = evolve(first, accepted=evolve(first.accepted, image="localhost/special:1"))
    async with open_store() as store:
        await store.append((special, ChoiceRecorded(choice=mine), ChoiceRecorded(choice=channels)))
        assert (await store.recall(a)).image == "localhost/special:1"
        await store.append((JobForgotten(job=JobId("job_1")), SessionForgotten(session=a)))
        assert (await store.recall(a)).image == ""
        assert (await store.load()).choices == (channels,)


# ---- the disk


async def forgotten_with_its_output_left(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, jobs: int = 1
) -> None:
    """As by a process that ends between the one and the other."""

    def leave(*_: object) -> None:
        pass

    with monkeypatch.context() as patched:
        patched.setattr(OutputFiles, "remove", leave)
        async with open_journal(folder) as journal:
            for number in range(1, jobs + 1):
                await journal.append((ended(number, "a"), output(number, "said")))
            await journal.append(tuple(JobForgotten(job=JobId(f"job_{n}")) for n in range(1, jobs + 1)))


def on_record(folder: Path) -> int:
    """How many outputs are to go."""
    with closing(sqlite3.connect(folder / "journal.sqlite")) as database:
        (count,) = cast("tuple[int]", database.execute("SELECT COUNT(*) FROM to_remove").fetchone())
    return count


async def test_output_of_a_forgotten_job_is_looked_for_P18(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process may end between forgetting a job and removing its output; there are more than are looked at at once."""
    outputs = tmp_path / "outputs"
    await forgotten_with_its_output_left(tmp_path, monkeypatch, jobs=150)
    assert len(list(outputs.iterdir())) == on_record(tmp_path) == 150
    async with open_journal(tmp_path) as journal:
        await journal.append((ended(999, "a"), output(999, "kept")))
        await journal.remove_strangers()
    assert [path.name for path in outputs.iterdir()] == ["job_999.txt"]
    assert on_record(tmp_path) == 0


async def test_an_output_is_to_go_until_it_is_certain_that_it_has_gone_P18(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power failure may bring a removed file back, and a process may end before it has written that it is gone."""
    order: list[str] = []
    certain, write = OutputFiles.make_removals_durable, db.write

    def to_the_disk(self: OutputFiles) -> None:
        order.append(f"certain, {on_record(tmp_path)} on record")
        certain(self)

    def fails(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("disk full")

    async with open_journal(tmp_path) as journal:
        await journal.append((ended(1, "a"), output(1, "said")))
        await journal.append((JobForgotten(job=JobId("job_1")),))
    back = tmp_path / "outputs" / "job_1.txt"
    assert not back.exists()
    back.write_text("said")
    monkeypatch.setattr(OutputFiles, "make_removals_durable", to_the_disk)
    async with open_journal(tmp_path) as journal:
        monkeypatch.setattr(db, "write", fails)
        with pytest.raises(StoreError, match="disk full"):
            await journal.remove_strangers()
        monkeypatch.setattr(db, "write", write)
        assert (back.exists(), on_record(tmp_path)) == (False, 1)
        await journal.remove_strangers()
        assert on_record(tmp_path) == 0
        await journal.remove_strangers()
    assert order == ["certain, 1 on record"] * 2  # and where there is nothing to do the disk is not asked


async def test_output_that_the_journal_says_nothing_of_is_nobodys_to_remove(tmp_path: Path) -> None:
    """Who has moved a damaged journal away was told that the output of its jobs stays."""
    async with open_journal(tmp_path) as journal:
        await journal.append((ended(1, "a"), output(1, "kept")))
    (tmp_path / "journal.sqlite").unlink()
    (tmp_path / "outputs" / "note").write_text("somebody's own")
    async with open_journal(tmp_path) as journal:
        await journal.remove_strangers()
    assert {path.name for path in (tmp_path / "outputs").iterdir()} == {"job_1.txt", "note"}


async def test_a_file_that_cannot_be_removed_keeps_no_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("not yours")

    async with open_journal(tmp_path) as journal:
        await journal.append((ended(1, "a"), output(1, "x")))
        with monkeypatch.context() as patched:
            patched.setattr(OutputFiles, "remove", refuse)
            await journal.append((JobForgotten(job=JobId("job_1")),))
        assert await journal.job(JobId("job_1")) is None
        await journal.remove_strangers()
        assert not (tmp_path / "outputs" / "job_1.txt").exists()


async def test_behind_a_page_of_sessions_that_cannot_go_are_others(tmp_path: Path) -> None:
    async with open_journal(tmp_path) as journal:
        await journal.append(tuple(ended(number, f"s{number:02}") for number in range(1, 41)))
        most = evolve(ALL, sessions=1)
        page = await journal.old_sessions(most, but=set())
        assert page == tuple(f"s{number:02}" for number in range(1, 33))
        assert await journal.old_sessions(most, but=set(page)) == tuple(
            f"s{number}" for number in range(33, 40)
        )


# ---- who waits for whom


@pytest.mark.parametrize("what", ["old_jobs", "old_sessions", "remove_strangers"])
async def test_nobody_waits_for_what_looks_for_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """It has to look at all that there ever was: a status behind it took a second with 100,000 jobs."""
    await forgotten_with_its_output_left(tmp_path, monkeypatch)
    begun, go_on = threading.Event(), threading.Event()
    parts: dict[str, tuple[object, str]] = {
        "old_jobs": (old_rows, "read_old_jobs"),
        "old_sessions": (old_rows, "read_old_sessions"),
        "remove_strangers": (OutputFiles, "make_removals_durable"),
    }

    def held(*_: object) -> tuple[JobId, ...]:
        begun.set()
        assert go_on.wait(_WITHIN)
        return ()

    async with open_journal(tmp_path) as journal, trio.open_nursery() as nursery:
        await journal.append((ended(9, "a"), output(9, "said")))
        monkeypatch.setattr(*parts[what], held)
        looks: dict[str, Callable[[], Awaitable[object]]] = {
            "old_jobs": partial(journal.old_jobs, ALL),
            "old_sessions": partial(journal.old_sessions, ALL, but=set()),
            "remove_strangers": journal.remove_strangers,
        }
        nursery.start_soon(looks[what])
        try:
            with trio.fail_after(_WITHIN):
                assert await trio.to_thread.run_sync(begun.wait, _WITHIN)
                known_job = await journal.job(JobId("job_9"))
                assert known_job is not None
                assert (await journal.output(JobId("job_9"), offset=0, limit=9)).text == "said"
                assert await known(journal, 9) == ("a",)
                await journal.append((conversation(),))
                assert not go_on.is_set()
        finally:
            go_on.set()


async def test_sessions_are_known_in_the_order_of_the_newest_jobs_that_are_kept(
    open_store: OpenStore,
) -> None:
    async with open_store() as store:
        await store.append((ended(1, "a"), ended(2, "b"), ended(3, "c"), ended(4, "a")))
        assert await known(store, 9) == ("a", "c", "b")
        await store.append((ended(2, "b"),))  # said again, and no newer
        assert await known(store, 2) == ("a", "c")
        await store.append((JobForgotten(job=JobId("job_3")),))
        assert await known(store, 9) == ("a", "b")
        await store.append((JobForgotten(job=JobId("job_4")),))
        assert await known(store, 9) == ("b", "a")
        await store.append((SessionForgotten(session=SessionKey("b")),))  # nobody does that: it has a job
        assert await known(store, 9) == ("b", "a")


async def test_the_last_sessions_are_found_without_a_look_at_all_jobs(tmp_path: Path) -> None:
    async with open_journal(tmp_path):
        pass
    with closing(db.open_for_reading(tmp_path / "journal.sqlite")) as database:
        plan = database.execute(f"EXPLAIN QUERY PLAN {old_rows._KNOWN}", (9,)).fetchall()
    assert [step[3] for step in plan] == ["SEARCH sessions USING COVERING INDEX by_newest (newest>?)"]


@pytest.mark.parametrize(
    ("statement", "steps"),
    [
        (
            old_rows._JOBS,
            [
                "SEARCH jobs USING INDEX ended (number<?)",
                "SEARCH jobs USING INDEX ended_by_age (created<?)",
            ],
        ),
        # No further than to what is not too old.
        (old_rows._SPOKEN, ["SCAN sessions USING INDEX by_use", "SCAN jobs USING INDEX unsettled"]),
        (old_rows._UNSPOKEN, ["SCAN sessions USING INDEX unspoken", "SCAN jobs USING INDEX unsettled"]),
    ],
)
async def test_the_old_are_found_without_a_look_at_all_that_is_kept(
    tmp_path: Path, statement: str, steps: list[str]
) -> None:
    """With 100,000 jobs each look took 17 ms, though nothing was too old."""
    wanted = {"upto": 0, "before": 0.0, "unkeyed": 0.0}
    async with open_journal(tmp_path):
        pass
    with closing(db.open_for_reading(tmp_path / "journal.sqlite")) as database:
        plan = [step[3] for step in database.execute(f"EXPLAIN QUERY PLAN {statement}", wanted)]
    through = [
        step for step in plan if step.startswith(("SCAN jobs", "SEARCH jobs USING INDEX ended", "SCAN sess"))
    ]
    assert through == steps, plan


@define
class _Meddled:
    """A connection beside which somebody speaks to a fork, just before this is asked."""

    database: sqlite3.Connection
    before: str
    meddle: Callable[[], None]

    def execute(self, statement: str) -> sqlite3.Cursor:
        if statement == self.before:
            self.meddle()
        return self.database.execute(statement)

    def rollback(self) -> None:
        self.database.rollback()


async def test_a_fork_that_is_spoken_to_while_it_is_counted_takes_nobodys_place(tmp_path: Path) -> None:
    fork = SessionForked(session=SessionKey("fork"), source=SessionKey("a"), conversation=CONVERSATION)
    async with open_journal(tmp_path) as journal:
        await journal.append((ended(1, "a"), ended(2, "b"), fork))
    path, spoken_to = tmp_path / "journal.sqlite", db.row_of(ended(3, "fork"))
    with closing(db.open_for_reading(path)) as reading, closing(sqlite3.connect(path)) as writing:

        def speak() -> None:
            writing.execute(spoken_to.statement, spoken_to.values)
            writing.commit()

        meddled = cast(sqlite3.Connection, _Meddled(reading, old_rows._HOW_MANY_SPOKEN, speak))
        limits = evolve(ALL, sessions=3)
        assert old_rows.read_old_sessions(meddled, limits, set()) == ()
        assert old_rows.read_old_sessions(reading, evolve(ALL, sessions=2), set()) == ("a",)


async def test_how_much_is_kept_is_known_whatever_becomes_of_it(tmp_path: Path) -> None:
    async def kept(journal: Journal) -> tuple[int, int]:
        return await journal._reader.read(old_rows._kept)

    running = ended(2, "a", status=JobStatus.RUNNING)
    async with open_journal(tmp_path) as journal:
        await journal.append((ended(1, "a"), output(1, "x" * 10), running, output(2, "y" * 5)))
        assert await kept(journal) == (1, 10)
        await journal.append((ended(1, "a"), ended(2, "a")))  # the one is said again
        assert await kept(journal) == (2, 15)
        await journal.append((JobForgotten(job=JobId("job_1")), ended(3, "a")))
        assert await kept(journal) == (2, 5)
        await journal.append((JobForgotten(job=JobId("job_2")),))
        assert await kept(journal) == (1, 0)


async def test_what_was_kept_before_there_were_sizes_is_as_old_as_it_was(tmp_path: Path) -> None:
    old = sqlite3.connect(tmp_path / "journal.sqlite")
    for number, step in enumerate(MIGRATIONS[: MIGRATIONS.index(_SIZES)], start=1):
        old.executescript(script(step, number))
    records = [
        ended(1, "a"),
        ended(2, "b"),
        ended(3, "a"),
        ended(4, "c"),
        ended(5, "b", status=JobStatus.RUNNING),
    ]
    for record in records:
        row = db.row_of(evolve(record, snapshot=evolve(record.snapshot, output_bytes=10)))
        old.execute(row.statement, row.values)
    old.execute("UPDATE jobs SET snapshot = '{' WHERE id = 'job_4'")  # nobody's size
    old.commit()
    old.close()
    async with open_journal(tmp_path) as journal:
        assert await known(journal, 9) == ("b", "c", "a")
        assert await journal.old_sessions(evolve(ALL, sessions=2), but=set()) == ("a",)
        assert await journal.old_sessions(evolve(ALL, sessions_before=4.5), but=set()) == ("a", "c")
        assert await journal.old_jobs(evolve(ALL, outputs=30)) == ()
        assert await journal.old_jobs(evolve(ALL, outputs=20)) == ("job_1",)
        assert await journal.old_jobs(evolve(ALL, outputs=10)) == ("job_1", "job_2")
        await journal.append((ended(6, "a"), output(6, "x" * 10)))
        assert await journal.old_jobs(evolve(ALL, outputs=30)) == ("job_1",)
        await journal.append((JobForgotten(job=JobId("job_1")),))
        assert await journal.old_jobs(evolve(ALL, outputs=30)) == ()
