"""Ids of our own for a prompt, in the form in which OpenCode makes them.

A prompt that is sent twice under the same message and part id is one prompt, also after a crash. The
server sorts messages by id, so an id must carry the time: 12 hexadecimal digits that grow, then 14
characters that nobody else has.
"""

from __future__ import annotations

import random

from opencode_actors.machines.server_events import MessageId, PartId

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def message_id(epoch_ms: int, rng: random.Random) -> MessageId:
    """Sorts behind every message that the server made before `epoch_ms`."""
    return MessageId("msg_" + _stem(epoch_ms, rng))


def part_id(epoch_ms: int, rng: random.Random) -> PartId:
    return PartId("prt_" + _stem(epoch_ms, rng))


def _stem(epoch_ms: int, rng: random.Random) -> str:
    # 36 bits of the milliseconds and 12 for a counter within one of them, which starts at 1
    time = (epoch_ms * 0x1000 + 1) % (1 << 48)
    return f"{time:012x}" + "".join(rng.choices(_ALPHABET, k=14))
