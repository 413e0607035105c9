"""What a fake OpenCode server keeps in its data directory: it outlives the server, and so a crash."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from attrs import define, evolve, field

from opencode_actors.machines.prompt_ids import PER_MILLISECOND, id_time
from opencode_actors.machines.server_events import (
    ConversationId,
    Message,
    MessageId,
    MessageInfo,
    Part,
    PartId,
    TextPart,
    Todo,
    ToolPart,
)
from opencode_actors.ports import Conversation


@define(eq=False)
class StoredMessage:
    """`outcomes` are the tools' results, which the model sees and the port does not."""

    info: MessageInfo
    parts: dict[PartId, Part] = field(factory=dict[PartId, Part])
    outcomes: list[str] = field(factory=list[str])

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts.values() if isinstance(part, TextPart))

    @property
    def says_something(self) -> bool:
        """Only then does the model see it."""
        return any(isinstance(part, ToolPart) for part in self.parts.values()) or bool(self.text)

    def snapshot(self) -> Message:
        return Message(info=self.info, parts=tuple(self.parts.values()))


@define(eq=False)
class StoredConversation:
    about: Conversation
    messages: dict[MessageId, StoredMessage] = field(factory=dict[MessageId, StoredMessage])
    todos: tuple[Todo, ...] = ()
    rules: tuple[dict[str, str], ...] = ()
    forks: int = 0

    def in_order(self) -> list[StoredMessage]:
        """By the time of day at which they were made. The real server goes by the ids of those of one millisecond,
        but has none such: everything takes it longer."""
        return sorted(self.messages.values(), key=lambda m: m.info.created_at)

    def last_user(self) -> StoredMessage | None:
        return next((m for m in reversed(self.in_order()) if m.info.role == "user"), None)

    def answers(self, prompt: StoredMessage) -> tuple[StoredMessage, ...]:
        """The model's messages behind `prompt`, whatever they are parents of."""
        stored = self.in_order()
        return tuple(m for m in stored[stored.index(prompt) + 1 :] if m.info.role == "assistant")

    def is_answered(self, prompt: StoredMessage) -> bool:
        """When the model's last message says so: one that stands before others, by its time, says nothing."""
        last = next((m for m in reversed(self.in_order()) if m.info.role == "assistant"), None)
        return (
            last is not None
            and last.info.parent == prompt.info.id
            and last.info.finish not in (None, "tool-calls")
        )


@define(eq=False)
class FakeDisk:
    conversations: dict[ConversationId, StoredConversation] = field(
        factory=dict[ConversationId, StoredConversation]
    )
    _serials: Iterator[int] = field(factory=lambda: itertools.count(1))
    _last: int = 0  # the last id's digits, as long as its millisecond lasts

    def new_conversation(
        self, title: str, directory: str, parent: ConversationId | None = None
    ) -> StoredConversation:
        key = ConversationId(f"ses_{next(self._serials):012x}FakeConversat")
        stored = StoredConversation(Conversation(id=key, title=title, directory=directory, parent=parent))
        self.conversations[key] = stored
        return stored

    def new_message_id(self, at: float) -> MessageId:
        return MessageId(f"msg_{self._next(at):012x}FakeOpenCodeMs")

    def new_part_id(self, at: float) -> PartId:
        return PartId(f"prt_{self._next(at):012x}FakeOpenCodePr")

    def new_request_id(self, prefix: str, at: float) -> str:
        return f"{prefix}_{self._next(at):012x}FakeOpenCodeRq"

    def note_id(self, message: MessageId) -> None:
        """What the server makes in the same millisecond sorts behind `message`: the real one takes longer."""
        try:
            self._last = max(self._last, int(message.removeprefix("msg_")[:12], 16))
        except ValueError:  # an id of another form; then the order of arrival has to do
            return

    def _next(self, at: float) -> int:
        """As the real one's: they carry the time of day, and follow it back."""
        first = id_time(at)
        same = first // PER_MILLISECOND == self._last // PER_MILLISECOND
        self._last = self._last + 1 if same else first
        return self._last

    def fork(self, source: StoredConversation, before: MessageId | None, *, at: float) -> StoredConversation:
        """New ids, and the times of the first ones."""
        source.forks += 1
        about = source.about
        copy = self.new_conversation(f"{about.title} (fork #{source.forks})", about.directory)
        messages = source.in_order()
        ids = [stored.info.id for stored in messages]
        end = ids.index(before) if before is not None and before in ids else len(ids)
        self._copy(messages[:end], copy, named_at=at)
        return copy

    def retell(self, source: StoredConversation, *, earlier: float) -> StoredConversation:
        """As events of another server's would: nobody is told."""
        about = source.about
        copy = self.new_conversation(about.title, about.directory)
        copy.rules = source.rules
        self._copy(_in_turns(source.in_order()), copy, earlier=earlier)
        return copy

    def _copy(
        self,
        messages: list[StoredMessage],
        copy: StoredConversation,
        *,
        named_at: float | None = None,
        earlier: float = 0.0,
    ) -> None:
        renamed: dict[MessageId, MessageId] = {}
        newest = 0.0
        for stored in messages:
            made = stored.info.created_at
            if earlier:
                made = newest = max(newest, made - earlier)
            time = made if named_at is None else named_at
            key = renamed[stored.info.id] = self.new_message_id(time)
            parent = None if stored.info.parent is None else renamed.get(stored.info.parent)
            info = evolve(stored.info, id=key, conversation=copy.about.id, parent=parent, created_at=made)
            parts = [evolve(p, id=self.new_part_id(time), message=key) for p in stored.parts.values()]
            copy.messages[key] = StoredMessage(info, {p.id: p for p in parts}, list(stored.outcomes))


def _in_turns(messages: list[StoredMessage]) -> list[StoredMessage]:
    """Each answer behind what it answers."""
    place = {stored.info.id: number for number, stored in enumerate(messages)}

    def turn(stored: StoredMessage) -> tuple[int, bool]:
        own = place[stored.info.id]
        asked = own if stored.info.parent is None else place.get(stored.info.parent, own)
        return max(own, asked), asked > own

    return sorted(messages, key=turn)
