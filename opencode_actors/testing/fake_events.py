"""What a fake server makes of another server's events, which are replayed to it: a conversation, and no word of it."""

from __future__ import annotations

from collections.abc import Sequence

from opencode_actors.adapters import opencode_decode as decode
from opencode_actors.adapters.opencode_wire import WireInfo, WirePart, WireSession, structure
from opencode_actors.errors import ServerRefused
from opencode_actors.machines.server_events import ConversationId
from opencode_actors.testing.fake_disk import StoredConversation, StoredMessage
from opencode_actors.testing.fake_server import FakeServer
from opencode_actors.testing.wire_json import Json


def take_events(server: FakeServer, events: Sequence[Json]) -> None:
    """They come in order and without a gap, and the first makes the conversation."""
    for event in events:
        data, kind = event["data"], event["type"]
        stored = server.disk.conversations.get(ConversationId(event["aggregateID"]))
        match kind, stored:
            case "session.created.1", None:
                about = decode.conversation(structure(WireSession, data["info"], what=kind))
                server.disk.conversations[about.id] = StoredConversation(about)
            case "message.updated.1", StoredConversation(messages=messages):
                info = decode.info(structure(WireInfo, data["info"], what=kind))
                messages[info.id] = StoredMessage(info)
            case "message.part.updated.1", StoredConversation(messages=messages):
                part = decode.part(structure(WirePart, data["part"], what=kind))
                if part is not None:
                    messages[part.message].parts[part.id] = part
            case _:
                raise ServerRefused(f"{kind} cannot be replayed", status=500)
