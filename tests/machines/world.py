"""A session and its jobs by the kernel's rules, around a model of the engine and of the server.

What may happen to them next stands in `happenings`; a test picks. Nothing here is random by itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, assert_never

from attrs import Factory, define, evolve, field, frozen

from opencode_actors.machines import job as job_machine
from opencode_actors.machines import job_messages as j
from opencode_actors.machines import server_events as e
from opencode_actors.machines import session as session_machine
from opencode_actors.machines import session_messages as s
from opencode_actors.machines.interruption import Left, taken_over
from opencode_actors.machines.job_state import Interrupted, JobPolicy, Running, snapshot
from opencode_actors.machines.notices import (
    Begun,
    ChoiceRecorded,
    ContainerForgotten,
    ContainerRecorded,
    DirectoriesForgotten,
    InputAnswered,
    InputWanted,
    JobCancelling,
    JobEnded,
    JobForgotten,
    JobRecorded,
    NotificationRecorded,
    OutputAdded,
    OutputRecorded,
    Publish,
    Record,
    SessionAttached,
    SessionForgotten,
    SessionForked,
    SessionRecorded,
)
from opencode_actors.machines.session_state import SessionPolicy
from opencode_actors.machines.spending import Recorded, Spending
from opencode_actors.machines.transcript import Piece
from opencode_actors.machines.vocabulary import (
    AskId,
    Cause,
    Climb,
    Failure,
    Finish,
    Forget,
    JobId,
    JobSnapshot,
    JobStatus,
    Moment,
    PendingRequest,
    Reply,
    RequestKind,
    Run,
    Rung,
    StartTimer,
    StopTimer,
)
from opencode_actors.ports import (
    Container,
    ContainerId,
    ContainerPhase,
    ConversationState,
    Death,
    Endpoint,
)
from opencode_actors.testing import samples
from opencode_actors.testing.playbook import EPOCH, Known, fired
from tests.machines.model_server import CONVERSATION, Server, Storage

SESSION = "session"
TICK = 0.002


@frozen
class Letter:
    message: Any
    ticket: object | None = None


@define(eq=False)
class Flying:
    """An operation on its way. What was put into the server's hands is there, also when it is forgotten."""

    operation: Any
    ticket: object
    arrived: bool = False
    landed: bool = False  # its last word is in the mailbox
    status: ConversationState | None = None
    looked: bool = False  # at what lives in the container
    found: Any = None  # what the server said, and nobody has heard yet
    heard: int = -1  # how much of the server's words this stream has been sent; -1: not connected


@define(eq=False)
class Actor:
    name: str
    handle: Callable[..., Any]
    state: Any
    mailbox: deque[Letter] = field(factory=deque[Letter])
    flying: dict[type[Any], Flying] = field(factory=dict[type[Any], Flying])
    timers: dict[Any, tuple[float, object]] = field(factory=dict[Any, tuple[float, object]])
    finished: bool = False
    owed: set[AskId] = field(factory=set[AskId])
    answered: dict[AskId, Any] = field(factory=dict[AskId, Any])
    records: str = ""
    notices: str = ""
    offsets: int = 0
    begun: Begun | None = None  # as recorded, like the next two
    verdict: Failure | None = None
    status: JobStatus = JobStatus.PENDING
    interrupted_by: JobId | None = None  # as recorded
    spent: Recorded = Factory(Recorded)
    told: list[Piece] = field(factory=list[Piece])
    ended: list[JobSnapshot] = field(factory=list[JobSnapshot])
    rungs: list[Rung] = field(factory=list[Rung])
    wanted: list[str] = field(factory=list[str])
    input_ended: list[str] = field(factory=list[str])
    cancelled_at: float | None = None
    first: bool = False  # its message goes before those that wait
    gave_way: bool = False  # it was told so, and was not being ended already


@define(eq=False)
class Box:
    """One container, and the server in it."""

    number: int
    server: Server
    alive: bool = True
    there: bool = True  # the engine still has it
    booted: bool = False
    frozen: bool = False
    unwatched: bool = False  # its end is not seen by who watches it, only by the engine
    unheard: bool = False  # its event stream is refused
    ignores_stop: bool = False
    ignores_kill: bool = False
    ignores_remove: bool = False
    oom: bool = False
    followed: bool = False
    strays: dict[int, e.MessageId] = field(factory=dict[int, e.MessageId])  # whose command left them

    def end_stray(self, stray: int) -> None:
        del self.strays[stray]

    @property
    def answers(self) -> bool:
        return self.alive and self.booted and not self.frozen


@define(eq=False)
class World:
    job_policy: JobPolicy = samples.JOB_POLICY
    session_policy: SessionPolicy = samples.SESSION_POLICY
    now: float = 0.0
    storage: Storage = field(factory=Storage)
    boxes: list[Box] = field(factory=list[Box])
    engine_away: bool = False
    actors: dict[str, Actor] = field(factory=dict[str, Actor])
    asks: int = 0
    jobs: int = 0
    accepted: list[str] = field(factory=list[str])
    granted: list[str] = field(factory=list[str])
    added: dict[AskId, str] = field(factory=dict[AskId, str])
    strays: int = 0
    ended_at: dict[str, float] = field(factory=dict[str, float])
    streams_lost: int = 0
    limbo: list[tuple[Box, Callable[[Server], None]]] = field(
        factory=list[tuple[Box, Callable[[Server], None]]]
    )
    known_gone: set[str] = field(factory=set[str])
    conversation: e.ConversationId | None = None  # as recorded, like the next
    housed: str | None = None
    restarts: int = 0
    closed: Climb | None = None

    def __attrs_post_init__(self) -> None:
        session = samples.fresh_session(policy=self.session_policy)
        self.actors[SESSION] = Actor(name=SESSION, handle=session_machine.handle, state=session)

    # ---- what a user does

    def add_job(self, *, first: bool = False) -> str:
        self.jobs += 1
        name = f"job-{self.jobs}"
        state = samples.first_job(now=self.now, job=JobId(name), policy=self.job_policy)
        self.actors[name] = Actor(name=name, handle=job_machine.handle, state=state, first=first)
        self.added[self.ask(SESSION, s.AddJob, job=JobId(name), first=first)] = name
        return name

    def _make_way_for(self, first: Actor) -> None:
        """As the kernel does once the job is recorded."""
        at_work = self.session.state.current
        for other in self.unsettled():
            if other is not first and (other.name == at_work or other.state.has_begun):
                other.mailbox.append(Letter(j.GiveWay(to=JobId(first.name))))

    def _accept(self, name: str) -> None:
        """In the order in which they get their turns."""
        if not self.actors[name].first:
            self.accepted.append(name)
            return
        turns = [number for number, one in enumerate(self.accepted, start=1) if one in self.granted]
        self.accepted.insert(max(turns, default=0), name)
        self._make_way_for(self.actors[name])

    def ask(self, actor: str, kind: type[Any], **more: Any) -> AskId:
        self.asks += 1
        ask = AskId(self.asks)
        self.actors[actor].owed.add(ask)
        self.actors[actor].mailbox.append(Letter(kind(ask=ask, **more)))
        return ask

    def cancel(self, name: str) -> None:
        job = self.actors[name]
        if job.cancelled_at is None:
            job.cancelled_at = self.now
        self.ask(name, j.CancelJob)

    def answer(self, name: str, request: str, answer: j.Answer) -> None:
        self.ask(name, j.AnswerRequest, request=request, answer=answer)

    # ---- the kernel

    @property
    def session(self) -> Actor:
        return self.actors[SESSION]

    def job_actors(self) -> list[Actor]:
        return [actor for name, actor in self.actors.items() if name != SESSION]

    def unsettled(self) -> list[Actor]:
        return [actor for actor in self.job_actors() if actor.name in self.accepted and not actor.ended]

    def deliver(self, actor: Actor) -> None:
        """One letter out of the mailbox, unless it is stale."""
        letter = actor.mailbox.popleft()
        ticket = letter.ticket
        if ticket is not None:
            current = {flying.ticket for flying in actor.flying.values()}
            current |= {timer[1] for timer in actor.timers.values()}
            if actor.finished or ticket not in current:
                return
        moment = self._moment()
        if isinstance(letter.message, j.GiveWay) and not (actor.ended or actor.cancelled_at is not None):
            actor.cancelled_at, actor.gave_way = self.now, True
        if isinstance(letter.message, s.ContainerExited | s.ContainerFoundDead | s.ContainerRemoved):
            self.known_gone |= {str(box.number) for box in self.boxes if not box.alive}
        step = actor.handle(actor.state, letter.message, moment)
        for record in step.records:
            self._record(actor, record)
        actor.state = step.state
        _check_budget(actor)
        for effect in step.effects:
            self._act(actor, effect)
        if actor.finished:
            for flying in actor.flying.values():
                self._lose(flying)
            actor.flying.clear()
            actor.timers.clear()

    def _record(self, actor: Actor, record: Record) -> None:
        match record:
            case OutputRecorded():
                assert record.offset == len(actor.records.encode())
                actor.records += record.text
                if record.span < record.offset:
                    actor.told[-1] = evolve(actor.told[-1], text=actor.told[-1].text + record.text)
                else:
                    piece = Piece(kind=record.kind, text=record.text, part=record.part, at=record.at)
                    actor.told.append(piece)
            case JobRecorded():
                actor.status = record.snapshot.status
                actor.interrupted_by = record.snapshot.interrupted_by
                total = Spending(cost=record.snapshot.cost_usd)
                actor.spent = Recorded(total=total, aside=record.snapshot.spent_aside)
                actor.begun = record.begun or actor.begun
                actor.verdict = record.verdict or actor.verdict
            case SessionRecorded():
                self.conversation = record.conversation
            case SessionAttached():
                raise AssertionError(record)
            case ContainerRecorded():
                self.housed = record.container
            case ContainerForgotten():
                self.housed = None
            case DirectoriesForgotten():
                raise AssertionError("only a clean-up says that")
            case (
                SessionForked()
                | JobForgotten()
                | SessionForgotten()
                | NotificationRecorded()
                | ChoiceRecorded()
            ):
                raise AssertionError(record)

    # ---- a service that is killed, and comes back

    def restart(self) -> None:
        """Only what was recorded is left, and what the engine and the server have."""
        self.restarts += 1
        for actor in self.actors.values():
            for flying in actor.flying.values():
                self._lose(flying)
        session = samples.fresh_session(policy=self.session_policy)
        session = evolve(session, conversation=self.conversation)
        self.actors[SESSION] = Actor(name=SESSION, handle=session_machine.handle, state=session)
        container, endpoint = self._found()
        left = [actor for actor in self.unsettled() if self._comes_back(actor, alive=container is not None)]
        sent = [actor for actor in left if actor.begun is not None]
        waiting = [actor for actor in left if actor.begun is None]
        first = [actor for actor in reversed(waiting) if actor.first]
        left = [*sent, *first, *(actor for actor in waiting if not actor.first)]
        # Turns that were granted and not heard of.
        self.granted = [
            name for name in self.granted if name not in {a.name for a in left if a.begun is None}
        ]
        self.actors = {
            name: actor
            for name, actor in self.actors.items()
            if name == SESSION or name in self.accepted or actor.ended
        }
        again = [actor.name for actor in left if actor.begun is None]
        self.accepted = [name for name in self.accepted if name not in again] + again
        for actor in first:
            self._make_way_for(actor)
        if not left:
            return
        over = s.TakeOver(
            jobs=tuple(JobId(actor.name) for actor in left),
            container=container,
            endpoint=endpoint,
        )
        self.session.mailbox.append(Letter(over))

    def _found(self) -> tuple[Container | None, Endpoint | None]:
        """The container that a job is at work in, if it lives; any other is removed."""
        box = self.box
        if box is None:
            return None, None
        at_work = any(actor.begun is not None for actor in self.unsettled())
        if at_work and box.alive and self.housed == f"c{box.number}":
            if box.followed:
                self.streams_lost += 1
            return container_of(box.number)
        self.die(box)
        box.there = False
        return None, None

    def _comes_back(self, actor: Actor, *, alive: bool) -> bool:
        """Whether it is gone on with; one that nobody wants any more is over where nothing works on it."""
        for flying in tuple(actor.flying):
            del actor.flying[flying]
        actor.mailbox.clear()
        actor.timers.clear()
        actor.owed.clear()
        actor.rungs.clear()
        stopping = actor.status is JobStatus.CANCELLING
        actor.cancelled_at = self.now if stopping else None
        actor.gave_way = stopping and actor.interrupted_by is not None
        waiting = [request for request in actor.wanted if request not in actor.input_ended]
        fresh = samples.first_job(now=self.now, job=JobId(actor.name), policy=self.job_policy)
        if stopping and not alive:
            final = evolve(
                snapshot(actor.state, self.now),
                status=JobStatus.CANCELLED,
                output_bytes=len(actor.records.encode()),
                pending=(),
                interrupted_by=actor.interrupted_by,
            )
            actor.ended.append(final)
            actor.input_ended.extend(waiting)
            actor.finished = True
            self.ended_at[actor.name] = self.now
            return False
        if actor.begun is not None:
            left = Left(
                begun=actor.begun,
                why=samples.LOST,
                alive=alive,
                stopping=stopping,
                verdict=actor.verdict,
                told=tuple(actor.told),
                told_bytes=len(actor.records.encode()),
                wanted=tuple(asked_as(request) for request in waiting),
                todos=(),
                spent=actor.spent,
            )
            fresh = taken_over(fresh, left, self._moment())
            fresh = evolve(fresh, gives_way_to=actor.interrupted_by)
            actor.mailbox.append(Letter(j.TakenOver()))
        actor.state = fresh
        return True

    def _moment(self) -> Moment:
        return Moment(now=self.now, wall=EPOCH + self.now, roll=0.5)

    def post(self, actor: Actor, flying: Flying, message: Any) -> None:
        actor.mailbox.append(Letter(message, flying.ticket))

    def drain(self) -> None:
        while waiting := [actor for actor in self.actors.values() if actor.mailbox]:
            self.deliver(waiting[0])

    def advance(self, seconds: float) -> None:
        """Time passes only while nobody has a letter to read; timers fire in the order of their time."""
        until = self.now + seconds
        while True:
            self.drain()
            due = self._due()
            if due is None or due[0] > until:
                break
            self._fire(*due)
        self.now = until

    def tick(self) -> None:
        """A moment, in which letters may stay unread."""
        self.now += TICK
        while (due := self._due()) is not None and due[0] <= self.now:
            self._fire(*due)

    def next_due(self) -> float | None:
        due = self._due()
        return None if due is None else due[0]

    def _due(self) -> tuple[float, Actor, Any] | None:
        waiting = [
            (timer[0], actor, name)
            for actor in self.actors.values()
            for name, timer in actor.timers.items()
            if timer[0] >= 0
        ]
        return min(waiting, key=lambda due: due[0]) if waiting else None

    def _fire(self, at: float, actor: Actor, name: Any) -> None:
        self.now = max(self.now, at)
        ticket = actor.timers[name][1]
        actor.timers[name] = (-1.0, ticket)  # fired, and its letter is still the current one
        actor.mailbox.append(Letter(fired(name), ticket))

    def _act(self, actor: Actor, effect: Known) -> None:
        match effect:
            case Run(operation=operation):
                self._check(actor, operation)
                self._forget(actor, operation.__class__)
                if not actor.finished:
                    actor.flying[type(operation)] = Flying(operation, object())
            case Forget(kind=kind):
                self._forget(actor, kind)
            case StartTimer(timer=timer, seconds=seconds):
                assert seconds >= 0, effect
                if not actor.finished:
                    actor.timers[timer] = (self.now + seconds, object())
            case StopTimer(timer=timer):
                actor.timers.pop(timer, None)
            case Reply(ask=ask, value=value):
                assert ask in actor.owed, f"{actor.name} answers {ask}, which nobody waits for"
                actor.owed.remove(ask)
                actor.answered[ask] = value
                if isinstance(value, s.Accepted):
                    self._accept(self.added[ask])
                if isinstance(value, Climb):
                    self.closed = value
            case Finish():
                assert not actor.finished, f"{actor.name} finishes twice"
                actor.finished = True
            case j.TellSession(message=message):
                self.session.mailbox.append(Letter(message))
            case s.TellJob(job=job, message=message):
                target = self.actors[job]
                again = isinstance(target.state.phase, Interrupted) or (target.begun and target.finished)
                if isinstance(message, j.TurnGranted) and not again:
                    self.granted.append(job)
                if not target.finished:
                    target.mailbox.append(Letter(message))
            case Publish(notice=notice):
                self._noticed(actor, notice)
            case _:
                assert_never(effect)

    def _noticed(self, actor: Actor, notice: Any) -> None:
        if isinstance(notice, OutputAdded):
            assert notice.offset == actor.offsets, "the offsets have a hole"
            actor.offsets += len(notice.text.encode())
            actor.notices += notice.text
        elif isinstance(notice, JobEnded):
            if notice.snapshot.failure is not None and notice.snapshot.failure.cause is Cause.BUDGET:
                assert notice.snapshot.cost_usd > self.job_policy.max_cost_usd > 0
            actor.ended.append(notice.snapshot)
            self._check_way(actor, notice.snapshot)
            self._check_strays(actor, notice.snapshot)
            self.ended_at[actor.name] = self.now
        elif isinstance(notice, InputWanted):
            assert notice.request not in actor.wanted, "announced twice"
            assert not actor.ended, "asked after its end"
            actor.wanted.append(notice.request)
        elif isinstance(notice, InputAnswered):
            assert notice.request in actor.wanted, "never announced"
            assert notice.request not in actor.input_ended, "ended twice"
            actor.input_ended.append(notice.request)
        elif isinstance(notice, JobCancelling):
            assert all(notice.rung > rung for rung in actor.rungs), "the ladder goes down"
            actor.rungs.append(notice.rung)

    def _check_way(self, actor: Actor, ended: JobSnapshot) -> None:
        """One that was ended for another says so, and nobody else does."""
        if ended.interrupted_by is not None:
            assert actor.gave_way
            assert self.actors[ended.interrupted_by].first
        if actor.gave_way and ended.status is JobStatus.CANCELLED:
            assert ended.interrupted_by is not None, "it is not said for whom it was ended"

    def _check_strays(self, actor: Actor, ended: JobSnapshot) -> None:
        """An abort has ended a job only when nothing of it is left. One that is complete may leave things."""
        aborted = ended.climb is not None and ended.climb.ended_by is Rung.ABORT
        if aborted and ended.status is not JobStatus.COMPLETED and self.box is not None and self.box.alive:
            assert actor.state.prompt.message_id not in self.box.strays.values(), "a process is left"

    def _forget(self, actor: Actor, kind: Any) -> None:
        flying = actor.flying.pop(kind, None)
        if flying is not None:
            self._lose(flying)

    def _lose(self, flying: Flying) -> None:
        """A request that is cut off may have been sent already, and arrive yet."""
        box = self.box
        if flying.arrived or flying.landed or box is None:
            return
        operation = flying.operation
        if isinstance(operation, j.SubmitPrompt) and self.at(operation.endpoint) is box:
            self.limbo.append((box, lambda server: server.submit(operation.prompt, self.now)))
        if isinstance(operation, j.AbortConversation) and self.at(operation.endpoint) is box:
            self.limbo.append((box, lambda server: server.abort()))
        if isinstance(operation, j.ReplyToRequest) and self.at(operation.endpoint) is box:
            self.limbo.append((box, lambda server: _late(server, operation.request.id)))

    def _check(self, actor: Actor, operation: Any) -> None:
        """Nothing is asked of a container of which the actor knows that it is gone."""
        if actor.name == SESSION:
            where = getattr(operation, "endpoint", None) or getattr(operation, "container", None)
            if isinstance(where, Endpoint):
                assert where.url not in self.known_gone, f"{operation} at a container that is gone"
            if isinstance(where, Container):
                assert str(where.pid) not in self.known_gone, f"{operation} of a container that is gone"
        if isinstance(operation, s.LaunchContainer):
            assert self.box is None, "two containers of one session"

    # ---- the engine and the server

    @property
    def box(self) -> Box | None:
        return self.boxes[-1] if self.boxes and self.boxes[-1].there else None

    @property
    def latest(self) -> Box:
        return self.boxes[-1]

    def at(self, endpoint: Endpoint) -> Box:
        return self.boxes[int(endpoint.url)]

    def die(self, box: Box, *, oom: bool = False) -> None:
        box.alive, box.oom = False, oom
        box.server.turn = None
        box.server.pending = None
        box.strays.clear()

    def find_dead(self, box: Box) -> None:
        death = Death(exit_code=137, oom_killed=False)
        found = s.ContainerFoundDead(container=ContainerId(f"c{box.number}"), death=death)
        self.session.mailbox.append(Letter(found))

    def leave_stray(self, box: Box, prompt: e.MessageId) -> None:
        self.strays += 1
        box.strays[1000 + self.strays] = prompt

    def launch(self) -> tuple[Container, Endpoint]:
        number = len(self.boxes)
        self.boxes.append(Box(number=number, server=Server(storage=self.storage)))
        return container_of(number)


def _check_budget(actor: Actor) -> None:
    """Nobody goes on who is known to have spent too much, unless the answer is there."""
    phase = actor.state.phase
    if isinstance(phase, Running) and phase.work.transcript.ending is None:
        most, spent = actor.state.policy.max_cost_usd, phase.work.spending.cost
        assert not most or spent <= most, f"{actor.name} has spent ${spent} of ${most}, and runs"


def container_of(number: int) -> tuple[Container, Endpoint]:
    container = Container(
        id=ContainerId(f"c{number}"),
        name="oa-demo",
        image="demo",
        labels={},
        phase=ContainerPhase.RUNNING,
        pid=number,
        port=number,
    )
    return container, Endpoint(url=str(number), password="secret")


def asked_as(request: str) -> PendingRequest:
    """As it was announced; whose conversation it is of makes no difference to whoever waits."""
    return PendingRequest(
        id=request,
        kind=RequestKind.QUESTION,
        text="Which colour?",
        options=("Blue",),
        conversation=CONVERSATION,
    )


def _late(server: Server, request: str) -> None:
    server.answer(request)
