"""How much of a job's output is kept: all of it up to a bound, and a line that says so beyond."""

from __future__ import annotations

from attrs import evolve, frozen

from opencode_actors.machines.notices import OutputKind
from opencode_actors.machines.transcript import Piece

# What the last line begins with; its text is never the model's.
_ENDS_HERE = "\n[output ends here: "


@frozen(kw_only=True)
class OutputMeter:
    """`size` is in bytes; a `limit` of 0 means none. `span` is where what is all of one kind and part began
    that `latest` is the last piece of, and `answer_at` where the words begin that no tool was used after."""

    limit: int
    size: int = 0
    truncated: bool = False
    span: int = 0
    latest: Piece | None = None
    answer_at: int = 0


@frozen(kw_only=True)
class Placed:
    """A piece with its place in the output file, and where its span begins."""

    offset: int
    span: int
    piece: Piece


def going_on(limit: int, size: int, told: tuple[Piece, ...]) -> OutputMeter:
    """Behind the `size` bytes of output that an earlier process wrote."""
    last = told[-1] if told else None
    truncated = last is not None and last.kind is OutputKind.REMARK and last.text.startswith(_ENDS_HERE)
    tools = [number for number, piece in enumerate(told, start=1) if piece.kind is OutputKind.TOOL]
    answer_at = sum(_size(piece) for piece in told[: tools[-1]]) if tools else 0
    return OutputMeter(limit=limit, size=size, truncated=truncated, answer_at=answer_at)


def admit(meter: OutputMeter, pieces: tuple[Piece, ...]) -> tuple[OutputMeter, tuple[Placed, ...]]:
    """What of `pieces` is written, and where. The bound is for the model's words: the last line is extra."""
    placed: list[Placed] = []
    for piece in pieces:
        if meter.truncated:
            break
        text, full = _fit(meter, piece.text)
        meter = _place(meter, evolve(piece, text=text), placed)
        if full:
            last = f"{_ENDS_HERE}maxOutputSize is {meter.limit} bytes]\n"
            meter = _place(meter, Piece(kind=OutputKind.REMARK, text=last), placed)
            meter = evolve(meter, truncated=True)
    return meter, tuple(placed)


def merged(pieces: tuple[Piece, ...]) -> tuple[Piece, ...]:
    """Neighbours of one kind and part as one piece: what one read of the socket brought is one notice."""
    merged: list[Piece] = []
    for piece in pieces:
        if merged and _goes_on(merged[-1], piece):
            merged[-1] = evolve(merged[-1], text=merged[-1].text + piece.text)
        else:
            merged.append(piece)
    return tuple(merged)


def _goes_on(before: Piece, piece: Piece) -> bool:
    return bool(piece.at) and before.kind is piece.kind and before.part == piece.part


def _fit(meter: OutputMeter, text: str) -> tuple[str, bool]:
    """As much of `text` as there is room for, cut between two characters, and whether some was left."""
    encoded = text.encode(errors="replace")
    room = meter.limit - meter.size
    if not meter.limit or len(encoded) <= room:
        return text, False
    return encoded[: max(room, 0)].decode(errors="ignore"), True


def _place(meter: OutputMeter, piece: Piece, placed: list[Placed]) -> OutputMeter:
    if not piece.text:
        return meter
    goes_on = meter.latest is not None and _goes_on(meter.latest, piece)
    span = meter.span if goes_on else meter.size
    placed.append(Placed(offset=meter.size, span=span, piece=piece))
    size = meter.size + _size(piece)
    answer_at = size if piece.kind is OutputKind.TOOL else meter.answer_at
    return evolve(meter, size=size, span=span, latest=piece, answer_at=answer_at)


def _size(piece: Piece) -> int:
    return len(piece.text.encode(errors="replace"))
