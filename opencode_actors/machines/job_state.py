"""What a job knows in each phase of its life, and how that looks from outside."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import Factory, evolve, frozen

from opencode_actors.machines.cancellation import Graces, Ladder
from opencode_actors.machines.job_messages import Answer
from opencode_actors.machines.output import OutputMeter
from opencode_actors.machines.server_events import MessageId, MessageInfo, Todo
from opencode_actors.machines.spending import Recorded, Spending, aside, in_all
from opencode_actors.machines.transcript import Transcript
from opencode_actors.machines.vocabulary import (
    ActivityState,
    AskId,
    Failure,
    JobId,
    JobSnapshot,
    JobStatus,
    OnCrash,
    OnUnanswered,
    Origin,
    PendingRequest,
    SessionKey,
)
from opencode_actors.machines.work import Request, Work
from opencode_actors.ports import Process, Prompt


@frozen(kw_only=True)
class JobPolicy:
    idle_timeout: float
    job_timeout: float  # 0: no bound
    max_cost_usd: float  # 0: no bound
    remind_after: float  # 0: never
    report_every: float  # 0: never
    max_output_size: int
    max_provider_retries: int
    question_timeout: float  # 0: no bound
    on_unanswered: OnUnanswered
    on_crash: OnCrash
    graces: Graces
    # The address of a server that somebody else runs, which can be asked to abort, and no more than that.
    elsewhere: str = ""


@frozen(kw_only=True)
class Owed:
    """An answer on its way to the server. `ask` is None when nobody gave it: its time was over."""

    request: PendingRequest
    answer: Answer
    ask: AskId | None


@frozen(kw_only=True)
class Queued:
    pass


@frozen(kw_only=True)
class Interrupted:
    """The prompt was sent, and its server is out of sight: it has crashed, or this process is new. The next
    turn shows what became of the answer.

    `alive` when the container may still work on it, and `why` is what the job fails as when nobody finishes
    it. `stopping` is the ladder when it is to be aborted as soon as that can be, to settle as `verdict`.
    """

    transcript: Transcript
    why: Failure
    since: float  # when the job began
    alive: bool = False
    stopping: Ladder | None = None
    verdict: Failure | None = None  # None: cancelled
    todos: tuple[Todo, ...] = ()
    requests: Mapping[str, Request] = {}
    sub_answers: Mapping[MessageId, MessageInfo] = {}
    spent_before: Recorded = Factory(Recorded)

    @property
    def aside(self) -> Spending:
        return aside(self.spent_before, (*self.transcript.earlier, *self.sub_answers.values()))

    @property
    def spending(self) -> Spending:
        return in_all(self.spent_before, self.aside, self.transcript.answers.values())


@frozen(kw_only=True)
class Running:
    """`submitting` while nobody knows yet whether the server took the prompt. `after` what interrupted it,
    until the conversation has been read."""

    work: Work
    began: float
    after: Interrupted | None = None
    submitting: bool = True
    submissions: int = 1
    fruitless_reads: int = 0
    # What waited for an answer when the lists of it that are on their way were asked for.
    looked_with: frozenset[str] = frozenset()
    looked_todos: tuple[Todo, ...] = ()  # the same of what is to be done


@frozen(kw_only=True)
class Stopping:
    """`verdict` is what the job settles as, unless the answer turns out to be complete.

    While a prompt or an abort is still on its way, the job is not over: it would hit the next one.
    `survivors` are processes of the job that were seen after its conversation had ended; `why` is why
    the abort was not enough.
    """

    work: Work
    ladder: Ladder
    verdict: Failure | None  # None: cancelled
    submitting: bool
    aborting: bool = True
    fruitless_reads: int = 0
    survivors: tuple[Process, ...] = ()
    why: str = ""


@frozen(kw_only=True)
class Settled:
    snapshot: JobSnapshot


Phase = Queued | Interrupted | Running | Stopping | Settled


@frozen(kw_only=True)
class JobState:
    id: JobId
    session: SessionKey
    prompt: Prompt
    policy: JobPolicy
    name: str = ""
    created_at: float
    started_at: float | None = None  # in epoch seconds
    continuation: Prompt | None = None  # ours, to go on after a crash
    continuations: int = 0
    phase: Phase = Queued()
    meter: OutputMeter
    origin: Origin | None = None
    notify: bool = False
    last_output_at: float | None = None
    memory_bytes: int | None = None
    waiting: tuple[AskId, ...] = ()  # the cancels to answer
    gives_way_to: JobId | None = None  # it is being ended for that one
    replies: tuple[Owed, ...] = ()  # to the server, one after another; the first is on its way

    @property
    def has_begun(self) -> bool:
        """Whether it has had a turn."""
        return not isinstance(self.phase, Queued)


def new_job(
    *,
    job: JobId,
    session: SessionKey,
    prompt: Prompt,
    policy: JobPolicy,
    now: float,
    name: str = "",
    origin: Origin | None = None,
    notify: bool = False,
) -> JobState:
    return JobState(
        id=job,
        session=session,
        prompt=prompt,
        policy=policy,
        name=name,
        created_at=now,
        origin=origin,
        notify=notify,
        meter=OutputMeter(limit=policy.max_output_size),
    )


def snapshot(state: JobState, now: float) -> JobSnapshot:
    phase = state.phase
    if isinstance(phase, Settled):
        return phase.snapshot
    work = phase.work if isinstance(phase, Running | Stopping) else None
    seen = work or (phase if isinstance(phase, Interrupted) else None)
    last = seen.transcript.last if seen is not None else None
    spending = seen.spending if seen is not None else Spending()
    return JobSnapshot(
        id=state.id,
        session=state.session,
        prompt=state.prompt.text,
        name=state.name,
        status=_status(phase),
        activity=work.activity.state(now) if work is not None else ActivityState.IDLE,
        started_at=state.started_at,
        elapsed_seconds=now - state.created_at,
        output_bytes=state.meter.size,
        output_truncated=state.meter.truncated,
        answer_at=state.meter.answer_at,
        last_output_seconds_ago=(None if state.last_output_at is None else now - state.last_output_at),
        todos=seen.todos if seen is not None else (),
        pending=tuple(
            evolve(request.about, waiting_seconds=max(now - request.at, 0.0)) for request in _asked(state)
        ),
        cost_usd=spending.cost,
        cost_known=spending.known,
        max_cost_usd=state.policy.max_cost_usd,
        tokens=spending.tokens,
        spent_aside=seen.aside if seen is not None else Spending(),
        model=last.model if last is not None else "",
        cpu_load=work.activity.cpu_load if work is not None else None,
        memory_bytes=state.memory_bytes,
        origin=state.origin,
        notify=state.notify,
        interrupted_by=state.gives_way_to,
    )


def pending(state: JobState) -> tuple[PendingRequest, ...]:
    """What waits for an answer."""
    return tuple(request.about for request in _asked(state))


def _asked(state: JobState) -> tuple[Request, ...]:
    """A job that is being stopped takes no answers any more."""
    match state.phase:
        case Running(work=work):
            return tuple(work.requests.values())
        case Interrupted(requests=known):
            return tuple(known.values())
        case _:
            return ()


def _status(phase: Queued | Interrupted | Running | Stopping) -> JobStatus:
    match phase:
        case Queued():
            return JobStatus.PENDING
        case Interrupted():
            return JobStatus.CANCELLING if phase.stopping else JobStatus.RUNNING
        case Running():
            return JobStatus.RUNNING
        case Stopping():
            return JobStatus.CANCELLING
