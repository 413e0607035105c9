"""One container's life: absent, creating, starting, serving, stopping, backing off, given up.

Made for its first job, kept for the next ones, stopped when it has been idle for long or its server has
grown too large; the next job starts it again with its conversation intact. A container's end is a fact
that is told, never guessed.

The server of an attached session is somebody else's: it is reached and let go of in place of being started
and ended, and the only fact about its end is that it has not answered for too long.
"""

from __future__ import annotations

from typing import assert_never

from attrs import evolve

from opencode_actors.machines import failures, health
from opencode_actors.machines import session_messages as m
from opencode_actors.machines.cancellation import Ladder, in_words
from opencode_actors.machines.health import Liveness, Verdict
from opencode_actors.machines.job_messages import (
    CancelJob,
    EventsSeen,
    JobMessage,
    JobOver,
    LoadSeen,
    ServerLost,
    SessionFailed,
    StopForJob,
    StreamOpened,
    TurnGranted,
)
from opencode_actors.machines.notices import (
    ContainerForgotten,
    ContainerRecorded,
    Publish,
    SessionChanged,
    SessionRecorded,
    Step,
)
from opencode_actors.machines.restart import CrashHistory, GiveUp, RestartAfter, after_crash, after_health
from opencode_actors.machines.server_events import ConversationId, Heartbeat
from opencode_actors.machines.session_messages import SessionEffect, SessionMessage, SessionTimer
from opencode_actors.machines.session_state import (
    Absent,
    BackingOff,
    Closed,
    Creating,
    GivenUp,
    Phase,
    Quarantined,
    Serving,
    SessionState,
    Starting,
    Stopping,
    snapshot,
    status,
)
from opencode_actors.machines.vocabulary import (
    NOBODY,
    ROUNDING,
    Cause,
    Climb,
    Failure,
    Finish,
    Forget,
    JobId,
    Moment,
    Reply,
    Run,
    Rung,
    StartTimer,
    StopTimer,
)
from opencode_actors.ports import Death

# The engine sends SIGKILL by itself, too, so much later than the next rung does: for when nobody climbs any more.
ENGINE_KILLS_AFTER = 2.0
STREAM_REOPEN_DELAY = 0.25
STREAM_REOPEN_CAP = 4.0
# About 16 s of a server that answers calls and has no events: its jobs would run unheard.
DEAF_TO_DEAD = 8
SAMPLE_EVERY = 5.0
ASK_AGAIN_AFTER = 1.0
# A daemon that is restarted answers again after 1-20 s. Nothing else is lost by waiting longer.
ENGINE_BACK_WITHIN = 60.0
MIB = 1 << 20

SessionStep = Step[SessionState, SessionEffect]
Effects = tuple[SessionEffect, ...]

_CLOSED = Failure(cause=Cause.CLOSED, message="the session was closed")
_IDLE = Failure(cause=Cause.CLOSED, message="the session was idle, and its container was stopped")
_GROWN = Failure(
    cause=Cause.CLOSED, message="the server had grown too large, and was stopped between two jobs"
)
_OTHER_PERMISSIONS = Failure(
    cause=Cause.CLOSED, message="the container was stopped between two jobs: the next has other permissions"
)
_CANCELLED = Failure(cause=Cause.CLOSED, message="the container was stopped to end the job")


def handle(state: SessionState, message: SessionMessage, moment: Moment) -> SessionStep:
    match message:
        case m.GetSession():
            return Step(state=state, effects=(Reply(ask=message.ask, value=snapshot(state)),))
        case m.AddJob():
            return _add_job(state, message, moment)
        case m.WakeSession():
            return _wake(state, message, moment)
        case m.CloseSession():
            return _close(state, message, moment)
        case m.ResetSession():
            return _reset(state, message, moment)
        case m.RetireSession():
            return _retire(state, message, moment)
        case JobOver():
            return _job_over(state, message, moment)
        case m.TidiedUp():
            return _tidied(state, message)
        case m.TakeOver():
            return _take_over(state, message)
        case _:
            pass
    match state.phase:
        case Creating():
            return _creating(state, message, moment)
        case Starting():
            return _starting(state, state.phase, message, moment)
        case Serving():
            return _serving(state, state.phase, message, moment)
        case Stopping():
            return _stopping(state, state.phase, message, moment)
        case BackingOff():
            return _backing_off(state, message, moment)
        case Absent() | GivenUp() | Quarantined() | Closed():
            return Step(state=state)  # no container is ours: only a new job or a close matters
        case _:
            assert_never(state.phase)


# ---- jobs


def _add_job(state: SessionState, message: m.AddJob, moment: Moment) -> SessionStep:
    refusal = _refusal(state)
    if refusal is not None:
        reply = Reply(ask=message.ask, value=refusal)
        # Somebody may have made room meanwhile: the next one who asks is told by a new measure.
        again: Effects = (Run(operation=m.TidyUp()),) if _is_too_large(state) else ()
        return Step(state=state, effects=(reply, *again))
    running = state.current is not None
    ahead = running + (0 if message.first else len(state.queue))
    stays, state = _stay(state, f"session {state.key} has a job again"), evolve(state, retiring=())
    queue = (message.job, *state.queue) if message.first else (*state.queue, message.job)
    wanted = {**state.wanted, message.job: message.permissions}
    state = evolve(state, queue=queue, used_at=moment.now, wanted=wanted)
    reply = Reply(ask=message.ask, value=m.Accepted(ahead=ahead))
    match state.phase:
        case Absent():
            step = _create(state)
        case GivenUp():
            # somebody asks anew: the intensity starts afresh
            step = _afresh(evolve(state, crashes=CrashHistory()), state.phase, moment)
        case Serving():
            step = _grant(state, state.phase, moment)
        case Creating() | Starting() | Stopping() | BackingOff() | Quarantined() | Closed():
            step = Step(state=state)
        case _:
            assert_never(state.phase)
    return _before(step, (*stays, reply))


def _wake(state: SessionState, message: m.WakeSession, moment: Moment) -> SessionStep:
    refusal = _refusal(state)
    if refusal is not None:
        return Step(state=state, effects=(Reply(ask=message.ask, value=refusal),))
    stays, state = _stay(state, f"session {state.key} is needed"), evolve(state, retiring=())
    state = evolve(state, used_at=moment.now)
    step = SessionStep(state=state)
    match state.phase:
        case GivenUp(leftover=True) as phase:
            step = _stop(state, Rung.REMOVE, phase.why, moment)
        case Absent() | GivenUp():
            step = _create(evolve(state, crashes=CrashHistory()))
        case _:
            pass  # it is up, or on its way, or somebody waits for its end
    return _before(step, (*stays, Reply(ask=message.ask, value=m.Accepted(ahead=0))))


def _take_over(state: SessionState, left: m.TakeOver) -> SessionStep:
    """A server that still answers is followed on; whoever works in it has the turn already."""
    if not isinstance(state.phase, Absent):
        return Step(state=state)
    state = evolve(state, wanted={**state.wanted, **left.permissions})
    if left.container is None or left.endpoint is None:
        state = evolve(state, queue=(*left.jobs, *state.queue), begun=left.begun)
        return _create(state) if state.queue else Step(state=state)
    at_work, *waiting = left.jobs
    state = evolve(state, current=at_work, queue=(*waiting, *state.queue))
    state = evolve(state, permissions=left.permissions.get(at_work))
    # It is up already, and may be slow because it is at work.
    starting = Starting(container=left.container, endpoint=left.endpoint, within=health.LIVENESS_PROBE_WITHIN)
    return _run_in(state, starting, "found the container of an earlier run")


def _afresh(state: SessionState, phase: BackingOff | GivenUp | Quarantined, moment: Moment) -> SessionStep:
    if isinstance(phase, Quarantined) or (isinstance(phase, GivenUp) and phase.leftover):
        return _stop(state, Rung.REMOVE, phase.why, moment)
    return _create(state) if state.queue else _enter(state, Absent(), "reset")


def _refusal(state: SessionState) -> m.Refused | None:
    if state.closing or isinstance(state.phase, Closed):
        return m.Refused(reason=f"session {state.key} is being closed", hint="start again in a moment")
    if isinstance(state.phase, Quarantined):
        return m.Refused(
            reason=f"session {state.key} cannot be used: {state.phase.why.message}",
            hint="use another session, and look at the container engine",
        )
    if _is_too_large(state):
        return m.Refused(
            reason=_too_large(state),
            hint="use another session, clean this one up, or raise maxSessionDisk",
        )
    if len(state.queue) >= state.policy.max_queued_jobs:
        return m.Refused(
            reason=f"session {state.key} has {len(state.queue)} jobs waiting already "
            f"(maxQueuedJobs is {state.policy.max_queued_jobs})",
            hint="wait for one of its jobs to end, or use another session",
        )
    return None


def _is_too_large(state: SessionState) -> bool:
    return 0 < state.policy.max_disk < (state.disk_bytes or 0)


def _too_large(state: SessionState) -> str:
    return (
        f"the data of session {state.key} takes {(state.disk_bytes or 0) // MIB} MiB "
        f"(maxSessionDisk is {state.policy.max_disk // MIB} MiB)"
    )


def _tidied(state: SessionState, message: m.TidiedUp) -> SessionStep:
    """Says once when the data has outgrown its bound: from then on no job is let in."""
    before = _is_too_large(state)
    state = evolve(state, disk_bytes=message.disk_bytes)
    if before or not _is_too_large(state):
        return Step(state=state)
    detail = f"{_too_large(state)}: it takes no more jobs"
    changed = SessionChanged(session=state.key, status=status(state.phase), detail=detail)
    return Step(state=state, effects=(Publish(notice=changed),))


def _grant(state: SessionState, serving: Serving, moment: Moment) -> SessionStep:
    """Gives the turn to the next job, if one waits and the server is ready for it."""
    conversation = state.conversation
    if state.current is not None or not serving.ready or conversation is None:
        return Step(state=state)
    if not state.queue:
        seconds = state.policy.session_idle_timeout
        return Step(
            state=state,
            effects=(
                StopTimer(timer=SessionTimer.SAMPLE),
                StartTimer(timer=SessionTimer.IDLE, seconds=seconds),
            ),
        )
    if _is_full(state, serving):
        return _recycle(state, serving, moment)
    if state.wanted.get(state.queue[0]) != state.permissions and not state.policy.elsewhere:
        detail = "the next job has other permissions, and gets a new container with them"
        return _stop(state, Rung.STOP, _OTHER_PERMISSIONS, moment, detail=detail)
    job, *rest = state.queue
    is_behind = state.latest is None or moment.wall < state.latest
    # A copy would not have what the job that was at work already is to be looked up by.
    if is_behind and job != state.begun and not state.policy.elsewhere:
        return _catch_up(state, serving, conversation, moment)
    crashes = after_health(state.policy.restart, state.crashes, moment)
    state = evolve(state, queue=tuple(rest), current=job, crashes=crashes, begun=None)
    return _turn(state, serving, job, conversation)


def _catch_up(
    state: SessionState, serving: Serving, conversation: ConversationId, moment: Moment
) -> SessionStep:
    """The clock was set back, or may have been while nobody was here to see it."""
    if serving.catching_up:
        return Step(state=state)
    state = evolve(state, phase=evolve(serving, catching_up=True))
    operation = m.CatchUp(
        endpoint=serving.endpoint, conversation=conversation, title=state.title, wall=moment.wall
    )
    return Step(state=state, effects=(StopTimer(timer=SessionTimer.IDLE), Run(operation=operation)))


def _caught_up(state: SessionState, serving: Serving, message: m.CaughtUp, moment: Moment) -> SessionStep:
    changed = message.conversation != state.conversation
    serving = evolve(serving, catching_up=False)
    latest = moment.wall if message.upto is None else message.upto
    state = evolve(state, phase=serving, conversation=message.conversation, latest=latest)
    step = _grant(state, serving, moment)
    if not changed:
        return step
    record = SessionRecorded(session=state.key, conversation=message.conversation)
    said = SessionChanged(session=state.key, status=status(serving), detail=message.how)
    step = _before(step, (Publish(notice=said),))
    return evolve(step, records=(record, *step.records))


def _heard(state: SessionState, moment: Moment) -> SessionState:
    """What the server tells was said by now at the latest."""
    if state.latest is None or moment.wall <= state.latest:
        return state
    return evolve(state, latest=moment.wall)


def _turn(state: SessionState, serving: Serving, job: JobId, conversation: ConversationId) -> SessionStep:
    turn = TurnGranted(container=serving.container, endpoint=serving.endpoint, conversation=conversation)
    serving = evolve(serving, usage=None)
    effects: Effects = (
        StopTimer(timer=SessionTimer.IDLE),
        *_sample(serving),
        m.TellJob(job=job, message=turn),
    )
    return Step(state=evolve(state, phase=serving), effects=effects)


def _job_over(state: SessionState, message: JobOver, moment: Moment) -> SessionStep:
    had_the_turn = message.job == state.current
    wanted = {job: permissions for job, permissions in state.wanted.items() if job != message.job}
    state = evolve(state, wanted=wanted)
    if had_the_turn:
        state = evolve(_heard(state, moment), current=None, used_at=moment.now)
    else:
        state = evolve(state, queue=tuple(job for job in state.queue if job != message.job))
    if state.closing and isinstance(state.phase, Starting | Serving):
        return _stop(state, Rung.STOP, _CLOSED, moment)  # it waited for this one
    if not isinstance(state.phase, Serving):
        return Step(state=state)
    serving = state.phase
    step = _grant(state, serving, moment)
    if not had_the_turn:
        return step
    tidy: Effects = (Run(operation=m.TidyUp()),)
    if state.queue:
        return _before(step, tidy)
    # What it has grown to: the reading before may be from the beginning of the job.
    return _before(step, (*tidy, Run(operation=m.SampleUsage(container=serving.container))))


def _is_full(state: SessionState, serving: Serving) -> bool:
    share = state.policy.recycle_memory_share
    return share > 0 and serving.memory_bytes >= share * state.policy.memory


def _recycle(state: SessionState, serving: Serving, moment: Moment) -> SessionStep:
    """Servers grow for as long as they live, and are killed in the middle of a job when nobody ends them
    between two. Its end is no crash, and no job is lost."""
    detail = (
        f"OpenCode holds {serving.memory_bytes // MIB} MiB of {state.policy.memory // MIB} MiB: "
        "the next job gets a new container"
    )
    return _stop(state, Rung.STOP, _GROWN, moment, detail=detail)


def _fail_jobs(state: SessionState, failure: Failure) -> tuple[SessionState, Effects]:
    """Nothing will ever run the jobs that wait."""
    effects: Effects = tuple(
        m.TellJob(job=job, message=SessionFailed(failure=failure)) for job in state.queue
    )
    return evolve(state, queue=()), effects


def _tell_current(state: SessionState, message: JobMessage) -> Effects:
    return () if state.current is None else (m.TellJob(job=state.current, message=message),)


def _close(state: SessionState, message: m.CloseSession, moment: Moment) -> SessionStep:
    state, failed = _fail_jobs(state, _CLOSED)
    state = evolve(state, closing=(*state.closing, message.ask))
    match state.phase:
        case GivenUp(leftover=True):
            step = _stop(state, Rung.REMOVE, _CLOSED, moment)
        case Absent() | BackingOff() | GivenUp():
            step = _closed(state, Climb(ended_by=None))
        case Quarantined():
            step = _closed(state, Climb(ended_by=Rung.QUARANTINE))
        case Closed(climb=climb):
            reply = Reply(ask=message.ask, value=climb)
            return Step(state=evolve(state, closing=()), effects=(reply,))
        case Creating():
            step = _stop(state, Rung.REMOVE, _CLOSED, moment)
        case Starting() | Serving() if state.policy.elsewhere and state.current is not None:
            # To let go of a server ends nothing that it works on; an abort does, and the job's end closes.
            cancel = m.TellJob(job=state.current, message=CancelJob(ask=NOBODY))
            step = SessionStep(state=state, effects=(cancel,))
        case Starting() | Serving():
            step = _stop(state, Rung.STOP, _CLOSED, moment)
        case Stopping() as stopping if stopping.away_since is not None:
            # Whoever closes waits as long as the ladder says, and not for an engine to come back.
            seconds = state.policy.graces.of(stopping.ladder.rung)
            step = SessionStep(state=state, effects=(StartTimer(timer=SessionTimer.RUNG, seconds=seconds),))
        case Stopping():
            step = Step(state=state)
        case _:
            assert_never(state.phase)
    return _before(step, failed)


def _reset(state: SessionState, message: m.ResetSession, moment: Moment) -> SessionStep:
    """A person has seen to what it failed of."""
    state = evolve(state, crashes=CrashHistory())
    step = SessionStep(state=state)
    if isinstance(state.phase, BackingOff | GivenUp | Quarantined):
        step = _afresh(state, state.phase, moment)
        step = _before(step, (StopTimer(timer=SessionTimer.BACKOFF),))
    reply = Reply(ask=message.ask, value=snapshot(step.state))
    return evolve(step, effects=(*step.effects, reply))


def _retire(state: SessionState, message: m.RetireSession, moment: Moment) -> SessionStep:
    if state.queue or state.current is not None:
        refused = m.Refused(reason=f"session {state.key} has work")
        return Step(state=state, effects=(Reply(ask=message.ask, value=refused),))
    retiring = evolve(state, retiring=(*state.retiring, message.ask))
    match state.phase:
        case Quarantined(why=why) | GivenUp(why=why, leftover=True):
            refused = m.Refused(reason=why.message)
            return Step(state=state, effects=(Reply(ask=message.ask, value=refused),))
        case Absent() | BackingOff() | GivenUp():
            return _closed(retiring, Climb(ended_by=None))
        case Closed(climb=climb):
            return Step(state=state, effects=(Reply(ask=message.ask, value=climb),))
        case Creating():
            return _stop(retiring, Rung.REMOVE, _IDLE, moment, detail=message.why)
        case Starting() | Serving():
            return _stop(retiring, Rung.STOP, _IDLE, moment, detail=message.why)
        case Stopping():
            return Step(state=retiring)
        case _:
            assert_never(state.phase)


def _stay(state: SessionState, reason: str) -> Effects:
    """For whoever would have it retired."""
    return tuple(Reply(ask=ask, value=m.Refused(reason=reason)) for ask in state.retiring)


def _closed(state: SessionState, climb: Climb) -> SessionStep:
    replies: Effects = tuple(Reply(ask=ask, value=climb) for ask in (*state.closing, *state.retiring))
    step = _enter(evolve(state, closing=(), retiring=()), Closed(climb=climb))
    return evolve(step, effects=(*step.effects, *replies, Finish()))


# ---- from nothing to a server that answers


def _create(state: SessionState) -> SessionStep:
    wanted = state.wanted.get(state.queue[0]) if state.queue else state.permissions
    state = evolve(state, permissions=wanted)
    elsewhere = state.policy.elsewhere
    step = _enter(state, Creating(), f"reaching {elsewhere}" if elsewhere else "creating the container")
    effects: Effects = (
        Run(operation=m.LaunchContainer(name=state.container_name, permissions=wanted)),
        StartTimer(timer=SessionTimer.LAUNCH, seconds=state.policy.startup_timeout),
    )
    return evolve(step, effects=(*step.effects, *effects))


def _creating(state: SessionState, message: SessionMessage, moment: Moment) -> SessionStep:
    match message:
        case m.ContainerLaunched():
            return _launched(state, message)
        case m.LaunchFailed() if message.retryable:
            return _crashed(state, message.failure, Rung.REMOVE, moment)
        case m.LaunchFailed():
            state, failed = _fail_jobs(state, message.failure)
            why = message.failure
            return _before(_stop(state, Rung.REMOVE, why, moment, detail=why.message), failed)
        case m.SessionTimerFired() if message.timer is SessionTimer.LAUNCH:
            failure = Failure(
                cause=Cause.STARTUP_TIMEOUT,
                message="the engine did not start the container within startupTimeout "
                f"({state.policy.startup_timeout:g} s)",
            )
            return _crashed(state, failure, Rung.REMOVE, moment)
        case _:
            return Step(state=state)  # late words of a container before this one


def _launched(state: SessionState, message: m.ContainerLaunched) -> SessionStep:
    starting = Starting(container=message.container, endpoint=message.endpoint)
    if state.policy.elsewhere:
        # It is up already, and far away. Its password is not ours to write down.
        starting = evolve(starting, within=health.LIVENESS_PROBE_WITHIN)
        step = _run_in(state, starting, f"waiting for {state.policy.elsewhere}")
        return _before(step, (StopTimer(timer=SessionTimer.LAUNCH),))
    step = _run_in(state, starting, "waiting for the server")
    record = ContainerRecorded(session=state.key, container=message.container.id, endpoint=message.endpoint)
    effects: Effects = (StopTimer(timer=SessionTimer.LAUNCH), *step.effects)
    return evolve(step, effects=effects, records=(record,))


def _run_in(state: SessionState, starting: Starting, detail: str) -> SessionStep:
    step = _enter(state, starting, detail)
    effects: Effects = (
        Run(operation=m.WatchExit(container=starting.container)),
        _probe(starting, starting.within),
        StartTimer(timer=SessionTimer.READY, seconds=state.policy.server_ready_timeout),
    )
    return evolve(step, effects=(*step.effects, *effects))


def _probe(phase: Starting | Serving, within: float) -> SessionEffect:
    return Run(operation=m.ProbeServer(endpoint=phase.endpoint, within=within))


def _follow(phase: Starting | Serving) -> SessionEffect:
    return Run(operation=m.FollowServer(endpoint=phase.endpoint))


def _starting(
    state: SessionState, starting: Starting, message: SessionMessage, moment: Moment
) -> SessionStep:
    match message:
        case m.ProbeFailed():
            delay = health.startup_delay(starting.failed_probes)
            failed = starting.failed_probes + 1
            starting = evolve(starting, failed_probes=failed, why=message.reason)
            timer = StartTimer(timer=SessionTimer.PROBE, seconds=delay)
            return Step(state=evolve(state, phase=starting), effects=(timer,))
        case m.ProbeSucceeded():
            opening = m.OpenConversation(
                endpoint=starting.endpoint,
                conversation=state.conversation,
                title=state.title,
                before=state.before,
            )
            state = evolve(state, phase=evolve(starting, version=message.version))
            return Step(state=state, effects=(_follow(starting), Run(operation=opening)))
        case StreamOpened():
            return _perhaps_ready(state, evolve(starting, streaming=True), moment)
        case m.StreamLost():
            state = evolve(state, phase=evolve(starting, streaming=False))
            timer = StartTimer(timer=SessionTimer.STREAM, seconds=STREAM_REOPEN_DELAY)
            return Step(state=state, effects=(timer,))
        case m.ConversationOpened():
            changed = message.conversation != state.conversation
            latest = moment.wall if message.fresh else state.latest
            state = evolve(state, conversation=message.conversation, before=None, latest=latest)
            step = _perhaps_ready(state, evolve(starting, opened=True), moment)
            if not changed:
                return step
            record = SessionRecorded(session=state.key, conversation=message.conversation)
            return evolve(step, records=(*step.records, record))
        case m.OpeningFailed():
            return _crashed(state, message.failure, Rung.STOP, moment)
        case m.ContainerExited():
            return _crashed(state, failures.of_death(message.death), None, moment)
        case m.ContainerFoundDead() if message.container == starting.container.id:
            return _crashed(state, failures.of_death(message.death), None, moment)
        case StopForJob() if message.job == state.current and not state.policy.elsewhere:
            return _stop(state, Rung.STOP, _CANCELLED, moment)
        case m.SessionTimerFired():
            return _starting_timer(state, starting, message.timer, moment)
        case _:
            return Step(state=state)


def _starting_timer(
    state: SessionState, starting: Starting, timer: SessionTimer, moment: Moment
) -> SessionStep:
    if timer is SessionTimer.PROBE:
        return Step(state=state, effects=(_probe(starting, starting.within),))
    if timer is SessionTimer.STREAM:
        return Step(state=state, effects=(_follow(starting),))
    if timer is SessionTimer.READY and state.policy.elsewhere:
        failure = failures.of_silence(state.policy.elsewhere, state.policy.lost_after, starting.why)
        return _crashed(state, failure, Rung.STOP, moment)
    if timer is SessionTimer.READY:
        failure = Failure(
            cause=Cause.STARTUP_TIMEOUT,
            message="OpenCode did not get ready within serverReadyTimeout "
            f"({state.policy.server_ready_timeout:g} s)",
        )
        return _crashed(state, failure, Rung.STOP, moment)
    return Step(state=state)


def _perhaps_ready(state: SessionState, starting: Starting, moment: Moment) -> SessionStep:
    if not (starting.streaming and starting.opened):
        return Step(state=evolve(state, phase=starting))
    serving = Serving(
        container=starting.container,
        endpoint=starting.endpoint,
        liveness=Liveness(heard_at=moment.now),
    )
    state = evolve(state, crashes=state.crashes.ready())
    entered = _enter(state, serving, f"OpenCode {starting.version} is ready")
    effects: Effects = (
        StopTimer(timer=SessionTimer.READY),
        StartTimer(timer=SessionTimer.SILENCE, seconds=health.SILENCE),
    )
    if state.current is not None and state.conversation is not None:
        # Its turn began in an earlier process.
        granted = _turn(entered.state, serving, state.current, state.conversation)
    else:
        granted = _grant(entered.state, serving, moment)
    return _before(granted, (*entered.effects, *effects))


# ---- a server that answers, or should


def _serving(state: SessionState, serving: Serving, message: SessionMessage, moment: Moment) -> SessionStep:
    match message:
        case EventsSeen():
            state = _heard(state, moment)
            serving = evolve(serving, liveness=serving.liveness.heard(moment.now), deaf=0)
            serving = evolve(serving, unheard_since=None)
            step = _seen(state, serving, moment)
            if all(isinstance(event, Heartbeat) for event in message.events):
                return step
            return _before(step, _tell_current(state, message))
        case StreamOpened():
            liveness = serving.liveness.heard(moment.now)
            step = _seen(state, evolve(serving, liveness=liveness, streaming=True), moment)
            return _before(step, _tell_current(state, message))
        case m.StreamLost():
            delay = min(STREAM_REOPEN_DELAY * 2**serving.deaf, STREAM_REOPEN_CAP)
            reopen = StartTimer(timer=SessionTimer.STREAM, seconds=delay)
            return _deaf(state, serving, reopen, message.reason, moment)
        case m.CaughtUp():
            return _caught_up(state, serving, message, moment)
        case m.ProbeSucceeded():
            serving = evolve(serving, liveness=serving.liveness.heard(moment.now))
            return _seen(state, serving, moment)
        case m.ProbeFailed():
            return _probe_failed(state, serving, message, moment)
        case m.UsageSampled():
            return _sampled(state, serving, message, moment)
        case m.ContainerExited():
            return _crashed(state, failures.of_death(message.death), None, moment)
        case m.ContainerFoundDead() if message.container == serving.container.id:
            return _crashed(state, failures.of_death(message.death), None, moment)
        case m.OpeningFailed():
            return _crashed(state, message.failure, Rung.STOP, moment)
        case StopForJob():
            if message.job != state.current or state.policy.elsewhere:
                return Step(state=state)
            return _stop(state, Rung.STOP, _CANCELLED, moment)
        case m.SessionTimerFired():
            return _serving_timer(state, serving, message.timer, moment)
        case _:
            return Step(state=state)


def _seen(state: SessionState, serving: Serving, moment: Moment) -> SessionStep:
    """Takes over a new view of the server, says so when readiness changed, and lets the next job in."""
    before = status(state.phase)
    if status(serving) is before:
        return Step(state=evolve(state, phase=serving))
    detail = "" if serving.ready else "the server does not answer"
    entered = _enter(state, serving, detail)
    return _before(_grant(entered.state, serving, moment), entered.effects)


def _deaf(
    state: SessionState, serving: Serving, reopen: SessionEffect, why: str, moment: Moment
) -> SessionStep:
    """There is no stream: nothing can be heard, and nobody is let in until there is one again."""
    serving = evolve(serving, streaming=False, deaf=serving.deaf + 1)
    if serving.unheard_since is None:
        serving = evolve(serving, unheard_since=moment.now)
    lost = _lost(state, serving, why, moment)
    if lost is not None:
        return _crashed(state, lost, Rung.STOP, moment)
    if serving.deaf >= DEAF_TO_DEAD and not state.policy.elsewhere:
        failure = Failure(
            cause=Cause.SERVER_HUNG,
            message=f"OpenCode answers, but its event stream brings nothing ({why})",
        )
        return _crashed(state, failure, Rung.STOP, moment)
    step = _seen(state, serving, moment)
    return _before(step, (reopen, _probe(serving, health.LIVENESS_PROBE_WITHIN)))


def _lost(state: SessionState, serving: Serving, why: str, moment: Moment) -> Failure | None:
    """A server elsewhere can only be waited for, and not for ever."""
    if not state.policy.elsewhere or serving.unheard_since is None:
        return None
    seconds = moment.now - serving.unheard_since
    if seconds < state.policy.lost_after - ROUNDING:
        return None
    return failures.of_silence(state.policy.elsewhere, seconds, why)


def _probe_failed(
    state: SessionState, serving: Serving, message: m.ProbeFailed, moment: Moment
) -> SessionStep:
    serving = evolve(serving, liveness=serving.liveness.probe_failed(moment.now))
    lost = _lost(state, serving, message.reason, moment)
    if lost is not None:
        return _crashed(state, lost, Rung.STOP, moment)
    dead = serving.liveness.verdict is Verdict.DEAD and not state.policy.elsewhere
    if dead and not serving.liveness.may_be_busy(moment.now):
        quiet = serving.liveness.silent_for(moment.now)
        failure = Failure(
            cause=Cause.SERVER_HUNG,
            message=f"the container runs, but OpenCode has not answered for {quiet:.0f} s ({message.reason})",
        )
        # A frozen process does not hear SIGTERM.
        return _crashed(state, failure, Rung.KILL, moment)
    step = _seen(state, serving, moment)
    timer = StartTimer(timer=SessionTimer.PROBE, seconds=health.LIVENESS_PROBE_DELAY)
    return _before(step, (timer,))


def _sample(serving: Serving) -> Effects:
    """Readings come at a steady pace, also when one of them fails and says nothing."""
    return (
        Run(operation=m.SampleUsage(container=serving.container)),
        StartTimer(timer=SessionTimer.SAMPLE, seconds=SAMPLE_EVERY),
    )


def _sampled(state: SessionState, serving: Serving, message: m.UsageSampled, moment: Moment) -> SessionStep:
    usage, earlier, since = message.usage, serving.usage, serving.usage_at
    serving = evolve(serving, usage=usage, usage_at=moment.now, memory_bytes=usage.memory_bytes)
    state = evolve(state, phase=serving)
    if state.current is None and _is_full(state, serving):
        return _recycle(state, serving, moment)
    if earlier is None or moment.now <= since:
        return Step(state=state)
    load = max((usage.cpu_seconds - earlier.cpu_seconds) / (moment.now - since), 0.0)
    state = evolve(state, phase=evolve(serving, liveness=serving.liveness.loaded(load, moment.now)))
    seen = LoadSeen(cpu_load=load, memory_bytes=usage.memory_bytes)
    return Step(state=state, effects=_tell_current(state, seen))


def _serving_timer(state: SessionState, serving: Serving, timer: SessionTimer, moment: Moment) -> SessionStep:
    match timer:
        case SessionTimer.SILENCE:
            return _perhaps_silent(state, serving, moment)
        case SessionTimer.PROBE:
            return Step(state=state, effects=(_probe(serving, health.LIVENESS_PROBE_WITHIN),))
        case SessionTimer.STREAM:
            return Step(state=state, effects=(_follow(serving),))
        case SessionTimer.SAMPLE:
            return Step(state=state, effects=() if state.current is None else _sample(serving))
        case SessionTimer.IDLE:
            if state.current is not None or state.queue:
                return Step(state=state)
            return _stop(state, Rung.STOP, _IDLE, moment)
        case (
            SessionTimer.LAUNCH
            | SessionTimer.READY
            | SessionTimer.RUNG
            | SessionTimer.AGAIN
            | SessionTimer.BACKOFF
        ):
            return Step(state=state)
        case _:
            assert_never(timer)


def _perhaps_silent(state: SessionState, serving: Serving, moment: Moment) -> SessionStep:
    rest = health.SILENCE - serving.liveness.silent_for(moment.now)
    if rest > ROUNDING:
        return Step(state=state, effects=(StartTimer(timer=SessionTimer.SILENCE, seconds=rest),))
    # No heartbeat: the server hangs, or only the stream does. A new stream tells them apart as well as
    # a probe, and mends the second.
    silence = StartTimer(timer=SessionTimer.SILENCE, seconds=health.SILENCE)
    step = _deaf(state, serving, _follow(serving), "it fell silent", moment)
    return step if isinstance(step.state.phase, Stopping) else _before(step, (silence,))


# ---- the way down


def _crashed(state: SessionState, failure: Failure, rung: Rung | None, moment: Moment) -> SessionStep:
    """The container, or the server in it, is of no use any more. `rung` is None when it has exited. One
    that somebody else runs has been waited for already."""
    decision = after_crash(state.policy.restart, state.crashes, moment)
    if state.policy.elsewhere:
        decision = GiveUp(history=decision.history)
    state = evolve(state, crashes=decision.history)
    return _stop(state, rung or Rung.REMOVE, failure, moment, exited=rung is None, afterwards=decision)


def _stop(
    state: SessionState,
    rung: Rung,
    why: Failure,
    moment: Moment,
    *,
    exited: bool = False,
    afterwards: RestartAfter | GiveUp | None = None,
    detail: str = "",
) -> SessionStep:
    ladder = Ladder(rung=rung, since=moment.now)
    launching = isinstance(state.phase, Creating | GivenUp)
    stopping = Stopping(ladder=ladder, why=why, afterwards=afterwards, launching=launching)
    told: Effects = ()
    if exited:
        stopping = evolve(stopping, climb=Climb(ended_by=None))
        state, told = _server_lost(state, stopping, None)
    doing = f"letting go of {state.policy.elsewhere}" if state.policy.elsewhere else in_words(rung)
    step = _enter(state, stopping, detail or (why.message if exited else doing))
    forget: list[SessionEffect] = [
        Forget(kind=m.LaunchContainer),
        Forget(kind=m.ProbeServer),
        Forget(kind=m.OpenConversation),
        Forget(kind=m.CatchUp),
        Forget(kind=m.FollowServer),
        Forget(kind=m.SampleUsage),
    ]
    forget.extend(StopTimer(timer=timer) for timer in SessionTimer)
    return evolve(step, effects=(*told, *step.effects, *forget, *_request(step.state, stopping.ladder)))


def _request(state: SessionState, ladder: Ladder) -> Effects:
    grace = state.policy.graces.of(ladder.rung)
    return (_ending(state, ladder), StartTimer(timer=SessionTimer.RUNG, seconds=grace))


def _ending(state: SessionState, ladder: Ladder) -> SessionEffect:
    grace = state.policy.graces.stop + ENGINE_KILLS_AFTER
    return Run(operation=m.EndContainer(name=state.container_name, rung=ladder.rung, grace=grace))


def _stopping(
    state: SessionState, stopping: Stopping, message: SessionMessage, moment: Moment
) -> SessionStep:
    match message:
        case m.ContainerExited():
            return _exited(state, stopping, message.death, moment)
        case m.ContainerRemoved():
            return _gone(state, stopping, moment)
        case m.StopRefused() if message.rung is stopping.ladder.rung:
            return _refused(state, stopping, message, moment)
        case m.StopAnswered():
            return _engine_back(state, stopping, moment)  # it proves nothing else
        case m.SessionTimerFired(timer=SessionTimer.RUNG):
            return _rung_over(state, stopping, moment)
        case m.SessionTimerFired(timer=SessionTimer.AGAIN):
            state = evolve(state, phase=evolve(stopping, asked=True))
            return Step(state=state, effects=(_ending(state, stopping.ladder),))
        case _:
            return Step(state=state)  # answers prove nothing; all else is of the past


def _refused(state: SessionState, stopping: Stopping, message: m.StopRefused, moment: Moment) -> SessionStep:
    """No is an answer that the next rung may change. Where that cannot help, it is asked for again until
    the rung's time is over: above the removal there is none, and without an engine there is nothing."""
    again: Effects = (StartTimer(timer=SessionTimer.AGAIN, seconds=ASK_AGAIN_AFTER),)
    if message.away and stopping.away_since is None:
        stopping = evolve(stopping, away_since=moment.now)
        return _before(_enter(state, stopping, f"waiting for the engine: {message.reason}"), again)
    if message.away:
        return Step(state=evolve(state, phase=evolve(stopping, asked=False)), effects=again)
    if message.rung is not Rung.REMOVE:
        return _climb(state, evolve(stopping, away_since=None), moment)
    return _before(_engine_back(state, stopping, moment), again)


def _engine_back(state: SessionState, stopping: Stopping, moment: Moment) -> SessionStep:
    """What was waited for has come, and the rung has its own time again; not for ever, if it comes and goes."""
    if stopping.away_since is None:
        return Step(state=state)
    state = evolve(state, phase=evolve(stopping, away_since=None))
    if not stopping.nothing_runs:
        return Step(state=state)
    grace = state.policy.graces.of(stopping.ladder.rung)
    rest = stopping.ladder.since + ENGINE_BACK_WITHIN + grace - moment.now
    seconds = max(0.0, min(grace, rest))
    return Step(state=state, effects=(StartTimer(timer=SessionTimer.RUNG, seconds=seconds),))


def _rung_over(state: SessionState, stopping: Stopping, moment: Moment) -> SessionStep:
    if stopping.away_since is None or not stopping.nothing_runs or state.closing:
        return _climb(state, stopping, moment)
    rest = ENGINE_BACK_WITHIN - (moment.now - stopping.ladder.since)
    if rest > ROUNDING:
        return Step(state=state, effects=(StartTimer(timer=SessionTimer.RUNG, seconds=rest),))
    away = moment.now - stopping.away_since
    failure = Failure(
        cause=Cause.ENGINE_UNAVAILABLE,
        message=f"no container engine has answered for {away:.0f} s; before that: {stopping.why.message}",
    )
    state, failed = _fail_jobs(state, failure)
    failed, state = (*failed, *_stay(state, failure.message)), evolve(state, retiring=())
    step = _enter(state, GivenUp(why=failure, leftover=True), failure.message)
    return _before(step, (*failed, *_no_more_ending()))


def _no_more_ending() -> Effects:
    return (
        Forget(kind=m.EndContainer),
        Forget(kind=m.WatchExit),
        StopTimer(timer=SessionTimer.RUNG),
        StopTimer(timer=SessionTimer.AGAIN),
    )


def _exited(state: SessionState, stopping: Stopping, death: Death, moment: Moment) -> SessionStep:
    if stopping.climb is not None:
        return Step(state=state)
    if stopping.afterwards is not None and not _by_our_hand(stopping, death):
        # The server stopped answering because it was dying; that word came first.
        stopping = evolve(stopping, why=failures.of_death(death))
    climb = stopping.ladder.ended(moment.now)
    state, told = _server_lost(state, stopping, climb)
    ladder = stopping.ladder.to(Rung.REMOVE, moment.now)
    state = evolve(state, phase=evolve(stopping, climb=climb, ladder=ladder))
    return Step(state=state, effects=(*told, *_request(state, ladder)))


def _server_lost(
    state: SessionState, stopping: Stopping, climb: Climb | None
) -> tuple[SessionState, Effects]:
    """After a crash the job that had the turn keeps the next one, if it can make use of it."""
    job = state.current
    if job is None:
        return state, ()
    again = stopping.afterwards is not None and not state.closing and not state.policy.elsewhere
    lost = ServerLost(failure=stopping.why, climb=climb, again=again)
    state = evolve(state, current=None)
    if again:
        state = evolve(state, queue=(job, *state.queue), begun=job)
    return state, (m.TellJob(job=job, message=lost),)


def _by_our_hand(stopping: Stopping, death: Death) -> bool:
    """Whether a rung's signal can have ended it: without an engine none was sent. One that is back ends it before it
    has answered."""
    can = death.exit_code in (None, failures.KILLED, failures.TERMINATED) and not death.oom_killed
    return can and (stopping.away_since is None or stopping.asked)


def _climb(state: SessionState, stopping: Stopping, moment: Moment) -> SessionStep:
    ladder = stopping.ladder.up(moment.now)
    if ladder.rung is Rung.QUARANTINE:
        return _quarantine(state, stopping, ladder, moment)
    step = _enter(state, evolve(stopping, ladder=ladder, asked=True), in_words(ladder.rung))
    return evolve(step, effects=(*step.effects, *_request(step.state, ladder)))


def _quarantine(state: SessionState, stopping: Stopping, ladder: Ladder, moment: Moment) -> SessionStep:
    failure = Failure(
        cause=Cause.ENGINE_REFUSED,
        message=f"the container engine does not end container {state.container_name}",
    )
    if stopping.away_since is not None:
        failure = Failure(
            cause=Cause.ENGINE_UNAVAILABLE,
            message=f"there is no container engine to end container {state.container_name}",
        )
    told = _tell_current(state, ServerLost(failure=failure, climb=ladder.ended(moment.now)))
    state, failed = _fail_jobs(evolve(state, current=None), failure)
    if not state.closing:
        failed = (*failed, *_stay(state, failure.message))
        state = evolve(state, retiring=())
    step = _enter(state, Quarantined(why=failure), failure.message)
    step = evolve(step, effects=(*told, *failed, *step.effects, *_no_more_ending()))
    if not state.closing:
        return step
    closed = _closed(step.state, ladder.ended(moment.now))
    return _before(closed, step.effects)


def _gone(state: SessionState, stopping: Stopping, moment: Moment) -> SessionStep:
    """The engine no longer has the container, so it has certainly exited."""
    climb = stopping.climb or stopping.ladder.ended(moment.now)
    if state.policy.elsewhere:
        climb = Climb(ended_by=None)  # it runs on
    told: Effects = ()
    if stopping.climb is None:
        state, told = _server_lost(state, stopping, climb)
    told = (*told, *_no_more_ending())
    no_container = ContainerForgotten(session=state.key)
    step = _after_its_end(state, stopping, climb, moment)
    return evolve(_before(step, told), records=(no_container, *step.records))


def _after_its_end(state: SessionState, stopping: Stopping, climb: Climb, moment: Moment) -> SessionStep:
    if state.closing or state.retiring:
        return _closed(state, climb)
    match stopping.afterwards:
        case RestartAfter(seconds=seconds):
            step = _enter(
                state,
                BackingOff(why=stopping.why),
                f"{stopping.why.message}; again in {seconds:.1f} s",
            )
            timer = StartTimer(timer=SessionTimer.BACKOFF, seconds=seconds)
            step = evolve(step, effects=(*step.effects, timer))
        case GiveUp():
            step = _give_up(state, stopping.why)
        case None:
            step = _rest(state, moment)
        case _:
            assert_never(stopping.afterwards)
    return _before(step, (Run(operation=m.TidyUp()),))


def _give_up(state: SessionState, why: Failure) -> SessionStep:
    if state.policy.elsewhere:
        state, failed = _fail_jobs(state, why)
        return _before(_enter(state, GivenUp(why=why), why.message), failed)
    in_a_row = state.crashes.failed_starts > state.policy.restart.max_restarts
    when = "in a row" if in_a_row else f"within {state.policy.restart.period:g} s"
    failure = Failure(
        cause=why.cause,
        message=f"given up after {state.crashes.count} failed starts {when}; the last one: {why.message}",
        exit_code=why.exit_code,
    )
    state, failed = _fail_jobs(state, failure)
    step = _enter(state, GivenUp(why=failure), failure.message)
    return evolve(step, effects=(*failed, *step.effects))


def _rest(state: SessionState, moment: Moment) -> SessionStep:
    """No container, and nothing in the way of a new one."""
    crashes = after_health(state.policy.restart, state.crashes, moment)
    state = evolve(state, crashes=crashes)
    return _create(state) if state.queue else _enter(state, Absent())


def _backing_off(state: SessionState, message: SessionMessage, moment: Moment) -> SessionStep:
    if isinstance(message, m.SessionTimerFired) and message.timer is SessionTimer.BACKOFF:
        return _rest(state, moment)
    return Step(state=state)


# ---- helpers


def _enter(state: SessionState, phase: Phase, detail: str = "") -> SessionStep:
    changed = SessionChanged(session=state.key, status=status(phase), detail=detail)
    return Step(state=evolve(state, phase=phase), effects=(Publish(notice=changed),))


def _before(step: SessionStep, effects: Effects) -> SessionStep:
    return evolve(step, effects=(*effects, *step.effects))
