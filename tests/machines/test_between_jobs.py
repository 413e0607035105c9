"""A session between two jobs: it makes room for others, is renewed when it has grown, and keeps within bounds."""

from __future__ import annotations

from opencode_actors.machines import job_messages as j
from opencode_actors.machines import session_messages as s
from opencode_actors.machines.notices import SessionChanged
from opencode_actors.machines.vocabulary import AskId, Climb, Rung, SessionStatus
from opencode_actors.ports import Usage
from opencode_actors.testing.samples import CONVERSATION
from tests.machines.test_life_of_a_session import (
    ONE,
    THREE,
    TWO,
    Book,
    add,
    creating,
    ending,
    get_ready,
    gone,
    idle,
    is_,
    launch,
    serving,
    starting,
)


def details(book: Book) -> list[str]:
    return [notice.detail for notice in book.notices if isinstance(notice, SessionChanged)]


# ---- a place that somebody else needs

RETIRE = s.RetireSession(ask=AskId(9), why="idle, and session other needs its place")


def test_an_idle_session_is_retired_by_the_ladder_and_says_why() -> None:
    book = idle().tell(RETIRE)
    assert ending(book) is Rung.STOP
    assert RETIRE.why in details(book)
    gone(book)
    assert isinstance(book.replies[AskId(9)], Climb)
    assert book.finished


def test_a_session_with_work_is_never_retired() -> None:
    for book in (creating(), starting(), serving(), add(serving(), TWO)):
        book.tell(RETIRE)
        assert book.replies[AskId(9)] == s.Refused(reason="session demo has work")
        assert not book.finished


def test_a_job_that_comes_while_its_session_is_retired_saves_it() -> None:
    book = add(idle().tell(RETIRE), TWO)
    assert book.replies[AskId(9)] == s.Refused(reason="session demo has a job again")
    assert book.replies[AskId(2)] == s.Accepted(ahead=0)
    gone(book)
    assert is_(book) is SessionStatus.CREATING


# ---- P12: a server that grows


def reading(memory: int) -> s.UsageSampled:
    return s.UsageSampled(usage=Usage(cpu_seconds=1.0, memory_bytes=memory, pids=9, oom_kills=0))


LARGE = reading(900 << 20)


def test_p12_a_server_that_has_grown_is_replaced_before_the_next_job_and_no_crash_is_counted() -> None:
    book = add(serving(), TWO).answer(s.SampleUsage, LARGE)
    assert is_(book) is SessionStatus.READY  # not under a job
    book.tell(j.JobOver(job=ONE))
    assert ending(book) is Rung.STOP
    assert "OpenCode holds 900 MiB of 1024 MiB: the next job gets a new container" in details(book)
    assert book.state.queue == (TWO,)
    gone(book)
    get_ready(launch(book))
    assert book.state.current == TWO
    assert book.state.crashes.count == 0
    assert book.state.conversation == CONVERSATION


def test_p12_one_that_is_found_grown_after_its_last_job_is_stopped_and_starts_with_the_next() -> None:
    book = idle().answer(s.SampleUsage, LARGE)
    assert ending(book) is Rung.STOP
    gone(book)
    assert is_(book) is SessionStatus.ABSENT
    assert is_(add(book, TWO)) is SessionStatus.CREATING


def test_p12_nothing_is_replaced_below_the_share_or_without_one() -> None:
    below, without = idle().answer(s.SampleUsage, reading(800 << 20)), idle(recycle_memory_share=0.0)
    without.answer(s.SampleUsage, LARGE)
    for book in (below, without):
        assert is_(book) is SessionStatus.READY
        assert add(book, TWO).state.current == TWO


# ---- P13: data that grows


def test_p13_data_beyond_its_bound_is_said_once_and_takes_no_more_jobs_until_there_is_room() -> None:
    book = idle()
    for _ in range(2):
        book.answer(s.TidyUp, s.TidiedUp(disk_bytes=3 << 30))
        add(book, TWO)
        refused = book.replies[AskId(2)]
        assert isinstance(refused, s.Refused)
        assert refused.reason == "the data of session demo takes 3072 MiB (maxSessionDisk is 2048 MiB)"
        assert "raise maxSessionDisk" in refused.hint
    assert len([detail for detail in details(book) if "takes no more jobs" in detail]) == 1
    book.answer(s.TidyUp, s.TidiedUp(disk_bytes=1 << 30))
    assert add(book, THREE).state.current == THREE
    assert is_(book) is SessionStatus.READY


def test_p13_without_a_bound_nothing_is_refused() -> None:
    book = idle(max_disk=0).answer(s.TidyUp, s.TidiedUp(disk_bytes=3 << 40))
    assert add(book, TWO).state.current == TWO
