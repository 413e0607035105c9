"""A prompt that the server works on: everything heard of it, and what to make of one batch of events."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from attrs import Factory, evolve, frozen

from opencode_actors.machines import transcript as script
from opencode_actors.machines.activity import Activity
from opencode_actors.machines.job_messages import RequestsRead
from opencode_actors.machines.server_events import (
    ConversationBusy,
    ConversationCreated,
    ConversationFailed,
    ConversationId,
    ConversationIdle,
    ConversationRetrying,
    Heartbeat,
    InstanceDisposed,
    Message,
    MessageError,
    MessageId,
    MessageInfo,
    MessageUpdated,
    PartDelta,
    PartId,
    PartUpdated,
    PermissionAsked,
    QuestionAsked,
    RequestAnswered,
    ServerEvent,
    Todo,
    TodosUpdated,
    ToolPart,
)
from opencode_actors.machines.spending import Recorded, Spending, aside, in_all
from opencode_actors.machines.transcript import Piece, Transcript
from opencode_actors.machines.vocabulary import PendingRequest, RequestKind
from opencode_actors.ports import (
    Container,
    Endpoint,
    PendingPermission,
    PendingQuestion,
    PermissionReply,
    Process,
)

# OpenCode's tool that asks a sub-agent, and waits for it.
DELEGATES = "task"


@frozen(kw_only=True)
class Request:
    """One that waits for an answer, since `at`. `failed_replies` are ours that did not get through; one that was
    `listed` is known from the server's list, and may be of a step that was not heard of yet."""

    about: PendingRequest
    at: float
    listed: bool = False
    failed_replies: int = 0


@frozen(kw_only=True)
class Work:
    """`residents` lived in the container before the prompt was sent; None when nobody could see."""

    container: Container
    endpoint: Endpoint
    transcript: Transcript
    activity: Activity
    started_at: float
    children: frozenset[ConversationId] = frozenset()
    busy_children: frozenset[ConversationId] = frozenset()
    seen_tools: frozenset[PartId] = frozenset()
    todos: tuple[Todo, ...] = ()
    requests: Mapping[str, Request] = {}
    # Those that are over: a list that was read before must not bring them back.
    ended_requests: frozenset[str] = frozenset()
    # The server's `session.error`: the only word there is of a prompt that it never took up.
    error: MessageError | None = None
    residents: frozenset[Process] | None = None
    # The messages of sub-agents, for what they cost. What one says in a gap of the stream is not among them.
    sub_answers: Mapping[MessageId, MessageInfo] = {}
    spent_before: Recorded = Factory(Recorded)

    @property
    def aside(self) -> Spending:
        return aside(self.spent_before, (*self.transcript.earlier, *self.sub_answers.values()))

    @property
    def spending(self) -> Spending:
        return in_all(self.spent_before, self.aside, self.transcript.answers.values())


@frozen(kw_only=True)
class Heard:
    """What one batch brought, beyond the new state of the work.

    `wanted` are the requests that wait since then, `ended` those that wait no more.
    """

    work: Work
    pieces: tuple[Piece, ...] = ()
    tools: tuple[ToolPart, ...] = ()
    wanted: tuple[PendingRequest, ...] = ()
    ended: tuple[PendingRequest, ...] = ()
    todos_changed: bool = False
    idle: bool = False
    failed: bool = False
    retrying: ConversationRetrying | None = None


def hear(work: Work, events: tuple[ServerEvent, ...], now: float) -> Heard:
    heard = Heard(work=work)
    for event in events:
        heard = _hear_one(heard, event, now)
    return _compared(work, heard)


def read(work: Work, messages: tuple[Message, ...], now: float) -> Heard:
    """The conversation as the server has it. Only what was not known yet is a sign of life."""
    transcript, pieces = script.conversation_read(work.transcript, messages)
    moved = transcript != work.transcript
    heard = _written(Heard(work=work), transcript, pieces, now)
    return _compared(work, _progress(heard, now) if moved else heard)


def looked(
    work: Work, read: RequestsRead, known: frozenset[str], todos: tuple[Todo, ...], now: float
) -> Heard:
    """The lists of what waits for an answer. Of the requests that were `known` before they were read, those
    that are not on them are over; what was asked or answered since is not on them yet. The list of what is to be
    done is the conversation's: it is taken over where the job has one, and none newer than `todos` was heard. A child
    that is found at work, and was not known to be, may have been heard of by nobody: that is a sign of life."""
    children = work.children | read.children
    found = (read.busy & children) - work.busy_children
    listed = {about.id: about for about in read.requests}
    over = frozenset(id_ for id_ in work.requests if id_ in known and id_ not in listed)
    after = evolve(work, children=children, busy_children=read.busy & children)
    activity = after.activity.progressed(now) if found else after.activity
    after = evolve(after, activity=evolve(activity, children=len(after.busy_children)))
    after = without_requests(after, over, now)
    for about in listed.values():
        after = _with_request(after, about, now, listed=True)
    changed = bool(todos) and work.todos == todos != read.todos
    if changed:
        after = evolve(after, todos=read.todos)
    return _compared(work, Heard(work=after, todos_changed=changed))


def without_requests(work: Work, over: Collection[str], now: float) -> Work:
    """Whoever asked goes on from here, so idleness counts from now."""
    over = [id_ for id_ in over if id_ in work.requests]
    if not over:
        return work
    requests = {id_: request for id_, request in work.requests.items() if id_ not in over}
    activity = evolve(work.activity, waiting_for=frozenset(requests)).progressed(now)
    ended = work.ended_requests.union(over)
    return evolve(work, requests=requests, ended_requests=ended, activity=activity)


def _with_request(work: Work, about: PendingRequest, now: float, *, listed: bool = False) -> Work:
    if about.id in work.requests or about.id in work.ended_requests:
        return work
    requests = {**work.requests, about.id: Request(about=about, at=now, listed=listed)}
    activity = evolve(work.activity, waiting_for=frozenset(requests)).progressed(now)
    return evolve(work, requests=requests, activity=activity)


def _compared(before: Work, heard: Heard) -> Heard:
    after = heard.work.requests
    wanted = tuple(request.about for id_, request in after.items() if id_ not in before.requests)
    ended = tuple(request.about for id_, request in before.requests.items() if id_ not in after)
    return evolve(heard, wanted=wanted, ended=ended)


def left_over(work: Work, now: float) -> Heard:
    """What was heard after a gap that nobody can read any more."""
    return _compared(work, _written(Heard(work=work), *script.released(work.transcript), now))


def _hear_one(heard: Heard, event: ServerEvent, now: float) -> Heard:
    work = heard.work
    if isinstance(event, Heartbeat):
        return heard
    if isinstance(event, InstanceDisposed):
        return evolve(heard, failed=True)
    if isinstance(event, ConversationCreated):
        if event.parent is not None and _ours(work, event.parent):
            work = evolve(work, children=work.children | {event.conversation})
            return _progress(evolve(heard, work=work), now)
        return heard
    if isinstance(event, ConversationFailed) and event.conversation is None:
        # The server does not say whose error it is; one prompt at a time runs here, so it is ours.
        return _failed(heard, event)
    conversation = event.info.conversation if isinstance(event, MessageUpdated) else event.conversation
    if conversation is None or not _ours(work, conversation):
        return heard
    if conversation != work.transcript.conversation:
        return _hear_child(heard, event, conversation, now)
    return _hear_own(heard, event, now)


def _ours(work: Work, conversation: ConversationId) -> bool:
    return conversation == work.transcript.conversation or conversation in work.children


def _hear_child(heard: Heard, event: ServerEvent, conversation: ConversationId, now: float) -> Heard:
    """A sub-agent: its work is work, its questions are questions, its words are not the answer."""
    work = heard.work
    if isinstance(event, MessageUpdated):
        work = evolve(work, sub_answers={**work.sub_answers, event.info.id: event.info})
    elif isinstance(event, ConversationBusy):
        work = evolve(work, busy_children=work.busy_children | {conversation})
    elif isinstance(event, ConversationIdle):
        # An abort leaves its questions on the server's list as ghosts.
        asked = [id_ for id_, r in work.requests.items() if r.about.conversation == conversation]
        work = without_requests(work, asked, now)
        work = evolve(work, busy_children=work.busy_children - {conversation})
    elif isinstance(event, QuestionAsked | PermissionAsked | RequestAnswered):
        return _hear_request(heard, event, now)
    elif isinstance(event, ConversationRetrying):
        return _retrying(heard, event, now)  # the parent waits for its child for as long as the provider says
    activity = evolve(work.activity, children=len(work.busy_children))
    return _progress(evolve(heard, work=evolve(work, activity=activity)), now)


def _hear_own(heard: Heard, event: ServerEvent, now: float) -> Heard:
    work = heard.work
    match event:
        case MessageUpdated():
            transcript = script.message_updated(work.transcript, event.info)
            if work.transcript.ending is None and transcript.ending is not None:
                # An "idle" before the answer's end was the last word on the prompt before.
                heard = evolve(heard, idle=False)
            return _spoken(heard, transcript, (), now)
        case PartUpdated():
            return _spoken(heard, *script.part_updated(work.transcript, event.part), now)
        case PartDelta():
            return _spoken(heard, *script.delta_added(work.transcript, event), now)
        case TodosUpdated():
            work = evolve(work, todos=event.todos)
            return _progress(evolve(heard, work=work, todos_changed=True), now)
        case QuestionAsked() | PermissionAsked() | RequestAnswered():
            return _hear_request(heard, event, now)
        case ConversationRetrying():
            return _retrying(heard, event, now)
        case ConversationIdle():
            return evolve(heard, idle=True)
        case ConversationFailed():
            return _failed(heard, event)
        case ConversationBusy() | ConversationCreated() | Heartbeat() | InstanceDisposed():
            return heard


def _retrying(heard: Heard, event: ConversationRetrying, now: float) -> Heard:
    activity = heard.work.activity.retried(event.attempt, event.message, now)
    return evolve(heard, work=evolve(heard.work, activity=activity), retrying=event)


def _failed(heard: Heard, event: ConversationFailed) -> Heard:
    """An abort's error comes late, when the next prompt may run already; of our own abort we know."""
    error = heard.work.error if event.error.name == script.ABORTED else event.error
    return evolve(heard, work=evolve(heard.work, error=error), failed=True)


def _spoken(heard: Heard, transcript: Transcript, pieces: tuple[Piece, ...], now: float) -> Heard:
    return _progress(_written(heard, transcript, pieces, now, live=True), now)


def _written(
    heard: Heard, transcript: Transcript, pieces: tuple[Piece, ...], now: float, *, live: bool = False
) -> Heard:
    work = heard.work
    running = transcript.running_tools
    started = tuple(tool for id_, tool in running.items() if id_ not in work.seen_tools)
    delegating = frozenset(id_ for id_, tool in running.items() if tool.tool == DELEGATES)
    activity = evolve(work.activity, tools=frozenset(running), delegating=delegating)
    if transcript.answers.keys() > work.transcript.answers.keys():
        # The server has taken the next step. An error that was heard before is not this prompt's.
        work = evolve(work, error=None)
        if live:
            # What the one before waited for is over. A step that is only read may be the very one whose
            # question the server's list told first; what has ended in a gap is not on that list.
            over = [id_ for id_, request in work.requests.items() if not request.listed]
            work = evolve(without_requests(work, over, now), busy_children=frozenset())
            activity = evolve(activity, waiting_for=frozenset(work.requests), children=0)
    work = evolve(
        work,
        transcript=transcript,
        activity=activity,
        seen_tools=work.seen_tools.union(tool.id for tool in started),
    )
    return evolve(heard, work=work, pieces=heard.pieces + pieces, tools=heard.tools + started)


def _hear_request(
    heard: Heard, event: QuestionAsked | PermissionAsked | RequestAnswered, now: float
) -> Heard:
    work = heard.work
    if isinstance(event, RequestAnswered):
        work = evolve(work, ended_requests=work.ended_requests | {event.request})
        work = without_requests(work, (event.request,), now)
    else:
        sub_agent = event.conversation != work.transcript.conversation
        work = _with_request(work, _request(event, sub_agent=sub_agent), now)
    return _progress(evolve(heard, work=work), now)


def _request(event: QuestionAsked | PermissionAsked, *, sub_agent: bool) -> PendingRequest:
    if isinstance(event, QuestionAsked):
        return question(event, sub_agent=sub_agent)
    return permission(event, sub_agent=sub_agent)


def question(asked: QuestionAsked | PendingQuestion, *, sub_agent: bool) -> PendingRequest:
    return PendingRequest(
        id=asked.request,
        kind=RequestKind.QUESTION,
        text=asked.text,
        options=asked.options,
        questions=asked.questions,
        conversation=asked.conversation,
        sub_agent=sub_agent,
    )


def permission(asked: PermissionAsked | PendingPermission, *, sub_agent: bool) -> PendingRequest:
    return PendingRequest(
        id=asked.request,
        kind=RequestKind.PERMISSION,
        text=f"{asked.permission}: {asked.text}",
        options=tuple(reply.value for reply in PermissionReply),
        conversation=asked.conversation,
        sub_agent=sub_agent,
    )


def _progress(heard: Heard, now: float) -> Heard:
    return evolve(heard, work=evolve(heard.work, activity=heard.work.activity.progressed(now)))
