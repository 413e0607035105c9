"""What every store does, the one on the disk and the one in memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from attrs import evolve

from opencode_actors.machines.matters import Choice, Matter, Scope
from opencode_actors.machines.notices import (
    Accepted,
    Begun,
    ChoiceRecorded,
    ContainerForgotten,
    ContainerRecorded,
    DirectoriesForgotten,
    Habits,
    InputAnswered,
    InputEnd,
    InputWanted,
    JobForgotten,
    JobQueued,
    JobRecorded,
    Notice,
    OutputKind,
    OutputRecorded,
    SessionChanged,
    SessionForgotten,
    SessionForked,
)
from opencode_actors.machines.output import OutputMeter, Placed, admit
from opencode_actors.machines.server_events import MessageId, PartId
from opencode_actors.machines.transcript import Piece
from opencode_actors.machines.vocabulary import (
    Cause,
    Failure,
    JobId,
    JobStatus,
    PendingRequest,
    RequestKind,
    SessionKey,
    SessionStatus,
)
from opencode_actors.ports import ContainerId, Endpoint, Prompt
from opencode_actors.store.journal import open_journal
from opencode_actors.store.port import Housed, KnownSession, OnDisk, Store
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


async def test_what_somebody_chose_to_be_told_is_there_the_next_time_C6(open_store: OpenStore) -> None:
    text = Choice(scope=Scope.SESSION, name="demo", matter=Matter.TEXT, on=True)
    running = Choice(scope=Scope.CHANNEL, name="telegram", matter=Matter.RUNNING, on=False)
    async with open_store() as store:
        await store.append((ChoiceRecorded(choice=text), ChoiceRecorded(choice=running)))
        await store.append((ChoiceRecorded(choice=evolve(text, on=False)),))
    async with open_store() as store:
        assert set((await store.load()).choices) == {evolve(text, on=False), running}
        await store.append((ChoiceRecorded(choice=evolve(running, on=None)),))
        assert (await store.load()).choices == (evolve(text, on=False),)


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
        assert remembered.owner == owner
        assert [open_.snapshot.id for open_ in remembered.unsettled] == [other]
        assert (await store.recall(SESSION)).conversation == CONVERSATION
        known = await store.job(JOB)
        assert known is not None
        assert known.snapshot == job(JobStatus.COMPLETED).snapshot
        assert (await store.output(JOB, offset=0, limit=100)).text == "héllo"


async def test_a_branch_is_used_to_what_its_source_is_until_it_has_jobs_of_its_own(
    open_store: OpenStore,
) -> None:
    branch, habits = SessionKey("branch"), Habits(agent="plan")
    plan = Accepted(prompt=Prompt(text="x"), timeout=None, at=1.0, since=0, habits=habits)
    record = JobRecorded(snapshot=job(JobStatus.PENDING).snapshot, accepted=plan)
    async with open_store() as store:
        await store.append((conversation(), record))
        await store.append((SessionForked(session=branch, source=SESSION, conversation=CONVERSATION),))
        assert (await store.recall(branch)).habits == habits
        own = evolve(plan, habits=Habits(agent="build"))
        first = evolve(record.snapshot, id=JobId("job_branch"), session=branch)
        await store.append((JobRecorded(snapshot=first, accepted=own),))
        assert (await store.recall(branch)).habits == Habits(agent="build")
        assert (await store.recall(SESSION)).habits == habits


async def test_a_name_that_was_refused_is_not_used_again(open_store: OpenStore) -> None:
    def asked(id_: str, status: JobStatus, cause: Cause | None, habits: Habits) -> JobRecorded:
        plan = Accepted(prompt=Prompt(text="x"), timeout=None, at=1.0, since=0, habits=habits)
        failure = None if cause is None else Failure(cause=cause, message="no")
        snapshot = evolve(job(status).snapshot, id=JobId(id_), failure=failure)
        return JobRecorded(snapshot=snapshot, accepted=plan)

    async with open_store() as store:
        await store.append(
            (asked("job_1", JobStatus.COMPLETED, None, Habits(model="a/right", agent="plan")),)
        )
        await store.append(
            (asked("job_2", JobStatus.FAILED, Cause.CRASH, Habits(model="a/other", agent="plan")),)
        )
        wrong = asked(
            "job_3", JobStatus.RUNNING, None, Habits(model="a/wrong", agent="plan", system="be brief")
        )
        await store.append((wrong,))
        refused = evolve(
            wrong.snapshot, status=JobStatus.FAILED, failure=Failure(cause=Cause.REJECTED, message="no")
        )
        await store.append((JobRecorded(snapshot=refused),))
        assert (await store.recall(SESSION)).habits == Habits(
            model="a/other", agent="plan", system="be brief"
        )


async def test_a_first_name_that_was_refused_leaves_none(open_store: OpenStore) -> None:
    plan = Accepted(prompt=Prompt(text="x"), timeout=None, at=1.0, since=0, habits=Habits(model="a/wrong"))
    running = job(JobStatus.RUNNING).snapshot
    async with open_store() as store:
        await store.append((JobRecorded(snapshot=evolve(running, failure=None), accepted=plan),))
        refused = evolve(
            running, status=JobStatus.FAILED, failure=Failure(cause=Cause.REJECTED, message="no")
        )
        await store.append((JobRecorded(snapshot=refused),))
        assert (await store.recall(SESSION)).habits == Habits()


async def test_a_session_that_is_forgotten_is_used_to_nothing(open_store: OpenStore) -> None:
    plan = Accepted(prompt=Prompt(text="x"), timeout=None, at=1.0, since=0, habits=Habits(agent="plan"))
    async with open_store() as store:
        await store.append(
            (conversation(), JobRecorded(snapshot=job(JobStatus.COMPLETED).snapshot, accepted=plan))
        )
        assert (await store.recall(SESSION)).habits == Habits(agent="plan")
        await store.append((JobForgotten(job=JOB), SessionForgotten(session=SESSION)))
        assert (await store.recall(SESSION)).habits == Habits()


async def test_what_was_never_recorded_is_not_there(open_store: OpenStore) -> None:
    async with open_store() as store:
        assert (await store.recall(SessionKey("unknown"))).conversation is None
        assert await store.job(JobId("unknown")) is None
        piece = await store.output(JobId("unknown"), offset=0, limit=1)
        assert (piece.text, piece.next_offset, piece.more) == ("", 0, False)


async def test_a_conversation_that_is_given_up_is_forgotten(open_store: OpenStore) -> None:
    async with open_store() as store:
        await store.append((conversation(),))
        await store.append((conversation(None),))
        assert (await store.recall(SESSION)).conversation is None


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


async def test_sessions_are_listed_as_long_as_something_of_them_may_be_on_the_disk(
    open_store: OpenStore,
) -> None:
    other, queued = SessionKey("other"), JobQueued(job=JOB, session=SESSION, ahead=0)
    changed = SessionChanged(session=SESSION, status=SessionStatus.ABSENT)

    async def listed(store: Store) -> list[list[SessionKey]]:
        found = [
            await store.on_disk(data=data, workspaces=workspaces, after="")
            for data, workspaces in ((True, False), (False, True), (True, True))
        ]
        return [[session.key for session in page] for page in found]

    def gone(key: SessionKey, *, data: bool, since: int) -> DirectoriesForgotten:
        return DirectoriesForgotten(session=key, data=data, workspace=not data, since=since)

    async with open_store() as store:
        told: list[Notice] = []
        store.listen(told.append)
        assert await listed(store) == [[], [], []]
        assert await store.on_disk(data=False, workspaces=False, after="") == ()
        await store.append((job(),), (queued,), at=1.0)
        await store.append((), (changed,), at=2.0)
        await store.append((evolve(conversation(), session=other),))
    async with open_store() as store:
        assert await store.on_disk(data=True, workspaces=True, after="") == (
            OnDisk(key=SESSION, used_at=2.0, last_seq=2),
            OnDisk(key=other),
        )
        assert await store.on_disk(data=True, workspaces=False, after=SESSION) == (OnDisk(key=other),)
        # a job came, and the list from before it does not know
        await store.append((gone(SESSION, data=True, since=0),))
        assert await listed(store) == [[SESSION, other]] * 3
        # its container ended, which is no job
        await store.append((gone(SESSION, data=True, since=1), gone(other, data=False, since=0)))
        assert await listed(store) == [[other], [SESSION], [SESSION, other]]
        await store.append((gone(SESSION, data=False, since=2),))
        assert await listed(store) == [[other], [], [other]]
        # as the same job goes on, nothing is made, and with another one both are
        await store.append((job(JobStatus.COMPLETED),))
        assert await listed(store) == [[other], [], [other]]
        await store.append((job(id_=JobId("job_new")), evolve(conversation())))
        assert await listed(store) == [[SESSION, other], [SESSION], [SESSION, other]]


async def test_what_is_on_the_disk_is_listed_in_pages(open_store: OpenStore) -> None:
    keys = [SessionKey(f"s{number:03}") for number in range(300)]
    async with open_store() as store:
        await store.append(tuple(evolve(conversation(), session=key) for key in reversed(keys)))
        found: list[SessionKey] = []
        while page := await store.on_disk(data=True, workspaces=True, after=found[-1] if found else ""):
            assert len(page) < len(keys)
            found += [session.key for session in page]
        assert found == keys


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
        known = KnownSession(key=SESSION, began_at=1.0, jobs=4, name="third", image="b", talked=True)
        assert await store.session(SESSION) == known
    async with open_store() as store:
        assert await store.session(SESSION) == known
        assert (await store.recall(SESSION)).conversation == CONVERSATION


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


PLAN = Accepted(
    prompt=Prompt(text=job().snapshot.prompt, model="scripted/demo"), timeout=60.0, at=1.0, since=0
)
BEGUN = Begun(
    conversation=CONVERSATION,
    message=MessageId("msg_1"),
    part=PartId("prt_1"),
    at=2.0,
    container=ContainerId("c1"),
)


async def test_an_open_job_comes_back_with_all_that_is_needed_to_go_on(open_store: OpenStore) -> None:
    verdict = Failure(cause=Cause.JOB_TIMEOUT, message="too long")
    begun = evolve(job(), begun=BEGUN)
    async with open_store() as store:
        await store.append((evolve(job(JobStatus.PENDING), accepted=PLAN),))
        await store.append((begun,))
        await store.append((evolve(job(JobStatus.CANCELLING), verdict=verdict),))
    async with open_store() as store:
        (open_,) = (await store.load()).unsettled
    assert open_.snapshot == job(JobStatus.CANCELLING).snapshot
    assert (open_.accepted, open_.begun, open_.verdict) == (PLAN, BEGUN, verdict)


async def test_what_was_told_of_an_open_job_comes_back_piece_by_piece(open_store: OpenStore) -> None:
    one, two = PartId("prt_1"), PartId("prt_2")
    pieces = (
        Piece(kind=OutputKind.TEXT, text="hé", part=one),
        Piece(kind=OutputKind.TEXT, text="llo", part=one, at=2),
        Piece(kind=OutputKind.TOOL, text="\n[bash] make\n", part=two),
        Piece(kind=OutputKind.TEXT, text=" 🙂", part=one, at=5),
    )
    meter, placed = admit(OutputMeter(limit=0), pieces)
    async with open_store() as store:
        await store.append((job(),))
        for p in placed:
            await store.append((output_of(p),))
    async with open_store() as store:
        (open_,) = (await store.load()).unsettled
    assert open_.told_bytes == meter.size
    assert open_.told == (evolve(pieces[0], text="héllo"), pieces[2], pieces[3])


async def test_a_settled_job_is_not_open(open_store: OpenStore) -> None:
    async with open_store() as store:
        await store.append((job(), said("all of it")))
        await store.append((job(JobStatus.COMPLETED),))
    async with open_store() as store:
        assert (await store.load()).unsettled == ()
        assert (await store.output(JOB, offset=0, limit=100)).text == "all of it"


async def test_requests_that_were_announced_and_not_answered_come_back(open_store: OpenStore) -> None:
    def wanted(request: str) -> InputWanted:
        return InputWanted(
            job=JOB,
            session=SESSION,
            request=request,
            kind=RequestKind.QUESTION,
            text="Which?",
            options=("a", "b"),
            conversation=CONVERSATION,
        )

    answered = InputAnswered(job=JOB, session=SESSION, request="que_1", end=InputEnd.ANSWERED)
    async with open_store() as store:
        await store.append((job(),), (wanted("que_1"), wanted("que_2"), answered))
    async with open_store() as store:
        (open_,) = (await store.load()).unsettled
    assert open_.wanted == (
        PendingRequest(
            id="que_2",
            kind=RequestKind.QUESTION,
            text="Which?",
            options=("a", "b"),
            conversation=CONVERSATION,
        ),
    )


async def test_where_a_session_runs_is_known_until_it_runs_no_more(open_store: OpenStore) -> None:
    endpoint = Endpoint(url="http://127.0.0.1:4096", password="secret")
    lives = ContainerRecorded(session=SESSION, container=ContainerId("c1"), endpoint=endpoint)
    async with open_store() as store:
        await store.append((conversation(), lives))
    async with open_store() as store:
        housed = Housed(session=SESSION, container=ContainerId("c1"), endpoint=endpoint)
        assert (await store.load()).housed == (housed,)
        assert (await store.recall(SESSION)).conversation == CONVERSATION
        await store.append((ContainerForgotten(session=SESSION),))
        assert (await store.load()).housed == ()


def output_of(placed: Placed) -> OutputRecorded:
    piece = placed.piece
    return OutputRecorded(
        job=JOB,
        offset=placed.offset,
        text=piece.text,
        kind=piece.kind,
        span=placed.span,
        part=piece.part,
        at=piece.at,
    )


def called(number: int, name: str, session: str) -> JobRecorded:
    recorded = job(JobStatus.COMPLETED, id_=JobId(f"job_{number}"))
    return evolve(recorded, snapshot=evolve(recorded.snapshot, name=name, session=SessionKey(session)))


async def test_a_name_is_free_until_a_job_or_a_session_was_given_it(open_store: OpenStore) -> None:
    async with open_store() as store:
        assert await store.free_number("fix") == 1
        assert await store.free_number("fix", above=1) == 2
        assert await store.free_number("fix", above=2) == 3
        await store.append((called(1, "fix", "demo"), called(2, "fix-2", "fix-3")))
        await store.append((evolve(conversation(), session=SessionKey("fix-4")),))
        assert await store.free_number("fix") == 5
        assert await store.free_number("fix", above=5) == 6
        assert await store.free_number("demo") == 2
        assert await store.free_number("fixture") == 1


async def test_a_number_behind_a_name_is_larger_than_how_many_there_are(open_store: OpenStore) -> None:
    """A name that is free in between is not looked for: that would be a try for each number."""
    async with open_store() as store:
        await store.append((called(1, "fix", "a"), called(2, "fix-9", "b"), called(3, "fix-9", "b")))
        assert await store.free_number("fix") == 4
        forked = SessionForked(session=SessionKey("fix-4"), source=SESSION, conversation=CONVERSATION)
        await store.append((forked,))
        assert await store.free_number("fix") == 5


async def test_the_last_job_of_a_session_and_the_newest_names_are_known(open_store: OpenStore) -> None:
    async with open_store() as store:
        assert await store.last_job(SessionKey("demo")) is None
        assert await store.recent_names(jobs=9) == ()
        await store.append((called(1, "old", "demo"), called(2, "a", "demo"), called(3, "b", "other")))
        await store.append((called(4, "", "demo"),))
        last = await store.last_job(SessionKey("demo"))
        assert last is not None
        assert last.id == "job_4"
        assert await store.recent_names(jobs=3) == ("demo", "b", "other", "a")
