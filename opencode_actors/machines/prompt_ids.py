"""Ids of our own for a prompt, in the form in which OpenCode makes them.

A prompt that is sent twice under the same message and part id is one prompt, also after a crash. The
server sorts messages by id, so an id carries the time at which the prompt is sent: one that was made
while the prompt still waited in a queue would put it before the answer to the prompt ahead of it.
"""

from __future__ import annotations

from attrs import evolve

from opencode_actors.machines.server_events import MessageId, PartId
from opencode_actors.machines.vocabulary import Moment
from opencode_actors.ports import Prompt

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_TAIL = 14
# 36 bits of the milliseconds and 12 for a counter within one of them, which starts at 1.
TIME_BITS = 48
PER_MILLISECOND = 0x1000


def stamped(prompt: Prompt, moment: Moment) -> Prompt:
    stem = f"{id_time(moment.wall):012x}{_tail(moment.roll)}"
    return evolve(prompt, message_id=MessageId(f"msg_{stem}"), part_id=PartId(f"prt_{stem}"))


def id_time(wall: float) -> int:
    """What the first twelve digits of an id say that was made at this time of day."""
    return (int(wall * 1000) * PER_MILLISECOND + 1) % (1 << TIME_BITS)


def _tail(roll: float) -> str:
    """The 53 random bits of a roll, in the server's alphabet."""
    rest, characters = int(roll * (1 << 53)), ""
    while rest:
        rest, index = divmod(rest, len(_ALPHABET))
        characters += _ALPHABET[index]
    return characters.ljust(_TAIL, "0")
