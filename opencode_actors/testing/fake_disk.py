"""What a fake OpenCode server keeps in its data directory: it outlives the server, and so a crash."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from attrs import define, evolve, field

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

    def last_user(self) -> StoredMessage | None:
        return next((m for m in reversed(self.messages.values()) if m.info.role == "user"), None)

    def answers(self, prompt: StoredMessage) -> tuple[StoredMessage, ...]:
        """The model's messages behind `prompt`, whatever they are parents of."""
        stored = list(self.messages.values())
        return tuple(m for m in stored[stored.index(prompt) + 1 :] if m.info.role == "assistant")

    def is_answered(self, prompt: StoredMessage) -> bool:
        return any(
            m.info.parent == prompt.info.id and m.info.finish not in (None, "tool-calls")
            for m in self.answers(prompt)
        )


@define(eq=False)
class FakeDisk:
    conversations: dict[ConversationId, StoredConversation] = field(
        factory=dict[ConversationId, StoredConversation]
    )
    _serials: Iterator[int] = field(factory=lambda: itertools.count(1))
    _last: int = 0

    def new_conversation(
        self, title: str, directory: str, parent: ConversationId | None = None
    ) -> StoredConversation:
        key = ConversationId(f"ses_{next(self._serials):012x}FakeConversat")
        stored = StoredConversation(Conversation(id=key, title=title, directory=directory, parent=parent))
        self.conversations[key] = stored
        return stored

    def new_message_id(self) -> MessageId:
        return MessageId(f"msg_{self._next():012x}FakeOpenCodeMs")

    def new_part_id(self) -> PartId:
        return PartId(f"prt_{self._next():012x}FakeOpenCodePr")

    def new_request_id(self, prefix: str) -> str:
        return f"{prefix}_{self._next():012x}FakeOpenCodeRq"

    def note_id(self, message: MessageId) -> None:
        """Ids sort by time: what the server makes from now on sorts behind `message`."""
        digits = message.removeprefix("msg_")[:12]
        try:
            self._last = max(self._last, int(digits, 16))
        except ValueError:  # an id of another form; then the order of arrival has to do
            return

    def _next(self) -> int:
        self._last += 1
        return self._last

    def fork(self, source: StoredConversation, before: MessageId | None) -> StoredConversation:
        source.forks += 1
        about = source.about
        copy = self.new_conversation(f"{about.title} (fork #{source.forks})", about.directory)
        renamed: dict[MessageId, MessageId] = {}
        for stored in source.messages.values():
            if stored.info.id == before:
                break
            key = renamed[stored.info.id] = self.new_message_id()
            parent = None if stored.info.parent is None else renamed.get(stored.info.parent)
            info = evolve(stored.info, id=key, conversation=copy.about.id, parent=parent)
            parts = [evolve(part, id=self.new_part_id(), message=key) for part in stored.parts.values()]
            copy.messages[key] = StoredMessage(info, {p.id: p for p in parts}, list(stored.outcomes))
        return copy
