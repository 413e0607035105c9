"""One prompt's life: queued, running, perhaps stopping, settled exactly once.

A job decides by the server's messages; events are hints to look. It climbs the ladder's first rung
alone, then asks its session to end the container and waits for the fact that it ended.
"""

from __future__ import annotations

from typing import assert_never

from attrs import evolve

from opencode_actors.machines import interruption, leftovers, requests, verdicts
from opencode_actors.machines import job_messages as m
from opencode_actors.machines import notices as n
from opencode_actors.machines.activity import Activity
from opencode_actors.machines.cancellation import Ladder
from opencode_actors.machines.job_messages import JobEffect, JobMessage, JobTimer
from opencode_actors.machines.job_out import given_out
from opencode_actors.machines.job_state import (
    Interrupted,
    JobState,
    Queued,
    Running,
    Settled,
    Stopping,
    snapshot,
)
from opencode_actors.machines.notices import Publish, Step
from opencode_actors.machines.prompt_ids import stamped
from opencode_actors.machines.server_events import ConversationRetrying, ToolPart
from opencode_actors.machines.transcript import Ending, Transcript, remarked
from opencode_actors.machines.vocabulary import (
    ROUNDING,
    ActivityState,
    Cause,
    Climb,
    Failure,
    Finish,
    Forget,
    JobStatus,
    Moment,
    OnCrash,
    Reply,
    Run,
    Rung,
    StartTimer,
    StopTimer,
)
from opencode_actors.machines.work import Heard, Work, hear, left_over, looked, read
from opencode_actors.ports import ConversationState

# The first prompt of an instance takes 1.5 s to begin; this is for a machine that is busy.
BEGIN_WITHIN = 30.0
# The server says idle right after the message that ends the answer; this is for when it does not.
IDLE_AFTER_ENDING = 2.0
REREAD_DELAY = 0.5
RESUBMIT_DELAY = 0.5
SUBMISSIONS = 3
# A job whose server crashes again and again may be what crashes it, also when hours lie between.
CONTINUATIONS = 5
# OpenCode kills what ignores SIGTERM some 3 s after its abort.
LOOK_AGAIN_DELAY = 0.25
# After an abort the last message gets its final state up to 280 ms late.
FRUITLESS_READS = 6
FRUITLESS_READS_AFTER_ERROR = 2


JobStep = Step[JobState, JobEffect]


def handle(state: JobState, message: JobMessage, moment: Moment) -> JobStep:
    now = moment.now
    if isinstance(message, m.GetJob):
        return Step(state=state, effects=(Reply(ask=message.ask, value=snapshot(state, now)),))
    match state.phase:
        case Queued():
            return _queued(state, message, moment)
        case Interrupted():
            return _interrupted(state, state.phase, message, moment)
        case Running():
            return _running(state, state.phase, message, moment)
        case Stopping():
            return _stopping(state, state.phase, message, now)
        case Settled():
            return _settled(state, state.phase, message)
        case _:
            assert_never(state.phase)


def _settled(state: JobState, settled: Settled, message: JobMessage) -> JobStep:
    if isinstance(message, m.CancelJob):
        return Step(state=state, effects=(Reply(ask=message.ask, value=settled.snapshot),))
    if isinstance(message, m.AnswerRequest):
        return Step(state=state, effects=(requests.no_request(message),))
    return Step(state=state)


# ---- queued


def _queued(state: JobState, message: JobMessage, moment: Moment) -> JobStep:
    now = moment.now
    match message:
        case m.TurnGranted():
            return _begin(state, message, moment)
        case m.CancelJob():
            state = evolve(state, waiting=(*state.waiting, message.ask))
            return _settle(state, JobStatus.CANCELLED, now, climb=Climb(ended_by=None))
        case m.GiveWay():
            state = evolve(state, gives_way_to=message.to)
            return _settle(state, JobStatus.CANCELLED, now, climb=Climb(ended_by=None))
        case m.AnswerRequest():
            return Step(state=state, effects=(requests.no_request(message),))
        case m.SessionFailed():
            return _settle(state, JobStatus.FAILED, now, failure=message.failure)
        case _:
            return Step(state=state)  # the server's life before our turn is not ours


def _begin(state: JobState, turn: m.TurnGranted, moment: Moment) -> JobStep:
    now = moment.now
    state = evolve(state, prompt=stamped(state.prompt, moment))
    work = Work(
        container=turn.container,
        endpoint=turn.endpoint,
        transcript=Transcript(conversation=turn.conversation, prompt=state.prompt.message_id),
        activity=Activity(sign_at=now),
        started_at=now,
    )
    effects: list[JobEffect] = [
        Publish(notice=n.JobStarted(job=state.id, session=state.session)),
        Run(operation=_submit(state, work)),
        StartTimer(timer=JobTimer.IDLE, seconds=state.policy.idle_timeout),
    ]
    if state.policy.job_timeout:
        effects.append(StartTimer(timer=JobTimer.TOTAL, seconds=state.policy.job_timeout))
    effects.extend(_next_reminder(state, 0.0))
    effects.extend(_next_report(state, 0.0))
    running = Running(work=work, began=now)
    state = evolve(state, phase=running, started_at=moment.wall)
    return Step(state=state, effects=tuple(effects), records=(_sending(state, running, moment),))


def _sending(state: JobState, running: Running, moment: Moment) -> n.JobRecorded:
    """Of the prompt that is about to be sent."""
    prompt, work = state.continuation or state.prompt, running.work
    begun = n.Begun(
        conversation=work.transcript.conversation,
        message=prompt.message_id,
        part=prompt.part_id,
        at=moment.wall - (moment.now - running.began),
        continues=state.continuation is not None,
        container=work.container.id,
    )
    return n.JobRecorded(snapshot=snapshot(state, moment.now), begun=begun)


def _next_reminder(state: JobState, lasted: float) -> list[JobEffect]:
    """After `remind_after`, and then after gaps that double, so that a long job floods nobody."""
    first = due = state.policy.remind_after
    if not first:
        return []
    while due <= lasted + ROUNDING:
        due = 2 * due + first
    return [StartTimer(timer=JobTimer.REMIND, seconds=due - lasted)]


def _next_report(state: JobState, lasted: float) -> list[JobEffect]:
    """At equal gaps, which an interruption does not move."""
    every = state.policy.report_every
    if not every:
        return []
    number = (lasted + ROUNDING) // every + 1
    return [StartTimer(timer=JobTimer.REPORT, seconds=number * every - lasted)]


def _submit(state: JobState, work: Work) -> m.SubmitPrompt:
    return m.SubmitPrompt(
        container=work.container,
        endpoint=work.endpoint,
        conversation=work.transcript.conversation,
        prompt=state.continuation or state.prompt,
    )


def _residents(work: Work, message: m.ResidentsSeen) -> Work:
    """Those of the first sending: at a second one the job's own may be among them."""
    if work.residents is not None:
        return work
    return evolve(work, residents=frozenset(message.processes))


def _read(work: Work) -> Run[m.JobOperation]:
    return Run(
        operation=m.ReadConversation(
            endpoint=work.endpoint,
            conversation=work.transcript.conversation,
            since=work.transcript.prompt,
        )
    )


def _look(work: Work, *, tools: bool) -> Run[m.JobOperation]:
    return Run(
        operation=m.ReadRequests(
            endpoint=work.endpoint,
            conversation=work.transcript.conversation,
            since=work.transcript.prompt,
            tools=tools,
        )
    )


# ---- interrupted


def _interrupted(state: JobState, known: Interrupted, message: JobMessage, moment: Moment) -> JobStep:
    now = moment.now
    match message:
        case m.TurnGranted():
            return _pick_up(state, known, message, now)
        case m.TakenOver():
            return Step(state=state, effects=_deadlines(state, known, now))
        case m.JobTimerFired(timer=JobTimer.RUNG) if known.stopping is not None:
            return _out_of_reach(state, known, known.stopping, now)
        case m.CancelJob():
            state = evolve(state, waiting=(*state.waiting, message.ask))
            return _not_wanted(state, known, None, now)
        case m.GiveWay() if known.stopping is None:
            return _not_wanted(evolve(state, gives_way_to=message.to), known, None, now)
        case m.JobTimerFired(timer=JobTimer.TOTAL):
            return _not_wanted(state, known, verdicts.timed_out(state.policy), now)
        case m.ServerLost():
            if known.stopping is not None and state.policy.elsewhere:
                return _beyond_reach(state, known.stopping, known.verdict, message.failure.message, now)
            if known.stopping is not None:
                return _settle_unwanted(state, known, _also_climbed(known.stopping, message.climb), now)
            if message.again:
                state, gone = requests.given_up(state, "OpenCode's server has ended")
                known = evolve(known, alive=False, why=message.failure, requests={})
                return Step(state=evolve(state, phase=known), effects=tuple(gone))
            return _settle(state, JobStatus.FAILED, now, failure=message.failure, climb=message.climb)
        case m.SessionFailed():
            return _settle(state, JobStatus.FAILED, now, failure=message.failure)
        case m.AnswerRequest() if not known.alive:
            return Step(state=state, effects=(requests.no_request(message),))
        case m.AnswerRequest():
            reason = f"the job's server is being looked for: {known.why.message}"
            unsure = m.NotAnswered(why=m.NoAnswer.UNSURE, reason=reason)
            return Step(state=state, effects=(Reply(ask=message.ask, value=unsure),))
        case _:
            return Step(state=state)  # late words of a server that is gone


def _not_wanted(state: JobState, known: Interrupted, verdict: Failure | None, now: float) -> JobStep:
    """Where nothing works on it any more, that is its end."""
    if known.stopping is not None:
        return Step(state=state)
    ladder = Ladder(rung=Rung.ABORT, since=now)
    known = evolve(known, stopping=ladder, verdict=verdict)
    if not known.alive:
        return _settle_unwanted(state, known, Climb(ended_by=None), now)
    state = evolve(state, phase=known)
    record = n.JobRecorded(snapshot=snapshot(state, now), verdict=verdict)
    effects: tuple[JobEffect, ...] = (
        Publish(
            notice=n.JobCancelling(job=state.id, session=state.session, rung=Rung.ABORT, why=_for_whom(state))
        ),
        StopTimer(timer=JobTimer.TOTAL),
        *_deadlines(state, known, now),
    )
    return Step(state=state, effects=effects, records=(record,))


def _deadlines(state: JobState, known: Interrupted, now: float) -> tuple[JobEffect, ...]:
    """They do not wait for a server to be found."""
    if known.stopping is not None:
        rest = max(0.0, known.stopping.since + state.policy.graces.abort - now)
        return (StartTimer(timer=JobTimer.RUNG, seconds=rest),)
    if not state.policy.job_timeout:
        return ()
    rest = max(0.0, known.since + state.policy.job_timeout - now)
    return (StartTimer(timer=JobTimer.TOTAL, seconds=rest),)


def _out_of_reach(state: JobState, known: Interrupted, ladder: Ladder, now: float) -> JobStep:
    """Nobody could be asked to abort it, so its container goes."""
    if ladder.rung is not Rung.ABORT:
        return Step(state=state)
    if state.policy.elsewhere:
        why = f"the server was not reached within abortGrace ({state.policy.graces.abort:g} s)"
        return _beyond_reach(state, ladder, known.verdict, why, now)
    state = evolve(state, phase=evolve(known, stopping=ladder.up(now)))
    why = f"OpenCode's server did not get ready within abortGrace ({state.policy.graces.abort:g} s)"
    cancelling = n.JobCancelling(job=state.id, session=state.session, rung=Rung.STOP, why=why)
    stop = m.TellSession(session=state.session, message=m.StopForJob(job=state.id))
    return Step(state=state, effects=(Publish(notice=cancelling), stop))


def _beyond_reach(state: JobState, ladder: Ladder, verdict: Failure | None, why: str, now: float) -> JobStep:
    """Somebody else runs the server, so there is no rung above the abort."""
    climb = Climb(ended_by=None, seconds=ladder.ended(now).seconds, why=why)
    failure = verdicts.not_ended(state.policy, verdict, why)
    return _settle(state, JobStatus.FAILED, now, failure=failure, climb=climb)


def _also_climbed(ladder: Ladder, session: Climb | None) -> Climb:
    """Where the session has not ended the container, it has ended by itself."""
    if session is None:
        return Climb(ended_by=None)
    return Climb(ended_by=session.ended_by, seconds=(*ladder.behind, *session.seconds))


def _settle_unwanted(state: JobState, known: Interrupted, climb: Climb, now: float) -> JobStep:
    if known.verdict is not None:
        return _settle(state, JobStatus.FAILED, now, failure=known.verdict, climb=climb)
    return _settle(state, JobStatus.CANCELLED, now, climb=climb)


def _pick_up(state: JobState, known: Interrupted, turn: m.TurnGranted, now: float) -> JobStep:
    """What was missed is read first; until then what is heard waits."""
    if known.stopping is not None and known.stopping.rung is not Rung.ABORT:
        return Step(state=state)  # the session is ending its container
    if turn.conversation != known.transcript.conversation:
        return _forgotten(state, known, now)
    work = Work(
        container=turn.container,
        endpoint=turn.endpoint,
        transcript=known.transcript,
        activity=Activity(sign_at=now, waiting_for=frozenset(known.requests)),
        started_at=now,
        todos=known.todos,
        sub_answers=known.sub_answers,
        spent_before=known.spent_before,
        requests={id_: evolve(request, at=now) for id_, request in known.requests.items()},
    )
    running = Running(
        work=work,
        began=known.since,
        after=known,
        submitting=False,
        looked_with=frozenset(known.requests),
        looked_todos=known.todos,
    )
    state = evolve(state, phase=running)
    if known.stopping is not None:
        return _stop(state, running, known.verdict, now, known.stopping)
    effects: list[JobEffect] = [
        _read(work),
        _look(work, tools=False),
        # For a prompt that was taken, and is not answered: only an event told why.
        StartTimer(timer=JobTimer.START, seconds=BEGIN_WITHIN),
        StartTimer(timer=JobTimer.IDLE, seconds=state.policy.idle_timeout),
        *_deadlines(state, known, now),
        *requests.awaited(state, running, now),
    ]
    effects.extend(_next_reminder(state, now - known.since))
    effects.extend(_next_report(state, now - known.since))
    return Step(state=state, effects=tuple(effects))


def _forgotten(state: JobState, known: Interrupted, now: float) -> JobStep:
    """The session had to begin another conversation, so nobody can say any more what became of the answer."""
    if known.stopping is not None:
        return _settle_unwanted(state, known, Climb(ended_by=None), now)
    why = f"OpenCode does not know the job's conversation any more; before that: {known.why.message}"
    return _settle(state, JobStatus.FAILED, now, failure=evolve(known.why, message=why))


def _found(
    state: JobState, running: Running, known: Interrupted, message: m.ConversationRead, moment: Moment
) -> JobStep:
    """What became of the answer, as the conversation says."""
    now = moment.now
    # Its tools were told of when they started; of those that did meanwhile, the end tells.
    tools = frozenset(
        part.id for found in message.messages for part in found.parts if isinstance(part, ToolPart)
    )
    work = evolve(running.work, seen_tools=running.work.seen_tools | tools)
    running = evolve(running, after=None, work=work)
    heard = read(work, message.messages, now)
    sent = state.continuation or state.prompt
    arrived = heard.work.transcript.last is not None or any(
        found.info.id == sent.message_id for found in message.messages
    )
    if arrived and (known.alive or heard.work.transcript.ending in (Ending.ANSWERED, Ending.FAILED)):
        return _running_read(evolve(state, phase=running), running, message, now)
    running = evolve(running, work=heard.work)
    state, effects, records = given_out(evolve(state, phase=running), heard, now)
    said = (info.created_at for info in heard.work.transcript.infos)
    if not state.policy.elsewhere and moment.wall < max(state.started_at or 0.0, *said, 0.0):
        # Whatever is asked now stands before what was asked then, and is never answered.
        return _also(
            _settle(state, JobStatus.FAILED, now, failure=verdicts.set_back(known.why)), effects, records
        )
    if not arrived:
        # It never came to the server, so it is sent for the first time.
        running = evolve(running, submitting=True, submissions=running.submissions + 1)
        records.append(_sending(state, running, moment))
        return _also(_send(state, running, now), effects, records)
    if state.policy.on_crash is OnCrash.FAIL or state.continuations >= CONTINUATIONS:
        return _also(_settle(state, JobStatus.FAILED, now, failure=known.why), effects, records)
    return _also(_go_on(state, running, known.why, moment), effects, records)


def _go_on(state: JobState, running: Running, why: Failure, moment: Moment) -> JobStep:
    """A new prompt in the same conversation: the old one is never run twice."""
    prompt = stamped(evolve(state.prompt, text=interruption.go_on(why)), moment)
    transcript, pieces = remarked(running.work.transcript, interruption.remark(why))
    work = evolve(running.work, transcript=transcript.continued(prompt.message_id), error=None)
    heard = Heard(work=evolve(work, activity=work.activity.progressed(moment.now)), pieces=pieces)
    running = evolve(running, work=heard.work, submitting=True, submissions=1)
    state = evolve(state, continuation=prompt, continuations=state.continuations + 1, phase=running)
    state, effects, records = given_out(state, heard, moment.now)
    records.append(_sending(state, running, moment))
    return _also(_send(state, running, moment.now), effects, records)


def _send(state: JobState, running: Running, now: float) -> JobStep:
    running = evolve(running, work=evolve(running.work, started_at=now))
    return Step(state=evolve(state, phase=running), effects=(Run(operation=_submit(state, running.work)),))


def _interrupt(state: JobState, running: Running, message: m.ServerLost) -> JobStep:
    """The session holds the next turn for it."""
    state, gone = requests.given_up(state, "OpenCode's server has ended")
    work = running.work
    known = Interrupted(
        # What was heard after a gap that was not closed yet is read in its order then.
        transcript=evolve(work.transcript, held=None).after_gap(),
        why=message.failure,
        since=running.began,
        todos=work.todos,
        sub_answers=work.sub_answers,
        spent_before=work.spent_before,
    )
    effects: tuple[JobEffect, ...] = (
        *gone,
        Forget(kind=m.SubmitPrompt),
        Forget(kind=m.ReadConversation),
        Forget(kind=m.ReadRequests),
        StopTimer(timer=JobTimer.IDLE),
        StopTimer(timer=JobTimer.REMIND),
        StopTimer(timer=JobTimer.REPORT),
        StopTimer(timer=JobTimer.START),
        StopTimer(timer=JobTimer.SUBMIT),
        StopTimer(timer=JobTimer.REREAD),
        StopTimer(timer=JobTimer.LOOK),
    )
    return Step(state=evolve(state, phase=known), effects=effects)


# ---- running


def _running(state: JobState, running: Running, message: JobMessage, moment: Moment) -> JobStep:
    now = moment.now
    match message:
        case m.EventsSeen():
            heard = hear(running.work, message.events, now)
            return _running_heard(state, running, heard, moment)
        case m.ConversationRead():
            if running.after is not None:
                return _found(state, running, running.after, message, moment)
            return _running_read(state, running, message, now)
        case m.ResidentsSeen():
            return Step(state=_with_work(state, _residents(running.work, message)))
        case m.PromptTaken():
            state = evolve(state, phase=evolve(running, submitting=False))
            return Step(state=state, effects=(StartTimer(timer=JobTimer.START, seconds=BEGIN_WITHIN),))
        case m.PromptRefused() if running.submissions == 1:
            return _settle(state, JobStatus.FAILED, now, failure=message.failure)
        case m.PromptRefused():
            # One that nobody was sure of may have been taken.
            return _stop(state, evolve(running, submitting=False), message.failure, now)
        case m.PromptUnsure():
            return _unsure(state, evolve(running, submitting=False), message, now)
        case m.CancelJob():
            state = evolve(state, waiting=(*state.waiting, message.ask))
            return _stop(state, running, None, now)
        case m.GiveWay():
            return _stop(evolve(state, gives_way_to=message.to), running, None, now)
        case m.ServerLost():
            if running.work.transcript.ending is Ending.ANSWERED:
                return _settle(state, JobStatus.COMPLETED, now, climb=message.climb)
            if message.again and (state.policy.on_crash is OnCrash.RESUME or running.after is not None):
                return _interrupt(state, running, message)
            return _settle(state, JobStatus.FAILED, now, failure=message.failure, climb=message.climb)
        case m.SessionFailed():
            return _settle(state, JobStatus.FAILED, now, failure=message.failure)
        case m.StreamOpened():
            work = evolve(running.work, transcript=running.work.transcript.after_gap())
            running = _about_to_look(evolve(running, work=work))
            effects = (_read(work), _look(work, tools=_delegates_in_silence(state, work, now)))
            return Step(state=evolve(state, phase=running), effects=effects)
        case m.ReadFailed():
            return Step(state=state, effects=(StartTimer(timer=JobTimer.REREAD, seconds=REREAD_DELAY),))
        case m.RequestsRead():
            heard = looked(running.work, message, running.looked_with, running.looked_todos, now)
            if message.delegated is not None and _delegates_in_silence(state, heard.work, now):
                return _delegated(state, running, heard, message.delegated, moment)
            return _running_heard(state, running, heard, moment)
        case m.RequestsUnread():
            return Step(state=state, effects=(StartTimer(timer=JobTimer.LOOK, seconds=REREAD_DELAY),))
        case m.AnswerRequest():
            return _acted(requests.answer(state, running, message))
        case m.ReplyTaken() if state.replies:
            return _acted(requests.taken(state, running, now))
        case m.ReplyFailed() if state.replies:
            return _reply_failed(state, running, message, now)
        case m.LoadSeen():
            state = evolve(state, memory_bytes=message.memory_bytes)
            return Step(state=_with_work(state, _loaded(running.work, message, now)))
        case m.JobTimerFired():
            return _running_timer(state, running, message.timer, now)
        case (
            m.TurnGranted()
            | m.TakenOver()
            | m.AbortAnswered()
            | m.AbortFailed()
            | m.ProcessesSeen()
            | m.LookFailed()
            | m.ReplyTaken()
            | m.ReplyFailed()
            | m.GetJob()
        ):
            return Step(state=state)
        case _:
            assert_never(message)


def _about_to_look(running: Running) -> Running:
    work = running.work
    return evolve(running, looked_with=frozenset(work.requests), looked_todos=work.todos)


def _delegates_in_silence(state: JobState, work: Work, now: float) -> bool:
    return work.activity.delegated_for(now) >= state.policy.idle_timeout - ROUNDING


def _delegated(
    state: JobState, running: Running, heard: Heard, delegated: m.Delegated, moment: Moment
) -> JobStep:
    """What nobody hears of sub-agents may be work all the same, by the server's word."""
    if delegated.runs:
        return _running_heard(state, running, heard, moment)
    rest = 0.0
    if delegated.ended_at is not None and delegated.ended_at <= moment.wall:
        rest = state.policy.idle_timeout - (moment.wall - delegated.ended_at)
    if rest > ROUNDING:
        step = _running_heard(state, running, heard, moment)
        return _also(step, [StartTimer(timer=JobTimer.LOOK, seconds=rest)], [])
    silence = heard.work.activity.delegated_for(moment.now)
    return _stop(state, running, verdicts.idle(state.policy, heard.work, silence, moment.now), moment.now)


def _acted(acted: requests.Acted) -> JobStep:
    state, effects = acted
    return Step(state=state, effects=tuple(effects))


def _reply_failed(state: JobState, running: Running, message: m.ReplyFailed, now: float) -> JobStep:
    state, effects = requests.failed(state, running, message, now)
    if isinstance(state.phase, Running) and (request := requests.beyond_reach(state.phase)) is not None:
        verdict = verdicts.unanswerable(request, message.reason)
        return _also(_stop(state, state.phase, verdict, now), effects, [])
    return Step(state=state, effects=tuple(effects))


def _unanswered(state: JobState, running: Running, now: float) -> JobStep:
    request = requests.overdue(state, running, now)
    if request is not None and requests.is_fatal(state):
        return _stop(state, running, verdicts.unanswered(state.policy, request), now)
    return _acted(requests.reject_overdue(state, running, now))


def _unsure(state: JobState, running: Running, message: m.PromptUnsure, now: float) -> JobStep:
    state = evolve(state, phase=running)
    if running.work.transcript.last is not None:
        return Step(state=state)  # the server answers it, so it has it
    if running.submissions >= SUBMISSIONS:
        failure = Failure(cause=Cause.SERVER_HUNG, message=message.reason)
        return _stop(state, running, failure, now)
    return Step(state=state, effects=(StartTimer(timer=JobTimer.SUBMIT, seconds=RESUBMIT_DELAY),))


def _running_timer(state: JobState, running: Running, timer: JobTimer, now: float) -> JobStep:
    work = running.work
    match timer:
        case JobTimer.SUBMIT:
            running = evolve(running, submitting=True, submissions=running.submissions + 1)
            state = evolve(state, phase=running)
            return Step(state=state, effects=(Run(operation=_submit(state, work)),))
        case JobTimer.START | JobTimer.REREAD:
            return Step(state=state, effects=(_read(work),))
        case JobTimer.IDLE:
            idle = work.activity.idle_for(now)
            if idle >= state.policy.idle_timeout - ROUNDING:
                return _stop(state, running, verdicts.idle(state.policy, work, idle, now), now)
            rest = state.policy.idle_timeout - (now - work.activity.sign_at)
            seconds = rest if rest > ROUNDING else state.policy.idle_timeout
            again = StartTimer(timer=JobTimer.IDLE, seconds=seconds)
            if not _delegates_in_silence(state, work, now):
                return Step(state=state, effects=(again,))
            running = _about_to_look(running)
            return Step(state=evolve(state, phase=running), effects=(again, _look(work, tools=True)))
        case JobTimer.TOTAL:
            return _stop(state, running, verdicts.timed_out(state.policy), now)
        case JobTimer.REMIND:
            lasted = now - running.began
            notice = n.JobLasted(job=state.id, session=state.session, seconds=lasted)
            return Step(state=state, effects=(Publish(notice=notice), *_next_reminder(state, lasted)))
        case JobTimer.REPORT:
            lasted = now - running.began
            report = n.JobReported(job=state.id, session=state.session, seconds=lasted)
            return Step(state=state, effects=(Publish(notice=report), *_next_report(state, lasted)))
        case JobTimer.LOOK:
            running, tools = _about_to_look(running), _delegates_in_silence(state, work, now)
            return Step(state=evolve(state, phase=running), effects=(_look(work, tools=tools),))
        case JobTimer.UNANSWERED:
            return _unanswered(state, running, now)
        case JobTimer.RUNG:
            return Step(state=state)
        case _:
            assert_never(timer)


def _running_heard(state: JobState, running: Running, heard: Heard, moment: Moment) -> JobStep:
    now, ended = moment.now, _ended(running.work, heard.work)
    running = evolve(running, work=heard.work)
    state = evolve(state, phase=running)
    state, effects, records = given_out(state, heard, now)
    if heard.retrying is not None:
        wait = max(0.0, heard.retrying.next_at - moment.wall)
        effects.append(_retry_notice(state, heard.retrying, wait))
        verdict = verdicts.too_much(state.policy, heard.retrying, wait)
        if verdict is not None:
            return _also(_stop(state, running, verdict, now), effects, records)
    overspent = verdicts.over_budget(state.policy, heard.work)
    if overspent is not None:
        return _also(_stop(state, running, overspent, now), effects, records)
    ending = heard.work.transcript.ending
    if heard.idle and ending in (Ending.ANSWERED, Ending.FAILED):
        return _also(_conclude(state, heard.work, now), effects, records)
    if heard.work.transcript.has_no_end:
        return _also(_stop(state, running, verdicts.without_end(), now), effects, records)
    if heard.idle or heard.failed:
        effects.append(_read(heard.work))
    elif ended:
        # A reading that is on its way may say "idle" of the time before the prompt began.
        effects.append(Forget(kind=m.ReadConversation))
        effects.append(StartTimer(timer=JobTimer.REREAD, seconds=IDLE_AFTER_ENDING))
    return Step(state=state, effects=tuple(effects), records=tuple(records))


def _retry_notice(state: JobState, retrying: ConversationRetrying, wait: float) -> Publish:
    return Publish(
        notice=n.ProviderRetrying(
            job=state.id,
            session=state.session,
            attempt=retrying.attempt,
            reason=retrying.message,
            seconds=wait,
        )
    )


def _running_read(state: JobState, running: Running, message: m.ConversationRead, now: float) -> JobStep:
    heard = read(running.work, message.messages, now)
    work, idle = heard.work, message.state is ConversationState.IDLE
    ended = _ended(running.work, work)
    fruitless = running.fruitless_reads + 1 if idle else 0
    running = evolve(running, work=work, fruitless_reads=0)
    state, effects, records = given_out(evolve(state, phase=running), heard, now)
    overspent = verdicts.over_budget(state.policy, work)
    if overspent is not None:
        return _also(_stop(state, running, overspent, now), effects, records)
    ending, last = work.transcript.ending, work.transcript.last
    if not idle and work.transcript.has_no_end:
        return _also(_stop(state, running, verdicts.without_end(), now), effects, records)
    if not idle:
        if ending is not None:
            effects.append(StartTimer(timer=JobTimer.REREAD, seconds=IDLE_AFTER_ENDING))
        return Step(state=state, effects=tuple(effects), records=tuple(records))
    if ended:
        # The state was read before the messages, and may be from before the prompt began.
        return Step(state=state, effects=(*effects, _read(work)), records=tuple(records))
    if ending in (Ending.ANSWERED, Ending.FAILED):
        return _also(_conclude(state, work, now), effects, records)
    if last is None and work.error is None and now - work.started_at < BEGIN_WITHIN - ROUNDING:
        return Step(state=state, effects=tuple(effects), records=tuple(records))
    # The server is idle and the last message is not final. It may be a moment behind, the reading may be
    # older than what was heard, and an error may be the echo of the job before.
    settled_by_an_error = work.error is not None or ending is Ending.ABORTED
    patience = FRUITLESS_READS_AFTER_ERROR if settled_by_an_error else FRUITLESS_READS
    if fruitless <= patience:
        state = evolve(state, phase=evolve(running, work=work, fruitless_reads=fruitless))
        effects.append(StartTimer(timer=JobTimer.REREAD, seconds=REREAD_DELAY))
        return Step(state=state, effects=tuple(effects), records=tuple(records))
    return _also(_conclude(state, work, now), effects, records)


def _ended(before: Work, after: Work) -> bool:
    """The answer's end is only now known."""
    return before.transcript.ending is None and after.transcript.ending is not None


def _conclude(state: JobState, work: Work, now: float) -> JobStep:
    """The server is idle, and the last message says how the answer ended as well as it ever will."""
    last = work.transcript.last
    ending = work.transcript.ending
    if ending is Ending.ANSWERED:
        return _settle(state, JobStatus.COMPLETED, now)
    if ending is None and last is not None and last.finish is not None:
        # A step that others should have followed, had somebody not said no to its tool.
        return _settle(state, JobStatus.COMPLETED, now)
    return _settle(state, JobStatus.FAILED, now, failure=verdicts.unended(work))


# ---- stopping


def _stop(
    state: JobState,
    running: Running,
    verdict: Failure | None,
    now: float,
    begun: Ladder | None = None,
) -> JobStep:
    """`begun` when the climb began, and was announced, before there was a server to ask."""
    work, ladder = running.work, begun or Ladder(rung=Rung.ABORT, since=now)
    state, gone = requests.given_up(state, "the job is being stopped")
    stopping = Stopping(
        work=work,
        ladder=ladder,
        verdict=verdict,
        submitting=running.submitting,
    )
    state = evolve(state, phase=stopping)
    cancelling = n.JobCancelling(job=state.id, session=state.session, rung=Rung.ABORT, why=_for_whom(state))
    effects: tuple[JobEffect, ...] = (
        *gone,
        *((Publish(notice=cancelling),) if begun is None else ()),
        StopTimer(timer=JobTimer.IDLE),
        StopTimer(timer=JobTimer.TOTAL),
        StopTimer(timer=JobTimer.REMIND),
        StopTimer(timer=JobTimer.REPORT),
        StopTimer(timer=JobTimer.START),
        StopTimer(timer=JobTimer.SUBMIT),
        StopTimer(timer=JobTimer.LOOK),
        Forget(kind=m.ReadRequests),
        _abort(work),
        StartTimer(timer=JobTimer.RUNG, seconds=max(0.0, ladder.since + state.policy.graces.abort - now)),
    )
    record = n.JobRecorded(snapshot=snapshot(state, now), verdict=verdict)
    return Step(state=state, effects=effects, records=(record,))


def _for_whom(state: JobState) -> str:
    return "" if state.gives_way_to is None else f"job {state.gives_way_to} goes first"


def _abort(work: Work) -> Run[m.JobOperation]:
    return Run(
        operation=m.AbortConversation(endpoint=work.endpoint, conversation=work.transcript.conversation)
    )


def _stopping(state: JobState, stopping: Stopping, message: JobMessage, now: float) -> JobStep:
    alone = stopping.ladder.rung is Rung.ABORT
    match message:
        case m.CancelJob():
            return Step(state=evolve(state, waiting=(*state.waiting, message.ask)))
        case m.EventsSeen():
            heard = hear(stopping.work, message.events, now)
            return _stopping_heard(state, stopping, heard, now)
        case m.ConversationRead():
            return _stopping_read(state, stopping, message, now)
        case m.AbortAnswered():
            state = evolve(state, phase=evolve(stopping, aborting=False))
            return Step(state=state, effects=(_read(stopping.work),))
        case m.AnswerRequest():
            return Step(state=state, effects=(requests.no_request(message),))
        case m.PromptTaken() | m.PromptUnsure() | m.PromptRefused():
            # It, or one before it, may have arrived after the abort, and would run on.
            return _abort_again(state, evolve(stopping, submitting=False))
        case m.AbortFailed():
            why = f"OpenCode did not take the abort: {message.reason}"
            return _escalate(state, evolve(stopping, why=why), now)
        case m.ResidentsSeen():
            return Step(state=_with_work(state, _residents(stopping.work, message)))
        case m.ProcessesSeen() if alone:
            return _looked(state, stopping, message, now)
        case m.LookFailed() if alone:
            return Step(state=state, effects=(StartTimer(timer=JobTimer.REREAD, seconds=REREAD_DELAY),))
        case m.ServerLost() if state.policy.elsewhere:
            return _left_alone(state, stopping, message.failure.message, now)
        case m.ServerLost():
            climb = _joined(stopping, message.climb, now)
            return _settle_stopped(state, stopping, climb, now)
        case m.SessionFailed():
            return _settle(state, JobStatus.FAILED, now, failure=message.failure)
        case m.StreamOpened():
            work = evolve(stopping.work, transcript=stopping.work.transcript.after_gap())
            state = evolve(state, phase=evolve(stopping, work=work))
            return Step(state=state, effects=(_read(work),) if alone else ())
        case m.LoadSeen():
            state = evolve(state, memory_bytes=message.memory_bytes)
            return Step(state=_with_work(state, _loaded(stopping.work, message, now)))
        case m.ReadFailed() if alone:
            return Step(state=state, effects=(StartTimer(timer=JobTimer.REREAD, seconds=REREAD_DELAY),))
        case m.JobTimerFired(timer=JobTimer.RUNG):
            return _escalate(state, evolve(stopping, why=_why_not_over(state, stopping)), now)
        case m.JobTimerFired(timer=JobTimer.REREAD) if alone:
            return Step(state=state, effects=(_read(stopping.work),))
        case (
            m.GiveWay()
            | m.TurnGranted()
            | m.TakenOver()
            | m.GetJob()
            | m.ReadFailed()
            | m.ProcessesSeen()
            | m.LookFailed()
            | m.RequestsRead()
            | m.RequestsUnread()
            | m.ReplyTaken()
            | m.ReplyFailed()
            | m.JobTimerFired()
        ):
            return Step(state=state)
        case _:
            assert_never(message)


def _abort_again(state: JobState, stopping: Stopping) -> JobStep:
    state = evolve(state, phase=evolve(stopping, aborting=True, survivors=()))
    return Step(state=state, effects=(Forget(kind=m.LookAtProcesses), _abort(stopping.work)))


def _stopping_heard(state: JobState, stopping: Stopping, heard: Heard, now: float) -> JobStep:
    alone = stopping.ladder.rung is Rung.ABORT
    begun, ended = _begun(stopping.work, heard.work), _ended(stopping.work, heard.work)
    stopping = evolve(stopping, work=heard.work)
    state, effects, records = given_out(evolve(state, phase=stopping), heard, now)
    if begun and alone:
        return _also(_abort_again(state, stopping), effects, records)
    if ended and alone:
        # What is looked for was read before: the server may not have left the answer yet.
        effects.append(Forget(kind=m.LookAtProcesses))
    if not alone or stopping.aborting or stopping.submitting:
        pass  # whatever answers them reads
    elif heard.idle and _broken_off(state, heard.work):
        # It is younger than the end: no reading could say more.
        effects.append(Forget(kind=m.ReadConversation))
        effects.append(_look_for_rest(heard.work))
    elif heard.idle or ended:
        effects.append(_read(heard.work))
    return Step(state=state, effects=tuple(effects), records=tuple(records))


def _begun(before: Work, after: Work) -> bool:
    """The server takes the prompt up only now, so the abort went by it."""
    return before.transcript.last is None and after.transcript.last is not None


def _stopping_read(state: JobState, stopping: Stopping, message: m.ConversationRead, now: float) -> JobStep:
    heard = read(stopping.work, message.messages, now)
    idle = message.state is ConversationState.IDLE
    fruitless = stopping.fruitless_reads + 1 if idle else 0
    begun, ended = _begun(stopping.work, heard.work), _ended(stopping.work, heard.work)
    stopping = evolve(stopping, work=heard.work, fruitless_reads=fruitless)
    state, effects, records = given_out(evolve(state, phase=stopping), heard, now)
    if begun:
        return _also(_abort_again(state, stopping), effects, records)
    ending = heard.work.transcript.ending
    over = idle and not ended and (ending is not None or fruitless >= FRUITLESS_READS)
    if over and not stopping.aborting and not stopping.submitting:
        # A complete answer's commands may have left something behind on purpose, and what lives elsewhere
        # cannot be seen.
        if ending is Ending.ANSWERED or state.policy.elsewhere:
            climb = stopping.ladder.ended(now)
            return _also(_settle_stopped(state, stopping, climb, now), effects, records)
        effects.append(_look_for_rest(heard.work))
    elif ended:
        effects.append(_read(heard.work))
    else:
        effects.append(StartTimer(timer=JobTimer.REREAD, seconds=REREAD_DELAY))
    return Step(state=state, effects=tuple(effects), records=tuple(records))


def _broken_off(state: JobState, work: Work) -> bool:
    """And where that is, what is left of it can be seen."""
    return work.transcript.ending in (Ending.FAILED, Ending.ABORTED) and not state.policy.elsewhere


def _look_for_rest(work: Work) -> Run[m.JobOperation]:
    return Run(operation=m.LookAtProcesses(container=work.container))


def _looked(state: JobState, stopping: Stopping, message: m.ProcessesSeen, now: float) -> JobStep:
    """The conversation has ended. So have its commands, or they are given the rest of abortGrace."""
    work = stopping.work
    left = leftovers.of_the_job(message.processes, work.residents, first=work.container.pid)
    if not left and not stopping.aborting and not stopping.submitting:
        return _settle_stopped(state, stopping, stopping.ladder.ended(now), now)
    state = evolve(state, phase=evolve(stopping, survivors=left))
    return Step(state=state, effects=(StartTimer(timer=JobTimer.REREAD, seconds=LOOK_AGAIN_DELAY),))


def _why_not_over(state: JobState, stopping: Stopping) -> str:
    grace = f"abortGrace ({state.policy.graces.abort:g} s)"
    if stopping.survivors:
        return f"{leftovers.in_words(stopping.survivors)} outlived the abort by {grace}"
    return f"OpenCode did not end its answer within {grace}"


def _escalate(state: JobState, stopping: Stopping, now: float) -> JobStep:
    """From here on the session climbs; its deadlines are the only ones."""
    if stopping.ladder.rung is not Rung.ABORT:
        return Step(state=state)
    if state.policy.elsewhere:
        return _left_alone(state, stopping, stopping.why, now)
    state = evolve(state, phase=evolve(stopping, ladder=stopping.ladder.up(now)))
    effects: tuple[JobEffect, ...] = (
        Forget(kind=m.AbortConversation),
        Forget(kind=m.ReadConversation),
        Forget(kind=m.LookAtProcesses),
        Forget(kind=m.SubmitPrompt),
        StopTimer(timer=JobTimer.RUNG),
        StopTimer(timer=JobTimer.REREAD),
        Publish(
            notice=n.JobCancelling(job=state.id, session=state.session, rung=Rung.STOP, why=stopping.why)
        ),
        m.TellSession(session=state.session, message=m.StopForJob(job=state.id)),
    )
    return Step(state=state, effects=effects)


def _left_alone(state: JobState, stopping: Stopping, why: str, now: float) -> JobStep:
    if stopping.work.transcript.ending is Ending.ANSWERED:
        return _settle(state, JobStatus.COMPLETED, now, climb=stopping.ladder.ended(now))
    return _beyond_reach(state, stopping.ladder, stopping.verdict, why, now)


def _joined(stopping: Stopping, session: Climb | None, now: float) -> Climb:
    own = stopping.ladder
    if session is None:
        return evolve(own.ended(now), why=stopping.why)  # the container died by itself
    seconds = (*own.behind, *session.seconds)
    return Climb(ended_by=session.ended_by, seconds=seconds, why=stopping.why)


def _settle_stopped(state: JobState, stopping: Stopping, climb: Climb, now: float) -> JobStep:
    if stopping.work.transcript.ending is Ending.ANSWERED:
        return _settle(state, JobStatus.COMPLETED, now, climb=climb)
    if stopping.verdict is not None:
        return _settle(state, JobStatus.FAILED, now, failure=stopping.verdict, climb=climb)
    return _settle(state, JobStatus.CANCELLED, now, climb=climb)


# ---- settled


def _settle(
    state: JobState,
    status: JobStatus,
    now: float,
    *,
    failure: Failure | None = None,
    climb: Climb | None = None,
) -> JobStep:
    state, last_words, records = _last_words(state, now)
    state, gone = requests.given_up(state, "the job has ended")
    final = evolve(
        snapshot(state, now),
        pending=(),
        status=status,
        failure=failure,
        climb=climb,
        activity=ActivityState.IDLE,
        interrupted_by=state.gives_way_to if status is JobStatus.CANCELLED else None,
    )
    replies = tuple(Reply(ask=ask, value=final) for ask in state.waiting)
    effects: tuple[JobEffect, ...] = (
        *last_words,
        *gone,
        m.TellSession(session=state.session, message=m.JobOver(job=state.id)),
        Publish(notice=n.JobEnded(job=state.id, session=state.session, snapshot=final)),
        *replies,
        Finish(),
    )
    state = evolve(state, phase=Settled(snapshot=final), waiting=())
    return Step(state=state, effects=effects, records=(*records, n.JobRecorded(snapshot=final)))


def _last_words(state: JobState, now: float) -> tuple[JobState, list[JobEffect], list[n.Record]]:
    """What was heard since the stream broke last is all that there will ever be."""
    if not isinstance(state.phase, Running | Stopping) or state.phase.work.transcript.held is None:
        return state, [], []
    heard = left_over(state.phase.work, now)
    return given_out(_with_work(state, heard.work), heard, now)


# ---- what every phase does alike


def _loaded(work: Work, message: m.LoadSeen, now: float) -> Work:
    return evolve(work, activity=work.activity.loaded(message.cpu_load, now))


def _with_work(state: JobState, work: Work) -> JobState:
    if isinstance(state.phase, Running | Stopping):
        return evolve(state, phase=evolve(state.phase, work=work))
    return state


def _also(step: JobStep, effects: list[JobEffect], records: list[n.Record]) -> JobStep:
    return evolve(step, effects=(*effects, *step.effects), records=(*records, *step.records))
