"""One run of a fake OpenCode server: what lives in its process, and dies with it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import trio
from attrs import define, evolve, field, frozen

from opencode_actors.errors import ServerRefused
from opencode_actors.machines.server_events import (
    ConversationBusy,
    ConversationCreated,
    ConversationFailed,
    ConversationId,
    ConversationIdle,
    InstanceDisposed,
    MessageError,
    MessageId,
    MessageInfo,
    MessageUpdated,
    Part,
    PartUpdated,
    PermissionAsked,
    QuestionAsked,
    RequestAnswered,
    ServerEvent,
    TextPart,
    Todo,
    TodosUpdated,
)
from opencode_actors.ports import (
    Agent,
    Catalog,
    Conversation,
    ConversationState,
    Model,
    PendingPermission,
    PendingQuestion,
    PermissionReply,
    Prompt,
)
from opencode_actors.testing.fake_disk import FakeDisk, StoredConversation, StoredMessage
from opencode_actors.testing.fake_stream import FakeStream, StreamFaults
from opencode_actors.testing.provider_demo import demo_script
from opencode_actors.testing.provider_script import Script

VERSION = "1.18.33"
ABORTED = MessageError(name="MessageAbortedError", message="Aborted")
_EPOCH = 1_760_000_000.0  # some day; only differences matter


def _at_once() -> float:
    return 0.0


def _usual_wall() -> float:
    return _EPOCH + trio.current_time()


def _all_but_nowhere(directory: str) -> bool:
    return directory != "/nowhere"


@frozen(kw_only=True)
class FakeBehaviour:
    """How a fake server is set up. Seconds are trio's."""

    script: Script = demo_script
    start_up: float = 0.0  # until it listens; before, connections are refused
    deaf: float = 0.0  # from then on requests are taken and never answered
    directory: str = "/workspace"
    has_directory: Callable[[str], bool] = _all_but_nowhere  # on its machine
    agents: tuple[str, ...] = ("build", "plan", "general", "explore")
    models: frozenset[str] | None = None  # None: every model is known
    ends_children: float = math.inf  # an abort ends those of a conversation that are not older, in seconds
    wall: Callable[[], float] = _usual_wall  # its time of day, in epoch seconds
    takes: Callable[[], float] = _at_once  # how long the next call takes until it has its effect
    answers: Callable[[], float] = _at_once  # and how long from then on its answer takes


@define(eq=False)
class Work:
    """One conversation at work. `state` is what `status` says while it is."""

    scope: trio.CancelScope = field(factory=trio.CancelScope)
    ended: trio.Event = field(factory=trio.Event)
    since: float = field(factory=trio.current_time)
    state: ConversationState = ConversationState.BUSY
    aborted: bool = False
    waits_for_retry: bool = False


@define(eq=False)
class Question:
    about: PendingQuestion | PendingPermission
    answered: trio.Event = field(factory=trio.Event)
    answers: tuple[tuple[str, ...], ...] | None = None  # None: rejected
    reply: PermissionReply | None = None
    message: str | None = None


@define(eq=False)
class FakeServer:
    """Made by `FakeServers.start`. What a test does to it is in the first group."""

    url: str
    user: str
    password: str = field(repr=False)
    disk: FakeDisk = field(repr=False)
    behaviour: FakeBehaviour = field(repr=False)
    _work: Callable[[FakeServer, ConversationId, Work], Awaitable[None]] = field(repr=False)
    # As its config has them.
    providers: Mapping[str, Any] = field(factory=dict[str, Any], repr=False)
    permission: Mapping[str, Any] = field(factory=dict[str, Any], repr=False)
    alive: bool = True
    listening: bool = False
    frozen: bool = False
    works: dict[ConversationId, Work] = field(factory=dict[ConversationId, Work], repr=False)
    requests: dict[str, Question] = field(factory=dict[str, Question], repr=False)
    attempts: dict[tuple[str, str, int, int], int] = field(
        factory=dict[tuple[str, str, int, int], int], repr=False
    )
    ready_at: float = 0.0
    streams_from: float = 0.0
    answers_after: float = 0.0  # settable: seconds that each call takes
    spawn: Callable[[str], object] | None = None  # settable: how a command leaves something behind
    ignores_aborts: bool = False  # settable: they are taken, and end nothing
    # settable: of two calls that change something one happens, and breaks so many seconds later
    loses_answers: float | None = None
    felt: Counter[str] = field(factory=Counter[str], repr=False)  # how often callers met which trouble
    garbles: StreamFaults = field(factory=StreamFaults, repr=False)
    _streams: set[FakeStream] = field(factory=set[FakeStream], repr=False)
    _changed: trio.Event = field(factory=trio.Event, repr=False)
    _scope: trio.CancelScope = field(factory=trio.CancelScope, repr=False)
    _nursery: trio.Nursery | None = field(default=None, repr=False)

    # ---- for tests

    def freeze(self) -> None:
        """As after SIGSTOP: connections are taken, nothing is answered, the stream is silent."""
        self._set_frozen(frozen=True)

    def thaw(self) -> None:
        self._set_frozen(frozen=False)

    def crash(self) -> None:
        """As after SIGKILL: what was not on the disk is lost, text of unfinished parts first of all."""
        self.alive = self.listening = False
        self._scope.cancel()
        for stream in self._streams:
            stream.end()
        self._tell()

    def drop_streams(self, *, for_seconds: float = 0.0, losing: bool = False) -> None:
        """Ends the event streams, and nothing else: what happens until the next one is not told. For so
        long none is opened again. `losing` also what was told and not read yet."""
        self.streams_from = trio.current_time() + for_seconds
        for stream in self._streams:
            stream.end(losing=losing)

    def dispose(self) -> None:
        """The server throws its instance away, and what runs in it."""
        for conversation in tuple(self.works):
            self.abort(conversation)
        self.publish(InstanceDisposed())

    def say_idle(self, conversation: ConversationId) -> None:
        """An idle that means nothing, as the second one after an abort."""
        self.publish(ConversationIdle(conversation=conversation))

    def statistics(self) -> Mapping[str, int]:
        return {"working": len(self.works), "streams": len(self._streams), "waiting": len(self.requests)}

    # ---- life

    async def run(self) -> None:
        with self._scope:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                await trio.sleep(self.behaviour.start_up)
                self.listening = True
                self.ready_at = trio.current_time() + self.behaviour.deaf
                self._tell()
                await trio.sleep_forever()

    async def wait_thawed(self) -> None:
        """Returns when it is not frozen, or dead."""
        while self.frozen and self.alive:
            await self._changed.wait()
        await trio.lowlevel.checkpoint()

    async def wait_listening(self) -> None:
        """Returns when it listens, or is dead."""
        while self.alive and not self.listening:
            await self._changed.wait()

    async def wait_dead(self) -> None:
        while self.alive:
            await self._changed.wait()

    def now(self) -> float:
        """The server's epoch seconds."""
        return self.behaviour.wall()

    def open_stream(self) -> FakeStream:
        stream = FakeStream(self.url, self.garbles)
        stream.freeze(frozen=self.frozen)
        self._streams.add(stream)
        return stream

    def close_stream(self, stream: FakeStream) -> None:
        self._streams.discard(stream)

    def publish(self, event: ServerEvent) -> None:
        for stream in self._streams:
            stream.publish(event)

    # ---- what is durable is stored and told

    def stored(self, conversation: ConversationId) -> StoredConversation:
        found = self.disk.conversations.get(conversation)
        if found is None:
            raise ServerRefused(f"Session not found: {conversation}", status=404)
        return found

    def create(
        self, title: str, parent: ConversationId | None = None, *, directory: str = ""
    ) -> Conversation:
        about = self.disk.new_conversation(title, directory or self.behaviour.directory, parent).about
        self.publish(ConversationCreated(conversation=about.id, parent=parent))
        return about

    def fork(self, conversation: ConversationId, before: MessageId | None) -> Conversation:
        about = self.disk.fork(self.stored(conversation), before, at=self.now()).about
        self.publish(ConversationCreated(conversation=about.id, parent=None))
        return about

    def put_message(self, info: MessageInfo) -> StoredMessage:
        """One that is new is made now."""
        messages = self.stored(info.conversation).messages
        known = messages.get(info.id)
        made = int(self.now() * 1000) / 1000 if known is None else known.info.created_at
        stored = messages.setdefault(info.id, StoredMessage(info))
        stored.info = evolve(info, created_at=made)
        self.publish(MessageUpdated(info=stored.info))
        return stored

    def put_part(self, message: StoredMessage, part: Part) -> None:
        message.parts[part.id] = part
        self.publish(PartUpdated(conversation=message.info.conversation, part=part))

    def put_user_text(
        self,
        conversation: ConversationId,
        text: str,
        *,
        prompt: Prompt | None = None,
        model: str = "",
        synthetic: bool = False,
    ) -> StoredMessage:
        message_id = self.disk.new_message_id(self.now()) if prompt is None else prompt.message_id
        part_id = self.disk.new_part_id(self.now()) if prompt is None else prompt.part_id
        model = (prompt and prompt.model) or model or "scripted/demo"
        agent = (prompt and prompt.agent) or "build"
        info = MessageInfo(id=message_id, conversation=conversation, role="user", model=model, agent=agent)
        stored = self.put_message(info)
        self.put_part(
            stored, TextPart(id=part_id, message=message_id, text=text, finished=True, synthetic=synthetic)
        )
        return stored

    def put_todos(self, conversation: ConversationId, todos: tuple[Todo, ...]) -> None:
        self.stored(conversation).todos = todos
        self.publish(TodosUpdated(conversation=conversation, todos=todos))

    # ---- prompts

    def submit(self, conversation: ConversationId, prompt: Prompt) -> None:
        self.stored(conversation)
        if prompt.agent is not None and prompt.agent not in self.behaviour.agents:
            # never busy, never idle, no message
            error = MessageError(name="UnknownError", message=f'Agent not found: "{prompt.agent}".')
            self.fail(conversation, error, times=2)
            return
        self.disk.note_id(prompt.message_id)
        self.put_user_text(conversation, prompt.text, prompt=prompt)
        models = self.behaviour.models
        if prompt.model is not None and models is not None and prompt.model not in models:
            error = MessageError(name="UnknownError", message=f"Model not found: {prompt.model}.")
            self.publish(ConversationBusy(conversation=conversation))
            self.fail(conversation, error)
            self.say_idle(conversation)
            self.fail(conversation, error)  # the second one comes after the idle
            return
        if conversation not in self.works:
            self.start_work(conversation)

    def start_work(self, conversation: ConversationId) -> Work:
        work = self.works[conversation] = Work()
        if self._nursery is not None:  # it is there as long as the server listens
            self._nursery.start_soon(self._work, self, conversation, work)
        return work

    def fail(self, conversation: ConversationId, error: MessageError, *, times: int = 1) -> None:
        for _ in range(times):
            self.publish(ConversationFailed(conversation=conversation, error=error))

    def abort(self, conversation: ConversationId) -> None:
        """True for anything, known or not, at work or not."""
        if self.ignores_aborts:
            return
        work = self.works.pop(conversation, None)
        for stored in self.disk.conversations.values():
            child = self.works.get(stored.about.id)
            if stored.about.parent != conversation or child is None:
                continue
            if trio.current_time() - child.since <= self.behaviour.ends_children:
                self.abort(stored.about.id)
        if work is not None:
            work.aborted = True
            work.scope.cancel()
            if work.waits_for_retry:
                return  # the work says idle once, when it has closed its message
            self.fail(conversation, ABORTED)
        self.say_idle(conversation)

    def status(self, directory: str) -> Mapping[ConversationId, ConversationState]:
        """Of one directory only."""
        asked = directory or self.behaviour.directory
        return {
            conversation: work.state
            for conversation, work in self.works.items()
            if self.stored(conversation).about.directory == asked
        }

    def options_of(self, provider: str) -> Mapping[str, Any]:
        """What the config says of how to talk to it."""
        options: Mapping[str, Any] = self.providers.get(provider, {}).get("options", {})
        return options

    def catalog(self) -> Catalog:
        models = self.behaviour.models if self.behaviour.models is not None else ("scripted/demo",)
        return Catalog(
            agents=self.agents(), models=tuple(Model(name=name, priced=True) for name in sorted(models))
        )

    def agents(self) -> tuple[Agent, ...]:
        shown = tuple(
            Agent(name=name, mode="primary" if name in ("build", "plan") else "subagent")
            for name in self.behaviour.agents
        )
        return (*shown, Agent(name="title", mode="primary", hidden=True))

    # ---- questions and permissions

    async def ask(self, about: PendingQuestion | PendingPermission) -> Question:
        """Returns when it is answered. An abort leaves it listed, as a ghost."""
        question = self.requests[about.request] = Question(about)
        match about:
            case PendingQuestion():
                self.publish(
                    QuestionAsked(
                        conversation=about.conversation,
                        request=about.request,
                        text=about.text,
                        options=about.options,
                        questions=about.questions,
                    )
                )
            case PendingPermission():
                self.publish(
                    PermissionAsked(
                        conversation=about.conversation,
                        request=about.request,
                        permission=about.permission,
                        text=about.text,
                    )
                )
        await question.answered.wait()
        await self.wait_thawed()
        return question

    def answer(self, request: str, kind: type[PendingQuestion | PendingPermission]) -> Question:
        """Takes the request off the list; the caller fills in what the answer is."""
        question = self.requests.get(request)
        if question is None or not isinstance(question.about, kind):
            what = "Question" if kind is PendingQuestion else "Permission"
            raise ServerRefused(f"{what} request not found: {request}", status=404)
        del self.requests[request]
        question.answered.set()
        self.publish(RequestAnswered(conversation=question.about.conversation, request=request))
        return question

    def loses_next_answer(self) -> bool:
        if self.loses_answers is None:
            return False
        self.felt["asked"] += 1
        lost = self.felt["asked"] % 2 == 1
        self.felt["lost"] += lost
        return lost

    def _set_frozen(self, *, frozen: bool) -> None:
        self.frozen = frozen
        for stream in self._streams:
            stream.freeze(frozen=frozen)
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
