"""What every store does, the one on the disk and the one in memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from attrs import evolve

from opencode_actors.machines.notices import Accepted, JobRecorded, Notice, SessionChanged
from opencode_actors.machines.vocabulary import JobId, JobStatus, SessionKey, SessionStatus
from opencode_actors.ports import Prompt
from opencode_actors.store.journal import open_journal
from opencode_actors.store.port import KnownSession, Store
from opencode_actors.testing.memory_store import MemoryStore

from .samples import CONVERSATION, JOB, SESSION, conversation, job, said

OpenStore = Callable[[], AbstractAsyncContextManager[Store]]


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


async def test_what_was_recorded_is_there_the_next_time(open_store: OpenStore) -> None:
    other = JobId("job_other")
    async with open_store() as store:
        assert (await store.load()).unsettled == ()
        await store.append((conversation(), job(JobStatus.PENDING), said("hé")))
        await store.append((job(JobStatus.COMPLETED), said("llo")))
        await store.append((job(JobStatus.RUNNING, id_=other),))
        owner = (await store.load()).owner
    async with open_store() as store:
        remembered = await store.load()
        assert (remembered.owner, remembered.unsettled) == (owner, (other,))
        assert await store.conversation(SESSION) == CONVERSATION
        known = await store.job(JOB)
        assert known is not None
        assert known.snapshot == job(JobStatus.COMPLETED).snapshot
        assert (await store.output(JOB, offset=0, limit=100)).text == "héllo"


async def test_what_was_never_recorded_is_not_there(open_store: OpenStore) -> None:
    async with open_store() as store:
        assert await store.conversation(SessionKey("unknown")) is None
        assert await store.job(JobId("unknown")) is None
        piece = await store.output(JobId("unknown"), offset=0, limit=1)
        assert (piece.text, piece.next_offset, piece.more) == ("", 0, False)


async def test_a_conversation_that_is_given_up_is_forgotten(open_store: OpenStore) -> None:
    async with open_store() as store:
        await store.append((conversation(),))
        await store.append((conversation(None),))
        assert await store.conversation(SESSION) is None


async def test_output_is_read_in_whole_characters(open_store: OpenStore) -> None:
    async with open_store() as store:
        await store.append((said("a😀é\ud800"),))
        pieces: list[str] = []
        offset, more = 0, True
        while more:
            piece = await store.output(JOB, offset=offset, limit=1)
            pieces.append(piece.text)
            offset, more = piece.next_offset, piece.more
        assert pieces == ["a", "😀", "é", "?"]
        assert offset == 1 + 4 + 2 + 1


async def test_sessions_are_known_with_the_time_of_the_last_word_of_them(open_store: OpenStore) -> None:
    other = SessionKey("other")
    changed = SessionChanged(session=SESSION, status=SessionStatus.ABSENT)
    async with open_store() as store:
        told: list[Notice] = []
        store.listen(told.append)
        assert await store.sessions() == ()
        await store.append((job(),), (changed,), at=1.0)
        await store.append((), (changed,), at=2.0)
        await store.append((evolve(conversation(), session=other),))
    async with open_store() as store:
        assert await store.sessions() == (
            KnownSession(key=SESSION, used_at=2.0, jobs=1, name="the test"),
            KnownSession(key=other, used_at=None),
        )


async def test_what_a_session_had_is_known(open_store: OpenStore) -> None:
    def accepted(number: int, *, name: str = "", image: str | None = None) -> JobRecorded:
        recorded = job(JobStatus.PENDING, id_=JobId(f"job_{number}"))
        plan = Accepted(
            prompt=Prompt(text="x"), timeout=None, at=float(number), since=0, key="k", image=image
        )
        return evolve(recorded, snapshot=evolve(recorded.snapshot, name=name), accepted=plan)

    async with open_store() as store:
        assert await store.session(SESSION) == KnownSession(key=SESSION)
        await store.append((accepted(1, name="first", image="a"), accepted(2, name="second", image="b")))
        await store.append((accepted(3, name="third"), accepted(4), conversation()))
        known = KnownSession(key=SESSION, began_at=1.0, jobs=4, name="third", image="b")
        assert await store.session(SESSION) == known
    async with open_store() as store:
        assert await store.sessions() == (known,)
        assert await store.conversation(SESSION) == CONVERSATION


async def test_jobs_are_found_by_their_names_the_newest_first(open_store: OpenStore) -> None:
    def named(number: int, name: str) -> JobRecorded:
        recorded = job(JobStatus.COMPLETED, id_=JobId(f"job_{number}"))
        return evolve(recorded, snapshot=evolve(recorded.snapshot, name=name))

    async with open_store() as store:
        await store.append((named(1, "it"), named(2, "it"), named(3, "other"), named(4, "it")))
        found = await store.named("it", limit=2)
        assert [one.id for one in found] == ["job_4", "job_2"]
        assert found[0] == named(4, "it").snapshot
        assert await store.named("nobody", limit=2) == ()
