"""A session whose jobs are honest and whose engine and server say anything at all, at any moment."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from opencode_actors.machines import job_messages as j
from opencode_actors.machines import session
from opencode_actors.machines import session_messages as s
from opencode_actors.machines.restart import GiveUp, RestartAfter
from opencode_actors.machines.session_state import (
    Absent,
    BackingOff,
    Closed,
    Creating,
    GivenUp,
    Quarantined,
    Serving,
    SessionState,
    Starting,
    Stopping,
)
from opencode_actors.machines.vocabulary import AskId, Climb, JobId, Rung
from opencode_actors.ports import Death
from opencode_actors.testing import samples
from opencode_actors.testing.playbook import Playbook

ANSWERS: dict[type[Any], tuple[type[Any], ...]] = {
    s.LaunchContainer: (s.ContainerLaunched, s.LaunchFailed),
    s.WatchExit: (s.ContainerExited,),
    s.ProbeServer: (s.ProbeSucceeded, s.ProbeFailed),
    s.OpenConversation: (s.ConversationOpened, s.OpeningFailed),
    s.CatchUp: (s.CaughtUp,),
    s.FollowServer: (s.StreamLost,),
    s.SampleUsage: (s.UsageSampled,),
    s.TidyUp: (s.TidiedUp,),
    s.EndContainer: (s.StopAnswered, s.StopRefused, s.ContainerRemoved),
}
GRACES = samples.GRACES
POLICY = samples.SESSION_POLICY
ALWAYS: set[type[Any]] = {s.TidyUp}
ALLOWED: dict[type[Any], set[type[Any]]] = {
    Absent: set(),
    Creating: {s.LaunchContainer},
    Starting: {s.WatchExit, s.ProbeServer, s.OpenConversation, s.FollowServer},
    Serving: {s.WatchExit, s.ProbeServer, s.OpenConversation, s.CatchUp, s.FollowServer, s.SampleUsage},
    Stopping: {s.WatchExit, s.EndContainer},
    BackingOff: set(),
    GivenUp: set(),
    Quarantined: set(),
    Closed: set(),
}
NEEDED: dict[type[Any], set[Any]] = {
    Creating: {s.SessionTimer.LAUNCH},
    Starting: {s.SessionTimer.READY},
    Serving: {s.SessionTimer.SILENCE},
    Stopping: {s.SessionTimer.RUNG},
    BackingOff: {s.SessionTimer.BACKOFF},
}


class SessionAlone(RuleBasedStateMachine):
    book: Playbook[SessionState, s.SessionMessage, s.SessionEffect]

    @initialize()
    def begin(self) -> None:
        self.book = Playbook(session.handle, samples.fresh_session())
        self.asks = 0
        self.jobs = 0
        self.accepted: list[JobId] = []
        self.over: set[JobId] = set()
        self.rung: Rung | None = None
        self.crashes: list[float] = []

    @property
    def phase(self) -> Any:
        return self.book.state.phase

    def _ask(self) -> AskId:
        self.asks += 1
        return AskId(self.asks)

    def _told(self) -> None:
        """Jobs do as jobs do: who is told that all is lost is over."""
        for told in tuple(self.book.told):
            if isinstance(told, s.TellJob) and isinstance(told.message, j.ServerLost | j.SessionFailed):
                self._end(told.job)

    def _end(self, job: JobId) -> None:
        if job not in self.over:
            self.over.add(job)
            self.book.tell(j.JobOver(job=job))

    @rule()
    def a_job_comes(self) -> None:
        self.jobs += 1
        job, ask = JobId(f"job-{self.jobs}"), self._ask()
        given_up = isinstance(self.phase, GivenUp)
        self.book.tell(s.AddJob(ask=ask, job=job))
        if isinstance(self.book.replies[ask], s.Accepted):
            self.accepted.append(job)
            if given_up:
                self.crashes.clear()

    @precondition(lambda self: set(self.accepted) - self.over)
    @rule(data=st.data())
    def a_job_ends(self, data: st.DataObject) -> None:
        self._end(data.draw(st.sampled_from(sorted(set(self.accepted) - self.over))))

    @precondition(lambda self: self.book.state.current is not None)
    @rule()
    def the_job_cannot_be_aborted(self) -> None:
        self.book.tell(j.StopForJob(job=self.book.state.current or JobId("")))

    @precondition(lambda self: self.book.operations)
    @rule(data=st.data())
    def an_operation_ends(self, data: st.DataObject) -> None:
        kind = data.draw(st.sampled_from(sorted(self.book.operations, key=str)))
        operation = self.book.operations[kind]
        messages = [m for m in samples.SESSION_MESSAGES if isinstance(m, ANSWERS[kind])]
        if isinstance(operation, s.EndContainer):
            messages = [m for m in messages if getattr(m, "rung", operation.rung) is operation.rung]
        self._watch(lambda: self.book.answer(kind, data.draw(st.sampled_from(messages))))

    @precondition(lambda self: s.FollowServer in self.book.operations)
    @rule(message=st.sampled_from([j.StreamOpened(), j.EventsSeen(events=samples.EVENTS)]))
    def the_server_speaks(self, message: s.SessionMessage) -> None:
        self.book.hear(s.FollowServer, message)

    @precondition(lambda self: isinstance(self.phase, Starting | Serving))
    @rule()
    def the_engine_says_that_it_has_ended(self) -> None:
        death = Death(exit_code=1, oom_killed=False)
        found = s.ContainerFoundDead(container=samples.CONTAINER.id, death=death)
        self._watch(lambda: self.book.tell(found))

    @precondition(lambda self: not self.book.finished)
    @rule(really=st.sampled_from([False, False, True]))
    def it_is_reset(self, really: bool) -> None:  # noqa: FBT001 - hypothesis draws it
        if really:
            self.crashes.clear()
            self._watch(lambda: self.book.tell(s.ResetSession(ask=self._ask())))

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 16.0, 61.0, 3601.0]))
    def time_passes(self, seconds: float) -> None:
        self._watch(lambda: self.book.advance(seconds))

    @precondition(lambda self: not self.book.finished)
    @rule(really=st.sampled_from([False, False, False, False, True]))
    def it_is_closed(self, really: bool) -> None:  # noqa: FBT001 - hypothesis draws it
        if really:
            self._watch(lambda: self.book.tell(s.CloseSession(ask=self._ask())))

    @precondition(lambda self: not self.book.finished)
    @rule(really=st.sampled_from([False, False, True]))
    def its_place_is_wanted(self, really: bool) -> None:  # noqa: FBT001 - hypothesis draws it
        if really:
            ask, busy = self._ask(), bool(set(self.accepted) - self.over)
            self._watch(lambda: self.book.tell(s.RetireSession(ask=ask, why="its place is needed")))
            refused = isinstance(self.book.replies.get(ask), s.Refused)
            leftover = isinstance(self.phase, GivenUp) and self.phase.leftover
            assert refused == (busy or leftover or isinstance(self.phase, Quarantined))

    @invariant()
    def nobody_is_retired_who_has_a_job(self) -> None:
        if hasattr(self, "book") and self.book.state.retiring:
            assert not self.book.state.queue
            assert self.book.state.current is None

    def _watch(self, act: Any) -> None:
        before = self.phase
        act()
        self._told()
        after = self.phase
        crashed = isinstance(after, Stopping) and isinstance(after.afterwards, RestartAfter | GiveUp)
        if crashed and not isinstance(before, Stopping):
            now = after.ladder.since
            self.crashes = [at for at in self.crashes if now - at < POLICY.restart.period] + [now]
            too_many = len(self.crashes) > POLICY.restart.max_restarts
            assert isinstance(after.afterwards, GiveUp) == too_many

    @invariant()
    def one_job_at_a_time_in_the_order_of_the_queue(self) -> None:
        if not hasattr(self, "book"):
            return
        told = [t for t in self.book.told if isinstance(t, s.TellJob)]
        granted = [t.job for t in told if isinstance(t.message, j.TurnGranted)]
        assert granted == [job for job in self.accepted if job in granted]
        assert set(granted[:-1]) <= self.over, "two turns at once"
        waiting = [job for job in self.accepted if job not in granted and job not in self.over]
        assert list(self.book.state.queue) == waiting
        assert len(waiting) <= POLICY.max_queued_jobs

    @invariant()
    def nothing_runs_that_the_phase_has_no_use_for(self) -> None:
        if hasattr(self, "book"):
            assert set(self.book.operations) <= ALLOWED[self.phase.__class__] | ALWAYS

    @invariant()
    def something_will_move_it(self) -> None:
        if hasattr(self, "book"):
            assert set(self.book.timers) >= NEEDED.get(self.phase.__class__, set())

    @invariant()
    def the_ladder_only_climbs(self) -> None:
        if not hasattr(self, "book"):
            return
        if not isinstance(self.phase, Stopping):
            self.rung = None
            return
        assert self.rung is None or self.phase.ladder.rung >= self.rung
        self.rung = self.phase.ladder.rung

    def teardown(self) -> None:
        """A close ends it within the ladder's graces, though the engine may do nothing at all."""
        if not hasattr(self, "book"):
            return
        ask = self._ask()
        self.book.tell(s.CloseSession(ask=ask))
        self.book.advance(GRACES.stop + 2 + GRACES.kill + GRACES.remove)
        self._told()
        assert self.book.finished
        assert not self.book.owed
        assert isinstance(self.book.replies[ask], Climb)
        assert set(self.accepted) == self.over
        assert not self.book.timers
        assert not self.book.operations


TestSessionAlone = SessionAlone.TestCase
TestSessionAlone.settings = settings(
    max_examples=150, stateful_step_count=50, deadline=None, derandomize=True
)
