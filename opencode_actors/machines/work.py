"""A prompt that the server works on: everything heard of it, and what to make of one batch of events."""

from __future__ import annotations

from attrs import evolve, frozen

from opencode_actors.machines import transcript as script
from opencode_actors.machines.activity import Activity
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
from opencode_actors.machines.transcript import Piece, Transcript
from opencode_actors.ports import Container, Endpoint, Process


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
    # The server's `session.error`: the only word there is of a prompt that it never took up.
    error: MessageError | None = None
    residents: frozenset[Process] | None = None


@frozen(kw_only=True)
class Wanted:
    """The server waits for a person: a question, or a permission."""

    request: str
    text: str


@frozen(kw_only=True)
class Heard:
    """What one batch brought, beyond the new state of the work."""

    work: Work
    pieces: tuple[Piece, ...] = ()
    tools: tuple[ToolPart, ...] = ()
    wanted: tuple[Wanted, ...] = ()
    todos_changed: bool = False
    idle: bool = False
    failed: bool = False
    retrying: ConversationRetrying | None = None


def hear(work: Work, events: tuple[ServerEvent, ...], now: float) -> Heard:
    heard = Heard(work=work)
    for event in events:
        heard = _hear_one(heard, event, now)
    return heard


def read(work: Work, messages: tuple[Message, ...], now: float) -> Heard:
    """The conversation as the server has it. Only what was not known yet is a sign of life."""
    transcript, pieces = script.conversation_read(work.transcript, messages)
    moved = transcript != work.transcript
    heard = _written(Heard(work=work), transcript, pieces)
    return _progress(heard, now) if moved else heard


def left_over(work: Work) -> Heard:
    """What was heard after a gap that nobody can read any more."""
    return _written(Heard(work=work), *script.released(work.transcript))


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
    if isinstance(event, ConversationBusy):
        work = evolve(work, busy_children=work.busy_children | {conversation})
    elif isinstance(event, ConversationIdle):
        work = evolve(work, busy_children=work.busy_children - {conversation})
    elif isinstance(event, QuestionAsked | PermissionAsked | RequestAnswered):
        return _hear_request(heard, event, now)
    elif isinstance(event, ConversationRetrying):
        return _retrying(heard, event)  # the parent waits for its child for as long as the provider says
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
            return _retrying(heard, event)
        case ConversationIdle():
            return evolve(heard, idle=True)
        case ConversationFailed():
            return _failed(heard, event)
        case ConversationBusy() | ConversationCreated() | Heartbeat() | InstanceDisposed():
            return heard


def _retrying(heard: Heard, event: ConversationRetrying) -> Heard:
    activity = evolve(heard.work.activity, retrying=event.message or "it gives no reason")
    return evolve(heard, work=evolve(heard.work, activity=activity), retrying=event)


def _failed(heard: Heard, event: ConversationFailed) -> Heard:
    """An abort's error comes late, when the next prompt may run already; of our own abort we know."""
    error = heard.work.error if event.error.name == script.ABORTED else event.error
    return evolve(heard, work=evolve(heard.work, error=error), failed=True)


def _spoken(heard: Heard, transcript: Transcript, pieces: tuple[Piece, ...], now: float) -> Heard:
    return _progress(_written(heard, transcript, pieces), now)


def _written(heard: Heard, transcript: Transcript, pieces: tuple[Piece, ...]) -> Heard:
    work = heard.work
    running = transcript.running_tools
    started = tuple(tool for id_, tool in running.items() if id_ not in work.seen_tools)
    activity = evolve(work.activity, tools=frozenset(running))
    if transcript.answers.keys() > work.transcript.answers.keys():
        # The server has taken the next step, so whatever the one before waited for is over, and an error
        # that was heard before is not this prompt's. Their ends may have fallen into a gap.
        activity = evolve(activity, waiting_for=frozenset(), children=0)
        work = evolve(work, busy_children=frozenset(), error=None)
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
    activity = heard.work.activity
    if isinstance(event, RequestAnswered):
        waiting = activity.waiting_for - {event.request}
    else:
        waiting = activity.waiting_for | {event.request}
        wanted = Wanted(request=event.request, text=event.text)
        heard = evolve(heard, wanted=(*heard.wanted, wanted))
    work = evolve(heard.work, activity=evolve(activity, waiting_for=waiting))
    return _progress(evolve(heard, work=work), now)


def _progress(heard: Heard, now: float) -> Heard:
    return evolve(heard, work=evolve(heard.work, activity=heard.work.activity.progressed(now)))
