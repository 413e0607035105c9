"""How much of a job's output is kept: all of it up to a bound, and a line that says so beyond."""

from __future__ import annotations

from attrs import evolve, frozen

from opencode_actors.machines.notices import OutputKind
from opencode_actors.machines.transcript import Piece


@frozen(kw_only=True)
class OutputMeter:
    """`size` is in bytes; a `limit` of 0 means none."""

    limit: int
    size: int = 0
    truncated: bool = False


@frozen(kw_only=True)
class Placed:
    """A piece with its place in the output file."""

    offset: int
    piece: Piece


def admit(meter: OutputMeter, pieces: tuple[Piece, ...]) -> tuple[OutputMeter, tuple[Placed, ...]]:
    """What of `pieces` is written, and where. The bound is for the model's words: the last line is extra."""
    placed: list[Placed] = []
    for piece in pieces:
        if meter.truncated:
            break
        text, full = _fit(meter, piece.text)
        meter = _place(meter, evolve(piece, text=text), placed)
        if full:
            last = f"\n[output ends here: maxOutputSize is {meter.limit} bytes]\n"
            meter = _place(meter, Piece(kind=OutputKind.REMARK, text=last), placed)
            meter = evolve(meter, truncated=True)
    return meter, tuple(placed)


def _fit(meter: OutputMeter, text: str) -> tuple[str, bool]:
    """As much of `text` as there is room for, cut between two characters, and whether some was left."""
    encoded = text.encode(errors="replace")
    room = meter.limit - meter.size
    if not meter.limit or len(encoded) <= room:
        return text, False
    return encoded[:room].decode(errors="ignore"), True


def _place(meter: OutputMeter, piece: Piece, placed: list[Placed]) -> OutputMeter:
    if not piece.text:
        return meter
    placed.append(Placed(offset=meter.size, piece=piece))
    return evolve(meter, size=meter.size + len(piece.text.encode(errors="replace")))
