"""One container's life, as examples to read."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from opencode_actors.machines import health, session
from opencode_actors.machines import job_messages as j
from opencode_actors.machines import server_events as e
from opencode_actors.machines import session_messages as s
from opencode_actors.machines.notices import (
    ContainerForgotten,
    ContainerRecorded,
    SessionChanged,
    SessionRecorded,
)
from opencode_actors.machines.server_events import ConversationId, MessageId
from opencode_actors.machines.session_state import SessionState, snapshot
from opencode_actors.machines.vocabulary import (
    AskId,
    Cause,
    Climb,
    Failure,
    Finish,
    Forget,
    JobId,
    Rung,
    SessionSnapshot,
    SessionStatus,
)
from opencode_actors.ports import ContainerId, Death, Usage
from opencode_actors.testing import samples
from opencode_actors.testing.playbook import EPOCH, Playbook
from opencode_actors.testing.samples import CONTAINER, CONVERSATION, ENDPOINT
from tests.machines.jobs import TURN

Book = Playbook[SessionState, s.SessionMessage, s.SessionEffect]

ONE, TWO, THREE, FOUR = (JobId(f"job-{n}") for n in (1, 2, 3, 4))
HEARTBEAT = j.EventsSeen(events=(e.Heartbeat(),))
CRASHED = s.ContainerExited(death=Death(exit_code=139, oom_killed=False))


def absent(**policy: Any) -> Book:
    return Playbook(session.handle, samples.fresh_session(policy=evolve(samples.SESSION_POLICY, **policy)))


def add(book: Book, job: JobId = ONE) -> Book:
    return book.tell(s.AddJob(ask=AskId(int(job[-1])), job=job))


def creating(**policy: Any) -> Book:
    return add(absent(**policy))


def launch(book: Book) -> Book:
    return book.answer(s.LaunchContainer, s.ContainerLaunched(container=CONTAINER, endpoint=ENDPOINT))


def starting(**policy: Any) -> Book:
    return launch(creating(**policy))


def get_ready(book: Book) -> Book:
    book.answer(s.ProbeServer, s.ProbeSucceeded(version="1.18.33"))
    book.hear(s.FollowServer, j.StreamOpened())
    return book.answer(s.OpenConversation, s.ConversationOpened(conversation=CONVERSATION, fresh=True))


def serving(**policy: Any) -> Book:
    """Its first job has the turn."""
    return get_ready(starting(**policy))


def idle(**policy: Any) -> Book:
    """Ready, and nobody has the turn."""
    return serving(**policy).tell(j.JobOver(job=ONE))


def gone(book: Book) -> Book:
    """The container exits as it should, and the engine forgets it."""
    book.answer(s.WatchExit, s.ContainerExited(death=Death(exit_code=143, oom_killed=False)))
    return book.answer(s.EndContainer, s.ContainerRemoved())


def ending(book: Book) -> Rung:
    return book.running(s.EndContainer).rung


def is_(book: Book) -> SessionStatus:
    return snapshot(book.state).status


def told(book: Book, job: JobId) -> list[j.JobMessage]:
    return [word.message for word in book.told if isinstance(word, s.TellJob) and word.job == job]


def failure_of(message: j.JobMessage) -> Failure:
    assert isinstance(message, j.ServerLost | j.SessionFailed)
    return message.failure


# ---- up


def test_a_container_is_made_for_its_first_job() -> None:
    add(absent()).expect(s.Accepted(ahead=0), SessionChanged, s.LaunchContainer, s.SessionTimer.LAUNCH)


def test_a_conversation_that_is_another_sessions_is_branched_once() -> None:
    state = evolve(samples.fresh_session(), conversation=CONVERSATION, before=MessageId("msg_1"))
    book = launch(add(Playbook(session.handle, state)))
    book.answer(s.ProbeServer, s.ProbeSucceeded(version="1.18.33"))
    opening = book.running(s.OpenConversation)
    assert (opening.conversation, opening.before) == (CONVERSATION, "msg_1")
    book.hear(s.FollowServer, j.StreamOpened())
    branch = ConversationId("ses_branch")
    book.answer(s.OpenConversation, s.ConversationOpened(conversation=branch, fresh=False))
    assert book.records == (SessionRecorded(session=samples.SESSION, conversation=branch),)
    assert (book.state.conversation, book.state.before) == (branch, None)


def test_an_interrupting_job_goes_before_those_that_wait() -> None:
    book = add(serving(), TWO)
    first = JobId("job-9")
    book.tell(s.AddJob(ask=AskId(9), job=first, first=True)).expect(s.Accepted(ahead=1))
    assert book.state.queue == (first, TWO)


def test_a_cold_start_with_a_server_that_takes_its_time() -> None:
    """A request that arrives in the first 0.3 s of listening is never answered: short probes, soon again."""
    book = starting().expect_some(s.WatchExit, s.ProbeServer, s.SessionTimer.READY)
    assert book.running(s.ProbeServer).within == 0.2
    for _ in range(5):
        book.answer(s.ProbeServer, s.ProbeFailed(reason="refused")).expect(s.SessionTimer.PROBE)
        book.advance(0.25).expect(s.ProbeServer)
    book.answer(s.ProbeServer, s.ProbeSucceeded(version="1.18.33")).expect(s.FollowServer, s.OpenConversation)
    book.answer(s.OpenConversation, s.ConversationOpened(conversation=CONVERSATION, fresh=True))
    assert book.records == (SessionRecorded(session=samples.SESSION, conversation=CONVERSATION),)
    assert is_(book) is SessionStatus.STARTING
    book.hear(s.FollowServer, j.StreamOpened())
    book.expect_some(SessionChanged, s.SessionTimer.SILENCE, s.SampleUsage, j.TurnGranted)
    assert is_(book) is SessionStatus.READY


def test_the_second_job_finds_the_server_running() -> None:
    book = add(idle(), TWO)
    book.expect_some(s.Accepted(ahead=0), TURN)


def test_jobs_get_their_turns_one_by_one_in_order() -> None:
    book = add(add(serving(), TWO), THREE)
    assert [book.replies[AskId(n)] for n in (1, 2, 3)] == [s.Accepted(ahead=n) for n in (0, 1, 2)]
    assert not told(book, TWO)
    book.tell(j.JobOver(job=ONE))
    assert told(book, TWO)
    assert not told(book, THREE)
    book.tell(j.JobOver(job=TWO))
    assert told(book, THREE)


def test_a_full_queue_says_so_and_how_long_it_is() -> None:
    book = add(add(add(serving(max_queued_jobs=2), TWO), THREE), FOUR)
    refused = book.replies[AskId(4)]
    assert isinstance(refused, s.Refused)
    assert "2 jobs waiting" in refused.reason


def test_a_job_that_is_cancelled_in_the_queue_leaves_it() -> None:
    book = add(add(serving(), TWO), THREE).tell(j.JobOver(job=TWO)).tell(j.JobOver(job=ONE))
    assert not told(book, TWO)
    assert told(book, THREE)


def test_events_go_to_the_job_that_has_the_turn_and_heartbeats_to_nobody() -> None:
    book = serving().hear(s.FollowServer, HEARTBEAT).expect_nothing()
    words = j.EventsSeen(events=(e.ConversationBusy(conversation=CONVERSATION),))
    book.hear(s.FollowServer, words).expect(s.TellJob(job=ONE, message=words))


def test_load_is_the_difference_of_two_readings() -> None:
    def usage(cpu: float) -> s.UsageSampled:
        return s.UsageSampled(usage=Usage(cpu_seconds=cpu, memory_bytes=1 << 29, pids=9, oom_kills=0))

    book = serving().answer(s.SampleUsage, usage(10.0)).expect_nothing()
    book.advance(5.0).expect(s.SampleUsage, s.SessionTimer.SAMPLE)
    book.answer(s.SampleUsage, usage(12.0)).expect(j.LoadSeen(cpu_load=0.4, memory_bytes=1 << 29))


def test_a_reading_that_fails_is_not_the_last() -> None:
    book = serving()
    book.operations.pop(s.SampleUsage)  # it ended, and had nothing to say
    book.advance(5.0).expect(s.SampleUsage, s.SessionTimer.SAMPLE)


# ---- at rest, and again


def test_an_idle_container_is_stopped_and_the_next_job_finds_the_conversation_again() -> None:
    book = idle(session_idle_timeout=3600.0)
    for _ in range(360):
        book.hear(s.FollowServer, HEARTBEAT).advance(10.0)
    assert ending(book) is Rung.STOP
    gone(book).expect_some(SessionChanged)
    assert is_(book) is SessionStatus.ABSENT
    launch(add(book, TWO)).answer(s.ProbeServer, s.ProbeSucceeded(version="1"))
    assert book.running(s.OpenConversation).conversation == CONVERSATION


def test_a_job_that_comes_while_the_container_stops_gets_a_new_one() -> None:
    book = idle(session_idle_timeout=10.0).hear(s.FollowServer, HEARTBEAT).advance(10.0)
    add(book, TWO).expect(s.Accepted(ahead=0))
    gone(book).expect_some(s.LaunchContainer)


def test_a_job_cancelled_while_the_server_is_not_ready_leaves_an_idle_session_behind() -> None:
    book = idle(session_idle_timeout=12.0).hear(s.FollowServer, s.StreamLost(reason="reset"))
    add(book, TWO).advance(0.3).tell(j.JobOver(job=TWO)).hear(s.FollowServer, j.StreamOpened())
    book.advance(12.0)
    assert ending(book) is Rung.STOP


# ---- down


def test_p25_a_crash_is_told_with_its_true_cause_before_the_restart() -> None:
    book = serving().answer(s.WatchExit, CRASHED)
    (_, lost) = told(book, ONE)
    assert failure_of(lost) == Failure(
        cause=Cause.CRASH, message="the container ended: killed by signal 11 (exit code 139)", exit_code=139
    )


@pytest.mark.parametrize(
    ("death", "cause"),
    [
        (Death(exit_code=137, oom_killed=True), Cause.OOM),
        (Death(exit_code=None, oom_killed=False, removed=True), Cause.REMOVED),
        (Death(exit_code=0, oom_killed=False), Cause.CRASH),
    ],
)
def test_p25_no_death_is_a_success(death: Death, cause: Cause) -> None:
    book = serving().answer(s.WatchExit, s.ContainerExited(death=death))
    assert failure_of(told(book, ONE)[-1]).cause is cause


def test_p25_memory_that_ends_a_server_while_it_opens_is_named_though_its_silence_was_heard_first() -> None:
    book = starting().answer(s.ProbeServer, s.ProbeSucceeded(version="1.18.33"))
    silent = Failure(cause=Cause.CRASH, message="OpenCode is up, but it hung up")
    book.answer(s.OpenConversation, s.OpeningFailed(failure=silent))
    book.answer(s.WatchExit, s.ContainerExited(death=Death(exit_code=137, oom_killed=True)))
    failure = snapshot(book.state).failure
    assert failure is not None
    assert failure.cause is Cause.OOM


@pytest.mark.parametrize(("exit_code", "cause"), [(137, Cause.SERVER_HUNG), (139, Cause.CRASH)])
def test_p25_a_death_that_no_rung_of_ours_causes_is_told_as_what_it_was(exit_code: int, cause: Cause) -> None:
    """Its connections are refused before its exit is known, and then it does not answer."""
    book = hung()
    assert ending(book) is Rung.KILL
    assert book.now >= 4.0
    book.answer(s.WatchExit, s.ContainerExited(death=Death(exit_code=exit_code, oom_killed=False)))
    assert failure_of(told(book, ONE)[-1]).cause is cause


def hung() -> Book:
    book = serving().answer(s.FollowServer, s.StreamLost(reason="connection refused"))
    while is_(book) is not SessionStatus.STOPPING:
        if s.ProbeServer in book.operations:
            book.answer(s.ProbeServer, s.ProbeFailed(reason="connection refused"))
        book.advance(0.5)
    return book


@pytest.mark.parametrize(("asked", "cause"), [(True, Cause.SERVER_HUNG), (False, Cause.REMOVED)])
def test_p25_an_engine_that_is_back_removes_the_container_before_it_says_so(
    cause: Cause, *, asked: bool
) -> None:
    """Only what it was not asked for once more, since it was away, was somebody else's doing."""
    book = hung()
    refusal = s.StopRefused(rung=Rung.KILL, reason="nothing listens on the socket", away=True)
    book.answer(s.EndContainer, refusal)
    if asked:
        book.advance(1.0).expect_some(s.EndContainer)
    book.answer(s.WatchExit, s.ContainerExited(death=Death(exit_code=None, oom_killed=False, removed=True)))
    assert failure_of(told(book, ONE)[-1]).cause is cause


def test_who_waits_while_the_container_crashes_gets_the_next_one() -> None:
    book = add(serving(), TWO).answer(s.WatchExit, CRASHED).answer(s.EndContainer, s.ContainerRemoved())
    assert is_(book) is SessionStatus.BACKING_OFF
    book.tell(j.JobOver(job=ONE))
    get_ready(launch(book.advance(0.7)))
    assert isinstance(told(book, TWO)[0], j.TurnGranted)


def test_a_job_whose_server_crashed_keeps_the_next_turn_if_it_wants_it() -> None:
    book = add(serving(), TWO).answer(s.WatchExit, CRASHED).answer(s.EndContainer, s.ContainerRemoved())
    lost = told(book, ONE)[-1]
    assert isinstance(lost, j.ServerLost)
    assert lost.again
    get_ready(launch(book.advance(0.7)))
    assert isinstance(told(book, ONE)[-1], j.TurnGranted)
    assert not told(book, TWO)


# ---- taken over


def test_p18_a_container_that_an_earlier_process_left_is_watched_and_followed_at_once() -> None:
    left = s.TakeOver(jobs=(ONE, TWO), container=CONTAINER, endpoint=ENDPOINT)
    book = absent().tell(left).expect_some(s.WatchExit, s.ProbeServer, s.SessionTimer.READY)
    assert s.LaunchContainer not in book.operations
    get_ready(book)
    assert isinstance(told(book, ONE)[-1], j.TurnGranted)
    assert not told(book, TWO)
    book.tell(j.JobOver(job=ONE))
    assert isinstance(told(book, TWO)[-1], j.TurnGranted)


def test_p18_a_server_that_is_found_at_work_may_take_its_time_to_answer() -> None:
    left = s.TakeOver(jobs=(ONE,), container=CONTAINER, endpoint=ENDPOINT)
    book = absent().tell(left)
    for _ in range(3):
        assert book.running(s.ProbeServer).within == health.LIVENESS_PROBE_WITHIN
        book.answer(s.ProbeServer, s.ProbeFailed(reason="slow")).advance(1.0)


def test_p18_a_job_that_waited_when_the_process_ended_has_its_turn_in_a_new_container() -> None:
    book = absent().tell(s.TakeOver(jobs=(ONE, TWO))).expect_some(s.LaunchContainer)
    get_ready(launch(book))
    assert isinstance(told(book, ONE)[-1], j.TurnGranted)
    assert not told(book, TWO)


def test_a_server_that_is_found_dead_costs_its_job_nothing_but_a_new_container() -> None:
    left = s.TakeOver(jobs=(ONE,), container=CONTAINER, endpoint=ENDPOINT)
    book = absent().tell(left).answer(s.WatchExit, CRASHED).answer(s.EndContainer, s.ContainerRemoved())
    assert isinstance(lost := told(book, ONE)[-1], j.ServerLost)
    assert lost.again
    get_ready(launch(book.advance(0.7)))
    assert isinstance(told(book, ONE)[-1], j.TurnGranted)


def test_p6_a_job_that_cannot_be_aborted_has_its_container_ended_also_while_that_is_taken_over() -> None:
    left = s.TakeOver(jobs=(ONE,), container=CONTAINER, endpoint=ENDPOINT)
    book = absent().tell(left).tell(j.StopForJob(job=ONE))
    assert ending(book) is Rung.STOP
    gone(book)
    assert isinstance(lost := told(book, ONE)[-1], j.ServerLost)
    assert not lost.again


def test_where_the_container_runs_is_recorded_before_anything_is_asked_of_it() -> None:
    book = launch(creating())
    assert book.records[-1] == ContainerRecorded(
        session=samples.SESSION, container=CONTAINER.id, endpoint=ENDPOINT
    )
    gone(get_ready(book).tell(s.CloseSession(ask=AskId(9))))
    assert ContainerForgotten(session=samples.SESSION) in book.records


def test_a_crash_loop_is_given_up_said_loudly_and_begun_afresh_by_a_new_job() -> None:
    book = creating()
    for crash in range(3):
        launch(book).answer(s.WatchExit, CRASHED).answer(s.EndContainer, s.ContainerRemoved())
        if crash < 2:
            book.advance(2.0)
    assert is_(book) is SessionStatus.GIVEN_UP
    failure = failure_of(told(book, ONE)[0])
    assert (failure.cause, failure.exit_code) == (Cause.CRASH, 139)
    assert "given up after 3 failed starts" in failure.message
    add(book, TWO).expect_some(s.LaunchContainer)
    launch(book).answer(s.WatchExit, CRASHED).answer(s.EndContainer, s.ContainerRemoved())
    assert is_(book) is SessionStatus.BACKING_OFF, "one crash more, and not the fourth"


def test_a_container_that_never_gets_ready_and_is_slow_to_end_is_given_up_too() -> None:
    """Two minutes for each try, which no window of the restart intensity would hold."""
    book = creating(restart=evolve(samples.SESSION_POLICY.restart, period=200.0))
    for _ in range(3):
        launch(book.advance(28.0)).advance(60.0 + 20.0 + 9.0)
        book.answer(s.EndContainer, s.ContainerRemoved()).advance(2.0)
    assert is_(book) is SessionStatus.GIVEN_UP
    failure = failure_of(told(book, ONE)[0])
    assert failure.message.startswith(
        "given up after 3 failed starts in a row; the last one: OpenCode did not get"
    )


def test_without_jobs_a_crashed_container_is_not_started_again() -> None:
    book = idle().answer(s.WatchExit, CRASHED).answer(s.EndContainer, s.ContainerRemoved()).advance(5.0)
    assert is_(book) is SessionStatus.ABSENT


def test_a_missing_image_fails_the_jobs_at_once_and_the_next_job_tries_again() -> None:
    failure = Failure(cause=Cause.IMAGE_MISSING, message="no such image")
    book = creating().answer(s.LaunchContainer, s.LaunchFailed(failure=failure, retryable=False))
    assert told(book, ONE) == [j.SessionFailed(failure=failure)]
    add(book.answer(s.EndContainer, s.ContainerRemoved()), TWO).expect_some(s.LaunchContainer)


def test_an_engine_that_starts_nothing_is_given_its_time_and_then_tried_again() -> None:
    book = creating(startup_timeout=30.0).advance(30.0)
    assert ending(book) is Rung.REMOVE
    book.answer(s.EndContainer, s.ContainerRemoved()).advance(1.0).expect_some(s.LaunchContainer)


def test_a_server_that_never_gets_ready_is_stopped_and_tried_again() -> None:
    book = starting(server_ready_timeout=60.0).advance(60.0)
    assert ending(book) is Rung.STOP
    gone(book)
    assert is_(book) is SessionStatus.BACKING_OFF


def test_p12_a_frozen_server_is_found_by_its_silence_and_killed() -> None:
    """The port is open and every call hangs: three probes in a row, then no SIGTERM, it would not be heard."""
    book = serving().hear(s.FollowServer, HEARTBEAT)
    book.advance(health.SILENCE).expect_some(s.ProbeServer)
    for _ in range(2):
        book.answer(s.ProbeServer, s.ProbeFailed(reason="no answer within 2 s")).advance(2.0)
    assert is_(book) is SessionStatus.UNREADY
    book.answer(s.ProbeServer, s.ProbeFailed(reason="no answer within 2 s"))
    assert ending(book) is Rung.KILL
    gone(book)
    lost = told(book, ONE)[-1]
    assert failure_of(lost).cause is Cause.SERVER_HUNG


def test_p12_a_busy_server_is_not_taken_for_a_frozen_one() -> None:
    book = serving().advance(health.SILENCE)
    book.answer(s.ProbeServer, s.ProbeFailed(reason="no answer within 2 s")).advance(2.0)
    book.hear(s.FollowServer, j.StreamOpened()).hear(s.FollowServer, HEARTBEAT)
    book.answer(s.ProbeServer, s.ProbeFailed(reason="no answer within 2 s")).advance(2.0)
    book.answer(s.ProbeServer, s.ProbeFailed(reason="no answer within 2 s"))
    assert is_(book) is SessionStatus.UNREADY, "two in a row, for it spoke in between"


@pytest.mark.parametrize(
    ("load", "least", "most"), [(0.0, 15.0, 25.0), (0.1, 15.0, 25.0), (0.9, health.BUSY_AT_MOST, 100.0)]
)
def test_p12_one_that_works_hard_is_given_longer_than_one_that_is_frozen(
    load: float, least: float, most: float
) -> None:
    """A burst of output keeps it from answering; nothing keeps it for ever."""
    book = serving()
    while is_(book) is not SessionStatus.STOPPING:
        if s.SampleUsage in book.operations:
            usage = Usage(cpu_seconds=book.now * load, memory_bytes=1 << 29, pids=9, oom_kills=0)
            book.answer(s.SampleUsage, s.UsageSampled(usage=usage))
        if s.ProbeServer in book.operations:
            book.answer(s.ProbeServer, s.ProbeFailed(reason="no answer within 2 s"))
        book.advance(0.5)
    assert ending(book) is Rung.KILL
    assert least <= book.now <= most


def test_p12_what_worked_hard_and_froze_then_is_found_as_soon_as_its_load_is_gone() -> None:
    book = serving()
    while is_(book) is not SessionStatus.STOPPING:
        if s.SampleUsage in book.operations:
            usage = Usage(cpu_seconds=min(book.now, 30.0), memory_bytes=1 << 29, pids=9, oom_kills=0)
            book.answer(s.SampleUsage, s.UsageSampled(usage=usage))
        if s.ProbeServer in book.operations:
            book.answer(s.ProbeServer, s.ProbeFailed(reason="no answer within 2 s"))
        book.advance(0.5)
    assert 30.0 <= book.now <= 50.0


def test_p8_a_lost_stream_is_opened_again_and_the_job_is_told_to_look() -> None:
    book = serving().answer(s.FollowServer, s.StreamLost(reason="reset"))
    assert is_(book) is SessionStatus.UNREADY
    book.advance(0.25).expect_some(s.FollowServer)
    book.hear(s.FollowServer, j.StreamOpened()).expect_some(s.TellJob(job=ONE, message=j.StreamOpened()))
    assert is_(book) is SessionStatus.READY


def test_a_server_without_a_stream_is_not_kept_for_ever() -> None:
    book = serving()
    while is_(book) is not SessionStatus.STOPPING:
        book.answer(s.FollowServer, s.StreamLost(reason="HTTP 500"))
        if s.ProbeServer in book.operations:
            book.answer(s.ProbeServer, s.ProbeSucceeded(version="1.18.33"))
        book.advance(4.0)
    assert 10.0 < book.now < 40.0


def test_nobody_is_let_in_while_the_server_does_not_answer() -> None:
    book = idle().hear(s.FollowServer, s.StreamLost(reason="reset"))
    add(book, TWO).expect(s.Accepted(ahead=0))
    book.advance(0.25).hear(s.FollowServer, j.StreamOpened())
    assert told(book, TWO)


# ---- the ladder


def test_a_job_that_cannot_be_aborted_climbs_to_stop_kill_and_remove() -> None:
    book = serving().tell(j.StopForJob(job=ONE))
    # The engine kills by itself, and later: one deadline, one owner.
    assert (ending(book), book.running(s.EndContainer).grace) == (Rung.STOP, 17.0)
    book.answer(s.EndContainer, s.StopAnswered(rung=Rung.STOP)).expect_nothing()
    assert ending(book.advance(15.0)) is Rung.KILL
    assert ending(book.advance(5.0)) is Rung.REMOVE
    book.advance(1.0).answer(s.EndContainer, s.ContainerRemoved())
    lost = told(book, ONE)[-1]
    assert isinstance(lost, j.ServerLost)
    assert lost.climb == Climb(
        ended_by=Rung.REMOVE, seconds=((Rung.STOP, 15.0), (Rung.KILL, 5.0), (Rung.REMOVE, 1.0))
    )


def test_the_exit_is_believed_and_not_the_answer() -> None:
    book = serving().tell(j.StopForJob(job=ONE)).answer(s.EndContainer, s.StopAnswered(rung=Rung.STOP))
    assert not any(isinstance(word, j.ServerLost) for word in told(book, ONE))
    book.advance(0.2).answer(s.WatchExit, s.ContainerExited(death=Death(exit_code=143, oom_killed=False)))
    lost = told(book, ONE)[-1]
    assert isinstance(lost, j.ServerLost)
    assert lost.climb == Climb(ended_by=Rung.STOP, seconds=((Rung.STOP, 0.2),))
    assert ending(book) is Rung.REMOVE


def test_a_refusal_goes_up_at_once() -> None:
    book = serving().tell(j.StopForJob(job=ONE))
    book.answer(s.EndContainer, s.StopRefused(rung=Rung.STOP, reason="HTTP 500"))
    assert ending(book) is Rung.KILL


def test_an_engine_that_ends_nothing_is_named_and_the_session_is_quarantined() -> None:
    book = add(serving(), TWO).tell(j.StopForJob(job=ONE)).advance(20.0)
    for _ in range(9):
        book.answer(s.EndContainer, s.StopRefused(rung=Rung.REMOVE, reason="HTTP 500")).advance(1.0)
        assert ending(book) is Rung.REMOVE, "asked for again until its time is over"
    book.advance(1.0)
    assert is_(book) is SessionStatus.QUARANTINED
    assert failure_of(told(book, ONE)[-1]).cause is Cause.ENGINE_REFUSED
    assert failure_of(told(book, TWO)[-1]).cause is Cause.ENGINE_REFUSED
    refused = add(book, THREE).replies[AskId(3)]
    assert isinstance(refused, s.Refused)
    assert not book.timers
    assert not book.operations


AWAY = "nothing listens on the socket"


def away(book: Book, seconds: float) -> Book:
    """Every second the engine is asked, and there is none."""
    until = book.now + seconds
    while book.now < until:
        if s.EndContainer in book.operations:
            rung = ending(book)
            book.answer(s.EndContainer, s.StopRefused(rung=rung, reason=AWAY, away=True))
        book.advance(1.0)
    return book


def launch_without_engine() -> Book:
    gone_away = Failure(cause=Cause.ENGINE_UNAVAILABLE, message=AWAY)
    return creating().answer(s.LaunchContainer, s.LaunchFailed(failure=gone_away, retryable=True))


def test_a_launch_without_an_engine_is_tried_again_when_there_is_one() -> None:
    book = away(launch_without_engine(), 40.0)
    assert not told(book, ONE)
    assert AWAY in book.noticed(SessionChanged)[-1].detail
    book.answer(s.EndContainer, s.ContainerRemoved()).advance(1.0).expect_some(s.LaunchContainer)
    assert book.state.crashes.count == 1


def test_an_engine_that_stays_away_fails_who_waits_and_quarantines_nothing() -> None:
    book = away(launch_without_engine(), 61.0)
    assert is_(book) is SessionStatus.GIVEN_UP
    failure = failure_of(told(book, ONE)[0])
    assert failure.cause is Cause.ENGINE_UNAVAILABLE
    assert "has answered for 60 s" in failure.message
    assert not book.operations
    assert not book.timers
    # What it may have made goes before the next one is made, also long after.
    add(book.tell(j.JobOver(job=ONE)), TWO).expect_some(s.EndContainer)
    book.answer(s.EndContainer, s.ContainerRemoved()).expect_some(s.LaunchContainer)


def test_an_engine_that_comes_and_goes_is_not_waited_for_for_ever() -> None:
    book = launch_without_engine()
    while is_(book) is SessionStatus.STOPPING and book.now < 300.0:
        away(book, 3.0)
        still = s.StopRefused(rung=Rung.REMOVE, reason="it is still there")
        if s.EndContainer in book.operations:
            book.answer(s.EndContainer, still).advance(1.0)
    assert book.now < 80.0


def test_a_death_while_the_engine_is_away_fails_the_job_at_once_and_the_container_goes_later() -> None:
    book = serving().answer(s.WatchExit, s.ContainerExited(death=Death(exit_code=None, oom_killed=False)))
    assert failure_of(told(book, ONE)[-1]).cause is Cause.CRASH
    away(book, 30.0)
    assert is_(book) is SessionStatus.STOPPING
    book.answer(s.EndContainer, s.ContainerRemoved())
    assert is_(book) is SessionStatus.BACKING_OFF


def test_a_cancel_without_an_engine_has_the_ladders_time_and_names_what_is_missing() -> None:
    book = away(add(serving(), TWO).tell(j.StopForJob(job=ONE)), 33.0)
    assert is_(book) is SessionStatus.QUARANTINED
    assert failure_of(told(book, ONE)[-1]).cause is Cause.ENGINE_UNAVAILABLE


def test_an_end_that_only_the_engine_saw_is_believed_of_this_container_alone() -> None:
    death = Death(exit_code=139, oom_killed=False)
    book = serving().tell(s.ContainerFoundDead(container=ContainerId("earlier"), death=death))
    book.expect_nothing()
    book.tell(s.ContainerFoundDead(container=CONTAINER.id, death=death))
    assert failure_of(told(book, ONE)[-1]).exit_code == 139
    book.answer(s.EndContainer, s.ContainerRemoved())
    assert is_(book) is SessionStatus.BACKING_OFF


def test_a_reset_makes_one_that_was_given_up_usable() -> None:
    book = creating()
    for crash in range(3):
        launch(book).answer(s.WatchExit, CRASHED).answer(s.EndContainer, s.ContainerRemoved())
        if crash < 2:
            book.advance(2.0)
    assert is_(book) is SessionStatus.GIVEN_UP
    book.tell(s.ResetSession(ask=AskId(9)))
    after = book.replies[AskId(9)]
    assert isinstance(after, SessionSnapshot)
    assert (after.status, after.crashes, after.failure) == (SessionStatus.ABSENT, 0, None)


def test_a_reset_of_one_that_backs_off_starts_it_at_once() -> None:
    book = starting().answer(s.WatchExit, CRASHED).answer(s.EndContainer, s.ContainerRemoved())
    book.tell(s.ResetSession(ask=AskId(9))).expect_some(s.LaunchContainer)
    assert s.SessionTimer.BACKOFF not in book.timers


def test_a_reset_of_a_quarantined_session_asks_the_engine_once_more() -> None:
    book = serving().tell(j.StopForJob(job=ONE)).advance(33.0)
    assert is_(book) is SessionStatus.QUARANTINED
    book.tell(j.JobOver(job=ONE)).tell(s.ResetSession(ask=AskId(9))).expect_some(s.EndContainer)
    book.answer(s.EndContainer, s.ContainerRemoved())
    assert is_(book) is SessionStatus.ABSENT
    assert isinstance(add(book, TWO).replies[AskId(2)], s.Accepted)


def test_a_reset_takes_nothing_from_a_session_that_works() -> None:
    book = serving().tell(s.ResetSession(ask=AskId(9)))
    assert is_(book) is SessionStatus.READY
    assert not [word for word in told(book, ONE) if not isinstance(word, j.TurnGranted)]


def test_a_stop_for_a_job_that_is_over_stops_nothing() -> None:
    book = add(idle(), TWO).tell(j.StopForJob(job=ONE)).expect_nothing()
    assert is_(book) is SessionStatus.READY


def test_what_the_stopped_container_was_asked_is_forgotten() -> None:
    book = serving().tell(j.StopForJob(job=ONE))
    book.expect_some(Forget(kind=s.ProbeServer), Forget(kind=s.FollowServer), Forget(kind=s.SampleUsage))
    assert set(book.operations) == {s.WatchExit, s.EndContainer}
    assert set(book.timers) == {s.SessionTimer.RUNG}


# ---- closing


def close(book: Book) -> Book:
    return book.tell(s.CloseSession(ask=AskId(99)))


@pytest.mark.parametrize(
    "book", [absent(), creating().tell(j.JobOver(job=ONE)), idle(), serving(), starting()]
)
def test_a_close_in_any_phase_leaves_no_container(book: Book) -> None:
    close(book)
    if s.WatchExit in book.operations:
        gone(book)
    elif s.EndContainer in book.operations:
        assert ending(book) is Rung.REMOVE
        book.answer(s.EndContainer, s.ContainerRemoved())
    assert book.finished
    assert isinstance(book.replies[AskId(99)], Climb)
    assert is_(book) is SessionStatus.ABSENT


def test_a_close_fails_who_waits_and_ends_who_runs() -> None:
    book = close(add(serving(), TWO))
    assert failure_of(told(book, TWO)[0]).cause is Cause.CLOSED
    assert not any(isinstance(word, j.ServerLost) for word in told(book, ONE))
    gone(book).expect_some(Climb(ended_by=Rung.STOP, seconds=((Rung.STOP, 0.0),)), Finish)
    assert failure_of(told(book, ONE)[-1]).cause is Cause.CLOSED


@pytest.mark.parametrize("crashes", [1, 3])
def test_a_close_while_it_backs_off_or_has_given_up(crashes: int) -> None:
    book = creating()
    for crash in range(crashes):
        book.advance(2.0 * bool(crash))
        launch(book).answer(s.WatchExit, CRASHED).answer(s.EndContainer, s.ContainerRemoved())
    close(book).expect_some(Climb(ended_by=None), Finish)


def test_a_close_while_it_stops_joins_the_ladder() -> None:
    book = close(serving().tell(j.StopForJob(job=ONE)).advance(15.0))
    assert ending(book) is Rung.KILL
    gone(book).expect_some(Climb, Finish)


def test_a_close_that_cannot_end_the_container_says_so() -> None:
    book = close(serving()).advance(30.0)
    climb = book.replies[AskId(99)]
    assert isinstance(climb, Climb)
    assert climb.ended_by is Rung.QUARANTINE
    assert is_(book) is SessionStatus.QUARANTINED
    assert book.finished


def test_a_close_of_a_quarantined_session_does_not_pretend() -> None:
    book = close(serving().tell(j.StopForJob(job=ONE)).advance(32.0))
    assert book.replies[AskId(99)] == Climb(ended_by=Rung.QUARANTINE)


def test_a_closed_session_takes_no_jobs_and_answers_who_still_asks() -> None:
    book = close(absent())
    assert isinstance(add(book).replies[AskId(1)], s.Refused)
    book.tell(s.CloseSession(ask=AskId(98)))
    assert book.replies[AskId(98)] == Climb(ended_by=None)


# ---- the clock


def test_after_a_step_back_of_the_clock_the_conversation_is_looked_at_before_the_next_turn() -> None:
    book = idle()
    book.ahead = -3600.0
    add(book, TWO)
    looked = book.running(s.CatchUp)
    assert (looked.conversation, looked.wall) == (CONVERSATION, EPOCH + book.now - 3600.0)
    assert not told(book, TWO)
    copy = ConversationId("ses_copy")
    book.answer(s.CatchUp, s.CaughtUp(conversation=copy, upto=None, how="it goes on in a copy"))
    assert book.records == (SessionRecorded(session=samples.SESSION, conversation=copy),)
    assert told(book, TWO) == [j.TurnGranted(container=CONTAINER, endpoint=ENDPOINT, conversation=copy)]
    assert book.noticed(SessionChanged)[-1].detail == "it goes on in a copy"


def test_as_long_as_the_clock_goes_on_nobody_looks_and_one_look_is_enough() -> None:
    book = idle()
    add(book, TWO)
    assert told(book, TWO)
    book.tell(j.JobOver(job=TWO))
    book.ahead = -3600.0
    add(book, ONE).answer(s.CatchUp, s.CaughtUp(conversation=CONVERSATION, upto=None))
    assert book.records == ()
    book.tell(j.JobOver(job=ONE))
    before = len(told(book, TWO))
    add(book, TWO)
    assert len(told(book, TWO)) == before + 1


def test_a_conversation_of_an_earlier_process_is_looked_at_once_and_a_new_one_never() -> None:
    state = evolve(samples.fresh_session(), conversation=CONVERSATION)
    book = launch(add(Playbook(session.handle, state)))
    book.answer(s.ProbeServer, s.ProbeSucceeded(version="1.18.33"))
    book.hear(s.FollowServer, j.StreamOpened())
    book.answer(s.OpenConversation, s.ConversationOpened(conversation=CONVERSATION, fresh=False))
    assert not told(book, ONE)
    book.answer(s.CatchUp, s.CaughtUp(conversation=CONVERSATION, upto=None))
    assert told(book, ONE)
    assert told(serving(), ONE)


def test_somebody_elses_conversation_is_left_as_it_is() -> None:
    book = idle(elsewhere="http://127.0.0.1:4096")
    book.ahead = -3600.0
    add(book, TWO)
    assert told(book, TWO)
