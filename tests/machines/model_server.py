"""A model of one OpenCode server, as measured: what it stores, what it says, what it loses.

Text that streams is stored when its part ends. Events are heard by whoever listens at that moment. A prompt
to a busy conversation would be merged into the turn that runs, which is a fault of whoever sent it.
"""

from __future__ import annotations

from attrs import define, evolve, field

from opencode_actors.machines import server_events as e
from opencode_actors.machines.transcript import tool_line
from opencode_actors.machines.vocabulary import PendingRequest
from opencode_actors.machines.work import question
from opencode_actors.ports import ConversationState, Prompt
from opencode_actors.testing.playbook import EPOCH

CONVERSATION = e.ConversationId("ses_1")
CHILD = e.ConversationId("ses_2")
COST = 0.25  # dollars, of each message
ABORTED = e.MessageError(name="MessageAbortedError", message="Aborted")


class Overlap(AssertionError):
    """Two prompts at once: the server would merge them."""


@define
class Storage:
    """What outlives the container: the conversation's messages, in the order of time."""

    messages: dict[e.MessageId, e.MessageInfo] = field(factory=dict[e.MessageId, e.MessageInfo])
    parts: dict[e.PartId, e.Part] = field(factory=dict[e.PartId, e.Part])
    # What would be shown of each part by somebody who missed nothing, until it is stored.
    spoken: dict[e.PartId, str] = field(factory=dict[e.PartId, str])
    last: int = 0
    asked: int = 0
    answered: list[str] = field(factory=list[str])
    # The prompts of which an attempt said what the one that counts did not say again.
    diverged: set[e.MessageId] = field(factory=set[e.MessageId])
    retried: set[e.MessageId] = field(factory=set[e.MessageId])

    def next_id(self, now: float) -> str:
        self.last = max(self.last + 1, int((EPOCH + now) * 1000) * 0x1000 + 2)
        return f"{self.last % (1 << 48):012x}model"

    def read(self, since: e.MessageId) -> tuple[e.Message, ...]:
        return tuple(
            e.Message(info=info, parts=tuple(p for p in self.parts.values() if p.message == id_))
            for id_, info in sorted(self.messages.items())
            if id_ >= since
        )

    def answers(self, prompt: e.MessageId) -> list[e.MessageInfo]:
        """All that belongs to this prompt, up to the next one of ours."""
        infos = [info for id_, info in sorted(self.messages.items()) if id_ > prompt]
        ours: list[e.MessageInfo] = []
        for info in infos:
            if info.role == "user" and info.id.endswith("0"):  # the next prompt that we sent
                break
            if info.role == "assistant" and not info.summary:
                ours.append(info)
        return ours

    def output(self, prompt: e.MessageId, *, stored: bool) -> str:
        """What the job's file should hold, said simply."""
        written = ""
        for info in self.answers(prompt):
            for part in self.parts.values():
                if part.message != info.id:
                    continue
                text = ""
                if isinstance(part, e.TextPart):
                    text = part.text or ("" if stored else self.spoken.get(part.id, ""))
                elif isinstance(part, e.ToolPart) and part.state in (
                    e.ToolState.COMPLETED,
                    e.ToolState.ERROR,
                ):
                    text = tool_line(part) + "\n"
                if text and written and not written.endswith("\n"):
                    written += "\n"
                written += text
        return written


@define
class Turn:
    prompt: e.MessageId
    parent: e.MessageId
    message: e.MessageInfo
    text: e.PartId | None = None
    tool: e.PartId | None = None
    chunks: list[str] = field(factory=list[str])  # of the attempt before, to be said again
    said: int = 0
    attempt: int = 0
    retrying: bool = False
    deaf_to_abort: bool = False
    aborting: bool = False
    ended: bool = False
    question: str | None = None
    asks: e.ConversationId = CONVERSATION  # who the question is from
    child: bool = False


@define
class Server:
    """One run of the server, in one container."""

    storage: Storage
    pending: Prompt | None = None
    rejects: bool = False  # an unknown agent: the prompt is taken, and only an error is said
    turn: Turn | None = None
    said: list[e.ServerEvent] = field(factory=list[e.ServerEvent])
    done: set[e.MessageId] = field(factory=set[e.MessageId])
    echo: bool = False  # after an error "idle" is said twice

    def emit(self, *events: e.ServerEvent) -> None:
        self.said.extend(events)

    def state(self) -> ConversationState:
        if self.turn is None or self.turn.aborting:
            return ConversationState.IDLE
        return ConversationState.RETRY if self.turn.retrying else ConversationState.BUSY

    # ---- what is asked of it

    def submit(self, prompt: Prompt, now: float) -> None:
        id_ = prompt.message_id
        if id_ in self.done or (self.pending is not None and self.pending.message_id == id_):
            return
        if self.turn is not None and self.turn.prompt == id_:
            return
        if self.turn is not None or self.pending is not None:
            raise Overlap(f"a prompt while another is {self.what()}")
        del now
        self.pending = prompt

    def what(self) -> str:
        if self.turn is None:
            return "pending"
        return "aborting" if self.turn.aborting else "ended" if self.turn.ended else "running"

    def abort(self) -> None:
        turn = self.turn
        if turn is None or turn.deaf_to_abort or turn.aborting or turn.ended:
            return
        turn.aborting = True
        error = e.ConversationFailed(conversation=CONVERSATION, error=ABORTED)
        self.emit(error, e.ConversationIdle(conversation=CONVERSATION))

    # ---- what it does by itself

    def never_begin(self) -> None:
        assert self.pending is not None
        self.done.add(self.pending.message_id)
        self.pending = None
        error = e.MessageError(name="UnknownError", message="agent not found: nobody")
        self.emit(e.ConversationFailed(conversation=None, error=error))

    def begin(self, now: float) -> None:
        assert self.pending is not None
        prompt, self.pending = self.pending, None
        user = e.MessageInfo(id=prompt.message_id, conversation=CONVERSATION, role="user")
        self._store(user)
        message = self._new_message(prompt.message_id, now)
        self.turn = Turn(prompt=prompt.message_id, parent=prompt.message_id, message=message)
        self.emit(e.ConversationBusy(conversation=CONVERSATION))
        self._store(message)

    def say(self, chunk: str, now: float) -> None:
        turn = self._live()
        if turn.said < len(turn.chunks):
            chunk = turn.chunks[turn.said]  # the model repeats itself
        else:
            turn.chunks.append(chunk)
        turn.said += 1
        if turn.text is None:
            turn.text = e.PartId("prt_" + self.storage.next_id(now))
            part = e.TextPart(id=turn.text, message=turn.message.id, text="", finished=False)
            self._store_part(part)
            self.storage.spoken[turn.text] = ""
        self.storage.spoken[turn.text] += chunk
        self.emit(e.PartDelta(conversation=CONVERSATION, message=turn.message.id, part=turn.text, text=chunk))

    def end_text(self) -> None:
        turn = self._live()
        assert turn.text is not None
        part = self.storage.parts[turn.text]
        assert isinstance(part, e.TextPart)
        if turn.said < len(turn.chunks):
            self.storage.diverged.add(turn.prompt)
        self._store_part(evolve(part, text=self.storage.spoken[turn.text], finished=True))
        turn.text, turn.chunks, turn.said = None, [], 0

    def start_tool(self, now: float) -> None:
        turn = self._live()
        if turn.chunks:
            self.storage.diverged.add(turn.prompt)
        turn.tool = e.PartId("prt_" + self.storage.next_id(now))
        tool = e.ToolPart(
            id=turn.tool, message=turn.message.id, tool="bash", state=e.ToolState.PENDING, title="make"
        )
        self._store_part(tool)
        self._store_part(evolve(tool, state=e.ToolState.RUNNING))

    def end_tool(self, *, failed: bool) -> None:
        turn = self._live()
        assert turn.tool is not None
        tool = self.storage.parts[turn.tool]
        assert isinstance(tool, e.ToolPart)
        state = e.ToolState.ERROR if failed else e.ToolState.COMPLETED
        self._store_part(evolve(tool, state=state, exit_code=None if failed else 0))
        turn.tool = None

    def next_step(self, now: float) -> None:
        turn = self._live()
        done = evolve(turn.message, finish="tool-calls", cost=COST)
        self._store(done)
        self._store(evolve(done, completed_at=EPOCH + now))
        self._go_on(turn.parent, now)

    def compact(self, now: float) -> None:
        """The message is left as it is, and the server goes on under a user message of its own."""
        turn = self._live()
        self._store(evolve(turn.message, completed_at=EPOCH + now))
        order = self._new_user(now)
        self._store(order)
        summary = evolve(self._new_message(order.id, now), summary=True, completed_at=EPOCH + now)
        self._store(summary)
        text = e.TextPart(
            id=e.PartId("prt_" + self.storage.next_id(now)),
            message=summary.id,
            text="a summary",
            finished=True,
        )
        self._store_part(text)
        again = self._new_user(now)
        self._store(again)
        turn.parent = again.id
        self._go_on(again.id, now)

    def retry(self, now: float) -> None:
        turn = self._live()
        turn.attempt += 1
        self.storage.retried.add(turn.prompt)
        turn.retrying, turn.text, turn.said = True, None, 0
        self.emit(
            e.ConversationRetrying(
                conversation=CONVERSATION,
                attempt=turn.attempt,
                message="Rate limit reached",
                next_at=EPOCH + now + 2,
            )
        )

    def try_again(self) -> None:
        assert self.turn is not None
        self.turn.retrying = False
        self.emit(e.ConversationBusy(conversation=CONVERSATION))

    def finish(self, now: float) -> None:
        turn = self._live()
        done = evolve(turn.message, finish="stop", cost=COST)
        self._store(done)
        self._store(evolve(done, completed_at=EPOCH + now))
        turn.ended = True

    def fail(self, now: float) -> None:
        turn = self._live()
        error = e.MessageError(name="APIError", message="no such key", status_code=401)
        self.emit(e.ConversationFailed(conversation=CONVERSATION, error=error))
        self._store(evolve(turn.message, error=error, completed_at=EPOCH + now))
        self.echo = True
        self.rest()

    def finish_abort(self, now: float) -> None:
        """The last message gets its final state a moment after the first "idle"."""
        assert self.turn is not None
        turn = self.turn
        turn.aborting, turn.retrying = False, False
        if turn.text is not None:
            self.end_text()
        if turn.tool is not None:
            self.end_tool(failed=True)
        self._store(evolve(turn.message, error=ABORTED, completed_at=EPOCH + now))
        turn.ended = True
        self.rest()

    def rest(self) -> None:
        assert self.turn is not None
        self.done.add(self.turn.prompt)
        self.turn = None
        self.emit(e.ConversationIdle(conversation=CONVERSATION))

    def say_idle_again(self) -> None:
        self.echo = False
        self.emit(e.ConversationIdle(conversation=CONVERSATION))

    def ask(self, *, by: e.ConversationId = CONVERSATION) -> None:
        turn = self._live()
        self.storage.asked += 1
        turn.question, turn.asks = f"que_{self.storage.asked}", by
        self.emit(
            e.QuestionAsked(conversation=by, request=turn.question, text="Which colour?", options=("Blue",))
        )

    def waits(self) -> tuple[PendingRequest, ...]:
        """The list of what waits for an answer, without ghosts."""
        turn = self.turn
        if turn is None or turn.question is None or turn.aborting:
            return ()
        asked = e.QuestionAsked(
            conversation=turn.asks, request=turn.question, text="Which colour?", options=("Blue",)
        )
        return (question(asked, sub_agent=turn.asks == CHILD),)

    def children(self) -> frozenset[e.ConversationId]:
        return frozenset((CHILD,)) if self.turn is not None and self.turn.child else frozenset()

    def answer(self, request: str | None = None) -> bool:
        """Whether anybody waited for it."""
        turn = self.turn
        if turn is None or turn.question is None or request not in (None, turn.question):
            return False
        self.storage.answered.append(turn.question)
        self.emit(e.RequestAnswered(conversation=turn.asks, request=turn.question))
        turn.question = None
        return True

    def reject(self, request: str, now: float) -> bool:
        """A question that is said no to ends its tool, and the prompt with it."""
        turn = self.turn
        if not self.answer(request) or turn is None:
            return False
        turn.child = False
        if turn.tool is not None:
            self.end_tool(failed=True)
        self._store(evolve(turn.message, finish="tool-calls", completed_at=EPOCH + now))
        turn.ended = True
        return True

    def start_child(self) -> None:
        self._live().child = True
        self.emit(
            e.ConversationCreated(conversation=CHILD, parent=CONVERSATION),
            e.ConversationBusy(conversation=CHILD),
        )

    def end_child(self, now: float) -> None:
        assert self.turn is not None
        self.turn.child = False
        said = e.MessageInfo(
            id=e.MessageId("msg_" + self.storage.next_id(now)),
            conversation=CHILD,
            role="assistant",
            completed_at=EPOCH + now,
            cost=COST,
        )
        self.emit(e.MessageUpdated(info=said), e.ConversationIdle(conversation=CHILD))

    # ---- helpers

    def _live(self) -> Turn:
        assert self.turn is not None
        return self.turn

    def _go_on(self, parent: e.MessageId, now: float) -> None:
        turn = self._live()
        turn.message = self._new_message(parent, now)
        turn.text, turn.tool, turn.chunks, turn.said, turn.attempt = None, None, [], 0, 0
        self._store(turn.message)

    def _new_message(self, parent: e.MessageId, now: float) -> e.MessageInfo:
        id_ = e.MessageId("msg_" + self.storage.next_id(now))
        return e.MessageInfo(id=id_, conversation=CONVERSATION, role="assistant", parent=parent)

    def _new_user(self, now: float) -> e.MessageInfo:
        id_ = e.MessageId("msg_" + self.storage.next_id(now))
        return e.MessageInfo(id=id_, conversation=CONVERSATION, role="user")

    def _store(self, info: e.MessageInfo) -> None:
        self.storage.messages[info.id] = info
        turn = self.turn
        if turn is not None and turn.message.id == info.id:
            turn.message = info
            if turn.chunks and turn.text is None and (info.completed_at or info.error):
                self.storage.diverged.add(turn.prompt)
        self.emit(e.MessageUpdated(info=info))

    def _store_part(self, part: e.Part) -> None:
        self.storage.parts[part.id] = part
        self.emit(e.PartUpdated(conversation=CONVERSATION, part=part))
