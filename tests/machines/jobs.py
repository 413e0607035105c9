"""A job on the table, and the words of the server that its examples need."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from opencode_actors.machines import job
from opencode_actors.machines import job_messages as j
from opencode_actors.machines import server_events as e
from opencode_actors.machines.job_state import JobState, Settled
from opencode_actors.machines.vocabulary import AskId, JobSnapshot
from opencode_actors.ports import ConversationState
from opencode_actors.testing import samples
from opencode_actors.testing.playbook import EPOCH, Playbook
from opencode_actors.testing.samples import (
    ANSWER,
    CHILD,
    CONTAINER,
    CONVERSATION,
    ENDPOINT,
    RESIDENTS,
    TEXT,
    answer,
)

Book = Playbook[JobState, j.JobMessage, j.JobEffect]

TURN = j.TurnGranted(container=CONTAINER, endpoint=ENDPOINT, conversation=CONVERSATION)
BUSY = e.ConversationBusy(conversation=CONVERSATION)
IDLE = e.ConversationIdle(conversation=CONVERSATION)
BEGUN = e.MessageUpdated(info=answer())
DONE = e.MessageUpdated(info=samples.DONE)
ABORTED = e.MessageUpdated(info=samples.ABORTED)
ABORT_ERROR = e.ConversationFailed(
    conversation=CONVERSATION, error=e.MessageError(name="MessageAbortedError", message="Aborted")
)
CHILD_BORN = e.ConversationCreated(conversation=CHILD, parent=CONVERSATION)


def queued(**policy: Any) -> Book:
    return Playbook(job.handle, samples.first_job(policy=evolve(samples.JOB_POLICY, **policy)))


def running(**policy: Any) -> Book:
    """Its prompt is taken, and the server has begun to answer."""
    book = queued(**policy).tell(TURN)
    book.hear(j.SubmitPrompt, j.ResidentsSeen(processes=RESIDENTS))
    book.answer(j.SubmitPrompt, j.PromptTaken())
    return says(book, BUSY, BEGUN)


def cancelling(**policy: Any) -> Book:
    return cancel(running(**policy))


def cancel(book: Book, ask: int = 1) -> Book:
    return book.tell(j.CancelJob(ask=AskId(ask)))


def says(book: Book, *events: e.ServerEvent) -> Book:
    return book.tell(j.EventsSeen(events=events))


def text(words: str, *, part: e.PartId = TEXT, message: e.MessageId = ANSWER) -> e.PartUpdated:
    """A part that has ended; with no words, one that begins."""
    said = e.TextPart(id=part, message=message, text=words, finished=bool(words))
    return e.PartUpdated(conversation=CONVERSATION, part=said)


def delta(words: str, *, part: e.PartId = TEXT, message: e.MessageId = ANSWER) -> e.PartDelta:
    return e.PartDelta(conversation=CONVERSATION, message=message, part=part, text=words)


def tool(state: e.ToolState, **changes: Any) -> e.PartUpdated:
    return e.PartUpdated(conversation=CONVERSATION, part=evolve(samples.BASH, state=state, **changes))


def retrying(attempt: int, *, wait: float = 2.0, now: float = 0.0, child: bool = False) -> e.ServerEvent:
    return e.ConversationRetrying(
        conversation=CHILD if child else CONVERSATION,
        attempt=attempt,
        message="Rate limit reached",
        next_at=EPOCH + now + wait,
    )


def read(*messages: e.Message, state: ConversationState = ConversationState.IDLE) -> j.ConversationRead:
    return j.ConversationRead(messages=messages, state=state)


def message(info: e.MessageInfo, *parts: e.Part) -> e.Message:
    return e.Message(info=info, parts=parts)


def result(book: Book) -> JobSnapshot:
    """What it settled as."""
    phase = book.state.phase
    assert isinstance(phase, Settled), phase
    assert book.finished
    return phase.snapshot
