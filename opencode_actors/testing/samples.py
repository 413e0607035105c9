"""One message of every kind for both machines, and every state that they lead to.

A message or a server's event that is added to its union without a sample here fails the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Any, Generic, TypeVar

from attrs import evolve, frozen

from opencode_actors.machines import job, session
from opencode_actors.machines import job_messages as j
from opencode_actors.machines import server_events as e
from opencode_actors.machines import session_messages as s
from opencode_actors.machines.cancellation import Graces
from opencode_actors.machines.interruption import Left, taken_over
from opencode_actors.machines.job_state import Interrupted, JobPolicy, JobState, Running, Stopping, new_job
from opencode_actors.machines.notices import Begun, Step
from opencode_actors.machines.restart import RestartPolicy
from opencode_actors.machines.session_state import Serving, SessionPolicy, SessionState, Starting
from opencode_actors.machines.session_state import Stopping as ContainerStopping
from opencode_actors.machines.session_state import status as session_status
from opencode_actors.machines.spending import Recorded
from opencode_actors.machines.transcript import Piece
from opencode_actors.machines.vocabulary import (
    AskId,
    Cause,
    Climb,
    Failure,
    JobId,
    Moment,
    OnCrash,
    OnUnanswered,
    PendingRequest,
    RequestKind,
    Rung,
    SessionKey,
)
from opencode_actors.ports import (
    Container,
    ContainerId,
    ContainerPhase,
    ConversationState,
    Death,
    Endpoint,
    PermissionReply,
    Permissions,
    Process,
    Prompt,
    Usage,
)
from opencode_actors.testing.playbook import EPOCH

SESSION = SessionKey("demo")
JOB = JobId("job-1")
ASK = AskId(1)
CONVERSATION = e.ConversationId("ses_demo")
CHILD = e.ConversationId("ses_child")
ENDPOINT = Endpoint(url="http://127.0.0.1:4096", password="secret")  # noqa: S106 - opens nothing
LOST = Failure(cause=Cause.LOST, message="opencode-actors ended while the job ran")
FAILURE = Failure(cause=Cause.CRASH, message="the container ended: exit code 1", exit_code=1)
GRACES = Graces(abort=10.0, stop=15.0, kill=5.0, remove=10.0)
CONTAINER = Container(
    id=ContainerId("c0ffee"),
    name="oa-demo",
    image="demo",
    labels={},
    phase=ContainerPhase.RUNNING,
    pid=4242,
    port=4096,
)
RESIDENTS = (
    Process(pid=4242, started=7, session=4242, name="init"),
    Process(pid=4243, started=8, session=4242, name="opencode"),
)
DAEMON = Process(pid=4250, started=90, session=4250, name="sleep")
JOB_POLICY = JobPolicy(
    idle_timeout=120.0,
    job_timeout=3600.0,
    max_cost_usd=1.0,
    remind_after=600.0,
    report_every=0.0,
    max_output_size=10 << 20,
    max_provider_retries=3,
    question_timeout=300.0,
    on_unanswered=OnUnanswered.REJECT,
    on_crash=OnCrash.FAIL,
    graces=GRACES,
)
SESSION_POLICY = SessionPolicy(
    startup_timeout=30.0,
    server_ready_timeout=60.0,
    session_idle_timeout=3600.0,
    max_queued_jobs=2,
    memory=1 << 30,
    recycle_memory_share=0.8,
    max_disk=2 << 30,
    restart=RestartPolicy(max_restarts=2, period=900.0, delay=0.5, factor=2.0, delay_cap=30.0, jitter=0.5),
    graces=GRACES,
)
ELSEWHERE = "http://127.0.0.1:4096"
ELSEWHERE_POLICY = evolve(SESSION_POLICY, elsewhere=ELSEWHERE, server_ready_timeout=60.0, lost_after=60.0)
ELSEWHERE_JOB_POLICY = evolve(JOB_POLICY, elsewhere=ELSEWHERE)

# Above every prompt's id of our own, as an answer's id is.
USER = e.MessageId("msg_z0")
ANSWER = e.MessageId("msg_z1")
TEXT = e.PartId("prt_z1")
TOOL = e.PartId("prt_z2")


def first_job(*, now: float = 0.0, job: JobId = JOB, policy: JobPolicy = JOB_POLICY) -> JobState:
    prompt = Prompt(text="fix the failing test")
    return new_job(job=job, session=SESSION, prompt=prompt, policy=policy, now=now)


_NOTHING_SPENT = Recorded()


def left_job(
    *,
    now: float = 0.0,
    policy: JobPolicy = JOB_POLICY,
    alive: bool = False,
    stopping: bool = False,
    told: tuple[Piece, ...] = (),
    wanted: tuple[PendingRequest, ...] = (),
    todos: tuple[e.Todo, ...] = (),
    spent: Recorded = _NOTHING_SPENT,
) -> JobState:
    """By an earlier process, which had sent its prompt ten seconds ago."""
    moment = Moment(now=now, wall=EPOCH + now, roll=0.5)
    begun = Begun(conversation=CONVERSATION, message=USER, part=e.PartId("prt_z0"), at=moment.wall - 10.0)
    left = Left(
        begun=begun,
        why=LOST,
        alive=alive,
        stopping=stopping,
        verdict=None,
        told=told,
        told_bytes=sum(len(piece.text.encode()) for piece in told),
        wanted=wanted,
        todos=todos,
        spent=spent,
    )
    return taken_over(first_job(now=now - 10.0, policy=policy), left, moment)


def fresh_session(*, policy: SessionPolicy = SESSION_POLICY) -> SessionState:
    return SessionState(key=SESSION, container_name="oa-demo", title="demo", policy=policy, conversation=None)


def answer(**changes: Any) -> e.MessageInfo:
    info = e.MessageInfo(id=ANSWER, conversation=CONVERSATION, role="assistant", parent=USER, model="m/one")
    return evolve(info, **changes)


DONE = answer(completed_at=EPOCH, finish="stop")
ABORTED = answer(completed_at=EPOCH, error=e.MessageError(name="MessageAbortedError", message="Aborted"))
REFUSED = answer(
    completed_at=EPOCH, error=e.MessageError(name="APIError", message="no such key", status_code=401)
)
HELLO = e.TextPart(id=TEXT, message=ANSWER, text="hello", finished=True)
BASH = e.ToolPart(id=TOOL, message=ANSWER, tool="bash", state=e.ToolState.RUNNING, title="make test")

EVENTS: tuple[e.ServerEvent, ...] = (
    e.MessageUpdated(info=answer()),
    e.MessageUpdated(info=answer(cost=2.0, finish="tool-calls")),
    e.MessageUpdated(info=answer(id=e.MessageId("msg_z9"), conversation=CHILD, cost=0.1)),
    e.MessageUpdated(info=DONE),
    e.MessageUpdated(info=ABORTED),
    e.MessageUpdated(info=REFUSED),
    e.PartUpdated(conversation=CONVERSATION, part=evolve(HELLO, text="", finished=False)),
    e.PartUpdated(conversation=CONVERSATION, part=HELLO),
    e.PartUpdated(conversation=CONVERSATION, part=BASH),
    e.PartUpdated(conversation=CONVERSATION, part=evolve(BASH, state=e.ToolState.COMPLETED)),
    e.PartDelta(conversation=CONVERSATION, message=ANSWER, part=TEXT, text="hel"),
    e.ConversationCreated(conversation=CHILD, parent=CONVERSATION),
    e.ConversationBusy(conversation=CONVERSATION),
    e.ConversationBusy(conversation=CHILD),
    e.ConversationIdle(conversation=CONVERSATION),
    e.ConversationIdle(conversation=CHILD),
    e.ConversationRetrying(
        conversation=CONVERSATION, attempt=1, message="Rate limit reached", next_at=EPOCH + 1
    ),
    e.ConversationRetrying(
        conversation=CONVERSATION, attempt=9, message="Rate limit reached", next_at=EPOCH + 1
    ),
    e.ConversationFailed(
        conversation=None, error=e.MessageError(name="UnknownError", message="agent not found")
    ),
    e.TodosUpdated(conversation=CONVERSATION, todos=(e.Todo(content="tests", status="pending"),)),
    e.QuestionAsked(conversation=CONVERSATION, request="que_1", text="Which colour?", options=("Blue",)),
    e.PermissionAsked(conversation=CONVERSATION, request="per_1", permission="bash", text="rm -r build"),
    e.RequestAnswered(conversation=CONVERSATION, request="que_1"),
    e.Heartbeat(),
    e.InstanceDisposed(),
)

QUESTION = PendingRequest(
    id="que_1",
    kind=RequestKind.QUESTION,
    text="Which colour?",
    options=("Blue",),
    conversation=CONVERSATION,
)

JOB_MESSAGES: tuple[j.JobMessage, ...] = (
    j.CancelJob(ask=ASK),
    j.GiveWay(to=JobId("job-2")),
    j.TurnGranted(container=CONTAINER, endpoint=ENDPOINT, conversation=CONVERSATION),
    j.TakenOver(),
    j.AnswerRequest(ask=ASK, request="que_1", answer=j.QuestionAnswer(answers=(("Blue",),))),
    j.AnswerRequest(ask=ASK, request="per_1", answer=j.PermissionAnswer(reply=PermissionReply.ONCE)),
    j.AnswerRequest(ask=ASK, request="que_1", answer=j.Rejection()),
    j.ServerLost(failure=FAILURE),
    j.ServerLost(failure=FAILURE, climb=Climb(ended_by=Rung.STOP, seconds=((Rung.STOP, 1.0),))),
    j.ServerLost(failure=FAILURE, again=True),
    j.SessionFailed(failure=FAILURE),
    j.StreamOpened(),
    *(j.EventsSeen(events=(event,)) for event in EVENTS),
    j.EventsSeen(events=(e.MessageUpdated(info=DONE), e.ConversationIdle(conversation=CONVERSATION))),
    j.LoadSeen(cpu_load=0.9, memory_bytes=1 << 29),
    j.ResidentsSeen(processes=RESIDENTS),
    j.PromptTaken(),
    j.PromptRefused(failure=FAILURE),
    j.PromptUnsure(reason="no answer came"),
    *(
        j.ConversationRead(messages=messages, state=state)
        for state in ConversationState
        for messages in (
            (),
            (e.Message(info=answer(), parts=(evolve(HELLO, text="", finished=False),)),),
            (e.Message(info=DONE, parts=(HELLO,)),),
        )
    ),
    j.ReadFailed(reason="no answer came"),
    j.ConversationRead(
        messages=(e.Message(info=evolve(answer(), id=USER, role="user", parent=None), parts=()),),
        state=ConversationState.IDLE,
    ),
    j.RequestsRead(children=frozenset(), busy=frozenset((CONVERSATION,)), requests=()),
    j.RequestsRead(children=frozenset((CHILD,)), busy=frozenset((CONVERSATION, CHILD)), requests=(QUESTION,)),
    j.RequestsRead(
        children=frozenset((CHILD,)),
        busy=frozenset((CONVERSATION, CHILD)),
        requests=(),
        delegated=j.Delegated(runs=False, ended_at=None),
    ),
    j.RequestsUnread(reason="no answer came"),
    j.ReplyTaken(),
    j.ReplyFailed(gone=True, reason="no such request"),
    j.ReplyFailed(gone=False, reason="no answer came"),
    j.AbortAnswered(),
    j.AbortFailed(reason="no answer came"),
    j.ProcessesSeen(processes=RESIDENTS),
    j.ProcessesSeen(processes=(*RESIDENTS, DAEMON)),
    j.LookFailed(reason="the container does not run"),
    j.GetJob(ask=ASK),
    *(j.JobTimerFired(timer=timer) for timer in j.JobTimer),
)

SESSION_MESSAGES: tuple[s.SessionMessage, ...] = (
    s.AddJob(ask=ASK, job=JOB),
    s.AddJob(ask=ASK, job=JobId("job-3"), first=True),
    s.AddJob(ask=ASK, job=JobId("job-4"), permissions=Permissions(mode="plan")),
    s.WakeSession(ask=AskId(3)),
    s.CloseSession(ask=ASK),
    s.ResetSession(ask=ASK),
    s.RetireSession(ask=AskId(2), why="its place is needed"),
    j.JobOver(job=JOB),
    j.StopForJob(job=JOB),
    s.TakeOver(jobs=()),
    s.TakeOver(jobs=(JOB, JobId("job-2"))),
    s.TakeOver(jobs=(JOB, JobId("job-2")), container=CONTAINER, endpoint=ENDPOINT),
    s.ContainerLaunched(container=CONTAINER, endpoint=ENDPOINT),
    s.LaunchFailed(failure=FAILURE, retryable=True),
    s.LaunchFailed(failure=FAILURE, retryable=False),
    s.ContainerExited(death=Death(exit_code=137, oom_killed=True)),
    s.ContainerExited(death=Death(exit_code=None, oom_killed=False, removed=True)),
    s.ContainerFoundDead(container=CONTAINER.id, death=Death(exit_code=1, oom_killed=False)),
    s.ContainerFoundDead(container=ContainerId("earlier"), death=Death(exit_code=1, oom_killed=False)),
    s.ProbeSucceeded(version="1.18.33"),
    s.ProbeFailed(reason="no answer came"),
    s.ConversationOpened(conversation=CONVERSATION, fresh=True),
    s.CaughtUp(conversation=CONVERSATION, upto=None),
    s.CaughtUp(conversation=e.ConversationId("ses_copy"), upto=EPOCH, how="the clock was set back"),
    s.OpeningFailed(failure=FAILURE),
    j.StreamOpened(),
    j.EventsSeen(events=(e.Heartbeat(),)),
    j.EventsSeen(events=EVENTS),
    s.StreamLost(reason="the server closed the stream"),
    s.UsageSampled(usage=Usage(cpu_seconds=1.0, memory_bytes=1 << 29, pids=9, oom_kills=0)),
    s.UsageSampled(usage=Usage(cpu_seconds=1.0, memory_bytes=900 << 20, pids=9, oom_kills=0)),
    s.TidiedUp(disk_bytes=1 << 20),
    s.TidiedUp(disk_bytes=3 << 30),
    *(s.StopAnswered(rung=rung) for rung in Rung),
    *(s.StopRefused(rung=rung, reason="the engine is busy") for rung in Rung),
    *(s.StopRefused(rung=rung, reason="no engine answers", away=True) for rung in Rung),
    s.ContainerRemoved(),
    s.GetSession(ask=ASK),
    *(s.SessionTimerFired(timer=timer) for timer in s.SessionTimer),
)


# ---- every state that the samples lead to

StateT = TypeVar("StateT")
MessageT = TypeVar("MessageT")
EffectT = TypeVar("EffectT")

# A moment later, and later than every deadline but one: jobTimeout only shows by its own timer.
LATER = (0.1, 200.0)


@frozen(kw_only=True)
class Decision(Generic[StateT, MessageT, EffectT]):
    before: StateT
    message: MessageT
    moment: Moment
    step: Step[StateT, EffectT]


def job_decisions() -> Iterator[Decision[JobState, j.JobMessage, j.JobEffect]]:
    """Every kind of job state that the samples reach, with every sample."""
    resuming = evolve(JOB_POLICY, on_crash=OnCrash.RESUME)
    starts = (
        first_job(),
        first_job(policy=resuming),
        left_job(),
        left_job(alive=True, policy=resuming),
        # Where the server is makes a difference to its end alone.
        left_job(alive=True, stopping=True, policy=ELSEWHERE_JOB_POLICY),
    )
    return _explored(job.handle, starts, JOB_MESSAGES, _job_kind)


def session_decisions() -> Iterator[Decision[SessionState, s.SessionMessage, s.SessionEffect]]:
    """Every kind of session state that the samples reach, with every sample."""
    starts = (fresh_session(), _nearly_given_up(), _up(fresh=False), fresh_session(policy=ELSEWHERE_POLICY))
    return _explored(session.handle, starts, SESSION_MESSAGES, _session_kind)


def _nearly_given_up() -> SessionState:
    """A server that answers calls, and of whose stream one loss more is one too many."""
    state, moment = _up(fresh=True), Moment(now=0.0, wall=EPOCH, roll=0.5)
    lost = s.StreamLost(reason="the server closed the stream")
    for message in [lost] * (session.DEAF_TO_DEAD - 1):
        state = session.handle(state, message, moment).state
    return state


def _up(*, fresh: bool) -> SessionState:
    """Its first job has the turn, or waits until nothing in a conversation of before lies ahead of the clock."""
    state, moment = fresh_session(), Moment(now=0.0, wall=EPOCH, roll=0.5)
    up: tuple[s.SessionMessage, ...] = (
        s.AddJob(ask=ASK, job=JOB),
        s.ContainerLaunched(container=CONTAINER, endpoint=ENDPOINT),
        s.ProbeSucceeded(version="1.18.33"),
        j.StreamOpened(),
        s.ConversationOpened(conversation=CONVERSATION, fresh=fresh),
    )
    for message in up:
        state = session.handle(state, message, moment).state
    return state


def _explored(
    handle: Callable[[StateT, MessageT, Moment], Step[StateT, EffectT]],
    starts: tuple[StateT, ...],
    messages: tuple[MessageT, ...],
    kind: Callable[[StateT], Hashable],
) -> Iterator[Decision[StateT, MessageT, EffectT]]:
    known = {kind(start) for start in starts}
    waiting = [(start, 0.0) for start in starts]
    while waiting:
        state, now = waiting.pop()
        for message in messages:
            for later in LATER:
                moment = Moment(now=now + later, wall=EPOCH + now + later, roll=0.5)
                step = handle(state, message, moment)
                yield Decision(before=state, message=message, moment=moment, step=step)
                if kind(step.state) not in known:
                    known.add(kind(step.state))
                    waiting.append((step.state, moment.now))


def _job_kind(state: JobState) -> Hashable:
    phase = state.phase
    shape: tuple[Hashable, ...] = (type(phase).__name__, bool(state.waiting), state.policy.on_crash)
    shape += (state.policy.elsewhere,)
    if isinstance(phase, Interrupted):
        rung = phase.stopping.rung if phase.stopping is not None else None
        shape += (phase.alive, rung, phase.verdict is None, bool(phase.requests))
    if isinstance(phase, Running | Stopping):
        script = phase.work.transcript
        shape += (phase.submitting, script.ending, script.last is None, script.held is None)
    if isinstance(phase, Running):
        shape += (min(phase.submissions, job.SUBMISSIONS), frozenset(phase.work.requests))
        shape += (tuple(owed.request.id for owed in state.replies),)
        shape += (phase.after is None, phase.after is not None and phase.after.alive)
    if isinstance(phase, Stopping):
        shape += (phase.ladder.rung, phase.aborting, phase.verdict is None, bool(phase.survivors))
    return shape


def _session_kind(state: SessionState) -> Hashable:
    phase = state.phase
    shape: tuple[Hashable, ...] = (
        session_status(phase),
        state.current is None,
        bool(state.queue),
        bool(state.closing),
        bool(state.retiring),
        (state.disk_bytes or 0) > state.policy.max_disk,
        len(state.crashes.at),
        state.policy.elsewhere,
    )
    if isinstance(phase, Starting):
        shape += (phase.streaming, phase.opened)
    if isinstance(phase, Serving):
        full = phase.memory_bytes > SESSION_POLICY.recycle_memory_share * SESSION_POLICY.memory
        shape += (
            phase.catching_up,
            phase.streaming,
            phase.liveness.verdict,
            phase.deaf == session.DEAF_TO_DEAD - 1,
            full,
        )
    if isinstance(phase, ContainerStopping):
        shape += (phase.ladder.rung, phase.climb is None, type(phase.afterwards).__name__)
        shape += (phase.launching, phase.away_since is None)
    return shape
