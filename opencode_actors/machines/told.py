"""An answer that an earlier process began to tell: what stands in the job's output is not told again."""

from __future__ import annotations

from collections.abc import Iterable

from opencode_actors.machines.notices import OutputKind
from opencode_actors.machines.server_events import ConversationId, MessageId, PartId
from opencode_actors.machines.transcript import NO_PART, Piece, Transcript


def taken_up(conversation: ConversationId, prompt: MessageId, told: Iterable[Piece]) -> Transcript:
    """As if it had been heard here, but for what the server has to say once more: which parts are of which
    message, and how each of them ended."""
    shown: dict[PartId, str] = {}
    tools: set[PartId] = set()
    at_line_start, latest = True, NO_PART
    for piece in told:
        if piece.kind is OutputKind.TEXT:
            shown[piece.part] = _shown(piece, shown, latest, at_line_start=at_line_start)
            latest = piece.part
        elif piece.kind is OutputKind.TOOL:
            tools.add(piece.part)
        at_line_start = piece.text.endswith("\n")
    return Transcript(
        conversation=conversation,
        prompt=prompt,
        at_line_start=at_line_start,
        text_seen=bool(shown),
        ended_parts=frozenset(tools),
        told=shown,
    ).after_gap()


def _shown(piece: Piece, shown: dict[PartId, str], latest: PartId, *, at_line_start: bool) -> str:
    if piece.at == 0:
        # The line break in front of it is ours.
        return piece.text if at_line_start else piece.text[1:]
    # A part that begins in the middle took over from the one that was told before it.
    before = shown.get(piece.part) or shown.get(latest, "")
    return before[: piece.at] + piece.text
